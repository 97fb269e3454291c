//! A sidecar that runs, who calls it, and what stays when it is started again.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use tickgate::{
    certs::DevCerts,
    clock::Clock,
    control::{self, CarriedKey, GatewayDescription, GatewayHost, RevocationRange},
    id::{Incarnation, Lineage},
    proto::login_request,
    sidecar::{DEFAULT_CONNECT_TOKENS_PER_MINUTE, DEFAULT_REFRESHES_PER_MINUTE},
    tls,
};
pub(crate) use tickgate::{
    clock::{ManualTime, Timestamp},
    control::{LiveSeat, SeatReport},
    id::{PlayerGeneration, PlayerId, Revision, SessionId},
    proto::{
        self, RevokeWait, admin_service_client::AdminServiceClient,
        auth_service_client::AuthServiceClient, gateway_target,
    },
    rpc,
    sidecar::{
        Delivery, Environment, LoginConfig, LoginLimits, MIN_REFRESHES_PER_MINUTE, MailConfig,
        MasterKey, SessionLives, Sidecar, SidecarConfig, StoreChoice, TokenKeys,
    },
    tls::Identity,
    token::{LoginKey, RefreshKey, SessionKey, TransportMasterKey},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
pub(crate) use tonic::{Code, Request, Status, transport::Channel};

pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000);
pub(crate) const LOOPBACK: &str = "127.0.0.1:0";
/// Whom devices sign for.
pub(crate) const AUDIENCE: &str = "game.example.com";
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// What stays when a sidecar is started again: certificates, keys, file, time.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) certs: DevCerts,
    pub(crate) session_key: [u8; 32],
    pub(crate) refresh_key: [u8; 32],
    pub(crate) transport_key: [u8; 32],
    pub(crate) login_key: [u8; 32],
    pub(crate) time: ManualTime,
}

impl World {
    pub(crate) fn new() -> Self {
        let random = || {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).unwrap();
            bytes
        };
        Self {
            folder: tempfile::tempdir().unwrap(),
            certs: DevCerts::generate(&["eu".parse().unwrap()]).unwrap(),
            session_key: random(),
            refresh_key: random(),
            transport_key: random(),
            login_key: random(),
            time: ManualTime::starting_at(START),
        }
    }

    /// Another sidecar of the same deployment: the same certificates and keys, and a folder of its own.
    #[cfg(feature = "redis")]
    pub(crate) fn beside(&self) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            certs: self.certs.clone(),
            time: ManualTime::starting_at(START),
            ..*self
        }
    }

    pub(crate) fn config(&self) -> SidecarConfig {
        let loopback: SocketAddr = LOOPBACK.parse().unwrap();
        SidecarConfig {
            environment: Environment::Development,
            auth_listen: loopback,
            control_listen: loopback,
            admin_listen: loopback,
            identity: self.certs.sidecar.clone(),
            client_ca: vec![self.certs.ca.clone()],
            plain_text: false,
            keys: TokenKeys::new(
                SessionKey::from_bytes(&self.session_key),
                RefreshKey::from_bytes(&self.refresh_key),
                TransportMasterKey::from_bytes(&self.transport_key),
            ),
            login_key: LoginKey::from_bytes(&self.login_key),
            login: LoginConfig {
                otp: true,
                device_key: true,
                magic_link: true,
                password: true,
                audience: AUDIENCE.to_owned(),
                // All tests come from one address.
                limits: LoginLimits {
                    per_address: NonZeroU32::new(1_000_000).unwrap(),
                    per_email: NonZeroU32::new(1_000_000).unwrap(),
                    ..LoginLimits::default()
                },
                ..LoginConfig::default()
            },
            mail: Some(MailConfig {
                from: "no-reply@example.com".parse().unwrap(),
                game: "Foo".to_owned(),
                link: Some("https://game.example.com/in".to_owned()),
                delivery: Delivery::Spool(self.folder.path().join("mail")),
            }),
            lives: SessionLives::default(),
            connect_tokens_per_minute: DEFAULT_CONNECT_TOKENS_PER_MINUTE,
            refreshes_per_minute: DEFAULT_REFRESHES_PER_MINUTE,
            store: StoreChoice::Embedded(self.folder.path().join("store.redb")),
            clock: self.time.clock(),
            dev_login: true,
        }
    }

    pub(crate) fn channel(&self, address: SocketAddr, identity: Option<&Identity>) -> Channel {
        let tls = tls::rpc_client_config(std::slice::from_ref(&self.certs.ca), identity).unwrap();
        rpc::connect(&format!("https://{address}"), None, Some(tls)).unwrap()
    }

    /// Starts the sidecar, anew if it ran before.
    pub(crate) async fn start(self) -> Stage {
        let config = self.config();
        self.start_with(config).await
    }

    pub(crate) async fn start_with(self, config: SidecarConfig) -> Stage {
        let sidecar = Sidecar::start(config).await.unwrap();
        let addresses = sidecar.addresses();
        let backend = Some(&self.certs.backend);
        Stage {
            auth: AuthServiceClient::new(self.channel(addresses.auth, None)),
            admin: AdminServiceClient::new(self.channel(addresses.admin, backend)),
            sidecar,
            world: self,
        }
    }
}

