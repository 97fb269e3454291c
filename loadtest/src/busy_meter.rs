//! How long a thread has been at work without a pause: the most that anything may have waited inside the generator.
//!
//! The send loop is looked at first whenever a thread wakes, so a thread with too much to do still sends on time while answers pile
//! up unread, and the server would be blamed for the pile. But a thread that goes to sleep has read everything that had come. So an
//! answer that is read now has waited here for no longer than the thread has been awake.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tickgate::clock::Clock;

/// Told by a single-threaded runtime when its thread goes to sleep and wakes; asked by tasks of the same thread.
///
/// Atomics because the runtime's hooks must be shareable; nothing else ever runs on another thread.
pub(crate) struct BusyMeter {
    clock: Clock,
    origin: Instant,
    /// Nanoseconds from `origin` to the last time the thread went to sleep.
    slept_at: AtomicU64,
    /// Nanoseconds from `origin` to the last time it woke after a pause.
    awake_since: AtomicU64,
}

/// A shorter sleep is no pause: something was there already, and the call into the kernel itself takes some microseconds.
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);

impl BusyMeter {
    /// The thread is awake from now on.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            origin: clock.now(),
            clock,
            slept_at: AtomicU64::new(0),
            awake_since: AtomicU64::new(0),
        }
    }

    /// The thread has nothing to do and goes to sleep.
    pub(crate) fn sleeps(&self) {
        self.slept_at.store(self.nanos(), Ordering::Relaxed);
    }

    /// The thread wakes.
    pub(crate) fn wakes(&self) {
        let now = self.nanos();
        let pause = now.saturating_sub(self.slept_at.load(Ordering::Relaxed));
        if Duration::from_nanos(pause) >= SHORTEST_PAUSE {
            self.awake_since.store(now, Ordering::Relaxed);
        }
    }

    /// How long it has been at work since its last pause, at `now`.
    pub(crate) fn busy_for(&self, now: Instant) -> Duration {
        let awake_since = Duration::from_nanos(self.awake_since.load(Ordering::Relaxed));
        now.saturating_duration_since(self.origin)
            .saturating_sub(awake_since)
    }

    fn nanos(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tickgate::clock::{ManualTime, Timestamp};

    use super::*;

    #[test]
    fn only_a_real_pause_ends_a_busy_time() {
        let time = ManualTime::starting_at(Timestamp(1_700_000_000_000));
        let clock = time.clock();
        let meter = BusyMeter::new(clock.clone());
        time.advance(Duration::from_millis(3));
        meter.sleeps();
        time.advance(Duration::from_micros(2));
        meter.wakes();
        assert_eq!(meter.busy_for(clock.now()), Duration::from_micros(3_002));
        meter.sleeps();
        time.advance(Duration::from_millis(1));
        meter.wakes();
        assert_eq!(meter.busy_for(clock.now()), Duration::ZERO);
        time.advance(Duration::from_millis(2));
        assert_eq!(meter.busy_for(clock.now()), Duration::from_millis(2));
    }
}
