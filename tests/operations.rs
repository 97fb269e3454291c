//! Holds docs/OPERATIONS.md to a development stack that runs: every metric that it lists is told, nothing else is, and they add up.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "a test file: its helpers may fail as its tests do"
)]

#[path = "support/scrape.rs"]
mod scrape;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use scrape::{Metric, Scrape};
use tickgate::{
    client::{Account, Backend, Connection, Endpoint, Session, Target, Ticket, Wait},
    role::dev::{self, DevJson, DevOptions},
    tls::{self, Identity},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PAGE: &str = include_str!("../docs/OPERATIONS.md");

/// The metrics that the page's tables list.
fn documented() -> BTreeSet<Metric> {
    let between_backticks = |cell: &str| cell.split('`').nth(1).map(str::to_owned);
    let rows = PAGE.lines().filter(|line| line.starts_with("| `tickgate_"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 7, "a cell is missing: {row}");
        assert!(!cells[4].is_empty(), "no meaning: {row}");
        let name = between_backticks(cells[1]).unwrap();
        (name, cells[2].to_owned(), between_backticks(cells[3]))
    })
    .collect()
}

/// A development stack in this process.
struct Stack {
    told: DevJson,
    account: Account,
    backend: Backend,
    endpoint: Endpoint,
    cancel: CancellationToken,
    running: JoinHandle<()>,
    _state: tempfile::TempDir,
}

impl Stack {
    async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut options = DevOptions::new(state.path());
        options.ephemeral_ports = true;
        let cancel = CancellationToken::new();
        let stopped = cancel.clone();
        let running = tokio::spawn(async move { dev::run(options, stopped).await.unwrap() });
        let directory: PathBuf = state.path().to_owned();
        let up = async {
            loop {
                if let Some(told) = DevJson::of_running(&directory).unwrap() {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(30), up)
            .await
            .unwrap();
        let ca = tls::load_certificates(&told.ca).unwrap();
        let backend = Identity::load(&told.backend_certificate, &told.backend_key).unwrap();
        Self {
            account: Account::connect(&told.auth_url, &ca).unwrap(),
            backend: Backend::connect(&told.admin_url, &ca, &backend).unwrap(),
            endpoint: Endpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            told,
            cancel,
            running,
            _state: state,
        }
    }

    async fn ticket(&self, session: &Session) -> Ticket {
        let target = Target::Gateway("gateway-1".parse().unwrap());
        self.account
            .issue_connect_token(session, target)
            .await
            .unwrap()
    }

    async fn join(&self, name: &str) -> (Session, Connection) {
        let session = self.account.login_dev(name).await.unwrap();
        let ticket = self.ticket(&session).await;
        let connection = self.endpoint.connect(&ticket).await.unwrap();
        (session, connection)
    }

    async fn gateway(&self) -> Scrape {
        Scrape::of(self.told.gateways[0].metrics_url.as_deref().unwrap()).await
    }

    async fn sidecar(&self) -> Scrape {
        Scrape::of(self.told.sidecar_metrics_url.as_deref().unwrap()).await
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_page_is_told_and_nothing_else_is() {
    let stack = Stack::start().await;
    let mut told = stack.gateway().await.metrics;
    told.extend(stack.sidecar().await.metrics);
    let documented = documented();
    let missing: Vec<_> = documented.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&documented).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "on the page and not told: {missing:?}\ntold and not on the page: {unknown:?}"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_add_up_after_some_play() {
    let stack = Stack::start().await;
    stack.gateway().await.adds_up();

    let (leaves, left) = stack.join("leaves").await;
    let (revoked, thrown_out) = stack.join("revoked").await;
    let (resumes, displaced) = stack.join("resumes").await;
    let (_, stays) = stack.join("stays").await;
    stack.gateway().await.adds_up();

    left.close();
    let done = stack
        .backend
        .revoke_session(revoked.id, Wait::Gateways(Duration::from_secs(5)));
    assert!(done.await.unwrap().acknowledged);
    thrown_out.closed().await;
    let again = stack.ticket(&resumes).await;
    let resumed = stack.endpoint.connect(&again).await.unwrap();
    displaced.closed().await;
    // The same token again, and a session that is over.
    assert!(stack.endpoint.connect(&again).await.is_err());
    assert!(stack.account.logout(&leaves).await.unwrap());

    let settled = async {
        loop {
            let scrape = stack.gateway().await;
            scrape.adds_up();
            // All of it may be over before the game has ticked once.
            if scrape.sum("tickgate_gateway_seat_ends_total") == 2.0
                && scrape.value("tickgate_gateway_verifies_total") > 0.0
            {
                return scrape;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let gateway = tokio::time::timeout(Duration::from_secs(10), settled)
        .await
        .unwrap();
    for (sample, value) in [
        ("tickgate_gateway_admissions_total{outcome=\"joined\"}", 4.0),
        (
            "tickgate_gateway_admissions_total{outcome=\"resumed\"}",
            1.0,
        ),
        ("tickgate_gateway_seats{state=\"live\"}", 2.0),
        ("tickgate_gateway_seat_ends_total{reason=\"left\"}", 1.0),
        (
            "tickgate_gateway_seat_ends_total{reason=\"session_revoked\"}",
            1.0,
        ),
        ("tickgate_gateway_refusals_total{code=\"token_used\"}", 1.0),
        ("tickgate_gateway_control_attached", 1.0),
        ("tickgate_gateway_draining", 0.0),
    ] {
        assert_eq!(gateway.value(sample), value, "{sample}");
    }
    assert_eq!(gateway.sum("tickgate_gateway_refusals_total"), 1.0);
    assert!(gateway.value("tickgate_gateway_control_staleness_seconds") < 5.0);
    let ticks = "tickgate_gateway_tick_duration_seconds";
    assert_eq!(
        gateway.value(&format!("{ticks}_count")),
        gateway.value(&format!("{ticks}_bucket{{le=\"+Inf\"}}"))
    );

    let sidecar = stack.sidecar().await;
    for (sample, value) in [
        ("tickgate_sidecar_logins_total{method=\"dev\"}", 4.0),
        (
            "tickgate_sidecar_connect_tokens_total{outcome=\"minted\"}",
            5.0,
        ),
        ("tickgate_sidecar_revocations_total{kind=\"session\"}", 1.0),
        ("tickgate_sidecar_revocations_total{kind=\"logout\"}", 1.0),
        ("tickgate_sidecar_gateways_attached", 2.0),
        ("tickgate_sidecar_revocation_head", 2.0),
        ("tickgate_sidecar_activity_rejected_total", 0.0),
        ("tickgate_sidecar_seats_rejected_total", 0.0),
    ] {
        assert_eq!(sidecar.value(sample), value, "{sample}");
    }
    drop((stays, resumed));
    stack.stop().await;
}
