//! What tokens claim, and how that is written: one JSON object each, times in RFC 3339, ids as text.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{LEEWAY, MAX_CONNECT_LIFE, Rejection, envelope};
use crate::{
    clock::Timestamp,
    id::{ClientId, GatewayId, PlayerGeneration, PlayerId, Revision, SessionId},
};

/// What a session token claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionClaims {
    /// Whose session it is (`sub`).
    pub player: PlayerId,
    /// The session (`jti`).
    pub session: SessionId,
    /// Which token of the session this is: counts refreshes (`gen`).
    pub generation: u32,
    /// The player generation at login (`pgen`).
    pub player_generation: PlayerGeneration,
    /// The player's role; at most 64 bytes, so that the token stays below [`MAX_TOKEN`](super::MAX_TOKEN) (`role`).
    pub role: String,
    /// How the player logged in; at most 64 bytes (`amr`).
    pub method: String,
    /// When the token was made (`iat`).
    pub issued_at: Timestamp,
    /// When it stops being accepted (`exp`).
    pub expires_at: Timestamp,
}

/// What a refresh token claims: which generation of which session it may be changed for the next one of. Neither the player nor the
/// role: both are read anew when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshClaims {
    /// The session (`jti`).
    pub session: SessionId,
    /// Which token of the session this is: counts refreshes (`gen`).
    pub generation: u32,
    /// The player generation at login (`pgen`).
    pub player_generation: PlayerGeneration,
    /// When the token was made (`iat`).
    pub issued_at: Timestamp,
    /// The session's absolute end (`exp`).
    pub expires_at: Timestamp,
}

/// The 24 random bytes by which a connect token is known to have been used (`nonce`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(pub [u8; 24]);

impl Nonce {
    /// A new one from the operating system's randomness. Aborts the process if there is none.
    pub fn random() -> Self {
        Self(envelope::random())
    }
}

/// What a connect token claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectClaims {
    /// Whose session it is (`sub`).
    pub player: PlayerId,
    /// The session that is to be admitted (`jti`).
    pub session: SessionId,
    /// The player generation at login (`pgen`).
    pub player_generation: PlayerGeneration,
    /// The client id of a seat that is taken with this token (`cid`; a string, since JSON numbers end at 2^53).
    pub client: ClientId,
    /// The single-use key (`nonce`).
    pub nonce: Nonce,
    /// The gateway that may open it (`aud`).
    pub gateway: GatewayId,
    /// The head of the revocation log when the token was made (`rev`).
    pub revision: Revision,
    /// The session's absolute end (`sexp`).
    pub session_ends_at: Timestamp,
    /// The Ed25519 public key whose holder alone may use the token (`cnf`); absent means any bearer.
    pub client_key: Option<[u8; 32]>,
    /// When the token was made (`iat`).
    pub issued_at: Timestamp,
    /// When it stops being accepted (`exp`).
    pub expires_at: Timestamp,
}

impl SessionClaims {
    pub(super) fn to_json(&self) -> String {
        let Self {
            player,
            session,
            generation,
            player_generation,
            role,
            method,
            issued_at,
            expires_at,
        } = self.clone();
        write(&SessionBody {
            player,
            session,
            generation,
            player_generation: player_generation.0,
            role,
            method,
            issued_at,
            expires_at,
        })
    }

    pub(super) fn from_json(text: &str) -> Result<Self, Rejection> {
        let SessionBody {
            player,
            session,
            generation,
            player_generation,
            role,
            method,
            issued_at,
            expires_at,
        } = read(text)?;
        Ok(Self {
            player,
            session,
            generation,
            player_generation: PlayerGeneration(player_generation),
            role,
            method,
            issued_at,
            expires_at,
        })
    }

    /// Judges the times, `exp` last.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Rejection> {
        check_issue(self.issued_at, self.expires_at, now)?;
        check_expiry(self.expires_at, now)
    }
}

impl RefreshClaims {
    pub(super) fn to_json(self) -> String {
        let Self {
            session,
            generation,
            player_generation,
            issued_at,
            expires_at,
        } = self;
        write(&RefreshBody {
            session,
            generation,
            player_generation: player_generation.0,
            issued_at,
            expires_at,
        })
    }

    pub(super) fn from_json(text: &str) -> Result<Self, Rejection> {
        let RefreshBody {
            session,
            generation,
            player_generation,
            issued_at,
            expires_at,
        } = read(text)?;
        Ok(Self {
            session,
            generation,
            player_generation: PlayerGeneration(player_generation),
            issued_at,
            expires_at,
        })
    }

    /// Judges the times, `exp` last.
    pub(super) fn check(self, now: Timestamp) -> Result<(), Rejection> {
        check_issue(self.issued_at, self.expires_at, now)?;
        check_expiry(self.expires_at, now)
    }
}

impl ConnectClaims {
    pub(super) fn to_json(&self) -> String {
        let Self {
            player,
            session,
            player_generation,
            client,
            nonce,
            gateway,
            revision,
            session_ends_at,
            client_key,
            issued_at,
            expires_at,
        } = self.clone();
        write(&ConnectBody {
            player,
            session,
            player_generation: player_generation.0,
            client: client.0,
            nonce: Bytes(nonce.0),
            gateway,
            revision: revision.0,
            session_ends_at,
            client_key: client_key.map(Bytes),
            issued_at,
            expires_at,
        })
    }

