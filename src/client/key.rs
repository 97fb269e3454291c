//! The client's own key: what makes a stolen connect token worthless.

use std::{fmt, sync::Arc};

use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::wire;

/// Why there is no client key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are no Ed25519 key in PKCS#8.
    #[error("not an Ed25519 private key in PKCS#8 (RFC 8410)")]
    Malformed,
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    Randomness,
}

impl KeyError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Randomness => "randomness",
        }
    }
}

/// An Ed25519 key (RFC 8032) that the client holds. A connect token that names its public half admits only who can sign with it, so a
/// token that was read on its way, or out of a log, lets nobody in.
///
/// Cheap to clone; clones are the same key. Debug shows the public half alone.
#[derive(Clone)]
pub struct ClientKey(Arc<Ed25519KeyPair>);

impl ClientKey {
    /// A new key that lives in memory alone: enough where every log-in, or every connection, has a key of its own.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_pkcs8(&Self::generate_pkcs8()?)
    }

    /// A new key in PKCS#8, to be kept where the platform keeps secrets, and read again by [`from_pkcs8`](Self::from_pkcs8).
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate_pkcs8() -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let made = made.map_err(|_| KeyError::Randomness)?;
        Ok(Zeroizing::new(made.as_ref().to_vec()))
    }

    /// The key in PKCS#8 (RFC 5958; version 1, or 2 with the public half, which must then fit).
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(|pair| Self(Arc::new(pair)))
            .map_err(|_| KeyError::Malformed)
    }

    /// The public half: what the connect token names. No secret.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    /// The proof for Hello: good for this token, at the gateway whose leaf certificate has this SHA-256.
    pub fn prove(&self, token: &str, leaf_sha256: &[u8; 32]) -> [u8; 64] {
        let mut token_sha256 = [0; 32];
        token_sha256.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let message = wire::proof_message(&token_sha256, leaf_sha256);
        let mut proof = [0; 64];
        proof.copy_from_slice(self.0.sign(&message).as_ref());
        proof
    }
}

impl ClientKey {
    /// The signature that logs in with this key: good for this challenge, until its end, at the service that it names.
    pub fn sign_login(&self, challenge: &[u8; 32], expires_at_ms: u64, audience: &str) -> [u8; 64] {
        let message = wire::device_login_message(challenge, expires_at_ms, audience);
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(&message).as_ref());
        signature
    }
}

impl PartialEq for ClientKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}

impl Eq for ClientKey {}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey(public ")?;
        for byte in self.public() {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ", [redacted])")
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_proof_is_for_one_token_at_one_certificate() {
        let key = ClientKey::generate().unwrap();
        let proof = key.prove("v4.local.token", &[7; 32]);
        let public = UnparsedPublicKey::new(&ED25519, key.public());
        let message = |token: &str, leaf| {
            let hash: [u8; 32] = digest(&SHA256, token.as_bytes())
                .as_ref()
                .try_into()
                .unwrap();
            wire::proof_message(&hash, leaf)
        };
        assert!(
            public
                .verify(&message("v4.local.token", &[7; 32]), &proof)
                .is_ok()
        );
        assert!(
            public
                .verify(&message("v4.local.other", &[7; 32]), &proof)
                .is_err()
        );
        assert!(
            public
                .verify(&message("v4.local.token", &[8; 32]), &proof)
                .is_err()
        );
    }

    #[test]
    fn a_key_that_was_kept_is_the_same_key() {
        let kept = ClientKey::generate_pkcs8().unwrap();
        let key = ClientKey::from_pkcs8(&kept).unwrap();
        assert_eq!(key, ClientKey::from_pkcs8(&kept).unwrap());
        assert_ne!(key, ClientKey::generate().unwrap());
        assert_eq!(ClientKey::from_pkcs8(b"key"), Err(KeyError::Malformed));
    }

    #[test]
    fn debug_shows_the_public_half_alone() {
        let kept = ClientKey::generate_pkcs8().unwrap();
        let key = ClientKey::from_pkcs8(&kept).unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains("[redacted]"));
        // The seed stands behind 16 bytes of PKCS#8 header.
        let seed: String = kept[16..48].iter().map(|b| format!("{b:02x}")).collect();
        assert!(!shown.contains(&seed));
    }
}
