//! The audit trail: everything that is decided is in it, by whom and from where, and nothing secret is.

use std::{cell::RefCell, io, sync::Once};

use super::{fixture::*, login::*};
use serde_json::Value;
use tickgate::{
    client::ClientKey,
    proto::{
        consume_verification_request::Purpose as Used,
        request_verification_request::Purpose as Wanted,
    },
};

thread_local! {
    /// What was logged on this thread since somebody follows it.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// The log of a test's own thread, on which all of its sidecar runs too. The subscriber is the process's: what a thread without one
/// comes upon first would count as of no interest to anybody.
#[derive(Clone)]
struct Trail;

impl io::Write for Trail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Trail {
    /// Follows all that is logged from here on, by the filter that docs/OPERATIONS.md names.
    fn follow() -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let log = tracing_subscriber::fmt().json().with_writer(|| Self);
            log.with_env_filter("warn,tickgate::audit=info").init();
        });
        LINES.set(Some(Vec::new()));
        Self
    }

    fn text(&self) -> String {
        let lines = LINES.with_borrow(Clone::clone);
        String::from_utf8(lines.unwrap()).unwrap()
    }

    /// The fields of the lines since the last time.
    fn news(&self) -> Vec<Value> {
        let text = self.text();
        LINES.set(Some(Vec::new()));
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line["target"] == "tickgate::audit")
            .map(|line| {
                assert!(line["timestamp"].is_string(), "{line}");
                assert_eq!(line["level"], "INFO", "{line}");
                line["fields"].clone()
            })
            .collect()
    }

    /// The next lines are these, in this order: each has these fields, and a call from loopback.
    #[track_caller]
    fn tells(&self, all: &mut String, expected: &[Value]) {
        all.push_str(&self.text());
        let news = self.news();
        assert_eq!(news.len(), expected.len(), "{news:#?}");
        for (line, expected) in news.iter().zip(expected) {
            for (field, value) in expected.as_object().unwrap() {
                assert_eq!(&line[field], value, "{field} of {line}");
            }
            assert_eq!(line["peer"], "127.0.0.1", "{line}");
            assert!(line["call"].as_str().unwrap().contains('/'), "{line}");
        }
    }
}

macro_rules! line {
    ($($field:ident: $value:expr),+ $(,)?) => {
        serde_json::json!({ $(stringify!($field): $value),+ })
    };
}

const EMAIL: &str = "eve.canary@example.com";
const PASSWORD: &str = "a-password-that-is-a-canary";

