//! Keys: a type per purpose, their text (PASERK), their ids, and the derivation of transport keys.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use blake2::{
    Blake2b, Blake2bMac, Digest,
    digest::{Mac, consts::U32, consts::U33},
};
use rusty_paseto::core::{Key, Local, PasetoSymmetricKey, V4};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    Purpose,
    envelope::{impossible, random},
};
use crate::id::{GatewayId, Incarnation};

/// The header of a v4.local key as text (PASERK, type `local`).
const LOCAL_HEADER: &str = "k4.local.";
/// The header of such a key's id (PASERK, type `lid`).
const ID_HEADER: &str = "k4.lid.";
/// 33 bytes in base64url: no padding and no spare bits, so that an id has one spelling only.
const ID_DIGITS: usize = 44;

/// Why a text is no key or key id. The text itself, which may be secret, is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidKey {
    /// It starts otherwise than such a text does.
    #[error(
        "not a PASERK of the right kind: a key starts with \"k4.local.\", a key id with \"k4.lid.\""
    )]
    WrongHeader,
    /// What follows the header has the wrong length or is not base64url without padding.
    #[error(
        "a k4.local key is 43 base64url characters after its header, a k4.lid id 44: this one is damaged or cut"
    )]
    WrongLength,
}

impl InvalidKey {
    /// The error as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::WrongHeader => "wrong_header",
            Self::WrongLength => "wrong_length",
        }
    }
}

/// A key's public name (PASERK `k4.lid`): what a token's footer says and what logs may say.
///
/// <https://github.com/paseto-standard/paserk/blob/master/types/lid.md>
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 33]);

impl KeyId {
    fn of(paserk: &str) -> Self {
        let hash = Blake2b::<U33>::new()
            .chain_update(ID_HEADER)
            .chain_update(paserk)
            .finalize();
        Self(hash.into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ID_HEADER)?;
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let digits = text
            .strip_prefix(ID_HEADER)
            .ok_or(InvalidKey::WrongHeader)?;
        // The length first: whatever follows costs no more than this.
        if digits.len() != ID_DIGITS {
            return Err(InvalidKey::WrongLength);
        }
        let mut id = [0; 33];
        match BASE64_URL_SAFE_NO_PAD.decode_slice(digits, &mut id) {
            Ok(33) => Ok(Self(id)),
            _ => Err(InvalidKey::WrongLength),
        }
    }
}

/// The secret itself with its id; wiped when dropped.
pub(super) struct Secret {
    key: PasetoSymmetricKey<V4, Local>,
    id: KeyId,
}

impl Secret {
    fn new(bytes: &[u8; 32]) -> Self {
        Self {
            key: PasetoSymmetricKey::from(Key::from(bytes)),
            id: KeyId::of(&paserk(bytes)),
        }
    }

    fn from_paserk(text: &str) -> Result<Self, InvalidKey> {
        let digits = text
            .strip_prefix(LOCAL_HEADER)
            .ok_or(InvalidKey::WrongHeader)?;
        // The decoder wants room for a full last group: 43 characters are 10 groups and three, so 33 bytes will do.
        let mut bytes = Zeroizing::new([0; 33]);
        let length = BASE64_URL_SAFE_NO_PAD
            .decode_slice(digits, bytes.as_mut())
            .map_err(|_| InvalidKey::WrongLength)?;
        match bytes.first_chunk() {
            Some(key) if length == 32 => Ok(Self::new(key)),
            _ => Err(InvalidKey::WrongLength),
        }
    }

    pub(super) const fn id(&self) -> KeyId {
        self.id
    }

    pub(super) const fn paseto(&self) -> &PasetoSymmetricKey<V4, Local> {
        &self.key
    }

    fn bytes(&self) -> &[u8] {
        self.key.as_ref()
    }
}

fn paserk(bytes: &[u8]) -> Zeroizing<String> {
    // Room for the whole at once: growing would leave a copy of its beginning behind.
    let mut text = Zeroizing::new(String::with_capacity(LOCAL_HEADER.len() + 44));
    text.push_str(LOCAL_HEADER);
    BASE64_URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
    text
}

