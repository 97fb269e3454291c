//! A game backend's line to the sidecar: AdminService over mutual TLS.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tonic::transport::Channel;

use super::{
    AttachedGateway, CallError, SecretToken, Session, Target, Ticket,
    account::{given, player_id, public_half, session_id},
    call::{CALL_DEADLINE, within},
};
use crate::{
    clock::Timestamp,
    id::{PlayerId, Revision, SessionId},
    proto::{self, admin_service_client::AdminServiceClient},
    rpc,
    tls::{self, Identity},
};

/// What a revocation waits for before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is durable.
    Commit,
    /// Until every gateway that [`Revoked::acknowledged`] speaks of has acknowledged it too, or this much time has passed: 30 s at
    /// most.
    Gateways(Duration),
}

/// The most that a sidecar waits for its gateways, in milliseconds, when the caller names more (`wait_ms` in admin.proto).
const LONGEST_WAIT_MS: u32 = 30_000;

impl Wait {
    /// The two fields that say so, and how long the call may then take.
    fn carried(self) -> (proto::RevokeWait, u32, Duration) {
        match self {
            Self::Commit => (proto::RevokeWait::Commit, 0, CALL_DEADLINE),
            Self::Gateways(at_most) => {
                // 0 would mean the sidecar's own default.
                let ms = u32::try_from(at_most.as_millis()).unwrap_or(u32::MAX);
                let ms = ms.clamp(1, LONGEST_WAIT_MS);
                let deadline = CALL_DEADLINE + Duration::from_millis(ms.into());
                (proto::RevokeWait::Gateways, ms, deadline)
            }
        }
    }
}

/// What a revocation did. It is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// How many sessions it ended; 0 when they were at their end already.
    pub sessions_ended: u32,
    /// The revision of the revocation log that covers it.
    pub revision: Revision,
    /// With [`Wait::Gateways`]: whether all gateways acknowledged it in time that were attached when it became durable, or had
    /// broken off with seats in the 5 s before. One that has been cut off for longer is not waited for: it hears of the revocation
    /// when it attaches again, and its seats live until then.
    pub acknowledged: bool,
}

/// A line to the sidecar for backends, and for operators beside [`Admin`](super::Admin). Connects by itself when it is first used and whenever the connection broke.
/// Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Backend(AdminServiceClient<Channel>);

