//! The only reader of time: a clock that never steps back, and a manual one for tests.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;

/// A point in time on the wall clock, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

/// A text that is no RFC 3339 time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an RFC 3339 time")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// This time plus `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This time minus `duration`, saturating at the epoch.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long ago `earlier` was, zero if it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Timestamp {
    /// For people: date and time to the second in this machine's time zone, with its offset from UTC
    /// (`2026-11-22 07:15:00+01:00`).
    pub fn local(self) -> String {
        match i64::try_from(self.0).map(jiff::Timestamp::from_millisecond) {
            Ok(Ok(time)) => {
                let local = time.to_zoned(jiff::tz::TimeZone::system());
                local.strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
            }
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).map(jiff::Timestamp::from_millisecond) {
            Ok(Ok(time)) => write!(f, "{time:.3}"),
            _ => f.write_str("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let time: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        u64::try_from(time.as_millisecond())
            .map(Self)
            .map_err(|_| InvalidTimestamp)
    }
}

/// Whole milliseconds, as records and messages have them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Where a [`Clock`] reads time: the system, or a test.
pub trait TimeSource: Send + Sync + 'static {
    /// Monotonic time.
    fn monotonic(&self) -> Instant;
    /// The wall clock, which may step.
    fn wall(&self) -> Timestamp;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTimeSource;

#[expect(
    clippy::disallowed_methods,
    reason = "this is where everybody else's time comes from"
)]
impl TimeSource for SystemTimeSource {
    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> Timestamp {
        Timestamp(millis(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        ))
    }
}

/// A process's clock: the wall time at its making, or of its first [`observe`](Clock::observe), plus monotonic time since.
///
/// So a step of the system's wall clock neither revives nor drops anybody. Later observations pull it slowly towards the
/// reference, at most 5 ms per 100 ms, and it never steps back. Cheap to clone; clones are the same clock.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    source: Box<dyn TimeSource>,
    anchor: Mutex<Anchor>,
    /// The largest wall time ever told, in milliseconds: a floor for the next.
    latest: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: Instant,
    wall: Timestamp,
    /// What is still to be slewed, in milliseconds.
    error: i64,
    observed: bool,
}

/// The part of elapsed time by which a slew may speed up or slow down the clock: one in 20.
const SLEW_DIVISOR: i64 = 20;

impl Anchor {
    fn wall_at(&self, now: Instant) -> Timestamp {
        let elapsed =
            i64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(i64::MAX);
        let most = elapsed / SLEW_DIVISOR;
        let slew = self.error.clamp(-most, most);
        Timestamp(
            self.wall
                .0
                .saturating_add_signed(elapsed.saturating_add(slew)),
        )
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(SystemTimeSource)
    }

    /// A clock over `source`.
    pub fn new(source: impl TimeSource) -> Self {
        let anchor = Anchor {
            at: source.monotonic(),
            wall: source.wall(),
            error: 0,
            observed: false,
        };
        Self(Arc::new(Inner {
            source: Box::new(source),
            anchor: Mutex::new(anchor),
            latest: AtomicU64::new(0),
        }))
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        self.0.source.monotonic()
    }

    /// Wall time, which never steps back.
    pub fn wall(&self) -> Timestamp {
        self.wall_at(self.now())
    }

    /// Wall time at the monotonic time `now`, which never steps back.
    pub fn wall_at(&self, now: Instant) -> Timestamp {
        // Held on: a first `observe` must not lower the floor in between.
        let anchor = self.anchor();
        let wall = anchor.wall_at(now).0;
        Timestamp(self.0.latest.fetch_max(wall, Ordering::Relaxed).max(wall))
    }