#[tokio::test]
async fn every_way_in_and_out_is_told_and_no_secret_is() {
    let trail = Trail::follow();
    let stage = Stage::up().await;
    let mut mailbox = Mailbox::of(&stage);
    let (mut all, mut secrets) = (String::new(), vec![EMAIL.to_owned(), PASSWORD.to_owned()]);

    // In by name, on by refresh, out by logout.
    let ada = stage.login("ada").await;
    secrets.extend([ada.session_token.clone(), ada.refresh_token.clone()]);
    trail.tells(
        &mut all,
        &[line! {
            event: "login", by: "player", call: "AuthService/Login", method: "dev",
            session: ada.session_id.clone(), player: ada.player_id.clone(), is_new_player: true, linked: false,
        }],
    );
    let second = stage.refresh(&ada.refresh_token).await.unwrap();
    stage.refresh(&ada.refresh_token).await.unwrap();
    secrets.extend([second.session_token.clone(), second.refresh_token.clone()]);
    trail.tells(
        &mut all,
        &[
            line! {event: "refresh", session: ada.session_id.clone(), player: ada.player_id.clone(), generation: 1, again: false},
            line! {event: "refresh", session: ada.session_id.clone(), again: true},
        ],
    );
    stage.refresh(&second.refresh_token).await.unwrap();
    assert!(stage.refresh(&ada.refresh_token).await.is_err());
    trail.tells(
        &mut all,
        &[
            line! {event: "refresh", generation: 2},
            line! {
                event: "session_revoked", by: "player", call: "AuthService/Refresh", reason: "refresh_reused",
                session: ada.session_id.clone(), player: ada.player_id.clone(), revision: 1,
            },
            line! {event: "refused", by: "player", call: "AuthService/Refresh", reason: "refresh_reused"},
        ],
    );

    // In by a mailed code, after a wrong one; another way in is linked.
    let asked = stage.request_otp(EMAIL).await;
    let code = mailbox.code().await;
    let wrong = if code == "000000" { "111111" } else { "000000" };
    let wrong = otp(EMAIL, &asked.request_id, wrong);
    assert!(stage.log_in_by(wrong, None).await.is_err());
    let right = otp(EMAIL, &asked.request_id, &code);
    let eve = stage.log_in_by(right, None).await.unwrap();
    secrets.extend([
        asked.request_id,
        format!("\"{code}\""),
        eve.session_token.clone(),
    ]);
    trail.tells(
        &mut all,
        &[
            line! {event: "mail_requested", reason: "otp"},
            line! {event: "refused", call: "AuthService/Login", method: "otp", reason: "wrong_code"},
            line! {event: "login", method: "otp", player: eve.player_id.clone(), is_new_player: true},
        ],
    );
    let device = stage.signed(&ClientKey::generate().unwrap()).await;
    let linked = stage.log_in_by(device, Some(&eve.session_token)).await;
    let linked = linked.unwrap();
    trail.tells(
        &mut all,
        &[
            line! {event: "link", method: "device_key", player: eve.player_id.clone(), session: eve.session_id.clone()},
            line! {event: "login", method: "device_key", linked: true, player: eve.player_id.clone(), session: linked.session_id.clone()},
        ],
    );

    // One of one's own sessions is ended, then the address is another one, and the password.
    let own = proto::RevokeOwnSessionRequest {
        session_id: linked.session_id.clone(),
    };
    let own = with_bearer(own, &eve.session_token);
    stage.auth.clone().revoke_session(own).await.unwrap();
    trail.tells(
        &mut all,
        &[line! {event: "session_revoked", reason: "own", session: linked.session_id.clone(), player: eve.player_id.clone()}],
    );
    let wanted = Wanted::EmailChange(format!("new.{EMAIL}"));
    stage
        .request_link(wanted, Some(&eve.session_token))
        .await
        .unwrap();
    let token = mailbox.token("email_change").await;
    stage
        .use_link(&token, Used::EmailChange(true))
        .await
        .unwrap();
    secrets.push(token);
    let wanted = Wanted::PasswordReset(format!("new.{EMAIL}"));
    stage.request_link(wanted, None).await.unwrap();
    let token = mailbox.token("password_reset").await;
    let set = Used::NewPassword(PASSWORD.to_owned());
    stage.use_link(&token, set.clone()).await.unwrap();
    assert!(stage.use_link(&token, set).await.is_err());
    secrets.push(token);
    trail.tells(
        &mut all,
        &[
            line! {event: "mail_requested", reason: "email_change", player: eve.player_id.clone()},
            line! {event: "email_changed", player: eve.player_id.clone()},
            line! {event: "mail_requested", reason: "password_reset"},
            line! {event: "password_set", player: eve.player_id.clone(), is_new_player: false},
            line! {event: "player_revoked", reason: "password_set", player: eve.player_id.clone(), sessions: 1},
            line! {event: "refused", call: "AuthService/ConsumeVerification", reason: "link_already_used"},
        ],
    );
    let bearer = stage.who_am_i(&ada.session_token).await;
    assert!(bearer.is_err());
    let bob = stage.login("bob").await;
    let logout = with_bearer(proto::LogoutRequest::default(), &bob.session_token);
    stage.auth.clone().logout(logout).await.unwrap();
    trail.tells(
        &mut all,
        &[
            line! {event: "refused", call: "AuthService/WhoAmI", reason: "session_revoked", player: ada.player_id.clone()},
            line! {event: "login"},
            line! {event: "session_revoked", reason: "logout", session: bob.session_id.clone()},
        ],
    );
    for secret in &secrets {
        // A part of a token is as bad as the whole.
        let part = &secret[..secret.len().min(40)];
        assert!(!all.contains(part), "{part} is in the trail");
    }
    stage.down().await;
}

