//! Two gateways and one sidecar, each a process of its own: tokens of one gateway at the other, older processes of a gateway, a
//! gateway that is killed and started again under its players, and players who lose their connection or change their address.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

mod relay;
mod support;
#[path = "fleet/walker.rs"]
mod walker;

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use relay::Relay;
use support::{
    endpoint,
    process::{Deployment, SidecarProcess},
    soon,
};
use tickgate::{
    client::{
        About, Account, Admin, Backend, Closed, ConnectError, Connection, Endpoint, ExplainedEvent,
        Patience, Session, Target, join,
    },
    demo::protocol::Input,
    wire::CloseCode,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use walker::{WINDOW, Walker};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn target(gateway: &str) -> Target {
    Target::Gateway(gateway.parse().unwrap())
}

/// Waits until exactly the gateways in `wanted` are attached.
async fn attached(backend: &Backend, wanted: &[&str]) {
    let look = async {
        loop {
            if let Ok(gateways) = backend.list_gateways().await
                && gateways
                    .iter()
                    .map(|g| g.id.as_str())
                    .eq(wanted.iter().copied())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the gateways attached", look).await;
}

fn close_code(refused: Result<Connection, ConnectError>) -> CloseCode {
    match refused {
        Err(ConnectError::Refused(Closed::Gateway { code, .. })) => code,
        other => panic!("not refused by the gateway: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_gateway_is_nothing_at_the_other() {
    let deployment = Deployment::of(&["a", "b"]);
    let sidecar = deployment.sidecar("");
    let _a = deployment.gateway("a", ANY_PORT, sidecar.control, "a.state");
    let _b = deployment.gateway("b", ANY_PORT, sidecar.control, "b.state");
    attached(&sidecar.backend, &["a", "b"]).await;

    let session = sidecar.account.login_dev("ann").await.unwrap();
    let for_a = sidecar
        .account
        .issue_connect_token(&session, target("a"))
        .await
        .unwrap();
    let for_b = sidecar
        .account
        .issue_connect_token(&session, target("b"))
        .await
        .unwrap();
    let mut astray = for_b.clone();
    astray.token = for_a.token.clone();
    let socket = endpoint();
    assert_eq!(
        close_code(socket.connect(&astray).await),
        CloseCode::TokenRejected
    );
    // Neither was used up by that.
    let at_a = socket.connect(&for_a).await.unwrap();
    let at_b = socket.connect(&for_b).await.unwrap();
    assert!(at_a.close_reason().is_none() && at_b.close_reason().is_none());
}

/// The exit code of a gateway that another process has replaced.
const FENCED: i32 = 3;

fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(process.to_string())
        .status();
    assert!(status.unwrap().success());
}

/// A process of a gateway that another one has replaced stays out: told so at once, and after it slept through the replacement and the
/// sidecar's restart as well.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_process_of_a_gateway_stays_fenced_off() {
    let deployment = Deployment::of(&["a"]);
    let mut sidecar = deployment.sidecar("");
    let control = sidecar.control;
    let mut oldest = deployment.gateway("a", ANY_PORT, control, "1.state");
    attached(&sidecar.backend, &["a"]).await;
    let mut asleep = deployment.gateway("a", ANY_PORT, control, "2.state");
    let told = async {
        while oldest.process.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the end of the oldest", told).await;
    assert_eq!(oldest.process.ended(), Some(Some(FENCED)));

    signal(asleep.process.id(), "STOP");
    let newest = deployment.gateway("a", ANY_PORT, control, "3.state");
    let session = sidecar.account.login_dev("ann").await.unwrap();
    let ticket = async {
        loop {
            let ticket = sidecar
                .account
                .issue_connect_token(&session, target("a"))
                .await;
            match ticket {
                Ok(ticket) if ticket.addresses == [newest.address] => return ticket,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let ticket = soon("the newest process attached", ticket).await;
    let socket = endpoint();
    let connection = socket.connect(&ticket).await.unwrap();

    // The sidecar forgets nothing when it is killed.
    sidecar.process.kill();
    let sidecar = deployment.sidecar_at(control, "");
    signal(asleep.process.id(), "CONT");
    let told = async {
        while asleep.process.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the end of the one that slept", told).await;
    assert_eq!(asleep.process.ended(), Some(Some(FENCED)));
    attached(&sidecar.backend, &["a"]).await;
    let ticket = sidecar
        .account
        .issue_connect_token(&session, target("a"))
        .await
        .unwrap();
    assert_eq!(ticket.addresses, [newest.address]);
    assert!(
        connection.close_reason().is_none(),
        "nobody in play noticed"
    );
}

/// How many come back: the whole number, since how they fare together is what is asked.
const PLAYERS: usize = 2_000;
/// Sockets with an address each, as players have.
const SOCKETS: u8 = 32;
/// Each player sends so often: a player who sends nothing learns of a restart by its next ping only.
const SEND_EVERY: Duration = Duration::from_millis(500);

/// What the players of a restarted gateway share.
struct Arena {
    account: Account,
    started: Instant,
    in_play: AtomicUsize,
    /// When each player was back, in milliseconds since `started`; 0 while it is not.
    back: Vec<AtomicU64>,
}

/// Logs in, plays, and comes back by itself once the connection is gone; until the test ends.
async fn player(arena: Arc<Arena>, number: usize, socket: Endpoint) {
    let session: Session = arena
        .account
        .login_dev(&format!("player-{number}"))
        .await
        .unwrap();
    let ticket = || arena.account.issue_connect_token(&session, target("b"));
    let mut connection = join(&socket, Patience::default(), ticket).await.unwrap();
    let client = connection.welcome().client;
    arena.in_play.fetch_add(1, Ordering::SeqCst);
    send_until_gone(&connection).await;
    assert!(connection.closed().await.advice() != tickgate::wire::Advice::GiveUp);
    connection = join(&socket, Patience::default(), ticket).await.unwrap();
    assert_ne!(
        connection.welcome().client,
        client,
        "another process, another seat"
    );
    let now = arena.started.elapsed().as_millis();
    arena.back[number].store(u64::try_from(now).unwrap(), Ordering::SeqCst);
    send_until_gone(&connection).await;
}

async fn send_until_gone(connection: &Connection) {
    let mut sequence = 0;
    let mut turns = tokio::time::interval(SEND_EVERY);
    while connection.close_reason().is_none() {
        sequence += 1;
        let input = Input {
            sequence,
            right: 1,
            up: 0,
        }
        .encode();
        let _ = connection.send_datagram(input.to_vec().into());
        tokio::select! {
            _ = turns.tick() => {}
            _ = connection.closed() => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_players_of_a_restarted_gateway_are_soon_back() {
    let deployment = Deployment::of(&["a", "b"]);
    let sidecar = deployment.sidecar("");
    let _a = deployment.gateway("a", ANY_PORT, sidecar.control, "a.state");
    let mut b = deployment.gateway("b", ANY_PORT, sidecar.control, "b.state");
    attached(&sidecar.backend, &["a", "b"]).await;

    let arena = Arc::new(Arena {
        account: sidecar.account.clone(),
        started: Instant::now(),
        in_play: AtomicUsize::new(0),
        back: (0..PLAYERS).map(|_| AtomicU64::new(0)).collect(),
    });
    let sockets: Vec<Endpoint> = (0..SOCKETS)
        .map(|n| Endpoint::bind((Ipv4Addr::new(127, 0, 1, n + 1), 0).into()).unwrap())
        .collect();
    let mut players = JoinSet::new();
    for number in 0..PLAYERS {
        let socket = sockets[number % sockets.len()].clone();
        players.spawn(player(Arc::clone(&arena), number, socket));
    }
    let all = async {
        while arena.in_play.load(Ordering::SeqCst) < PLAYERS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), all)
        .await
        .expect("all in play");

    b.process.kill();
    let b = deployment.gateway("b", b.address, sidecar.control, "b.state");
    let listening = u64::try_from(arena.started.elapsed().as_millis()).unwrap();
    let back_within = |limit: Duration| {
        let limit = listening + u64::try_from(limit.as_millis()).unwrap();
        let is_back = |at: &&AtomicU64| (1..=limit).contains(&at.load(Ordering::SeqCst));
        arena.back.iter().filter(is_back).count()
    };
    let all = async {
        while back_within(Duration::from_secs(60)) < PLAYERS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(30), all).await;
    let mut times: Vec<u64> = arena
        .back
        .iter()
        .map(|at| at.load(Ordering::SeqCst).saturating_sub(listening))
        .collect();
    times.sort_unstable();
    let (in_5, in_15) = (
        back_within(Duration::from_secs(5)),
        back_within(Duration::from_secs(15)),
    );
    println!(
        "{PLAYERS} players: {in_5} back within 5 s of listening, {in_15} within 15 s; p50 {} ms, p95 {} ms, last {} ms",
        times[PLAYERS / 2],
        times[PLAYERS * 95 / 100],
        times[PLAYERS - 1],
    );
    assert!(
        in_5 * 100 >= PLAYERS * 95,
        "only {in_5} were back within 5 s"
    );
    assert_eq!(in_15, PLAYERS, "all are back within 15 s");
    players.abort_all();
    drop(b);
}

fn operator(deployment: &Deployment, sidecar: &SidecarProcess) -> Admin {
    let url = format!("https://{}", sidecar.admin);
    let ca = std::slice::from_ref(&deployment.certs.ca);
    Admin::connect(&url, ca, &deployment.certs.admin).unwrap()
}

/// What is told of the session's seats, oldest first, once the last of it is `last`.
async fn told_of_seats(admin: &Admin, session: &Session, last: &str) -> Vec<ExplainedEvent> {
    const OF_SEATS: [&str; 4] = ["admitted", "suspended", "resumed", "ended"];
    let ask = async {
        loop {
            if let Ok(mut told) = admin.explain(&About::Session(session.id)).await {
                told.events
                    .retain(|event| OF_SEATS.contains(&event.kind.as_str()));
                if told.events.last().is_some_and(|event| event.kind == last) {
                    return told.events;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("what is told of the seats", ask).await
}

fn kinds(events: &[ExplainedEvent]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

/// A player in play on gateway "a" who looks on, from a socket of its own, until it is told to stop.
async fn witness(account: &Account, stop: CancellationToken) -> tokio::task::JoinHandle<Walker> {
    let session = account.login_dev("witness").await.unwrap();
    let ticket = account.issue_connect_token(&session, target("a")).await;
    let socket = endpoint();
    let connection = Arc::new(socket.connect(&ticket.unwrap()).await.unwrap());
    tokio::spawn(Walker::new(connection, 1).look_on(stop))
}

/// How long a gateway that is not told otherwise keeps the seat of a connection that was lost.
const GRACE: Duration = Duration::from_secs(15);

/// Nobody says that the connection is gone: each side finds out by the idle timeout of 10 s, and the test takes as long.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_within_the_grace_has_the_same_seat() {
    let deployment = Deployment::of(&["a"]);
    let sidecar = deployment.sidecar("");
    let gateway = deployment.gateway("a", ANY_PORT, sidecar.control, "a.state");
    attached(&sidecar.backend, &["a"]).await;
    let admin = operator(&deployment, &sidecar);
    let tunnel = Relay::to(gateway.address).await;
    let session = sidecar.account.login_dev("ann").await.unwrap();
    let ticket = || async {
        let ticket = sidecar
            .account
            .issue_connect_token(&session, target("a"))
            .await;
        let mut ticket = ticket.unwrap();
        ticket.addresses = vec![tunnel.address()];
        ticket
    };

    let socket = endpoint();
    let connection = Arc::new(socket.connect(&ticket().await).await.unwrap());
    let first = *connection.welcome();
    assert!(!first.resumed);
    // Away from its birthplace, where another seat of hers would begin; she stands still there, so that she is where she was.
    let mut ann = Walker::new(Arc::clone(&connection), 1);
    let born = ann.is_heard(0).await;
    while ann.next_input() < 30 {
        ann.turn(127).await;
    }
    let place = ann.rests().await;
    assert_ne!(place, (born.x, born.y));
    let stop = CancellationToken::new();
    let witness = witness(&sidecar.account, stop.clone()).await;
    ann.is_heard(0).await;

    tunnel.pass(false);
    let silent = Instant::now();
    assert_eq!(soon("the loss", connection.closed()).await, Closed::Lost);
    let missed_by_client = silent.elapsed();
    let events = told_of_seats(&admin, &session, "suspended").await;
    assert_eq!(kinds(&events), ["admitted", "suspended"]);
    let suspended_at = events[1].at;

    tunnel.pass(true);
    let back = Instant::now();
    let connection = Arc::new(socket.connect(&ticket().await).await.unwrap());
    let again = *connection.welcome();
    let connected = back.elapsed();
    assert!(again.resumed);
    assert_eq!((again.client, again.session), (first.client, first.session));
    // Her inputs are counted from a new start; her player is the one that her handle led to before.
    let mut ann = Walker::new(connection, 1_000_000);
    let seen = ann.is_heard(0).await;
    let in_play = back.elapsed();
    assert_eq!((seen.x, seen.y), place, "another seat begins elsewhere");
    assert_eq!(seen.players, 2);

    stop.cancel();
    let witness = witness.await.unwrap();
    assert_eq!(witness.players, (2, 2), "she never left the world");
    let events = told_of_seats(&admin, &session, "resumed").await;
    assert_eq!(kinds(&events), ["admitted", "suspended", "resumed"]);
    assert_eq!(events[2].reason, None, "nobody was there to be superseded");
    let kept = events[2].at.since(suspended_at);
    assert!(kept < GRACE, "{kept:?}");
    println!(
        "silent for {missed_by_client:?} until the client missed the gateway; the seat was kept for {kept:?} of {GRACE:?}; resumed \
         {connected:?} after the network was back, in play after {in_play:?}, client id {} as before, at {place:?} as before; the \
         witness saw 2 players in each of {} snapshots",
        again.client.0, witness.snapshots,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_whose_address_changes_plays_on_in_the_same_seat() {
    let deployment = Deployment::of(&["a"]);
    let sidecar = deployment.sidecar("");
    let _gateway = deployment.gateway("a", ANY_PORT, sidecar.control, "a.state");
    attached(&sidecar.backend, &["a"]).await;
    let admin = operator(&deployment, &sidecar);
    let session = sidecar.account.login_dev("ann").await.unwrap();
    let ticket = sidecar
        .account
        .issue_connect_token(&session, target("a"))
        .await
        .unwrap();
    let phone = Endpoint::bind((Ipv4Addr::new(127, 0, 2, 1), 0).into()).unwrap();
    let connection = Arc::new(phone.connect(&ticket).await.unwrap());
    let stop = CancellationToken::new();
    let witness = witness(&sidecar.account, stop.clone()).await;
    let mut ann = Walker::new(Arc::clone(&connection), 1);
    ann.is_heard(1).await;

    // What a NAT does that forgets (another port), and what a phone does that leaves the Wi-Fi (another address), and comes home.
    for (what, host) in [("port", 1), ("address", 2), ("address", 3), ("address", 1)] {
        let before = ann.is_heard(1).await.received.newest;
        let from = phone.local_addr().unwrap();
        let moved = Instant::now();
        phone
            .rebind((Ipv4Addr::new(127, 0, 2, host), 0).into())
            .unwrap();
        let to = phone.local_addr().unwrap();
        assert_ne!(from, to);
        let heard = ann.is_heard(1).await;
        let silence = moved.elapsed();
        // Had the seat been taken by another connection, even for a moment, the world would count the inputs from a new start.
        assert!(heard.received.newest - before <= WINDOW, "{silence:?}");
        assert!(heard.received.contains(before));
        // On for 2 s: the gateway has found that the new address is really hers.
        ann.longest_gap = Duration::ZERO;
        for _ in 0..60 {
            ann.turn(1).await;
        }
        assert!(connection.close_reason().is_none());
        println!(
            "another {what}, {from} to {to}: heard {silence:?} after the move; longest time between snapshots since: {:?}",
            ann.longest_gap
        );
        assert!(ann.longest_gap < Duration::from_secs(1));
    }
    stop.cancel();
    assert_eq!(witness.await.unwrap().players, (2, 2));
    assert_eq!(ann.players.1, 2);
    let events = told_of_seats(&admin, &session, "admitted").await;
    assert_eq!(kinds(&events), ["admitted"]);
    connection.close();
    let events = told_of_seats(&admin, &session, "ended").await;
    assert_eq!(kinds(&events), ["admitted", "ended"], "one seat, all along");
    assert_eq!(events[1].reason.as_deref(), Some("left"));
}
