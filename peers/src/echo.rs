//! What an echo run asks for, and what comes of it: every client sends at a steady rate, and each datagram comes back or does not.

use std::time::{Duration, Instant};

use crate::{load::Load, rig::stopwatch::percentile};

/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 64;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) hz: f64,
    /// How many come in a second beforehand.
    pub(crate) gathering: f64,
    /// Played, and not measured.
    pub(crate) warmup: Duration,
    pub(crate) span: Duration,
}

impl Plan {
    /// Sends of one client before the measured part, and in it.
    fn rounds(&self) -> (u64, u64) {
        let rounds = |span: Duration| (span.as_secs_f64() * self.hz).round() as u64;
        (rounds(self.warmup), rounds(self.span))
    }

    /// All sends, and how many of them are before the measured part. Send `n` is of client `n % clients`.
    pub(crate) fn sends(&self) -> (u64, u64) {
        let (warmup, span) = self.rounds();
        let clients = self.clients as u64;
        ((warmup + span) * clients, warmup * clients)
    }

    /// A send that is later than this, at p99, is another load than the one that was asked for: a quarter of the time between two.
    pub(crate) fn latest(&self) -> Duration {
        Duration::from_secs_f64(0.25 / self.hz)
    }

    /// When a send is due: the clients' phases are evenly spread.
    pub(crate) fn due(&self, began: Instant, send: u64) -> Instant {
        began + Duration::from_secs_f64(send as f64 / (self.hz * self.clients as f64))
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub(crate) struct Echo {
    pub(crate) load: Load,
    /// The server's processor time in the measured part.
    pub(crate) cpu: Duration,
    /// From when a datagram was due to be sent until it was back, in milliseconds.
    pub(crate) rtt_p50: f64,
    pub(crate) rtt_p99: f64,
    /// Packets that the kernel dropped before the server took them.
    pub(crate) drops: u64,
}

impl Echo {
    /// Microseconds of the server's processor time for each datagram in and out.
    pub(crate) fn cost(&self) -> f64 {
        1e6 * self.cpu.as_secs_f64() / self.load.done.max(1) as f64
    }

    pub(crate) fn loss(&self) -> f64 {
        self.load.lost() as f64 / self.load.asked.max(1) as f64
    }
}

/// Which sends have come back, and how long it took them.
pub(crate) struct Returns {
    plan: Plan,
    began: Instant,
    /// By send, of the measured part.
    back: Vec<bool>,
    /// In milliseconds.
    rtts: Vec<f64>,
}

impl Returns {
    pub(crate) fn new(plan: Plan, began: Instant) -> Self {
        let (all, before) = plan.sends();
        let measured = (all - before) as usize;
        Self {
            plan,
            began,
            back: vec![false; measured],
            rtts: Vec::with_capacity(measured),
        }
    }

    /// What to send: the send's number, and padding.
    pub(crate) fn payload(send: u64) -> [u8; PAYLOAD] {
        let mut payload = [0; PAYLOAD];
        for (byte, of_number) in payload.iter_mut().zip(send.to_be_bytes()) {
            *byte = of_number;
        }
        payload
    }

    /// A payload came back at this instant. What is not one of ours, or came twice, does not count.
    pub(crate) fn take(&mut self, payload: &[u8], at: Instant) {
        let Some(number) = payload.first_chunk() else {
            return;
        };
        let send = u64::from_be_bytes(*number);
        let (_, before) = self.plan.sends();
        let place = send.checked_sub(before).map(|place| place as usize);
        let Some(back) = place.and_then(|place| self.back.get_mut(place)) else {
            return;
        };
        if payload.len() == PAYLOAD && !std::mem::replace(back, true) {
            let due = self.plan.due(self.began, send);
            let took = at.saturating_duration_since(due);
            self.rtts.push(1e3 * took.as_secs_f64());
        }
    }

    pub(crate) const fn asked(&self) -> usize {
        self.back.len()
    }

    pub(crate) const fn done(&self) -> usize {
        self.rtts.len()
    }

    pub(crate) fn rtt(&self, part: f64) -> f64 {
        percentile(&self.rtts, part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::stopwatch;

    const PLAN: Plan = Plan {
        clients: 10,
        hz: 30.0,
        gathering: 1_000.0,
        warmup: Duration::from_secs(1),
        span: Duration::from_secs(2),
    };

    #[test]
    fn what_comes_back_counts_once_and_only_of_the_measured_part() {
        let began = stopwatch::start();
        let mut returns = Returns::new(PLAN, began);
        let (all, before) = PLAN.sends();
        assert_eq!((all, before, returns.asked()), (900, 300, 600));
        let after = |send| PLAN.due(began, send) + Duration::from_millis(5);
        for send in [before - 1, before, before, all - 1, all] {
            returns.take(&Returns::payload(send), after(send));
        }
        returns.take(b"another", began);
        returns.take(&[], began);
        assert_eq!(returns.done(), 2);
        assert!((returns.rtt(0.99) - 5.0).abs() < 0.01);
    }

    #[test]
    fn sends_are_evenly_spread_over_each_period() {
        let began = stopwatch::start();
        let period = PLAN.due(began, 10) - began;
        assert!((period.as_secs_f64() - 1.0 / 30.0).abs() < 1e-6);
        let (first, second) = (PLAN.due(began, 3), PLAN.due(began, 4));
        assert!(((second - first).as_secs_f64() - 1.0 / 300.0).abs() < 1e-6);
    }
}
