//! Hundreds of players of one fleet, on one thread, at a real gateway with real tickets: they join, play, change their addresses, are refused,
//! leave, and learn why they may not stay.
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
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use support::{Host, Stack, soon};
use tickgate::{
    client::{
        ClientKey, Closed, ConnectError, HelloOptions, Session, Target, Ticket,
        fleet::{Change, Fleet, FleetConfig, Member, News, NotSent, PlayerEvent, Players},
    },
    seat::{EndReason, SeatChange},
    wire::CloseCode,
};
use tokio::{sync::Semaphore, task::JoinSet};

const PLAYERS: usize = 500;
const SOCKETS: usize = 16;

/// Networks of their own: one alone may not begin that many connections at once.
fn players() -> Players {
    let sources = (1..=SOCKETS as u8).map(|n| IpAddr::from([127, 91, 0, n]));
    let config = FleetConfig {
        sources: sources.collect(),
        sockets: SOCKETS,
        ..FleetConfig::default()
    };
    Players::new(Fleet::new(config).unwrap())
}

/// Sessions of so many players, every other with a key of its own, and how their tickets are presented.
async fn tickets(stack: &Stack, count: usize) -> Vec<(Session, Ticket, HelloOptions)> {
    let at_once = Arc::new(Semaphore::new(32));
    let mut logins = JoinSet::new();
    for n in 0..count {
        let (account, at_once) = (stack.account.clone(), Arc::clone(&at_once));
        logins.spawn(async move {
            let _permit = at_once.acquire().await.unwrap();
            let session = account.login_dev(&format!("player-{n}")).await.unwrap();
            let target = Target::Gateway("one".parse().unwrap());
            if n % 2 == 0 {
                let ticket = account.issue_connect_token(&session, target).await.unwrap();
                return (session, ticket, HelloOptions::default());
            }
            let key = ClientKey::generate().unwrap();
            let ticket = account
                .issue_bound_connect_token(&session, target, &key)
                .await
                .unwrap();
            let options = HelloOptions {
                client_key: Some(key),
                ..HelloOptions::default()
            };
            (session, ticket, options)
        });
    }
    soon("tickets", logins.join_all()).await
}

/// Takes turns until `done`, which sees each event, says so.
fn until(
    what: &str,
    players: &mut Players,
    mut done: impl FnMut(&mut Players, PlayerEvent) -> bool,
) {
    let deadline = players.fleet().clock().now() + Duration::from_secs(30);
    loop {
        players.turn(deadline).unwrap();
        while let Some(event) = players.poll() {
            if done(players, event) {
                return;
            }
        }
        assert!(
            players.fleet().clock().now() < deadline,
            "{what}: did not happen within 30 s: {:?}",
            players.fleet()
        );
    }
}

