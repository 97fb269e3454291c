//! A gateway's life, over real QUIC: it drains, its certificate changes, and it is killed and comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use support::{Stack, connect, endpoint, plays, soon};
use tickgate::{
    certs::{DEV_SERVER_NAME, DevCerts, quic_identity},
    client::{Closed, ConnectError, Endpoint, SecretToken, Ticket},
    clock::{ManualTime, Timestamp},
    gateway::{Gateway, GatewayConfig},
    id::{ClientId, PlayerGeneration, PlayerId, SessionId},
    seat::{Connection, EndReason, Grant, SeatChange},
    tls::Identity,
    wire::CloseCode,
};
use tokio::task::JoinSet;

async fn refused(endpoint: &Endpoint, ticket: &Ticket) -> CloseCode {
    match connect(endpoint, ticket).await {
        Err(ConnectError::Refused(Closed::Gateway { code, .. })) => code,
        Err(other) => panic!("refused otherwise: {other:?}"),
        Ok(_) => panic!("admitted"),
    }
}

fn pinned_to(ticket: &Ticket, pins: &[[u8; 32]]) -> Ticket {
    Ticket {
        certificate_sha256: pins.to_vec(),
        ..ticket.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_players_finish_and_ends_at_its_deadline() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let endpoint = endpoint();
    let (_, ann) = stack.join("ann", "one", &endpoint).await;
    let (bob, _bob) = stack.join("bob", "one", &endpoint).await;
    let cid = stack.login("cid").await;
    let ticket = stack.ticket(&cid, "one").await;
    let minute = Duration::from_secs(60);

    gateway.gateway.drain(minute);
    assert!(!gateway.gateway.is_drained());
    assert_eq!(refused(&endpoint, &ticket).await, CloseCode::Drained);
    plays(&ann).await;

    // Called off: the same token still opens.
    gateway.gateway.cancel_drain();
    let cid = connect(&endpoint, &ticket).await.unwrap();
    cid.close();

    gateway.gateway.drain(minute);
    stack.time.advance(minute);
    soon("drained", gateway.gateway.drained()).await;
    assert!(gateway.gateway.is_drained());
    match soon("close", ann.closed()).await {
        Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::Drained),
        other => panic!("{other:?}"),
    }
    assert!(!gateway.seats(bob.id));
    let drained = |change: &SeatChange| matches!(change, SeatChange::Ended { reason: EndReason::Drained, session, .. } if *session == bob.id);
    gateway.told("bob's end", drained).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_done_when_the_last_has_left() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let endpoint = endpoint();
    let (_, ann) = stack.join("ann", "one", &endpoint).await;
    gateway.gateway.drain(Duration::from_secs(3_600));
    plays(&ann).await;
    assert!(!gateway.gateway.is_drained());
    ann.close();
    soon("drained", gateway.gateway.drained()).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_certificate_is_announced_first_and_served_alone_later() {
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    config.next_certificate_lead = Duration::from_secs(2);
    let first = config.identity.fingerprint();
    let gateway = stack.gateway(config).await;
    let endpoint = endpoint();
    let (_, ann) = stack.join("ann", "one", &endpoint).await;
    let announced = || gateway.gateway.host().describe().certificate_sha256;
    assert_eq!(announced(), [first]);

    let session = stack.login("bob").await;
    let ticket = stack.ticket(&session, "one").await;
    let old = pinned_to(&ticket, &[first]);
    let next = quic_identity(DEV_SERVER_NAME).unwrap();
    let second = next.fingerprint();
    gateway.gateway.rotate_certificate(next).unwrap();
    assert_eq!(announced(), [first, second]);
    soon("the first still serves", endpoint.handshake(&old))
        .await
        .unwrap();

    soon("the switch", async {
        while announced() != [second] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    match soon("the first serves no more", endpoint.handshake(&old)).await {
        Err(ConnectError::Refused(Closed::Transport(failure))) => assert!(!failure.by_peer),
        other => panic!("{other:?}"),
    }
    let new = pinned_to(&ticket, &[first, second]);
    let bob = connect(&endpoint, &new).await.unwrap();
    plays(&bob).await;
    // Who was in before stays in.
    plays(&ann).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_certificate_may_be_known_from_the_start() {
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    let next = quic_identity(DEV_SERVER_NAME).unwrap();
    let announced = [config.identity.fingerprint(), next.fingerprint()];
    config.next_identity = Some(next);
    let gateway = stack.gateway(config).await;
    let session = stack.login("ann").await;
    // The sidecar was told on attach, and tells clients.
    let ticket = stack.ticket(&session, "one").await;
    assert_eq!(ticket.certificate_sha256, announced);
    gateway.stop().await;
}

#[tokio::test]
async fn seats_end_at_max_stale_though_the_simulation_stands_still() {
    const MAX_STALE: Duration = Duration::from_secs(60);
    let time = ManualTime::starting_at(Timestamp(1_700_000_000_000));
    let now = time.clock().wall();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let identity = quic_identity(DEV_SERVER_NAME).unwrap();
    let mut config = GatewayConfig::new("one".parse().unwrap(), listen, identity);
    config.clock = time.clock();
    config.limits.max_stale = Some(MAX_STALE);
    let (gateway, mut simulation) = Gateway::start(config).unwrap();
    gateway.host().attached(now, 60 * MAX_STALE);
    let seats = simulation.seats();
    let grant = Grant {
        session: SessionId(1),
        player: PlayerId(1),
        player_generation: PlayerGeneration(0),
        client: ClientId(1),
        ends_at: now.after(60 * MAX_STALE),
        connection: Connection { worker: 0, id: 1 },
    };
    let seat = seats.install(grant, now).unwrap().handle();
    drop(simulation.tick());
    assert!(seats.verify(seat).is_live());

    // From here on the game hangs: nobody ticks.
    time.advance(MAX_STALE + Duration::from_secs(1));
    soon("the end", async {
        while !seats.verify(seat).is_ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // When it has come to itself, it is told why.
    let exchange = simulation.tick();
    let told = exchange.changes.last();
    assert!(
        matches!(told, Some(SeatChange::Ended { handle, reason: EndReason::Stale, .. }) if *handle == seat),
        "{told:?}"
    );
    drop(exchange);
    gateway.shutdown();
}

const CHILD: &str = "TICKGATE_TEST_GATEWAY";
const LISTENS: &str = "the gateway listens on ";

/// Not a test: this program again, as a gateway in a process of its own, which can be killed. It ends when its input does.
#[test]
fn gateway_process() {
    let Ok(listen) = std::env::var(CHILD) else {
        return;
    };
    let (listen, folder) = listen.split_once(' ').unwrap();
    let config = killable(listen.parse().unwrap(), Path::new(folder));
    let (gateway, _simulation) = Gateway::start(config).unwrap();
    println!("\n{LISTENS}{}", gateway.local_addr());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// It has no sidecar, so nobody gets further than the handshake, and there they may stay.
fn killable(listen: SocketAddr, folder: &Path) -> GatewayConfig {
    let file = |name: &str| folder.join(name);
    let identity = Identity::load(&file("gateway-one-quic.pem"), &file("gateway-one-quic.key"));
    let mut config = GatewayConfig::new("one".parse().unwrap(), listen, identity.unwrap());
    config.state = Some(file("state/gateway.state"));
    config.limits.awaiting_hello = 10_000;
    config.limits.hello_timeout = Duration::from_secs(60);
    config.limits.idle_timeout = Duration::from_secs(60);
    config
}

fn start_process(listen: SocketAddr, folder: &Path) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "gateway_process", "--nocapture"])
        .env(CHILD, format!("{listen} {}", folder.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.unwrap().strip_prefix(LISTENS)?.parse().ok());
    // What else it says is of no interest, but it must not fail to say it.
    std::thread::spawn(move || lines.count());
    (child, address.expect("the gateway's address"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_resets_its_old_connections_when_it_is_back() {
    const CLIENTS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let certs = DevCerts::generate(&["one".parse().unwrap()]).unwrap();
    certs.write_to(folder.path()).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let (mut before, address) = start_process(any, folder.path());
    let ticket = Ticket {
        token: SecretToken::new("none".to_owned()),
        expires_at: Timestamp(u64::MAX),
        gateway: "one".parse().unwrap(),
        addresses: vec![address],
        server_name: DEV_SERVER_NAME.to_owned(),
        certificate_sha256: vec![certs.gateways[0].quic.fingerprint()],
        session: SessionId(1),
    };
    let endpoint = endpoint();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(
            soon("handshake", endpoint.handshake(&ticket))
                .await
                .unwrap(),
        );
    }
    before.kill().unwrap();
    before.wait().unwrap();
    let (mut after, same) = start_process(address, folder.path());
    assert_eq!(same, address);

    let start = Instant::now();
    let mut resets = JoinSet::new();
    for mut client in clients {
        resets.spawn(async move {
            // Anything that it says is answered with a reset; here it begins a Hello.
            let _ = client.send_hello_bytes(&[1]).await;
            client.closed().await
        });
    }
    while let Some(closed) = soon("all resets", resets.join_next()).await {
        assert_eq!(closed.unwrap(), Closed::Reset);
    }
    let took = start.elapsed();
    println!("{CLIENTS} connections were reset within {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");

    // And whoever comes is served.
    soon("handshake", endpoint.handshake(&ticket))
        .await
        .unwrap();
    after.kill().unwrap();
    after.wait().unwrap();
}
