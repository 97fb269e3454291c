//! Both shells over real gRPC on loopback (plain TCP), between hosts that note what they are told.

mod hosts;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc::Receiver,
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server},
};

use self::hosts::{FakeGateway, FakeSidecar, Heard, LINEAGE, Told, key};
use super::{
    ATTACH_TIMEOUT, Drain, GatewayEvent, GatewayEventKind, GatewayHost, LiveSeat,
    MAX_MESSAGE_BYTES, Orders, Revocation, RevocationRange, SeatReport, SidecarHost,
    codec::encode_gateway,
    gateway::Ended,
    message::{Attach, FromGateway},
    sidecar::service_until,
};
use crate::{
    clock::{Clock, ManualTime, Timestamp},
    id::{Incarnation, PlayerGeneration, PlayerId, Revision, SessionId},
    proto::{self, control_service_client::ControlServiceClient},
    rpc::{Peer, Role},
};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn seat(n: u128) -> LiveSeat {
    LiveSeat {
        session: SessionId(n),
        player: PlayerId(n),
        player_generation: PlayerGeneration(1),
    }
}

fn range(from: u64, events: &[Revocation]) -> RevocationRange {
    RevocationRange {
        from: Revision(from),
        to: Revision(from + events.len() as u64),
        events: events.to_vec(),
    }
}

/// Awaits the first event that `wanted` maps to something.
async fn until<T, R>(events: &mut Receiver<T>, mut wanted: impl FnMut(T) -> Option<R>) -> R {
    let search = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap()
}

/// A sidecar's server in a runtime of its own, so that it can be killed with all its connections.
struct Process {
    runtime: Option<Runtime>,
    /// Where it is: shared with the gateways' channels, so that a successor can take its place on another port.
    address: Arc<Mutex<SocketAddr>>,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Process {
    fn start(host: Arc<dyn SidecarHost>) -> Self {
        Self::start_at(host, Arc::new(Mutex::new(([127, 0, 0, 1], 0).into())))
    }

    /// Starts and writes where to `address`.
    fn start_at(host: Arc<dyn SidecarHost>, address: Arc<Mutex<SocketAddr>>) -> Self {
        Self::start_by(Clock::system(), host, address)
    }

    /// The same by another clock.
    fn start_by(clock: Clock, host: Arc<dyn SidecarHost>, address: Arc<Mutex<SocketAddr>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        *address.lock().unwrap() = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let service = service_until(host, clock, shutdown.clone());
        let service = InterceptedService::new(service, as_gateway);
        let stopped = shutdown.clone().cancelled_owned();
        let server = runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
        });
        Self {
            runtime: Some(runtime),
            address,
            shutdown,
            server,
        }
    }

    fn channel(&self) -> Channel {
        let address = Arc::clone(&self.address);
        Endpoint::from_static("http://sidecar").connect_with_connector_lazy(tower::service_fn(
            move |_| {
                let address = *address.lock().unwrap();
                async move { TcpStream::connect(address).await.map(TokioIo::new) }
            },
        ))
    }

    fn run_gateway(&self, gateway: &Arc<FakeGateway>) -> (CancellationToken, JoinHandle<Ended>) {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(super::gateway::run(
            self.channel(),
            Arc::clone(gateway) as Arc<dyn GatewayHost>,
            Clock::system(),
            cancel.clone(),
        ));
        (cancel, task)
    }

    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Stands in for the TLS listener: who the caller's certificate says it is.
fn as_gateway(mut request: Request<()>) -> Result<Request<()>, Status> {
    let peer = Peer {
        address: request.remote_addr().unwrap(),
        role: Some(Role::Gateway("eu-1".parse().unwrap())),
    };
    request.extensions_mut().insert(peer);
    Ok(request)
}

