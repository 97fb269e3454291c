//! Login by OpenID Connect, over gRPC, with an issuer over HTTPS: what logs in, what does not, and how keys are come by.

use std::num::NonZeroU32;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use tickgate::{
    client::{Account, SecretToken},
    proto::login_request::Method,
    sidecar::OidcIssuer,
};

use super::{
    fixture::*,
    issuer::{ANDROID, Issuer, Mode, Signer, WEB, part},
    login::{Mailbox, by},
};

/// The account at the issuer.
const SUBJECT: &str = "110169484474386276334";

async fn stage_with(issuers: Vec<OidcIssuer>) -> Stage {
    start(World::new(), issuers).await
}

async fn start(world: World, issuers: Vec<OidcIssuer>) -> Stage {
    let mut config = world.config();
    config.login.oidc = issuers;
    world.start_with(config).await
}

pub(crate) fn oidc(issuer: &str, id_token: String) -> Method {
    let issuer = issuer.to_owned();
    Method::Oidc(proto::OidcLogin { issuer, id_token })
}

/// The reason that the caller's code is told.
fn reason(status: &Status) -> String {
    let details = String::from_utf8_lossy(status.details()).into_owned();
    let label = details.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let mut label = label.filter(|word| word.starts_with("id_token_"));
    label.next_back().unwrap_or_default().to_owned()
}

/// What an issuer says of the account to the game's web client at that second.
pub(crate) fn claims_at(issuer: &Issuer, nonce: &str, now: u64) -> Value {
    json!({
        "iss": issuer.url, "aud": WEB, "azp": WEB, "sub": SUBJECT, "nonce": nonce, "iat": now, "exp": now + 3_600,
        "email": "ada@example.com", "email_verified": true, "name": "Ada",
    })
}

impl Stage {
    pub(crate) async fn nonce(&self) -> String {
        let drawn = self
            .auth
            .clone()
            .create_login_nonce(proto::CreateLoginNonceRequest {})
            .await;
        drawn.unwrap().into_inner().nonce
    }

    /// What an issuer says of the account to the game's web client, now.
    fn claims(&self, issuer: &Issuer, nonce: &str) -> Value {
        claims_at(issuer, nonce, self.world.time.clock().wall().0 / 1_000)
    }

    /// A login with a token that fits, but perhaps for its key.
    async fn vouched(&self, issuer: &Issuer, key: &Signer) -> Result<proto::LoginResponse, Status> {
        let token = key.token(&self.claims(issuer, &self.nonce().await));
        self.log_in_by(oidc("idp", token), None).await
    }
}

/// Waits until the issuer has been asked so often, and no oftener.
async fn asked(issuer: &Issuer, times: usize) {
    let arrived = async {
        while issuer.asked() < times {
            tokio::task::yield_now().await;
        }
    };
    let arrived = tokio::time::timeout(10 * SECOND, arrived).await;
    arrived.expect("nobody asked");
    assert_eq!(issuer.asked(), times);
}

