//! The ways in that a player has, over gRPC: who may change them, whom is told, and how they are taken away.

use std::time::Duration;

use tickgate::{
    client::ClientKey,
    proto::{
        consume_verification_request::Purpose as Used,
        request_verification_request::Purpose as Wanted,
    },
};

use super::{fixture::*, links::*, login::*};

const ADA: &str = "ada@example.com";

impl Stage {
    pub(crate) async fn ways(&self, bearer: &str) -> Vec<proto::IdentityInfo> {
        let request = with_bearer(proto::ListIdentitiesRequest {}, bearer);
        let listed = self.auth.clone().list_identities(request).await;
        listed.unwrap().into_inner().identities
    }

    pub(crate) async fn remove(&self, bearer: &str, id: &str) -> Result<u32, Status> {
        let identity_id = id.to_owned();
        let request = with_bearer(proto::RemoveIdentityRequest { identity_id }, bearer);
        let removed = self.auth.clone().remove_identity(request).await;
        removed.map(|removed| removed.into_inner().sessions_ended)
    }

    /// Logs in by a code that is mailed, or links the address if there is a bearer.
    async fn by_code(
        &self,
        mailbox: &mut Mailbox,
        email: &str,
        bearer: Option<&str>,
    ) -> proto::LoginResponse {
        let asked = self.request_otp(email).await;
        let code = mailbox.code().await;
        let method = otp(email, &asked.request_id, &code);
        self.log_in_by(method, bearer).await.unwrap()
    }
}

fn not_fresh<T: std::fmt::Debug>(outcome: Result<T, Status>) {
    let refused = outcome.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(names(&refused, "login_not_fresh"), "{refused:?}");
}

/// Whoever steals a token some time after the login has the session, and nothing that outlives it. Refreshing makes it no younger.
#[tokio::test]
async fn a_token_that_was_stolen_later_changes_no_way_in() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let ada = stage.by_code(&mut mailbox, ADA, None).await;
    let own = stage.ways(&ada.session_token).await;
    let minutes = |n: u64| Duration::from_millis(n * 60_000);
    stage.advance(minutes(10) + Duration::from_millis(1));
    let stolen = stage.refresh(&ada.refresh_token).await.unwrap();
    let stolen = stolen.session_token.as_str();

    let thiefs = ClientKey::generate().unwrap();
    let signed = stage.signed(&thiefs).await;
    not_fresh(stage.log_in_by(signed.clone(), Some(stolen)).await);
    let change = Wanted::EmailChange("eve@example.com".to_owned());
    not_fresh(stage.request_link(change.clone(), Some(stolen)).await);
    not_fresh(stage.remove(stolen, &own[0].id).await);
    assert_eq!(stage.ways(stolen).await, own);

    // The owner logs in again, and what was refused is not used up.
    let again = stage.by_code(&mut mailbox, ADA, None).await;
    stage.advance(minutes(1));
    let linked = stage.log_in_by(signed, Some(&again.session_token)).await;
    assert_eq!(linked.unwrap().player_id, ada.player_id);
    let asked = stage.request_link(change, Some(&again.session_token)).await;
    assert!(asked.is_ok());
    stage.down().await;
}

#[tokio::test]
async fn an_owner_is_told_of_each_change_where_it_was_before() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let ada = stage.by_code(&mut mailbox, ADA, None).await;
    let bearer = Some(ada.session_token.as_str());
    let key = ClientKey::generate().unwrap();
    let signed = stage.signed(&key).await;
    stage.log_in_by(signed, bearer).await.unwrap();
    let told = mailbox.notice().await.replace("=\r\n", "");
    assert!(told.contains("To: ada@example.com"), "{told}");
    assert!(told.contains("by a device"), "{told}");
    // What is the player's already is no change.
    let signed = stage.signed(&key).await;
    stage.log_in_by(signed, bearer).await.unwrap();

    let change = Wanted::EmailChange("countess@example.com".to_owned());
    stage.request_link(change, bearer).await.unwrap();
    let token = mailbox.token("email_change").await;
    stage
        .use_link(&token, Used::EmailChange(true))
        .await
        .unwrap();
    let told = mailbox.notice().await.replace("=\r\n", "");
    assert!(told.contains("To: ada@example.com"), "{told}");
    assert!(told.contains("another e-mail address"), "{told}");

    let ways = stage.ways(&ada.session_token).await;
    let device = ways.iter().find(|way| way.kind == "device_key").unwrap();
    stage.remove(&ada.session_token, &device.id).await.unwrap();
    let told = mailbox.notice().await.replace("=\r\n", "");
    assert!(told.contains("To: countess@example.com"), "{told}");
    assert!(told.contains("was taken away"), "{told}");
    stage.down().await;
}

