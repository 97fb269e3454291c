//! A whole stack inside a test: a sidecar, gateways with a game that echoes, their control channels, all real and on loopback.

pub mod process;

use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tickgate::{
    certs::DevCerts,
    client::{
        Account, Backend, Closed, ConnectError, Connection, Endpoint, Session, Target, Ticket,
    },
    clock::{Clock, ManualTime, Timestamp},
    control,
    gateway::{Channel, Exchange, Gateway, GatewayConfig, Simulation},
    id::{GatewayId, SessionId},
    rpc,
    seat::{SeatChange, SeatTable},
    sidecar::{
        DEFAULT_CONNECT_TOKENS_PER_MINUTE, DEFAULT_REFRESHES_PER_MINUTE, Environment, LoginConfig,
        SessionLives, Sidecar, SidecarConfig, StoreChoice, TokenKeys,
    },
    tls,
    token::{LoginKey, RefreshKey, SessionKey, TransportMasterKey},
    wire::CloseCode,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// When the stack's time begins, and stays until a test moves it.
const START: Timestamp = Timestamp(1_700_000_000_000);
const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// The test's tick: short, so that tests are.
const TICK: Duration = Duration::from_millis(5);

/// Everything here takes a moment; a test that hangs shall fail and say where.
#[track_caller]
pub fn soon<T>(what: &'static str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(Duration::from_secs(30), future).await {
            Ok(value) => value,
            Err(_) => panic!("{what}: did not happen within 30 s ({place})"),
        }
    }
}

/// The authority and what survives its restart.
pub struct Stack {
    pub certs: DevCerts,
    pub time: ManualTime,
    pub sidecar: Sidecar,
    pub backend: Backend,
    pub account: Account,
    _folder: tempfile::TempDir,
}

impl Stack {
    /// A sidecar that knows gateways "one" and "two"; its time stands still.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same, with a sidecar that a test has changed.
    pub async fn start_with(change: impl FnOnce(&mut SidecarConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ids = ["one".parse().unwrap(), "two".parse().unwrap()];
        let certs = DevCerts::generate(&ids).unwrap();
        let time = ManualTime::starting_at(START);
        let mut config = sidecar_config(&certs, &folder.path().join("store.redb"), time.clock());
        change(&mut config);
        let sidecar = Sidecar::start(config).await.unwrap();
        let ca = std::slice::from_ref(&certs.ca);
        let url = |address: SocketAddr| format!("https://{address}");
        let backend =
            Backend::connect(&url(sidecar.addresses().admin), ca, &certs.backend).unwrap();
        let account = Account::connect(&url(sidecar.addresses().auth), ca).unwrap();
        Self {
            certs,
            time,
            sidecar,
            backend,
            account,
            _folder: folder,
        }
    }

    /// A gateway configuration with the id and QUIC certificate of gateway `id`, for a test to change.
    pub fn gateway_config(&self, id: &str) -> GatewayConfig {
        let id: GatewayId = id.parse().unwrap();
        let certs = self.certs.gateways.iter().find(|g| g.id == id).unwrap();
        let mut config = GatewayConfig::new(id, LOOPBACK, certs.quic.clone());
        config.server_name = tickgate::certs::DEV_SERVER_NAME.to_owned();
        config.clock = self.time.clock();
        config
    }

    /// Starts a gateway, attaches it to the sidecar, and plays an echo game on it.
    pub async fn gateway(&self, config: GatewayConfig) -> Host {
        Host::start(config, &self.certs, self.sidecar.addresses().control).await
    }

    /// A gateway as it comes.
    pub async fn plain_gateway(&self, id: &str) -> Host {
        self.gateway(self.gateway_config(id)).await
    }

    /// Logs a player in by name.
    pub async fn login(&self, name: &str) -> Session {
        soon("login", self.account.login_dev(name)).await.unwrap()
    }

    /// A connect token for a session, and where it leads.
    pub async fn ticket(&self, session: &Session, gateway: &str) -> Ticket {
        let target = Target::Gateway(gateway.parse().unwrap());
        soon("ticket", self.account.issue_connect_token(session, target))
            .await
            .unwrap()
    }

    /// A player in play on a gateway.
    pub async fn join(
        &self,
        name: &str,
        gateway: &str,
        endpoint: &Endpoint,
    ) -> (Session, Connection) {
        let session = self.login(name).await;
        let ticket = self.ticket(&session, gateway).await;
        let connection = connect(endpoint, &ticket).await.unwrap();
        (session, connection)
    }
}

/// Connects; waits as a client does while the gateway is not ready, which it is not for the moment until it has heard of the sidecar
/// after a leap of time.
pub async fn connect(endpoint: &Endpoint, ticket: &Ticket) -> Result<Connection, ConnectError> {
    let attempts = async {
        loop {
            match endpoint.connect(ticket).await {
                Err(ConnectError::Refused(Closed::Gateway {
                    code: CloseCode::GatewayNotReady,
                    ..
                })) => {
                    tokio::time::sleep(TICK).await;
                }
                outcome => return outcome,
            }
        }
    };
    soon("connect", attempts).await
}

pub fn sidecar_config(certs: &DevCerts, store: &Path, clock: Clock) -> SidecarConfig {
    SidecarConfig {
        environment: Environment::Development,
        auth_listen: LOOPBACK,
        control_listen: LOOPBACK,
        admin_listen: LOOPBACK,
        identity: certs.sidecar.clone(),
        client_ca: vec![certs.ca.clone()],
        plain_text: false,
        keys: TokenKeys::new(
            SessionKey::generate(),
            RefreshKey::generate(),
            TransportMasterKey::generate(),
        ),
        login_key: LoginKey::generate(),
        login: LoginConfig::default(),
        mail: None,
        lives: SessionLives::default(),
        connect_tokens_per_minute: DEFAULT_CONNECT_TOKENS_PER_MINUTE,
        refreshes_per_minute: DEFAULT_REFRESHES_PER_MINUTE,
        store: StoreChoice::Embedded(store.to_owned()),
        clock,
        dev_login: true,
    }
}

/// A gateway in the test's process, with its game and control channel.
pub struct Host {
    pub gateway: Gateway,
    pub seats: Arc<SeatTable>,
    pub changes: Arc<Mutex<Vec<SeatChange>>>,
    ticks: watch::Receiver<u64>,
    stop: CancellationToken,
    game: std::thread::JoinHandle<()>,
    control: tokio::task::JoinHandle<control::gateway::Ended>,
}

impl Host {
    /// Starts the gateway and waits until it is attached to the sidecar whose control channel is at `sidecar`.
    pub async fn start(config: GatewayConfig, certs: &DevCerts, sidecar: SocketAddr) -> Self {
        let identity = &certs
            .gateways
            .iter()
            .find(|g| g.id == config.id)
            .unwrap()
            .control;
        let tls = tls::rpc_client_config(std::slice::from_ref(&certs.ca), Some(identity)).unwrap();
        let channel = rpc::connect(&format!("https://{sidecar}"), None, Some(tls)).unwrap();
        let (gateway, simulation) = Gateway::start(config).unwrap();
        let stop = CancellationToken::new();
        let changes = Arc::new(Mutex::new(Vec::new()));
        let seats = simulation.seats();
        let (ticked, ticks) = watch::channel(0);
        let game = {
            let (stop, changes) = (stop.clone(), Arc::clone(&changes));
            std::thread::spawn(move || echo(simulation, &stop, &changes, &ticked))
        };
        let control = tokio::spawn(control::gateway::run(
            channel,
            gateway.host(),
            Clock::system(),
            stop.clone(),
        ));
        let host = Self {
            gateway,
            seats,
            changes,
            ticks,
            stop,
            game,
            control,
        };
        host.attached(true).await;
        host
    }

