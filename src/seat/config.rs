//! How a seat table is laid out, and the rules that it enforces.

use std::{num::NonZeroU32, time::Duration};

/// The window of activity writes, in ticks: one second at 60 Hz.
pub const DEFAULT_WINDOW: u32 = 60;

/// The window of activity writes as time: what [`DEFAULT_WINDOW`] is at 60 Hz.
pub const DEFAULT_ACTIVITY_WINDOW: Duration = Duration::from_secs(1);

/// How a [`SeatTable`](super::SeatTable) is laid out and what it enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatConfig {
    /// How many seats there are, suspended ones included. Each reserves some 50 bytes from the start, of which memory is taken as slots
    /// come into use, and takes about 120 in all then: 32 of the floor, 66 of its record, 21 of the two indexes.
    pub capacity: u32,
    /// In ticks: activity of a session is written at most once in so many. [`DEFAULT_WINDOW`] unless the tick rate is another
    /// ([`with_window`](Self::with_window) does the arithmetic); 0 is taken for 1.
    pub window: u32,
    /// A session that was active nowhere for so long ends.
    pub idle: Duration,
    /// What counts as activity.
    pub activity: ActivitySource,
    /// How long a session whose connection was lost may come back to its seat. Zero: not at all.
    pub grace: Duration,
    /// What becomes of a player who comes with another session while one is seated.
    pub same_player: SamePlayer,
}

impl Default for SeatConfig {
    /// 4,096 seats, activity written once a second at 60 Hz, sessions idle after an hour, 15 s to come back in, and the newest
    /// session of a player wins.
    fn default() -> Self {
        Self {
            capacity: 4_096,
            window: DEFAULT_WINDOW,
            idle: Duration::from_secs(3_600),
            activity: ActivitySource::Input,
            grace: Duration::from_secs(15),
            same_player: SamePlayer::NewestWins,
        }
    }
}

impl SeatConfig {
    /// This with a window of so long at `rate` ticks per second, rounded down to whole ticks; at least one.
    #[must_use]
    pub fn with_window(self, window: Duration, rate: NonZeroU32) -> Self {
        // Whole nanoseconds times a rate of 32 bits: far below 2^128.
        let ticks = window.as_nanos() * u128::from(rate.get()) / 1_000_000_000;
        Self {
            window: u32::try_from(ticks).unwrap_or(u32::MAX).max(1),
            ..self
        }
    }
}

/// What becomes of a player who comes with another session while one is seated at the same gateway. Decided in the order in which
/// they are seated; a suspended seat counts as much as a live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SamePlayer {
    /// The new session is seated, and the other one's seat ends as superseded.
    #[default]
    NewestWins,
    /// The new session is refused.
    OldestWins,
    /// Both are seated.
    Allow,
}

/// What counts as activity of a session. To be seated, or to come back, counts as well, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ActivitySource {
    /// What the client sends: [`SeatTable::touch`](super::SeatTable::touch) alone.
    #[default]
    Input,
    /// To be checked by the simulation as well: [`SeatTable::verify`](super::SeatTable::verify) touches a live seat, as in engines
    /// that keep connected players alive. A suspended one is nobody's activity.
    Verify,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_as_many_ticks_as_it_takes() {
        let config = SeatConfig::default();
        for (ms, hz, ticks) in [
            (1_000, 20, 20),
            (1_000, 60, 60),
            (1_000, 128, 128),
            (500, 128, 64),
            (50, 30, 1),
            (1, 20, 1),
            (0, 60, 1),
        ] {
            let rate = NonZeroU32::new(hz).unwrap();
            let with = config.with_window(Duration::from_millis(ms), rate);
            assert_eq!(with.window, ticks, "{ms} ms at {hz} Hz");
            let expected = SeatConfig {
                window: ticks,
                ..config
            };
            assert_eq!(with, expected);
        }
        let sixty = NonZeroU32::new(60).unwrap();
        let default = config.with_window(DEFAULT_ACTIVITY_WINDOW, sixty);
        assert_eq!(default.window, DEFAULT_WINDOW);
        assert_eq!(config.with_window(Duration::MAX, sixty).window, u32::MAX);
    }
}
