//! The official PASETO test vectors for v4.local, through the very calls by which tokens are sealed and opened.
//!
//! tests/data/paseto-v4-local.json is the part of <https://github.com/paseto-standard/test-vectors> (v4.json) that has a symmetric
//! key: all of 4-E, and 4-F-2 to 4-F-5. (4-S and 4-F-1 are about v4.public, which is not used here.)

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but not in what their functions share"
)]

use rusty_paseto::core::{
    Footer, ImplicitAssertion, Key, Local, Paseto, PasetoNonce, PasetoSymmetricKey, Payload, V4,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Vector {
    name: String,
    expect_fail: bool,
    key: String,
    nonce: String,
    token: String,
    payload: Option<String>,
    footer: String,
    implicit_assertion: String,
}

impl Vector {
    fn key(&self) -> PasetoSymmetricKey<V4, Local> {
        PasetoSymmetricKey::from(Key::<32>::try_from(self.key.as_str()).unwrap())
    }

    fn open(&self) -> Result<String, impl std::fmt::Debug> {
        Paseto::<V4, Local>::try_decrypt(
            &self.token,
            &self.key(),
            Footer::from(self.footer.as_str()),
            ImplicitAssertion::from(self.implicit_assertion.as_str()),
        )
    }

    fn seal(&self, payload: &str) -> String {
        let nonce = Key::<32>::try_from(self.nonce.as_str()).unwrap();
        let mut paseto = Paseto::<V4, Local>::builder();
        paseto
            .set_payload(Payload::from(payload))
            .set_implicit_assertion(ImplicitAssertion::from(self.implicit_assertion.as_str()));
        // Our tokens always have a footer; a vector without one must not end in a dot.
        if !self.footer.is_empty() {
            paseto.set_footer(Footer::from(self.footer.as_str()));
        }
        paseto
            .try_encrypt(&self.key(), &PasetoNonce::from(&nonce))
            .unwrap()
    }
}

fn vectors() -> Vec<Vector> {
    let file: File = serde_json::from_str(include_str!("data/paseto-v4-local.json")).unwrap();
    file.tests
}

#[test]
fn all_vectors_are_there() {
    let names: Vec<_> = vectors().into_iter().map(|vector| vector.name).collect();
    let expected = (1..=9)
        .map(|n| format!("4-E-{n}"))
        .chain((2..=5).map(|n| format!("4-F-{n}")));
    assert_eq!(names, expected.collect::<Vec<_>>());
}

#[test]
fn good_vectors_open_and_seal_to_the_same_bytes() {
    for vector in vectors().iter().filter(|vector| !vector.expect_fail) {
        let payload = vector.payload.as_deref().unwrap();
        assert_eq!(vector.open().unwrap(), payload, "{}", vector.name);
        assert_eq!(vector.seal(payload), vector.token, "{}", vector.name);
    }
}

#[test]
fn bad_vectors_do_not_open() {
    for vector in vectors().iter().filter(|vector| vector.expect_fail) {
        assert!(vector.open().is_err(), "{}", vector.name);
    }
}
