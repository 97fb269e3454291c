//! The gate over real QUIC: who gets in while attackers hold all that can be held.
//!
//! All at once, in full size, takes about 10 s on two cores. Every party has addresses of its own from 127.0.0.0/8, which stand for
//! networks of their own.
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

mod support;

#[path = "gate/attackers.rs"]
mod attackers;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use attackers::{Silent, Stalled};
use support::{Host, Stack, plays, soon};
use tickgate::{
    client::{Closed, ConnectError, Connection, Endpoint, SecretToken, Ticket},
    seat::SeatChange,
    wire::{Advice, CloseCode},
};
use tokio::task::JoinSet;

/// An address of network `network`, of which there are 65,536.
fn address(network: u8, host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, network, host, 1)), 0)
}

/// A client's socket in a network of its own.
fn endpoint_at(network: u8, host: u8) -> Endpoint {
    Endpoint::bind(address(network, host)).unwrap()
}

/// What a bystander needs to get through the handshake, and no further.
fn without_token(ticket: &Ticket) -> Ticket {
    Ticket {
        token: SecretToken::new("none".to_owned()),
        ..ticket.clone()
    }
}

/// How many connections were closed because they did not say Hello in time, or their place was needed.
fn timeouts(gateway: &Host) -> u64 {
    let refused = gateway.gateway.counts().refused;
    let code =
        |(code, count): &(CloseCode, u64)| (*code == CloseCode::AdmissionTimeout).then_some(*count);
    refused.iter().find_map(code).unwrap_or(0)
}

