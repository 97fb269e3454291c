//! What a gateway says.

use super::{
    Malformed,
    attach::{decode_attach, encode_attach},
    events::{decode_events, encode_event},
    lists::{
        concatenate, decode_hashes, decode_key_ids, decode_seats, encode_hashes, encode_key_ids,
        encode_seat, session_ids,
    },
};
use crate::{
    control::{MAX_SEATS, message::FromGateway},
    id::Revision,
    proto::{self, gateway_message::Message},
};

/// A gateway's message for the wire.
pub fn encode_gateway(message: FromGateway) -> proto::GatewayMessage {
    let message = match message {
        FromGateway::Attach(attach) => Message::Attach(encode_attach(*attach)),
        FromGateway::AttachSeats { seats, more_seats } => {
            Message::AttachSeats(proto::AttachSeats {
                seats: seats.into_iter().map(encode_seat).collect(),
                more_seats,
            })
        }
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
        FromGateway::Heartbeat { seats, draining } => {
            Message::Heartbeat(proto::GatewayHeartbeat { seats, draining })
        }
        FromGateway::Certificates(hashes) => Message::Certificates(proto::Certificates {
            sha256: encode_hashes(&hashes),
        }),
        FromGateway::KeysHeld(keys) => Message::KeysHeld(proto::KeysHeld {
            key_ids: encode_key_ids(&keys),
        }),
        FromGateway::Events { events, lost } => Message::Events(proto::GatewayEvents {
            events: events.into_iter().map(encode_event).collect(),
            lost,
        }),
    };
    proto::GatewayMessage {
        message: Some(message),
    }
}

/// A gateway's message from the wire.
///
/// # Errors
/// [`Malformed`] when an id, a count, an address or a label is not what the protocol allows.
pub fn decode_gateway(message: proto::GatewayMessage) -> Result<FromGateway, Malformed> {
    Ok(match message.message.ok_or(Malformed("message"))? {
        Message::Attach(attach) => FromGateway::Attach(Box::new(decode_attach(attach)?)),
        Message::AttachSeats(portion) => FromGateway::AttachSeats {
            seats: decode_seats(&portion.seats, "attach_seats.seats")?,
            more_seats: portion.more_seats,
        },
        Message::Activity(batch) => {
            FromGateway::Activity(session_ids(&batch.session_ids, "activity.session_ids")?)
        }
        Message::Seats(seats) => FromGateway::Seats {
            opened: decode_seats(&seats.opened, "seats.opened")?,
            closed: session_ids(&seats.closed, "seats.closed")?,
        },
        Message::Ack(ack) => FromGateway::Ack(Revision(ack.revision)),
        Message::Heartbeat(heartbeat) => FromGateway::Heartbeat {
            seats: heartbeat.seats.min(MAX_SEATS),
            draining: heartbeat.draining,
        },
        Message::Certificates(certificates) => {
            FromGateway::Certificates(decode_hashes(&certificates.sha256, "certificates.sha256")?)
        }
        Message::KeysHeld(held) => {
            FromGateway::KeysHeld(decode_key_ids(&held.key_ids, "keys_held.key_ids")?)
        }
        Message::Events(events) => FromGateway::Events {
            lost: events.lost,
            events: decode_events(events.events)?,
        },
    })
}