    /// Takes note of the time of a reference (a sidecar's heartbeat). The first note sets the clock, later ones slew it.
    pub fn observe(&self, reference: Timestamp) {
        let now = self.now();
        let mut anchor = self.anchor();
        let wall = anchor.wall_at(now);
        let difference = i64::try_from(reference.0)
            .unwrap_or(i64::MAX)
            .saturating_sub(i64::try_from(wall.0).unwrap_or(i64::MAX));
        if anchor.observed {
            *anchor = Anchor {
                at: now,
                wall,
                error: difference,
                observed: true,
            };
        } else {
            *anchor = Anchor {
                at: now,
                wall: reference,
                error: 0,
                observed: true,
            };
            self.0.latest.store(0, Ordering::Relaxed);
        }
    }

    fn anchor(&self) -> std::sync::MutexGuard<'_, Anchor> {
        self.0.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.wall()).finish()
    }
}

/// Time that a test moves by hand. Clones are the same time.
#[derive(Clone, Debug)]
pub struct ManualTime {
    start: Instant,
    elapsed_us: Arc<AtomicU64>,
    wall_start: Timestamp,
    wall_step_ms: Arc<AtomicI64>,
}

impl ManualTime {
    /// Time that stands still at `wall`.
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can be had in no other way; only its distance from itself counts"
    )]
    pub fn starting_at(wall: Timestamp) -> Self {
        Self {
            start: Instant::now(),
            elapsed_us: Arc::default(),
            wall_start: wall,
            wall_step_ms: Arc::default(),
        }
    }

    /// Lets `by` pass, on both clocks.
    pub fn advance(&self, by: Duration) {
        self.elapsed_us.fetch_add(micros(by), Ordering::Relaxed);
    }

    /// Lets time pass until the monotonic clock says `at`; an earlier time changes nothing.
    pub fn advance_to(&self, at: Instant) {
        let elapsed = micros(at.saturating_duration_since(self.start));
        self.elapsed_us.fetch_max(elapsed, Ordering::Relaxed);
    }

    /// Steps the wall clock alone, as an operator or a bad time server would.
    pub fn step_wall(&self, by_ms: i64) {
        self.wall_step_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// A clock over this time.
    pub fn clock(&self) -> Clock {
        Clock::new(self.clone())
    }
}

impl TimeSource for ManualTime {
    fn monotonic(&self) -> Instant {
        self.start + Duration::from_micros(self.elapsed_us.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        let passed = self.elapsed_us.load(Ordering::Relaxed) / 1_000;
        Timestamp(
            (self.wall_start.0 + passed)
                .saturating_add_signed(self.wall_step_ms.load(Ordering::Relaxed)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_000);
    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn timestamps_are_rfc_3339() {
        assert_eq!(START.to_string(), "2023-11-14T22:13:20.000Z");
        assert_eq!(START.to_string().parse(), Ok(START));
        assert_eq!("2023-11-14T23:13:20+01:00".parse(), Ok(START));
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert!("1960-01-01T00:00:00Z".parse::<Timestamp>().is_err());
    }

    #[test]
    fn a_step_of_the_wall_clock_changes_nothing() {
        let time = ManualTime::starting_at(START);
        let clock = time.clock();
        time.step_wall(DAY_MS);
        time.advance(Duration::from_secs(5));
        assert_eq!(clock.wall(), START.after(Duration::from_secs(5)));
        time.step_wall(-2 * DAY_MS);
        assert_eq!(clock.wall(), START.after(Duration::from_secs(5)));
    }

    #[test]
    fn the_first_reference_sets_and_later_ones_slew() {
        let time = ManualTime::starting_at(START);
        let clock = time.clock();
        let reference = START.before(Duration::from_secs(3_600));
        clock.observe(reference);
        assert_eq!(clock.wall(), reference);
        // The reference is now a second behind: the clock slows down, and never turns back.
        clock.observe(reference.before(Duration::from_secs(1)));
        let mut last = clock.wall();
        for _ in 0..300 {
            time.advance(Duration::from_millis(100));
            let wall = clock.wall();
            assert!(wall >= last);
            last = wall;
        }
        assert_eq!(last, reference.after(Duration::from_secs(29)));
    }
}