#[tokio::test]
async fn a_token_logs_its_account_in_once_and_survives_a_restart() {
    let keys = [Signer::p256("1"), Signer::rsa("2")];
    let issuer = Issuer::up(&[&keys[0], &keys[1]]).await;
    let stage = stage_with(vec![issuer.config("idp")]).await;
    let drawn = stage
        .auth
        .clone()
        .create_login_nonce(proto::CreateLoginNonceRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(drawn.nonce.len(), 43);
    assert_eq!(drawn.expires_at_ms, START.0 + 10 * 60 * 1_000);
    let token = keys[0].token(&stage.claims(&issuer, &drawn.nonce));
    let stage = start(stage.down().await, vec![issuer.config("idp")]).await;
    let method = || oidc("idp", token.clone());
    let login = stage.log_in_by(method(), None).await.unwrap();
    assert!(login.is_new_player);
    let me = stage.who_am_i(&login.session_token).await.unwrap();
    assert_eq!((&*me.player_id, &*me.method), (&*login.player_id, "oidc"));
    let replayed = stage.log_in_by(method(), None).await.unwrap_err();
    assert_eq!(replayed.code(), Code::Unauthenticated);
    assert!(replayed.message().contains("nonce"), "{replayed}");

    // The client library, and another kind of key.
    let url = format!("https://{}", stage.sidecar.addresses().auth);
    let account = Account::connect(&url, std::slice::from_ref(&stage.world.certs.ca)).unwrap();
    let nonce = account.create_login_nonce().await.unwrap();
    let token = keys[1].token(&stage.claims(&issuer, &nonce.nonce));
    let token = SecretToken::new(token);
    let again = account.login_oidc("idp", &token).await.unwrap();
    assert!(!again.is_new_player);
    assert_eq!(again.player.to_string(), login.player_id);
    let replayed = account.login_oidc("idp", &token).await.unwrap_err();
    assert_eq!(replayed.label(), "unauthenticated");
    // A nonce that was drawn too long ago.
    let late = stage.nonce().await;
    stage.advance(10 * MINUTE);
    let token = keys[0].token(&stage.claims(&issuer, &late));
    let late = stage.log_in_by(oidc("idp", token), None).await;
    assert_eq!(code(late), Code::Unauthenticated);
    stage.down().await;
}

/// A token that is right but for one thing, and what that is called.
fn faulty(
    stage: &Stage,
    issuer: &Issuer,
    key: &Signer,
    nonce: &str,
) -> Vec<(String, &'static str)> {
    let right = stage.claims(issuer, nonce);
    let now = right["iat"].as_u64().unwrap();
    let mut tokens = Vec::new();
    for (changes, label) in [
        (
            json!({ "iss": "https://accounts.example.com" }),
            "wrong_issuer",
        ),
        (json!({ "iss": format!("{}/", issuer.url) }), "wrong_issuer"),
        (
            json!({ "aud": "another.apps.example.com" }),
            "wrong_audience",
        ),
        (json!({ "aud": [] }), "wrong_audience"),
        (
            json!({ "aud": [WEB, "another.apps.example.com"] }),
            "wrong_audience",
        ),
        (json!({ "aud": null }), "malformed"),
        (json!({ "azp": "another.apps.example.com" }), "wrong_party"),
        (json!({ "aud": [WEB, ANDROID], "azp": null }), "wrong_party"),
        (json!({ "exp": now }), "expired"),
        (
            json!({ "iat": now + 61, "exp": now + 3_600 }),
            "not_yet_valid",
        ),
        (json!({ "nbf": now + 61 }), "not_yet_valid"),
        (json!({ "nonce": null }), "no_nonce"),
        (json!({ "nonce": "" }), "no_nonce"),
        (json!({ "nonce": format!("{nonce}A") }), "no_nonce"),
        (json!({ "sub": "" }), "malformed"),
        (json!({ "sub": "x".repeat(256) }), "malformed"),
        (json!({ "sub": null }), "malformed"),
        (json!({ "exp": null }), "malformed"),
        (json!({ "exp": "tomorrow" }), "malformed"),
        (json!({ "name": "x".repeat(8 << 10) }), "malformed"),
    ] {
        let mut claims = right.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        tokens.push((key.token(&claims), label));
    }
    // Of other hands and headers.
    let stranger = Signer::p256("1");
    tokens.push((stranger.token(&right), "bad_signature"));
    tokens.push((Signer::p256("2").token(&right), "unknown_key"));
    for (header, label) in [
        (
            json!({ "alg": "ES256", "kid": "1", "crit": ["exp"] }),
            "malformed",
        ),
        (
            json!({ "alg": "ES256", "kid": "1", "typ": "at+jwt" }),
            "malformed",
        ),
        (json!({ "alg": "ES384", "kid": "1" }), "algorithm"),
        (json!({ "alg": "RS256", "kid": "1" }), "unknown_key"),
        (json!({ "alg": "none" }), "algorithm"),
    ] {
        tokens.push((key.token_of(&header, &right), label));
    }
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none" })), part(&right));
    tokens.push((unsigned, "algorithm"));
    // The secrets that a MAC could be taken to have: what everybody knows.
    let jwk = key.jwk().to_string();
    for secret in [WEB.as_bytes(), b"", jwk.as_bytes()] {
        let input = format!(
            "{}.{}",
            part(&json!({ "alg": "HS256", "kid": "1" })),
            part(&right)
        );
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
        let mac = BASE64_URL_SAFE_NO_PAD.encode(mac);
        tokens.push((format!("{input}.{mac}"), "algorithm"));
    }
    // One signature, and other claims than it is for.
    let signed = key.token(&right);
    let [header, _, signature] = signed.split('.').collect::<Vec<_>>()[..] else {
        panic!("no token");
    };
    let mut claims = right;
    claims["sub"] = json!("eve");
    tokens.push((
        format!("{header}.{}.{signature}", part(&claims)),
        "bad_signature",
    ));
    for junk in [
        "",
        ".",
        "..",
        "a.b.c",
        "v4.local.x",
        &signed[..signed.len() - 90],
    ] {
        tokens.push((junk.to_owned(), "malformed"));
    }
    tokens
}

/// Every one of them has the very nonce that the right one has, which is spent by that alone.
#[tokio::test]
async fn what_does_not_fit_is_refused_and_uses_no_nonce_up() {
    let key = Signer::p256("1");
    let issuer = Issuer::up(&[&key]).await;
    let stage = stage_with(vec![issuer.config("idp")]).await;
    let nonce = stage.nonce().await;
    for (token, label) in faulty(&stage, &issuer, &key, &nonce) {
        let refused = stage.log_in_by(oidc("idp", token.clone()), None).await;
        let refused = refused.expect_err(label);
        assert_eq!(refused.code(), Code::Unauthenticated, "{label}: {token}");
        let (told, meant) = (reason(&refused), format!("id_token_{label}"));
        // A signature that is cut is one of no length that there is.
        let cut = told == "id_token_bad_signature" && meant == "id_token_malformed";
        assert!(told == meant || cut, "{told}, and not {meant}: {token}");
    }
    let known = stage.vouched(&issuer, &key).await.unwrap();
    assert!(known.is_new_player);
    for strange in ["", "IDP", "google", "https://accounts.google.com"] {
        let token = key.token(&stage.claims(&issuer, &nonce));
        let refused = stage.log_in_by(oidc(strange, token), None).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{strange}");
    }
    // A nonce that nobody drew, and one that was drawn for something else.
    let challenge = proto::CreateChallengeRequest {};
    let challenge = stage.auth.clone().create_challenge(challenge).await;
    let challenge = challenge.unwrap().into_inner().challenge;
    for other in [&[7; 32][..], &challenge] {
        let claims = stage.claims(&issuer, &BASE64_URL_SAFE_NO_PAD.encode(other));
        let refused = stage.log_in_by(oidc("idp", key.token(&claims)), None).await;
        let refused = refused.unwrap_err();
        assert!(refused.message().contains("this nonce"), "{refused}");
    }
    // An app asks for a token of the web client, as with Google; clocks that are a minute apart; and the nonce is still good.
    let mut claims = stage.claims(&issuer, &nonce);
    claims["azp"] = json!(ANDROID);
    claims["aud"] = json!([WEB, ANDROID]);
    claims["iat"] = json!(claims["iat"].as_u64().unwrap() + 60);
    claims["nbf"] = claims["iat"].clone();
    claims["email_verified"] = json!("true");
    let login = stage.log_in_by(oidc("idp", key.token(&claims)), None).await;
    assert_eq!(login.unwrap().player_id, known.player_id);
    stage.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_times_the_same_token_at_once_is_one_login() {
    let key = Signer::p256("1");
    let issuer = Issuer::up(&[&key]).await;
    let stage = stage_with(vec![issuer.config("idp")]).await;
    let token = key.token(&stage.claims(&issuer, &stage.nonce().await));
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (mut auth, method) = (stage.auth.clone(), oidc("idp", token.clone()));
        logins.spawn(async move { auth.login(by(method, false)).await });
    }
    let logins = logins.join_all().await;
    assert_eq!(logins.iter().filter(|login| login.is_ok()).count(), 1);
    stage.down().await;
}

#[tokio::test]
async fn keys_that_change_are_fetched_and_made_up_ones_once_a_minute_at_most() {
    let keys = ["1", "2", "3"].map(Signer::p256);
    let issuer = Issuer::up(&[&keys[0]]).await;
    let stage = stage_with(vec![issuer.config("idp")]).await;
    stage.vouched(&issuer, &keys[0]).await.unwrap();
    asked(&issuer, 1).await;

    let made_up = async || {
        let mut logins = tokio::task::JoinSet::new();
        for n in 0..100 {
            let claims = stage.claims(&issuer, &BASE64_URL_SAFE_NO_PAD.encode([n; 32]));
            let token = Signer::p256(&format!("made-up-{n}")).token(&claims);
            let mut auth = stage.auth.clone();
            logins.spawn(async move { auth.login(by(oidc("idp", token), false)).await });
        }
        for refused in logins.join_all().await {
            assert_eq!(reason(&refused.unwrap_err()), "id_token_unknown_key");
        }
    };
    made_up().await;
    asked(&issuer, 1).await;
    issuer.publishes(&[&keys[1]]);
    stage.advance(59 * SECOND);
    made_up().await;
    asked(&issuer, 1).await;
    stage.advance(SECOND);
    made_up().await;
    asked(&issuer, 2).await;
    // What they have brought about serves those whose key it is; the one before is none any more.
    stage.vouched(&issuer, &keys[1]).await.unwrap();
    let withdrawn = stage.vouched(&issuer, &keys[0]).await.unwrap_err();
    assert_eq!(reason(&withdrawn), "id_token_unknown_key");
    asked(&issuer, 2).await;

    // Nobody has made up anything: the first one with the new key has it fetched.
    issuer.publishes(&[&keys[1], &keys[2]]);
    stage.advance(MINUTE);
    stage.vouched(&issuer, &keys[2]).await.unwrap();
    stage.vouched(&issuer, &keys[1]).await.unwrap();
    asked(&issuer, 3).await;

    // After an hour they are fetched without anybody waiting: a key that was withdrawn is believed no longer.
    issuer.publishes(&[&keys[2]]);
    stage.advance(60 * MINUTE);
    stage.vouched(&issuer, &keys[1]).await.unwrap();
    asked(&issuer, 4).await;
    let withdrawn = async { while stage.vouched(&issuer, &keys[1]).await.is_ok() {} };
    let withdrawn = tokio::time::timeout(10 * SECOND, withdrawn).await;
    withdrawn.expect("it is still believed");
    asked(&issuer, 4).await;
    stage.down().await;
}

#[tokio::test]
async fn an_issuer_that_is_down_keeps_nobody_from_starting_and_its_known_keys_stay() {
    let keys = ["1", "2"].map(Signer::p256);
    let issuer = Issuer::up(&[&keys[0]]).await;
    issuer.answers(Mode::Down);
    let stage = stage_with(vec![issuer.config("idp")]).await;
    let token = keys[0].token(&stage.claims(&issuer, &stage.nonce().await));
    let login = async || stage.log_in_by(oidc("idp", token.clone()), None).await;
    let refused = login().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let wait = refused.metadata().get("retry-after").unwrap();
    assert_eq!(wait, "5");
    // Everything else goes on; and it is asked again when it is time to, and not before.
    stage.login("ada").await;
    issuer.answers(Mode::Well);
    assert_eq!(code(login().await), Code::Unavailable);
    asked(&issuer, 1).await;
    stage.advance(5 * SECOND);
    // The very token that was refused: its nonce was not used up.
    login().await.unwrap();
    asked(&issuer, 2).await;

    for mode in [
        Mode::Down,
        Mode::Broken,
        Mode::Oversized,
        Mode::Redirecting,
        Mode::PlainText,
        Mode::SomebodyElse,
        Mode::Keyless,
        Mode::Silent,
    ] {
        issuer.answers(mode);
        issuer.publishes(&[&keys[1]]);
        stage.advance(MINUTE);
        let before = issuer.asked();
        let unknown = stage.vouched(&issuer, &keys[1]).await.unwrap_err();
        assert_eq!(unknown.code(), Code::Unavailable, "{mode:?}: {unknown}");
        let known = stage.vouched(&issuer, &keys[0]).await;
        known.unwrap_or_else(|refused| panic!("{mode:?}: {refused}"));
        asked(&issuer, before + 1).await;
    }
    issuer.answers(Mode::Well);
    stage.advance(MINUTE);
    stage.vouched(&issuer, &keys[1]).await.unwrap();
    stage.down().await;
}

#[tokio::test]
async fn who_shows_another_certificate_is_not_the_issuer() {
    let key = Signer::p256("1");
    let (issuer, other) = (Issuer::up(&[&key]).await, Issuer::up(&[&key]).await);
    let config = OidcIssuer {
        ca: other.config("idp").ca,
        ..issuer.config("idp")
    };
    let stage = stage_with(vec![config]).await;
    let refused = stage.vouched(&issuer, &key).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    asked(&issuer, 0).await;
    stage.down().await;
}

#[tokio::test]
async fn an_account_is_its_issuers_subject_and_is_linked_by_who_has_proved_both() {
    let key = Signer::p256("1");
    let (one, other) = (Issuer::up(&[&key]).await, Issuer::up(&[&key]).await);
    let stage = stage_with(vec![one.config("idp"), other.config("other")]).await;
    let first = stage.vouched(&one, &key).await.unwrap();
    // The same subject of another issuer is somebody else; and no issuer speaks for another.
    let token = async |issuer: &Issuer| {
        let nonce = stage.nonce().await;
        key.token(&stage.claims(issuer, &nonce))
    };
    let misdirected = oidc("idp", token(&other).await);
    let refused = stage.log_in_by(misdirected, None).await.unwrap_err();
    assert_eq!(reason(&refused), "id_token_wrong_issuer");
    let method = oidc("other", token(&other).await);
    let second = stage.log_in_by(method, None).await.unwrap();
    assert!(second.is_new_player);
    assert_ne!(second.player_id, first.player_id);

    // The same e-mail address, verified or not, is nobody's proof.
    let mut mailbox = Mailbox::of(&stage);
    let email = "ada@example.com".to_owned();
    let request = proto::RequestOtpRequest {
        email: email.clone(),
    };
    let asked = stage.auth.clone().request_otp(request).await;
    let otp = Method::Otp(proto::OtpLogin {
        email,
        request_id: asked.unwrap().into_inner().request_id,
        code: mailbox.code().await,
    });
    let mailed = stage.log_in_by(otp, None).await.unwrap();
    assert!(mailed.is_new_player);

    // Whoever has proved both has both: a third account, which was nobody's yet.
    let mut claims = stage.claims(&one, &stage.nonce().await);
    claims["sub"] = json!("another");
    let method = oidc("idp", key.token(&claims));
    let linked = stage.log_in_by(method, Some(&mailed.session_token)).await;
    assert_eq!(linked.unwrap().player_id, mailed.player_id);
    let taken = oidc("idp", token(&one).await);
    let taken = stage.log_in_by(taken, Some(&mailed.session_token)).await;
    assert_eq!(code(taken), Code::AlreadyExists);
    // Whoever is nobody uses nothing up.
    let method = oidc("idp", token(&one).await);
    let nobody = stage.log_in_by(method.clone(), Some("v4.local.x")).await;
    assert_eq!(code(nobody), Code::Unauthenticated);
    let login = stage.log_in_by(method, None).await.unwrap();
    assert_eq!(login.player_id, first.player_id);
    stage.down().await;
}

#[tokio::test]
async fn without_an_issuer_it_is_off_and_nonces_are_not_for_free() {
    let stage = Stage::up().await;
    let mut auth = stage.auth.clone();
    let request = || proto::CreateLoginNonceRequest {};
    let off = auth.create_login_nonce(request()).await;
    assert_eq!(code(off), Code::PermissionDenied);
    let login = stage.log_in_by(oidc("google", "x".to_owned()), None).await;
    assert_eq!(code(login), Code::PermissionDenied);

    let world = stage.down().await;
    let issuer = Issuer::up(&[]).await;
    let mut config = world.config();
    config.login.oidc = vec![issuer.config("idp")];
    config.login.limits.per_address = NonZeroU32::new(3).unwrap();
    let stage = world.start_with(config).await;
    let mut auth = stage.auth.clone();
    let mut nonces = std::collections::HashSet::new();
    for _ in 0..3 {
        let drawn = auth.create_login_nonce(request()).await.unwrap();
        assert!(nonces.insert(drawn.into_inner().nonce));
    }
    let limited = auth.create_login_nonce(request()).await.unwrap_err();
    assert_eq!(limited.code(), Code::ResourceExhausted);
    assert_eq!(limited.metadata().get("retry-after").unwrap(), "1200");
    stage.down().await;
}
