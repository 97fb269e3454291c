//! Between the messages of the machines and those of the wire: every length and id is checked here, and nothing panics.

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{
    CarriedKey, GatewayDescription, LiveSeat, MAX_SEATS, Revocation, RevocationRange,
    message::{Attach, Attached, FromGateway, FromSidecar, LogPosition, Snapshot},
};
use crate::{
    clock::Timestamp,
    id::{Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
    proto::{self, gateway_message, revocation, sidecar_message},
};

/// The most sessions of one kind in one report message; more go in several. 4,096 seats opened are 180 KB.
pub const MAX_REPORTED: usize = 4_096;

/// The most events in one range; the log goes in several. 4,096 of them are at most 120 KB.
pub const MAX_RANGE_EVENTS: usize = 4_096;

/// The most addresses a gateway may advertise.
pub const MAX_ADDRESSES: usize = 16;

/// The longest text of one address, in bytes: IPv6 in full with an interface name and a port is under 70.
const MAX_ADDRESS_BYTES: usize = 80;

/// The longest server name, in bytes (RFC 1035 section 2.3.4).
const MAX_SERVER_NAME_BYTES: usize = 253;

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

/// A gateway's message for the wire.
pub fn encode_gateway(message: FromGateway) -> proto::GatewayMessage {
    use gateway_message::Message;
    let message = match message {
        FromGateway::Attach(attach) => Message::Attach(encode_attach(*attach)),
        FromGateway::Activity(active) => Message::Activity(proto::ActivityBatch {
            session_ids: concatenate(&active),
        }),
        FromGateway::Seats { opened, closed } => Message::Seats(proto::SeatChanges {
            opened: opened.into_iter().map(encode_seat).collect(),
            closed: concatenate(&closed),
        }),
        FromGateway::Ack(revision) => Message::Ack(proto::RevocationAck {
            revision: revision.0,
        }),
        FromGateway::Heartbeat { seats } => Message::Heartbeat(proto::GatewayHeartbeat {
            seats,
            draining: false,
        }),
    };
    proto::GatewayMessage {
        message: Some(message),
    }
}

/// A gateway's message from the wire.
///
/// # Errors
/// [`Malformed`] when an id, a count or an address is not what the protocol allows.
pub fn decode_gateway(message: proto::GatewayMessage) -> Result<FromGateway, Malformed> {
    use gateway_message::Message;
    Ok(match message.message.ok_or(Malformed("message"))? {
        Message::Attach(attach) => FromGateway::Attach(Box::new(decode_attach(attach)?)),
        Message::Activity(batch) => FromGateway::Activity(session_ids(
            &batch.session_ids,
            MAX_REPORTED,
            "activity.session_ids",
        )?),
        Message::Seats(seats) => FromGateway::Seats {
            opened: decode_seats(&seats.opened, MAX_REPORTED, "seats.opened")?,
            closed: session_ids(&seats.closed, MAX_REPORTED, "seats.closed")?,
        },
        Message::Ack(ack) => FromGateway::Ack(Revision(ack.revision)),
        Message::Heartbeat(heartbeat) => FromGateway::Heartbeat {
            seats: heartbeat.seats.min(MAX_SEATS),
        },
        Message::AttachSeats(_) | Message::Certificates(_) | Message::Events(_) => {
            return Err(Malformed("message"));
        }
    })
}

/// A sidecar's message for the wire.
pub fn encode_sidecar(message: FromSidecar) -> proto::SidecarMessage {
    use sidecar_message::Message;
    let message = match message {
        FromSidecar::Attached(attached) => Message::Attached(encode_attached(attached)),
        FromSidecar::Keys(keys) => Message::Keys(encode_keys(keys)),
        FromSidecar::Revocations(range) => Message::Revocations(proto::Revocations {
            from: range.from.0,
            to: range.to.0,
            events: range.events.into_iter().map(encode_event).collect(),
        }),
        FromSidecar::Heartbeat { time, head } => Message::Heartbeat(proto::SidecarHeartbeat {
            time_ms: time.0,
            head: head.0,
        }),
    };
    proto::SidecarMessage {
        message: Some(message),
    }
}

/// A sidecar's message from the wire.
///
/// # Errors
/// [`Malformed`] when an id, a count or a range is not what the protocol allows.
pub fn decode_sidecar(message: proto::SidecarMessage) -> Result<FromSidecar, Malformed> {
    use sidecar_message::Message;
    Ok(match message.message.ok_or(Malformed("message"))? {
        Message::Attached(attached) => FromSidecar::Attached(decode_attached(attached)?),
        Message::Keys(keys) => FromSidecar::Keys(decode_keys(keys)?),
        Message::Revocations(range) => FromSidecar::Revocations(decode_range(&range)?),
        Message::Heartbeat(heartbeat) => FromSidecar::Heartbeat {
            time: Timestamp(heartbeat.time_ms),
            head: Revision(heartbeat.head),
        },
        Message::SnapshotDead(_) | Message::IdleMoved(_) | Message::Drain(_) => {
            return Err(Malformed("message"));
        }
    })
}

fn encode_attach(attach: Attach) -> proto::Attach {
    let Attach {
        gateway,
        position,
        seats,
    } = attach;
    let GatewayDescription {
        id,
        incarnation,
        addresses,
        server_name,
        certificate_sha256,
        capacity,
    } = gateway;
    proto::Attach {
        gateway_id: id.to_string(),
        incarnation: Bytes::copy_from_slice(&incarnation.to_bytes()),
        addresses: addresses.iter().map(SocketAddr::to_string).collect(),
        server_name,
        certificate_sha256: certificate_sha256
            .iter()
            .map(|hash| Bytes::copy_from_slice(hash))
            .collect(),
        capacity,
        lineage: position
            .map(|p| Bytes::copy_from_slice(&p.lineage.to_bytes()))
            .unwrap_or_default(),
        revision: position.map_or(0, |p| p.revision.0),
        seats: seats.into_iter().map(encode_seat).collect(),
        more_seats: false,
        draining: false,
    }
}

fn decode_attach(attach: proto::Attach) -> Result<Attach, Malformed> {
    let gateway = GatewayDescription {
        id: attach
            .gateway_id
            .parse()
            .map_err(|_| Malformed("attach.gateway_id"))?,
        incarnation: Incarnation::from_bytes(id_bytes(&attach.incarnation, "attach.incarnation")?),
        addresses: decode_addresses(&attach.addresses)?,
        server_name: decode_server_name(attach.server_name)?,
        certificate_sha256: decode_hashes(&attach.certificate_sha256)?,
        capacity: match attach.capacity {
            capacity @ 1..=MAX_SEATS => capacity,
            _ => return Err(Malformed("attach.capacity")),
        },
    };
    let position = if attach.lineage.is_empty() {
        None
    } else {
        Some(LogPosition {
            lineage: Lineage::from_bytes(id_bytes(&attach.lineage, "attach.lineage")?),
            revision: Revision(attach.revision),
        })
    };
    let most = usize::try_from(gateway.capacity).unwrap_or(usize::MAX);
    Ok(Attach {
        seats: decode_seats(&attach.seats, most, "attach.seats")?,
        gateway,
        position,
    })
}

fn decode_addresses(texts: &[String]) -> Result<Vec<SocketAddr>, Malformed> {
    const FIELD: Malformed = Malformed("attach.addresses");
    if !(1..=MAX_ADDRESSES).contains(&texts.len()) {
        return Err(FIELD);
    }
    texts
        .iter()
        .map(|text| match text.len() {
            0..=MAX_ADDRESS_BYTES => text.parse().map_err(|_| FIELD),
            _ => Err(FIELD),
        })
        .collect()
}

fn decode_server_name(name: String) -> Result<String, Malformed> {
    let well_formed = (1..=MAX_SERVER_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    well_formed
        .then_some(name)
        .ok_or(Malformed("attach.server_name"))
}

/// The certificate now served, then the next one if it is announced.
fn decode_hashes(hashes: &[Bytes]) -> Result<Vec<[u8; 32]>, Malformed> {
    const FIELD: Malformed = Malformed("attach.certificate_sha256");
    if !(1..=2).contains(&hashes.len()) {
        return Err(FIELD);
    }
    hashes
        .iter()
        .map(|hash| <[u8; 32]>::try_from(&**hash).map_err(|_| FIELD))
        .collect()
}

fn encode_attached(attached: Attached) -> proto::Attached {
    let Attached {
        keys,
        time,
        idle_timeout,
        lineage,
        snapshot,
    } = attached;
    proto::Attached {
        keys: Some(encode_keys(keys)),
        time_ms: time.0,
        idle_timeout_ms: u64::try_from(idle_timeout.as_millis()).unwrap_or(u64::MAX),
        lineage: Bytes::copy_from_slice(&lineage.to_bytes()),
        snapshot: snapshot.map(|snapshot| proto::Snapshot {
            dead_session_ids: concatenate(&snapshot.dead),
            revision: snapshot.revision.0,
            more_dead: false,
        }),
    }
}

fn decode_attached(attached: proto::Attached) -> Result<Attached, Malformed> {
    let most = usize::try_from(MAX_SEATS).unwrap_or(usize::MAX);
    let snapshot = |snapshot: proto::Snapshot| {
        Ok(Snapshot {
            revision: Revision(snapshot.revision),
            dead: session_ids(
                &snapshot.dead_session_ids,
                most,
                "attached.snapshot.dead_session_ids",
            )?,
        })
    };
    Ok(Attached {
        keys: decode_keys(attached.keys.ok_or(Malformed("attached.keys"))?)?,
        time: Timestamp(attached.time_ms),
        idle_timeout: Duration::from_millis(attached.idle_timeout_ms),
        lineage: Lineage::from_bytes(id_bytes(&attached.lineage, "attached.lineage")?),
        snapshot: attached.snapshot.map(snapshot).transpose()?,
    })
}

fn encode_keys(keys: Vec<CarriedKey>) -> proto::TransportKeys {
    let key = |CarriedKey { epoch, key }| proto::TransportKey { epoch, key };
    proto::TransportKeys {
        keys: keys.into_iter().map(key).collect(),
    }
}

fn decode_keys(keys: proto::TransportKeys) -> Result<Vec<CarriedKey>, Malformed> {
    let usable = keys.keys.len() <= MAX_KEYS && keys.keys.iter().all(|key| key.key.len() == 32);
    if !usable {
        return Err(Malformed("keys"));
    }
    let key = |proto::TransportKey { epoch, key }| CarriedKey { epoch, key };
    Ok(keys.keys.into_iter().map(key).collect())
}

fn encode_event(event: Revocation) -> proto::Revocation {
    use revocation::Subject;
    let subject = match event {
        Revocation::Session(session) => {
            Subject::SessionId(Bytes::copy_from_slice(&session.to_bytes()))
        }
        Revocation::Player(player, generation) => Subject::Player(proto::PlayerRevocation {
            player_id: Bytes::copy_from_slice(&player.to_bytes()),
            player_generation: generation.0,
        }),
    };
    proto::Revocation {
        subject: Some(subject),
    }
}

fn decode_range(range: &proto::Revocations) -> Result<RevocationRange, Malformed> {
    let covered = range
        .to
        .checked_sub(range.from)
        .ok_or(Malformed("revocations.to"))?;
    // Each event has a revision of its own, so a range cannot hold more of them than it covers.
    let count = range.events.len();
    if count > MAX_RANGE_EVENTS || u64::try_from(count).unwrap_or(u64::MAX) > covered {
        return Err(Malformed("revocations.events"));
    }
    Ok(RevocationRange {
        from: Revision(range.from),
        to: Revision(range.to),
        events: range
            .events
            .iter()
            .map(decode_event)
            .collect::<Result<_, _>>()?,
    })
}

fn decode_event(event: &proto::Revocation) -> Result<Revocation, Malformed> {
    use revocation::Subject;
    const FIELD: &str = "revocations.events.subject";
    match &event.subject {
        Some(Subject::SessionId(id)) => Ok(Revocation::Session(SessionId::from_bytes(id_bytes(
            id, FIELD,
        )?))),
        Some(Subject::Player(player)) => Ok(Revocation::Player(
            PlayerId::from_bytes(id_bytes(&player.player_id, FIELD)?),
            PlayerGeneration(player.player_generation),
        )),
        // A kind of revocation that this gateway does not know: ending the stream is loud, skipping it would keep a dead seat.
        None => Err(Malformed(FIELD)),
    }
}

fn encode_seat(seat: LiveSeat) -> proto::LiveSeat {
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

fn decode_seats(
    seats: &[proto::LiveSeat],
    most: usize,
    field: &'static str,
) -> Result<Vec<LiveSeat>, Malformed> {
    if seats.len() > most {
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

fn id_bytes(bytes: &[u8], field: &'static str) -> Result<[u8; ID_BYTES], Malformed> {
    bytes.try_into().map_err(|_| Malformed(field))
}

fn concatenate(sessions: &[SessionId]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(sessions.len().saturating_mul(ID_BYTES));
    for session in sessions {
        bytes.put_slice(&session.to_bytes());
    }
    bytes.freeze()
}

fn session_ids(
    bytes: &[u8],
    most: usize,
    field: &'static str,
) -> Result<Vec<SessionId>, Malformed> {
    match bytes.as_chunks() {
        (ids, []) if ids.len() <= most => {
            Ok(ids.iter().copied().map(SessionId::from_bytes).collect())
        }
        _ => Err(Malformed(field)),
    }
}

#[cfg(test)]
mod tests;
