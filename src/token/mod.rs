//! Tokens: what they claim, how they are sealed and opened, and the keys of each purpose.
//!
//! All are PASETO v4.local (<https://github.com/paseto-standard/paseto-spec>) over the core of `rusty_paseto`. A token is opened
//! in one fixed order, cheap before dear, and says why it is refused ([`Rejection`]):
//!
//! 1. its length, and a footer that is exactly `{"kid":"k4.lid.…"}`;
//! 2. the key id names a key that we hold, else it is refused before any cryptography;
//! 3. the MAC, over an implicit assertion that names purpose and format version (connect tokens: the gateway too), so that a token
//!    of one purpose never opens as another, not even under the same key bytes;
//! 4. the claims, all of them known and well formed;
//! 5. `iat`, then the audience, and at the very last `exp`: a token that is merely too old is known to have been good.
//!
//! Nothing here reads a clock, and nothing here remembers: single use and revocation are for the seat's side to judge.

mod claims;
mod envelope;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod inspect;
mod key;
mod keyring;
mod purpose;
mod rotating;

use std::{fmt, time::Duration};

pub use claims::{ConnectClaims, Nonce, RefreshClaims, SessionClaims};
pub use inspect::{named_key, read_connect, read_refresh, read_session};
pub use key::{
    InvalidKey, KeyId, LoginKey, RefreshKey, SessionKey, TransportKey, TransportMasterKey,
};
pub use keyring::{ConnectKeyring, RefreshKeyring, SessionKeyring, seal_connect};
pub use purpose::{Purpose, SharedKey, ensure_unshared};
pub use rotating::{FIRST_EPOCH, InvalidKeyRole, KeyRole, MasterKey, OperatorKey, Rotating};

/// The longest token that is looked at, in bytes. The longest that we seal is of some 740.
pub const MAX_TOKEN: usize = 1024;

/// How much later than `exp` a token still opens, and how far in the future `iat` may lie: clocks differ.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// The longest life of a connect token. Single-use history and revocation log are kept for this long, so a longer one is refused.
pub const MAX_CONNECT_LIFE: Duration = Duration::from_secs(300);

/// Why a token does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// It is no token of ours: too long, another version of PASETO, bad base64, or no footer as we write it.
    Malformed,
    /// Its footer names a key that is not held here: another gateway's, another process's, or a retired one.
    UnknownKey,
    /// Its MAC is wrong: forged, damaged, or sealed for another purpose or gateway.
    BadMac,
    /// It is authentic, but its claims are not those of its purpose, or contradict each other.
    BadClaims,
    /// It was issued further in the future than [`LEEWAY`].
    NotYetValid,
    /// It is meant for another gateway.
    WrongAudience,
    /// It expired longer ago than [`LEEWAY`]. Everything else about it is in order.
    Expired,
}

impl Rejection {
    /// The reason as a fixed label, for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::BadMac => "bad_mac",
            Self::BadClaims => "bad_claims",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests;
