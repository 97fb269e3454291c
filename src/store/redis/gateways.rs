//! What sidecars tell each other of the gateways that are attached to them: records with a lease.

use bytes::Bytes;
use prost::Message;

use super::reply::DAMAGED;
use crate::{
    control::GatewayDescription,
    id::{Incarnation, Revision},
    proto,
    store::{PublishedGateway, StoreError},
};

/// The record of a gateway, as it is kept.
pub(super) fn encode(gateway: &PublishedGateway) -> Vec<u8> {
    let PublishedGateway {
        description,
        seats,
        draining,
        acknowledged,
        keys,
        elsewhere: _,
    } = gateway;
    let GatewayDescription {
        id,
        incarnation,
        addresses,
        server_name,
        certificate_sha256,
        capacity,
    } = description;
    let record = proto::PublishedGatewayRecord {
        gateway_id: id.to_string(),
        incarnation: Bytes::copy_from_slice(&incarnation.to_bytes()),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        server_name: server_name.clone(),
        certificate_sha256: certificate_sha256
            .iter()
            .map(|hash| Bytes::copy_from_slice(hash))
            .collect(),
        capacity: *capacity,
        seats: *seats,
        draining: *draining,
        acknowledged: acknowledged.0,
        key_ids: keys.iter().map(ToString::to_string).collect(),
    };
    record.encode_to_vec()
}

/// The gateway of a record; `elsewhere`, whether another sidecar has published it.
pub(super) fn decode(bytes: &[u8], elsewhere: bool) -> Result<PublishedGateway, StoreError> {
    let record = proto::PublishedGatewayRecord::decode(bytes).map_err(|_| DAMAGED)?;
    let incarnation = record.incarnation.as_ref().try_into();
    let addresses = record.addresses.iter().map(|address| address.parse());
    let keys = record.key_ids.iter().map(|id| id.parse());
    let keys: Vec<_> = keys.collect::<Result<_, _>>().map_err(|_| DAMAGED)?;
    let hashes = record.certificate_sha256.iter();
    let hashes = hashes.map(|hash| hash.as_ref().try_into().map_err(|_| DAMAGED));
    Ok(PublishedGateway {
        description: GatewayDescription {
            id: record.gateway_id.parse().map_err(|_| DAMAGED)?,
            incarnation: Incarnation::from_bytes(incarnation.map_err(|_| DAMAGED)?),
            addresses: addresses.collect::<Result<_, _>>().map_err(|_| DAMAGED)?,
            server_name: record.server_name,
            certificate_sha256: hashes.collect::<Result<_, _>>()?,
            capacity: record.capacity,
        },
        seats: record.seats,
        draining: record.draining,
        acknowledged: Revision(record.acknowledged),
        keys: keys.into(),
        elsewhere,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SessionKey;

    #[test]
    fn a_gateway_survives_its_record() {
        let gateway = PublishedGateway {
            description: GatewayDescription {
                id: "eu-1".parse().unwrap(),
                incarnation: Incarnation(7),
                addresses: vec!["[2001:db8::1]:7777".parse().unwrap()],
                server_name: "tickgate.local".to_owned(),
                certificate_sha256: vec![[1; 32], [2; 32]],
                capacity: 4_096,
            },
            seats: 12,
            draining: true,
            acknowledged: Revision(9),
            keys: vec![SessionKey::generate().id()].into(),
            elsewhere: true,
        };
        assert_eq!(decode(&encode(&gateway), true).unwrap(), gateway);
        assert!(decode(b"\xff", true).is_err());
    }
}
