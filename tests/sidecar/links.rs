//! What is mailed as a link, over gRPC: logging in, passwords, another e-mail address; and what is limited.

use tickgate::proto::{
    consume_verification_request::Purpose as Used, login_request::Method,
    request_verification_request::Purpose as Wanted,
};

use super::{fixture::*, login::*};

impl Mailbox {
    /// The token in the next letter, whose link is for this.
    pub(crate) async fn token(&mut self, purpose: &str) -> String {
        // Quoted-printable: lines are broken, and "=" is "=3D".
        let letter = self.next().await.replace("=\r\n", "").replace("=3D", "=");
        let link = format!("https://game.example.com/in#purpose={purpose}&token=");
        let (_, rest) = letter
            .split_once(&link)
            .unwrap_or_else(|| panic!("{letter}"));
        rest.lines().next().unwrap().trim().to_owned()
    }
}

fn magic_link(token: &str) -> Method {
    let token = token.to_owned();
    Method::MagicLink(proto::MagicLinkLogin { token })
}

fn password(email: &str, password: &str) -> Method {
    Method::Password(proto::PasswordLogin {
        email: email.to_owned(),
        password: password.to_owned(),
    })
}

impl Stage {
    pub(crate) async fn request_link(
        &self,
        wanted: Wanted,
        bearer: Option<&str>,
    ) -> Result<u64, Status> {
        let message = proto::RequestVerificationRequest {
            purpose: Some(wanted),
        };
        let request = match bearer {
            Some(token) => with_bearer(message, token),
            None => Request::new(message),
        };
        let answer = self.auth.clone().request_verification(request).await;
        answer.map(|answer| answer.into_inner().expires_at_ms - START.0)
    }

    pub(crate) async fn use_link(
        &self,
        token: &str,
        used: Used,
    ) -> Result<proto::ConsumeVerificationResponse, Status> {
        let request = proto::ConsumeVerificationRequest {
            token: token.to_owned(),
            purpose: Some(used),
        };
        let answer = self.auth.clone().consume_verification(request).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn set_password(&self, mailbox: &mut Mailbox, email: &str, new: &str) -> u32 {
        let wanted = Wanted::PasswordReset(email.to_owned());
        self.request_link(wanted, None).await.unwrap();
        let token = mailbox.token("password_reset").await;
        let set = self.use_link(&token, Used::NewPassword(new.to_owned()));
        set.await.unwrap().sessions_ended
    }
}

/// Whether the details of a refusal name this reason.
fn names(status: &Status, reason: &str) -> bool {
    let details = String::from_utf8_lossy(status.details());
    details.contains(reason) && details.contains("google.rpc.ErrorInfo")
}

#[tokio::test]
async fn a_mailed_link_logs_in_once_and_tells_why_it_does_not() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let wanted = || Wanted::MagicLink("ada@example.com".to_owned());
    let life = stage.request_link(wanted(), None).await.unwrap();
    assert_eq!(life, 10 * 60 * 1_000);
    let token = mailbox.token("magic_link").await;
    // For something else it is worth nothing, and not used up by the try.
    let other = Used::NewPassword("correct horse".to_owned());
    let other = stage.use_link(&token, other).await.unwrap_err();
    assert!(names(&other, "link_wrong_purpose"), "{other:?}");
    let login = stage.log_in_by(magic_link(&token), None).await.unwrap();
    assert!(login.is_new_player);
    let me = stage.who_am_i(&login.session_token).await.unwrap();
    assert_eq!(me.method, "magic_link");
    let again = stage.log_in_by(magic_link(&token), None).await.unwrap_err();
    assert!(names(&again, "link_already_used"), "{again:?}");
    let unknown = stage.log_in_by(magic_link("x"), None).await.unwrap_err();
    assert!(names(&unknown, "link_unknown"), "{unknown:?}");
    stage.request_link(wanted(), None).await.unwrap();
    let token = mailbox.token("magic_link").await;
    stage.advance(10 * MINUTE);
    let late = stage.log_in_by(magic_link(&token), None).await.unwrap_err();
    assert!(names(&late, "link_expired"), "{late:?}");
    assert_eq!(late.code(), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test]
async fn a_password_is_set_by_mail_and_ends_whatever_was_open() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let email = "ada@example.com";
    let ended = stage
        .set_password(&mut mailbox, email, "correct horse")
        .await;
    assert_eq!(ended, 0);
    let login = stage
        .log_in_by(password(email, "correct horse"), None)
        .await;
    let login = login.unwrap();
    assert!(!login.is_new_player, "made when the password was set");
    // Nobody's address and a wrong password are the same.
    let wrong = stage.log_in_by(password(email, "wrong horse"), None).await;
    let nobody = stage.log_in_by(password("nobody@example.com", "wrong horse"), None);
    let (wrong, nobody) = (wrong.unwrap_err(), nobody.await.unwrap_err());
    assert_eq!(wrong.code(), nobody.code());
    assert_eq!(wrong.message(), nobody.message());
    assert_eq!(wrong.details(), nobody.details());

