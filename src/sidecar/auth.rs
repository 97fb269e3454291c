//! AuthService: what players and their clients call.

mod entering;
mod ways;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    proto::{self, auth_service_server::AuthService},
    store::{Found, SessionRevocation, Standing},
};

use super::{
    audit::{self, Event, Revoked},
    login::{Methods, limits::Limits, nonce::Drawn, oidc, otp::Requested},
    mint::{Mint, Wanted},
    refresh::Renewed,
    refusal::Refusal,
    registry::Registry,
    sessions::{LoggedIn, Sessions, session_info},
};

/// How many of a player's own sessions are listed, and how many of the newest are looked at for them: what one call may cost.
const LISTED: usize = 100;
const LOOKED_AT: usize = 1_000;

/// The service.
pub(super) struct AuthApi {
    pub(super) sessions: Arc<Sessions>,
    pub(super) mint: Arc<Mint>,
    pub(super) registry: Arc<Registry>,
    pub(super) methods: Methods,
    pub(super) limits: Limits,
    /// How long ago a log-in may be for its session to change how the player logs in.
    pub(super) fresh: Duration,
}

impl AuthApi {
    /// The live session of the call's bearer.
    pub(super) async fn caller(&self, metadata: &MetadataMap) -> Result<Found, Refusal> {
        self.sessions.of_bearer(bearer(metadata)?).await
    }

    async fn own_sessions(
        &self,
        caller: &Found,
        include_ended: bool,
    ) -> Result<Vec<proto::SessionInfo>, Refusal> {
        let store = &self.sessions.store;
        let (now, idle) = (self.sessions.clock.wall(), self.sessions.lives.idle);
        let newest = store.sessions(Some(caller.player.id), None, LOOKED_AT);
        let wanted = newest
            .await?
            .into_iter()
            .filter(|found| include_ended || found.standing(now, idle) == Standing::Live);
        let listed = wanted.take(LISTED).map(|found| {
            let gateways = self.registry.seats_of(found.session.id);
            session_info(&found, now, idle, &gateways)
        });
        Ok(listed.collect())
    }

    /// Revokes a session of the caller's player; whether it was still to be revoked.
    async fn revoke_own(&self, caller: &Found, asked: &str) -> Result<bool, Refusal> {
        let id = if asked.is_empty() {
            caller.session.id
        } else {
            asked.parse().map_err(|source| Refusal::Id {
                field: "session_id",
                source,
            })?
        };
        let found = self.sessions.store.session(id).await?;
        // Another player's session is none of the caller's business, not even whether it exists.
        if found.is_none_or(|found| found.player.id != caller.player.id) {
            return Err(Refusal::NoSuchSession);
        }
        let at = self.sessions.clock.wall();
        if id == caller.session.id {
            return self.sessions.log_out(caller, at).await;
        }
        match self.sessions.store.revoke_session(id, at).await? {
            SessionRevocation::Ended(revision) => {
                let player = caller.player.id;
                self.sessions
                    .note_revoked(id, player, revision, at, Revoked::Own);
                Ok(true)
            }
            SessionRevocation::AlreadyEnded(_) => Ok(false),
            SessionRevocation::Unknown => Err(Refusal::NoSuchSession),
        }
    }
}

#[tonic::async_trait]
impl AuthService for AuthApi {
    async fn request_otp(
        &self,
        request: Request<proto::RequestOtpRequest>,
    ) -> Result<Response<proto::RequestOtpResponse>, Status> {
        let otp = self.methods.otp.as_ref().ok_or(Refusal::MethodOff("otp"))?;
        let origin = self.limited("request_otp", &request)?;
        let proto::RequestOtpRequest { email } = request.into_inner();
        let email = email.parse().map_err(|_| Refusal::Email("email"))?;
        // Before the limit: a letter that cannot be sent is none of those that the address may get.
        let room = otp.mailer.room()?;
        self.limits.to_email(&email, origin).await?;
        let Requested { id, expires_at } = otp.request(email, room).await?;
        audit::record(Event::Mailed { purpose: "otp" });
        Ok(Response::new(proto::RequestOtpResponse {
            request_id: id.to_string(),
            expires_at_ms: expires_at.0,
        }))
    }

    async fn create_challenge(
        &self,
        request: Request<proto::CreateChallengeRequest>,
    ) -> Result<Response<proto::CreateChallengeResponse>, Status> {
        let method = self.methods.device_key.as_ref();
        let method = method.ok_or(Refusal::MethodOff("device_key"))?;
        self.limited("create_challenge", &request)?;
        let Drawn { nonce, expires_at } = method.challenge().await?;
        Ok(Response::new(proto::CreateChallengeResponse {
            challenge: Bytes::copy_from_slice(&nonce),
            expires_at_ms: expires_at.0,
            audience: method.audience.clone(),
        }))
    }

    async fn create_login_nonce(
        &self,
        request: Request<proto::CreateLoginNonceRequest>,
    ) -> Result<Response<proto::CreateLoginNonceResponse>, Status> {
        let method = self.methods.oidc.as_ref();
        let method = method.ok_or(Refusal::MethodOff("oidc"))?;
        self.limited("create_login_nonce", &request)?;
        let Drawn { nonce, expires_at } = method.nonce().await?;
        Ok(Response::new(proto::CreateLoginNonceResponse {
            nonce: oidc::nonce_text(&nonce),
            expires_at_ms: expires_at.0,
        }))
    }

    async fn request_verification(
        &self,
        request: Request<proto::RequestVerificationRequest>,
    ) -> Result<Response<proto::RequestVerificationResponse>, Status> {
        let expires_at = self.mail_link(request).await?;
        Ok(Response::new(proto::RequestVerificationResponse {
            expires_at_ms: expires_at.0,
        }))
    }