/// Each sends a datagram and a message, and all again until everybody has had both back: datagrams may be lost.
fn everybody_plays(players: &mut Players, members: &[Member], word: &str) {
    let text = |member: &Member| format!("{word} {}", member.place()).into_bytes();
    let mut datagrams: BTreeSet<Member> = members.iter().copied().collect();
    let mut messages = datagrams.clone();
    for member in members {
        players.send_message(*member, &text(member)).unwrap();
    }
    let deadline = players.fleet().clock().now() + Duration::from_secs(30);
    while !datagrams.is_empty() || !messages.is_empty() {
        for member in &datagrams {
            players.send_datagram(*member, &text(member)).unwrap();
        }
        let again = players.fleet().clock().now() + Duration::from_millis(500);
        assert!(again < deadline, "{word}: {datagrams:?}, {messages:?}");
        while players.fleet().clock().now() < again
            && !(datagrams.is_empty() && messages.is_empty())
        {
            players.turn(again).unwrap();
            while let Some(PlayerEvent { member, at, news }) = players.poll() {
                assert!(at <= players.fleet().clock().now());
                match news {
                    // An echo of an earlier word may be late.
                    News::Datagram(payload) if payload == text(&member) => {
                        datagrams.remove(&member);
                    }
                    News::Datagram(_) => {}
                    News::Message(payload) => {
                        assert_eq!(payload, text(&member));
                        assert!(messages.remove(&member), "told twice");
                    }
                    other => panic!("{word}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_play_move_and_learn_why_they_may_not_stay() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let tickets = tickets(&stack, PLAYERS).await;
    let sessions: Vec<Session> = tickets
        .iter()
        .map(|(session, ..)| session.clone())
        .collect();
    let (_, used, options) = tickets[0].clone();
    let address = used.addresses[0];

    let (mut players, members) = play(move || {
        let mut players = players();
        let mut joining = BTreeMap::new();
        for (session, ticket, options) in tickets {
            let member = players.join(ticket, options).unwrap();
            assert_eq!(players.send_datagram(member, b"early"), Err(NotSent::NotIn));
            joining.insert(member, session.id);
        }
        let members: Vec<Member> = joining.keys().copied().collect();
        until("everybody is in", &mut players, |_, event| {
            let News::Joined(welcome) = event.news else {
                panic!("{event:?}")
            };
            assert_eq!(joining.remove(&event.member), Some(welcome.session));
            joining.is_empty()
        });
        everybody_plays(&mut players, &members, "hello");
        (players, members)
    })
    .await;
    assert_eq!(gateway.joins(), PLAYERS);

    // Each to another socket and back, half of them without knowing it; then all ports change at once.
    let before = gateway.changes.lock().unwrap().len();
    let moved = members.clone();
    players = play(move || {
        for change in [Change::Known, Change::Silent] {
            for member in &moved {
                let socket = players.fleet().socket_of(*member).unwrap();
                players.fleet_mut().rebind(*member, change).unwrap();
                assert_ne!(players.fleet().socket_of(*member), Some(socket));
                assert_eq!(players.fleet().remote_address(*member), Some(address));
            }
            everybody_plays(&mut players, &moved, "moved");
        }
        for socket in 0..players.fleet().sockets() {
            let port = players.fleet().local_address(socket).unwrap();
            players.fleet_mut().renew(socket).unwrap();
            assert_ne!(players.fleet().local_address(socket), Some(port));
        }
        everybody_plays(&mut players, &moved, "renewed");
        players
    })
    .await;
    assert_eq!(
        gateway.changes.lock().unwrap().len(),
        before,
        "nobody was lost"
    );

    // Fifty leave, one is refused, one is revoked; the rest play on.
    let (leaving, staying) = members.split_at(50);
    let (leaving, staying) = (leaving.to_vec(), staying.to_vec());
    players = play(move || {
        let mut left: BTreeSet<Member> = leaving.into_iter().collect();
        for member in &left {
            players.leave(*member);
        }
        until("they left", &mut players, |players, event| {
            assert!(
                matches!(event.news, News::Closed(Closed::Local)),
                "{event:?}"
            );
            assert!(left.remove(&event.member));
            assert_eq!(
                players.send_datagram(event.member, b"late"),
                Err(NotSent::Gone)
            );
            left.is_empty()
        });
        let again = players.join(used, options).unwrap();
        until("the used token is refused", &mut players, |_, event| {
            assert_eq!(event.member, again);
            let News::Refused(ConnectError::Refused(closed)) = event.news else {
                panic!("{event:?}")
            };
            assert_eq!(closed.code(), Some(CloseCode::TokenUsed));
            true
        });
        everybody_plays(&mut players, &staying, "still here");
        players
    })
    .await;
    let is_left = |change: &SeatChange| matches!(change, SeatChange::Ended { reason, .. } if *reason == EndReason::Left);
    left(&gateway, 50, is_left).await;

    let revoked = sessions.last().unwrap().clone();
    let account = stack.account.clone();
    let logout = tokio::spawn(async move { account.logout(&revoked).await.unwrap() });
    players = play(move || {
        until("the revocation", &mut players, |_, event| {
            let News::Closed(closed) = event.news else {
                panic!("{event:?}")
            };
            assert_eq!(closed.code(), Some(CloseCode::SessionRevoked));
            true
        });
        players
    })
    .await;
    logout.await.unwrap();

    // The gateway drains: everybody is told, once.
    let told = play(move || {
        let mut told = 0;
        until("the drain", &mut players, |_, event| {
            let News::Closed(closed) = event.news else {
                panic!("{event:?}")
            };
            assert_eq!(closed.code(), Some(CloseCode::Drained));
            told += 1;
            told == PLAYERS - 51
        });
        assert_eq!(players.fleet().open(), 0);
        assert_eq!(players.fleet().kernel_drops().unwrap_or(0), 0);
        told
    });
    let (told, ()) = tokio::join!(told, gateway.stop());
    assert_eq!(told, PLAYERS - 51);
}

/// The fleet's thread.
async fn play<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

/// Waits until the game was told of so many changes that `wanted` accepts.
async fn left(gateway: &Host, count: usize, wanted: impl Fn(&SeatChange) -> bool) {
    let look = async {
        while gateway
            .changes
            .lock()
            .unwrap()
            .iter()
            .filter(|change| wanted(change))
            .count()
            < count
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the game was told", look).await;
}
