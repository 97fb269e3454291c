//! A fixed rate for a game loop of one's own: waits for each tick, and tells how well the rate was held.

mod jitter;
mod schedule;

use std::{
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

pub use self::jitter::Jitter;
use self::{jitter::Histogram, schedule::Schedule};
use crate::clock::Clock;

/// Ticks at a fixed rate, without drift: tick n is due n / rate seconds after the first, however long the ticks before it took.
///
/// A tick that is late begins at once. Ticks whose whole time has passed meanwhile are left out and counted: a loop that made up for
/// them would fall behind further with each.
///
/// ```
/// use std::num::NonZeroU32;
/// use tickgate::gateway::Ticker;
///
/// const RATE: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// let mut ticker = Ticker::new(RATE);
/// for _ in 0..3 {
///     ticker.wait();
///     // simulation.tick(), and the game
/// }
/// assert_eq!(ticker.pace().ticks, 3);
/// ```
#[derive(Debug, Clone)]
pub struct Ticker {
    clock: Clock,
    rate: NonZeroU32,
    spin: Duration,
    /// From the first tick on.
    schedule: Option<Schedule>,
    all: Record,
    lap: Record,
}

/// How well a rate was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Ticks that were begun.
    pub ticks: u64,
    /// Ticks that ended only after the next was due.
    pub overruns: u64,
    /// Ticks that were left out.
    pub skipped: u64,
    /// How late ticks began.
    pub jitter: Jitter,
}

impl Ticker {
    /// `rate` ticks per second. The first is due when it is first waited for.
    pub fn new(rate: NonZeroU32) -> Self {
        Self::with_clock(rate, Clock::system())
    }

    /// As [`new`](Self::new), by this clock. It has to be one of real time: the waiting itself is the system's.
    pub fn with_clock(rate: NonZeroU32, clock: Clock) -> Self {
        Self {
            clock,
            rate,
            spin: Duration::ZERO,
            schedule: None,
            all: Record::new(),
            lap: Record::new(),
        }
    }

    /// Wakes up so long before each tick is due and spins for the rest. Default zero: it sleeps until the tick is due.
    ///
    /// A sleep never ends early. How late it ends is the system's: on a virtual machine of two cores under Linux 0.12 ms in the median and
    /// 0.22 ms for one in a hundred (0.05 ms of each are the kernel's timer slack), 1 % of a tick at 60 Hz, and no player can tell. A
    /// game that has a core to itself and wants its ticks to the microsecond spins for 200 µs: the median is then 0.1 µs, for 1.2 % of
    /// the core at 60 Hz. Nothing helps against another program that has the core when the tick is due.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        Duration::from_secs(1) / self.rate.get()
    }

    /// Waits until the next tick is due, and returns how many before it were left out. Call it once per tick, before the tick.
    ///
    /// It blocks the thread, for one period at the most: in a tokio program the game loop has a thread of its own.
    pub fn wait(&mut self) -> u64 {
        let now = self.clock.now();
        let schedule = self
            .schedule
            .get_or_insert_with(|| Schedule::new(now, self.rate));
        let due = schedule.next(now);
        let began = wait_until(&self.clock, due.at, now, self.spin);
        for record in [&mut self.all, &mut self.lap] {
            record.ticks += 1;
            record.overruns += u64::from(due.overrun);
            record.skipped += due.skipped;
            record.late.note(began.saturating_duration_since(due.at));
        }
        due.skipped
    }

    /// How well the rate was held since the first tick.
    pub fn pace(&self) -> Pace {
        self.all.pace()
    }

    /// How well the rate was held since this was called last: for a line in a log every ten seconds, say.
    pub fn lap(&mut self) -> Pace {
        let pace = self.lap.pace();
        self.lap.clear();
        pace
    }
}

/// What a [`Pace`] is told from.
#[derive(Debug, Clone)]
struct Record {
    ticks: u64,
    overruns: u64,
    skipped: u64,
    late: Histogram,
}

impl Record {
    fn new() -> Self {
        Self {
            ticks: 0,
            overruns: 0,
            skipped: 0,
            late: Histogram::new(),
        }
    }

    fn clear(&mut self) {
        let Self {
            ticks,
            overruns,
            skipped,
            late,
        } = self;
        (*ticks, *overruns, *skipped) = (0, 0, 0);
        late.clear();
    }

    fn pace(&self) -> Pace {
        Pace {
            ticks: self.ticks,
            overruns: self.overruns,
            skipped: self.skipped,
            jitter: self.late.jitter(),
        }
    }
}

/// Waits until `due`, and returns when it is over.
#[expect(
    clippy::disallowed_methods,
    reason = "a game loop waits for nothing but the time of its next tick"
)]
fn wait_until(clock: &Clock, due: Instant, now: Instant, spin: Duration) -> Instant {
    let left = due.saturating_duration_since(now);
    let sleep = left.saturating_sub(spin);
    if !sleep.is_zero() {
        thread::sleep(sleep);
    }
    let mut now = if left.is_zero() { now } else { clock.now() };
    while !spin.is_zero() && now < due {
        std::hint::spin_loop();
        now = clock.now();
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    const RATE: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

    #[test]
    fn no_tick_begins_before_it_is_due_and_each_is_counted() {
        let clock = Clock::system();
        for spin in [Duration::ZERO, Duration::from_micros(300)] {
            let mut ticker = Ticker::with_clock(RATE, clock.clone()).spin(spin);
            let mut first = None;
            let mut due = 0;
            for _ in 0..50 {
                let skipped = ticker.wait();
                let start = *first.get_or_insert_with(|| clock.now());
                due += u32::try_from(skipped).unwrap();
                // The first began a little before its instant could be read here.
                let slack = Duration::from_micros(100);
                assert!(clock.now() + slack >= start + ticker.period() * due);
                due += 1;
            }
            let pace = ticker.pace();
            assert_eq!(pace.ticks, 50);
            assert_eq!(pace.skipped, u64::from(due) - 50);
            assert!(pace.jitter.p50 <= pace.jitter.p99 && pace.jitter.p99 <= pace.jitter.max);
        }
    }

    #[test]
    fn late_ticks_are_told_by_lap_and_in_all() {
        let time = ManualTime::starting_at(Timestamp(1_700_000_000_000));
        let mut ticker = Ticker::with_clock(RATE, time.clock());
        assert_eq!(ticker.wait(), 0);
        // Ticks 1 to 5 are due meanwhile; the newest of them begins half a millisecond late.
        time.advance(Duration::from_micros(5_500));
        assert_eq!(ticker.wait(), 4);
        let late = Duration::from_micros(500);
        let expected = Pace {
            ticks: 2,
            overruns: 1,
            skipped: 4,
            jitter: Jitter {
                p50: Duration::ZERO,
                p99: late,
                max: late,
            },
        };
        assert_eq!(ticker.lap(), expected);
        assert_eq!(ticker.lap(), Pace::default());
        assert_eq!(ticker.pace(), expected);
        time.advance(Duration::from_millis(1));
        ticker.wait();
        assert_eq!((ticker.lap().ticks, ticker.pace().ticks), (1, 3));
    }

    #[test]
    fn ticks_and_laps_allocate_nothing() {
        let time = ManualTime::starting_at(Timestamp(1_700_000_000_000));
        let mut ticker = Ticker::with_clock(RATE, time.clock());
        let count = allocation_counter::measure(|| {
            for n in 0..1_000 {
                time.advance(Duration::from_micros(1_000 + n));
                ticker.wait();
            }
            ticker.lap();
        });
        assert_eq!(count.count_total, 0);
    }
}
