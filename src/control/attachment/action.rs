//! What the sidecar's end of a stream asks of its user, and is answered.

use std::time::Duration;

use super::EndReason;
use crate::{
    control::{CarriedKey, LogState, SeatReport},
    id::Revision,
    token::KeyId,
};

/// What the user of an [`Attachment`](super::Attachment) has to do, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Register the gateway of [`presented`](super::Attachment::presented), then read where the log stands, and call
    /// [`registered`](super::Attachment::registered).
    Register,
    /// Find which of the seats of [`presented`](super::Attachment::presented) are dead, and call
    /// [`dead_found`](super::Attachment::dead_found).
    FindDead,
    /// Read at most [`RANGE_EVENTS`](super::RANGE_EVENTS) events after this revision, and call
    /// [`log_read`](super::Attachment::log_read). One at a time.
    ReadLog(Revision),
    /// Take note of a report, and call [`reported`](super::Attachment::reported). Read no further message before that.
    Report(SeatReport),
    /// Take the orders for this gateway, and call [`ordered`](super::Attachment::ordered).
    TakeOrders,
    /// The gateway has applied the log up to here.
    Acknowledged(Revision),
    /// The gateway opens tokens under these keys now.
    KeysHeld(Vec<KeyId>),
    /// End the stream. The last action.
    End(EndReason),
}

/// What the sidecar tells a gateway that it has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The keys of this gateway process.
    pub keys: Vec<CarriedKey>,
    /// Idle timeout of sessions.
    pub idle_timeout: Duration,
    /// Where the log stands.
    pub log: LogState,
}