#[tokio::test]
async fn a_way_in_is_taken_away_with_whoever_came_in_by_it() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let ada = stage.by_code(&mut mailbox, ADA, None).await;
    let key = ClientKey::generate().unwrap();
    let signed = stage.signed(&key).await;
    let bearer = Some(ada.session_token.as_str());
    stage.log_in_by(signed, bearer).await.unwrap();
    let signed = stage.signed(&key).await;
    let thief = stage.log_in_by(signed, None).await.unwrap();
    assert_eq!(thief.player_id, ada.player_id);

    let ways = stage.ways(&ada.session_token).await;
    let kinds: Vec<_> = ways.iter().map(|way| (&*way.kind, &*way.hint)).collect();
    let [(first, address), (second, end)] = kinds[..] else {
        panic!("{ways:?}");
    };
    assert_eq!((first, address), ("email", "a…@example.com"));
    assert_eq!(second, "device_key");
    assert_eq!(end.chars().count(), 5, "{end}");
    assert_eq!(stage.ways(&thief.session_token).await, ways);

    // Neither what is nobody's nor what is another player's.
    let bob = stage.login("bob").await;
    for (bearer, id) in [(&ada, "AAAA"), (&bob, &*ways[1].id)] {
        let refused = stage.remove(&bearer.session_token, id).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert!(names(&refused, "no_such_identity"), "{refused:?}");
    }
    let none = stage.remove(&ada.session_token, "").await;
    assert_eq!(code(none), Code::InvalidArgument);

    // An e-mail change that the thief has asked for is void, too.
    let change = Wanted::EmailChange("eve@example.com".to_owned());
    let asked = stage.request_link(change, Some(&thief.session_token));
    asked.await.unwrap();
    let token = mailbox.token("email_change").await;
    let ended = stage.remove(&ada.session_token, &ways[1].id).await;
    assert_eq!(ended.unwrap(), 3);
    for out in [&ada, &thief] {
        let me = stage.who_am_i(&out.session_token).await;
        assert_eq!(code(me), Code::Unauthenticated);
    }
    let late = stage.use_link(&token, Used::EmailChange(true)).await;
    assert!(names(&late.unwrap_err(), "outdated"));
    let signed = stage.signed(&key).await;
    let stranger = stage.log_in_by(signed, None).await.unwrap();
    assert_ne!(stranger.player_id, ada.player_id);

    // The last way in stays.
    let again = stage.by_code(&mut mailbox, ADA, None).await;
    assert_eq!(again.player_id, ada.player_id);
    let last = stage.remove(&again.session_token, &ways[0].id).await;
    let last = last.unwrap_err();
    assert_eq!(last.code(), Code::FailedPrecondition);
    assert!(names(&last, "last_identity"), "{last:?}");
    assert!(stage.who_am_i(&again.session_token).await.is_ok());
    stage.down().await;
}

/// A password is for its address: without it, it lets nobody in, also not by another address later.
#[tokio::test]
async fn a_password_goes_with_its_address() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let reset = Wanted::PasswordReset(ADA.to_owned());
    stage.request_link(reset, None).await.unwrap();
    let token = mailbox.token("password_reset").await;
    let new = Used::NewPassword("correct horse".to_owned());
    stage.use_link(&token, new).await.unwrap();
    let ada = stage.log_in_by(password(ADA, "correct horse"), None).await;
    let ada = ada.unwrap();
    let key = ClientKey::generate().unwrap();
    let signed = stage.signed(&key).await;
    let linked = stage.log_in_by(signed, Some(&ada.session_token)).await;
    let ways = stage.ways(&ada.session_token).await;
    stage
        .remove(&linked.unwrap().session_token, &ways[0].id)
        .await
        .unwrap();
    // Told where it was, for the last time.
    for part in ["by a device", "was taken away"] {
        let told = mailbox.notice_with(part).await;
        assert!(told.contains("To: ada@example.com"), "{told}");
    }
    let signed = stage.signed(&key).await;
    let back = stage.log_in_by(signed, None).await.unwrap();
    assert_eq!(back.player_id, ada.player_id);
    let bearer = Some(back.session_token.as_str());
    stage.by_code(&mut mailbox, "new@example.com", bearer).await;
    for email in [ADA, "new@example.com"] {
        let refused = stage
            .log_in_by(password(email, "correct horse"), None)
            .await;
        assert!(names(&refused.unwrap_err(), "bad_password"), "{email}");
    }
    stage.down().await;
}

