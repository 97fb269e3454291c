//! Times in 32 bits: tenths of a second since the table was first told the time.

use std::time::Duration;

use super::{
    fault::{Fault, is_planted},
    sync::{AtomicU64, Ordering},
};
use crate::clock::Timestamp;

/// What no time is: 13 years and a half after the beginning, or later.
pub(super) const NEVER: u32 = u32::MAX;

/// In milliseconds.
const UNIT: u64 = 100;

const NOT_BEGUN: u64 = u64::MAX;

/// When the table was first told the time.
///
/// A seat's deadlines are kept as tenths of a second since then: half the memory of whole timestamps to look through on each tick.
/// They are rounded up, so that nobody ends early, and late by less than a tenth.
#[derive(Debug)]
pub(super) struct Era(AtomicU64);

/// A time, as deadlines are held to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// An absolute end is due if it is smaller than this.
    pub(super) ends: u32,
    /// A session is idle if it was last active before this.
    pub(super) idle: u32,
}

impl Due {
    pub(super) const fn is_expired(self, ends_at: u32) -> bool {
        ends_at < self.ends
    }

    pub(super) const fn is_idle(self, active_at: u32) -> bool {
        active_at < self.idle
    }
}

impl Era {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(NOT_BEGUN))
    }

    /// Begins, if it has not begun.
    pub(super) fn begin(&self, now: Timestamp) {
        if self.0.load(Ordering::Relaxed) == NOT_BEGUN {
            // Whoever is first has said it.
            let _ = self
                .0
                .compare_exchange(NOT_BEGUN, now.0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Milliseconds since the beginning.
    fn since(&self, time: Timestamp) -> u64 {
        time.0.saturating_sub(self.0.load(Ordering::Relaxed))
    }

    /// The time, or up to a tenth of a second later.
    pub(super) fn round_up(&self, time: Timestamp) -> u32 {
        if is_planted(Fault::EndsEarly) {
            return narrow(self.since(time) / UNIT);
        }
        narrow(self.since(time).div_ceil(UNIT))
    }

    /// What is due at `now`, where sessions are idle after `idle`.
    pub(super) fn due(&self, now: Timestamp, idle: Duration) -> Due {
        let now = self.since(now);
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        Due {
            ends: narrow(now / UNIT + 1),
            idle: now
                .checked_sub(idle)
                .map_or(0, |until| narrow(until / UNIT + 1)),
        }
    }
}

fn narrow(time: u64) -> u32 {
    u32::try_from(time).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_042);

    fn era() -> Era {
        let era = Era::new();
        era.begin(START);
        era.begin(Timestamp(7));
        era
    }

    #[test]
    fn what_is_due_is_never_early_and_at_most_a_tenth_late() {
        let era = era();
        for end in (0..1_000).chain(86_400_000..86_400_200) {
            let end = START.after(Duration::from_millis(end));
            let rounded = era.round_up(end);
            for late in 0..=100 {
                let due = era.due(end.after(Duration::from_millis(late)), Duration::ZERO);
                let early = era.due(end.before(Duration::from_millis(late + 1)), Duration::ZERO);
                assert!(!early.is_expired(rounded) || end <= START);
                assert!(late < 99 || due.is_expired(rounded));
                assert_eq!(due.is_idle(rounded), due.is_expired(rounded));
            }
        }
    }

    #[test]
    fn idle_counts_from_the_last_activity() {
        let era = era();
        let idle = Duration::from_millis(5_050);
        let active = era.round_up(START.after(Duration::from_millis(1_230)));
        let at = |ms| era.due(START.after(Duration::from_millis(ms)), idle);
        assert!(!at(0).is_idle(0) && !at(6_279).is_idle(active));
        assert!(!at(6_349).is_idle(active) && at(6_350).is_idle(active));
    }

    #[test]
    fn never_is_never_due_and_the_past_is_due_at_once() {
        let era = era();
        assert_eq!(era.round_up(Timestamp(u64::MAX)), NEVER);
        let late = era.due(Timestamp(u64::MAX), Duration::ZERO);
        assert!(!late.is_expired(NEVER) && !late.is_idle(NEVER));
        assert!(late.is_expired(NEVER - 1));
        assert!(
            era.due(START, Duration::MAX)
                .is_expired(era.round_up(Timestamp(1)))
        );
    }

    /// A test's clock may begin at the epoch, or before what comes first.
    #[test]
    fn it_begins_once_even_at_the_epoch() {
        let era = Era::new();
        era.begin(Timestamp(0));
        era.begin(START);
        assert_eq!(era.round_up(Timestamp(250)), 3);
    }
}
