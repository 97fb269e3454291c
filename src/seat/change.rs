//! What the simulation is told about seats: verdicts, ends and their reasons, changes per tick.

use super::Handle;
use crate::id::{ClientId, PlayerGeneration, PlayerId, SessionId};

/// The answer to "may it stay?".
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The seat is live.
    Live,
    /// The connection is lost, and the grace in which its session may come back runs.
    Suspended,
    /// The seat has ended, or the handle never named one.
    Ended,
}

impl Verdict {
    /// Whether the seat is live.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live)
    }
}

/// Why a seat ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client said that it leaves.
    Left,
    /// The connection was lost.
    Lost,
    /// The client broke the protocol, or took too much or too little; its connection was closed for it.
    Misbehaved,
    /// The session was revoked or logged out, or its player's sessions were.
    SessionRevoked,
    /// The session was not active for its idle timeout.
    Idle,
    /// The session reached its absolute end.
    Expired,
    /// A newer connection took its place.
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
    /// The fixed name, for metrics and logs: that of the close code which the client sees, where there is one.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Misbehaved => "misbehaved",
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeatChange {
    /// A new seat.
    Joined(Joined),
    /// The same session came with a new connection, which serves the seat from now on. Of several since the last tick only the
    /// last is told, and none if the join itself is only told now.
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
    /// What happened to seats since the last tick, in the order in which it happened. At most two entries per slot.
    pub changes: Vec<SeatChange>,
    /// Sessions whose activity is to be written now; each at most once.
    pub active: Vec<SessionId>,
}
