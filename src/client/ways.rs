//! The ways in that a player has, as the player's client sees and changes them.

use super::{
    Account, CallError, SecretToken, Session,
    account::with_bearer,
    call::{CALL_DEADLINE, within},
};
use crate::{
    clock::Timestamp,
    id::PlayerId,
    proto::{self, consume_verification_request, request_verification_request},
};

/// One of the ways in that a player has: an account that is known to be the player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayIn {
    /// What it is called in [`Account::remove_identity`].
    pub id: String,
    /// Who vouches for it: `"email"`, `"device_key"`, an issuer by its name, such as `"google"`, or a backend.
    pub kind: String,
    /// As much of its name as its owner knows it by: `"a…@example.com"`.
    pub hint: String,
}

impl Account {
    /// Has a link mailed to a new e-mail address, which makes it the player's instead of the one before. Returns when it stops being
    /// accepted, by the sidecar's clock.
    ///
    /// # Errors
    /// As [`request_otp`](Self::request_otp); [`CallError::Unauthenticated`] when the session token is not accepted; [`CallError::Ended`] when
    /// the session logged in too long ago: log in again, and ask with the new one.
    pub async fn request_email_change(
        &self,
        session: &Session,
        new_email: &str,
    ) -> Result<Timestamp, CallError> {
        let wanted = request_verification_request::Purpose::EmailChange(new_email.into());
        self.request_link(with_bearer(&session.token, wanted)?)
            .await
    }

    /// Makes the address that the link was mailed to the player's, who asked for it.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] for a token that is unknown, expired, used, or for something else, or when the session that asked
    /// for it was revoked; [`CallError::Invalid`] when the address is another player.
    pub async fn change_email(&self, token: &SecretToken) -> Result<PlayerId, CallError> {
        let change = consume_verification_request::Purpose::EmailChange(true);
        self.use_link(token, change).await
    }

    /// The ways in that the session's player has, the one that made the player first.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when the token is not accepted or the session has ended.
    pub async fn list_identities(&self, session: &Session) -> Result<Vec<WayIn>, CallError> {
        let request = with_bearer(&session.token, proto::ListIdentitiesRequest {})?;
        let answer = within(CALL_DEADLINE, self.0.clone().list_identities(request)).await?;
        let ways = answer.identities.into_iter().map(|identity| WayIn {
            id: identity.id,
            kind: identity.kind,
            hint: identity.hint,
        });
        Ok(ways.collect())
    }

    /// Takes a way in away from the session's player, and ends all the player's sessions, this one too; how many were live. Durable when it
    /// returns.
    ///
    /// # Errors
    /// [`CallError::Ended`] when the session logged in too long ago (log in again, and ask with the new one), or when it is the only way in
    /// that there is; [`CallError::NotFound`] for one that the player does not have; [`CallError::Unauthenticated`];
    /// [`CallError::RateLimited`].
    pub async fn remove_identity(&self, session: &Session, way: &WayIn) -> Result<u32, CallError> {
        let message = proto::RemoveIdentityRequest {
            identity_id: way.id.clone(),
        };
        let request = with_bearer(&session.token, message)?;
        let answer = within(CALL_DEADLINE, self.0.clone().remove_identity(request)).await?;
        Ok(answer.sessions_ended)
    }
}
