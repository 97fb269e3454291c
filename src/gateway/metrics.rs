//! What a gateway counts and measures.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::registry::{Registry, Unit};

use super::{admit::Refusal, exchange::WorkerExchange, shared::Shared};
use crate::{
    admin::{Readings, Scrape, Source},
    udp::KernelDrops,
    wire::CloseCode,
};

/// What a gateway tells those who watch it: its metrics, whether it works, and whether it admits. From
/// [`Gateway::metrics`](super::Gateway::metrics). Clones are of the same gateway.
///
/// Seats add up in every scrape: admissions with outcome `joined` are the seats that are live or suspended and those that ended.
#[derive(Clone)]
pub struct GatewayMetrics {
    shared: Arc<Shared>,
    workers: Arc<[Arc<WorkerExchange>]>,
    kernel_drops: Arc<[KernelDrops]>,
}

impl GatewayMetrics {
    pub(super) fn new(
        shared: Arc<Shared>,
        workers: Arc<[Arc<WorkerExchange>]>,
        kernel_drops: Arc<[KernelDrops]>,
    ) -> Self {
        Self {
            shared,
            workers,
            kernel_drops,
        }
    }
}

impl Source for GatewayMetrics {
    fn register(&self, registry: &mut Registry) {
        Scrape::register(registry, self.clone());
    }

    /// Whether its workers run.
    fn is_live(&self) -> bool {
        !self.shared.has_failed()
    }

    /// It admits when it hears of its sidecar, or did lately enough, its simulation ticks, and it does not drain. What hinders it has the
    /// names under which it refuses.
    fn hindrances(&self) -> Vec<&'static str> {
        let now = self.shared.clock.wall();
        let hindrances = [
            (self.shared.is_draining(), Refusal::Draining),
            (!self.shared.sidecar_is_fresh(now), Refusal::ControlStale),
            (
                !self.shared.simulation_is_running(now),
                Refusal::SimulationStalled,
            ),
        ];
        let in_force = hindrances.into_iter().filter(|(is_so, _)| *is_so);
        in_force.map(|(_, refusal)| refusal.label()).collect()
    }
}

impl Readings for GatewayMetrics {
    fn read(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        self.seats(scrape)?;
        self.door(scrape)?;
        self.ticks(scrape)?;
        self.control(scrape)
    }
}

impl GatewayMetrics {
    fn seats(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let counts = self.shared.seats.counts();
        scrape.counters(
            "tickgate_gateway_admissions",
            "Clients admitted: to a new seat (joined), or back to their session's (resumed)",
            "outcome",
            [("joined", counts.joined), ("resumed", counts.resumed)],
        )?;
        scrape.gauges(
            "tickgate_gateway_seats",
            "Seats now: served by a connection (live), or waiting for their session to come back (suspended)",
            "state",
            [("live", counts.live), ("suspended", counts.suspended)],
        )?;
        scrape.counters(
            "tickgate_gateway_seat_ends",
            "Seats that ended, by reason",
            "reason",
            counts.ended,
        )
    }

    fn door(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let counters = &self.shared.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        scrape.counters(
            "tickgate_gateway_refusals",
            "Connections closed before they had a seat, by close code",
            "code",
            counters
                .refusals()
                .map(|(code, count)| (code.label(), count)),
        )?;
        scrape.counter(
            "tickgate_gateway_handshakes_dropped",
            "Handshakes forgotten unfinished because their place was needed",
            load(&counters.handshakes_dropped),
        )?;
        scrape.counter(
            "tickgate_gateway_handshake_timeouts",
            "Handshakes forgotten unfinished because their time was over",
            load(&counters.handshake_timeouts),
        )?;
        scrape.counter(
            "tickgate_gateway_retries",
            "Clients asked to prove their address before their handshake",
            load(&counters.retries),
        )?;
        scrape.counter(
            "tickgate_gateway_rate_limited",
            "Connections ignored because their prefix began too many",
            load(&counters.rate_limited),
        )?;
        scrape.counter(
            "tickgate_gateway_misrouted_packets",
            "Packets that the kernel gave to another worker than theirs, and which that one passed on",
            load(&counters.misrouted),
        )?;
        scrape.counter(
            "tickgate_gateway_misrouted_packets_dropped",
            "Those of them that were dropped, because too many waited for their worker",
            load(&counters.misrouted_dropped),
        )?;
        scrape.counter(
            "tickgate_gateway_socket_drops",
            "Packets that the kernel dropped because the socket's buffer was full",
            all_drops(&self.kernel_drops).unwrap_or_default(),
        )
    }