    async fn consume_verification(
        &self,
        request: Request<proto::ConsumeVerificationRequest>,
    ) -> Result<Response<proto::ConsumeVerificationResponse>, Status> {
        Ok(Response::new(self.use_link(request).await?))
    }

    async fn login(
        &self,
        request: Request<proto::LoginRequest>,
    ) -> Result<Response<proto::LoginResponse>, Status> {
        let LoggedIn {
            found,
            is_new_player,
            token,
            expires_at,
            refresh_token,
        } = self.log_in(request).await?;
        Ok(Response::new(proto::LoginResponse {
            session_token: token,
            expires_at_ms: expires_at.0,
            session_id: found.session.id.to_string(),
            player_id: found.player.id.to_string(),
            is_new_player,
            session_ends_at_ms: found.session.ends_at.0,
            refresh_token,
        }))
    }

    async fn list_identities(
        &self,
        request: Request<proto::ListIdentitiesRequest>,
    ) -> Result<Response<proto::ListIdentitiesResponse>, Status> {
        self.whence(&request);
        let caller = self.caller(request.metadata()).await?;
        let identities = self.ways_of(&caller).await?;
        Ok(Response::new(proto::ListIdentitiesResponse { identities }))
    }

    async fn remove_identity(
        &self,
        request: Request<proto::RemoveIdentityRequest>,
    ) -> Result<Response<proto::RemoveIdentityResponse>, Status> {
        self.whence(&request);
        let (metadata, _, proto::RemoveIdentityRequest { identity_id }) = request.into_parts();
        let caller = self.changing(&metadata).await?;
        let sessions_ended = self.unlink(&caller, &identity_id).await?;
        Ok(Response::new(proto::RemoveIdentityResponse {
            sessions_ended,
        }))
    }

    async fn issue_connect_token(
        &self,
        request: Request<proto::IssueConnectTokenRequest>,
    ) -> Result<Response<proto::ConnectTicket>, Status> {
        self.whence(&request);
        let caller = self.caller(request.metadata()).await?;
        let proto::IssueConnectTokenRequest { target, client_key } = request.into_inner();
        let wanted = Wanted {
            target,
            life: self.sessions.lives.connect_token,
            client_key,
        };
        Ok(Response::new(self.mint.issue(&caller, wanted).await?))
    }

    async fn refresh(
        &self,
        request: Request<proto::RefreshRequest>,
    ) -> Result<Response<proto::RefreshResponse>, Status> {
        self.whence(&request);
        let proto::RefreshRequest { refresh_token } = request.into_inner();
        let Renewed {
            found,
            role,
            token,
            expires_at,
            refresh_token,
        } = self.sessions.refresh(&refresh_token).await?;
        Ok(Response::new(proto::RefreshResponse {
            session_token: token,
            expires_at_ms: expires_at.0,
            refresh_token,
            session_id: found.session.id.to_string(),
            session_ends_at_ms: found.session.ends_at.0,
            role,
        }))
    }

    async fn logout(
        &self,
        request: Request<proto::LogoutRequest>,
    ) -> Result<Response<proto::LogoutResponse>, Status> {
        self.whence(&request);
        let (metadata, _, proto::LogoutRequest { refresh_token }) = request.into_parts();
        let (sessions, at) = (&self.sessions, self.sessions.clock.wall());
        // One that has ended is known too: asking again is harmless.
        let found = if refresh_token.is_empty() {
            sessions.known_of_bearer(bearer(&metadata)?, at).await?
        } else {
            sessions.known_of_refresh(&refresh_token, at).await?
        };
        let ended = sessions.log_out(&found, at).await?;
        Ok(Response::new(proto::LogoutResponse { ended }))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListOwnSessionsRequest>,
    ) -> Result<Response<proto::ListOwnSessionsResponse>, Status> {
        self.whence(&request);
        let caller = self.caller(request.metadata()).await?;
        let proto::ListOwnSessionsRequest { include_ended } = request.into_inner();
        let sessions = self.own_sessions(&caller, include_ended).await?;
        Ok(Response::new(proto::ListOwnSessionsResponse { sessions }))
    }

    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        self.whence(&request);
        let Found {
            session, player, ..
        } = self.caller(request.metadata()).await?;
        Ok(Response::new(proto::WhoAmIResponse {
            player_id: player.id.to_string(),
            session_id: session.id.to_string(),
            role: player.role,
            method: session.method,
            session_ends_at_ms: session.ends_at.0,
        }))
    }

    async fn revoke_session(
        &self,
        request: Request<proto::RevokeOwnSessionRequest>,
    ) -> Result<Response<proto::RevokeOwnSessionResponse>, Status> {
        self.whence(&request);
        let caller = self.caller(request.metadata()).await?;
        let proto::RevokeOwnSessionRequest { session_id } = request.into_inner();
        let revoked = self.revoke_own(&caller, &session_id).await?;
        Ok(Response::new(proto::RevokeOwnSessionResponse { revoked }))
    }
}

/// The bearer token of a call (RFC 6750, section 2.1; the scheme's case does not matter, RFC 9110, section 11.1).
fn bearer(metadata: &MetadataMap) -> Result<&str, Refusal> {
    metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(Refusal::NoBearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_found_or_missed_and_never_guessed() {
        let with = |value: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().unwrap());
            metadata
        };
        assert_eq!(bearer(&with("Bearer v4.local.x")).unwrap(), "v4.local.x");
        assert_eq!(bearer(&with("bearer  v4.local.x")).unwrap(), "v4.local.x");
        for missing in ["", "v4.local.x", "Basic v4.local.x", "Bearer"] {
            assert!(bearer(&with(missing)).is_err(), "{missing}");
        }
        assert!(bearer(&MetadataMap::new()).is_err());
    }
}