    let ended = stage
        .set_password(&mut mailbox, email, "battery staple")
        .await;
    assert_eq!(ended, 1);
    let out = stage.who_am_i(&login.session_token).await;
    assert_eq!(code(out), Code::Unauthenticated);
    let old = stage
        .log_in_by(password(email, "correct horse"), None)
        .await;
    assert_eq!(code(old), Code::Unauthenticated);
    let new = stage
        .log_in_by(password(email, "battery staple"), None)
        .await;
    assert_eq!(new.unwrap().player_id, login.player_id);

    // A password that may not be set does not use the link up.
    let wanted = Wanted::PasswordReset(email.to_owned());
    stage.request_link(wanted, None).await.unwrap();
    let token = mailbox.token("password_reset").await;
    let short = stage
        .use_link(&token, Used::NewPassword("short".to_owned()))
        .await;
    assert_eq!(code(short), Code::InvalidArgument);
    let set = Used::NewPassword("long enough".to_owned());
    assert!(stage.use_link(&token, set).await.is_ok());
    stage.down().await;
}

#[tokio::test]
async fn a_new_address_counts_once_it_is_proved_and_by_who_still_is_the_player() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let nobody = Wanted::EmailChange("new@example.com".to_owned());
    let nobody = stage.request_link(nobody, None).await;
    assert_eq!(code(nobody), Code::Unauthenticated);

    let wanted = Wanted::MagicLink("old@example.com".to_owned());
    stage.request_link(wanted, None).await.unwrap();
    let token = mailbox.token("magic_link").await;
    let ada = stage.log_in_by(magic_link(&token), None).await.unwrap();
    let change = |to: &str| Wanted::EmailChange(to.to_owned());
    let bearer = Some(ada.session_token.as_str());
    let life = stage.request_link(change("new@example.com"), bearer);
    assert_eq!(life.await.unwrap(), 24 * 60 * 60 * 1_000);
    let token = mailbox.token("email_change").await;
    let changed = stage.use_link(&token, Used::EmailChange(true)).await;
    assert_eq!(changed.unwrap().player_id, ada.player_id);
    for (email, same) in [("new@example.com", true), ("old@example.com", false)] {
        let wanted = Wanted::MagicLink(email.to_owned());
        stage.request_link(wanted, None).await.unwrap();
        let token = mailbox.token("magic_link").await;
        let login = stage.log_in_by(magic_link(&token), None).await.unwrap();
        assert_eq!(login.player_id == ada.player_id, same, "{email}");
    }

    // Whoever is thrown out after asking takes no address along.
    let bearer = Some(ada.session_token.as_str());
    stage
        .request_link(change("thief@example.com"), bearer)
        .await
        .unwrap();
    let token = mailbox.token("email_change").await;
    stage
        .admin
        .clone()
        .revoke_session(revoke(&ada.session_id))
        .await
        .unwrap();
    let thief = stage.use_link(&token, Used::EmailChange(true)).await;
    assert_eq!(code(thief), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_uses_of_a_link_at_once_are_one() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let wanted = Wanted::MagicLink("ada@example.com".to_owned());
    stage.request_link(wanted, None).await.unwrap();
    let token = mailbox.token("magic_link").await;
    let mut uses = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let mut auth = stage.auth.clone();
        let method = magic_link(&token);
        uses.spawn(async move { auth.login(by(method, false)).await });
    }
    let outcomes = uses.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let used = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().err())
        .filter(|status| names(status, "link_already_used"));
    assert_eq!(used.count(), 999);
    stage.down().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let world = World::new();
    let mut config = world.config();
    config.login.limits = LoginLimits::default();
    let stage = world.start_with(config).await;
    let ask = |email: &str| {
        let email = email.to_owned();
        let mut auth = stage.auth.clone();
        async move { auth.request_otp(proto::RequestOtpRequest { email }).await }
    };
    for _ in 0..5 {
        assert!(ask("ada@example.com").await.is_ok());
    }
    let refused = ask("Ada@example.com").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("720 s"), "{refused:?}");
    let details = String::from_utf8_lossy(refused.details()).into_owned();
    assert!(details.contains("google.rpc.RetryInfo"), "{details}");
    // Another address is served, until this network address has had its 30.
    for n in 0..24 {
        assert!(ask(&format!("b{n}@example.com")).await.is_ok(), "{n}");
    }
    let refused = ask("c@example.com").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // Neither development login nor the backend is limited.
    for _ in 0..50 {
        stage.login("ada").await;
        stage.create("ada").await;
    }
    stage.advance(12 * MINUTE);
    assert!(ask("ada@example.com").await.is_ok());
    stage.down().await;
}