    /// Waits until the control channel is up, or down.
    pub async fn attached(&self, up: bool) {
        let mut attached = self.gateway.watch_attached();
        soon("attach or detach", attached.wait_for(|now| *now == up))
            .await
            .unwrap();
    }

    /// Whether the session has a live seat here.
    pub fn seats(&self, session: SessionId) -> bool {
        self.seats.is_session_authorized(session)
    }

    /// Waits until the game was told a change that `wanted` accepts.
    pub async fn told(
        &self,
        what: &'static str,
        wanted: impl Fn(&SeatChange) -> bool,
    ) -> SeatChange {
        let look = async {
            loop {
                if let Some(change) = self.changes.lock().unwrap().iter().find(|c| wanted(c)) {
                    return *change;
                }
                tokio::time::sleep(TICK).await;
            }
        };
        soon(what, look).await
    }

    /// Waits until all activity up to now is written: each session's turn comes once in a window of ticks.
    pub async fn activity_is_written(&self) {
        let mut ticks = self.ticks.clone();
        let last = *ticks.borrow() + u64::from(tickgate::seat::DEFAULT_WINDOW) + 1;
        soon("a window of ticks", ticks.wait_for(|now| *now >= last))
            .await
            .unwrap();
    }

    /// How often the game was told of a join.
    pub fn joins(&self) -> usize {
        let changes = self.changes.lock().unwrap();
        changes
            .iter()
            .filter(|change| matches!(change, SeatChange::Joined(_)))
            .count()
    }

    pub async fn stop(self) {
        let Self {
            gateway,
            stop,
            game,
            control,
            ..
        } = self;
        tokio::task::spawn_blocking(move || gateway.shutdown())
            .await
            .unwrap();
        stop.cancel();
        let _ = control.await.unwrap();
        tokio::task::spawn_blocking(move || game.join())
            .await
            .unwrap()
            .unwrap();
    }
}

/// A game that sends back what it gets, and notes who comes and goes.
fn echo(
    mut simulation: Simulation,
    stop: &CancellationToken,
    told: &Mutex<Vec<SeatChange>>,
    ticked: &watch::Sender<u64>,
) {
    while !stop.is_cancelled() {
        let Exchange {
            tick,
            changes,
            inputs,
            mut out,
            ..
        } = simulation.tick();
        ticked.send_replace(tick.0);
        told.lock().unwrap().extend_from_slice(changes);
        for input in inputs.iter() {
            match input.channel {
                Channel::Datagram => out.datagram(input.handle, input.payload),
                Channel::Message => out.message(input.handle, input.payload),
            };
        }
        drop(out);
        std::thread::sleep(TICK);
    }
}

/// A client's socket.
pub fn endpoint() -> Endpoint {
    Endpoint::bind(LOOPBACK).unwrap()
}

/// Sends a datagram until its echo comes: the connection carries traffic both ways.
pub async fn plays(connection: &Connection) {
    let ping = async {
        loop {
            connection
                .send_datagram(bytes::Bytes::from_static(b"ping"))
                .unwrap();
            let echo = tokio::time::timeout(Duration::from_millis(500), connection.recv_datagram());
            if let Ok(echo) = echo.await {
                assert_eq!(echo.unwrap().as_ref(), b"ping");
                return;
            }
        }
    };
    soon("an echo", ping).await;
}