/// A running sidecar with a player's and a backend's view of it.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) sidecar: Sidecar,
    pub(crate) auth: AuthServiceClient<Channel>,
    pub(crate) admin: AdminServiceClient<Channel>,
}

impl Stage {
    pub(crate) async fn up() -> Self {
        World::new().start().await
    }

    /// Shuts the sidecar down, while its clients stay connected: that holds nobody up.
    pub(crate) async fn down(self) -> World {
        self.sidecar.shutdown().await.unwrap();
        self.world
    }

    pub(crate) async fn restarted(self) -> Self {
        self.down().await.start().await
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.world.time.advance(by);
    }

    pub(crate) async fn login(&self, name: &str) -> proto::LoginResponse {
        let login = self.auth.clone().login(dev(name)).await;
        login.unwrap().into_inner()
    }

    /// A session that the backend brings.
    pub(crate) async fn create(&self, subject: &str) -> proto::CreateSessionResponse {
        let created = self.admin.clone().create_session(create(subject)).await;
        created.unwrap().into_inner()
    }

    pub(crate) async fn who_am_i(&self, token: &str) -> Result<proto::WhoAmIResponse, Status> {
        let request = with_bearer(proto::WhoAmIRequest {}, token);
        let me = self.auth.clone().who_am_i(request).await;
        me.map(tonic::Response::into_inner)
    }

    pub(crate) async fn refresh(
        &self,
        refresh_token: &str,
    ) -> Result<proto::RefreshResponse, Status> {
        let request = proto::RefreshRequest {
            refresh_token: refresh_token.to_owned(),
        };
        let refreshed = self.auth.clone().refresh(request).await;
        refreshed.map(tonic::Response::into_inner)
    }

    /// A connect token for the session of the bearer, for any gateway.
    pub(crate) async fn connect_token(&self, bearer: &str) -> Result<proto::ConnectTicket, Status> {
        let request = proto::IssueConnectTokenRequest {
            target: any(),
            ..Default::default()
        };
        let request = with_bearer(request, bearer);
        let ticket = self.auth.clone().issue_connect_token(request).await;
        ticket.map(tonic::Response::into_inner)
    }

    /// The same by the backend, for a session.
    pub(crate) async fn backend_token(
        &self,
        session_id: &str,
    ) -> Result<proto::ConnectTicket, Status> {
        let mut admin = self.admin.clone();
        let ticket = admin.issue_connect_token(issue(session_id)).await;
        ticket.map(tonic::Response::into_inner)
    }

