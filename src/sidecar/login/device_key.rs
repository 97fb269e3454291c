//! Login by a key that the device holds: the sidecar draws a challenge, the device signs it with Ed25519 (RFC 8032).
//!
//! What is signed begins with a label, so that no signature of another purpose is ever taken for one, and names whom it is for and until
//! when. So a signature that one service was given is worth nothing at another, nor is an old one, nor the same one twice.

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::{
    clock::Timestamp,
    proto,
    sidecar::refusal::{BadLogin, Refusal},
    store::{Identity, OneTimePurpose},
    wire::device_login_message,
};

use super::{
    Method,
    nonce::{Drawn, Nonces},
};

/// The login method.
pub(in crate::sidecar) struct DeviceKey {
    pub(in crate::sidecar) nonces: Nonces,
    /// Whom signatures are for: this service.
    pub(in crate::sidecar) audience: String,
}

impl DeviceKey {
    /// Draws a challenge.
    pub(in crate::sidecar) async fn challenge(&self) -> Result<Drawn, Refusal> {
        self.nonces.draw(OneTimePurpose::Challenge).await
    }

    fn is_signed(&self, login: &proto::DeviceKeyLogin, expires_at: Timestamp) -> bool {
        let Ok(challenge) = <&[u8; 32]>::try_from(login.challenge.as_ref()) else {
            return false;
        };
        let message = device_login_message(challenge, expires_at.0, &self.audience);
        UnparsedPublicKey::new(&ED25519, &login.public_key)
            .verify(&message, &login.signature)
            .is_ok()
    }
}

impl Method for DeviceKey {
    type Proof = proto::DeviceKeyLogin;

    const NAME: &'static str = "device_key";

    /// The challenge is spent first, so that each is good for one try.
    async fn prove(&self, login: proto::DeviceKeyLogin) -> Result<Identity, Refusal> {
        for (field, bytes, length, allowed) in [
            ("device_key.public_key", &login.public_key, 32, "32 bytes"),
            ("device_key.challenge", &login.challenge, 32, "32 bytes"),
            ("device_key.signature", &login.signature, 64, "64 bytes"),
        ] {
            if bytes.len() != length {
                return Err(Refusal::Argument { field, allowed });
            }
        }
        let purpose = OneTimePurpose::Challenge;
        let expires_at = self.nonces.spend(&login.challenge, purpose).await?;
        if !self.is_signed(&login, expires_at) {
            return Err(Refusal::Login(BadLogin::Signature));
        }
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Identity {
            provider: Self::NAME.to_owned(),
            subject: hexadecimal(&login.public_key),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::{
        rand::SystemRandom,
        signature::{Ed25519KeyPair, KeyPair},
    };

    use super::*;
    use crate::{
        clock::ManualTime,
        sidecar::{SessionLives, login::nonce::LIFE, tests::START},
        store::memory::MemoryStore,
        token::LoginKey,
    };

    fn method(time: &ManualTime) -> DeviceKey {
        let store = MemoryStore::new(SessionLives::default().for_store());
        DeviceKey {
            nonces: Nonces {
                store: Arc::new(store),
                key: Arc::new(LoginKey::generate()),
                clock: time.clock(),
            },
            audience: "login.example.com".to_owned(),
        }
    }

    fn key() -> Ed25519KeyPair {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap()
    }

    fn signed(key: &Ed25519KeyPair, drawn: &Drawn, audience: &str) -> proto::DeviceKeyLogin {
        let message = device_login_message(&drawn.nonce, drawn.expires_at.0, audience);
        proto::DeviceKeyLogin {
            public_key: key.public_key().as_ref().to_vec().into(),
            challenge: drawn.nonce.to_vec().into(),
            signature: key.sign(&message).as_ref().to_vec().into(),
        }
    }

    async fn refused(method: &DeviceKey, login: proto::DeviceKeyLogin) -> &'static str {
        method.prove(login).await.unwrap_err().label()
    }

    #[tokio::test]
    async fn a_key_is_one_account_and_a_signature_is_good_once() {
        let time = ManualTime::starting_at(START);
        let (method, key) = (method(&time), key());
        let mut subjects = Vec::new();
        for _ in 0..2 {
            let drawn = method.challenge().await.unwrap();
            let login = signed(&key, &drawn, &method.audience);
            let proven = method.prove(login.clone()).await.unwrap();
            assert_eq!(proven.provider, "device_key");
            subjects.push(proven.subject);
            assert_eq!(refused(&method, login).await, "nonce_already_used");
        }
        assert_eq!(subjects[0], subjects[1]);
        assert_eq!(subjects[0].len(), 64);
    }

    #[tokio::test]
    async fn a_signature_for_another_service_time_challenge_or_key_is_none() {
        let time = ManualTime::starting_at(START);
        let (method, key, other) = (method(&time), key(), key());
        let audience = method.audience.clone();
        let drawn = method.challenge().await.unwrap();
        let elsewhere = signed(&key, &drawn, "login.example.org");
        assert_eq!(refused(&method, elsewhere).await, "bad_signature");
        // Spent by the try.
        let right = signed(&key, &drawn, &audience);
        assert_eq!(refused(&method, right).await, "nonce_already_used");

        let mut drawn = method.challenge().await.unwrap();
        drawn.expires_at = drawn.expires_at.after(LIFE);
        let later = signed(&key, &drawn, &audience);
        assert_eq!(refused(&method, later).await, "bad_signature");

        let drawn = method.challenge().await.unwrap();
        let mut stolen = signed(&key, &drawn, &audience);
        stolen.public_key = other.public_key().as_ref().to_vec().into();
        assert_eq!(refused(&method, stolen).await, "bad_signature");

        let mut own = method.challenge().await.unwrap();
        own.nonce[0] ^= 1;
        let forged = signed(&key, &own, &audience);
        assert_eq!(refused(&method, forged).await, "unknown_nonce");

        let drawn = method.challenge().await.unwrap();
        let mut short = signed(&key, &drawn, &audience);
        short.signature.truncate(63);
        assert_eq!(refused(&method, short).await, "argument");
        time.advance(LIFE);
        let late = signed(&key, &drawn, &audience);
        assert_eq!(refused(&method, late).await, "nonce_expired");
    }
}
