//! Tokens as an operator looks at them: which key they name, and what they claim, whatever the time.
//!
//! Nothing here decides anything: whether a token is accepted is the keyrings' to say, who judge its times too.

use super::{
    ConnectClaims, KeyId, RefreshClaims, RefreshKey, Rejection, SessionClaims, SessionKey,
    TransportKey, envelope,
    purpose::{REFRESH_ASSERTION, SESSION_ASSERTION, connect_assertion},
};
use crate::id::GatewayId;

/// The key that a token says it is sealed under. Nothing about it is authentic: the claims are, once it is opened with that key.
///
/// # Errors
/// [`Rejection::Malformed`] for what is no token of ours.
pub fn named_key(token: &str) -> Result<KeyId, Rejection> {
    envelope::key_id(token)
}

/// What a session token claims. Its times are not judged.
///
/// # Errors
/// If it is sealed under another key, or is no session token.
pub fn read_session(key: &SessionKey, token: &str) -> Result<SessionClaims, Rejection> {
    ensure_named(key.id(), token)?;
    SessionClaims::from_json(&envelope::open(&key.0, token, SESSION_ASSERTION)?)
}

/// What a refresh token claims. Its times are not judged, and whether it was used before is for the sidecar to say.
///
/// # Errors
/// If it is sealed under another key, or is no refresh token.
pub fn read_refresh(key: &RefreshKey, token: &str) -> Result<RefreshClaims, Rejection> {
    ensure_named(key.id(), token)?;
    RefreshClaims::from_json(&envelope::open(&key.0, token, REFRESH_ASSERTION)?)
}

/// What a connect token for `gateway` claims. Its times are not judged, and whether it was used is for the gateway to say.
///
/// # Errors
/// If it is sealed under another key, or is no connect token for that gateway.
pub fn read_connect(
    key: &TransportKey,
    gateway: &GatewayId,
    token: &str,
) -> Result<ConnectClaims, Rejection> {
    ensure_named(key.id(), token)?;
    let assertion = connect_assertion(gateway);
    ConnectClaims::from_json(&envelope::open(&key.0, token, &assertion)?)
}

fn ensure_named(key: KeyId, token: &str) -> Result<(), Rejection> {
    if envelope::key_id(token)? == key {
        Ok(())
    } else {
        Err(Rejection::UnknownKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        id::{PlayerGeneration, SessionId},
        token::RefreshKeyring,
    };

    #[test]
    fn an_expired_token_can_be_looked_at() {
        let key = RefreshKey::generate();
        let claims = RefreshClaims {
            session: SessionId(7),
            generation: 2,
            player_generation: PlayerGeneration(1),
            issued_at: Timestamp(1_000),
            expires_at: Timestamp(2_000),
        };
        let keyring = RefreshKeyring::new(key.clone(), None);
        let token = keyring.seal(&claims);
        let late = Timestamp(1_000_000);
        assert_eq!(keyring.open(&token, late), Err(Rejection::Expired));
        assert_eq!(named_key(&token), Ok(key.id()));
        assert_eq!(read_refresh(&key, &token), Ok(claims));
        let other = RefreshKey::generate();
        assert_eq!(read_refresh(&other, &token), Err(Rejection::UnknownKey));
        // Under the same bytes, for another purpose.
        let session = SessionKey::from_paserk(&key.to_paserk()).unwrap();
        assert_eq!(read_session(&session, &token), Err(Rejection::BadMac));
    }
}
