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

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ring::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use support::{Host, Stack, connect, endpoint, plays, soon};
use tickgate::{
    client::{Closed, ConnectError, Connection, Endpoint, SecretToken, Session, Target, Ticket},
    control::{CarriedKey, Revocation, RevocationRange},
    gateway::Limits,
    id::{ClientId, Lineage, PlayerGeneration, Revision, SessionId},
    seat::{SamePlayer, SeatChange, SeatConfig},
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
    wire::{CloseCode, Hello, MAX_HELLO, proof_message},
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
    // They all come from one address, which may hold an eighth of a room.
    config.limits = Limits {
        handshakes: 8 * TIMES,
        retry_above: 8 * TIMES,
        awaiting_hello: 8 * TIMES,
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
fn home_made(session: &Session, now: tickgate::clock::Timestamp) -> String {
    seal_connect(&TransportKey::generate(), &claims(session, now))
}

fn claims(session: &Session, now: tickgate::clock::Timestamp) -> ConnectClaims {
    ConnectClaims {
        player: session.player,
        session: session.id,
        player_generation: PlayerGeneration(0),
        client: ClientId(1),
        nonce: Nonce::random(),
        gateway: "one".parse().unwrap(),
        revision: Revision(0),
        session_ends_at: session.ends_at,
        client_key: None,
        issued_at: now,
        expires_at: now.after(Duration::from_secs(30)),
    }
}

/// A gateway that opens tokens of the test's own making, and a ticket of the sidecar's for somebody to come with.
struct Own {
    stack: Stack,
    gateway: Host,
    key: TransportKey,
    session: Session,
    ticket: Ticket,
}

impl Own {
    async fn start() -> Self {
        let stack = Stack::start().await;
        let gateway = stack.plain_gateway("one").await;
        let session = stack.login("ann").await;
        let ticket = stack.ticket(&session, "one").await;
        let key = TransportKey::generate();
        gateway.gateway.host().install_keys(&[CarriedKey {
            epoch: 1,
            key: key.expose().to_vec().into(),
        }]);
        Self {
            stack,
            gateway,
            key,
            session,
            ticket,
        }
    }

    fn claims(&self) -> ConnectClaims {
        claims(&self.session, self.stack.time.clock().wall())
    }

    fn ticket(&self, claims: &ConnectClaims) -> Ticket {
        with_token(&self.ticket, &seal_connect(&self.key, claims))
    }

    /// The gateway hears of a revocation that is nobody's here.
    fn log_goes_on(&self, from: u64) {
        self.gateway
            .gateway
            .host()
            .apply_revocations(&RevocationRange {
                from: Revision(from),
                to: Revision(from + 1),
                events: vec![Revocation::Session(SessionId(u128::from(from)))],
            });
    }
}

async fn says(
    endpoint: &Endpoint,
    ticket: &Ticket,
    hello: &Hello,
) -> Result<Connection, CloseCode> {
    let client = soon("handshake", endpoint.handshake(ticket)).await.unwrap();
    match soon("an answer", client.admit(hello)).await {
        Ok(connection) => Ok(connection),
        Err(ConnectError::Refused(Closed::Gateway { code, .. })) => Err(code),
        Err(other) => panic!("refused otherwise: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_names_a_key_needs_its_proof() {
    let own = Own::start().await;
    let endpoint = endpoint();
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let claims = ConnectClaims {
        client_key: Some(key.public_key().as_ref().try_into().unwrap()),
        ..own.claims()
    };
    let ticket = own.ticket(&claims);
    let token = ticket.token.expose();
    let sha256 = |text: &str| -> [u8; 32] {
        let digest = digest(&SHA256, text.as_bytes());
        digest.as_ref().try_into().unwrap()
    };
    let leaf = ticket.certificate_sha256[0];
    let sign = |key: &Ed25519KeyPair, token: &str, leaf: &[u8; 32]| -> Option<[u8; 64]> {
        let signature = key.sign(&proof_message(&sha256(token), leaf));
        Some(signature.as_ref().try_into().unwrap())
    };
    let thief = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    for proof in [
        None,
        Some([0; 64]),
        sign(&thief, token, &leaf),
        sign(&key, "another token", &leaf),
        // What somebody in between would have had signed: over its own certificate.
        sign(&key, token, &[1; 32]),
    ] {
        let hello = Hello {
            proof,
            ..Hello::new(token)
        };
        let refused = says(&endpoint, &ticket, &hello).await;
        assert_eq!(refused.err(), Some(CloseCode::TokenRejected));
    }
    assert_eq!(own.gateway.joins(), 0);
    let hello = Hello {
        proof: sign(&key, token, &leaf),
        ..Hello::new(token)
    };
    let connection = says(&endpoint, &ticket, &hello).await.unwrap();
    plays(&connection).await;
    own.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ahead_of_the_log_waits_for_it_a_moment() {
    let own = Own::start().await;
    let (one, other) = (endpoint(), endpoint());
    // The gateway's log is reset to where the test wants it: no matter to the control channel, since nobody is revoked meanwhile.
    let host = own.gateway.gateway.host();
    host.reset_log(Lineage(7), Revision(10), &[]);
    let ahead = ConnectClaims {
        revision: Revision(12),
        ..own.claims()
    };
    let begun = Instant::now();
    let hello = Hello::new(own.ticket(&ahead).token.expose());
    let in_vain = says(&one, &own.ticket, &hello).await;
    assert_eq!(in_vain.err(), Some(CloseCode::GatewayNotReady));
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(490), "{waited:?}");

    // The refusal used nothing up; and who waits comes in as soon as the log has caught up, in two steps.
    let mut client = soon("handshake", other.handshake(&own.ticket))
        .await
        .unwrap();
    let mut hello = Vec::new();
    Hello::new(own.ticket(&ahead).token.expose())
        .encode(&mut hello)
        .unwrap();
    // A message right behind it is read when it is in.
    tickgate::wire::encode_message(b"early", &mut hello).unwrap();
    soon("hello", client.send_hello_bytes(&hello))
        .await
        .unwrap();
    own.log_goes_on(10);
    assert_eq!(own.gateway.joins(), 0);
    own.log_goes_on(11);
    let connection = soon("welcome", client.welcome()).await.unwrap();
    let echo = soon("an echo", connection.recv_message()).await.unwrap();
    assert_eq!(echo.as_ref(), b"early");
    plays(&connection).await;
    own.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_the_log_is_sent_for_a_new_one() {
    let own = Own::start().await;
    let endpoint = endpoint();
    let host = own.gateway.gateway.host();
    host.reset_log(Lineage(7), Revision(10), &[]);
    let before = own.ticket(&ConnectClaims {
        revision: Revision(9),
        ..own.claims()
    });
    assert_eq!(refused(&endpoint, &before).await, CloseCode::TokenExpired);
    let at_its_beginning = own.ticket(&ConnectClaims {
        revision: Revision(10),
        ..own.claims()
    });
    let connection = connect(&endpoint, &at_its_beginning).await.unwrap();
    plays(&connection).await;
    own.gateway.stop().await;
}

/// Two sessions of one player at a gateway with this rule: what becomes of the first, and of the second.
async fn two_sessions(
    same_player: SamePlayer,
) -> (Result<(), CloseCode>, Result<(), CloseCode>, usize) {
    let stack = Stack::start().await;
    let mut config = stack.gateway_config("one");
    config.seats.same_player = same_player;
    let gateway = stack.gateway(config).await;
    let (phone, tablet) = (endpoint(), endpoint());
    let (one, first) = stack.join("ann", "one", &phone).await;
    let two = stack.login("ann").await;
    assert_eq!(one.player, two.player);
    assert_ne!(one.id, two.id);
    let ticket = stack.ticket(&two, "one").await;
    let second = match connect(&tablet, &ticket).await {
        Ok(second) => {
            plays(&second).await;
            Ok(())
        }
        Err(ConnectError::Refused(Closed::Gateway { code, .. })) => Err(code),
        Err(other) => panic!("{other:?}"),
    };
    let first = if gateway.seats(one.id) {
        plays(&first).await;
        Ok(())
    } else {
        match soon("close", first.closed()).await {
            Closed::Gateway { code, .. } => Err(code),
            other => panic!("{other:?}"),
        }
    };
    let joins = gateway.joins();
    gateway.stop().await;
    (first, second, joins)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_player_who_comes_twice_is_the_games_rule() {
    assert_eq!(
        two_sessions(SamePlayer::NewestWins).await,
        (Err(CloseCode::Superseded), Ok(()), 2)
    );
    assert_eq!(
        two_sessions(SamePlayer::OldestWins).await,
        (Ok(()), Err(CloseCode::PlayerPresent), 1)
    );
    assert_eq!(two_sessions(SamePlayer::Allow).await, (Ok(()), Ok(()), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_gateway_admits_nobody_until_it_is_called_off() {
    use tickgate::control::Drain;
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let endpoint = endpoint();
    let (_, in_play) = stack.join("ann", "one", &endpoint).await;
    let bob = stack.login("bob").await;
    let ticket = stack.ticket(&bob, "one").await;
    let host = gateway.gateway.host();
    host.drain(Drain::Within(Duration::from_secs(600)));
    assert_eq!(refused(&endpoint, &ticket).await, CloseCode::Drained);
    plays(&in_play).await;
    host.drain(Drain::Cancel);
    let connection = connect(&endpoint, &ticket).await.unwrap();
    plays(&connection).await;
    gateway.stop().await;
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
            matches!(change, SeatChange::Ended { .. })
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
