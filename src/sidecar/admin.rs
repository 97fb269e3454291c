//! AdminService: what backends and operators call.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tonic::{Request, Response, Status};

use crate::{
    id::{PlayerId, Revision, SessionId},
    proto::{self, RevokeWait, admin_service_server::AdminService},
    rpc::{self, Role},
    store::{Identity, PlayerRevocation, SessionRevocation},
    token::MAX_CONNECT_LIFE,
};

use super::{
    config::SHORTEST_LIFE,
    mint::{Mint, Wanted},
    refusal::Refusal,
    registry::{Listed, Registry},
    sessions::{LoggedIn, Sessions},
};

/// How players whom a backend has authenticated log in, as sessions and tokens say it.
const METHOD: &str = "backend";

const MAX_SUBJECT: usize = 256;

/// How long a revocation waits for gateways unless told otherwise, and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The service.
pub(super) struct AdminApi {
    pub(super) sessions: Arc<Sessions>,
    pub(super) mint: Arc<Mint>,
    pub(super) registry: Arc<Registry>,
}

/// Whom the caller's certificate names, as `backend/<name>` or `admin/<name>`; anybody else is refused.
fn caller<T>(request: &Request<T>) -> Result<String, Refusal> {
    match rpc::peer(request).and_then(|peer| peer.role) {
        Some(Role::Backend(name)) => Ok(format!("backend/{name}")),
        Some(Role::Admin(name)) => Ok(format!("admin/{name}")),
        Some(Role::Gateway(_)) | None => Err(Refusal::Role),
    }
}

/// What a revocation was asked to wait for. Too long a wait is cut short and not refused, since refusing it would leave what was to
/// be revoked alive.
fn patience(wait: i32, wait_ms: u32) -> Result<Option<Duration>, Refusal> {
    let wait = RevokeWait::try_from(wait).map_err(|_| Refusal::Argument {
        field: "wait",
        allowed: "REVOKE_WAIT_COMMIT or REVOKE_WAIT_GATEWAYS",
    })?;
    let patience = match wait_ms {
        0 => DEFAULT_WAIT,
        ms => Duration::from_millis(ms.into()),
    };
    Ok((wait == RevokeWait::Gateways).then_some(patience.min(LONGEST_WAIT)))
}

fn session_id(text: &str) -> Result<SessionId, Refusal> {
    text.parse().map_err(|source| Refusal::Id {
        field: "session_id",
        source,
    })
}

fn player_id(text: &str) -> Result<PlayerId, Refusal> {
    text.parse().map_err(|source| Refusal::Id {
        field: "player_id",
        source,
    })
}

impl AdminApi {
    fn life(&self, life_ms: u32) -> Result<Duration, Refusal> {
        let life = match life_ms {
            0 => self.sessions.lives.connect_token,
            ms => Duration::from_millis(ms.into()),
        };
        if (SHORTEST_LIFE..=MAX_CONNECT_LIFE).contains(&life) {
            Ok(life)
        } else {
            Err(Refusal::Argument {
                field: "life_ms",
                allowed: "0 for the default, or 1,000 to 300,000",
            })
        }
    }

    /// The answer to a revocation, after the wait that was asked for.
    async fn revoked(
        &self,
        sessions_ended: u32,
        revision: Revision,
        patience: Option<Duration>,
    ) -> proto::RevokeResponse {
        let acknowledged = match patience {
            None => false,
            Some(patience) => self.registry.acknowledged_by_all(revision, patience).await,
        };
        proto::RevokeResponse {
            sessions_ended,
            revision: revision.0,
            acknowledged,
        }
    }
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn create_session(
        &self,
        request: Request<proto::CreateSessionRequest>,
    ) -> Result<Response<proto::CreateSessionResponse>, Status> {
        let provider = caller(&request)?;
        let proto::CreateSessionRequest { subject } = request.into_inner();
        if !(1..=MAX_SUBJECT).contains(&subject.len()) {
            let (field, allowed) = ("subject", "1 to 256 bytes");
            return Err(Refusal::Argument { field, allowed }.into());
        }
        let identity = Identity { provider, subject };
        let LoggedIn {
            found,
            is_new_player,
            token,
            expires_at,
            refresh_token,
        } = self.sessions.log_in(identity, METHOD).await?;
        Ok(Response::new(proto::CreateSessionResponse {
            session_id: found.session.id.to_string(),
            player_id: found.player.id.to_string(),
            is_new_player,
            session_token: token,
            expires_at_ms: expires_at.0,
            session_ends_at_ms: found.session.ends_at.0,
            refresh_token,
        }))
    }