impl Backend {
    /// A line to the sidecar at `url` (`https://host:port`), whose certificate one of `ca` has signed, as the backend or operator that
    /// `identity`'s certificate names. Connects on the first call only.
    ///
    /// # Errors
    /// When the URL or the certificates cannot be used.
    pub fn connect(
        url: &str,
        ca: &[CertificateDer<'static>],
        identity: &Identity,
    ) -> Result<Self, CallError> {
        let tls = tls::rpc_client_config(ca, Some(identity))?;
        let channel = rpc::connect(url, None, Some(tls))?;
        Ok(Self(AdminServiceClient::new(channel)))
    }

    /// A client for one call: they are made on a copy, which shares the connection.
    pub(super) fn client(&self) -> AdminServiceClient<Channel> {
        self.0.clone()
    }

    /// Starts a session for a player whom the backend has authenticated itself. `subject` is its own name for the player, 1 to 256
    /// bytes; the same subject of the same backend is the same player.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for an empty or overlong subject.
    pub async fn create_session(&self, subject: &str) -> Result<Session, CallError> {
        let request = proto::CreateSessionRequest {
            subject: subject.into(),
        };
        let made = within(CALL_DEADLINE, self.client().create_session(request)).await?;
        Ok(Session {
            token: SecretToken::new(made.session_token),
            token_expires_at: Timestamp(made.expires_at_ms),
            refresh_token: given(made.refresh_token),
            id: session_id(&made.session_id)?,
            player: player_id(&made.player_id)?,
            is_new_player: made.is_new_player,
            ends_at: Timestamp(made.session_ends_at_ms),
            role: None,
        })
    }

    /// Gets a single-use connect token on behalf of a session's player. `life` is 1 s to 5 min, by default the sidecar's own (30 s).
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a life out of range; [`CallError::NotFound`] for an unknown session or gateway;
    /// [`CallError::Ended`] when the session has ended; [`CallError::Unavailable`] when no gateway is attached.
    pub async fn issue_connect_token(
        &self,
        session: SessionId,
        target: Target,
        life: Option<Duration>,
    ) -> Result<Ticket, CallError> {
        self.issue(session, target, life, None).await
    }

    /// As [`issue_connect_token`](Self::issue_connect_token), for a token that admits only who proves possession of the Ed25519 key
    /// whose public half is `client_key` ([`ClientKey::public`](super::ClientKey::public)), which the client has told the backend.
    ///
    /// # Errors
    /// As [`issue_connect_token`](Self::issue_connect_token).
    pub async fn issue_bound_connect_token(
        &self,
        session: SessionId,
        target: Target,
        life: Option<Duration>,
        client_key: [u8; 32],
    ) -> Result<Ticket, CallError> {
        self.issue(session, target, life, Some(client_key)).await
    }

    async fn issue(
        &self,
        session: SessionId,
        target: Target,
        life: Option<Duration>,
        client_key: Option<[u8; 32]>,
    ) -> Result<Ticket, CallError> {
        let request = proto::AdminIssueConnectTokenRequest {
            session_id: session.to_string(),
            target: Some(target.into()),
            life_ms: life_ms(life)?,
            client_key: public_half(client_key),
        };
        let ticket = within(CALL_DEADLINE, self.client().issue_connect_token(request)).await?;
        Ok(ticket.try_into()?)
    }

    /// Ends a session and closes its live connections.
    ///
    /// # Errors
    /// [`CallError::NotFound`] for an unknown session. After [`CallError::TimedOut`] the revocation may have taken effect: call again.
    pub async fn revoke_session(
        &self,
        session: SessionId,
        wait: Wait,
    ) -> Result<Revoked, CallError> {
        let (wait, wait_ms, deadline) = wait.carried();
        let request = proto::RevokeSessionRequest {
            session_id: session.to_string(),
            wait: wait.into(),
            wait_ms,
        };
        let answer = within(deadline, self.client().revoke_session(request)).await?;
        Ok(answer.into())
    }

    /// Ends all sessions of a player that were made before this instant.
    ///
    /// # Errors
    /// As [`revoke_session`](Self::revoke_session).
    pub async fn revoke_player(&self, player: PlayerId, wait: Wait) -> Result<Revoked, CallError> {
        let (wait, wait_ms, deadline) = wait.carried();
        let request = proto::RevokePlayerRequest {
            player_id: player.to_string(),
            wait: wait.into(),
            wait_ms,
        };
        let answer = within(deadline, self.client().revoke_player(request)).await?;
        Ok(answer.into())
    }

    /// The gateways that are attached now, by id.
    ///
    /// # Errors
    /// Only what any call may meet.
    pub async fn list_gateways(&self) -> Result<Vec<AttachedGateway>, CallError> {
        let request = proto::ListGatewaysRequest {};
        let answer = within(CALL_DEADLINE, self.client().list_gateways(request)).await?;
        answer
            .gateways
            .into_iter()
            .map(AttachedGateway::try_from)
            .collect()
    }
}

/// 0 stands for the default, so a life that rounds to it is refused here.
fn life_ms(life: Option<Duration>) -> Result<u32, CallError> {
    let Some(life) = life else { return Ok(0) };
    match u32::try_from(life.as_millis()) {
        Ok(ms) if ms > 0 => Ok(ms),
        _ => Err(CallError::Invalid(
            "a connect token lives 1 s to 5 min".into(),
        )),
    }
}

impl From<proto::RevokeResponse> for Revoked {
    fn from(answer: proto::RevokeResponse) -> Self {
        Self {
            sessions_ended: answer.sessions_ended,
            revision: Revision(answer.revision),
            acknowledged: answer.acknowledged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_of_nothing_does_not_become_the_default() {
        assert_eq!(life_ms(None).unwrap(), 0);
        assert_eq!(life_ms(Some(Duration::from_secs(1))).unwrap(), 1_000);
        assert!(life_ms(Some(Duration::ZERO)).is_err());
        assert!(life_ms(Some(Duration::MAX)).is_err());
    }

    #[test]
    fn a_call_outlasts_the_wait_that_it_asks_for() {
        for at_most in [Duration::ZERO, Duration::from_secs(5), Duration::MAX] {
            let (_, wait_ms, deadline) = Wait::Gateways(at_most).carried();
            assert!(wait_ms > 0);
            assert!(deadline > Duration::from_millis(wait_ms.into()));
        }
    }
}
