//! Judges an identity token: whether the issuer says of somebody, to this game and now, who it is.
//!
//! What is held against it are the steps of OpenID Connect Core 1.0, section 3.1.3.7, in one place and without I/O. `openidconnect`
//! reads and verifies; what it leaves to its caller (which audiences, `azp`, times in the future) is decided here.

use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use openidconnect::{
    AdditionalClaims, ClaimsVerificationError, ClientId, IdToken, IdTokenClaims, IdTokenVerifier,
    IssuerUrl, Nonce, SignatureVerificationError,
    core::{
        CoreGenderClaim, CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Timestamp;

/// The longest token that is looked at, in bytes. Google's have about 1,200; 8 KiB is what web servers take as one header.
pub(super) const MAX_TOKEN: usize = 8 << 10;

/// The longest subject, in bytes (OpenID Connect Core 1.0, section 2).
const MAX_SUBJECT: usize = 255;

/// How far the issuer's clock may be ahead of ours.
const LEEWAY: Duration = Duration::from_secs(60);

/// The algorithms that are accepted: those of public keys, which every issuer has. Not `none`, and no MAC, whose key would be anybody's
/// who knows the client id.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 2] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
];

/// Why a token proves nothing. Told to its caller, who may well be a developer with a client id of another project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(in crate::sidecar) enum BadIdToken {
    #[error("that is no identity token: a JWT that the issuer has signed is wanted")]
    Malformed,
    #[error("the identity token is signed in a way that is not accepted: RS256 and ES256 are")]
    Algorithm,
    #[error(
        "the identity token is signed with a key that its issuer does not publish; if it has just changed its keys, try again in a minute"
    )]
    UnknownKey,
    #[error("the identity token's signature is not its issuer's")]
    Signature,
    #[error("the identity token is of another issuer")]
    Issuer,
    #[error("the identity token is for somebody else: its `aud` is no client id of this game")]
    Audience,
    #[error(
        "the identity token was asked for by somebody else: its `azp` is no client id of this game"
    )]
    AuthorizedParty,
    #[error("the identity token has expired")]
    Expired,
    #[error("the identity token is not valid yet: its issuer's clock is ahead of ours")]
    NotYetValid,
    #[error("the identity token has no nonce of ours: ask for one, and have the issuer put it in")]
    NoNonce,
}

impl BadIdToken {
    pub(in crate::sidecar) const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "id_token_malformed",
            Self::Algorithm => "id_token_algorithm",
            Self::UnknownKey => "id_token_unknown_key",
            Self::Signature => "id_token_bad_signature",
            Self::Issuer => "id_token_wrong_issuer",
            Self::Audience => "id_token_wrong_audience",
            Self::AuthorizedParty => "id_token_wrong_party",
            Self::Expired => "id_token_expired",
            Self::NotYetValid => "id_token_not_yet_valid",
            Self::NoNonce => "id_token_no_nonce",
        }
    }
}

/// What a token has to fit.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a IssuerUrl,
    /// The ids under which the issuer knows this game.
    pub(super) client_ids: &'a [ClientId],
    pub(super) now: Timestamp,
}

/// What a token says that fits. Its nonce is yet to be spent: until then it may have been used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vouched {
    /// The issuer's own name for the account.
    pub(super) subject: String,
    pub(super) nonce: [u8; 32],
}

/// A claim of any JWT that the library has no word for (RFC 7519, section 4.1.5).
#[derive(Debug, Clone, Serialize, Deserialize)]
struct NotBefore {
    nbf: Option<f64>,
}

impl AdditionalClaims for NotBefore {}

type Token =
    IdToken<NotBefore, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;
type Claims = IdTokenClaims<NotBefore, CoreGenderClaim>;

/// A nonce as the issuer is handed it: base64url without padding.
pub(in crate::sidecar) fn nonce_text(nonce: &[u8; 32]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(nonce)
}

