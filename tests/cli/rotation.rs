//! Keys are rotated by an operator's commands while a development stack runs, and files that cannot be used change nothing.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::{
    operators::Stage,
    process::{get, mode, tickgate},
};

const LIST: [&str; 3] = ["keys", "list", "--json"];

fn key_file(stage: &Stage, kind: &str) -> PathBuf {
    stage.path().join(format!(".tickgate/{kind}.key"))
}

/// The keys of one kind with what they are in the file and at the sidecar.
fn roles(told: &Value, kind: &str) -> Vec<(String, Value, Value)> {
    let keys = told["keys"].as_array().unwrap().iter();
    let of_kind = keys.filter(|key| key["purpose"] == *kind);
    of_kind
        .map(|key| {
            let id = key["id"].as_str().unwrap().to_owned();
            (id, key["role"].clone(), key["in_force"].clone())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_and_retired_while_players_come_and_go() {
    let stage = Stage::start();
    let (_, _, ada) = stage.join("ada").await;
    let before = stage.json(&LIST);
    let [(old, ..)] = &roles(&before, "transport")[..] else {
        panic!("{before}");
    };
    let rotated = stage.json(&["keys", "rotate", "transport", "--json"]);
    assert_eq!(rotated["previous"], **old);
    let new = rotated["current"].as_str().unwrap().to_owned();
    assert_ne!(new, *old);
    let listed = stage
        .until(&LIST, |told| {
            let roles = roles(told, "transport");
            roles.iter().all(|(_, file, sidecar)| file == sidecar) && roles.len() == 2
        })
        .await;
    let keys = listed["keys"].as_array().unwrap();
    let outstanding = keys
        .iter()
        .flat_map(|key| key["outstanding"].as_array().unwrap());
    assert_eq!(outstanding.count(), 0, "{listed}");
    let (_, _, bob) = stage.join("bob").await;
    let table = stage.run(&["keys", "list"]).stdout;
    assert!(table.starts_with("KEY ") && table.contains(&new), "{table}");
    assert!(!table.contains("k4.local"), "{table}");

    let retire = ["keys", "retire", "transport"];
    let early = tickgate(stage.path(), &retire);
    assert_eq!(early.code, 6, "{early:?}");
    assert!(
        early.stderr.contains("may still be needed until"),
        "{early:?}"
    );
    assert!(early.stderr.contains("token_rejected"), "{early:?}");
    let again = tickgate(stage.path(), &["keys", "rotate", "transport"]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("has not been retired"), "{again:?}");
    let retired = stage.run(&["keys", "retire", "transport", "--now"]);
    assert!(retired.stderr.contains("warning: "), "{retired:?}");
    stage
        .until(&LIST, |told| {
            roles(told, "transport") == [(new.clone(), "current".into(), "current".into())]
        })
        .await;
    let (_, _, eve) = stage.join("eve").await;
    let none = tickgate(stage.path(), &retire);
    assert_eq!(none.code, 2, "{none:?}");
    for connection in [ada, bob, eve] {
        connection.close();
    }
    assert_eq!(mode(&key_file(&stage, "transport")), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_step_by_step_keeps_every_token_good_until_the_last() {
    let stage = Stage::start();
    let ada = stage.account.login_dev("ada").await.unwrap();
    let publish = ["keys", "rotate", "session", "--publish", "--json"];
    let published = stage.json(&publish);
    assert_eq!(published["previous"], Value::Null);
    let twice = tickgate(stage.path(), &publish);
    assert_eq!(twice.code, 2, "{twice:?}");
    // It waits for the sidecar to have read the file, and goes on where it was.
    let rotated = stage.json(&["keys", "rotate", "session", "--json"]);
    assert_eq!(rotated["current"], published["next"]);
    assert_eq!(rotated["previous"], published["current"]);
    let in_force = |role: &'static str| {
        let new = rotated["current"].clone();
        move |told: &Value| {
            let keys = roles(told, "session");
            keys.iter()
                .any(|(id, _, sidecar)| new == **id && *sidecar == *role)
        }
    };
    stage.until(&LIST, in_force("current")).await;
    stage.account.who_am_i(&ada.token).await.unwrap();
    let renewed = stage.account.refresh(&ada).await.unwrap();
    let id = rotated["previous"].as_str().unwrap();
    stage.run(&["keys", "retire", "session", "--now"]);
    let gone = |told: &Value| roles(told, "session").iter().all(|(key, ..)| key != id);
    stage.until(&LIST, gone).await;
    // What the old key sealed is refused, and what the new one sealed is not.
    assert!(stage.account.who_am_i(&ada.token).await.is_err());
    stage.account.who_am_i(&renewed.token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_change_nothing_and_are_told() {
    let mut stage = Stage::start();
    let url = stage.told.sidecar_metrics_url.clone().unwrap();
    let address = url.strip_prefix("http://").unwrap().split('/').next();
    let address: std::net::SocketAddr = address.unwrap().parse().unwrap();
    let told = get(address, "/ready");
    assert!(
        told.contains("200 OK") && told.ends_with("ready\n"),
        "{told}"
    );
    let file = key_file(&stage, "refresh");
    let key = fs::read_to_string(&file).unwrap();
    let ada = stage.account.login_dev("ada").await.unwrap();
    fs::write(&file, "hunter2").unwrap();
    let said = stage.dev.says(&["ERROR", "cannot be used", "keys"]);
    assert!(!said.contains("hunter2"), "{said}");
    let told = get(address, "/ready");
    assert!(told.contains("200 OK"), "it serves as before: {told}");
    assert!(told.ends_with("ready, but: keys_refused\n"), "{told}");
    let metrics = get(address, "/metrics");
    assert!(metrics.contains("tickgate_sidecar_files_refused{files=\"keys\"} 1"));
    let ada = stage.account.refresh(&ada).await.unwrap();
    fs::write(&file, key).unwrap();
    stage.dev.says(&["what they hold is in force", "keys"]);
    assert!(get(address, "/ready").ends_with("ready\n"));
    stage.account.refresh(&ada).await.unwrap();

    let certificate = stage.path().join(".tickgate/certs/sidecar.pem");
    let good = fs::read(&certificate).unwrap();
    fs::write(&certificate, b"no certificate").unwrap();
    stage.dev.says(&["ERROR", "cannot be used", "certificates"]);
    assert!(get(address, "/ready").ends_with("ready, but: certificates_refused\n"));
    fs::write(&certificate, good).unwrap();
    stage
        .dev
        .says(&["what they hold is in force", "certificates"]);
    assert!(get(address, "/ready").ends_with("ready\n"));
}
