//! A sidecar's process, what the system says of it, and gateways that do as they are told.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tickgate::{
    client::{Account, Backend, Session},
    clock::{Clock, Timestamp},
    control::{
        self, CarriedKey, Drain, GatewayDescription, GatewayHost, LiveSeat, RevocationRange,
        SeatReport,
    },
    id::{GatewayId, Incarnation, Lineage, Revision, SessionId},
    rpc, tls,
};
use tokio::{
    runtime::Runtime,
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    process::{Deployment, SidecarProcess},
    rig::stopwatch,
};

/// Connections that the clients share, and calls at once on each.
pub(super) const CONNECTIONS: usize = 8;
pub(super) const CALLS_EACH: usize = 16;

pub(super) struct Stage {
    pub(super) runtime: Runtime,
    pub(super) deployment: Deployment,
    pub(super) sidecar: SidecarProcess,
}

impl Stage {
    /// A sidecar that knows these gateways, with `extra` lines in its configuration.
    pub(super) fn of(gateways: &[&str], extra: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let (deployment, sidecar) = {
            let _guard = runtime.enter();
            let deployment = Deployment::of(gateways);
            let sidecar = deployment.sidecar(extra);
            (deployment, sidecar)
        };
        Self {
            runtime,
            deployment,
            sidecar,
        }
    }

    /// Lines to the sidecar for backends, a connection each.
    pub(super) fn backends(&self) -> Vec<Backend> {
        let url = format!("https://{}", self.sidecar.admin);
        let certs = &self.deployment.certs;
        let ca = std::slice::from_ref(&certs.ca);
        let _guard = self.runtime.enter();
        let connect = || Backend::connect(&url, ca, &certs.backend).unwrap();
        (0..CONNECTIONS).map(|_| connect()).collect()
    }

    /// Lines to the sidecar for players, a connection each.
    pub(super) fn accounts(&self) -> Vec<Account> {
        let url = format!("https://{}", self.sidecar.auth);
        let ca = std::slice::from_ref(&self.deployment.certs.ca);
        let _guard = self.runtime.enter();
        let connect = || Account::connect(&url, ca).unwrap();
        (0..CONNECTIONS).map(|_| connect()).collect()
    }

    /// Sessions of as many players.
    pub(super) fn sessions(&self, wanted: usize) -> Vec<Session> {
        let backends = self.backends();
        self.runtime.block_on(async {
            let mut callers = JoinSet::new();
            let all = CONNECTIONS * CALLS_EACH;
            for caller in 0..all {
                let backend = backends[caller % CONNECTIONS].clone();
                callers.spawn(async move {
                    let mut sessions = Vec::new();
                    for account in (caller..wanted).step_by(all) {
                        let subject = format!("account-{account}");
                        sessions.push(backend.create_session(&subject).await.unwrap());
                    }
                    sessions
                });
            }
            callers.join_all().await.into_iter().flatten().collect()
        })
    }

    /// Attaches every gateway that the deployment has certificates for.
    pub(super) fn attach_all(&self) -> Vec<Attached> {
        let certs = &self.deployment.certs;
        let url = format!("https://{}", self.sidecar.control);
        let attached = certs.gateways.iter().enumerate().map(|(number, gateway)| {
            let ca = std::slice::from_ref(&certs.ca);
            let tls = tls::rpc_client_config(ca, Some(&gateway.control)).unwrap();
            let _guard = self.runtime.enter();
            let channel = rpc::connect(&url, None, Some(tls)).unwrap();
            let host = Arc::new(Puppet::new(gateway.id.clone(), number));
            let cancel = CancellationToken::new();
            self.runtime.spawn(control::gateway::run(
                channel,
                Arc::clone(&host) as Arc<dyn GatewayHost>,
                Clock::system(),
                cancel.clone(),
            ));
            let _cancel = cancel.drop_guard();
            Attached { host, _cancel }
        });
        let attached: Vec<_> = attached.collect();
        self.runtime.block_on(async {
            for one in &attached {
                let mut is_attached = one.host.attached.subscribe();
                is_attached.wait_for(|attached| *attached).await.unwrap();
            }
        });
        attached
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.sidecar.process.id());
        fs::read_to_string(path).unwrap()
    }

    /// Bytes of memory that the sidecar's process has for itself: heap and stacks, without its program and its files.
    pub(super) fn anonymous_bytes(&self) -> f64 {
        let status = self.proc("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        kilobytes.unwrap().parse::<f64>().unwrap() * 1_024.0
    }

    /// Seconds of processor time that the sidecar's process has taken, in itself and in the kernel, to the hundredth.
    pub(super) fn processor_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // The second field is the program's name in parentheses; of what follows, the 12th and 13th are hundredths of seconds (proc(5)).
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields = fields.split_whitespace().skip(11).take(2);
        fields
            .map(|field| field.parse::<f64>().unwrap())
            .sum::<f64>()
            / 100.0
    }
}

pub(super) struct Attached {
    pub(super) host: Arc<Puppet>,
    _cancel: DropGuard,
}

/// A gateway without players, which notes when its copy of the log has come how far.
pub(super) struct Puppet {
    id: GatewayId,
    number: usize,
    attached: watch::Sender<bool>,
    pub(super) applied: Mutex<Vec<(Instant, Revision)>>,
    ready: Arc<Notify>,
}

impl Puppet {
    fn new(id: GatewayId, number: usize) -> Self {
        Self {
            id,
            number,
            attached: watch::Sender::new(false),
            applied: Mutex::default(),
            ready: Arc::default(),
        }
    }

    fn note(&self, revision: Revision) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.push((stopwatch::start(), revision));
    }
}

impl GatewayHost for Puppet {
    fn describe(&self) -> GatewayDescription {
        let port = 10_000 + self.number as u16;
        GatewayDescription {
            id: self.id.clone(),
            incarnation: Incarnation(self.number as u128 + 1),
            addresses: vec![([127, 0, 0, 1], port).into()],
            server_name: "gateway".to_owned(),
            certificate_sha256: vec![[7; 32]],
            capacity: 10_000,
        }
    }

    fn live_seats(&self) -> Vec<LiveSeat> {
        Vec::new()
    }

    fn attached(&self, _: Timestamp, _: Duration) {
        self.attached.send_replace(true);
    }

    fn detached(&self) {
        self.attached.send_replace(false);
    }

    fn install_keys(&self, _: &[CarriedKey]) {}

    fn reset_log(&self, _: Lineage, revision: Revision, _: &[SessionId]) {
        self.note(revision);
    }

    fn apply_revocations(&self, range: &RevocationRange) {
        self.note(range.to);
    }

    fn idle_moved(&self, _: &[(SessionId, Timestamp)]) {}

    fn drain(&self, _: Drain) {}

    fn heartbeat(&self, _: Timestamp, _: Revision) {}

    fn take_report(&self, report: &mut SeatReport) {
        *report = SeatReport::default();
    }

    fn report_ready(&self) -> Arc<Notify> {
        Arc::clone(&self.ready)
    }
}
