//! The messages of the control channel, checked and typed: what the machines exchange.

use std::time::Duration;

use super::{CarriedKey, GatewayDescription, LiveSeat, RevocationRange};
use crate::{
    clock::Timestamp,
    id::{Lineage, Revision, SessionId},
};

/// What a gateway says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromGateway {
    /// First on every stream.
    Attach(Box<Attach>),
    /// Sessions that were active.
    Activity(Vec<SessionId>),
    /// Seats taken and given up.
    Seats {
        /// Seats taken.
        opened: Vec<LiveSeat>,
        /// Sessions whose seat ended.
        closed: Vec<SessionId>,
    },
    /// The log is applied up to this revision.
    Ack(Revision),
    /// The gateway is there.
    Heartbeat {
        /// Seats taken now.
        seats: u32,
    },
}

/// Who the gateway is, what it knows, and who is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The gateway.
    pub gateway: GatewayDescription,
    /// How far it follows the log; none on the first attach of the process.
    pub position: Option<LogPosition>,
    /// Its live seats.
    pub seats: Vec<LiveSeat>,
}

/// A place in a revocation log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogPosition {
    /// Which log.
    pub lineage: Lineage,
    /// Everything up to here is applied.
    pub revision: Revision,
}

/// What a sidecar says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSidecar {
    /// First on every stream.
    Attached(Attached),
    /// Keys to accept from now on; replaces the previous set.
    Keys(Vec<CarriedKey>),
    /// A range of the log.
    Revocations(RevocationRange),
    /// The sidecar is there.
    Heartbeat {
        /// Its time.
        time: Timestamp,
        /// The newest revision of the log.
        head: Revision,
    },
}

/// The sidecar's answer to [`Attach`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// This gateway process's own keys.
    pub keys: Vec<CarriedKey>,
    /// The sidecar's time.
    pub time: Timestamp,
    /// Idle timeout of sessions.
    pub idle_timeout: Duration,
    /// Which log follows.
    pub lineage: Lineage,
    /// Set when the log cannot be continued from the gateway's position.
    pub snapshot: Option<Snapshot>,
}

/// Where the log starts afresh for a gateway, and what the lost part of it ended there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The ranges that follow start here.
    pub revision: Revision,
    /// Sessions among the seats named on attach that have ended.
    pub dead: Vec<SessionId>,
}
