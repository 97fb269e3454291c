//! What the sidecar counts, and how it is told to those who watch it.
//!
//! Counters are plain atomics where the work is done; what the registry or the store know anyway is read when it is asked for.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::registry::Registry as Metrics;
use tokio::sync::watch;

use crate::{
    admin::{Readings, Scrape, Source},
    id::Revision,
};

use super::registry::{Registry, Totals};

/// A counter with one label, whose values are fixed names of the code.
#[derive(Debug)]
pub(super) struct Labelled(Mutex<BTreeMap<&'static str, u64>>);

impl Labelled {
    /// One whose `usual` values are told from the start, as zero.
    fn new(usual: &[&'static str]) -> Self {
        Self(Mutex::new(usual.iter().map(|value| (*value, 0)).collect()))
    }

    pub(super) fn count(&self, value: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(value).or_default() += 1;
    }

    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|(value, count)| (*value, *count))
            .collect()
    }
}

/// A counter.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: usize) {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted.
#[derive(Debug)]
pub(super) struct Counters {
    /// Logins, by method: a login method's name, or "backend".
    pub(super) logins: Labelled,
    /// Proofs of an account that were refused, by the refusal's label.
    pub(super) refused_logins: Labelled,
    /// Letters, by outcome: "sent", or why not: "expired", "refused" (by the relay, for good), "failed", "unwritable".
    pub(super) mails: Labelled,
    /// Refreshes, by outcome: "rotated", "again", or why not: "reused", "ended", "rejected".
    pub(super) refreshes: Labelled,
    /// Connect tokens asked for, by outcome: "minted", or a refusal's label.
    pub(super) connect_tokens: Labelled,
    /// Revocations that ended something, by kind: "session", "player", "logout". What a refresh token's reuse ended is a refresh.
    pub(super) revocations: Labelled,
    /// Calls answered, by gRPC status.
    pub(super) calls: Labelled,
    /// Sessions in reports whose activity did not count.
    pub(super) activity_rejected: Count,
    /// Seats in reports that were not minted to their gateway.
    pub(super) seats_rejected: Count,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            logins: Labelled::new(&["backend"]),
            refused_logins: Labelled::new(&["wrong_code"]),
            mails: Labelled::new(&["sent", "failed", "refused", "expired"]),
            refreshes: Labelled::new(&["rotated", "again", "reused", "ended", "rejected"]),
            connect_tokens: Labelled::new(&["minted"]),
            revocations: Labelled::new(&["session", "player", "logout"]),
            calls: Labelled::new(&["ok"]),
            activity_rejected: Count::default(),
            seats_rejected: Count::default(),
        }
    }
}

/// What a sidecar tells of itself: its metrics, and whether it can serve. Cheap to clone; it does not keep the sidecar running.
#[derive(Clone)]
pub struct SidecarMetrics(Arc<Sources>);

/// Where the values come from.
pub(super) struct Sources {
    pub(super) counters: Arc<Counters>,
    pub(super) registry: Arc<Registry>,
    pub(super) head: watch::Receiver<Revision>,
    /// Whether the store's medium has failed for good.
    pub(super) failed: watch::Receiver<bool>,
    /// Whether the services are fit to be called, as the health service tells it too.
    pub(super) serving: watch::Receiver<bool>,
}

impl SidecarMetrics {
    pub(super) fn new(sources: Sources) -> Self {
        Self(Arc::new(sources))
    }
}

impl fmt::Debug for SidecarMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarMetrics").finish_non_exhaustive()
    }
}

impl Source for SidecarMetrics {
    fn register(&self, registry: &mut Metrics) {
        Scrape::register(registry, self.clone());
    }

    /// False once the store's medium has failed: no change can be made any more, and only a new process opens the file again.
    fn is_live(&self) -> bool {
        !*self.0.failed.borrow()
    }

    /// Whether the store works, and the sidecar is not shutting down.
    fn is_ready(&self) -> bool {
        self.is_live() && *self.0.serving.borrow()
    }
}

