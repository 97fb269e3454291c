//! The keys of one purpose while they rotate: which opens already, which seals, which opens still.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{InvalidKey, KeyId, Purpose, RefreshKey, SessionKey, TransportMasterKey};

/// What a key does in a rotation, in the order in which a key goes through it.
///
/// Two who are one step apart always understand each other: whoever seals with a key does so when all others open it already, and nobody
/// lets go of one before its last token has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyRole {
    /// Opens tokens already, and seals none.
    Next,
    /// Seals, and opens.
    Current,
    /// Sealed before, and opens until the last of its tokens has expired.
    Previous,
}

impl KeyRole {
    /// The role as a fixed label, as key files and operators' commands say it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A text that names no [`KeyRole`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a key is next, current or previous")]
pub struct InvalidKeyRole;

impl FromStr for KeyRole {
    type Err = InvalidKeyRole;

    fn from_str(text: &str) -> Result<Self, InvalidKeyRole> {
        [Self::Next, Self::Current, Self::Previous]
            .into_iter()
            .find(|role| role.label() == text)
            .ok_or(InvalidKeyRole)
    }
}

/// A kind of key that operators make, keep in a file, and rotate.
pub trait OperatorKey: Sized {
    /// What such keys are for.
    const PURPOSE: Purpose;
    /// A new key from the operating system's randomness.
    fn generate() -> Self;
    /// The key with this text (PASERK `k4.local.…`).
    ///
    /// # Errors
    /// If the text is anything else.
    fn from_paserk(text: &str) -> Result<Self, InvalidKey>;
    /// The key as text. Secret.
    fn to_paserk(&self) -> zeroize::Zeroizing<String>;
    /// The key's public name.
    fn id(&self) -> KeyId;
}

macro_rules! operator_key {
    ($($name:ident),*) => {$(
        impl OperatorKey for $name {
            const PURPOSE: Purpose = $name::PURPOSE;

            fn generate() -> Self {
                Self::generate()
            }

            fn from_paserk(text: &str) -> Result<Self, InvalidKey> {
                Self::from_paserk(text)
            }

            fn to_paserk(&self) -> zeroize::Zeroizing<String> {
                self.to_paserk()
            }

            fn id(&self) -> KeyId {
                self.id()
            }
        }
    )*};
}

operator_key!(SessionKey, RefreshKey, TransportMasterKey);

/// The number of a key that nobody has numbered: the first of its purpose.
pub const FIRST_EPOCH: u32 = 1;

/// A master transport key and its number, which goes into every key that is derived from it: all sidecars must have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKey {
    /// Counts the rotations, from [`FIRST_EPOCH`].
    pub epoch: u32,
    /// The key that the keys of gateway processes derive from.
    pub key: TransportMasterKey,
}

/// The keys of one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotating<K> {
    /// Will be the current one: whoever opens tokens has it already.
    pub next: Option<K>,
    /// Seals, and opens.
    pub current: K,
    /// Sealed before, the newest first; each opens until the last of its tokens has expired.
    pub previous: Vec<K>,
}

impl<K> Rotating<K> {
    /// One key, which does not rotate now.
    pub const fn only(current: K) -> Self {
        Self {
            next: None,
            current,
            previous: Vec::new(),
        }
    }

    /// All of them with their roles: the current one, the previous ones, the next.
    pub fn all(&self) -> impl Iterator<Item = (KeyRole, &K)> {
        let previous = self.previous.iter().map(|key| (KeyRole::Previous, key));
        [(KeyRole::Current, &self.current)]
            .into_iter()
            .chain(previous)
            .chain(self.next.iter().map(|key| (KeyRole::Next, key)))
    }

    /// The same roles with something made of each key.
    pub fn map<T>(self, make: impl FnMut(K) -> T) -> Rotating<T> {
        let mut make = make;
        Rotating {
            next: self.next.map(&mut make),
            current: make(self.current),
            previous: self.previous.into_iter().map(make).collect(),
        }
    }
}

impl<K> From<K> for Rotating<K> {
    fn from(current: K) -> Self {
        Self::only(current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_what_its_label_says() {
        for role in [KeyRole::Next, KeyRole::Current, KeyRole::Previous] {
            assert_eq!(role.label().parse(), Ok(role));
        }
        assert_eq!("CURRENT".parse::<KeyRole>(), Err(InvalidKeyRole));
    }

    #[test]
    fn every_key_is_told_with_its_role() {
        let keys = Rotating {
            next: Some(4),
            current: 3,
            previous: vec![2, 1],
        };
        let all: Vec<_> = keys.all().map(|(role, key)| (role, *key)).collect();
        assert_eq!(
            all,
            [
                (KeyRole::Current, 3),
                (KeyRole::Previous, 2),
                (KeyRole::Previous, 1),
                (KeyRole::Next, 4)
            ]
        );
        assert_eq!(keys.map(|key| key * 2).current, 6);
    }
}
