//! The sidecar over real gRPC and real TLS on loopback: what it answers, whom it refuses, and what a restart keeps.
#![cfg(feature = "sidecar")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers may fail as its tests do"
)]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tickgate::{
    certs::DevCerts,
    clock::{Clock, ManualTime, Timestamp},
    control::{
        self, CarriedKey, GatewayDescription, GatewayHost, LiveSeat, RevocationRange, SeatReport,
    },
    id::{Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
    proto::{
        self, RevokeWait, admin_service_client::AdminServiceClient,
        auth_service_client::AuthServiceClient, gateway_target, login_request,
    },
    rpc,
    sidecar::{
        DEFAULT_CONNECT_TOKENS_PER_MINUTE, Environment, MasterKey, SessionLives, Sidecar,
        SidecarConfig, StartError, StoreChoice,
    },
    tls::{self, Identity},
    token::{RefreshKey, SessionKey, TransportMasterKey},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Channel};

const START: Timestamp = Timestamp(1_700_000_000_000);
const LOOPBACK: &str = "127.0.0.1:0";

/// What stays when a sidecar is started again: certificates, keys, file, time.
struct World {
    folder: tempfile::TempDir,
    certs: DevCerts,
    session_key: [u8; 32],
    refresh_key: [u8; 32],
    transport_key: [u8; 32],
    time: ManualTime,
}

impl World {
    fn new() -> Self {
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
            time: ManualTime::starting_at(START),
        }
    }

    fn config(&self) -> SidecarConfig {
        let loopback: SocketAddr = LOOPBACK.parse().unwrap();
        SidecarConfig {
            environment: Environment::Development,
            auth_listen: loopback,
            control_listen: loopback,
            admin_listen: loopback,
            identity: self.certs.sidecar.clone(),
            client_ca: vec![self.certs.ca.clone()],
            plain_text: false,
            session_key: SessionKey::from_bytes(&self.session_key),
            previous_session_key: None,
            refresh_key: RefreshKey::from_bytes(&self.refresh_key),
            previous_refresh_key: None,
            transport_key: MasterKey {
                epoch: 1,
                key: TransportMasterKey::from_bytes(&self.transport_key),
            },
            previous_transport_key: None,
            lives: SessionLives::default(),
            connect_tokens_per_minute: DEFAULT_CONNECT_TOKENS_PER_MINUTE,
            store: StoreChoice::Embedded(self.folder.path().join("store.redb")),
            clock: self.time.clock(),
            dev_login: true,
        }
    }

    async fn start(&self) -> Sidecar {
        Sidecar::start(self.config()).await.unwrap()
    }

    fn channel(&self, address: SocketAddr, identity: Option<&Identity>) -> Channel {
        let tls = tls::rpc_client_config(std::slice::from_ref(&self.certs.ca), identity).unwrap();
        rpc::connect(&format!("https://{address}"), None, Some(tls)).unwrap()
    }

    fn auth(&self, sidecar: &Sidecar) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel(sidecar.addresses().auth, None))
    }

    fn admin(&self, sidecar: &Sidecar) -> AdminServiceClient<Channel> {
        let backend = Some(&self.certs.backend);
        AdminServiceClient::new(self.channel(sidecar.addresses().admin, backend))
    }

    /// Attaches a gateway that does as it is told, and waits until it is attached.
    async fn attach(&self, sidecar: &Sidecar) -> Attached {
        let host = Arc::new(Puppet::default());
        let cancel = CancellationToken::new();
        let identity = Some(&self.certs.gateways[0].control);
        let channel = self.channel(sidecar.addresses().control, identity);
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
}

struct Attached {
    host: Arc<Puppet>,
    _cancel: tokio_util::sync::DropGuard,
}

/// A gateway without players of its own.
#[derive(Default)]
struct Puppet {
    attached: watch::Sender<bool>,
    keys: Mutex<Vec<CarriedKey>>,
    applied: watch::Sender<Revision>,
    report: Mutex<SeatReport>,
    ready: Arc<Notify>,
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

