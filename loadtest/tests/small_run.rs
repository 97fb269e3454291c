//! A small run from end to end: a real stack in a child process, real QUIC, every villain, and the report.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod schema;

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Whether the machine was too busy for the figures to count. That is the guard's word and no failure of the run itself: what
/// must hold whatever the machine's load is checked all the same.
fn only_slow(reasons: &Value) -> bool {
    let slow = |reason: &Value| {
        let text = reason.as_str().unwrap();
        ["the generator ", "a generator thread was busy"]
            .iter()
            .any(|start| text.starts_with(start))
    };
    reasons.as_array().unwrap().iter().all(slow)
}

#[test]
fn fifty_clients_play_and_no_villain_gets_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "run",
            "--clients",
            "50",
            "--duration",
            "3s",
            "--revocations",
            "10",
        ])
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no report: {said}"));
    assert_eq!(schema::violations(&report), Vec::<String>::new());
    assert!(only_slow(&report["invalid_reasons"]), "{said}");
    assert_eq!(
        report["security_failures"],
        Value::Array(Vec::new()),
        "{said}"
    );

    let clients = &report["clients"];
    assert_eq!(clients["admitted"], 50, "{said}");
    assert_eq!(clients["revoked"], 10, "{said}");
    assert_eq!(clients["live_at_end"], 40, "{said}");
    assert_eq!(report["wrongly_admitted"], 0, "{said}");
    assert_eq!(report["revoke_to_close_us"]["count"], 10, "{said}");

    let expected = BTreeMap::from([
        ("expired", "token_expired"),
        ("forged", "token_rejected"),
        ("replayed", "token_used"),
        ("revoked", "session_revoked"),
        ("session_token", "token_rejected"),
        ("wrong_gateway", "token_rejected"),
    ]);
    for (kind, code) in expected {
        let villains = &report["villains"][kind];
        assert_eq!(villains["tried"], 8, "{kind}: {said}");
        assert_eq!(villains["refused_with"][code], 8, "{kind}: {said}");
        assert_eq!(villains["explained"], 8, "{kind}: {said}");
    }

    let loss = &report["loss"];
    let count = |name: &str| loss[name].as_u64().unwrap();
    assert_eq!(
        count("sent"),
        count("acked") + count("lost") + count("cut_off")
    );
    // 50 clients at 10 Hz for 3 s, less what the ten revoked ones did not send any more.
    assert!((1_200..=1_500).contains(&count("planned")), "{said}");
    assert_eq!(report["datagram_intended_us"]["count"], loss["acked"]);
}
