//! The demo world's datagrams, as far as a load test needs them: an input with a sequence number out, its acknowledgement back.

use bytes::Bytes;

/// An input that steers a little, with this sequence number.
pub(crate) fn encode(sequence: u32) -> Bytes {
    Bytes::copy_from_slice(&sequence.to_be_bytes())
}

/// The sequence number that a snapshot acknowledges; none if the datagram is no snapshot.
pub(crate) fn acknowledged(datagram: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(datagram.first_chunk().copied()?))
}
