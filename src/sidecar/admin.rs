//! AdminService: what backends and operators call.

mod explanation;
mod keys;
mod listing;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tonic::{Request, Response, Status};

use crate::{
    clock::Timestamp,
    control::Drain,
    id::{GatewayId, PlayerId, Revision, SessionId},
    proto::{self, RevokeWait, admin_service_server::AdminService},
    rpc::{self, Role},
    store::{Identity, PlayerRevocation, SessionRevocation},
};

use super::{
    audit::{self, Event, Revoked},
    call,
    config::SHORTEST_LIFE,
    keys::Keys,
    mint::{Mint, Wanted},
    refusal::Refusal,
    registry::{Listed, NotFound, Registry},
    sessions::{LoggedIn, Sessions},
    trace,
};

/// How players whom a backend has authenticated log in, as sessions and tokens say it.
const METHOD: &str = "backend";

const MAX_SUBJECT: usize = 256;

const MAX_ROLE: usize = 32;

/// How long a revocation waits for gateways unless told otherwise, and at most.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The longest that players may be given to leave a gateway: no session lives longer, unless configured otherwise.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The service.
pub(super) struct AdminApi {
    pub(super) sessions: Arc<Sessions>,
    pub(super) mint: Arc<Mint>,
    pub(super) registry: Arc<Registry>,
    pub(super) keys: Arc<Keys>,
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

/// Whom the caller's certificate names, if it is an operator's; a backend is refused like anybody else.
fn operator<T>(request: &Request<T>) -> Result<String, Refusal> {
    match rpc::peer(request).and_then(|peer| peer.role) {
        Some(Role::Admin(name)) => Ok(format!("admin/{name}")),
        Some(Role::Backend(_) | Role::Gateway(_)) | None => Err(Refusal::AdminRole),
    }
}

fn gateway_id(text: &str) -> Result<GatewayId, Refusal> {
    text.parse().map_err(|source| Refusal::Id {
        field: "gateway_id",
        source,
    })
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
        let longest = self.sessions.lives.longest_connect_token;
        if (SHORTEST_LIFE..=longest).contains(&life) {
            Ok(life)
        } else {
            Err(Refusal::Argument {
                field: "life_ms",
                allowed: "0 for the default, or 1,000 to the longest that is configured, 300,000 unless said otherwise",
            })
        }
    }

    /// Takes note of a revocation, with the player whose session it was.
    async fn session_revoked(&self, id: SessionId, revision: Revision, at: Timestamp) {
        let Sessions {
            store,
            explain,
            counters,
            ..
        } = &*self.sessions;
        counters.revocations.count("session");
        // The revocation stands, whether or not it can be explained.
        let found = store.session(id).await.ok().flatten();
        if let Some(found) = &found {
            trace::session(found);
            explain.session_revoked(id, found.player.id, revision, at);
        }
        audit::record(Event::SessionRevoked {
            session: id,
            player: found.map(|found| found.player.id),
            revision,
            reason: Revoked::Ordered,
        });
    }

    /// Hears which gateways are attached to other sidecars over the same store, so that those are waited for as well.
    async fn ask_others(&self) {
        let Sessions { store, clock, .. } = &*self.sessions;
        if !store.is_shared() {
            return;
        }
        match store.gateways(clock.wall()).await {
            Ok(published) => self.registry.hear_of(published),
            // Those that were known a second ago are waited for.
            Err(error) => {
                tracing::warn!(label = error.label(), %error, "other sidecars' gateways are not known to the second");
            }
        }
    }

    /// The answer to a revocation, after the wait that was asked for, or as much of it as the call has time for.
    async fn revoked(
        &self,
        sessions_ended: u32,
        revision: Revision,
        patience: Option<Duration>,
    ) -> proto::RevokeResponse {
        let acknowledged = match patience {
            None => false,
            Some(patience) => {
                let acknowledged = call::in_time(async {
                    self.ask_others().await;
                    self.registry.acknowledged_by_all(revision, patience).await
                });
                acknowledged.await.unwrap_or(false)
            }
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
        audit::method(METHOD);
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
        } = self.sessions.log_in(identity, METHOD, false).await?;
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
        let ticket = self.mint.issue(&found, wanted).await?;
        audit::record(Event::TokenMinted);
        Ok(Response::new(ticket))
    }

