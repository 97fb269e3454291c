//! Who comes in and who does not, over real QUIC and the real control channel.
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

use std::{collections::BTreeMap, time::Duration};

use support::{Stack, connect, endpoint, plays, soon};
use tickgate::{
    client::{Closed, ConnectError, Endpoint, SecretToken, Target, Ticket},
    gateway::Limits,
    seat::SeatConfig,
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
    wire::{CloseCode, Hello, MAX_HELLO},
};
use tokio::task::JoinSet;

/// The code with which this ticket is refused.
async fn refused(endpoint: &Endpoint, ticket: &Ticket) -> CloseCode {
    match connect(endpoint, ticket).await {
        Err(ConnectError::Refused(Closed::Gateway { code, .. })) => code,
        Err(other) => panic!("refused otherwise: {other:?}"),
        Ok(_) => panic!("admitted"),
    }
}

fn with_token(ticket: &Ticket, token: &str) -> Ticket {
    Ticket {
        token: SecretToken::new(token.to_owned()),
        ..ticket.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_presented_a_thousand_times_at_once_lets_one_in() {
    const TIMES: usize = 1_000;
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    config.limits = Limits {
        handshakes: 2 * TIMES,
        awaiting_hello: 2 * TIMES,
        hello_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(30),
        ..Limits::default()
    };
    let gateway = stack.gateway(config).await;
    let session = stack.login("ann").await;
    let ticket = stack.ticket(&session, "one").await;
    // Networks of their own: one alone may not begin that many at once.
    let endpoints: Vec<Endpoint> = (1..=16)
        .map(|n| Endpoint::bind(([127, 87, 0, n], 0).into()).unwrap())
        .collect();
    let mut attempts = JoinSet::new();
    for n in 0..TIMES {
        let (endpoint, ticket) = (endpoints[n % endpoints.len()].clone(), ticket.clone());
        attempts.spawn(async move {
            match endpoint.connect(&ticket).await {
                Ok(connection) => ("admitted", Some(connection)),
                Err(ConnectError::Refused(Closed::Gateway { code, .. })) => (code.label(), None),
                Err(other) => (other.label(), None),
            }
        });
    }
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut connections = Vec::new();
    while let Some(outcome) = soon("all attempts", attempts.join_next()).await {
        let (label, connection) = outcome.unwrap();
        *outcomes.entry(label).or_default() += 1;
        connections.extend(connection);
    }
    assert_eq!(
        outcomes,
        BTreeMap::from([("admitted", 1), ("token_used", TIMES - 1)])
    );
    plays(&connections[0]).await;
    assert_eq!(gateway.joins(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_its_own_gateway_process_alone() {
    let stack = Stack::start().await;
    let one = stack.plain_gateway("one").await;
    let two = stack.plain_gateway("two").await;
    let endpoint = endpoint();
    let session = stack.login("ann").await;

    let for_two = stack.ticket(&session, "two").await;
    let at_one = Ticket {
        token: for_two.token.clone(),
        ..stack.ticket(&session, "one").await
    };
    assert_eq!(refused(&endpoint, &at_one).await, CloseCode::TokenRejected);

    // Before the gateway's restart, and after it.
    let before = stack.ticket(&session, "one").await;
    one.stop().await;
    let one = stack.plain_gateway("one").await;
    let after = stack.ticket(&session, "one").await;
    assert_eq!(
        refused(&endpoint, &with_token(&after, before.token.expose())).await,
        CloseCode::TokenRejected
    );
    let connection = connect(&endpoint, &after).await.unwrap();
    plays(&connection).await;
    assert_eq!((one.joins(), two.joins()), (1, 0));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_no_good_are_refused() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let endpoint = endpoint();
    let session = stack.login("ann").await;

    let expired = stack
        .backend
        .issue_connect_token(session.id, Target::Any, Some(Duration::from_secs(1)))
        .await
        .unwrap();
    // Its second, and the five of leeway.
    stack.time.advance(Duration::from_secs(7));
    assert_eq!(refused(&endpoint, &expired).await, CloseCode::TokenExpired);

    let good = stack.ticket(&session, "one").await;
    let mut forged = good.token.expose().as_bytes().to_vec();
    let middle = forged.len() / 3;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = with_token(&good, std::str::from_utf8(&forged).unwrap());
    assert_eq!(refused(&endpoint, &forged).await, CloseCode::TokenRejected);

    let home_made = with_token(&good, &home_made(&session, stack.time.clock().wall()));
    assert_eq!(
        refused(&endpoint, &home_made).await,
        CloseCode::TokenRejected
    );

    let session_token = with_token(&good, session.token.expose());
    assert_eq!(
        refused(&endpoint, &session_token).await,
        CloseCode::TokenRejected
    );

    let no_token = with_token(&good, "v4.local.nothing");
    assert_eq!(
        refused(&endpoint, &no_token).await,
        CloseCode::TokenRejected
    );

    // None of it has used the good one up, or taken a seat.
    assert_eq!(gateway.joins(), 0);
    let connection = connect(&endpoint, &good).await.unwrap();
    plays(&connection).await;
    assert_eq!(refused(&endpoint, &good).await, CloseCode::TokenUsed);
    gateway.stop().await;
}

/// A token as it should be in everything but its key.
fn home_made(session: &tickgate::client::Session, now: tickgate::clock::Timestamp) -> String {
    let claims = ConnectClaims {
        player: session.player,
        session: session.id,
        player_generation: tickgate::id::PlayerGeneration(0),
        client: tickgate::id::ClientId(1),
        nonce: Nonce::random(),
        gateway: "one".parse().unwrap(),
        revision: tickgate::id::Revision(0),
        session_ends_at: session.ends_at,
        client_key: None,
        issued_at: now,
        expires_at: now.after(Duration::from_secs(30)),
    };
    seal_connect(&TransportKey::generate(), &claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_is_none_is_refused() {
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    config.limits.hello_timeout = Duration::from_millis(300);
    let gateway = stack.gateway(config).await;
    let endpoint = endpoint();
    let session = stack.login("ann").await;
    let ticket = stack.ticket(&session, "one").await;
    let mut hello = Vec::new();
    Hello::new(ticket.token.expose())
        .encode(&mut hello)
        .unwrap();

    // Too long by its header alone: the rest is not waited for.
    let length = u32::try_from(MAX_HELLO + 1).unwrap().to_be_bytes();
    let oversized = [1, length[1], length[2], length[3]];
    let truncated = &hello[..hello.len() - 1];
    let later_version = {
        let mut bytes = hello.clone();
        bytes[4] = 9;
        bytes
    };
    let cases: [(&str, &[u8], bool, CloseCode); 6] = [
        ("oversized", &oversized, false, CloseCode::ProtocolViolation),
        (
            "truncated, then finished",
            truncated,
            true,
            CloseCode::ProtocolViolation,
        ),
        (
            "truncated, then silence",
            truncated,
            false,
            CloseCode::AdmissionTimeout,
        ),
        (
            "a message first",
            &[3, 0, 0, 1, 7],
            false,
            CloseCode::ProtocolViolation,
        ),
        (
            "another version",
            &later_version,
            false,
            CloseCode::UnsupportedVersion,
        ),
        ("nothing", &[], false, CloseCode::AdmissionTimeout),
    ];
    for (what, bytes, finish, expected) in cases {
        let mut client = soon("handshake", endpoint.handshake(&ticket))
            .await
            .unwrap();
        if !bytes.is_empty() {
            soon("hello", client.send_hello_bytes(bytes)).await.unwrap();
        }
        if finish {
            client.finish_hello();
        }
        match soon("close", client.closed()).await {
            Closed::Gateway { code, .. } => assert_eq!(code, expected, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    // The token was in none of them whole, so it still lets its owner in.
    let connection = connect(&endpoint, &ticket).await.unwrap();
    plays(&connection).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_says_so_and_has_room_again() {
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    config.seats = SeatConfig {
        capacity: 2,
        ..SeatConfig::default()
    };
    let gateway = stack.gateway(config).await;
    let endpoint = endpoint();
    let (_, ann) = stack.join("ann", "one", &endpoint).await;
    let (bob, _bob) = stack.join("bob", "one", &endpoint).await;
    let cid = stack.login("cid").await;
    let ticket = stack.ticket(&cid, "one").await;
    assert_eq!(refused(&endpoint, &ticket).await, CloseCode::ServerFull);

    // A session that has a seat already takes no other.
    let again = stack.ticket(&bob, "one").await;
    let bob = connect(&endpoint, &again).await.unwrap();
    assert!(bob.welcome().resumed);

    // The refusal used nothing up: the same token comes in once there is room.
    ann.close();
    gateway
        .told("ann's leaving", |change| {
            matches!(change, tickgate::seat::SeatChange::Ended { .. })
        })
        .await;
    let cid = connect(&endpoint, &ticket).await.unwrap();
    plays(&cid).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_session_again_takes_its_seat_over() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let (phone, tablet) = (endpoint(), endpoint());
    let (session, first) = stack.join("ann", "one", &phone).await;
    plays(&first).await;
    let seat = gateway.seats.find(session.id).unwrap();

    let ticket = stack.ticket(&session, "one").await;
    let second = connect(&tablet, &ticket).await.unwrap();
    assert!(second.welcome().resumed);
    assert_eq!(second.welcome().client, first.welcome().client);
    assert_eq!(gateway.seats.find(session.id), Some(seat));
    match soon("close", first.closed()).await {
        Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::Superseded),
        other => panic!("{other:?}"),
    }
    plays(&second).await;
    // The game saw one player, who never left.
    assert_eq!(gateway.joins(), 1);
    assert!(gateway.seats.verify(seat).is_live());
    gateway.stop().await;
}
