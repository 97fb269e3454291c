//! A gateway's process with a processor to itself, and its honest players.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tickgate::client::{Account, Backend, Connection, Endpoint, Session, Target, Ticket};
use tokio::runtime::Runtime;

use super::scrape::Scrape;
use crate::process::{Deployment, GatewayProcess, SidecarProcess};

/// Where the gateway tells its metrics.
const METRICS: &str = "127.0.0.1:17999";

pub(super) struct Stage {
    pub(super) runtime: Runtime,
    _deployment: Deployment,
    sidecar: SidecarProcess,
    pub(super) gateway: GatewayProcess,
}

/// Keeps a process, with all its threads, on one processor.
fn pin(process: u32, processor: usize) {
    let status = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid"])
        .arg(processor.to_string())
        .arg(process.to_string())
        .stdout(Stdio::null())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "taskset is missing"
    );
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with("")
    }

    /// A gateway with `extra` lines in its `[gateway]` section.
    pub(super) fn with(extra: &str) -> Self {
        let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        // What this process starts from now on inherits it.
        pin(std::process::id(), last);
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        let deployment = Deployment::of(&["a"]);
        let sidecar = deployment.sidecar("");
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let extra = format!("metrics_listen = \"{METRICS}\"\n{extra}");
        let gateway = deployment.gateway_with("a", anywhere, sidecar.control, "a.state", &extra);
        pin(gateway.process.id(), 0);
        drop(guard);
        let stage = Self {
            runtime,
            _deployment: deployment,
            sidecar,
            gateway,
        };
        stage.runtime.block_on(async {
            while stage
                .sidecar
                .backend
                .list_gateways()
                .await
                .unwrap()
                .is_empty()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        stage
    }

    /// Sessions of as many players.
    pub(super) fn sessions(&self, count: usize) -> Vec<Session> {
        self.runtime.block_on(async {
            let mut sessions = Vec::new();
            for n in 0..count {
                let session = self.sidecar.account.login_dev(&format!("player-{n}")).await;
                sessions.push(session.unwrap());
            }
            sessions
        })
    }

    pub(super) fn backend(&self) -> Backend {
        self.sidecar.backend.clone()
    }

    /// Lets time pass for everybody else.
    pub(super) fn pause(&self, time: Duration) {
        // Made within the runtime: a timer asks for it when it is made.
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }

    pub(super) fn tickets(&self) -> Tickets {
        Tickets(self.sidecar.account.clone())
    }

    pub(super) fn ticket(&self, session: &Session) -> Ticket {
        self.runtime.block_on(self.tickets().get(session))
    }

    /// Bytes of memory that the gateway's process has for itself.
    pub(super) fn anonymous_bytes(&self) -> f64 {
        let path = format!("/proc/{}/status", self.gateway.process.id());
        let status = fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        kilobytes.unwrap().parse::<f64>().unwrap() * 1_024.0
    }

    pub(super) fn scrape(&self) -> Scrape {
        self.runtime
            .block_on(Scrape::of(&format!("http://{METRICS}")))
    }
}

#[derive(Clone)]
pub(super) struct Tickets(Account);

impl Tickets {
    pub(super) async fn get(&self, session: &Session) -> Ticket {
        let target = Target::Gateway("a".parse().unwrap());
        self.0.issue_connect_token(session, target).await.unwrap()
    }
}

/// The ticks between two looks at the metrics: how many, and what part of them took longer than the bound that is nearest below half
/// of 60 Hz's interval (7.8 of 8.3 ms).
pub(super) fn late_ticks(before: &Scrape, after: &Scrape) -> (f64, f64) {
    let name = "tickgate_gateway_tick_duration_seconds";
    let between = |sample: &str| after.value(sample) - before.value(sample);
    let all = between(&format!("{name}_count"));
    let in_time = between(&format!("{name}_bucket{{le=\"0.007812\"}}"));
    (all, (all - in_time) / all)
}

/// A client in a network of its own, 127.90.n.1: how long it took to be let in, with what it is told again and again to retry.
pub(super) async fn come(
    number: usize,
    session: Session,
    tickets: Tickets,
) -> (Duration, Option<(Endpoint, Connection)>) {
    let local = Ipv4Addr::new(127, 90, (number % 250) as u8, (number / 250) as u8 + 1);
    let endpoint = Endpoint::bind((local, 0).into()).unwrap();
    let mut ticket = tickets.get(&session).await;
    let start = Instant::now();
    loop {
        match endpoint.connect(&ticket).await {
            Ok(connection) => return (start.elapsed(), Some((endpoint, connection))),
            Err(_) if start.elapsed() < Duration::from_secs(30) => {
                ticket = tickets.get(&session).await;
            }
            Err(_) => return (start.elapsed(), None),
        }
    }
}
