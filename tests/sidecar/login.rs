//! The ways to log in, over gRPC: codes that are mailed, keys of devices, and what is linked.

use std::path::PathBuf;

use tickgate::{client::ClientKey, proto::login_request::Method};

use super::fixture::*;

/// Letters that lie in the spool, and have not been read yet.
pub(crate) struct Mailbox {
    folder: PathBuf,
    read: Vec<PathBuf>,
}

impl Mailbox {
    pub(crate) fn of(stage: &Stage) -> Self {
        Self {
            folder: stage.world.folder.path().join("mail"),
            read: Vec::new(),
        }
    }

    /// The next letter that somebody has asked for.
    pub(crate) async fn next(&mut self) -> String {
        self.next_where(|letter| !is_notice(letter)).await
    }

    /// The next letter that tells an owner of a change.
    pub(crate) async fn notice(&mut self) -> String {
        self.next_where(is_notice).await
    }

    /// The one of these letters that has this in it.
    pub(crate) async fn notice_with(&mut self, part: &str) -> String {
        self.next_where(|letter| is_notice(letter) && letter.contains(part))
            .await
    }

    async fn next_where(&mut self, is_wanted: impl Fn(&str) -> bool) -> String {
        let arrived = async {
            loop {
                let files = std::fs::read_dir(&self.folder).unwrap();
                let letters = files
                    .map(|file| file.unwrap().path())
                    .filter(|path| path.extension().is_some_and(|end| end == "eml"))
                    .filter(|path| {
                        !path.file_name().unwrap().to_str().unwrap().starts_with('.')
                            && !self.read.contains(path)
                    });
                for letter in letters {
                    // Quoted-printable: lines are broken.
                    let text = std::fs::read_to_string(&letter).unwrap();
                    if is_wanted(&text.replace("=\r\n", "")) {
                        return (letter, text);
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        let arrived = tokio::time::timeout(10 * SECOND, arrived).await;
        let (letter, text) = arrived.expect("no such letter");
        self.read.push(letter);
        text
    }

    /// The code in the next letter.
    pub(crate) async fn code(&mut self) -> String {
        code_in(&self.next().await)
    }
}

fn is_notice(letter: &str) -> bool {
    letter.contains("Subject: How you log in to ")
}

/// The code in a letter.
pub(crate) fn code_in(letter: &str) -> String {
    let line = letter.lines().find(|line| line.starts_with("    "));
    line.unwrap().trim().to_owned()
}

pub(crate) fn by(method: Method, link: bool) -> proto::LoginRequest {
    proto::LoginRequest {
        method: Some(method),
        link,
    }
}

pub(crate) fn otp(email: &str, request_id: &str, code: &str) -> Method {
    Method::Otp(proto::OtpLogin {
        email: email.to_owned(),
        request_id: request_id.to_owned(),
        code: code.to_owned(),
    })
}

/// Whether the details of a refusal name this reason.
pub(crate) fn names(status: &Status, reason: &str) -> bool {
    let details = String::from_utf8_lossy(status.details());
    details.contains(reason) && details.contains("google.rpc.ErrorInfo")
}

impl Stage {
    pub(crate) async fn request_otp(&self, email: &str) -> proto::RequestOtpResponse {
        let email = email.to_owned();
        let request = proto::RequestOtpRequest { email };
        let answer = self.auth.clone().request_otp(request).await;
        answer.unwrap().into_inner()
    }

    /// Logs in, or links to the bearer's player if there is a bearer.
    pub(crate) async fn log_in_by(
        &self,
        method: Method,
        bearer: Option<&str>,
    ) -> Result<proto::LoginResponse, Status> {
        let request = match bearer {
            Some(token) => with_bearer(by(method, true), token),
            None => Request::new(by(method, false)),
        };
        let answer = self.auth.clone().login(request).await;
        answer.map(tonic::Response::into_inner)
    }

    pub(crate) async fn signed(&self, key: &ClientKey) -> Method {
        let drawn = self
            .auth
            .clone()
            .create_challenge(proto::CreateChallengeRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!(drawn.audience, AUDIENCE);
        let challenge = drawn.challenge.as_ref().try_into().unwrap();
        let signature = key.sign_login(challenge, drawn.expires_at_ms, AUDIENCE);
        Method::DeviceKey(proto::DeviceKeyLogin {
            public_key: key.public().to_vec().into(),
            challenge: drawn.challenge,
            signature: signature.to_vec().into(),
        })
    }
}

#[tokio::test]
async fn a_mailed_code_logs_its_address_in_once_and_survives_a_restart() {
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let asked = stage.request_otp("Ada@Example.com").await;
    assert_eq!(asked.expires_at_ms, START.0 + 10 * 60 * 1_000);
    let code = mailbox.code().await;
    let stage = stage.restarted().await;
    let method = || otp("ada@example.com", &asked.request_id, &code);
    let login = stage.log_in_by(method(), None).await.unwrap();
    assert!(login.is_new_player);
    let me = stage.who_am_i(&login.session_token).await.unwrap();
    assert_eq!((&*me.player_id, &*me.method), (&*login.player_id, "otp"));
    let again = stage.log_in_by(method(), None).await;
    assert_eq!(code_of(again), Code::Unauthenticated);

    let asked = stage.request_otp("ada@example.com").await;
    let code = mailbox.code().await;
    let method = otp("ada@example.com", &asked.request_id, &code);
    let second = stage.log_in_by(method, None).await.unwrap();
    assert!(!second.is_new_player);
    assert_eq!(second.player_id, login.player_id);
    stage.down().await;
}

fn code_of<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    super::fixture::code(result)
}

/// Three guesses and no fourth, of however many that are made at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_guesses_at_once_are_three() {
    let stage = Stage::up().await;
    let asked = stage.request_otp("ada@example.com").await;
    let right = Mailbox::of(&stage).code().await;
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    let mut guesses = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let mut auth = stage.auth.clone();
        let method = otp("ada@example.com", &asked.request_id, wrong);
        guesses.spawn(async move { auth.login(by(method, false)).await.unwrap_err() });
    }
    let refused = guesses.join_all().await;
    let counted = |text: &str| {
        let told = refused
            .iter()
            .filter(|status| status.message().contains(text));
        told.count()
    };
    assert_eq!(counted("that is not the code"), 3);
    assert_eq!(counted("there is no guess left"), 997);
    let method = otp("ada@example.com", &asked.request_id, &right);
    let late = stage.log_in_by(method, None).await;
    assert_eq!(code_of(late), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_times_the_right_code_at_once_is_one_login() {
    let stage = Stage::up().await;
    let asked = stage.request_otp("ada@example.com").await;
    let right = Mailbox::of(&stage).code().await;
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let mut auth = stage.auth.clone();
        let method = otp("ada@example.com", &asked.request_id, &right);
        logins.spawn(async move { auth.login(by(method, false)).await });
    }
    let logins = logins.join_all().await;
    assert_eq!(logins.iter().filter(|login| login.is_ok()).count(), 1);
    stage.down().await;
}

#[tokio::test]
async fn a_device_is_known_by_its_key_and_is_linked_by_who_has_proved_both() {
    let stage = Stage::up().await;
    let key = ClientKey::generate().unwrap();
    let signed = stage.signed(&key).await;
    let first = stage.log_in_by(signed.clone(), None).await.unwrap();
    assert!(first.is_new_player);
    let replayed = stage.log_in_by(signed, None).await;
    assert_eq!(code_of(replayed), Code::Unauthenticated);

    // Another way in for the same player: a code to an address that was nobody's.
    let mut mailbox = Mailbox::of(&stage);
    let asked = stage.request_otp("ada@example.com").await;
    let code = mailbox.code().await;
    let method = otp("ada@example.com", &asked.request_id, &code);
    let linked = stage.log_in_by(method, Some(&first.session_token)).await;
    let linked = linked.unwrap();
    assert!(!linked.is_new_player);
    assert_eq!(linked.player_id, first.player_id);

    // By the other way alone it is the same player. A second address is one too many.
    let asked = stage.request_otp("ada@example.com").await;
    let code = mailbox.code().await;
    let method = otp("ada@example.com", &asked.request_id, &code);
    let by_mail = stage.log_in_by(method, None).await.unwrap();
    assert_eq!(by_mail.player_id, first.player_id);
    let asked = stage.request_otp("other@example.com").await;
    let code = mailbox.code().await;
    let method = otp("other@example.com", &asked.request_id, &code);
    let second = stage.log_in_by(method, Some(&first.session_token)).await;
    let second = second.unwrap_err();
    assert_eq!(second.code(), Code::AlreadyExists);
    assert!(names(&second, "link_has_one"), "{second:?}");

    // What is somebody's stays somebody's, and nobody links without being logged in.
    let eve = stage.login("eve").await;
    let stolen = stage.signed(&key).await;
    let stolen = stage.log_in_by(stolen, Some(&eve.session_token)).await;
    let stolen = stolen.unwrap_err();
    assert_eq!(stolen.code(), Code::AlreadyExists);
    assert!(names(&stolen, "link_taken"), "{stolen:?}");
    let signed = stage.signed(&ClientKey::generate().unwrap()).await;
    let nobody = stage.log_in_by(signed, Some("v4.local.nonsense")).await;
    assert_eq!(code_of(nobody), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test]
async fn what_is_switched_off_or_no_address_is_refused() {
    let world = World::new();
    let mut config = world.config();
    config.login = LoginConfig::default();
    config.mail = None;
    let stage = world.start_with(config).await;
    let mut auth = stage.auth.clone();
    let email = "ada@example.com".to_owned();
    let asked = auth.request_otp(proto::RequestOtpRequest { email }).await;
    assert_eq!(code_of(asked), Code::PermissionDenied);
    let challenge = auth
        .create_challenge(proto::CreateChallengeRequest {})
        .await;
    assert_eq!(code_of(challenge), Code::PermissionDenied);
    let login = stage.log_in_by(otp("a@b.c", "x", "123456"), None).await;
    assert_eq!(code_of(login), Code::PermissionDenied);

    let stage = stage.down().await.start().await;
    for bad in ["", "ada", "ada@example.com\r\nBcc: eve@example.com"] {
        let email = bad.to_owned();
        let mut auth = stage.auth.clone();
        let asked = auth.request_otp(proto::RequestOtpRequest { email });
        assert_eq!(code_of(asked.await), Code::InvalidArgument, "{bad}");
    }
    let none = stage
        .auth
        .clone()
        .login(proto::LoginRequest::default())
        .await;
    assert_eq!(code_of(none), Code::InvalidArgument);
    stage.down().await;
}

#[tokio::test]
async fn a_role_is_set_by_operators_and_carried_from_the_next_refresh_on() {
    let stage = Stage::up().await;
    let login = stage.login("ada").await;
    let set = |role: &str| proto::SetRoleRequest {
        player_id: login.player_id.clone(),
        role: role.to_owned(),
    };
    let backend = stage.admin.clone().set_role(set("moderator")).await;
    assert_eq!(code_of(backend), Code::PermissionDenied);
    let admin = Some(&stage.world.certs.admin);
    let channel = stage.world.channel(stage.sidecar.addresses().admin, admin);
    let mut operator = AdminServiceClient::new(channel);
    for bad in ["", "Moderator", "a b", &"x".repeat(33)] {
        assert_eq!(
            code_of(operator.set_role(set(bad)).await),
            Code::InvalidArgument
        );
    }
    let mut nobody = set("moderator");
    nobody.player_id = "7".repeat(32);
    assert_eq!(code_of(operator.set_role(nobody).await), Code::NotFound);
    let before = operator.set_role(set("moderator")).await.unwrap();
    assert_eq!(before.into_inner().previous, "player");
    let refreshed = stage.refresh(&login.refresh_token).await.unwrap();
    assert_eq!(refreshed.role, "moderator");
    stage.down().await;
}