#[tokio::test]
async fn a_gateway_attaches_follows_the_log_and_reports() {
    let old = Revocation::Player(PlayerId(9), PlayerGeneration(4));
    let (sidecar, mut heard) = FakeSidecar::new(vec![old]);
    let process = Process::start(sidecar.clone());
    let (gateway, mut told) = FakeGateway::new(1, vec![seat(12), seat(13)]);
    let (cancel, task) = process.run_gateway(&gateway);

    let mut first = Vec::new();
    until(&mut told, |event| {
        first.push(event);
        (first.len() == 4).then_some(())
    })
    .await;
    assert_eq!(
        first,
        [
            Told::Keys(vec![key()]),
            Told::Reset(LINEAGE, Revision(0), vec![SessionId(13)]),
            Told::Attached(Timestamp(1_000), Duration::from_secs(60)),
            Told::Applied(range(0, &[old])),
        ]
    );
    let presented = until(&mut heard, |event| match event {
        Heard::Attached(incarnation, seats) => Some((incarnation, seats)),
        _ => None,
    });
    let (incarnation, seats) = presented.await;
    assert_eq!(
        (incarnation, seats),
        (Incarnation(1), gateway.seats.clone())
    );

    let revoked = Revocation::Session(SessionId(12));
    let sent = crate::clock::Clock::system().now();
    sidecar.revoke(revoked);
    until(&mut told, |event| {
        (event == Told::Applied(range(1, &[revoked]))).then_some(())
    })
    .await;
    assert!(sent.elapsed() < Duration::from_secs(1));
    until(&mut heard, |event| {
        (event == Heard::Acknowledged(Revision(2))).then_some(())
    })
    .await;

    *gateway.report.lock().unwrap() = SeatReport {
        opened: vec![seat(14)],
        closed: vec![SessionId(12)],
        active: vec![SessionId(14)],
        seats: 1,
        ..SeatReport::default()
    };
    gateway.report_ready.notify_one();
    let mut reported = SeatReport::default();
    until(&mut heard, |event| {
        if let Heard::Report(part) = event {
            reported.opened.extend(part.opened);
            reported.closed.extend(part.closed);
            reported.active.extend(part.active);
        }
        (!reported.opened.is_empty() && !reported.active.is_empty()).then_some(())
    })
    .await;
    assert_eq!(reported.opened, [seat(14)]);
    assert_eq!(reported.closed, [SessionId(12)]);
    assert_eq!(reported.active, [SessionId(14)]);

    cancel.cancel();
    assert_eq!(task.await.unwrap(), Ended::Cancelled);
    until(&mut told, |event| (event == Told::Detached).then_some(())).await;
    until(&mut heard, |event| {
        matches!(event, Heard::Detached(_)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn many_seats_and_everything_beside_the_log_go_over_the_wire() {
    let (sidecar, mut heard) = FakeSidecar::new(Vec::new());
    let process = Process::start(sidecar.clone());
    // Three portions there, and three of the dead back.
    let seats: Vec<_> = (100..10_100).map(seat).collect();
    let mut dead: Vec<_> = seats.iter().map(|seat| seat.session).collect();
    sidecar.dead.lock().unwrap().extend(&dead);
    let (gateway, mut told) = FakeGateway::new(1, seats.clone());
    let event = GatewayEvent {
        at: Timestamp(7),
        kind: GatewayEventKind::Refused {
            reason: "token_expired".into(),
            code: 0x106,
        },
        session: None,
        token_sha256: Some([8; 32]),
        remote: Some("192.0.2.1:50000".parse().unwrap()),
    };
    *gateway.report.lock().unwrap() = SeatReport {
        seats: 10_000,
        draining: true,
        events: vec![event.clone(); 1_000],
        events_lost: 3,
        ..SeatReport::default()
    };
    let (_cancel, _task) = process.run_gateway(&gateway);
    let mut named = until(&mut heard, |event| match event {
        Heard::Attached(_, seats) => Some(seats),
        _ => None,
    })
    .await;
    named.sort_unstable_by_key(|seat| seat.session);
    assert_eq!(named, seats);
    let mut ended = until(&mut told, |event| match event {
        Told::Reset(_, _, dead) => Some(dead),
        _ => None,
    })
    .await;
    ended.sort_unstable();
    dead.sort_unstable();
    assert_eq!(ended, dead);
    let mut events = Vec::new();
    until(&mut heard, |heard| {
        if let Heard::Report(report) = heard {
            events.extend(report.events);
        }
        (events.len() == 1_000).then_some(())
    })
    .await;
    assert_eq!(events[999], event);

    *gateway.report.lock().unwrap() = SeatReport {
        seats: 10_000,
        certificate_sha256: Some(vec![[5; 32], [6; 32]]),
        ..SeatReport::default()
    };
    gateway.report_ready.notify_one();
    until(&mut heard, |heard| match heard {
        Heard::Report(report) => report
            .certificate_sha256
            .map(|hashes| assert_eq!(hashes, [[5; 32], [6; 32]])),
        _ => None,
    })
    .await;

    let moved = vec![(SessionId(100), Timestamp(9))];
    sidecar.order(Orders {
        keys: Some(vec![key(), key()]),
        idle_moved: moved.clone(),
        drain: Some(Drain::Within(Duration::from_secs(30))),
    });
    for expected in [
        Told::Keys(vec![key(), key()]),
        Told::Drain(Drain::Within(Duration::from_secs(30))),
        Told::IdleMoved(moved),
    ] {
        until(&mut told, |event| (event == expected).then_some(())).await;
    }
}

#[tokio::test]
async fn a_revocation_made_while_cut_off_is_applied_on_the_next_attach() {
    let first = Revocation::Session(SessionId(1));
    let missed = Revocation::Session(SessionId(2));
    let (sidecar, _heard) = FakeSidecar::new(vec![first]);
    let process = Process::start(sidecar);
    let (gateway, mut told) = FakeGateway::new(1, Vec::new());
    let (_cancel, _task) = process.run_gateway(&gateway);
    until(&mut told, |event| {
        (event == Told::Applied(range(0, &[first]))).then_some(())
    })
    .await;

    let address = Arc::clone(&process.address);
    process.kill();
    until(&mut told, |event| (event == Told::Detached).then_some(())).await;

    let (sidecar, mut heard) = FakeSidecar::new(vec![first, missed]);
    let _process = Process::start_at(sidecar, address);
    // From its position on, so without a snapshot, and what it has is not sent again.
    until(&mut told, |event| match event {
        Told::Reset(..) => panic!("the log was continued"),
        Told::Applied(applied) => {
            assert_eq!(applied, range(1, &[missed]));
            Some(())
        }
        _ => None,
    })
    .await;
    until(&mut heard, |event| {
        (event == Heard::Acknowledged(Revision(2))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_newer_process_fences_off_the_older_one() {
    let (sidecar, mut heard) = FakeSidecar::new(Vec::new());
    let process = Process::start(sidecar);
    let (older, mut older_told) = FakeGateway::new(1, Vec::new());
    let (_cancel, older_task) = process.run_gateway(&older);
    let attached = |event| matches!(event, Told::Attached(..)).then_some(());
    until(&mut older_told, attached).await;
    let (newer, mut newer_told) = FakeGateway::new(2, Vec::new());
    let (_cancel, _task) = process.run_gateway(&newer);
    until(&mut newer_told, attached).await;
    until(&mut older_told, |event| {
        (event == Told::Detached).then_some(())
    })
    .await;
    // For good, though nobody cancels it.
    let ended = tokio::time::timeout(PATIENCE, older_task).await;
    assert_eq!(ended.unwrap().unwrap(), Ended::Fenced);
    // The older one's stream leaves, the newer one's stays: its acknowledgements and reports go on.
    until(&mut heard, |event| match event {
        Heard::Detached(id) => {
            assert_eq!(id.0, 1);
            Some(())
        }
        _ => None,
    })
    .await;
    until(&mut heard, |event| {
        assert!(!matches!(event, Heard::Detached(_)));
        matches!(event, Heard::Report(_)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_graceful_shutdown_does_not_wait_for_gateways() {
    let (sidecar, _heard) = FakeSidecar::new(Vec::new());
    let mut process = Process::start(sidecar);
    let (gateway, mut told) = FakeGateway::new(1, Vec::new());
    let (_cancel, _task) = process.run_gateway(&gateway);
    until(&mut told, |event| {
        matches!(event, Told::Attached(..)).then_some(())
    })
    .await;
    process.shutdown.cancel();
    until(&mut told, |event| (event == Told::Detached).then_some(())).await;
    let served = tokio::time::timeout(PATIENCE, &mut process.server).await;
    served.unwrap().unwrap().unwrap();
}

/// The status with which a stream of these messages ends.
async fn refusal(process: &Process, messages: Vec<proto::GatewayMessage>) -> Status {
    let mut client = ControlServiceClient::new(process.channel());
    // Held open: the sidecar has to be the one who ends it.
    let messages =
        tokio_stream::StreamExt::chain(tokio_stream::iter(messages), tokio_stream::pending());
    let ended = async {
        let mut answers = client.attach(messages).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    };
    let ended: Result<(), Status> = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    ended.unwrap_err()
}

#[tokio::test]
async fn what_does_not_belong_ends_the_stream_with_a_fixed_status() {
    let (sidecar, _heard) = FakeSidecar::new(Vec::new());
    let process = Process::start(sidecar);
    let (gateway, _told) = FakeGateway::new(1, Vec::new());
    let attach = |id: &str| {
        let mut description = gateway.description.clone();
        description.id = id.parse().unwrap();
        encode_gateway(FromGateway::Attach(Box::new(Attach {
            gateway: description,
            position: None,
            draining: false,
            seat_count: 0,
            seats: Vec::new(),
            more_seats: false,
            keys: Vec::new(),
        })))
    };
    let heartbeat = encode_gateway(FromGateway::Heartbeat {
        seats: 0,
        draining: false,
    });
    let empty = proto::GatewayMessage { message: None };
    let long = encode_gateway(FromGateway::Activity(vec![
        SessionId(0);
        MAX_MESSAGE_BYTES / 16 + 1
    ]));
    let cases = [
        (vec![attach("eu-2")], Code::PermissionDenied),
        (vec![heartbeat], Code::InvalidArgument),
        (vec![empty.clone()], Code::InvalidArgument),
        (vec![long.clone()], Code::InvalidArgument),
        (vec![attach("eu-1"), empty], Code::InvalidArgument),
        (vec![attach("eu-1"), long], Code::InvalidArgument),
        (vec![attach("eu-1"), attach("eu-1")], Code::InvalidArgument),
    ];
    for (messages, code) in cases {
        assert_eq!(refusal(&process, messages).await.code(), code);
    }
}

#[tokio::test]
async fn an_attach_that_takes_too_long_is_told_so() {
    let time = ManualTime::starting_at(Timestamp(0));
    let (sidecar, mut heard) = FakeSidecar::new(Vec::new());
    *sidecar.hangs.lock().unwrap() = Some((time.clone(), ATTACH_TIMEOUT));
    let address = Arc::new(Mutex::new(([127, 0, 0, 1], 0).into()));
    let process = Process::start_by(time.clock(), sidecar, address);
    let (gateway, _told) = FakeGateway::new(1, Vec::new());
    let attach = encode_gateway(FromGateway::Attach(Box::new(Attach {
        gateway: gateway.description.clone(),
        position: None,
        draining: false,
        seat_count: 0,
        seats: Vec::new(),
        more_seats: false,
        keys: Vec::new(),
    })));
    let refused = refusal(&process, vec![attach]).await;
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert!(heard.try_recv().is_err(), "nobody was attached");
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let (sidecar, _heard) = FakeSidecar::new(Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(
        Server::builder()
            .add_service(super::sidecar::service(sidecar, Clock::system()))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
    let refused = ControlServiceClient::new(channel)
        .attach(tokio_stream::pending())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    server.abort();
}