/// Makes the type of one purpose's keys: 32 secret bytes, wiped when dropped, compared in constant time, never printed.
macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident, $purpose:ident) => {
        $(#[$doc])*
        pub struct $name(pub(super) Secret);

        impl $name {
            /// What these keys are for.
            pub const PURPOSE: Purpose = Purpose::$purpose;

            /// A new key from the operating system's randomness. Aborts the process if there is none.
            pub fn generate() -> Self {
                Self::from_bytes(&Zeroizing::new(random()))
            }

            /// The key with these bytes.
            pub fn from_bytes(bytes: &[u8; 32]) -> Self {
                Self(Secret::new(bytes))
            }

            /// The key with this text (PASERK `k4.local.…`).
            ///
            /// # Errors
            /// If the text is anything else; spaces and line ends around it count as such.
            pub fn from_paserk(text: &str) -> Result<Self, InvalidKey> {
                Secret::from_paserk(text).map(Self)
            }

            /// The key as text (PASERK `k4.local.…`). Secret.
            pub fn to_paserk(&self) -> Zeroizing<String> {
                paserk(self.0.bytes())
            }

            /// The key's 32 bytes. Secret.
            pub fn expose(&self) -> &[u8] {
                self.0.bytes()
            }

            /// The key's public name (PASERK `k4.lid.…`).
            pub const fn id(&self) -> KeyId {
                self.0.id()
            }
        }

        impl FromStr for $name {
            type Err = InvalidKey;

            fn from_str(text: &str) -> Result<Self, InvalidKey> {
                Self::from_paserk(text)
            }
        }

        impl Clone for $name {
            fn clone(&self) -> Self {
                let mut bytes = Zeroizing::new([0; 32]);
                bytes.copy_from_slice(self.0.bytes());
                Self::from_bytes(&bytes)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.bytes().ct_eq(other.0.bytes()).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("id", &self.0.id())
                    .field("key", &"[redacted]")
                    .finish()
            }
        }
    };
}

key_type!(
    /// Seals and opens session tokens. Never leaves the sidecars.
    SessionKey,
    Session
);
key_type!(
    /// Seals and opens refresh tokens. Never leaves the sidecars.
    RefreshKey,
    Refresh
);
key_type!(
    /// What transport keys derive from. Never leaves the sidecars, and never seals a token itself.
    TransportMasterKey,
    Connect
);
key_type!(
    /// Seals and opens the connect tokens of one gateway process.
    TransportKey,
    Connect
);

key_type!(
    /// Hashes what the ways to log in keep: codes, tokens and nonces. Never leaves the sidecars, and seals no token.
    LoginKey,
    Login
);

/// Separates these hashes from every other use of a key. The `use` of each follows it.
const LOGIN_LABEL: &[u8] = b"tickgate.v1.login";

impl LoginKey {
    /// What a secret is known by: BLAKE2b-256 keyed with this key (RFC 7693, section 2.9) over a label, its `use`, and the parts, each
    /// behind its length, so that no two lists of parts are the same input.
    ///
    /// Keyed, since a code of six digits is found in a million tries by whoever has a plain hash of it.
    pub fn hash(&self, usage: &'static str, parts: &[&[u8]]) -> [u8; 32] {
        let mut message = Zeroizing::new(Vec::with_capacity(
            parts.iter().fold(64, |sum, part| sum + 8 + part.len()),
        ));
        for part in [LOGIN_LABEL, usage.as_bytes()].iter().chain(parts) {
            message.extend_from_slice(&(part.len() as u64).to_be_bytes());
            message.extend_from_slice(part);
        }
        *keyed_hash(self.0.bytes(), &message)
    }
}

/// Separates this derivation from every other use of a key, PASETO's own among them ("paseto-encryption-key", "paseto-auth-key-for-aead").
const DERIVATION_LABEL: &[u8] = b"tickgate.v1.transport-key";

impl TransportMasterKey {
    /// The key of one gateway process in one epoch of the master key.
    ///
    /// BLAKE2b-256 keyed with the master key (RFC 7693, section 2.9: a keyed hash that needs no HMAC around it) over a label, the
    /// gateway's id behind its length, the incarnation and the epoch, numbers big-endian. That is a pseudo-random function of
    /// unambiguous input, thus a key derivation function in the sense of NIST SP 800-108 with one block of output, and the very
    /// construction by which PASETO v4 splits its keys. No key tells anything about the master key or about another one.
    pub fn derive(
        &self,
        gateway: &GatewayId,
        incarnation: Incarnation,
        epoch: u32,
    ) -> TransportKey {
        let id = gateway.as_str().as_bytes();
        let mut context = Vec::with_capacity(DERIVATION_LABEL.len() + 8 + id.len() + 16 + 4);
        context.extend_from_slice(DERIVATION_LABEL);
        context.extend_from_slice(&(id.len() as u64).to_be_bytes());
        context.extend_from_slice(id);
        context.extend_from_slice(&incarnation.to_bytes());
        context.extend_from_slice(&epoch.to_be_bytes());
        TransportKey::from_bytes(&keyed_hash(self.0.bytes(), &context))
    }
}