/// Judges a token by the keys of its issuer.
///
/// # Errors
/// What does not fit. [`BadIdToken::UnknownKey`] may be our own ignorance; nothing that the issuer has not published can bring it
/// about without naming the issuer.
pub(super) fn verify(
    token: &str,
    expected: &Expected<'_>,
    keys: &CoreJsonWebKeySet,
) -> Result<Vouched, BadIdToken> {
    if token.len() > MAX_TOKEN {
        return Err(BadIdToken::Malformed);
    }
    let token: Token = token.parse().map_err(|_| BadIdToken::Malformed)?;
    let claims = token
        .claims(&verifier(expected, keys), |_: Option<&Nonce>| Ok(()))
        .map_err(|error| bad(&error))?;
    ensure_for_us(claims, expected.client_ids)?;
    ensure_begun(claims, expected.now)?;
    let subject = claims.subject().as_str();
    let is_sound = (1..=MAX_SUBJECT).contains(&subject.len()) && subject.is_ascii();
    Ok(Vouched {
        nonce: nonce_of(claims).ok_or(BadIdToken::NoNonce)?,
        subject: is_sound
            .then(|| subject.to_owned())
            .ok_or(BadIdToken::Malformed)?,
    })
}

fn verifier(
    expected: &Expected<'_>,
    keys: &CoreJsonWebKeySet,
) -> IdTokenVerifier<'static, CoreJsonWebKey> {
    let now = UNIX_EPOCH + Duration::from_millis(expected.now.0);
    // For a public client, which has no secret: so no MAC is ever verified. The client id is not looked at: see `ensure_for_us`.
    let client = ClientId::new(String::new());
    IdTokenVerifier::new_public_client(client, expected.issuer.clone(), keys.clone())
        .require_audience_match(false)
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || now.into())
}

/// Steps 3 to 5. Every audience is one of our client ids, since any other could hand its copy of the token in here; and so is who asked for
/// it, which must be said where there are several, and holds wherever it is said. (Google says it: an Android app asks, and the token
/// is for the game's web client id.)
fn ensure_for_us(claims: &Claims, client_ids: &[ClientId]) -> Result<(), BadIdToken> {
    let audiences = claims.audiences();
    let is_ours = |id: &str| client_ids.iter().any(|ours| ours.as_str() == id);
    if audiences.is_empty() || !audiences.iter().all(|audience| is_ours(audience)) {
        return Err(BadIdToken::Audience);
    }
    match claims.authorized_party() {
        Some(party) if is_ours(party) => Ok(()),
        None if audiences.len() == 1 => Ok(()),
        Some(_) | None => Err(BadIdToken::AuthorizedParty),
    }
}

/// Step 10, and `nbf`. How old a token may be is said by its end and its nonce's.
fn ensure_begun(claims: &Claims, now: Timestamp) -> Result<(), BadIdToken> {
    let latest = i64::try_from(now.after(LEEWAY).0 / 1_000).unwrap_or(i64::MAX);
    let not_before = claims.additional_claims().nbf;
    let has_begun = claims.issue_time().timestamp() <= latest
        && not_before.is_none_or(|begin| begin <= latest as f64);
    has_begun.then_some(()).ok_or(BadIdToken::NotYetValid)
}

fn nonce_of(claims: &Claims) -> Option<[u8; 32]> {
    let text = claims.nonce()?.secret();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    bytes.try_into().ok()
}

