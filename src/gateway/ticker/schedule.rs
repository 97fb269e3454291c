//! When to tick: at a fixed rate, without drift, and without ever chasing ticks that are past.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// Due instants at a fixed rate: tick n is due at start + n / rate, however long the ticks before it took.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    start: Instant,
    rate: NonZeroU32,
    /// The tick that is due next.
    next: u64,
}

/// The next tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// When it is due: past if it is late.
    pub(super) at: Instant,
    /// Whether the tick before it ended only after the next was due.
    pub(super) overrun: bool,
    /// Ticks before it that were left out.
    pub(super) skipped: u64,
}

impl Schedule {
    /// Starts at `start`, which is when the first tick is due, at `rate` ticks per second.
    pub(super) const fn new(start: Instant, rate: NonZeroU32) -> Self {
        Self {
            start,
            rate,
            next: 0,
        }
    }

    /// The tick that comes next at `now`; it counts as begun, so call it once per tick.
    pub(super) fn next(&mut self, now: Instant) -> Due {
        let current = self.tick_at(now);
        let overrun = self.next > 0 && current >= self.next;
        let mut skipped = 0;
        if overrun {
            skipped = current - self.next;
            self.next = current;
        }
        let at = self.due(self.next);
        self.next += 1;
        Due {
            at,
            overrun,
            skipped,
        }
    }

    /// When tick `n` is due: computed from the start, so that no rounding adds up.
    fn due(&self, n: u64) -> Instant {
        let rate = u64::from(self.rate.get());
        let part = Duration::from_nanos((n % rate) * 1_000_000_000 / rate);
        self.start + Duration::from_secs(n / rate) + part
    }

    /// The newest tick that is due at `now`: the largest n with n / rate seconds since the start.
    fn tick_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_nanos();
        let guess = since * u128::from(self.rate.get()) / 1_000_000_000;
        let guess = u64::try_from(guess).unwrap_or(u64::MAX);
        // `due` rounds down, so the tick after may be due already.
        if self.due(guess + 1) <= now {
            guess + 1
        } else {
            guess
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIXTY: NonZeroU32 = NonZeroU32::new(60).unwrap();

    const fn due(at: Instant, overrun: bool, skipped: u64) -> Due {
        Due {
            at,
            overrun,
            skipped,
        }
    }

    #[test]
    fn an_undisturbed_rate_does_not_drift() {
        let start = crate::clock::Clock::system().now();
        let mut schedule = Schedule::new(start, SIXTY);
        let mut now = start;
        for n in 0..60 * 3_600 {
            let next = schedule.next(now);
            assert_eq!(next, due(schedule.due(n), false, 0));
            // The tick takes some time, which the next wait makes up for.
            now = next.at + Duration::from_micros(n % 10_000);
        }
        let hour = start + Duration::from_secs(3_600);
        assert_eq!(schedule.due(60 * 3_600), hour);
    }

    #[test]
    fn a_late_tick_begins_at_once_and_whole_ticks_are_left_out() {
        let start = crate::clock::Clock::system().now();
        let mut schedule = Schedule::new(start, SIXTY);
        assert_eq!(schedule.next(start), due(start, false, 0));
        // It took a tick and a half: tick 1 is half a tick late, and none is lost.
        let now = start + Duration::from_millis(25);
        assert_eq!(schedule.next(now), due(schedule.due(1), true, 0));
        // It took ten and a half ticks, until just after tick 12 was due: ticks 2 to 11 are lost.
        let now = start + Duration::from_nanos(200_000_001);
        assert_eq!(schedule.next(now), due(schedule.due(12), true, 10));
        assert_eq!(schedule.next(now), due(schedule.due(13), false, 0));
    }

    #[test]
    fn a_tick_is_due_when_it_is_due() {
        let start = crate::clock::Clock::system().now();
        for rate in [20, 60, 64, 128, 1_000] {
            let schedule = Schedule::new(start, NonZeroU32::new(rate).unwrap());
            for n in (0..1_000_000).step_by(997) {
                let due = schedule.due(n);
                assert_eq!(schedule.tick_at(due), n);
                assert_eq!(schedule.tick_at(due + Duration::from_nanos(1)), n);
                if n > 0 {
                    assert_eq!(schedule.tick_at(due - Duration::from_nanos(1)), n - 1);
                }
            }
        }
    }
}
