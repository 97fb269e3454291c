//! Races at two sidecars over one Redis server, by whatever a thousand clients send at once: what is worth something once is so once.

use tickgate::{
    client::ClientKey,
    proto::{login_request::Method, request_verification_request::Purpose as Wanted},
};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    fixture::*,
    issuer::{Issuer, Signer},
    links::*,
    login::*,
    oidc::{claims_at, oidc},
    redis_server::Server,
    shared::{two, two_with},
};

const MANY: usize = 1_000;

/// What comes of so many calls that begin at one instant, half of them at each sidecar.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    stages: &[Stage; 2],
    call: impl Fn(AuthServiceClient<Channel>) -> F,
) -> Vec<T> {
    let begin = std::sync::Arc::new(Barrier::new(MANY));
    let mut calls = JoinSet::new();
    for n in 0..MANY {
        let (begin, call) = (begin.clone(), call(stages[n % 2].auth.clone()));
        calls.spawn(async move {
            begin.wait().await;
            call.await
        });
    }
    calls.join_all().await
}

async fn logins_at_once(
    stages: &[Stage; 2],
    method: Method,
) -> Vec<Result<proto::LoginResponse, Status>> {
    let logins = at_once(stages, |mut auth| {
        let login = by(method.clone(), false);
        async move { auth.login(login).await.map(tonic::Response::into_inner) }
    });
    logins.await
}

fn succeeded<T>(outcomes: &[Result<T, Status>]) -> usize {
    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let refused = refused.inspect(|status| assert_eq!(status.code(), Code::Unauthenticated));
    outcomes.len() - refused.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_a_link_and_a_challenge_log_in_once_at_two_sidecars() {
    let server = Server::start();
    let stages = two(&server).await;
    let mut mailbox = Mailbox::of(&stages[0]);

    let asked = stages[0].request_otp("ada@example.com").await;
    let code = mailbox.code().await;
    let right = otp("ada@example.com", &asked.request_id, &code);
    let logins = logins_at_once(&stages, right).await;
    assert_eq!(succeeded(&logins), 1);

    let wanted = Wanted::MagicLink("ada@example.com".to_owned());
    let asked = proto::RequestVerificationRequest {
        purpose: Some(wanted),
    };
    let asked = stages[0].auth.clone().request_verification(asked).await;
    asked.unwrap();
    let link = magic_link(&mailbox.token("magic_link").await);
    let logins = logins_at_once(&stages, link).await;
    assert_eq!(succeeded(&logins), 1);
    let used = logins.iter().filter_map(|login| login.as_ref().err());
    assert!(used.into_iter().all(|s| names(s, "link_already_used")));

    let key = ClientKey::generate().unwrap();
    let signed = stages[1].signed(&key).await;
    let logins = logins_at_once(&stages, signed).await;
    assert_eq!(succeeded(&logins), 1);
}

/// A nonce of one sidecar, in a token that an issuer has signed, shown a thousand times at both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonce_logs_in_once_at_two_sidecars() {
    let server = Server::start();
    let key = Signer::p256("1");
    let issuer = Issuer::up(&[&key]).await;
    let knows = |config: &mut SidecarConfig| config.login.oidc = vec![issuer.config("idp")];
    let stages = two_with(&server, knows).await;
    let nonce = stages[1].nonce().await;
    // Sidecars over Redis go by its clock, which is the system's.
    let now = tickgate::clock::Clock::system().wall().0 / 1_000;
    let token = key.token(&claims_at(&issuer, &nonce, now));
    let logins = logins_at_once(&stages, oidc("idp", token)).await;
    assert_eq!(succeeded(&logins), 1);
    let refused = logins.iter().filter_map(|login| login.as_ref().err());
    let is_spent = |status: &&Status| status.message().contains("nonce");
    assert_eq!(refused.filter(is_spent).count(), MANY - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_fourth_guess_at_two_sidecars() {
    let server = Server::start();
    let stages = two(&server).await;
    let asked = stages[1].request_otp("ada@example.com").await;
    let right = Mailbox::of(&stages[1]).code().await;
    let wrong = match &*right {
        "000000" => "000001",
        _ => "000000",
    };
    let guess = |code| otp("ada@example.com", &asked.request_id, code);
    let refused = logins_at_once(&stages, guess(wrong)).await;
    let told = |text: &str| {
        let told = refused.iter().filter_map(|login| login.as_ref().err());
        told.filter(|status| status.message().contains(text))
            .count()
    };
    assert_eq!(told("that is not the code"), 3);
    assert_eq!(told("there is no guess left"), MANY - 3);
    let late = logins_at_once(&stages, guess(&right)).await;
    assert_eq!(succeeded(&late), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_has_one_successor_and_none_after_a_revocation_at_two_sidecars() {
    let server = Server::start();
    let stages = two(&server).await;
    let login = stages[0].login("ada").await;
    let refreshes = |refresh_token: String| {
        at_once(&stages, move |mut auth| {
            let refresh_token = refresh_token.clone();
            let request = proto::RefreshRequest { refresh_token };
            async move { auth.refresh(request).await.map(tonic::Response::into_inner) }
        })
    };
    let refreshed = refreshes(login.refresh_token.clone()).await;
    assert_eq!(succeeded(&refreshed), MANY);
    let ends: std::collections::HashSet<_> = refreshed
        .iter()
        .map(|tokens| tokens.as_ref().unwrap().expires_at_ms)
        .collect();
    assert_eq!(ends.len(), 1, "of one instant, all of them");
    // Whichever they got, it is the next one.
    let next = refreshed.last().unwrap().as_ref().unwrap();
    let next = stages[1].refresh(&next.refresh_token).await.unwrap();

    let mut admin = stages[1].admin.clone();
    let revoking = async {
        admin
            .revoke_session(revoke(&login.session_id))
            .await
            .unwrap();
        // From here on it has returned.
        for stage in &stages {
            let after = stage.refresh(&next.refresh_token).await;
            assert_eq!(code(after), Code::Unauthenticated);
            let after = stage.who_am_i(&next.session_token).await;
            assert_eq!(code(after), Code::Unauthenticated);
        }
    };
    let (racing, ()) = tokio::join!(refreshes(next.refresh_token.clone()), revoking);
    for won in racing.into_iter().flatten() {
        for stage in &stages {
            let after = stage.refresh(&won.refresh_token).await;
            assert_eq!(code(after), Code::Unauthenticated);
            let after = stage.who_am_i(&won.session_token).await;
            assert_eq!(code(after), Code::Unauthenticated);
        }
    }
}
