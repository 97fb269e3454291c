//! Minting connect tokens: a live session, a gateway that is attached now, and the key of that very process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    clock::Clock,
    id::{ClientId, SessionId},
    proto::{self, gateway_target},
    store::{Found, Store, StoreError},
    token::seal_connect,
};

use super::{
    client_key,
    explain::Explain,
    keys::Keys,
    limit::Limit,
    metrics::Counters,
    refusal::Refusal,
    registry::{Chosen, NotFound, Registry, Target},
    sessions::connect_claims,
    trace,
};

/// Makes connect tokens.
pub(super) struct Mint {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Arc<Keys>,
    pub(super) limit: Limit<SessionId>,
    pub(super) clock: Clock,
    pub(super) explain: Arc<Explain>,
    pub(super) counters: Arc<Counters>,
}

/// A connect token as it is asked for.
pub(super) struct Wanted {
    /// Which gateway it shall open.
    pub(super) target: Option<proto::GatewayTarget>,
    /// How long it shall be good.
    pub(super) life: Duration,
    /// The Ed25519 public key whose holder alone may use it; empty for any bearer.
    pub(super) client_key: Bytes,
}

impl Mint {
    /// A single-use ticket for the session.
    pub(super) async fn issue(
        &self,
        found: &Found,
        wanted: Wanted,
    ) -> Result<proto::ConnectTicket, Refusal> {
        let issued = self.issue_uncounted(found, wanted).await;
        let outcome = issued.as_ref().map_or_else(Refusal::label, |_| "minted");
        self.counters.connect_tokens.count(outcome);
        issued
    }

    /// The gateway for the token. One that attached to another sidecar a moment ago is asked for before it is refused.
    async fn choose(&self, target: &Target) -> Result<Result<Chosen, NotFound>, StoreError> {
        let chosen = self.registry.choose(target);
        match chosen {
            Err(NotFound::Nothing | NotFound::Away | NotFound::NotThat)
                if self.store.is_shared() =>
            {
                let published = self.store.gateways(self.clock.wall()).await?;
                self.registry.hear_of(published);
                Ok(self.registry.choose(target))
            }
            _ => Ok(chosen),
        }
    }

    async fn issue_uncounted(
        &self,
        found: &Found,
        wanted: Wanted,
    ) -> Result<proto::ConnectTicket, Refusal> {
        let Wanted {
            target,
            life,
            client_key,
        } = wanted;
        let target = parse_target(target)?;
        let client_key = client_key::parse(&client_key)?;
        let session = found.session.id;
        self.limit
            .take(session, None)
            .map_err(|wait| Refusal::TooManyConnectTokens { wait })?;
        let Chosen {
            description: gateway,
            keys: held,
        } = self
            .choose(&target)
            .await?
            .map_err(|reason| match (reason, target) {
                (NotFound::NotThat, Target::Gateway(id)) => Refusal::NoSuchGateway(id),
                (NotFound::NotThat, Target::Address(_)) => Refusal::NoSuchAddress,
                (NotFound::Away, _) => Refusal::GatewayAway,
                (NotFound::Draining, _) => Refusal::GatewayDrains,
                (NotFound::Nothing, _) | (NotFound::NotThat, Target::Any) => Refusal::NoGateway,
            })?;
        trace::gateway(&gateway.id);
        // Before the token is in the world, or the gateway could report activity that is not believed yet.
        self.store.grant(session, gateway.id.clone()).await?;
        let now = self.clock.wall();
        let key = self
            .keys
            .sealing(&gateway.id, gateway.incarnation, &held, now)
            // It hears of its keys in this moment.
            .ok_or(Refusal::GatewayAway)?;
        let id = gateway.id.clone();
        let claims = connect_claims(found, id, client_id()?, client_key, now, life);
        let token = seal_connect(&key, &claims);
        self.explain.minted(
            session,
            claims.player,
            &gateway.id,
            sha256(&token),
            claims.expires_at,
            now,
        );
        tracing::debug!(
            session = %claims.session,
            player = %claims.player,
            gateway = %gateway.id,
            client = %claims.client,
            revision = %claims.revision,
            "connect token minted"
        );
        Ok(proto::ConnectTicket {
            token,
            expires_at_ms: claims.expires_at.0,
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

/// By which mint and refusal of a token are known to be of the same one, where the token itself must not be written down.
fn sha256(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

fn client_id() -> Result<ClientId, Refusal> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Randomness)?;
    Ok(ClientId(u64::from_be_bytes(bytes)))
}