    async fn revoke_session(
        &self,
        request: Request<proto::RevokeSessionRequest>,
    ) -> Result<Response<proto::RevokeResponse>, Status> {
        caller(&request)?;
        let proto::RevokeSessionRequest {
            session_id: id,
            wait,
            wait_ms,
        } = request.into_inner();
        let patience = patience(wait, wait_ms)?;
        let id = session_id(&id)?;
        let Sessions { store, clock, .. } = &*self.sessions;
        let at = clock.wall();
        let (ended, revision) = match store.revoke_session(id, at).await.map_err(Refusal::from)? {
            SessionRevocation::Ended(revision) => {
                self.session_revoked(id, revision, at).await;
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
        caller(&request)?;
        let proto::RevokePlayerRequest {
            player_id: id,
            wait,
            wait_ms,
        } = request.into_inner();
        let patience = patience(wait, wait_ms)?;
        let id = player_id(&id)?;
        let Sessions { store, clock, .. } = &*self.sessions;
        let at = clock.wall();
        match store.revoke_player(id, at).await.map_err(Refusal::from)? {
            PlayerRevocation::Ended {
                generation: _,
                revision,
                sessions,
            } => {
                self.sessions.explain.player_revoked(id, revision, at);
                self.sessions.counters.revocations.count("player");
                audit::record(Event::PlayerRevoked {
                    player: id,
                    revision,
                    sessions,
                    reason: Revoked::Ordered,
                });
                Ok(Response::new(
                    self.revoked(sessions, revision, patience).await,
                ))
            }
            PlayerRevocation::Unknown => Err(Refusal::NoSuchPlayer.into()),
        }
    }

    async fn set_role(
        &self,
        request: Request<proto::SetRoleRequest>,
    ) -> Result<Response<proto::SetRoleResponse>, Status> {
        operator(&request)?;
        let proto::SetRoleRequest {
            player_id: id,
            role,
        } = request.into_inner();
        let id = player_id(&id)?;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if !(1..=MAX_ROLE).contains(&role.len()) || !role.bytes().all(allowed) {
            let (field, allowed) = ("role", "1 to 32 lower-case letters, digits, '-' and '_'");
            return Err(Refusal::Argument { field, allowed }.into());
        }
        let store = &self.sessions.store;
        let changed = store.set_role(id, role.clone()).await;
        let previous = changed
            .map_err(Refusal::from)?
            .ok_or(Refusal::NoSuchPlayer)?;
        audit::record(Event::RoleSet {
            player: id,
            role: &role,
            previous: &previous,
        });
        Ok(Response::new(proto::SetRoleResponse { previous }))
    }

    async fn list_gateways(
        &self,
        request: Request<proto::ListGatewaysRequest>,
    ) -> Result<Response<proto::ListGatewaysResponse>, Status> {
        caller(&request)?;
        audit::record(read(None, None, None));
        let gateways = self.registry.list().into_iter().map(gateway).collect();
        Ok(Response::new(proto::ListGatewaysResponse { gateways }))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        operator(&request)?;
        let asked = request.into_inner();
        let player = asked.player_id.parse().ok();
        let page = self.page(asked).await?;
        audit::record(read(None, player, None));
        Ok(Response::new(page))
    }

    async fn drain_gateway(
        &self,
        request: Request<proto::DrainGatewayRequest>,
    ) -> Result<Response<proto::DrainGatewayResponse>, Status> {
        operator(&request)?;
        let proto::DrainGatewayRequest {
            gateway_id: id,
            deadline_ms,
            cancel,
        } = request.into_inner();
        let id = gateway_id(&id)?;
        trace::gateway(&id);
        let drain = drain(deadline_ms, cancel)?;
        let seats = self.registry.drain(&id, drain).map_err(|reason| {
            Status::from(match reason {
                NotFound::NotThat | NotFound::Nothing => Refusal::NoSuchGateway(id.clone()),
                NotFound::Away | NotFound::Draining => Refusal::GatewayAway,
            })
        })?;
        audit::record(Event::DrainOrdered {
            gateway: &id,
            drain,
            seats,
        });
        Ok(Response::new(proto::DrainGatewayResponse { seats }))
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        operator(&request)?;
        audit::record(read(None, None, None));
        Ok(Response::new(self.list_of_keys().await))
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        use proto::explain_request::About;
        operator(&request)?;
        let proto::ExplainRequest { about } = request.into_inner();
        let answer = match about {
            Some(About::PlayerId(id)) => {
                let id = player_id(&id)?;
                audit::record(read(None, Some(id), None));
                self.explain_player(id).await
            }
            Some(About::SessionId(id)) => {
                let id = session_id(&id)?;
                audit::record(read(Some(id), None, None));
                self.explain_session(id).await
            }
            Some(About::GatewayId(id)) => {
                let id = gateway_id(&id)?;
                audit::record(read(None, None, Some(&id)));
                self.explain_gateway(&id)
            }
            None => Err(Refusal::Argument {
                field: "about",
                allowed: "a player_id, a session_id or a gateway_id",
            }),
        };
        Ok(Response::new(answer?))
    }
}

fn read(
    session: Option<SessionId>,
    player: Option<PlayerId>,
    gateway: Option<&GatewayId>,
) -> Event<'_> {
    Event::Read {
        session,
        player,
        gateway,
    }
}

/// What a gateway is told, of what an operator asks.
fn drain(deadline_ms: u64, cancel: bool) -> Result<Drain, Refusal> {
    if cancel {
        return Ok(Drain::Cancel);
    }
    let deadline = Duration::from_millis(deadline_ms);
    if deadline > LONGEST_DRAIN {
        return Err(Refusal::Argument {
            field: "deadline_ms",
            allowed: "0 to 86,400,000 (24 h)",
        });
    }
    Ok(Drain::Within(deadline))
}

fn gateway(listed: Listed) -> proto::Gateway {
    let Listed {
        description,
        seats,
        revision,
        draining,
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
        draining,
    }
}

#[cfg(test)]
mod tests;
