//! How a seat table is laid out, and the rules that it enforces.

use std::time::Duration;

/// The window of activity writes, in ticks: one second at 60 Hz.
pub const DEFAULT_WINDOW: u32 = 60;

/// How a [`SeatTable`](super::SeatTable) is laid out and what it enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatConfig {
    /// How many seats there are, suspended ones included. Each reserves some 50 bytes from the start, of which memory is taken as slots
    /// come into use, and takes about 120 in all then: 32 of the floor, 66 of its record, 21 of the two indexes.
    pub capacity: u32,
    /// In ticks: activity of a session is written at most once in so many. [`DEFAULT_WINDOW`] unless the tick rate is another;
    /// 0 is taken for 1.
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
