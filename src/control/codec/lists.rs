//! Ids, seats, hashes and addresses, one by one and in lists.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::{ID_BYTES, MAX_ADDRESS_BYTES, MAX_KEYS, MAX_REPORTED, Malformed};
use crate::{
    control::LiveSeat,
    id::{PlayerGeneration, PlayerId, SessionId},
    proto,
    token::KeyId,
};

pub(super) fn encode_seat(seat: LiveSeat) -> proto::LiveSeat {
    let LiveSeat {
        session,
        player,
        player_generation,
    } = seat;
    proto::LiveSeat {
        session_id: Bytes::copy_from_slice(&session.to_bytes()),
        player_id: Bytes::copy_from_slice(&player.to_bytes()),
        player_generation: player_generation.0,
    }
}

pub(super) fn decode_seats(
    seats: &[proto::LiveSeat],
    field: &'static str,
) -> Result<Vec<LiveSeat>, Malformed> {
    if seats.len() > MAX_REPORTED {
        return Err(Malformed(field));
    }
    seats
        .iter()
        .map(|seat| {
            Ok(LiveSeat {
                session: SessionId::from_bytes(id_bytes(&seat.session_id, field)?),
                player: PlayerId::from_bytes(id_bytes(&seat.player_id, field)?),
                player_generation: PlayerGeneration(seat.player_generation),
            })
        })
        .collect()
}

pub(super) fn id_bytes(bytes: &[u8], field: &'static str) -> Result<[u8; ID_BYTES], Malformed> {
    bytes.try_into().map_err(|_| Malformed(field))
}

pub(super) fn concatenate(sessions: &[SessionId]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(sessions.len().saturating_mul(ID_BYTES));
    for session in sessions {
        bytes.put_slice(&session.to_bytes());
    }
    bytes.freeze()
}

pub(super) fn session_ids(bytes: &[u8], field: &'static str) -> Result<Vec<SessionId>, Malformed> {
    match bytes.as_chunks() {
        (ids, []) if ids.len() <= MAX_REPORTED => {
            Ok(ids.iter().copied().map(SessionId::from_bytes).collect())
        }
        _ => Err(Malformed(field)),
    }
}

pub(super) fn encode_hashes(hashes: &[[u8; 32]]) -> Vec<Bytes> {
    hashes
        .iter()
        .map(|hash| Bytes::copy_from_slice(hash))
        .collect()
}

pub(super) fn encode_key_ids(keys: &[KeyId]) -> Vec<String> {
    keys.iter().map(KeyId::to_string).collect()
}

pub(super) fn decode_key_ids(ids: &[String], field: &'static str) -> Result<Vec<KeyId>, Malformed> {
    if ids.len() > MAX_KEYS {
        return Err(Malformed(field));
    }
    // Their length is looked at before they are decoded.
    ids.iter()
        .map(|id| id.parse().map_err(|_| Malformed(field)))
        .collect()
}

/// The certificate now served, then the next one if it is announced.
pub(super) fn decode_hashes(
    hashes: &[Bytes],
    field: &'static str,
) -> Result<Vec<[u8; 32]>, Malformed> {
    if !(1..=2).contains(&hashes.len()) {
        return Err(Malformed(field));
    }
    hashes
        .iter()
        .map(|hash| <[u8; 32]>::try_from(&**hash).map_err(|_| Malformed(field)))
        .collect()
}

pub(super) fn decode_address(text: &str, field: &'static str) -> Result<SocketAddr, Malformed> {
    match text.len() {
        0..=MAX_ADDRESS_BYTES => text.parse().map_err(|_| Malformed(field)),
        _ => Err(Malformed(field)),
    }
}
