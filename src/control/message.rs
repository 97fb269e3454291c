//! The messages of the control channel, checked and typed: what the machines exchange.

use std::time::Duration;

use super::{
    CarriedKey, Drain, GatewayDescription, GatewayEvent, LiveSeat, RevocationRange,
    codec::{MAX_EVENTS, MAX_REPORTED},
};
use crate::{
    clock::Timestamp,
    id::{Lineage, Revision, SessionId},
    token::KeyId,
};

/// What a gateway says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromGateway {
    /// First on every stream.
    Attach(Box<Attach>),
    /// More of the seats of Attach.
    AttachSeats {
        /// The next ones.
        seats: Vec<LiveSeat>,
        /// Whether another portion follows.
        more_seats: bool,
    },
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
        /// Whether it drains.
        draining: bool,
    },
    /// SHA-256 of the QUIC leaf certificate: current, then next.
    Certificates(Vec<[u8; 32]>),
    /// It opens tokens under these keys now.
    KeysHeld(Vec<KeyId>),
    /// What happened, for `explain`.
    Events {
        /// Oldest first.
        events: Vec<GatewayEvent>,
        /// How many were lost since the last message.
        lost: u64,
    },
}

/// Who the gateway is, what it knows, and who is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The gateway.
    pub gateway: GatewayDescription,
    /// How far it follows the log; none on the first attach of the process.
    pub position: Option<LogPosition>,
    /// Whether it drains.
    pub draining: bool,
    /// How many live seats it has in all, so that a portion that is missing shows.
    pub seat_count: u32,
    /// Its live seats: the first portion on the wire, all of them once the sidecar's machine has put them together.
    pub seats: Vec<LiveSeat>,
    /// Whether another portion follows.
    pub more_seats: bool,
    /// The transport keys that this process holds; none on its first attach.
    pub keys: Vec<KeyId>,
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
    /// More of the dead seats of the snapshot in Attached.
    SnapshotDead {
        /// The next ones.
        dead: Vec<SessionId>,
        /// Whether another portion follows.
        more_dead: bool,
    },
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
    /// Sessions that were active on another gateway, with their last activity.
    IdleMoved(Vec<(SessionId, Timestamp)>),
    /// Admit nobody any more, or again.
    Drain(Drain),
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
    /// How many seats have ended in all, so that a portion that is missing shows.
    pub dead_count: u32,
    /// Sessions among the seats named on attach that have ended: the first portion on the wire, all of them once the gateway's machine
    /// has put them together.
    pub dead: Vec<SessionId>,
    /// Whether another portion follows.
    pub more_dead: bool,
}

/// How much of a list goes into one message, and how much waits for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Portions {
    /// Seats, or sessions, in one message.
    pub(super) sessions: usize,
    /// Events in one message.
    pub(super) events: usize,
    /// Events that wait for the stream to take them; beyond that the oldest are dropped and counted.
    pub(super) events_held: usize,
}

impl Portions {
    /// As the protocol allows. 4,096 events are at most 800 KB: what 100 refusals a second are in 40 s of a stream that is stuck.
    pub(super) const STANDARD: Self = Self {
        sessions: MAX_REPORTED,
        events: MAX_EVENTS,
        events_held: 8 * MAX_EVENTS,
    };

    /// Takes one message's worth from the end of `list`, whose order does not matter.
    pub(super) fn cut<T>(&self, list: &mut Vec<T>) -> Vec<T> {
        list.split_off(list.len().saturating_sub(self.sessions))
    }
}
