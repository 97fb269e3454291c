//! Messages of the control channel from a peer that may send anything.

use prost::Message;

use super::{decode_gateway, decode_sidecar, encode_gateway, encode_sidecar};
use crate::{control::MAX_MESSAGE_BYTES, proto};

/// Reads the input as a message of the one end or the other: its first byte says of which.
///
/// # Panics
/// If a message that was understood does not survive being written, or is written longer than either end accepts.
pub fn control(input: &[u8]) {
    let Some((direction, bytes)) = input.split_first() else {
        return;
    };
    if direction & 1 == 0 {
        let read = |bytes: &[u8]| {
            let message = proto::GatewayMessage::decode(bytes).ok()?;
            decode_gateway(message).ok()
        };
        if let Some(message) = read(bytes) {
            let again = encode_gateway(message.clone()).encode_to_vec();
            assert!(again.len() <= MAX_MESSAGE_BYTES, "{}", again.len());
            assert_eq!(read(&again), Some(message), "a gateway's message changed");
        }
    } else {
        let read = |bytes: &[u8]| {
            let message = proto::SidecarMessage::decode(bytes).ok()?;
            decode_sidecar(message).ok()
        };
        if let Some(message) = read(bytes) {
            let again = encode_sidecar(message.clone()).encode_to_vec();
            assert!(again.len() <= MAX_MESSAGE_BYTES, "{}", again.len());
            assert_eq!(read(&again), Some(message), "a sidecar's message changed");
        }
    }
}
