//! A gateway of several workers, over real QUIC: clients reach their worker whatever becomes of their address, and the gateway is one.
#![cfg(target_os = "linux")]
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

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU8,
    time::Duration,
};

use bytes::Bytes;
use support::{Host, Stack, connect, plays, soon};
use tickgate::{
    client::{Closed, Connection, Endpoint, Session},
    gateway::{GatewayConfig, StartError},
    seat::SeatChange,
    wire::CloseCode,
};

/// Sockets of clients, and clients at each.
const SOCKETS: u8 = 8;
const EACH: usize = 6;

fn two_workers(stack: &Stack) -> GatewayConfig {
    let mut config = stack.gateway_config("one");
    config.workers = NonZeroU8::new(2).unwrap();
    config
}

/// A loopback address of the client socket, any port.
fn place(socket: u8, host: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 100 + socket, host), 0).into()
}

/// Sends its own number until that comes back: what came is its own, and nobody else's.
async fn plays_as(connection: &Connection, number: u64) {
    let payload = Bytes::copy_from_slice(&number.to_be_bytes());
    let play = async {
        loop {
            connection.send_datagram(payload.clone()).unwrap();
            let echo = tokio::time::timeout(Duration::from_millis(300), connection.recv_datagram());
            if let Ok(echo) = echo.await {
                assert_eq!(echo.unwrap(), payload);
                return;
            }
        }
    };
    soon("an echo", play).await;
}

/// Which workers seats were given by, as the game was told.
fn workers(gateway: &Host) -> BTreeSet<u16> {
    let changes = gateway.changes.lock().unwrap();
    let joined = changes.iter().filter_map(|change| match change {
        SeatChange::Joined(joined) => Some(joined.worker),
        SeatChange::Resumed { worker, .. } => Some(*worker),
        _ => None,
    });
    joined.collect()
}

