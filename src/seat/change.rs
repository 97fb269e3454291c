//! What the simulation is told about seats: verdicts, ends and their reasons, changes per tick.

use super::Handle;
use crate::id::{ClientId, PlayerGeneration, PlayerId, SessionId};

/// The answer to "may it stay?".
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The seat is live: a connection serves it.
    Live,
    /// The seat's connection is lost, and the grace runs in which its session may come back to it. It is still the session's seat;
    /// what to do with its player meanwhile is the game's choice.
    Suspended,
    /// The seat has ended, or the handle never named one.
    Ended,
}

impl Verdict {
    /// Whether the seat is live.
    #[inline]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live)
    }

    /// Whether the seat has ended, for good: neither live nor suspended.
    #[inline]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Ended)
    }
}

/// Why a seat ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client said that it leaves.
    Left,
    /// The connection was lost, and its session did not come back within the grace.
    Lost,
    /// The client broke the protocol, or took too much or too little; its connection was closed for it.
    Misbehaved,
    /// The client read too slowly what it was sent.
    TooSlow,
    /// The client sent more than its budgets allow, for too long.
    OverBudget,
    /// The session was revoked or logged out, or its player's sessions were.
    SessionRevoked,
    /// The session was not active for its idle timeout.
    Idle,
    /// The session reached its absolute end.
    Expired,
    /// Another session of the same player took its place. (A connection whose seat went to a newer connection of its own session is
    /// closed for this reason too, but that ends no seat.)
    Superseded,
    /// The sidecar was not heard of for longer than the gateway may go on without it.
    Stale,
    /// The gateway is draining.
    Drained,
    /// The simulation threw it out, for a reason of its own.
    Kicked(u32),
    /// Something broke inside the gateway.
    Internal,
}

impl EndReason {
    /// All the labels, in a fixed order.
    pub const LABELS: [&'static str; 13] = [
        Self::Left.label(),
        Self::Lost.label(),
        Self::Misbehaved.label(),
        Self::SessionRevoked.label(),
        Self::Idle.label(),
        Self::Expired.label(),
        Self::Superseded.label(),
        Self::Stale.label(),
        Self::Drained.label(),
        Self::Kicked(0).label(),
        Self::Internal.label(),
        Self::TooSlow.label(),
        Self::OverBudget.label(),
    ];

    /// The fixed name, for metrics and logs: that of the close code which the client sees, where there is one.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Misbehaved => "misbehaved",
            Self::TooSlow => "rate_limited",
            Self::OverBudget => "over_budget",
            Self::SessionRevoked => "session_revoked",
            Self::Idle => "session_idle",
            Self::Expired => "session_expired",
            Self::Superseded => "superseded",
            Self::Stale => "control_stale",
            Self::Drained => "drained",
            Self::Kicked(_) => "kicked",
            Self::Internal => "internal_error",
        }
    }

    /// Where its label stands among [`LABELS`](Self::LABELS).
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Left => 0,
            Self::Lost => 1,
            Self::Misbehaved => 2,
            Self::SessionRevoked => 3,
            Self::Idle => 4,
            Self::Expired => 5,
            Self::Superseded => 6,
            Self::Stale => 7,
            Self::Drained => 8,
            Self::Kicked(_) => 9,
            Self::Internal => 10,
            Self::TooSlow => 11,
            Self::OverBudget => 12,
        }
    }
}

/// A seat as the simulation learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Joined {
    /// Names the seat from now on.
    pub handle: Handle,
    /// The session that holds it.
    pub session: SessionId,
    /// Whose session that is.
    pub player: PlayerId,
    /// The player generation of the token that took the seat.
    pub player_generation: PlayerGeneration,
    /// The client's id inside the game, for as long as the seat lives.
    pub client: ClientId,
    /// The worker that serves it.
    pub worker: u16,
}

/// Something the simulation is told about a seat, exactly once.
///
/// What a tick is told of a seat leads from how it was told before to how the seat is now, in order: it joined, it went to and fro
/// between live and suspended, it ended. Joins and ends are told one by one. Of what happened in between since the last tick, that
/// which no longer shows is left out, so that it cannot pile up however often a client loses its connection and comes back:
///
/// | the seat was told as | happened since | told |
/// |---|---|---|
/// | live | taken over, once or several times | `Resumed`, with the last worker |
/// | live | suspended and resumed, once or several times | `Resumed`, with the last worker |
/// | live | taken over or resumed, and suspended at last | `Suspended` |
/// | suspended | resumed, and perhaps taken over | `Resumed`, with the last worker |
/// | suspended | resumed, and suspended again at last | `Resumed`, `Suspended` |
/// | suspended | resumed, suspended, and resumed again at last | `Resumed`, `Resumed` |
/// | not yet | joined, and taken over | `Joined`, with the last worker |
/// | not yet | joined, and suspended at last | `Joined`, `Suspended` |
/// | not yet | joined, suspended, and resumed at last | `Joined`, `Resumed` |
///
/// Then `Ended`, if it did. So at most three changes are told of a seat on a tick. A `Suspended` is always followed by a `Resumed` or
/// an `Ended` of the same seat, then or on a later tick, and never by another `Suspended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeatChange {
    /// A new seat.
    Joined(Joined),
    /// The same session came with a new connection, which serves the seat from now on; handle and client id are as before. The seat was
    /// suspended, or its old connection was displaced. What was under way to the old connection is lost.
    Resumed {
        /// The seat.
        handle: Handle,
        /// The worker of the new connection.
        worker: u16,
    },
    /// The seat's connection is lost. The session may come back within the grace, and keeps handle and client id then.
    Suspended {
        /// The seat.
        handle: Handle,
    },
    /// The seat has ended. Its handle is refused from now on, and its slot is free for another.
    Ended {
        /// The seat.
        handle: Handle,
        /// The session that held it.
        session: SessionId,
        /// The client's id inside the game.
        client: ClientId,
        /// Why it ended.
        reason: EndReason,
    },
}

impl SeatChange {
    /// The seat it is about.
    pub const fn handle(&self) -> Handle {
        match self {
            Self::Joined(joined) => joined.handle,
            Self::Resumed { handle, .. }
            | Self::Suspended { handle }
            | Self::Ended { handle, .. } => *handle,
        }
    }
}

/// What one tick pass found. Keep it between ticks: its memory is used again.
#[derive(Debug, Default)]
pub struct TickReport {
    /// What happened to seats since the last tick: of each seat in the order in which it happened, and at most three entries per slot.
    /// An end stands before the joins that it made room for.
    pub changes: Vec<SeatChange>,
    /// Sessions whose activity is to be written now; each at most once.
    pub active: Vec<SessionId>,
    /// Which pass it is of; 0 before the first.
    pub(super) pass: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_label_of_its_own() {
        let reasons = [
            EndReason::Left,
            EndReason::Lost,
            EndReason::Misbehaved,
            EndReason::TooSlow,
            EndReason::OverBudget,
            EndReason::SessionRevoked,
            EndReason::Idle,
            EndReason::Expired,
            EndReason::Superseded,
            EndReason::Stale,
            EndReason::Drained,
            EndReason::Kicked(7),
            EndReason::Internal,
        ];
        for reason in reasons {
            assert_eq!(EndReason::LABELS[reason.index()], reason.label());
        }
        let mut labels = EndReason::LABELS;
        labels.sort_unstable();
        assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
