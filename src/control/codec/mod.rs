//! Between the messages of the machines and those of the wire: every length and id is checked here, and nothing panics.

mod attach;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gateway;
mod lists;
mod sidecar;

use thiserror::Error;

pub use self::{
    gateway::{decode_gateway, encode_gateway},
    sidecar::{decode_sidecar, encode_sidecar},
};

/// The most seats, or sessions, of one kind in one message; more go in several. 4,096 seats are 180 KB.
pub const MAX_REPORTED: usize = 4_096;

/// The most things that happened in one message; more go in several. 512 of at most 200 bytes are 100 KB.
pub const MAX_EVENTS: usize = 512;

/// The most events in one range; the log goes in several. 4,096 of them are at most 120 KB.
pub const MAX_RANGE_EVENTS: usize = 4_096;

/// The most addresses a gateway may advertise.
pub const MAX_ADDRESSES: usize = 16;

/// The longest text of one address, in bytes: IPv6 in full with an interface name and a port is under 70.
const MAX_ADDRESS_BYTES: usize = 80;

/// The longest server name, in bytes (RFC 1035 section 2.3.4).
const MAX_SERVER_NAME_BYTES: usize = 253;

/// The longest label of a reason, in bytes.
const MAX_REASON_BYTES: usize = 64;

/// The most transport keys a gateway takes: the current one, its predecessor while rotating, and room.
const MAX_KEYS: usize = 8;

const ID_BYTES: usize = 16;

/// A message that breaks the protocol: the field at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed control message: {0}")]
pub struct Malformed(pub &'static str);

impl Malformed {
    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        "malformed"
    }
}

#[cfg(test)]
mod tests;