    async fn issue_connect_token(
        &self,
        request: Request<proto::AdminIssueConnectTokenRequest>,
    ) -> Result<Response<proto::ConnectTicket>, Status> {
        caller(&request)?;
        let proto::AdminIssueConnectTokenRequest {
            session_id: id,
            target,
            life_ms,
            client_key,
        } = request.into_inner();
        let life = self.life(life_ms)?;
        let found = self.sessions.live(session_id(&id)?).await?;
        let wanted = Wanted {
            target,
            life,
            client_key,
        };
        Ok(Response::new(self.mint.issue(&found, wanted).await?))
    }

    async fn revoke_session(
        &self,
        request: Request<proto::RevokeSessionRequest>,
    ) -> Result<Response<proto::RevokeResponse>, Status> {
        let by = caller(&request)?;
        let proto::RevokeSessionRequest {
            session_id: id,
            wait,
            wait_ms,
        } = request.into_inner();
        let patience = patience(wait, wait_ms)?;
        let id = session_id(&id)?;
        let Sessions { store, clock, .. } = &*self.sessions;
        let (ended, revision) = match store
            .revoke_session(id, clock.wall())
            .await
            .map_err(Refusal::from)?
        {
            SessionRevocation::Ended(revision) => {
                tracing::info!(session = %id, %revision, by, "session revoked");
                (1, revision)
            }
            SessionRevocation::AlreadyEnded(revision) => (0, revision),
            SessionRevocation::Unknown => return Err(Refusal::NoSuchSession.into()),
        };
        Ok(Response::new(self.revoked(ended, revision, patience).await))
    }

    async fn revoke_player(
        &self,
        request: Request<proto::RevokePlayerRequest>,
    ) -> Result<Response<proto::RevokeResponse>, Status> {
        let by = caller(&request)?;
        let proto::RevokePlayerRequest {
            player_id: id,
            wait,
            wait_ms,
        } = request.into_inner();
        let patience = patience(wait, wait_ms)?;
        let id = player_id(&id)?;
        let Sessions { store, clock, .. } = &*self.sessions;
        match store
            .revoke_player(id, clock.wall())
            .await
            .map_err(Refusal::from)?
        {
            PlayerRevocation::Ended {
                generation: _,
                revision,
                sessions,
            } => {
                tracing::info!(player = %id, %revision, sessions, by, "player revoked");
                Ok(Response::new(
                    self.revoked(sessions, revision, patience).await,
                ))
            }
            PlayerRevocation::Unknown => Err(Refusal::NoSuchPlayer.into()),
        }
    }

    async fn list_gateways(
        &self,
        request: Request<proto::ListGatewaysRequest>,
    ) -> Result<Response<proto::ListGatewaysResponse>, Status> {
        caller(&request)?;
        let gateways = self.registry.list().into_iter().map(gateway).collect();
        Ok(Response::new(proto::ListGatewaysResponse { gateways }))
    }

    async fn list_sessions(
        &self,
        _request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn drain_gateway(
        &self,
        _request: Request<proto::DrainGatewayRequest>,
    ) -> Result<Response<proto::DrainGatewayResponse>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn explain(
        &self,
        _request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        Err(Status::unimplemented("placeholder"))
    }
}

fn gateway(listed: Listed) -> proto::Gateway {
    let Listed {
        description,
        seats,
        revision,
    } = listed;
    proto::Gateway {
        id: description.id.to_string(),
        incarnation: description.incarnation.to_string(),
        addresses: description
            .addresses
            .iter()
            .map(SocketAddr::to_string)
            .collect(),
        capacity: description.capacity,
        seats,
        revision: revision.0,
        draining: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_long_a_wait_is_cut_short() {
        let asked = |ms| patience(RevokeWait::Gateways.into(), ms).unwrap();
        assert_eq!(asked(0), Some(DEFAULT_WAIT));
        assert_eq!(asked(1), Some(Duration::from_millis(1)));
        assert_eq!(asked(u32::MAX), Some(LONGEST_WAIT));
        assert_eq!(patience(RevokeWait::Commit.into(), u32::MAX).unwrap(), None);
        assert!(patience(7, 0).is_err());
    }
}
