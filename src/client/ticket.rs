//! Connect tickets: a single-use token, and where and how to present it.

use std::net::SocketAddr;

use thiserror::Error;

use super::SecretToken;
use crate::{
    clock::Timestamp,
    id::{GatewayId, SessionId},
    proto,
};

/// Which gateway a connect token shall open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The gateway of this id.
    Gateway(GatewayId),
    /// The gateway that advertises this UDP address.
    Address(SocketAddr),
    /// Any attached gateway: the least loaded one.
    Any,
}

impl From<Target> for proto::GatewayTarget {
    fn from(target: Target) -> Self {
        use proto::gateway_target::Target as Wire;
        let target = match target {
            Target::Gateway(id) => Wire::GatewayId(id.to_string()),
            Target::Address(address) => Wire::Address(address.to_string()),
            Target::Any => Wire::Any(true),
        };
        Self {
            target: Some(target),
        }
    }
}

/// A single-use connect token with everything needed to present it.
///
/// The token is presented in Hello only, after the gateway has proven that it holds one of the certificates named here. So
/// addresses may be tried one after the other without spending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The connect token.
    pub token: SecretToken,
    /// When the token stops being accepted.
    pub expires_at: Timestamp,
    /// The gateway that it opens.
    pub gateway: GatewayId,
    /// UDP addresses of that gateway, best first.
    pub addresses: Vec<SocketAddr>,
    /// The TLS server name to ask for.
    pub server_name: String,
    /// SHA-256 of the gateway's leaf certificate (DER): the one it serves, and the next one once it is announced. Never empty.
    pub certificate_sha256: Vec<[u8; 32]>,
    /// The session that the token admits.
    pub session: SessionId,
}

/// A ConnectTicket that is none: which of its fields cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("connect ticket with an unusable {0}")]
pub struct MalformedTicket(pub &'static str);

impl TryFrom<proto::ConnectTicket> for Ticket {
    type Error = MalformedTicket;

    fn try_from(ticket: proto::ConnectTicket) -> Result<Self, MalformedTicket> {
        let proto::ConnectTicket {
            token,
            expires_at_ms,
            gateway_id,
            addresses,
            server_name,
            certificate_sha256,
            session_id,
        } = ticket;
        let addresses = addresses
            .iter()
            .map(|address| address.parse())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| MalformedTicket("address"))?;
        let certificate_sha256 = certificate_sha256
            .iter()
            .map(|hash| hash.as_ref().try_into())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| MalformedTicket("certificate hash"))?;
        if addresses.is_empty() {
            return Err(MalformedTicket("list of addresses: it is empty"));
        }
        if certificate_sha256.is_empty() {
            return Err(MalformedTicket("list of certificate hashes: it is empty"));
        }
        Ok(Self {
            token: SecretToken::new(token),
            expires_at: Timestamp(expires_at_ms),
            gateway: gateway_id
                .parse()
                .map_err(|_| MalformedTicket("gateway id"))?,
            addresses,
            server_name,
            certificate_sha256,
            session: session_id
                .parse()
                .map_err(|_| MalformedTicket("session id"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn carried() -> proto::ConnectTicket {
        proto::ConnectTicket {
            token: "v4.local.secret".into(),
            expires_at_ms: 7,
            gateway_id: "eu-1".into(),
            addresses: vec!["192.0.2.1:7777".into(), "[2001:db8::1]:7777".into()],
            server_name: "game.example".into(),
            certificate_sha256: vec![Bytes::from_static(&[9; 32])],
            session_id: SessionId(5).to_string(),
        }
    }

    #[test]
    fn a_ticket_is_taken_whole() {
        let ticket = Ticket::try_from(carried()).unwrap();
        assert_eq!(ticket.addresses.len(), 2);
        assert_eq!(ticket.certificate_sha256, [[9; 32]]);
        assert_eq!(ticket.session, SessionId(5));
        assert!(!format!("{ticket:?}").contains("secret"));
    }

    #[test]
    fn a_ticket_with_an_unusable_field_is_refused() {
        let spoilings: [fn(&mut proto::ConnectTicket); 6] = [
            |t| t.gateway_id = "NO".into(),
            |t| t.session_id.clear(),
            |t| t.addresses.clear(),
            |t| t.addresses = vec!["localhost".into()],
            |t| t.certificate_sha256.clear(),
            |t| t.certificate_sha256 = vec![Bytes::from_static(&[9; 31])],
        ];
        for spoil in spoilings {
            let mut ticket = carried();
            spoil(&mut ticket);
            assert!(Ticket::try_from(ticket).is_err());
        }
    }

    #[test]
    fn targets_say_one_thing() {
        use proto::gateway_target::Target as Wire;
        let gateway = Target::Gateway("eu-1".parse().unwrap());
        let carried = proto::GatewayTarget::from(gateway);
        assert_eq!(carried.target, Some(Wire::GatewayId("eu-1".into())));
        let carried = proto::GatewayTarget::from(Target::Any);
        assert_eq!(carried.target, Some(Wire::Any(true)));
    }
}