fn keyed_hash(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    // Not `new`, which wants 64 bytes: the key's length is part of what is hashed. Only longer keys than that are refused.
    match Blake2bMac::<U32>::new_from_slice(key) {
        Ok(hash) => Zeroizing::new(hash.chain_update(message).finalize().into_bytes().into()),
        Err(_) => impossible("BLAKE2b refuses a key of 32 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Vector {
        name: String,
        expect_fail: bool,
        key: Option<String>,
        paserk: Option<String>,
    }

    fn vectors(text: &str) -> Vec<Vector> {
        #[derive(serde::Deserialize)]
        struct File {
            tests: Vec<Vector>,
        }
        serde_json::from_str::<File>(text).unwrap().tests
    }

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        (0..hexadecimal.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn official_vectors_of_local_keys_hold() {
        let all = vectors(include_str!("../../tests/data/paserk-k4.local.json"));
        assert_eq!(all.len(), 5);
        for vector in all {
            let parsed = SessionKey::from_paserk(vector.paserk.as_deref().unwrap());
            if vector.expect_fail {
                assert!(parsed.is_err(), "{}", vector.name);
                continue;
            }
            let key = parsed.unwrap();
            assert_eq!(key.expose(), bytes(&vector.key.unwrap()), "{}", vector.name);
            assert_eq!(*key.to_paserk(), vector.paserk.unwrap(), "{}", vector.name);
        }
    }

    #[test]
    fn official_vectors_of_key_ids_hold() {
        let all = vectors(include_str!("../../tests/data/paserk-k4.lid.json"));
        assert_eq!(all.len(), 4);
        for vector in all {
            let key: Result<[u8; 32], _> = bytes(&vector.key.unwrap()).try_into();
            // The vector that must fail is a short key, which our types cannot even hold.
            assert_eq!(key.is_err(), vector.expect_fail, "{}", vector.name);
            if let Ok(key) = key {
                let id = SessionKey::from_bytes(&key).id();
                let text = vector.paserk.unwrap();
                assert_eq!(id.to_string(), text, "{}", vector.name);
                assert_eq!(text.parse(), Ok(id));
            }
        }
    }

    #[test]
    fn damaged_texts_are_refused_without_being_told() {
        let text = SessionKey::generate().to_paserk();
        for bad in [
            "",
            "k4.local.",
            "k4.secret.AAAA",
            &format!("{}=", *text),
            &format!("{}A", *text),
            &format!(" {}", *text),
            &format!("{}\n", *text),
            &text[..text.len() - 1],
            &"A".repeat(10_000),
        ] {
            let error = SessionKey::from_paserk(bad).unwrap_err();
            assert!(bad.len() < 12 || !error.to_string().contains(bad));
        }
        for bad in ["", "k4.lid.", "k4.lid.AAAA", &"k4.lid.".repeat(7), &text] {
            assert!(bad.parse::<KeyId>().is_err());
        }
    }

    #[test]
    fn keys_are_never_printed() {
        let key = TransportMasterKey::generate();
        let printed = format!("{key:?}");
        assert!(printed.contains("redacted") && printed.contains("k4.lid."));
        assert!(!printed.contains(&key.to_paserk()[LOCAL_HEADER.len()..]));
        assert_eq!(key, key.clone());
        assert_ne!(key, TransportMasterKey::generate());
    }

    #[test]
    fn every_part_of_the_context_makes_another_transport_key() {
        let master = TransportMasterKey::from_bytes(&[7; 32]);
        let (a, b): (GatewayId, GatewayId) = ("gw-1".parse().unwrap(), "gw-11".parse().unwrap());
        let keys = [
            master.derive(&a, Incarnation(1), 1),
            master.derive(&b, Incarnation(1), 1),
            master.derive(&a, Incarnation(2), 1),
            master.derive(&a, Incarnation(1), 2),
            TransportMasterKey::from_bytes(&[8; 32]).derive(&a, Incarnation(1), 1),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert_ne!(key.expose(), master.expose());
            for other in &keys[at + 1..] {
                assert_ne!(key, other);
                assert_ne!(key.id(), other.id());
            }
        }
        assert_eq!(keys[0], master.derive(&a, Incarnation(1), 1));
    }

    #[test]
    fn every_part_of_what_is_hashed_makes_another_hash() {
        let key = LoginKey::from_bytes(&[7; 32]);
        let hashes = [
            key.hash("otp", &[b"a", b"b"]),
            key.hash("otp", &[b"ab"]),
            key.hash("otp", &[b"ab", b""]),
            key.hash("otp", &[b"", b"ab"]),
            key.hash("link", &[b"a", b"b"]),
            LoginKey::from_bytes(&[8; 32]).hash("otp", &[b"a", b"b"]),
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[at + 1..].contains(hash), "{at}");
        }
        assert_eq!(hashes[0], key.hash("otp", &[b"a", b"b"]));
    }

    /// Sidecars of two versions must derive the same key. Checked against Python:
    /// `hashlib.blake2b(context, key=bytes([7] * 32), digest_size=32)`.
    #[test]
    fn the_derivation_stays_as_it_is() {
        let key = TransportMasterKey::from_bytes(&[7; 32]).derive(
            &"gw-1".parse().unwrap(),
            Incarnation(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            3,
        );
        let digits: String = key.expose().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            digits,
            "2c445e51d9eca1189c457026cbc9ebc97fa2b91295b9426fb1407ce65d8a1f7c"
        );
    }
}
