//! A player's own line to the sidecar: AuthService over TLS.

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use super::{
    CallError, ClientKey, ListedSession, SecretToken, Target, Ticket,
    call::{CALL_DEADLINE, REFRESH_DEADLINE, Unanswered, ask, within},
    listed::listed,
};
use crate::{
    clock::Timestamp,
    id::{PlayerId, SessionId},
    proto::{
        self, auth_service_client::AuthServiceClient, consume_verification_request, login_request,
        request_verification_request,
    },
    rpc, tls,
};

/// A session as its holder knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session token: the bearer of calls on the session's behalf.
    pub token: SecretToken,
    /// When that token stops being accepted, by the sidecar's clock.
    pub token_expires_at: Timestamp,
    /// What brings the next session token, once; none if the sidecar gave none.
    pub refresh_token: Option<SecretToken>,
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub player: PlayerId,
    /// Whether this very login made the player.
    pub is_new_player: bool,
    /// The session's absolute end.
    pub ends_at: Timestamp,
    /// The player's role as the last refresh told it; a log-in does not tell it ([`Account::who_am_i`] does).
    pub role: Option<String>,
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

/// A code that is on its way to an e-mail address, and what it is good together with.
#[derive(Clone, PartialEq, Eq)]
pub struct OtpRequest {
    email: String,
    id: SecretToken,
    expires_at: Timestamp,
}

/// An e-mail address is no log's business.
impl std::fmt::Debug for OtpRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtpRequest")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl OtpRequest {
    /// When the code stops being accepted, by the sidecar's clock.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    fn proof(&self, code: &str) -> login_request::Method {
        login_request::Method::Otp(proto::OtpLogin {
            email: self.email.clone(),
            request_id: self.id.expose().into(),
            code: code.into(),
        })
    }
}

/// A nonce for an OpenID issuer to put into an identity token: the parameter `nonce` of the request to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginNonce {
    /// The nonce: letters, digits, '-' and '_'.
    pub nonce: String,
    /// When it stops being accepted, by the sidecar's clock.
    pub expires_at: Timestamp,
}

