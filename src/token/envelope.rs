//! The envelope of every token: PASETO v4.local with a footer that names the key.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rusty_paseto::core::{Footer, ImplicitAssertion, Key, Local, Paseto, PasetoNonce, Payload, V4};

use super::{KeyId, MAX_TOKEN, Rejection, key::Secret};

/// The footer has exactly one spelling, so that no parser meets text that is not authenticated yet (PASETO implementation guide,
/// "Storing JSON in the footer": bound it before it is parsed). It is JSON all the same, as other tools expect.
const FOOTER_START: &str = "{\"kid\":\"";
const FOOTER_END: &str = "\"}";
/// The start, "k4.lid." with 44 digits, and the end.
const FOOTER_BYTES: usize = 8 + 51 + 2;
/// As many bytes in base64url without padding.
const FOOTER_DIGITS: usize = (FOOTER_BYTES * 4).div_ceil(3);

fn footer_of(id: KeyId) -> String {
    format!("{FOOTER_START}{id}{FOOTER_END}")
}

/// Seals `payload` under `key`, bound to `assertion`.
pub(super) fn seal(key: &Secret, payload: &str, assertion: &str) -> String {
    seal_with(key, payload, assertion, random())
}

fn seal_with(key: &Secret, payload: &str, assertion: &str, nonce: [u8; 32]) -> String {
    let nonce = Key::from(nonce);
    let sealed = Paseto::<V4, Local>::builder()
        .set_payload(Payload::from(payload))
        .set_footer(Footer::from(footer_of(key.id()).as_str()))
        .set_implicit_assertion(ImplicitAssertion::from(assertion))
        .try_encrypt(key.paseto(), &PasetoNonce::from(&nonce));
    sealed.unwrap_or_else(|_| impossible("PASETO refuses keys and nonces of 32 bytes"))
}

/// The key that `token` says it is sealed under. Nothing about it is authentic yet.
pub(super) fn key_id(token: &str) -> Result<KeyId, Rejection> {
    if token.len() > MAX_TOKEN {
        return Err(Rejection::Malformed);
    }
    let digits = match token.rsplit_once('.') {
        Some((_, digits)) if digits.len() == FOOTER_DIGITS => digits,
        _ => return Err(Rejection::Malformed),
    };
    // The decoder wants room for whole groups of three.
    let mut buffer = [0; FOOTER_BYTES.next_multiple_of(3)];
    let length = BASE64_URL_SAFE_NO_PAD
        .decode_slice(digits, &mut buffer)
        .map_err(|_| Rejection::Malformed)?;
    let footer = buffer
        .get(..length)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(Rejection::Malformed)?;
    footer
        .strip_prefix(FOOTER_START)
        .and_then(|rest| rest.strip_suffix(FOOTER_END))
        .and_then(|id| id.parse().ok())
        .ok_or(Rejection::Malformed)
}

/// The payload of `token` if it was sealed under `key` and bound to `assertion`.
///
/// The caller has looked at [`key_id`] before, and thereby bounded the token's length.
pub(super) fn open(key: &Secret, token: &str, assertion: &str) -> Result<String, Rejection> {
    let footer = footer_of(key.id());
    Paseto::<V4, Local>::try_decrypt(
        token,
        key.paseto(),
        Footer::from(footer.as_str()),
        ImplicitAssertion::from(assertion),
    )
    .map_err(|error| match rusty_paseto::Error::from(error) {
        rusty_paseto::Error::CryptoError => Rejection::BadMac,
        // Only looked at behind the MAC.
        rusty_paseto::Error::Utf8(_) => Rejection::BadClaims,
        _ => Rejection::Malformed,
    })
}

/// Bytes from the operating system's randomness.
///
/// Without it the process aborts: there is no token, key or id that could safely be made without, and no peer can cause it
/// (getrandom(2) cannot fail once the machine has booted).
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => bytes,
        Err(_) => impossible("the operating system has no randomness"),
    }
}

/// Ends the process for what cannot happen, where going on would weaken secrets.
pub(super) fn impossible(what: &'static str) -> ! {
    tracing::error!("{what}: aborting");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SessionKey;

    #[test]
    fn the_footer_is_what_it_says() {
        let key = SessionKey::from_bytes(&[1; 32]);
        let token = seal_with(&key.0, "{}", "a", [2; 32]);
        let footer = token.rsplit_once('.').unwrap().1;
        assert_eq!(footer.len(), FOOTER_DIGITS);
        let json = BASE64_URL_SAFE_NO_PAD.decode(footer).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json, serde_json::json!({ "kid": key.id().to_string() }));
        assert_eq!(key_id(&token), Ok(key.id()));
        assert_eq!(open(&key.0, &token, "a").as_deref(), Ok("{}"));
        assert_eq!(open(&key.0, &token, "b"), Err(Rejection::BadMac));
    }

    #[test]
    fn no_two_seals_are_the_same() {
        let key = SessionKey::from_bytes(&[1; 32]);
        assert_ne!(seal(&key.0, "{}", "a"), seal(&key.0, "{}", "a"));
    }

    #[test]
    fn other_footers_are_refused_before_cryptography() {
        let token = seal(&SessionKey::generate().0, "{}", "a");
        let (body, footer) = token.rsplit_once('.').unwrap();
        let encode = |text: &str| format!("{body}.{}", BASE64_URL_SAFE_NO_PAD.encode(text));
        let id = SessionKey::generate().id();
        for bad in [
            String::new(),
            "....".into(),
            body.into(),
            format!("{body}."),
            format!("{token}."),
            format!("{token}="),
            format!("{body}.{footer}A"),
            encode(&format!("{{\"kid\": \"{id}\"}}")),
            encode(&format!("{{\"kid\":\"{id}\",\"x\":1}}")),
            encode(&format!("{{\"kix\":\"{id}\"}}")),
            encode(&format!("{{\"kid\":\"{}\"}}", "x".repeat(51))),
            encode(&"[".repeat(FOOTER_BYTES)),
            "A".repeat(MAX_TOKEN + 1),
        ] {
            assert_eq!(key_id(&bad), Err(Rejection::Malformed), "{bad}");
        }
    }
}
