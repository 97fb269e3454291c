//! The keys that one party holds, and sealing and opening with them.

use super::{
    ConnectClaims, RefreshClaims, RefreshKey, Rejection, Rotating, SessionClaims, SessionKey,
    TransportKey, envelope,
    purpose::{REFRESH_ASSERTION, SESSION_ASSERTION, connect_assertion},
};
use crate::{clock::Timestamp, id::GatewayId};

/// A sidecar's session keys: the current one seals, and the next and the previous one open as well while keys rotate.
#[derive(Debug)]
pub struct SessionKeyring {
    current: SessionKey,
    others: Vec<SessionKey>,
}

impl SessionKeyring {
    /// A keyring that seals with `current` and opens with both.
    pub fn new(current: SessionKey, previous: Option<SessionKey>) -> Self {
        Rotating {
            previous: previous.into_iter().collect(),
            ..Rotating::only(current)
        }
        .into()
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
        let key = named(&self.current, &self.others, |key| key.id() == id)?;
        let claims = SessionClaims::from_json(&envelope::open(&key.0, token, SESSION_ASSERTION)?)?;
        claims.check(now)?;
        Ok(claims)
    }
}

/// A sidecar's refresh keys: the current one seals, and the next and the previous one open as well while keys rotate.
///
/// Refresh tokens live as long as sessions do, so a rotated key has to be kept for the longest session life.
#[derive(Debug)]
pub struct RefreshKeyring {
    current: RefreshKey,
    others: Vec<RefreshKey>,
}

impl RefreshKeyring {
    /// A keyring that seals with `current` and opens with both.
    pub fn new(current: RefreshKey, previous: Option<RefreshKey>) -> Self {
        Rotating {
            previous: previous.into_iter().collect(),
            ..Rotating::only(current)
        }
        .into()
    }

    /// Seals a refresh token.
    pub fn seal(&self, claims: &RefreshClaims) -> String {
        envelope::seal(&self.current.0, &claims.to_json(), REFRESH_ASSERTION)
    }

    /// Opens a refresh token at the time `now`. Whether its generation was used before is for the store to say.
    ///
    /// # Errors
    /// Why it is refused; [`Rejection::Expired`] only if nothing else is wrong with it. Never [`Rejection::WrongAudience`].
    pub fn open(&self, token: &str, now: Timestamp) -> Result<RefreshClaims, Rejection> {
        let id = envelope::key_id(token)?;
        let key = named(&self.current, &self.others, |key| key.id() == id)?;
        let claims = RefreshClaims::from_json(&envelope::open(&key.0, token, REFRESH_ASSERTION)?)?;
        claims.check(now)?;
        Ok(claims)
    }
}

impl From<Rotating<SessionKey>> for SessionKeyring {
    /// Seals with the current key, and opens with all.
    fn from(keys: Rotating<SessionKey>) -> Self {
        let (current, others) = split(keys);
        Self { current, others }
    }
}

impl From<Rotating<RefreshKey>> for RefreshKeyring {
    /// Seals with the current key, and opens with all.
    fn from(keys: Rotating<RefreshKey>) -> Self {
        let (current, others) = split(keys);
        Self { current, others }
    }
}

/// The key that seals, and those that open beside it.
fn split<K>(keys: Rotating<K>) -> (K, Vec<K>) {
    let Rotating {
        next,
        current,
        mut previous,
    } = keys;
    previous.extend(next);
    (current, previous)
}

/// The key that a token's footer names.
fn named<'a, K>(
    current: &'a K,
    others: &'a [K],
    is_named: impl Fn(&K) -> bool,
) -> Result<&'a K, Rejection> {
    std::iter::once(current)
        .chain(others)
        .find(|key| is_named(key))
        .ok_or(Rejection::UnknownKey)
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
        let claims = self.open_of_any_age(token, now)?;
        claims.check_expiry(now)?;
        Ok(claims)
    }

    /// As [`open`](Self::open), but for its end: the caller has more to check of it before, and calls
    /// [`ConnectClaims::check_expiry`] then.
    ///
    /// # Errors
    /// Why it is refused; never [`Rejection::Expired`].
    pub fn open_of_any_age(&self, token: &str, now: Timestamp) -> Result<ConnectClaims, Rejection> {
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