    /// Attaches a gateway that does as it is told, and waits until it is attached.
    pub(crate) async fn attach(&self) -> Attached {
        let host = Arc::new(Puppet::default());
        let cancel = CancellationToken::new();
        let identity = Some(&self.world.certs.gateways[0].control);
        let channel = self
            .world
            .channel(self.sidecar.addresses().control, identity);
        let mut attached = host.attached.subscribe();
        tokio::spawn(control::gateway::run(
            channel,
            Arc::clone(&host) as Arc<dyn GatewayHost>,
            Clock::system(),
            cancel.clone(),
        ));
        attached.wait_for(|attached| *attached).await.unwrap();
        Attached {
            host,
            _cancel: cancel.drop_guard(),
        }
    }

    /// Has the gateway report, and waits until the sidecar has its count of seats.
    pub(crate) async fn reported(&self, gateway: &Attached, seats: u32) {
        gateway.host.ready.notify_one();
        let arrived = async {
            loop {
                let list = proto::ListGatewaysRequest {};
                let listed = self.admin.clone().list_gateways(list).await.unwrap();
                if listed.into_inner().gateways[0].seats == seats {
                    return;
                }
            }
        };
        let deadline = Duration::from_secs(10);
        tokio::time::timeout(deadline, arrived).await.unwrap();
    }
}

pub(crate) struct Attached {
    pub(crate) host: Arc<Puppet>,
    _cancel: tokio_util::sync::DropGuard,
}

/// A gateway without players of its own.
#[derive(Default)]
pub(crate) struct Puppet {
    pub(crate) attached: watch::Sender<bool>,
    pub(crate) keys: Mutex<Vec<CarriedKey>>,
    pub(crate) applied: watch::Sender<Revision>,
    pub(crate) report: Mutex<SeatReport>,
    pub(crate) ready: Arc<Notify>,
}

impl GatewayHost for Puppet {
    fn describe(&self) -> GatewayDescription {
        GatewayDescription {
            id: "eu".parse().unwrap(),
            incarnation: Incarnation(7),
            addresses: vec!["127.0.0.1:7777".parse().unwrap()],
            server_name: "gateway".to_owned(),
            certificate_sha256: vec![[7; 32]],
            capacity: 100,
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

    fn install_keys(&self, keys: &[CarriedKey]) {
        *self.keys.lock().unwrap() = keys.to_vec();
    }

    fn reset_log(&self, _: Lineage, revision: Revision, _: &[SessionId]) {
        self.applied.send_replace(revision);
    }

    fn apply_revocations(&self, range: &RevocationRange) {
        self.applied.send_replace(range.to);
    }

    fn idle_moved(&self, _sessions: &[(SessionId, Timestamp)]) {}

    fn drain(&self, _drain: control::Drain) {}

    fn heartbeat(&self, _: Timestamp, _: Revision) {}

    fn take_report(&self, report: &mut SeatReport) {
        let mut next = self.report.lock().unwrap();
        let seats = next.seats;
        *report = std::mem::take(&mut *next);
        next.seats = seats;
    }

    fn report_ready(&self) -> Arc<Notify> {
        Arc::clone(&self.ready)
    }
}

pub(crate) fn dev(name: &str) -> proto::LoginRequest {
    proto::LoginRequest {
        method: Some(login_request::Method::Dev(proto::DevLogin {
            name: name.to_owned(),
        })),
        link: false,
    }
}

pub(crate) fn with_bearer<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

pub(crate) fn any() -> Option<proto::GatewayTarget> {
    Some(proto::GatewayTarget {
        target: Some(gateway_target::Target::Any(true)),
    })
}

pub(crate) fn revoke(session_id: &str) -> proto::RevokeSessionRequest {
    proto::RevokeSessionRequest {
        session_id: session_id.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn create(subject: &str) -> proto::CreateSessionRequest {
    proto::CreateSessionRequest {
        subject: subject.to_owned(),
    }
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}

/// A backend's wish for a connect token for any gateway.
pub(crate) fn issue(session_id: &str) -> proto::AdminIssueConnectTokenRequest {
    proto::AdminIssueConnectTokenRequest {
        session_id: session_id.to_owned(),
        target: any(),
        ..Default::default()
    }
}
