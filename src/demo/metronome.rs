//! When to tick: at a fixed rate, without drift, and without ever chasing ticks that are past.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// Due instants at a fixed rate: tick n is due at start + n / rate, however long the ticks before it took.
///
/// A tick that begins late begins at once. Ticks whose whole time has passed meanwhile are left out and counted: a loop that made up
/// for them would fall behind further with each.
#[derive(Debug, Clone)]
pub struct Metronome {
    start: Instant,
    rate: NonZeroU32,
    /// The tick that is due next.
    next: u64,
    pace: Pace,
}

/// How well the rate was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Ticks that were begun.
    pub ticks: u64,
    /// Ticks that ended only after the next was due.
    pub overruns: u64,
    /// Ticks that were left out.
    pub skipped: u64,
}

impl Metronome {
    /// Starts at `start`, which is when the first tick is due, at `rate` ticks per second.
    pub const fn new(start: Instant, rate: NonZeroU32) -> Self {
        Self {
            start,
            rate,
            next: 0,
            pace: Pace {
                ticks: 0,
                overruns: 0,
                skipped: 0,
            },
        }
    }

    /// How long to wait at `now` before the next tick; it counts as begun, so call it once per tick.
    pub fn wait(&mut self, now: Instant) -> Duration {
        let current = self.tick_at(now);
        if current >= self.next && self.pace.ticks > 0 {
            self.pace.overruns += 1;
            self.pace.skipped += current - self.next;
            self.next = current;
        }
        let due = self.due(self.next);
        self.next += 1;
        self.pace.ticks += 1;
        due.saturating_duration_since(now)
    }

    /// How well the rate was held so far.
    pub const fn pace(&self) -> Pace {
        self.pace
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

    #[test]
    fn an_undisturbed_rate_does_not_drift() {
        let start = crate::clock::Clock::system().now();
        let mut metronome = Metronome::new(start, SIXTY);
        let mut now = start;
        for n in 0..60 * 3_600 {
            let wait = metronome.wait(now);
            now += wait;
            assert_eq!(now, metronome.due(n));
            // The tick takes some time, which the next wait makes up for.
            now += Duration::from_micros(n % 10_000);
        }
        let expected = Pace {
            ticks: 216_000,
            ..Pace::default()
        };
        assert_eq!(metronome.pace(), expected);
        assert_eq!(
            metronome.due(60 * 3_600),
            start + Duration::from_secs(3_600)
        );
    }

    #[test]
    fn a_late_tick_begins_at_once_and_whole_ticks_are_left_out() {
        let start = crate::clock::Clock::system().now();
        let mut metronome = Metronome::new(start, SIXTY);
        assert_eq!(metronome.wait(start), Duration::ZERO);
        // It took a tick and a half: tick 1 is half a tick late, and none is lost.
        let now = start + Duration::from_millis(25);
        assert_eq!(metronome.wait(now), Duration::ZERO);
        // It took ten and a half ticks, until just after tick 12 was due: ticks 2 to 11 are lost.
        let now = start + Duration::from_nanos(200_000_001);
        assert_eq!(metronome.wait(now), Duration::ZERO);
        let expected = Pace {
            ticks: 3,
            overruns: 2,
            skipped: 10,
        };
        assert_eq!(metronome.pace(), expected);
        let until_13 = metronome.wait(now);
        assert_eq!(now + until_13, metronome.due(13));
    }

    #[test]
    fn a_tick_is_due_when_it_is_due() {
        let start = crate::clock::Clock::system().now();
        for rate in [20, 60, 64, 128, 1_000] {
            let metronome = Metronome::new(start, NonZeroU32::new(rate).unwrap());
            for n in (0..1_000_000).step_by(997) {
                let due = metronome.due(n);
                assert_eq!(metronome.tick_at(due), n);
                assert_eq!(metronome.tick_at(due + Duration::from_nanos(1)), n);
                if n > 0 {
                    assert_eq!(metronome.tick_at(due - Duration::from_nanos(1)), n - 1);
                }
            }
        }
    }
}