/// The library's errors quote the token: of them there is only the kind.
fn bad(error: &ClaimsVerificationError) -> BadIdToken {
    use SignatureVerificationError as Of;
    match error {
        ClaimsVerificationError::Expired(_) => BadIdToken::Expired,
        ClaimsVerificationError::InvalidIssuer(_) => BadIdToken::Issuer,
        ClaimsVerificationError::SignatureVerification(of) => match of {
            Of::NoMatchingKey => BadIdToken::UnknownKey,
            Of::DisallowedAlg(_) | Of::NoSignature | Of::UnsupportedAlg(_) => BadIdToken::Algorithm,
            _ => BadIdToken::Signature,
        },
        // Encrypted, nested, of a `typ` that is none, or with critical extensions.
        _ => BadIdToken::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::sidecar::tests::START;

    const ISSUER: &str = "https://accounts.example.com";
    const CLIENT: &str = "game";

    struct Issuer(EcdsaKeyPair);

    impl Issuer {
        fn new() -> Self {
            let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
            let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Self(EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap())
        }

        fn keys(&self) -> CoreJsonWebKeySet {
            let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
            let key =
                json!({ "kty": "EC", "crv": "P-256", "kid": "1", "x": text(x), "y": text(y) });
            serde_json::from_value(json!({ "keys": [key] })).unwrap()
        }

        fn token(&self, claims: &str) -> String {
            let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
            let header = json!({ "alg": "ES256", "kid": "1" }).to_string();
            let input = format!("{}.{}", part(&header), part(claims));
            let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
            format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn claims() -> Value {
        let now = START.0 / 1_000;
        json!({
            "iss": ISSUER, "aud": CLIENT, "sub": "ada", "nonce": nonce_text(&[7; 32]), "iat": now, "exp": now + 60,
        })
    }

    fn judged(token: &str, keys: &CoreJsonWebKeySet) -> Result<Vouched, BadIdToken> {
        let expected = Expected {
            issuer: &IssuerUrl::new(ISSUER.to_owned()).unwrap(),
            client_ids: &[ClientId::new(CLIENT.to_owned())],
            now: START,
        };
        verify(token, &expected, keys)
    }

    #[test]
    fn what_was_signed_is_vouched_for_and_nothing_that_differs_by_a_letter() {
        let issuer = Issuer::new();
        let (token, keys) = (issuer.token(&claims().to_string()), issuer.keys());
        let ada = Vouched {
            subject: "ada".to_owned(),
            nonce: [7; 32],
        };
        assert_eq!(judged(&token, &keys), Ok(ada));
        for at in 0..token.len() {
            let mut other = token.clone();
            // These differ in their first bits: the last bits of a signature's last letter are padding, which the decoder does not look at.
            let letter = if &token[at..=at] == "A" { "Q" } else { "A" };
            other.replace_range(at..=at, letter);
            assert!(judged(&other, &keys).is_err(), "{at}: {other}");
            other.remove(at);
            assert!(judged(&other, &keys).is_err(), "{at}: {other}");
        }
        assert!(judged(&token, &CoreJsonWebKeySet::default()).is_err());
    }

    #[test]
    fn times_that_nobody_has_are_judged_and_not_stumbled_over() {
        use BadIdToken::{Expired, Malformed, NotYetValid};
        let issuer = Issuer::new();
        let keys = issuer.keys();
        for (claim, time, expected) in [
            ("exp", "0", Err(Expired)),
            ("exp", "-1", Err(Expired)),
            ("exp", "1e300", Err(Malformed)),
            ("exp", "-1e300", Err(Malformed)),
            ("exp", "9223372036854775807", Err(Malformed)),
            ("exp", "18446744073709551615", Err(Malformed)),
            ("exp", "\"0\"", Err(Malformed)),
            ("exp", "null", Err(Malformed)),
            ("iat", "-1", Ok(())),
            ("iat", "9223372036854775807", Err(Malformed)),
            ("iat", "4102444800", Err(NotYetValid)),
            ("nbf", "1e300", Err(NotYetValid)),
            ("nbf", "-1e300", Ok(())),
            ("nbf", "18446744073709551615", Err(NotYetValid)),
            ("nbf", "null", Ok(())),
            ("nbf", "[]", Err(Malformed)),
        ] {
            let mut claims = claims();
            claims[claim] = json!("TIME");
            let claims = claims.to_string().replace("\"TIME\"", time);
            let judged = judged(&issuer.token(&claims), &keys);
            assert_eq!(judged.map(drop), expected, "{claim}: {time}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_vouched_for_and_none_panics(text in "\\PC{0,300}") {
            prop_assert!(judged(&text, &CoreJsonWebKeySet::default()).is_err());
        }

        #[test]
        fn no_signed_claims_panic(time in any::<f64>(), number in any::<i64>(), text in "\\PC{0,40}") {
            let issuer = Issuer::new();
            for claim in ["iss", "aud", "azp", "sub", "nonce", "iat", "exp", "nbf"] {
                for value in [json!(time), json!(number), json!(text), json!([text]), json!({ "a": text })] {
                    let mut claims = claims();
                    claims[claim] = value;
                    let vouched = judged(&issuer.token(&claims.to_string()), &issuer.keys());
                    // Whatever it says of anything else, of these it says what it has to.
                    if let Ok(vouched) = vouched {
                        prop_assert_eq!(vouched.nonce, [7; 32]);
                    }
                }
            }
        }
    }
}
