//! The operators' commands over a development stack that runs: tables, JSON, exit codes.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tickgate::{
    client::{Account, Closed, ConnectError, Connection, Endpoint, Session, Target, Ticket},
    role::dev::DevJson,
    tls,
    wire::CloseCode,
};

use super::process::{Outcome, Running, empty, tickgate};

/// A development stack where the commands look for it, and a player's line to it.
pub(super) struct Stage {
    directory: TempDir,
    pub(super) told: DevJson,
    pub(super) account: Account,
    endpoint: Endpoint,
    pub(super) dev: Running,
}

impl Stage {
    pub(super) fn start() -> Self {
        let directory = empty();
        let mut dev = Running::start(directory.path(), &["dev", "--ephemeral-ports"]);
        dev.says(&["the development stack is up"]);
        let told = DevJson::of_running(&directory.path().join(".tickgate"))
            .unwrap()
            .unwrap();
        let ca = tls::load_certificates(&told.ca).unwrap();
        Self {
            account: Account::connect(&told.auth_url, &ca).unwrap(),
            endpoint: Endpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            directory,
            told,
            dev,
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) async fn ticket(&self, session: &Session) -> Ticket {
        let target = Target::Gateway("gateway-1".parse().unwrap());
        self.account
            .issue_connect_token(session, target)
            .await
            .unwrap()
    }

    pub(super) async fn join(&self, name: &str) -> (Session, Ticket, Connection) {
        let session = self.account.login_dev(name).await.unwrap();
        let ticket = self.ticket(&session).await;
        let connection = self.endpoint.connect(&ticket).await.unwrap();
        (session, ticket, connection)
    }

    /// Runs a command that shall succeed.
    pub(super) fn run(&self, arguments: &[&str]) -> Outcome {
        let done = tickgate(self.path(), arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
        done
    }

    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments).stdout).unwrap()
    }

    /// Runs a command again until its answer is as `wanted`: what gateways report takes a moment to arrive.
    pub(super) async fn until(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let told = self.json(arguments);
                if wanted(&told) {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), look).await;
        told.unwrap_or_else(|_| panic!("{arguments:?} never told that"))
    }
}

async fn closed(connection: &Connection) -> Closed {
    let closed = tokio::time::timeout(Duration::from_secs(10), connection.closed());
    closed.await.unwrap()
}