    fn ticks(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let counters = &self.shared.counters;
        let (seconds, buckets) = self.shared.ticks.histogram();
        scrape.histogram(
            "tickgate_gateway_tick_duration",
            "How long the simulation's ticks took, from the tick's beginning to the handing over of what it sends",
            Some(&Unit::Seconds),
            seconds,
            &buckets,
        )?;
        scrape.counter(
            "tickgate_gateway_tick_overruns",
            "Ticks that took longer than the time between two",
            self.shared.ticks.overruns(),
        )?;
        scrape.counter(
            "tickgate_gateway_verifies",
            "Seats that the simulation verified",
            counters.verifies.load(Ordering::Relaxed),
        )?;
        scrape.counter(
            "tickgate_gateway_inputs_dropped",
            "Datagrams of clients dropped because a seat, or all together, sent too many in a tick",
            counters.inputs_dropped.load(Ordering::Relaxed),
        )?;
        let over = &counters.over_budget;
        scrape.counters(
            "tickgate_gateway_over_budget",
            "What clients sent beyond their budgets, and was dropped",
            "what",
            [
                ("datagrams", &over.datagrams),
                ("moves", &over.moves),
                ("packets", &over.packets),
            ]
            .map(|(what, counter)| (what, counter.load(Ordering::Relaxed))),
        )?;
        scrape.counter(
            "tickgate_gateway_outputs_dropped",
            "Payloads of the simulation dropped because a worker was too far behind",
            self.workers.iter().map(|worker| worker.overflowed()).sum(),
        )
    }

    fn control(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let flag = |is_set: bool| if is_set { 1.0 } else { 0.0 };
        let staleness = self.shared.staleness(self.shared.clock.wall());
        scrape.gauge(
            "tickgate_gateway_control_staleness",
            "Time since the sidecar was heard of; infinite if it never was",
            Some(&Unit::Seconds),
            staleness.map_or(f64::INFINITY, |stale| stale.as_secs_f64()),
        )?;
        scrape.gauge(
            "tickgate_gateway_control_attached",
            "Whether the control channel is up",
            None,
            flag(self.shared.is_attached()),
        )?;
        scrape.gauge(
            "tickgate_gateway_draining",
            "Whether the gateway drains",
            None,
            flag(self.shared.is_draining()),
        )
    }
}

/// Packets that the kernel dropped at all of these sockets; none if it does not tell.
pub(super) fn all_drops(sockets: &[KernelDrops]) -> Option<u64> {
    sockets.iter().map(KernelDrops::read).sum()
}

/// Counts since the process's start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) admitted: AtomicU64,
    refused: [AtomicU64; CloseCode::ALL.len()],
    /// Handshakes forgotten unfinished because their place was needed.
    pub(super) handshakes_dropped: AtomicU64,
    /// Handshakes forgotten unfinished because their time was over.
    pub(super) handshake_timeouts: AtomicU64,
    /// Clients asked to prove their address first.
    pub(super) retries: AtomicU64,
    /// Connections ignored because their prefix began too many.
    pub(super) rate_limited: AtomicU64,
    pub(super) inputs_dropped: AtomicU64,
    /// Packets that came to another worker than theirs and were passed on, and those of them that were dropped.
    pub(super) misrouted: AtomicU64,
    pub(super) misrouted_dropped: AtomicU64,
    /// What connections sent beyond their budgets.
    pub(super) over_budget: OverBudget,
    /// Seats looked at by [`Seats::verify`](super::Seats::verify).
    pub(super) verifies: AtomicU64,
}

/// What was dropped because its connection had sent too much of it.
#[derive(Debug, Default)]
pub(super) struct OverBudget {
    /// Packets, before they were decrypted.
    pub(super) packets: AtomicU64,
    /// Packets that came from another address than the last, when there had been too many addresses.
    pub(super) moves: AtomicU64,
    /// Datagrams, of which there were too many or which were too large.
    pub(super) datagrams: AtomicU64,
}

