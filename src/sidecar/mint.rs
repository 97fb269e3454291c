//! Minting connect tokens: a live session, a gateway that is attached now, and the key of that very process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    clock::{Clock, Timestamp},
    id::{ClientId, GatewayId, Incarnation},
    proto::{self, gateway_target},
    store::{Found, StoreError},
    token::{TransportKey, seal_connect},
};

use super::{
    MasterKey,
    refusal::Refusal,
    registry::{NotFound, Registry, Target},
    sessions::connect_claims,
};

/// The master transport keys.
pub(super) struct MasterKeys {
    pub(super) current: MasterKey,
    pub(super) previous: Option<MasterKey>,
}

impl MasterKeys {
    /// The keys of one gateway process, the one that seals first, with their epochs.
    pub(super) fn for_process(
        &self,
        gateway: &GatewayId,
        incarnation: Incarnation,
    ) -> impl Iterator<Item = (u32, TransportKey)> {
        std::iter::once(&self.current)
            .chain(self.previous.as_ref())
            .map(move |master| {
                let key = master.key.derive(gateway, incarnation, master.epoch);
                (master.epoch, key)
            })
    }

    /// The key that seals for one gateway process.
    fn sealing(&self, gateway: &GatewayId, incarnation: Incarnation) -> TransportKey {
        let MasterKey { epoch, key } = &self.current;
        key.derive(gateway, incarnation, *epoch)
    }
}

/// Makes connect tokens.
pub(super) struct Mint {
    pub(super) registry: Arc<Registry>,
    pub(super) keys: Arc<MasterKeys>,
    pub(super) clock: Clock,
}

impl Mint {
    /// A single-use ticket for the session, to the gateway that `target` names.
    pub(super) fn issue(
        &self,
        found: &Found,
        target: Option<proto::GatewayTarget>,
        life: Duration,
    ) -> Result<proto::ConnectTicket, Refusal> {
        let target = parse_target(target)?;
        let gateway = self
            .registry
            .choose(&target)
            .map_err(|reason| match (reason, target) {
                (NotFound::NotThat, Target::Gateway(id)) => Refusal::NoSuchGateway(id),
                (NotFound::NotThat, Target::Address(_)) => Refusal::NoSuchAddress,
                (NotFound::Away, _) => Refusal::GatewayAway,
                (NotFound::Nothing, _) | (NotFound::NotThat, Target::Any) => Refusal::NoGateway,
            })?;
        let now = self.clock.wall();
        let claims = connect_claims(found, gateway.id.clone(), client_id()?, now, life);
        let Timestamp(expires_at_ms) = claims.expires_at;
        let key = self.keys.sealing(&gateway.id, gateway.incarnation);
        tracing::debug!(
            session = %claims.session,
            player = %claims.player,
            gateway = %gateway.id,
            client = %claims.client,
            revision = %claims.revision,
            "connect token minted"
        );
        Ok(proto::ConnectTicket {
            token: seal_connect(&key, &claims),
            expires_at_ms,
            gateway_id: gateway.id.to_string(),
            addresses: gateway
                .addresses
                .iter()
                .map(SocketAddr::to_string)
                .collect(),
            server_name: gateway.server_name,
            certificate_sha256: gateway
                .certificate_sha256
                .iter()
                .map(|hash| Bytes::copy_from_slice(hash))
                .collect(),
            session_id: claims.session.to_string(),
        })
    }
}

fn parse_target(target: Option<proto::GatewayTarget>) -> Result<Target, Refusal> {
    use gateway_target::Target as Asked;
    let target = target.and_then(|target| target.target);
    match target {
        Some(Asked::GatewayId(id)) => {
            id.parse()
                .map(Target::Gateway)
                .map_err(|source| Refusal::Id {
                    field: "target.gateway_id",
                    source,
                })
        }
        Some(Asked::Address(address)) => {
            address
                .parse()
                .map(Target::Address)
                .map_err(|_| Refusal::Argument {
                    field: "target.address",
                    allowed: "an IP address and a port, as 192.0.2.1:7777 or [2001:db8::1]:7777",
                })
        }
        Some(Asked::Any(true)) => Ok(Target::Any),
        Some(Asked::Any(false)) | None => Err(Refusal::Argument {
            field: "target",
            allowed: "a gateway_id, an address, or any = true",
        }),
    }
}

fn client_id() -> Result<ClientId, Refusal> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Randomness)?;
    Ok(ClientId(u64::from_be_bytes(bytes)))
}