/// Players at several sockets, each with its session.
async fn crowd(stack: &Stack) -> (Vec<Endpoint>, Vec<(Session, Connection)>) {
    let mut endpoints = Vec::new();
    let mut players = Vec::new();
    for socket in 0..SOCKETS {
        let endpoint = Endpoint::bind(place(socket, 1)).unwrap();
        for n in 0..EACH {
            let name = format!("player-{socket}-{n}");
            players.push(stack.join(&name, "one", &endpoint).await);
        }
        endpoints.push(endpoint);
    }
    (endpoints, players)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_whose_address_changes_reach_their_worker() {
    let stack = Stack::start().await;
    let gateway = stack.gateway(two_workers(&stack)).await;
    let (endpoints, players) = crowd(&stack).await;
    // By hash: that all eight addresses should have gone to one worker happens once in 128 runs, and then they come from elsewhere.
    let mut others = Vec::new();
    for socket in SOCKETS..SOCKETS + 40 {
        if workers(&gateway).len() == 2 {
            break;
        }
        let endpoint = Endpoint::bind(place(socket, 1)).unwrap();
        others.push(
            stack
                .join(&format!("other-{socket}"), "one", &endpoint)
                .await,
        );
    }
    assert_eq!(workers(&gateway), BTreeSet::from([0, 1]));

    let seats: Vec<_> = players
        .iter()
        .map(|(session, _)| gateway.seats.find(session.id).unwrap())
        .collect();
    for host in 2..5 {
        // A new address, and so another hash: without steering half of these would be gone.
        for (socket, endpoint) in (0..).zip(&endpoints) {
            endpoint.rebind(place(socket, host)).unwrap();
        }
        let playing = (0..).zip(&players);
        futures_util::future::join_all(
            playing.map(|(number, (_, connection))| plays_as(connection, number)),
        )
        .await;
    }
    for ((session, connection), seat) in players.iter().zip(seats) {
        assert_eq!(gateway.seats.find(session.id), Some(seat));
        assert!(gateway.seats.verify(seat).is_live());
        assert!(connection.close_reason().is_none());
    }
    // The game has noticed nothing, and no packet had to be passed on.
    let changes = gateway.changes.lock().unwrap().clone();
    assert!(
        changes
            .iter()
            .all(|change| matches!(change, SeatChange::Joined(_))),
        "{changes:?}"
    );
    assert_eq!(gateway.gateway.counts().misrouted, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_its_seat_over_from_one_worker_to_the_other() {
    let stack = Stack::start().await;
    let gateway = stack.gateway(two_workers(&stack)).await;
    let session = stack.login("ann").await;
    let mut connection: Option<(Endpoint, Connection)> = None;
    let mut seat = None;
    // Each from another address, until both workers have had it: one of the two is chosen each time.
    for socket in 0..60 {
        let endpoint = Endpoint::bind(place(socket, 1)).unwrap();
        let ticket = stack.ticket(&session, "one").await;
        let newer = connect(&endpoint, &ticket).await.unwrap();
        plays(&newer).await;
        assert_eq!(newer.welcome().resumed, connection.is_some());
        let handle = gateway.seats.find(session.id).unwrap();
        assert_eq!(*seat.get_or_insert(handle), handle, "one seat, all along");
        if let Some((_, older)) = connection.replace((endpoint, newer)) {
            match soon("the older one's close", older.closed()).await {
                Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::Superseded),
                other => panic!("closed otherwise: {other:?}"),
            }
        }
        if workers(&gateway).len() == 2 {
            break;
        }
        // The sidecar's limit on tokens is by the minute.
        stack.time.advance(Duration::from_secs(10));
    }
    assert_eq!(workers(&gateway), BTreeSet::from([0, 1]));
    plays(&connection.unwrap().1).await;
    assert_eq!(gateway.joins(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_workers_say_farewell_and_the_address_is_free_again() {
    let stack = Stack::start().await;
    let gateway = stack.gateway(two_workers(&stack)).await;
    let address = gateway.gateway.local_addr();
    let (_endpoints, players) = crowd(&stack).await;

    // The address is this gateway's alone, though its sockets share it.
    let mut config = stack.gateway_config("two");
    config.listen = address;
    config.workers = NonZeroU8::new(2).unwrap();
    match tickgate::gateway::Gateway::start(config) {
        Err(StartError::Bind { .. }) => {}
        other => panic!("{:?}", other.map(|_| "a second gateway on one address")),
    }

    gateway.stop().await;
    for (_, connection) in &players {
        match soon("close", connection.closed()).await {
            Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::Drained),
            other => panic!("closed otherwise: {other:?}"),
        }
    }
    let mut config = two_workers(&stack);
    config.listen = address;
    let again = stack.gateway(config).await;
    assert_eq!(again.gateway.local_addr(), address);
    again.stop().await;
}

/// What a client may send is limited, whoever it is; and who keeps to it is not in anybody's way.
#[tokio::test(flavor = "multi_thread")]
async fn who_floods_is_closed_and_the_others_play_on() {
    let stack = Stack::start().await;
    let gateway = stack.gateway(two_workers(&stack)).await;
    let (villains, honest) = (
        Endpoint::bind(place(0, 1)).unwrap(),
        Endpoint::bind(place(1, 1)).unwrap(),
    );
    let (_, bobs) = stack.join("bob", "one", &honest).await;
    let (session, flood) = stack.join("mallory", "one", &villains).await;
    let code = soon("the flood's end", async {
        loop {
            for _ in 0..100 {
                if flood.send_datagram(Bytes::from_static(&[7; 64])).is_err() {
                    break;
                }
            }
            if let Some(closed) = flood.close_reason() {
                break closed;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    match code {
        Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::RateLimited),
        other => panic!("closed otherwise: {other:?}"),
    }
    let over = |change: &SeatChange| matches!(change, SeatChange::Ended { reason, .. } if reason.label() == "over_budget");
    gateway.told("the seat's end", over).await;
    assert!(!gateway.seats(session.id));
    assert!(gateway.gateway.counts().over_budget > 0);
    plays(&bobs).await;
    // It is no punishment for good: a client that keeps to its budget comes in again.
    let ticket = stack.ticket(&session, "one").await;
    let again = connect(&villains, &ticket).await.unwrap();
    plays(&again).await;
    gateway.stop().await;
}
