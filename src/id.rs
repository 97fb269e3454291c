//! Names of things: newtypes, so that no id is ever taken for another.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// A text that names nothing: what it should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a valid {0}")]
pub struct InvalidId(pub &'static str);

/// A session's JTI: a ULID that names the session from login to its end, the same across refreshes.
///
/// An identifier and never a secret: it may stand in logs and URLs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// The id as 16 big-endian bytes, as it stands on the wire.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id from its 16 big-endian bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        f.write_str(ulid::Ulid(self.0).array_to_str(&mut buffer))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        ulid::Ulid::from_string(text)
            .map(|id| Self(id.0))
            .map_err(|_| InvalidId("session id (a ULID of 26 characters)"))
    }
}

/// Implements `Display`, `Debug` and `FromStr` for a 128-bit id written as 32 hexadecimal digits.
macro_rules! hexadecimal_id {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The id as 16 big-endian bytes, as it stands on the wire.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// The id from its 16 big-endian bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let well_formed = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                match u128::from_str_radix(text, 16) {
                    Ok(id) if well_formed => Ok(Self(id)),
                    _ => Err(InvalidId(concat!($what, " (32 hexadecimal digits)"))),
                }
            }
        }
    };
}

/// A player: random, unrelated to any account name or e-mail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlayerId(pub u128);
hexadecimal_id!(PlayerId, "player id");

/// One gateway process: 128 random bits drawn at its start, so that a restart is told apart from its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u128);
hexadecimal_id!(Incarnation, "incarnation");

/// The identity of a revocation log: a new one means that revisions start afresh and nothing follows from the old ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub u128);
hexadecimal_id!(Lineage, "lineage");

/// A position in the revocation log; 0 is before its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The client's id inside the game: random, carried by the connect token, kept by the seat for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Counts revoke-all of one player: what carries a smaller one is dead.
///
/// A counter and not a time, so that a session made in the same second as the revocation is on the right side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PlayerGeneration(pub u32);

/// A tick of the simulation, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

/// A gateway by name: what its control certificate says and what connect tokens are bound to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(Arc<str>);

impl GatewayId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for GatewayId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId(
                "gateway id (1 to 63 lower-case letters, digits, '-' and '.')",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text() {
        let session = SessionId(0x0192_5f6a_0000_1234_5678_9abc_def0_1234);
        assert_eq!(session.to_string().parse(), Ok(session));
        let player = PlayerId(7);
        assert_eq!(player.to_string().len(), 32);
        assert_eq!(player.to_string().parse(), Ok(player));
        assert_eq!(SessionId::from_bytes(session.to_bytes()), session);
    }

    #[test]
    fn malformed_ids_are_refused() {
        assert!("".parse::<SessionId>().is_err());
        assert!(
            "+0000000000000000000000000000007"
                .parse::<PlayerId>()
                .is_err()
        );
        for bad in ["", "Ä", "UPPER", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<GatewayId>().is_err(), "{bad}");
        }
        assert!("eu-west-1.game".parse::<GatewayId>().is_ok());
    }
}