/// A line to the sidecar for players. Connects by itself when it is first used and whenever the connection broke. Cheap to clone;
/// clones share the connection.
#[derive(Debug, Clone)]
pub struct Account(pub(super) AuthServiceClient<Channel>);

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
        let method = login_request::Method::Dev(proto::DevLogin { name: name.into() });
        self.log_in(method, None).await
    }

    /// Has a code mailed to an address, to log in with.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for what is no e-mail address; [`CallError::Denied`] where the method is switched off;
    /// [`CallError::Unavailable`] when too much mail is waiting; [`CallError::RateLimited`].
    pub async fn request_otp(&self, email: &str) -> Result<OtpRequest, CallError> {
        let request = proto::RequestOtpRequest {
            email: email.into(),
        };
        let answer = within(CALL_DEADLINE, self.0.clone().request_otp(request)).await?;
        Ok(OtpRequest {
            email: email.into(),
            id: SecretToken::new(answer.request_id),
            expires_at: Timestamp(answer.expires_at_ms),
        })
    }

    /// Logs in with the code that was mailed. An address that was nobody becomes a new player.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] for a wrong, used or expired code (there are three guesses); [`CallError::Invalid`] for what is
    /// not six digits, which costs no guess.
    pub async fn login_otp(&self, request: &OtpRequest, code: &str) -> Result<Session, CallError> {
        self.log_in(request.proof(code), None).await
    }

    /// Makes the address that the code was mailed to another way in for the session's player. The new session is that player's.
    ///
    /// # Errors
    /// As [`login_otp`](Self::login_otp); [`CallError::Invalid`] when the address is another player, or the player has one already;
    /// [`CallError::Ended`] when the session logged in too long ago: log in again, and link with the new one.
    pub async fn link_otp(
        &self,
        session: &Session,
        request: &OtpRequest,
        code: &str,
    ) -> Result<Session, CallError> {
        self.log_in(request.proof(code), Some(session)).await
    }

    /// Has a link mailed to log in with. Returns when it stops being accepted, by the sidecar's clock.
    ///
    /// # Errors
    /// As [`request_otp`](Self::request_otp).
    pub async fn request_magic_link(&self, email: &str) -> Result<Timestamp, CallError> {
        let wanted = request_verification_request::Purpose::MagicLink(email.into());
        self.request_link(Request::new(wanted)).await
    }

    /// Logs in with the token of a link that was mailed: what stands behind `token=` in it.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] for a token that is unknown, expired, used, or for something else.
    pub async fn login_magic_link(&self, token: &SecretToken) -> Result<Session, CallError> {
        let method = login_request::Method::MagicLink(proto::MagicLinkLogin {
            token: token.expose().into(),
        });
        self.log_in(method, None).await
    }

    /// Logs in by e-mail address and password.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] for a wrong password, or after too many wrong ones in a row;
    /// [`CallError::RateLimited`].
    pub async fn login_password(&self, email: &str, password: &str) -> Result<Session, CallError> {
        let method = login_request::Method::Password(proto::PasswordLogin {
            email: email.into(),
            password: password.into(),
        });
        self.log_in(method, None).await
    }

    /// Has a link mailed to set a password with: the first one too. Returns when it stops being accepted, by the sidecar's clock.
    ///
    /// # Errors
    /// As [`request_otp`](Self::request_otp).
    pub async fn request_password_reset(&self, email: &str) -> Result<Timestamp, CallError> {
        let wanted = request_verification_request::Purpose::PasswordReset(email.into());
        self.request_link(Request::new(wanted)).await
    }

    /// Sets the password of the account that the link was mailed to, and ends all its sessions.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a password of less than 8 characters or more than 256 bytes, which does not use the token up;
    /// [`CallError::Unauthenticated`] for a token that is unknown, expired, used, or for something else.
    pub async fn reset_password(
        &self,
        token: &SecretToken,
        new_password: &str,
    ) -> Result<PlayerId, CallError> {
        let new = consume_verification_request::Purpose::NewPassword(new_password.into());
        self.use_link(token, new).await
    }

    pub(super) async fn request_link(
        &self,
        wanted: Request<request_verification_request::Purpose>,
    ) -> Result<Timestamp, CallError> {
        let request = wanted.map(|purpose| proto::RequestVerificationRequest {
            purpose: Some(purpose),
        });
        let answer = within(CALL_DEADLINE, self.0.clone().request_verification(request)).await?;
        Ok(Timestamp(answer.expires_at_ms))
    }

    pub(super) async fn use_link(
        &self,
        token: &SecretToken,
        purpose: consume_verification_request::Purpose,
    ) -> Result<PlayerId, CallError> {
        let request = proto::ConsumeVerificationRequest {
            token: token.expose().into(),
            purpose: Some(purpose),
        };
        let answer = within(CALL_DEADLINE, self.0.clone().consume_verification(request)).await?;
        player_id(&answer.player_id)
    }

    /// Logs in with a key that this device holds: the same key is the same player, and a new one is a new player. `audience` is the
    /// name of the service that is meant (`sidecar.login.audience`): another one's challenge is not signed.
    ///
    /// # Errors
    /// [`CallError::Denied`] where the method is switched off; [`CallError::Malformed`] when the challenge is another service's.
    pub async fn login_device_key(
        &self,
        key: &ClientKey,
        audience: &str,
    ) -> Result<Session, CallError> {
        let method = self.sign_challenge(key, audience).await?;
        self.log_in(method, None).await
    }

    /// Makes the key another way in for the session's player. The new session is that player's.
    ///
    /// # Errors
    /// As [`login_device_key`](Self::login_device_key); [`CallError::Invalid`] when the key is another player;
    /// [`CallError::Ended`] when the session logged in too long ago.
    pub async fn link_device_key(
        &self,
        session: &Session,
        key: &ClientKey,
        audience: &str,
    ) -> Result<Session, CallError> {
        let method = self.sign_challenge(key, audience).await?;
        self.log_in(method, Some(session)).await
    }

    async fn sign_challenge(
        &self,
        key: &ClientKey,
        audience: &str,
    ) -> Result<login_request::Method, CallError> {
        let request = proto::CreateChallengeRequest {};
        let drawn = within(CALL_DEADLINE, self.0.clone().create_challenge(request)).await?;
        if drawn.audience != audience {
            return Err(CallError::Malformed(
                "challenge: it is for another audience",
            ));
        }
        let challenge: &[u8; 32] = drawn
            .challenge
            .as_ref()
            .try_into()
            .map_err(|_| CallError::Malformed("challenge: it has not the length of one"))?;
        let signature = key.sign_login(challenge, drawn.expires_at_ms, audience);
        Ok(login_request::Method::DeviceKey(proto::DeviceKeyLogin {
            public_key: public_half(Some(key.public())),
            challenge: drawn.challenge,
            signature: Bytes::copy_from_slice(&signature),
        }))
    }

    /// Draws a nonce for an OpenID issuer to put into the identity token that [`login_oidc`](Self::login_oidc) takes. How the token is got
    /// is between the game, its player and the issuer.
    ///
    /// # Errors
    /// [`CallError::Denied`] where the method is switched off; [`CallError::RateLimited`].
    pub async fn create_login_nonce(&self) -> Result<LoginNonce, CallError> {
        let request = proto::CreateLoginNonceRequest {};
        let drawn = within(CALL_DEADLINE, self.0.clone().create_login_nonce(request)).await?;
        Ok(LoginNonce {
            nonce: drawn.nonce,
            expires_at: Timestamp(drawn.expires_at_ms),
        })
    }

    /// Logs in with an identity token of the issuer that the sidecar calls so (`"google"`, unless it was told otherwise). An account that
    /// was nobody becomes a new player.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] for a token that does not fit, or was used; [`CallError::Unavailable`] when the issuer does not tell
    /// its keys, and the token may be tried again; [`CallError::Invalid`] for an issuer that is not known there.
    pub async fn login_oidc(
        &self,
        issuer: &str,
        id_token: &SecretToken,
    ) -> Result<Session, CallError> {
        self.log_in(vouched(issuer, id_token), None).await
    }

    /// Makes the issuer's account another way in for the session's player. The new session is that player's.
    ///
    /// # Errors
    /// As [`login_oidc`](Self::login_oidc); [`CallError::Invalid`] when the account is another player;
    /// [`CallError::Ended`] when the session logged in too long ago.
    pub async fn link_oidc(
        &self,
        session: &Session,
        issuer: &str,
        id_token: &SecretToken,
    ) -> Result<Session, CallError> {
        self.log_in(vouched(issuer, id_token), Some(session)).await
    }

    /// Logs in by this method; links its account to the session's player, if there is one.
    async fn log_in(
        &self,
        method: login_request::Method,
        link: Option<&Session>,
    ) -> Result<Session, CallError> {
        let message = proto::LoginRequest {
            method: Some(method),
            link: link.is_some(),
        };
        let request = match link {
            Some(session) => with_bearer(&session.token, message)?,
            None => Request::new(message),
        };
        let login = within(CALL_DEADLINE, self.0.clone().login(request)).await?;
        Ok(Session {
            token: SecretToken::new(login.session_token),
            token_expires_at: Timestamp(login.expires_at_ms),
            refresh_token: given(login.refresh_token),
            id: session_id(&login.session_id)?,
            player: player_id(&login.player_id)?,
            is_new_player: login.is_new_player,
            ends_at: Timestamp(login.session_ends_at_ms),
            role: None,
        })
    }

    /// Changes the session's refresh token for a new session token and a new refresh token. The session stays what it is, and nobody
    /// in play notices; the older session token works until its own end.
    ///
    /// A refresh token works once. Asking again with the same one is harmless for 10 s, while its successor has not been used, and
    /// brings the same tokens again; later it ends the session. A [`SessionKeeper`](super::SessionKeeper) sees to all that.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when the refresh token is not accepted, is none, or the session has ended: log in again.
    pub async fn refresh(&self, session: &Session) -> Result<Session, CallError> {
        let asked = tokio::time::timeout(REFRESH_DEADLINE, self.try_refresh(session)).await;
        match asked {
            Ok(answer) => answer.map_err(|unanswered| unanswered.error),
            Err(_) => Err(CallError::TimedOut),
        }
    }

    /// As [`refresh`](Self::refresh), without a deadline, and telling whether a call that failed may have taken effect.
    pub(super) async fn try_refresh(&self, session: &Session) -> Result<Session, Unanswered> {
        let refused = || CallError::Unauthenticated("the session has no refresh token".into());
        let token = session.refresh_token.as_ref().ok_or_else(refused)?;
        let request = proto::RefreshRequest {
            refresh_token: token.expose().into(),
        };
        let answer = ask(self.0.clone().refresh(request)).await?;
        // The tokens of another session would bind this one's player to somebody else's.
        if session_id(&answer.session_id)? != session.id {
            return Err(CallError::Malformed("session id: it is another session's").into());
        }
        Ok(Session {
            token: SecretToken::new(answer.session_token),
            token_expires_at: Timestamp(answer.expires_at_ms),
            refresh_token: given(answer.refresh_token),
            id: session.id,
            player: session.player,
            is_new_player: session.is_new_player,
            ends_at: Timestamp(answer.session_ends_at_ms),
            role: Some(answer.role),
        })
    }

    /// Ends the session, and closes its live connections. Durable when it returns; the answer says whether the session was still
    /// alive. It goes by the refresh token where there is one, since that outlives the session token.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when neither token is good.
    pub async fn logout(&self, session: &Session) -> Result<bool, CallError> {
        let request = match &session.refresh_token {
            Some(token) => Request::new(proto::LogoutRequest {
                refresh_token: token.expose().into(),
            }),
            None => with_bearer(&session.token, proto::LogoutRequest::default())?,
        };
        let answer = within(CALL_DEADLINE, self.0.clone().logout(request)).await?;
        Ok(answer.ended)
    }

    /// The player's own sessions, newest first: at most 100. With `include_ended` those too that have ended and are not yet purged.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when the token is not accepted or the session has ended.
    pub async fn list_sessions(
        &self,
        session: &Session,
        include_ended: bool,
    ) -> Result<Vec<ListedSession>, CallError> {
        let message = proto::ListOwnSessionsRequest { include_ended };
        let request = with_bearer(&session.token, message)?;
        let answer = within(CALL_DEADLINE, self.0.clone().list_sessions(request)).await?;
        listed(answer.sessions)
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
        self.issue(&session.token, target, None).await
    }

    /// As [`issue_connect_token`](Self::issue_connect_token), for a token that admits only who holds `key`: to be presented with
    /// [`HelloOptions::client_key`](super::HelloOptions::client_key).
    ///
    /// # Errors
    /// As [`issue_connect_token`](Self::issue_connect_token).
    pub async fn issue_bound_connect_token(
        &self,
        session: &Session,
        target: Target,
        key: &ClientKey,
    ) -> Result<Ticket, CallError> {
        self.issue(&session.token, target, Some(key)).await
    }

    pub(super) async fn issue(
        &self,
        token: &SecretToken,
        target: Target,
        key: Option<&ClientKey>,
    ) -> Result<Ticket, CallError> {
        let message = proto::IssueConnectTokenRequest {
            target: Some(target.into()),
            client_key: public_half(key.map(ClientKey::public)),
        };
        let request = with_bearer(token, message)?;
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

fn vouched(issuer: &str, id_token: &SecretToken) -> login_request::Method {
    login_request::Method::Oidc(proto::OidcLogin {
        issuer: issuer.into(),
        id_token: id_token.expose().into(),
    })
}

/// A refresh token where there is one: proto3 leaves out what is not there.
pub(super) fn given(refresh_token: String) -> Option<SecretToken> {
    (!refresh_token.is_empty()).then(|| SecretToken::new(refresh_token))
}

/// A client key as requests carry it: empty for none.
pub(super) fn public_half(key: Option<[u8; 32]>) -> Bytes {
    key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(&key))
}

pub(super) fn session_id(text: &str) -> Result<SessionId, CallError> {
    text.parse().map_err(|_| CallError::Malformed("session id"))
}

pub(super) fn player_id(text: &str) -> Result<PlayerId, CallError> {
    text.parse().map_err(|_| CallError::Malformed("player id"))
}

/// The request with the token as bearer, marked as sensitive so that it is neither logged nor kept in header compression tables.
pub(super) fn with_bearer<T>(token: &SecretToken, message: T) -> Result<Request<T>, CallError> {
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