/// The times that honest clients took to be admitted, sorted.
async fn admit(clients: Vec<(Endpoint, Ticket)>) -> (Vec<Duration>, Vec<Connection>) {
    let mut admissions = JoinSet::new();
    for (endpoint, ticket) in clients {
        admissions.spawn(async move {
            let start = Instant::now();
            let connection = endpoint.connect(&ticket).await;
            (start.elapsed(), connection, endpoint)
        });
    }
    let mut times = Vec::new();
    let mut connections = Vec::new();
    while let Some(admission) = soon("all admissions", admissions.join_next()).await {
        let (took, connection, _endpoint) = admission.unwrap();
        connections.push(connection.expect("an honest client is admitted"));
        times.push(took);
    }
    times.sort();
    (times, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_stalled_connections_keep_nobody_out() {
    const EACH: usize = 1_000;
    const HONEST: usize = 100;
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let mut clients = Vec::new();
    for n in 0..HONEST {
        let session = stack.login(&format!("player-{n}")).await;
        let ticket = stack.ticket(&session, "one").await;
        clients.push((endpoint_at(80, n as u8), ticket));
    }
    let known = without_token(&clients[0].1);

    // Sixteen networks for each kind: with fewer than eight they could not fill their rooms at all.
    let sockets: Vec<Endpoint> = (0..16).map(|n| endpoint_at(81, n)).collect();
    let silent = Silent::hold(&known, EACH, &sockets);
    let stalled = Stalled::hold(
        &known,
        EACH,
        &(0..16).map(|n| address(82, n)).collect::<Vec<_>>(),
    );
    soon("all attackers are in place", async {
        while silent.held() < EACH * 9 / 10 || stalled.held() < EACH * 9 / 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // The gateway closes the first of them after 3 s. The honest come when that is under way, and all that it frees is taken again.
    soon("the attackers come again", async {
        while timeouts(&gateway) < EACH as u64 / 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let before = (silent.opened(), stalled.opened());

    let (times, connections) = admit(clients).await;
    let counts = gateway.gateway.counts();
    let shown = (
        times[HONEST / 2 - 1],
        times[HONEST * 95 / 100 - 1],
        times[HONEST - 1],
    );
    println!(
        "admitted: p50 {:?}, p95 {:?}, last {:?}; attackers opened {:?} before, {:?} in all; {counts:?}",
        shown.0,
        shown.1,
        shown.2,
        before,
        (silent.opened(), stalled.opened()),
    );
    assert!(
        shown.1 < Duration::from_secs(1),
        "95 of 100 in under 1 s: {shown:?}"
    );
    assert!(
        shown.2 < Duration::from_secs(4),
        "all in under 4 s: {shown:?}"
    );
    let held = (silent.held(), stalled.held());
    assert!(
        held.0.min(held.1) >= EACH / 2,
        "attackers still hold {held:?}"
    );
    assert!(
        counts.retries > 0,
        "the high-water mark was passed: {counts:?}"
    );
    // In play they are undisturbed: they stay while the attackers come back again and again.
    for connection in &connections {
        plays(connection).await;
    }
    stalled.stop();
    silent.stop().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_holds_an_eighth_and_its_neighbours_come_in() {
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    config.limits.handshakes = 64;
    config.limits.awaiting_hello = 64;
    config.limits.retry_above = 0;
    let gateway = stack.gateway(config).await;
    let session = stack.login("ann").await;
    let ticket = stack.ticket(&session, "one").await;
    let known = without_token(&ticket);
    let silent = Silent::hold(&known, 64, &[endpoint_at(83, 1)]);
    let stalled = Stalled::hold(&known, 64, &[address(83, 1)]);
    soon("more than the share is tried", async {
        while gateway.gateway.counts().handshakes_dropped < 64 || timeouts(&gateway) < 8 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    // From the attackers' own network: its oldest go. While it is not in yet, a client may get to be that: eight that came after it are enough.
    // Then the gateway knows it no more, and it does what that advises, asks for another token and comes again.
    let neighbour = endpoint_at(83, 1);
    let (start, mut ticket) = (Instant::now(), ticket);
    let connection = loop {
        match neighbour.connect(&ticket).await {
            Ok(connection) => break connection,
            Err(ConnectError::Refused(Closed::Reset)) => {
                assert_eq!(Closed::Reset.advice(), Advice::NewToken);
                ticket = stack.ticket(&session, "one").await;
            }
            Err(error) => panic!("an honest client is admitted: {error:?}"),
        }
    };
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    plays(&connection).await;
    stalled.stop();
    silent.stop().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_over_its_rate_is_ignored_and_others_are_not() {
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    config.limits.retry_above = 0;
    config.limits.prefix_rate = 1;
    config.limits.prefix_burst = 5;
    let gateway = stack.gateway(config).await;
    let session = stack.login("ann").await;
    let ticket = stack.ticket(&session, "one").await;
    let known = without_token(&ticket);
    let busy = endpoint_at(84, 1);
    for _ in 0..5 {
        soon("within the burst", busy.handshake(&known))
            .await
            .unwrap();
    }
    // The sixth gets no answer to its first packet, and one when it has asked again after a second.
    let start = Instant::now();
    soon("over the burst", busy.handshake(&known))
        .await
        .unwrap();
    assert!(
        start.elapsed() > Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    assert!(gateway.gateway.counts().rate_limited > 0);
    let (times, _connections) = admit(vec![(endpoint_at(84, 2), ticket)]).await;
    assert!(times[0] < Duration::from_secs(1), "{times:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_never_finished_is_forgotten() {
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    config.limits.handshake_timeout = Duration::from_millis(200);
    let gateway = stack.gateway(config).await;
    let session = stack.login("ann").await;
    let ticket = stack.ticket(&session, "one").await;
    let stalled = Stalled::hold(&without_token(&ticket), 10, &[address(85, 1)]);
    soon("forgotten", async {
        while gateway.gateway.counts().handshake_timeouts < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    stalled.stop();
    let (_, connections) = admit(vec![(endpoint_at(85, 2), ticket)]).await;
    plays(&connections[0]).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_changes_its_network_keeps_its_seat() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let phone = endpoint_at(86, 1);
    let (session, connection) = stack.join("ann", "one", &phone).await;
    plays(&connection).await;
    let seat = gateway.seats.find(session.id).unwrap();

    for host in 2..5 {
        let local = address(86, host);
        phone.rebind(local).unwrap();
        assert_eq!(phone.local_addr().unwrap().ip(), local.ip());
        plays(&connection).await;
        assert_eq!(gateway.seats.find(session.id), Some(seat));
    }
    assert!(gateway.seats.verify(seat).is_live());
    // The game has noticed nothing: one join, and nothing after it.
    let changes = gateway.changes.lock().unwrap().clone();
    assert!(
        matches!(changes[..], [SeatChange::Joined(_)]),
        "{changes:?}"
    );
    gateway.stop().await;
}