impl Counters {
    /// A client was refused, or a connection closed before it had a seat, with this code.
    pub(super) fn refused(&self, code: CloseCode) {
        if let Some(counter) = Self::index(code).and_then(|i| self.refused.get(i)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn index(code: CloseCode) -> Option<usize> {
        CloseCode::ALL.iter().position(|known| *known == code)
    }

    /// Refusals by close code.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (CloseCode, u64)> {
        CloseCode::ALL
            .iter()
            .zip(&self.refused)
            .map(|(code, count)| (*code, count.load(Ordering::Relaxed)))
    }
}

/// Upper bounds of the tick histogram, in microseconds: from a tick that does nothing to several ticks late at 20 Hz, with bounds at
/// the intervals of 128, 60, 30 and 20 Hz.
const TICK_BOUNDS_US: [u64; 12] = [
    50, 100, 250, 500, 1_000, 2_000, 4_000, 7_812, 16_667, 33_333, 50_000, 200_000,
];

/// How long the simulation's ticks take.
///
/// Written once per tick, by the one thread that ticks, without a lock; read by whoever scrapes, to whom a tick under way may be in one
/// number and not yet in the other.
#[derive(Debug)]
pub(super) struct TickTimes {
    interval: Option<Duration>,
    buckets: [AtomicU64; TICK_BOUNDS_US.len()],
    /// Longer than the last bound.
    longer: AtomicU64,
    total_ns: AtomicU64,
    overruns: AtomicU64,
}

impl TickTimes {
    /// `interval` is the time between two ticks: one that takes longer is an overrun.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            buckets: Default::default(),
            longer: AtomicU64::new(0),
            total_ns: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
        }
    }

    /// A tick took so long.
    pub(super) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = TICK_BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets
            .get(bucket)
            .unwrap_or(&self.longer)
            .fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
        if self.interval.is_some_and(|interval| took > interval) {
            self.overruns.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ticks that took longer than the interval between two.
    pub(super) fn overruns(&self) -> u64 {
        self.overruns.load(Ordering::Relaxed)
    }

    /// Seconds in all, and per upper bound in seconds the ticks that took so long and longer than the bound before.
    pub(super) fn histogram(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = TICK_BOUNDS_US
            .iter()
            .map(|us| Duration::from_micros(*us).as_secs_f64());
        let counts = self.buckets.iter().chain([&self.longer]);
        let total = Duration::from_nanos(self.total_ns.load(Ordering::Relaxed));
        let buckets = bounds
            .chain([f64::INFINITY])
            .zip(counts.map(|count| count.load(Ordering::Relaxed)));
        (total.as_secs_f64(), buckets.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{ManualTime, Timestamp},
        gateway::Limits,
        seat::{SeatConfig, SeatTable},
        udp::Socket,
    };

    #[test]
    fn ticks_fall_into_the_first_bucket_that_holds_them() {
        let times = TickTimes::new(Some(Duration::from_millis(50)));
        for us in [0, 50, 51, 50_000, 50_001, 200_001] {
            times.record(Duration::from_micros(us));
        }
        let (total, buckets) = times.histogram();
        assert!((total - 0.300_103).abs() < 1e-9);
        let filled: Vec<_> = buckets.iter().filter(|(_, n)| *n > 0).copied().collect();
        assert_eq!(
            filled,
            [
                (0.000_05, 2),
                (0.000_1, 1),
                (0.05, 1),
                (0.2, 1),
                (f64::INFINITY, 1)
            ]
        );
        assert_eq!(times.overruns(), 2);
    }

    /// A gateway that has just started, and its time.
    fn metrics() -> (GatewayMetrics, ManualTime) {
        let time = ManualTime::starting_at(Timestamp(1_700_000_000_000));
        let seats = SeatTable::new(SeatConfig::default());
        let id = "one".parse().unwrap();
        let shared = Shared::new(id, Limits::default(), time.clock(), seats, None);
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), 4_096).unwrap();
        let drops = socket.kernel_drops();
        (
            GatewayMetrics::new(Arc::new(shared), Arc::new([]), Arc::new([drops])),
            time,
        )
    }

    #[test]
    fn every_metric_is_told_from_the_start() {
        let (metrics, _) = metrics();
        metrics.shared.counters.refused(CloseCode::TokenUsed);
        metrics.shared.ticks.record(Duration::from_millis(1));
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for line in [
            "admissions_total{outcome=\"joined\"} 0",
            "admissions_total{outcome=\"resumed\"} 0",
            "refusals_total{code=\"token_used\"} 1",
            "refusals_total{code=\"drained\"} 0",
            "seats{state=\"live\"} 0",
            "seats{state=\"suspended\"} 0",
            "seat_ends_total{reason=\"lost\"} 0",
            "tick_duration_seconds_count 1",
            "tick_duration_seconds_bucket{le=\"0.001\"} 1",
            "tick_duration_seconds_bucket{le=\"+Inf\"} 1",
            "tick_overruns_total 0",
            "verifies_total 0",
            "control_staleness_seconds inf",
            "control_attached 0.0",
            "inputs_dropped_total 0",
            "over_budget_total{what=\"packets\"} 0",
            "outputs_dropped_total 0",
            "misrouted_packets_total 0",
            "misrouted_packets_dropped_total 0",
            "socket_drops_total 0",
            "handshakes_dropped_total 0",
            "retries_total 0",
            "rate_limited_total 0",
            "draining 0.0",
        ] {
            let line = format!("tickgate_gateway_{line}\n");
            assert!(page.contains(&line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn ready_is_in_touch_and_ticking_and_not_draining() {
        let (metrics, time) = metrics();
        let shared = Arc::clone(&metrics.shared);
        let now = || shared.clock.wall();
        assert!(metrics.is_live() && !metrics.is_ready());
        assert_eq!(
            metrics.hindrances(),
            ["control_stale", "simulation_stalled"]
        );
        shared.heard_of_sidecar(now());
        assert_eq!(metrics.hindrances(), ["simulation_stalled"]);
        shared.ticked(now());
        assert!(metrics.is_ready());
        time.advance(Duration::from_secs(3));
        assert_eq!(metrics.hindrances(), ["simulation_stalled"], "for 2 s");
        shared.ticked(now());
        shared.start_draining(now());
        assert_eq!(metrics.hindrances(), ["draining"]);
        shared.cancel_draining();
        assert!(metrics.is_ready());
        time.advance(Duration::from_secs(28));
        shared.ticked(now());
        assert_eq!(metrics.hindrances(), ["control_stale"], "for over 30 s");
        assert!(metrics.is_live());
        shared.fail();
        assert!(!metrics.is_live());
    }
}