    pub(super) fn from_json(text: &str) -> Result<Self, Rejection> {
        let ConnectBody {
            player,
            session,
            player_generation,
            client,
            nonce,
            gateway,
            revision,
            session_ends_at,
            client_key,
            issued_at,
            expires_at,
        } = read(text)?;
        Ok(Self {
            player,
            session,
            player_generation: PlayerGeneration(player_generation),
            client: ClientId(client),
            nonce: Nonce(nonce.0),
            gateway,
            revision: Revision(revision),
            session_ends_at,
            client_key: client_key.map(|key| key.0),
            issued_at,
            expires_at,
        })
    }

    /// Judges the times and the audience, but for `exp`.
    pub(super) fn check(&self, gateway: &GatewayId, now: Timestamp) -> Result<(), Rejection> {
        check_issue(self.issued_at, self.expires_at, now)?;
        if self.expires_at.since(self.issued_at) > MAX_CONNECT_LIFE {
            return Err(Rejection::BadClaims);
        }
        if self.gateway != *gateway {
            return Err(Rejection::WrongAudience);
        }
        Ok(())
    }

    /// Whether the token's time has not passed at `now`, leeway granted.
    ///
    /// # Errors
    /// [`Rejection::Expired`].
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), Rejection> {
        check_expiry(self.expires_at, now)
    }
}

fn check_issue(issued: Timestamp, expires: Timestamp, now: Timestamp) -> Result<(), Rejection> {
    if expires <= issued {
        Err(Rejection::BadClaims)
    } else if issued > now.after(LEEWAY) {
        Err(Rejection::NotYetValid)
    } else {
        Ok(())
    }
}

/// "On or after which the token must not be accepted" (RFC 7519, section 4.1.4), with leeway.
fn check_expiry(expires: Timestamp, now: Timestamp) -> Result<(), Rejection> {
    if now >= expires.after(LEEWAY) {
        Err(Rejection::Expired)
    } else {
        Ok(())
    }
}

fn write(body: &impl Serialize) -> String {
    // Fails for maps with keys that are no text, and for writers that fail: here is neither.
    serde_json::to_string(body)
        .unwrap_or_else(|_| envelope::impossible("claims cannot be written as JSON"))
}

fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, Rejection> {
    serde_json::from_str(text).map_err(|_| Rejection::BadClaims)
}

// A claim that this version does not know may be one that restricts the token: such a token is refused, never half understood.

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionBody {
    #[serde(rename = "sub", with = "as_text")]
    player: PlayerId,
    #[serde(rename = "jti", with = "as_text")]
    session: SessionId,
    #[serde(rename = "gen")]
    generation: u32,
    #[serde(rename = "pgen")]
    player_generation: u32,
    role: String,
    #[serde(rename = "amr")]
    method: String,
    #[serde(rename = "iat", with = "as_text")]
    issued_at: Timestamp,
    #[serde(rename = "exp", with = "as_text")]
    expires_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    #[serde(rename = "jti", with = "as_text")]
    session: SessionId,
    #[serde(rename = "gen")]
    generation: u32,
    #[serde(rename = "pgen")]
    player_generation: u32,
    #[serde(rename = "iat", with = "as_text")]
    issued_at: Timestamp,
    #[serde(rename = "exp", with = "as_text")]
    expires_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectBody {
    #[serde(rename = "sub", with = "as_text")]
    player: PlayerId,
    #[serde(rename = "jti", with = "as_text")]
    session: SessionId,
    #[serde(rename = "pgen")]
    player_generation: u32,
    #[serde(rename = "cid", with = "as_text")]
    client: u64,
    nonce: Bytes<24>,
    #[serde(rename = "aud", with = "as_text")]
    gateway: GatewayId,
    #[serde(rename = "rev")]
    revision: u64,
    #[serde(rename = "sexp", with = "as_text")]
    session_ends_at: Timestamp,
    #[serde(rename = "cnf", default, skip_serializing_if = "Option::is_none")]
    client_key: Option<Bytes<32>>,
    #[serde(rename = "iat", with = "as_text")]
    issued_at: Timestamp,
    #[serde(rename = "exp", with = "as_text")]
    expires_at: Timestamp,
}

/// Whatever is written and read as text is so in JSON too.
mod as_text {
    use super::*;

    pub(super) fn serialize<T: fmt::Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        struct Text<T>(std::marker::PhantomData<T>);

        impl<T: FromStr> de::Visitor<'_> for Text<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
                text.parse().map_err(|_| E::custom("malformed text"))
            }
        }

        deserializer.deserialize_str(Text(std::marker::PhantomData))
    }
}

/// Bytes as base64url without padding.
struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        as_text::deserialize(deserializer)
    }
}

impl<const N: usize> FromStr for Bytes<N> {
    type Err = base64::DecodeSliceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text)?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| base64::DecodeSliceError::OutputSliceTooSmall)
    }
}
