//! Who is to be seated, and what came of it.

use thiserror::Error;

use super::{Connection, Handle};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId},
};

/// An admission that passed every check: who is to be seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The session.
    pub session: SessionId,
    /// Whose session that is.
    pub player: PlayerId,
    /// The player generation of the token.
    pub player_generation: PlayerGeneration,
    /// The client's id, for a new seat; a seat that is taken over keeps its own.
    pub client: ClientId,
    /// The session's absolute end, for a new seat; a seat that is taken over keeps its own.
    pub ends_at: Timestamp,
    /// The connection that is going to serve the seat.
    pub connection: Connection,
}

/// What [`SeatTable::install`](super::SeatTable::install) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// The session had no seat here and has one now.
    Fresh(Handle),
    /// The session had one, live or suspended, and keeps it: the new connection serves it from now on.
    Taken {
        /// The seat, as before.
        handle: Handle,
        /// Its client id, as before.
        client: ClientId,
        /// The connection that served it until now, which is listed among its worker's closings. None if the seat was suspended.
        displaced: Option<Connection>,
    },
}

impl Installed {
    /// The seat.
    pub const fn handle(&self) -> Handle {
        match self {
            Self::Fresh(handle) | Self::Taken { handle, .. } => *handle,
        }
    }
}

/// Why a session was not seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotSeated {
    /// No seat is free.
    #[error("no seat is free")]
    Full,
    /// The player is seated with another session, and [`SamePlayer::OldestWins`](super::SamePlayer::OldestWins).
    #[error("the player is seated with another session")]
    PlayerPresent,
}

impl NotSeated {
    /// The fixed name, for metrics and logs: that of the close code which the client sees.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "server_full",
            Self::PlayerPresent => "player_present",
        }
    }
}

/// A seat, live or suspended, as [`SeatTable::live_seats`](super::SeatTable::live_seats) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LiveSeatInfo {
    /// The session that holds it.
    pub session: SessionId,
    /// Whose session that is.
    pub player: PlayerId,
    /// The player generation of the token that took the seat, or of the latest that took it over.
    pub player_generation: PlayerGeneration,
}