impl Readings for SidecarMetrics {
    fn read(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let Sources {
            counters,
            registry,
            head,
            failed,
            serving: _,
        } = &*self.0;
        read_counters(counters, scrape)?;
        let Totals {
            attached,
            draining,
            seats,
            acknowledged,
        } = registry.totals();
        let Revision(head) = *head.borrow();
        let lag = acknowledged.map_or(0, |Revision(slowest)| head.saturating_sub(slowest));
        let gauges = [
            (
                "gateways_attached",
                "Gateways that are attached",
                as_u64(attached),
            ),
            (
                "gateways_draining",
                "Attached gateways that drain",
                as_u64(draining),
            ),
            (
                "gateway_seats",
                "Seats taken on the attached gateways, by their own counts",
                seats,
            ),
            (
                "revocation_head",
                "The newest revision of the revocation log",
                head,
            ),
            (
                "revocation_lag",
                "Revisions that the slowest attached gateway has not acknowledged",
                lag,
            ),
            (
                "store_failed",
                "Whether the store's medium has failed for good (1) or not (0)",
                u64::from(*failed.borrow()),
            ),
        ];
        for (name, help, value) in gauges {
            scrape.gauge(&named(name), help, None, as_f64(value))?;
        }
        Ok(())
    }
}

fn read_counters(counters: &Counters, scrape: &mut Scrape<'_>) -> fmt::Result {
    let Counters {
        logins,
        refused_logins,
        mails,
        refreshes,
        connect_tokens,
        revocations,
        calls,
        activity_rejected,
        seats_rejected,
    } = counters;
    let labelled = [
        ("logins", "Sessions made", "method", logins),
        (
            "logins_refused",
            "Proofs of an account that were refused",
            "reason",
            refused_logins,
        ),
        (
            "mails",
            "Letters that came to an end, one way or another",
            "outcome",
            mails,
        ),
        ("refreshes", "Refreshes asked for", "outcome", refreshes),
        (
            "connect_tokens",
            "Connect tokens asked for",
            "outcome",
            connect_tokens,
        ),
        (
            "revocations",
            "Revocations that ended something",
            "kind",
            revocations,
        ),
        ("calls", "gRPC calls answered", "code", calls),
    ];
    for (name, help, label, counter) in labelled {
        scrape.counters(&named(name), help, label, counter.read())?;
    }
    let plain = [
        (
            "activity_rejected",
            "Sessions whose activity did not count, since no token was minted for the gateway that reported it",
            activity_rejected,
        ),
        (
            "seats_rejected",
            "Reported seats that are not known, since no token was minted for the gateway that reported them",
            seats_rejected,
        ),
    ];
    for (name, help, counter) in plain {
        scrape.counter(&named(name), help, counter.read())?;
    }
    Ok(())
}

fn named(name: &str) -> String {
    format!("tickgate_sidecar_{name}")
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Gauges are floating-point numbers, exact up to 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "no revision and no count comes near 2^53"
)]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn metrics() -> (SidecarMetrics, watch::Sender<bool>, watch::Sender<bool>) {
        let (failing, failed) = watch::channel(false);
        let (serve, serving) = watch::channel(true);
        let (_, head) = watch::channel(Revision(7));
        let metrics = SidecarMetrics::new(Sources {
            counters: Arc::new(Counters::new()),
            registry: Arc::new(Registry::new(Clock::system())),
            head,
            failed,
            serving,
        });
        (metrics, failing, serve)
    }

    #[test]
    fn every_metric_is_told_from_the_start() {
        let (metrics, _failing, _serve) = metrics();
        metrics.0.counters.connect_tokens.count("gateway_away");
        metrics.0.counters.activity_rejected.add(3);
        let mut registry = Metrics::default();
        metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for line in [
            "tickgate_sidecar_logins_total{method=\"backend\"} 0",
            "tickgate_sidecar_logins_refused_total{reason=\"wrong_code\"} 0",
            "tickgate_sidecar_mails_total{outcome=\"sent\"} 0",
            "tickgate_sidecar_refreshes_total{outcome=\"rotated\"} 0",
            "tickgate_sidecar_connect_tokens_total{outcome=\"minted\"} 0",
            "tickgate_sidecar_connect_tokens_total{outcome=\"gateway_away\"} 1",
            "tickgate_sidecar_revocations_total{kind=\"player\"} 0",
            "tickgate_sidecar_activity_rejected_total 3",
            "tickgate_sidecar_revocation_head 7",
            "tickgate_sidecar_revocation_lag 0",
            "tickgate_sidecar_gateways_attached 0",
            "tickgate_sidecar_store_failed 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn readiness_is_the_stores() {
        let (metrics, failing, serve) = metrics();
        assert!(metrics.is_live() && metrics.is_ready());
        serve.send_replace(false);
        assert!(metrics.is_live() && !metrics.is_ready());
        serve.send_replace(true);
        failing.send_replace(true);
        assert!(!metrics.is_live() && !metrics.is_ready());
    }
}