fn code(closed: &Closed) -> Option<CloseCode> {
    match closed {
        Closed::Gateway { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_revoked() {
    let stage = Stage::start();
    let (ada, _, play) = stage.join("ada").await;
    let bob = stage.account.login_dev("bob").await.unwrap();
    let (ada_id, bob_id) = (ada.id.to_string(), bob.id.to_string());
    let (ada_player, bob_player) = (ada.player.to_string(), bob.player.to_string());

    let is_seated = |told: &Value| {
        let sessions = told["sessions"].as_array().unwrap();
        sessions.iter().any(|s| {
            s["session_id"] == *ada_id && s["gateways"] == serde_json::json!(["gateway-1"])
        })
    };
    let listed = stage
        .until(&["sessions", "list", "--json"], is_seated)
        .await;
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(listed["more"], false);
    let newest = &listed["sessions"][0];
    assert_eq!(newest["session_id"], *bob_id, "newest first");
    assert_eq!(newest["player_id"], *bob_player);
    assert_eq!(
        (&newest["method"], &newest["state"]),
        (&"dev".into(), &"live".into())
    );
    for time in ["created_at", "active_at", "ends_at"] {
        let text = newest[time].as_str().unwrap();
        assert!(text.parse::<tickgate::clock::Timestamp>().is_ok(), "{text}");
    }
    let table = stage
        .run(&["sessions", "list", "--player", &ada_player])
        .stdout;
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("SESSION "));
    let line = lines.next().unwrap();
    assert!(
        line.starts_with(&ada_id) && line.contains("  in ") && line.ends_with("gateway-1"),
        "{table}"
    );
    assert_eq!(lines.next(), None, "{table}");
    let first = stage.run(&["sessions", "list", "--limit", "1"]);
    assert!(first.stdout.contains(&bob_id) && !first.stdout.contains(&ada_id));
    assert!(first.stderr.contains("there are more"), "{first:?}");

    let revoked = stage.json(&[
        "sessions", "revoke", &ada_id, "--wait", "gateways", "--json",
    ]);
    assert_eq!(revoked["sessions_ended"], 1);
    assert_eq!(revoked["acknowledged"], true);
    assert_eq!(code(&closed(&play).await), Some(CloseCode::SessionRevoked));
    let again = stage.run(&["sessions", "revoke", &ada_id]).stdout;
    assert!(again.contains("nothing was live"), "{again}");
    let told = stage.json(&["sessions", "revoke-player", &bob_player, "--json"]);
    assert_eq!(
        (&told["sessions_ended"], &told["acknowledged"]),
        (&1.into(), &Value::Null)
    );
    let live = stage.json(&["sessions", "list", "--json"]);
    assert_eq!(live["sessions"], serde_json::json!([]));
    let all = stage.json(&["sessions", "list", "--all", "--json"]);
    let states: Vec<_> = all["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["state"])
        .collect();
    assert_eq!(states, ["session_revoked", "session_revoked"]);

    let unknown = tickgate(
        stage.path(),
        &["sessions", "revoke", "01JDAAAAAAAAAAAAAAAAAAAAAA"],
    );
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.stderr.contains("what to do: "), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_drained_and_opened_again() {
    let stage = Stage::start();
    let (_, _, play) = stage.join("ada").await;
    let list = ["gateways", "list", "--json"];
    let listed = stage
        .until(&list, |told| told["gateways"][0]["seats"] == 1)
        .await;
    let gateway = &listed["gateways"][0];
    assert_eq!(gateway["id"], "gateway-1");
    assert_eq!(gateway["addresses"][0], *stage.told.gateways[0].address);
    assert_eq!(
        (&gateway["capacity"], &gateway["draining"]),
        (&4_096.into(), &false.into())
    );
    let table = stage.run(&["gateways", "list"]).stdout;
    assert!(
        table.starts_with("GATEWAY ") && table.contains("\ngateway-2 "),
        "{table}"
    );

    let told = stage.run(&["gateways", "drain", "gateway-1", "--deadline", "1h"]);
    assert!(
        told.stdout.contains("whoever is left of 1 is closed in 1h"),
        "{told:?}"
    );
    stage
        .until(&list, |told| told["gateways"][0]["draining"] == true)
        .await;
    assert_eq!(play.close_reason(), None);
    let bob = stage.account.login_dev("bob").await.unwrap();
    let target = Target::Gateway("gateway-1".parse().unwrap());
    assert!(
        stage
            .account
            .issue_connect_token(&bob, target)
            .await
            .is_err()
    );

    let told = stage.json(&[
        "gateways",
        "drain",
        "gateway-1",
        "--deadline",
        "0s",
        "--json",
    ]);
    assert_eq!(
        (&told["draining"], &told["deadline_ms"]),
        (&true.into(), &0.into())
    );
    assert_eq!(code(&closed(&play).await), Some(CloseCode::Drained));
    stage.run(&["gateways", "drain", "gateway-1", "--cancel"]);
    stage
        .until(&list, |told| told["gateways"][0]["draining"] == false)
        .await;
    stage.join("bob").await;

    let unknown = tickgate(stage.path(), &["gateways", "drain", "nobody"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_and_a_door_are_explained() {
    let stage = Stage::start();
    let (ada, ticket, play) = stage.join("ada").await;
    // The token was used: what it was refused for is known, and that it was hers.
    let refused = stage.endpoint.connect(&ticket).await.unwrap_err();
    assert!(
        matches!(
            refused,
            ConnectError::Refused(Closed::Gateway {
                code: CloseCode::TokenUsed,
                ..
            })
        ),
        "{refused:?}"
    );
    let player = ada.player.to_string();
    let has = |kind: &'static str| {
        move |told: &Value| {
            let events = told["events"].as_array().unwrap();
            events.iter().any(|event| event["kind"] == kind)
        }
    };
    let explain = ["explain", &player, "--json"];
    let told = stage.until(&explain, has("refused")).await;
    let events = told["events"].as_array().unwrap();
    let find = |kind: &str| events.iter().find(|event| event["kind"] == kind).unwrap();
    let refusal = find("refused");
    assert_eq!(refusal["close_code"], "token_used", "{refusal}");
    assert_eq!(
        refusal["token_sha256"],
        find("token_minted")["token_sha256"]
    );
    assert_eq!(find("admitted")["gateway_id"], "gateway-1");
    assert_eq!(told["player_id"], *player);
    let people = stage.run(&["explain", &ada.id.to_string()]).stdout;
    for part in [
        &*player,
        "What happened, oldest first",
        "token_used",
        "Sessions, newest first",
    ] {
        assert!(people.contains(part), "{part}: {people}");
    }
    assert!(!people.contains(ticket.token.expose()) && !people.contains("v4.local"));

    stage.run(&[
        "sessions",
        "revoke",
        &ada.id.to_string(),
        "--wait",
        "gateways",
    ]);
    assert_eq!(code(&closed(&play).await), Some(CloseCode::SessionRevoked));
    let arrived = |told: &Value| told["revocations"][0]["arrived"][0] == "gateway-1";
    stage.until(&explain, arrived).await;
    let people = stage.run(&["explain", &player]).stdout;
    assert!(
        people.contains("Where revocations have arrived"),
        "{people}"
    );

    let door = stage.run(&["explain", "--gateway", "gateway-1"]).stdout;
    assert!(door.contains("gateway-1"), "{door}");
    let nobody = "0".repeat(32);
    let unknown = tickgate(stage.path(), &["explain", &nobody]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_looked_at_and_not_shown() {
    let stage = Stage::start();
    let ada = stage.account.login_dev("ada").await.unwrap();
    let ticket = stage.ticket(&ada).await;
    let refresh = ada.refresh_token.as_ref().unwrap();
    for (purpose, token) in [
        ("session", ada.token.expose()),
        ("refresh", refresh.expose()),
        ("connect", ticket.token.expose()),
    ] {
        let told = stage.run(&["token", "inspect", token]);
        assert!(
            !format!("{told:?}").contains("v4.local.") && told.stderr.is_empty(),
            "{told:?}"
        );
        let line = |name: &str, value: &str| format!("\n{name:16}  {value}");
        for part in [
            line("purpose", purpose),
            line("verdict", "valid"),
            line("session", &ada.id.to_string()),
        ] {
            assert!(told.stdout.contains(&part), "{part}: {}", told.stdout);
        }
        assert!(told.stdout.contains(" (in "), "{}", told.stdout);
        let json = stage.json(&["token", "inspect", "--json", token]);
        assert_eq!(
            (&json["purpose"], &json["verdict"]),
            (&purpose.into(), &"valid".into())
        );
        assert_eq!(json["claims"]["session"], *ada.id.to_string());
    }
    // It was looked at and not used.
    stage.endpoint.connect(&ticket).await.unwrap();

    // By whoever has other keys.
    let elsewhere = empty();
    fs::write(elsewhere.path().join("token"), ada.token.expose()).unwrap();
    let stdin = fs::File::open(elsewhere.path().join("token")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tickgate"))
        .args(["token", "inspect", "--json"])
        .current_dir(&elsewhere)
        .stdin(stdin)
        .output()
        .unwrap();
    let told = Outcome::from(output);
    let json: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(
        (&json["purpose"], &json["verdict"]),
        (&Value::Null, &"unknown_key".into())
    );
    assert!(told.stderr.contains("certs/session.key"), "{told:?}");
}

/// What is named counts, then a stack that runs here, then the configuration.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_find_the_sidecar_by_one_rule() {
    let stage = Stage::start();
    let elsewhere = empty();
    let state = stage.path().join(".tickgate");
    let state = state.to_str().unwrap();
    let list = |arguments: &[&str]| {
        let arguments: Vec<_> = ["gateways", "list"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        tickgate(elsewhere.path(), &arguments)
    };
    assert_eq!(list(&["--state-dir", state]).code, 0);
    let certificate = stage.told.admin_certificate.to_str().unwrap();
    let named = list(&["--admin", &stage.told.admin_url, "--cert", certificate]);
    assert_eq!(named.code, 0, "{named:?}");

    let backend = stage.told.backend_certificate.to_str().unwrap();
    let drain = [
        "gateways",
        "drain",
        "gateway-1",
        "--admin",
        &stage.told.admin_url,
        "--cert",
        backend,
    ];
    let denied = tickgate(elsewhere.path(), &drain);
    assert_eq!(denied.code, 1, "{denied:?}");
    assert!(
        denied.stderr.contains("tickgate://admin/<name>"),
        "{denied:?}"
    );

    let missing = list(&[]);
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(
        missing.stderr.contains("certs/ca.pem") && missing.stderr.contains("--cert"),
        "{missing:?}"
    );
    let nothing = list(&["--state-dir", "."]);
    assert_eq!(nothing.code, 2, "{nothing:?}");
    assert!(
        nothing.stderr.contains("no development stack runs in ."),
        "{nothing:?}"
    );

    assert_eq!(tickgate(elsewhere.path(), &["certs"]).code, 0);
    fs::write(
        elsewhere.path().join("config.toml"),
        "[sidecar]\nadmin_listen = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    let nobody = list(&[]);
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(
        nobody
            .stderr
            .contains("https://127.0.0.1:1, from [sidecar] admin_listen in config.toml"),
        "{nobody:?}"
    );

    // What a killed stack has left behind misleads nobody.
    fs::copy(
        stage.path().join(".tickgate/dev.json"),
        stage.path().join("kept"),
    )
    .unwrap();
    stage.dev.signal("TERM");
    let Stage { directory, dev, .. } = stage;
    assert_eq!(dev.end().1, 0);
    fs::rename(
        directory.path().join("kept"),
        directory.path().join(".tickgate/dev.json"),
    )
    .unwrap();
    let left = tickgate(directory.path(), &["gateways", "list"]);
    assert_eq!(left.code, 2, "{left:?}");
    assert!(left.stderr.contains("certs/ca.pem"), "{left:?}");
}