#[tokio::test]
async fn what_backends_and_operators_do_is_told_with_their_names() {
    let trail = Trail::follow();
    let stage = Stage::up().await;
    let mut all = String::new();
    let backend = stage.world.certs.backend.clone();
    let operator = Some(&stage.world.certs.admin);
    let address = stage.sidecar.addresses().admin;
    let mut operator = AdminServiceClient::new(stage.world.channel(address, operator));
    let mut admin = stage.admin.clone();
    let _gateway = stage.attach().await;
    trail.tells(
        &mut all,
        &[line! {event: "gateway_attached", by: "gateway/eu", gateway: "eu", seats: 0}],
    );

    let ada = stage.create("steam:1").await;
    let ticket = stage.backend_token(&ada.session_id).await.unwrap();
    let [first, second] = {
        let news = trail.news();
        <[Value; 2]>::try_from(news).unwrap()
    };
    let by = first["by"].as_str().unwrap().to_owned();
    assert!(by.starts_with("backend/"), "{first}");
    assert_eq!(first["event"], "login");
    assert_eq!(first["method"], "backend");
    assert_eq!(first["session"], ada.session_id);
    assert_eq!(second["event"], "token_minted");
    assert_eq!(
        (&second["gateway"], &second["by"]),
        (&"eu".into(), &by.clone().into())
    );
    assert_eq!(second["session"], ada.session_id);
    assert!(!format!("{first}{second}").contains(&ticket.token[..40]));

    let role = |role: &str| proto::SetRoleRequest {
        player_id: ada.player_id.clone(),
        role: role.to_owned(),
    };
    assert_eq!(
        code(admin.set_role(role("moderator")).await),
        Code::PermissionDenied
    );
    operator.set_role(role("moderator")).await.unwrap();
    let drain = proto::DrainGatewayRequest {
        gateway_id: "eu".to_owned(),
        deadline_ms: 60_000,
        cancel: false,
    };
    operator.drain_gateway(drain).await.unwrap();
    operator
        .list_gateways(proto::ListGatewaysRequest {})
        .await
        .unwrap();
    let explain = proto::ExplainRequest {
        about: Some(proto::explain_request::About::PlayerId(
            ada.player_id.clone(),
        )),
    };
    operator.explain(explain).await.unwrap();
    admin.revoke_session(revoke(&ada.session_id)).await.unwrap();
    let player = proto::RevokePlayerRequest {
        player_id: ada.player_id.clone(),
        ..Default::default()
    };
    operator.revoke_player(player).await.unwrap();
    trail.tells(
        &mut all,
        &[
            line! {event: "refused", by: by.clone(), call: "AdminService/SetRole", reason: "role"},
            line! {event: "role_set", player: ada.player_id.clone(), role: "moderator", previous: "player"},
            line! {event: "drain", gateway: "eu", drain: "begin", deadline_ms: 60_000, seats: 0},
            line! {event: "read", call: "AdminService/ListGateways"},
            line! {event: "read", call: "AdminService/Explain", player: ada.player_id.clone()},
            line! {event: "session_revoked", by: by.clone(), reason: "ordered", session: ada.session_id.clone(), player: ada.player_id.clone()},
            line! {event: "player_revoked", reason: "ordered", player: ada.player_id.clone(), sessions: 0},
        ],
    );
    let roots = || vec![stage.world.certs.ca.clone()];
    // What is in force already is no event.
    let same = stage.world.certs.sidecar.clone();
    assert!(!stage.sidecar.reload_tls(same, roots()).unwrap());
    assert!(trail.news().is_empty());
    assert!(stage.sidecar.reload_tls(backend, roots()).unwrap());
    let [replaced] = <[Value; 1]>::try_from(trail.news()).unwrap();
    assert_eq!(replaced["event"], "certificates_replaced");
    assert_eq!(replaced["by"], "sidecar");
    stage.down().await;
}

#[tokio::test]
async fn a_way_in_that_is_taken_away_is_told() {
    let trail = Trail::follow();
    let stage = Stage::up().await;
    let ada = stage.login("ada").await;
    let device = stage.signed(&ClientKey::generate().unwrap()).await;
    let linked = stage.log_in_by(device, Some(&ada.session_token)).await;
    linked.unwrap();
    trail.news();
    let ways = stage.ways(&ada.session_token).await;
    let device = ways.iter().find(|way| way.kind == "device_key").unwrap();
    stage.remove(&ada.session_token, &device.id).await.unwrap();
    trail.tells(
        &mut String::new(),
        &[
            line! {
                event: "unlink", call: "AuthService/RemoveIdentity", method: "device_key",
                player: ada.player_id.clone(), session: ada.session_id.clone(),
            },
            line! {event: "player_revoked", reason: "unlinked", player: ada.player_id.clone(), sessions: 2},
        ],
    );
    stage.down().await;
}

/// Whoever is refused at one listener without end keeps nothing that happens at another out of the trail.
#[tokio::test]
async fn noise_at_one_listener_silences_no_other() {
    let trail = Trail::follow();
    let stage = Stage::up().await;
    for _ in 0..150 {
        assert!(stage.who_am_i("v4.local.nonsense").await.is_err());
    }
    let role = proto::SetRoleRequest::default();
    let refused = stage.admin.clone().set_role(role).await;
    assert_eq!(code(refused), Code::PermissionDenied);
    let news = trail.news();
    let of_admin = news
        .iter()
        .filter(|line| line["call"] == "AdminService/SetRole");
    assert_eq!(of_admin.count(), 1, "{} lines", news.len());
    stage.down().await;
}