    fn drain(&self, _drain: tickgate::control::Drain) {}

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

fn dev(name: &str) -> proto::LoginRequest {
    proto::LoginRequest {
        method: Some(login_request::Method::Dev(proto::DevLogin {
            name: name.to_owned(),
        })),
    }
}

fn with_bearer<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn any() -> Option<proto::GatewayTarget> {
    Some(proto::GatewayTarget {
        target: Some(gateway_target::Target::Any(true)),
    })
}

fn revoke(session_id: &str) -> proto::RevokeSessionRequest {
    proto::RevokeSessionRequest {
        session_id: session_id.to_owned(),
        ..Default::default()
    }
}

fn create(subject: &str) -> proto::CreateSessionRequest {
    proto::CreateSessionRequest {
        subject: subject.to_owned(),
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}

#[tokio::test]
async fn a_player_logs_in_is_known_and_leaves() {
    let world = World::new();
    let sidecar = world.start().await;
    let mut auth = world.auth(&sidecar);
    let login = auth.login(dev("ada")).await.unwrap().into_inner();
    assert!(login.is_new_player);
    assert_eq!(login.expires_at_ms, START.0 + 15 * 60 * 1_000);
    assert_eq!(login.session_ends_at_ms, START.0 + 24 * 60 * 60 * 1_000);
    let token = &login.session_token;
    let me = auth
        .who_am_i(with_bearer(proto::WhoAmIRequest {}, token))
        .await;
    let me = me.unwrap().into_inner();
    assert_eq!(me.player_id, login.player_id);
    assert_eq!(me.session_id, login.session_id);
    assert_eq!((&*me.role, &*me.method), ("player", "dev"));

    let again = auth.login(dev("ada")).await.unwrap().into_inner();
    assert!(!again.is_new_player);
    assert_eq!(again.player_id, login.player_id);
    assert_ne!(again.session_id, login.session_id);

    // Another player's session is not even there; one's own other one is.
    let mallory = auth.login(dev("mallory")).await.unwrap().into_inner();
    let own = |id: &str| proto::RevokeOwnSessionRequest {
        session_id: id.to_owned(),
    };
    let stranger = with_bearer(own(&login.session_id), &mallory.session_token);
    assert_eq!(code(auth.revoke_session(stranger).await), Code::NotFound);
    for expected in [true, false] {
        let other = with_bearer(own(&again.session_id), token);
        let revoked = auth.revoke_session(other).await.unwrap().into_inner();
        assert_eq!(revoked.revoked, expected);
    }
    let itself = auth.revoke_session(with_bearer(own(""), token)).await;
    assert!(itself.unwrap().into_inner().revoked);
    let over = auth
        .who_am_i(with_bearer(proto::WhoAmIRequest {}, token))
        .await;
    assert_eq!(code(over), Code::Unauthenticated);
    sidecar.shutdown().await.unwrap();
}

#[tokio::test]
async fn bad_requests_get_clear_answers() {
    let world = World::new();
    let sidecar = world.start().await;
    let mut auth = world.auth(&sidecar);
    for bad in [
        dev(""),
        dev(&"x".repeat(65)),
        dev("a\nb"),
        proto::LoginRequest::default(),
    ] {
        assert_eq!(code(auth.login(bad).await), Code::InvalidArgument);
    }
    let nobody = auth.who_am_i(proto::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    assert!(nobody.message().contains("authorization"), "{nobody:?}");
    let forged = with_bearer(proto::WhoAmIRequest {}, "v4.local.AAAA");
    assert_eq!(code(auth.who_am_i(forged).await), Code::Unauthenticated);

    let login = auth.login(dev("ada")).await.unwrap().into_inner();
    let ask = |target| {
        with_bearer(
            proto::IssueConnectTokenRequest {
                target,
                ..Default::default()
            },
            &login.session_token,
        )
    };
    let nowhere = auth.issue_connect_token(ask(any())).await;
    assert_eq!(code(nowhere), Code::Unavailable);
    let unclear = auth.issue_connect_token(ask(None)).await;
    assert_eq!(code(unclear), Code::InvalidArgument);

    let mut tampered = login.session_token.clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let tampered = with_bearer(proto::WhoAmIRequest {}, &tampered);
    assert_eq!(code(auth.who_am_i(tampered).await), Code::Unauthenticated);
    // 15 minutes, and 5 seconds of leeway.
    world.time.advance(Duration::from_secs(15 * 60 + 5));
    let expired = with_bearer(proto::WhoAmIRequest {}, &login.session_token);
    let expired = auth.who_am_i(expired).await.unwrap_err();
    assert_eq!(expired.code(), Code::Unauthenticated);
    assert!(expired.message().contains("expired"), "{expired:?}");
    sidecar.shutdown().await.unwrap();
}

#[tokio::test]
async fn roles_are_what_certificates_say() {
    let world = World::new();
    let sidecar = world.start().await;
    let admin_address = sidecar.addresses().admin;
    let gateway = &world.certs.gateways[0].control;
    let mut as_gateway = AdminServiceClient::new(world.channel(admin_address, Some(gateway)));
    let list = || proto::ListGatewaysRequest {};
    assert_eq!(
        code(as_gateway.list_gateways(list()).await),
        Code::PermissionDenied
    );
    assert_eq!(
        code(as_gateway.create_session(create("x")).await),
        Code::PermissionDenied
    );
    let nobody = "0".repeat(26);
    assert_eq!(
        code(as_gateway.revoke_session(revoke(&nobody)).await),
        Code::PermissionDenied
    );
    let player = proto::RevokePlayerRequest::default();
    assert_eq!(
        code(as_gateway.revoke_player(player).await),
        Code::PermissionDenied
    );
    let issue = proto::AdminIssueConnectTokenRequest::default();
    assert_eq!(
        code(as_gateway.issue_connect_token(issue).await),
        Code::PermissionDenied
    );

    let mut anonymous = AdminServiceClient::new(world.channel(admin_address, None));
    assert!(
        anonymous.list_gateways(list()).await.is_err(),
        "TLS ends it"
    );

    let operator = Some(&world.certs.admin);
    let mut operator = AdminServiceClient::new(world.channel(admin_address, operator));
    let listed = operator.list_gateways(list()).await.unwrap().into_inner();
    assert!(listed.gateways.is_empty());
    sidecar.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_backend_brings_its_players() {
    let world = World::new();
    let sidecar = world.start().await;
    let gateway = world.attach(&sidecar).await;
    let mut admin = world.admin(&sidecar);
    for bad in [create(""), create(&"x".repeat(257))] {
        assert_eq!(code(admin.create_session(bad).await), Code::InvalidArgument);
    }
    let session = admin
        .create_session(create("steam:1"))
        .await
        .unwrap()
        .into_inner();
    assert!(session.is_new_player);
    let issue = |life_ms| proto::AdminIssueConnectTokenRequest {
        session_id: session.session_id.clone(),
        target: any(),
        life_ms,
        ..Default::default()
    };
    for (life_ms, lives) in [(0, 30_000), (1_000, 1_000), (300_000, 300_000)] {
        let ticket = admin
            .issue_connect_token(issue(life_ms))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(ticket.gateway_id, "eu");
        assert_eq!(ticket.server_name, "gateway");
        assert_eq!(ticket.addresses, ["127.0.0.1:7777"]);
        assert_eq!(ticket.expires_at_ms, START.0 + lives);
    }
    for out_of_range in [1, 999, 300_001, u32::MAX] {
        let refused = admin.issue_connect_token(issue(out_of_range)).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
    let elsewhere = |target| proto::AdminIssueConnectTokenRequest {
        target: Some(proto::GatewayTarget {
            target: Some(target),
        }),
        ..issue(0)
    };
    use gateway_target::Target;
    for (target, expected) in [
        (Target::GatewayId("us".into()), Code::NotFound),
        (Target::GatewayId("No Id".into()), Code::InvalidArgument),
        (Target::Address("127.0.0.1:1".into()), Code::NotFound),
        (Target::Address("localhost".into()), Code::InvalidArgument),
    ] {
        let refused = admin.issue_connect_token(elsewhere(target)).await;
        assert_eq!(code(refused), expected);
    }
    let by_address = elsewhere(Target::Address("127.0.0.1:7777".into()));
    assert!(admin.issue_connect_token(by_address).await.is_ok());

    let listed = admin.list_gateways(proto::ListGatewaysRequest {}).await;
    let listed = listed.unwrap().into_inner().gateways;
    assert_eq!(listed.len(), 1);
    assert_eq!((&*listed[0].id, listed[0].capacity), ("eu", 100));
    let keys = gateway.host.keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 1, "the gateway has its key");
    assert_eq!(keys[0].epoch, 1);
    sidecar.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_revocation_waits_for_gateways() {
    let world = World::new();
    let sidecar = world.start().await;
    let gateway = world.attach(&sidecar).await;
    let mut admin = world.admin(&sidecar);
    let session = admin
        .create_session(create("steam:1"))
        .await
        .unwrap()
        .into_inner();
    let waiting = |session_id: &str| proto::RevokeSessionRequest {
        wait: RevokeWait::Gateways.into(),
        wait_ms: 20_000,
        ..revoke(session_id)
    };
    let first = admin.revoke_session(waiting(&session.session_id)).await;
    let expected = proto::RevokeResponse {
        sessions_ended: 1,
        revision: 1,
        acknowledged: true,
    };
    assert_eq!(first.unwrap().into_inner(), expected);
    assert_eq!(*gateway.host.applied.borrow(), Revision(1));
    let again = admin.revoke_session(waiting(&session.session_id)).await;
    let already = proto::RevokeResponse {
        sessions_ended: 0,
        ..expected
    };
    assert_eq!(again.unwrap().into_inner(), already);

    let mut players = Vec::new();
    for _ in 0..3 {
        players.push(
            admin
                .create_session(create("steam:1"))
                .await
                .unwrap()
                .into_inner(),
        );
    }
    let all = proto::RevokePlayerRequest {
        player_id: players[0].player_id.clone(),
        wait: RevokeWait::Gateways.into(),
        wait_ms: 0,
    };
    let all = admin.revoke_player(all).await.unwrap().into_inner();
    let expected = proto::RevokeResponse {
        sessions_ended: 3,
        revision: 2,
        acknowledged: true,
    };
    assert_eq!(all, expected);

    // Too long a wait is cut short: it must not keep a session alive.
    let patient = admin
        .create_session(create("steam:2"))
        .await
        .unwrap()
        .into_inner();
    let too_long = proto::RevokeSessionRequest {
        wait_ms: 60_000,
        ..waiting(&patient.session_id)
    };
    let revoked = admin.revoke_session(too_long).await.unwrap().into_inner();
    assert_eq!((revoked.sessions_ended, revoked.acknowledged), (1, true));
    let unknown = SessionId(7).to_string();
    assert_eq!(
        code(admin.revoke_session(revoke(&unknown)).await),
        Code::NotFound
    );
    assert_eq!(
        code(admin.revoke_session(revoke("?")).await),
        Code::InvalidArgument
    );
    let unknown = proto::RevokePlayerRequest {
        player_id: PlayerId(7).to_string(),
        ..Default::default()
    };
    assert_eq!(code(admin.revoke_player(unknown).await), Code::NotFound);
    let ended = proto::AdminIssueConnectTokenRequest {
        session_id: session.session_id,
        target: any(),
        life_ms: 0,
        ..Default::default()
    };
    assert_eq!(
        code(admin.issue_connect_token(ended).await),
        Code::FailedPrecondition
    );
    sidecar.shutdown().await.unwrap();
}

/// Has the gateway report, and waits until the sidecar has its count of seats.
async fn reported(gateway: &Attached, admin: &mut AdminServiceClient<Channel>, seats: u32) {
    gateway.host.ready.notify_one();
    let arrived = async {
        loop {
            let listed = admin.list_gateways(proto::ListGatewaysRequest {}).await;
            if listed.unwrap().into_inner().gateways[0].seats == seats {
                return;
            }
        }
    };
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, arrived).await.unwrap();
}

#[tokio::test]
async fn activity_at_a_gateway_keeps_a_session_alive() {
    let world = World::new();
    let sidecar = world.start().await;
    let gateway = world.attach(&sidecar).await;
    let mut admin = world.admin(&sidecar);
    let session = admin
        .create_session(create("steam:1"))
        .await
        .unwrap()
        .into_inner();
    let id: SessionId = session.session_id.parse().unwrap();
    let seat = LiveSeat {
        session: id,
        player: session.player_id.parse().unwrap(),
        player_generation: PlayerGeneration(0),
    };
    let half_an_hour = Duration::from_secs(30 * 60);
    world.time.advance(half_an_hour);
    *gateway.host.report.lock().unwrap() = SeatReport {
        opened: vec![seat],
        closed: Vec::new(),
        active: vec![id],
        seats: 1,
        ..SeatReport::default()
    };
    reported(&gateway, &mut admin, 1).await;
    // A count follows the reports that were taken before it.
    gateway.host.report.lock().unwrap().seats = 2;
    reported(&gateway, &mut admin, 2).await;
    world.time.advance(half_an_hour + Duration::from_secs(60));
    let issue = || proto::AdminIssueConnectTokenRequest {
        session_id: session.session_id.clone(),
        target: any(),
        life_ms: 0,
        ..Default::default()
    };
    assert!(admin.issue_connect_token(issue()).await.is_ok());
    world.time.advance(half_an_hour);
    let idle = admin.issue_connect_token(issue()).await;
    assert_eq!(code(idle), Code::FailedPrecondition);
    sidecar.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_sessions_and_revocations() {
    let world = World::new();
    let sidecar = world.start().await;
    let mut auth = world.auth(&sidecar);
    let kept = auth.login(dev("ada")).await.unwrap().into_inner();
    let revoked = auth.login(dev("bob")).await.unwrap().into_inner();
    let mut admin = world.admin(&sidecar);
    let first = admin
        .revoke_session(revoke(&revoked.session_id))
        .await
        .unwrap();
    assert_eq!(first.into_inner().sessions_ended, 1);
    // Clients stay connected: that holds nobody up.
    sidecar.shutdown().await.unwrap();

    let sidecar = world.start().await;
    let mut auth = world.auth(&sidecar);
    let me = |token: &str| with_bearer(proto::WhoAmIRequest {}, token);
    let found = auth.who_am_i(me(&kept.session_token)).await.unwrap();
    assert_eq!(found.into_inner().session_id, kept.session_id);
    let over = auth.who_am_i(me(&revoked.session_token)).await;
    assert_eq!(code(over), Code::Unauthenticated);
    let mut admin = world.admin(&sidecar);
    let again = admin.revoke_session(revoke(&revoked.session_id)).await;
    let expected = proto::RevokeResponse {
        sessions_ended: 0,
        revision: 1,
        acknowledged: false,
    };
    assert_eq!(again.unwrap().into_inner(), expected);
    // Dropped instead of shut down: what was acknowledged is safe all the same.
    admin
        .revoke_session(revoke(&kept.session_id))
        .await
        .unwrap();
    drop(sidecar);
    let store = world.folder.path().join("store.redb");
    let copy = World {
        folder: tempfile::tempdir().unwrap(),
        ..world
    };
    std::fs::copy(store, copy.folder.path().join("store.redb")).unwrap();
    let sidecar = copy.start().await;
    let over = copy.auth(&sidecar).who_am_i(me(&kept.session_token)).await;
    assert_eq!(code(over), Code::Unauthenticated);
    sidecar.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stalled_call_does_not_hold_up_shutdown() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let world = World::new();
    let sidecar = world.start().await;
    let _gateway = world.attach(&sidecar).await;
    let channel = world.channel(sidecar.addresses().auth, None);
    // A health watch has no end of its own.
    let watch = HealthClient::new(channel)
        .watch(HealthCheckRequest::default())
        .await;
    let mut watch = watch.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let shutdown = tokio::time::timeout(Duration::from_secs(20), sidecar.shutdown());
    shutdown.await.unwrap().unwrap();
}

#[tokio::test]
async fn health_and_reflection_answer_on_each_listener() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let world = World::new();
    let sidecar = world.start().await;
    let addresses = sidecar.addresses();
    let backend = Some(&world.certs.backend);
    for (address, identity, service) in [
        (addresses.auth, None, "tickgate.v1.AuthService"),
        (addresses.control, backend, "tickgate.v1.ControlService"),
        (addresses.admin, backend, "tickgate.v1.AdminService"),
    ] {
        let channel = world.channel(address, identity);
        for name in ["", service] {
            let request = HealthCheckRequest {
                service: name.to_owned(),
            };
            let health = HealthClient::new(channel.clone()).check(request).await;
            assert_eq!(health.unwrap().into_inner().status, 1, "{service}: SERVING");
        }
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let stream = tokio_stream::once(list);
        let answers = ServerReflectionClient::new(channel)
            .server_reflection_info(stream)
            .await;
        let answer = answers
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
        let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
            panic!("{answer:?}");
        };
        assert!(
            services.service.iter().any(|s| s.name == service),
            "{services:?}"
        );
    }
    sidecar.shutdown().await.unwrap();
}

#[tokio::test]
async fn conveniences_are_for_development_on_loopback() {
    let world = World::new();
    let refused = |config| async { Sidecar::start(config).await.unwrap_err() };
    let production = || SidecarConfig {
        environment: Environment::Production,
        ..world.config()
    };
    assert_eq!(
        refused(production()).await.label(),
        "convenience_in_production"
    );
    let plain = SidecarConfig {
        dev_login: false,
        plain_text: true,
        ..production()
    };
    assert_eq!(refused(plain).await.label(), "convenience_in_production");
    let exposed = SidecarConfig {
        admin_listen: "0.0.0.0:0".parse().unwrap(),
        ..world.config()
    };
    let error = refused(exposed).await;
    assert_eq!(error.label(), "convenience_exposed");
    assert!(error.to_string().contains("0.0.0.0:0"), "{error}");

    let without = SidecarConfig {
        dev_login: false,
        ..production()
    };
    let sidecar = Sidecar::start(without).await.unwrap();
    let login = world.auth(&sidecar).login(dev("ada")).await;
    assert_eq!(code(login), Code::PermissionDenied);
    sidecar.shutdown().await.unwrap();

    let plain = SidecarConfig {
        plain_text: true,
        ..world.config()
    };
    let sidecar = Sidecar::start(plain).await.unwrap();
    let url = format!("http://{}", sidecar.addresses().auth);
    let channel = rpc::connect(&url, None, None).unwrap();
    assert!(
        AuthServiceClient::new(channel)
            .login(dev("ada"))
            .await
            .is_ok()
    );
    sidecar.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_bad_configuration_does_not_start() {
    let world = World::new();
    let refused = |config| async { Sidecar::start(config).await.unwrap_err() };
    let shared = SidecarConfig {
        session_key: SessionKey::from_bytes(&world.transport_key),
        ..world.config()
    };
    assert!(matches!(refused(shared).await, StartError::SharedKey(_)));
    let epochs = SidecarConfig {
        previous_transport_key: Some(MasterKey {
            epoch: 1,
            key: TransportMasterKey::generate(),
        }),
        ..world.config()
    };
    assert!(matches!(refused(epochs).await, StartError::SameEpoch(1)));
    let lives = SidecarConfig {
        lives: SessionLives {
            connect_token: Duration::from_secs(301),
            ..SessionLives::default()
        },
        ..world.config()
    };
    let error = refused(lives).await;
    assert_eq!(
        error.to_string(),
        "the connect token life must be at most 5 min"
    );
    let taken = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let taken = SidecarConfig {
        control_listen: taken.local_addr().unwrap(),
        ..world.config()
    };
    assert_eq!(
        refused(taken).await.label(),
        "bind",
        "the listener above is dropped only here"
    );
    let nowhere = SidecarConfig {
        store: StoreChoice::Embedded(Path::new("/nowhere/store.redb").to_owned()),
        ..world.config()
    };
    assert_eq!(refused(nowhere).await.label(), "store_inaccessible");
}