/// A link for another address needs the session that asked for it: it ends no later, and until then it is good.
#[tokio::test]
async fn a_link_for_another_address_lasts_as_long_as_it_says() {
    let world = World::new();
    let mut config = world.config();
    config.lives.absolute = 60 * MINUTE;
    let stage = world.start_with(config).await;
    let mut mailbox = Mailbox::of(&stage);
    let ada = stage.by_code(&mut mailbox, ADA, None).await;
    let bearer = Some(ada.session_token.as_str());
    let mut tokens = Vec::new();
    for new in ["one@example.com", "two@example.com"] {
        let change = Wanted::EmailChange(new.to_owned());
        let life = stage.request_link(change, bearer).await.unwrap();
        assert_eq!(life, 60 * 60 * 1_000);
        tokens.push(mailbox.token("email_change").await);
    }
    stage.advance(60 * MINUTE - Duration::from_millis(1));
    let used = stage.use_link(&tokens[0], Used::EmailChange(true)).await;
    assert_eq!(used.unwrap().player_id, ada.player_id);
    stage.advance(Duration::from_millis(1));
    let late = stage.use_link(&tokens[1], Used::EmailChange(true)).await;
    assert!(names(&late.unwrap_err(), "link_expired"));
    stage.down().await;
}

/// Letters are limited, and callers are whom the proxy says.
fn limited(world: &World) -> SidecarConfig {
    let mut config = world.config();
    let limits = &mut config.login.limits;
    limits.per_email = LoginLimits::default().per_email;
    limits.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    config
}

/// Where the owner has been before, nobody keeps him out: neither by asking for all letters nor by wrong passwords, also after a restart.
#[tokio::test]
async fn a_victim_gets_in_from_a_familiar_place_after_a_restart() {
    let world = World::new();
    let config = limited(&world);
    let stage = world.start_with(config).await;
    let from = async |stage: &Stage, place: &str, email: &str| {
        let email = email.to_owned();
        let mut request = Request::new(proto::RequestOtpRequest { email });
        let place = place.parse().unwrap();
        request.metadata_mut().insert("x-forwarded-for", place);
        let asked = stage.auth.clone().request_otp(request).await;
        asked.map(tonic::Response::into_inner)
    };
    let log_in = async |stage: &Stage, place: &str, method| {
        let mut request = Request::new(by(method, false));
        let place = place.parse().unwrap();
        request.metadata_mut().insert("x-forwarded-for", place);
        let login = stage.auth.clone().login(request).await;
        login.map(tonic::Response::into_inner)
    };
    let home = "198.51.100.7";
    let mut mailbox = Mailbox::of(&stage);
    let asked = from(&stage, home, ADA).await.unwrap();
    let code = mailbox.code().await;
    let ada = log_in(&stage, home, otp(ADA, &asked.request_id, &code)).await;
    let ada = ada.unwrap();

    let world = stage.down().await;
    let config = limited(&world);
    let stage = world.start_with(config).await;
    let mut sent = 0;
    for n in 1..30 {
        let place = format!("203.0.113.{n}");
        if from(&stage, &place, ADA).await.is_ok() {
            sent += 1;
            mailbox.next().await;
        }
        for _ in 0..4 {
            let guess = log_in(&stage, &place, password(ADA, "wrong horse")).await;
            assert!(guess.is_err());
        }
    }
    assert_eq!(sent, 5);
    let asked = from(&stage, home, ADA).await.unwrap();
    let code = mailbox.code().await;
    let back = log_in(&stage, home, otp(ADA, &asked.request_id, &code)).await;
    assert_eq!(back.unwrap().player_id, ada.player_id);
    stage.down().await;
}
