//! How a gateway presents itself.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{
    MAX_ADDRESSES, MAX_SERVER_NAME_BYTES, Malformed,
    lists::{
        decode_address, decode_hashes, decode_key_ids, decode_seats, encode_hashes, encode_key_ids,
        encode_seat, id_bytes,
    },
};
use crate::{
    control::{
        GatewayDescription, MAX_SEATS,
        message::{Attach, LogPosition},
    },
    id::{Incarnation, Lineage, Revision},
    proto,
};

pub(super) fn encode_attach(attach: Attach) -> proto::Attach {
    let Attach {
        gateway,
        position,
        draining,
        seat_count,
        seats,
        more_seats,
        keys,
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
        certificate_sha256: encode_hashes(&certificate_sha256),
        capacity,
        lineage: position
            .map(|p| Bytes::copy_from_slice(&p.lineage.to_bytes()))
            .unwrap_or_default(),
        revision: position.map_or(0, |p| p.revision.0),
        seats: seats.into_iter().map(encode_seat).collect(),
        more_seats,
        draining,
        seat_count,
        key_ids: encode_key_ids(&keys),
    }
}

pub(super) fn decode_attach(attach: proto::Attach) -> Result<Attach, Malformed> {
    let gateway = GatewayDescription {
        id: attach
            .gateway_id
            .parse()
            .map_err(|_| Malformed("attach.gateway_id"))?,
        incarnation: Incarnation::from_bytes(id_bytes(&attach.incarnation, "attach.incarnation")?),
        addresses: decode_addresses(&attach.addresses)?,
        server_name: decode_server_name(attach.server_name)?,
        certificate_sha256: decode_hashes(&attach.certificate_sha256, "attach.certificate_sha256")?,
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
    Ok(Attach {
        gateway,
        position,
        draining: attach.draining,
        seat_count: attach.seat_count,
        seats: decode_seats(&attach.seats, "attach.seats")?,
        more_seats: attach.more_seats,
        keys: decode_key_ids(&attach.key_ids, "attach.key_ids")?,
    })
}

fn decode_addresses(texts: &[String]) -> Result<Vec<SocketAddr>, Malformed> {
    const FIELD: &str = "attach.addresses";
    if !(1..=MAX_ADDRESSES).contains(&texts.len()) {
        return Err(Malformed(FIELD));
    }
    texts
        .iter()
        .map(|text| decode_address(text, FIELD))
        .collect()
}

fn decode_server_name(name: String) -> Result<String, Malformed> {
    let well_formed = (1..=MAX_SERVER_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    well_formed
        .then_some(name)
        .ok_or(Malformed("attach.server_name"))
}
