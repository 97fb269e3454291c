//! A load run against a development stack, and what the stack's metrics say of it afterwards: they add up, and agree with the report.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

#[path = "../../tests/support/scrape.rs"]
mod scrape;

use std::{process::Command, time::Duration};

use scrape::Scrape;
use serde_json::Value;
use tickgate::role::dev::{self, DevJson, DevOptions};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_agree_with_the_report_of_a_load_run() {
    let state = tempfile::tempdir().unwrap();
    let mut options = DevOptions::new(state.path());
    options.ephemeral_ports = true;
    let cancel = CancellationToken::new();
    let stack = tokio::spawn(dev::run(options, cancel.clone()));
    let up = async {
        loop {
            if let Some(told) = DevJson::of_running(state.path()).unwrap() {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), up)
        .await
        .unwrap();

    let file = state.path().join("report.json");
    let mut run = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    run.args([
        "run",
        "--clients",
        "50",
        "--duration",
        "3s",
        "--revocations",
        "10",
    ])
    .arg("--dev-json")
    .arg(state.path().join("dev.json"))
    .arg("--json")
    .arg(&file);
    let output = tokio::task::spawn_blocking(move || run.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["clients"]["admitted"], 50, "{said}");

    // Every client has gone by now; the last of them may still be on their way out.
    let url = told.gateways[0].metrics_url.as_deref().unwrap();
    let settled = async {
        loop {
            let scrape = Scrape::of(url).await;
            scrape.adds_up();
            if scrape.value("tickgate_gateway_seats{state=\"live\"}") == 0.0 {
                return scrape;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let gateway = tokio::time::timeout(Duration::from_secs(20), settled)
        .await
        .unwrap();
    // The owners of the replayed tokens play as well.
    let replayed = report["villains"]["replayed"]["tried"].as_f64().unwrap();
    assert_eq!(
        gateway.value("tickgate_gateway_admissions_total{outcome=\"joined\"}"),
        50.0 + replayed
    );
    assert_eq!(
        gateway.value("tickgate_gateway_seat_ends_total{reason=\"session_revoked\"}"),
        10.0
    );
    for (code, kinds) in [
        ("token_expired", &["expired"][..]),
        (
            "token_rejected",
            &["forged", "session_token", "wrong_gateway"],
        ),
        ("token_used", &["replayed"]),
        ("session_revoked", &["revoked"]),
    ] {
        let tried = kinds
            .iter()
            .map(|kind| report["villains"][kind]["refused"].as_f64().unwrap());
        let counted = format!("tickgate_gateway_refusals_total{{code=\"{code}\"}}");
        assert_eq!(gateway.value(&counted), tried.sum::<f64>(), "{code}");
    }
    let sidecar = Scrape::of(told.sidecar_metrics_url.as_deref().unwrap()).await;
    // The revoked players, and the revoked villains.
    assert_eq!(sidecar.value("tickgate_sidecar_revocation_head"), 18.0);
    assert_eq!(sidecar.value("tickgate_sidecar_revocation_lag"), 0.0);

    cancel.cancel();
    stack.await.unwrap().unwrap();
}
