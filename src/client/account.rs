//! A player's own line to the sidecar: AuthService over TLS.

use rustls::pki_types::CertificateDer;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use super::{
    CallError, SecretToken, Target, Ticket,
    call::{CALL_DEADLINE, within},
};
use crate::{
    clock::Timestamp,
    id::{PlayerId, SessionId},
    proto::{self, auth_service_client::AuthServiceClient},
    rpc, tls,
};

/// A session as its holder knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session token: the bearer of calls on the session's behalf.
    pub token: SecretToken,
    /// When that token stops being accepted.
    pub token_expires_at: Timestamp,
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub player: PlayerId,
    /// Whether this very login made the player.
    pub is_new_player: bool,
    /// The session's absolute end.
    pub ends_at: Timestamp,
}

/// Whom the sidecar takes the bearer of a session token for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// The player.
    pub player: PlayerId,
    /// The session.
    pub session: SessionId,
    /// The player's role.
    pub role: String,
    /// How the player logged in.
    pub method: String,
    /// The session's absolute end.
    pub ends_at: Timestamp,
}

/// A line to the sidecar for players. Connects by itself when it is first used and whenever the connection broke. Cheap to clone;
/// clones share the connection.
#[derive(Debug, Clone)]
pub struct Account(AuthServiceClient<Channel>);

impl Account {
    /// A line to the sidecar at `url` (`https://host:port`; `http://` on loopback in development), whose certificate one of `ca` has
    /// signed. Connects on the first call only.
    ///
    /// # Errors
    /// When the URL or the certificates cannot be used.
    pub fn connect(url: &str, ca: &[CertificateDer<'static>]) -> Result<Self, CallError> {
        let tls = if url.starts_with("http://") {
            None
        } else {
            Some(tls::rpc_client_config(ca, None)?)
        };
        let channel = rpc::connect(url, None, tls)?;
        Ok(Self(AuthServiceClient::new(channel)))
    }

    /// Logs in as the player of this name (1 to 64 bytes), in development only.
    ///
    /// # Errors
    /// [`CallError::Denied`] outside development; [`CallError::Invalid`] for an empty or overlong name.
    pub async fn login_dev(&self, name: &str) -> Result<Session, CallError> {
        let method = proto::login_request::Method::Dev(proto::DevLogin { name: name.into() });
        let request = proto::LoginRequest {
            method: Some(method),
        };
        let login = within(CALL_DEADLINE, self.0.clone().login(request)).await?;
        Ok(Session {
            token: SecretToken::new(login.session_token),
            token_expires_at: Timestamp(login.expires_at_ms),
            id: session_id(&login.session_id)?,
            player: player_id(&login.player_id)?,
            is_new_player: login.is_new_player,
            ends_at: Timestamp(login.session_ends_at_ms),
        })
    }

    /// Gets a single-use connect token for a gateway.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when the session has ended; [`CallError::NotFound`] when that gateway is not attached;
    /// [`CallError::Unavailable`] when none is.
    pub async fn issue_connect_token(
        &self,
        session: &Session,
        target: Target,
    ) -> Result<Ticket, CallError> {
        let message = proto::IssueConnectTokenRequest {
            target: Some(target.into()),
            client_key: Default::default(),
        };
        let request = with_bearer(&session.token, message)?;
        let ticket = within(CALL_DEADLINE, self.0.clone().issue_connect_token(request)).await?;
        Ok(ticket.try_into()?)
    }

    /// Asks whose session the token is.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when the token is not accepted or the session has ended.
    pub async fn who_am_i(&self, token: &SecretToken) -> Result<Identified, CallError> {
        let request = with_bearer(token, proto::WhoAmIRequest {})?;
        let answer = within(CALL_DEADLINE, self.0.clone().who_am_i(request)).await?;
        Ok(Identified {
            player: player_id(&answer.player_id)?,
            session: session_id(&answer.session_id)?,
            role: answer.role,
            method: answer.method,
            ends_at: Timestamp(answer.session_ends_at_ms),
        })
    }

    /// Ends one of the player's own sessions: `other`, or else the caller's. Durable when it returns; the answer says whether the
    /// session was still alive.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when the token is not accepted or its own session has ended.
    pub async fn revoke_session(
        &self,
        session: &Session,
        other: Option<SessionId>,
    ) -> Result<bool, CallError> {
        let message = proto::RevokeOwnSessionRequest {
            session_id: other.map(|id| id.to_string()).unwrap_or_default(),
        };
        let request = with_bearer(&session.token, message)?;
        let answer = within(CALL_DEADLINE, self.0.clone().revoke_session(request)).await?;
        Ok(answer.revoked)
    }
}

pub(super) fn session_id(text: &str) -> Result<SessionId, CallError> {
    text.parse().map_err(|_| CallError::Malformed("session id"))
}

pub(super) fn player_id(text: &str) -> Result<PlayerId, CallError> {
    text.parse().map_err(|_| CallError::Malformed("player id"))
}

/// The request with the token as bearer, marked as sensitive so that it is neither logged nor kept in header compression tables.
fn with_bearer<T>(token: &SecretToken, message: T) -> Result<Request<T>, CallError> {
    let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
        .parse()
        .map_err(|_| CallError::Invalid("the session token is not text".into()))?;
    bearer.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bearer_goes_into_metadata_and_into_no_debug_output() {
        let request = with_bearer(&SecretToken::new("v4.local.abc"), ()).unwrap();
        let bearer = request.metadata().get("authorization").unwrap();
        assert_eq!(bearer.to_str().unwrap(), "Bearer v4.local.abc");
        assert!(!format!("{request:?}").contains("abc"));
    }

    #[test]
    fn a_token_that_is_no_text_is_refused_here() {
        let failure = with_bearer(&SecretToken::new("a\nb"), ()).unwrap_err();
        assert_eq!(failure.label(), "invalid");
    }
}
