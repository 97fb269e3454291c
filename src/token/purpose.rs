//! What tokens are for, and how that is sealed into them.

use thiserror::Error;

use super::KeyId;
use crate::id::GatewayId;

/// What a key and its tokens are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Bearer tokens for calls to the sidecar.
    Session,
    /// Tokens that are changed for the next generation of a session's tokens, once each.
    Refresh,
    /// Single-use tokens that admit to one gateway process; also the master key that their keys derive from.
    Connect,
    /// What the ways to log in keep is known by keyed hashes under it; it seals no token.
    Login,
}

impl Purpose {
    /// The purpose as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Refresh => "refresh",
            Self::Connect => "connect",
            Self::Login => "login",
        }
    }
}

// The implicit assertions (PASETO implementation guide, "Implicit Assertions"): authenticated with every token, never sent. The
// number is the token format's: it rises whenever the meaning of a token changes, so that no old reader misunderstands a new
// token. No assertion can be read as another: they differ before the gateway's id, which comes last.

/// The implicit assertion of session tokens.
pub(super) const SESSION_ASSERTION: &str = "tickgate.v1.session";

/// The implicit assertion of refresh tokens.
pub(super) const REFRESH_ASSERTION: &str = "tickgate.v1.refresh";

/// The implicit assertion of connect tokens for `gateway`.
pub(super) fn connect_assertion(gateway: &GatewayId) -> String {
    format!("tickgate.v1.connect.{gateway}")
}

/// One key is configured for two purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "key {id} is configured as {} key and as {} key: every purpose needs a key of its own (make one with `tickgate keys generate`)",
    .first.label(),
    .second.label()
)]
pub struct SharedKey {
    /// The key's id.
    pub id: KeyId,
    /// One of its purposes.
    pub first: Purpose,
    /// The other one.
    pub second: Purpose,
}

impl SharedKey {
    /// The error as a fixed label.
    pub const fn label(self) -> &'static str {
        "shared_key"
    }
}

/// Makes sure that no key serves two purposes; to be called at start-up with every configured key.
///
/// It compares ids, which are hashes of the key bytes: equal exactly when the keys are, and no secrets.
///
/// # Errors
/// The first key that stands there for two purposes. The same key twice for one purpose is harmless.
pub fn ensure_unshared(keys: &[(Purpose, KeyId)]) -> Result<(), SharedKey> {
    for (at, &(first, id)) in keys.iter().enumerate() {
        let others = keys.iter().skip(at.saturating_add(1));
        for &(second, other) in others {
            if id == other && first != second {
                return Err(SharedKey { id, first, second });
            }
        }
    }
    Ok(())
}
