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
pub(super) fn nonce_text(nonce: &[u8; 32]) -> String {
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
