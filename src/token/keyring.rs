//! The keys that one party holds, and sealing and opening with them.

use super::{
    ConnectClaims, Rejection, SessionClaims, SessionKey, TransportKey, envelope,
    purpose::{SESSION_ASSERTION, connect_assertion},
};
use crate::{clock::Timestamp, id::GatewayId};

/// A sidecar's session keys: the current one seals, and the previous one still opens while keys rotate.
#[derive(Debug)]
pub struct SessionKeyring {
    current: SessionKey,
    previous: Option<SessionKey>,
}

impl SessionKeyring {
    /// A keyring that seals with `current` and opens with both.
    pub const fn new(current: SessionKey, previous: Option<SessionKey>) -> Self {
        Self { current, previous }
    }

    /// Seals a session token.
    pub fn seal(&self, claims: &SessionClaims) -> String {
        envelope::seal(&self.current.0, &claims.to_json(), SESSION_ASSERTION)
    }

    /// Opens a session token at the time `now`.
    ///
    /// # Errors
    /// Why it is refused; [`Rejection::Expired`] only if nothing else is wrong with it. Never [`Rejection::WrongAudience`].
    pub fn open(&self, token: &str, now: Timestamp) -> Result<SessionClaims, Rejection> {
        let id = envelope::key_id(token)?;
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id() == id)
            .ok_or(Rejection::UnknownKey)?;
        let claims = SessionClaims::from_json(&envelope::open(&key.0, token, SESSION_ASSERTION)?)?;
        claims.check(now)?;
        Ok(claims)
    }
}

/// Seals a connect token under the key of the gateway process that shall open it.
pub fn seal_connect(key: &TransportKey, claims: &ConnectClaims) -> String {
    let assertion = connect_assertion(&claims.gateway);
    envelope::seal(&key.0, &claims.to_json(), &assertion)
}

/// A gateway process's transport keys: none until the control channel has brought them, then one, or two while keys rotate.
#[derive(Debug)]
pub struct ConnectKeyring {
    gateway: GatewayId,
    assertion: String,
    keys: Vec<TransportKey>,
}

impl ConnectKeyring {
    /// The keyring of `gateway`, without keys: it opens nothing yet.
    pub fn new(gateway: GatewayId) -> Self {
        Self {
            assertion: connect_assertion(&gateway),
            gateway,
            keys: Vec::new(),
        }
    }

    /// Holds `keys` from now on, and no others.
    pub fn replace(&mut self, keys: Vec<TransportKey>) {
        self.keys = keys;
    }

    /// Whether there is no key, so that nothing can open.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Opens a connect token at the time `now`. It is not consumed: single use is for the caller to see to.
    ///
    /// # Errors
    /// Why it is refused; [`Rejection::Expired`] only if nothing else is wrong with it.
    pub fn open(&self, token: &str, now: Timestamp) -> Result<ConnectClaims, Rejection> {
        let id = envelope::key_id(token)?;
        let key = self
            .keys
            .iter()
            .find(|key| key.id() == id)
            .ok_or(Rejection::UnknownKey)?;
        let claims = ConnectClaims::from_json(&envelope::open(&key.0, token, &self.assertion)?)?;
        claims.check(&self.gateway, now)?;
        Ok(claims)
    }
}
