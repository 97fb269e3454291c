//! Playing against gateways of a few lines, over real QUIC on loopback.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::*;
use crate::{
    client::{
        Backoff, CallError, Closed, Patience, Ticket,
        tests::{Peer, WELCOME, client, gateway, soon},
    },
    wire::{Advice, CloseCode, Frame, Welcome},
};

const NO_PAUSES: Backoff = Backoff {
    first: Duration::ZERO,
    longest: Duration::ZERO,
};

/// No pauses between attempts.
fn haste() -> PlayOptions {
    let patience = Patience {
        total: Duration::from_secs(30),
        new_token: NO_PAUSES,
        retry_later: NO_PAUSES,
    };
    PlayOptions {
        persistence: Persistence {
            patience,
            ..Persistence::default()
        },
        client_key: None,
    }
}

/// Where the client wanted to go, each time.
type Targets = Arc<Mutex<Vec<Target>>>;

/// Plays at the ticket's gateway, whatever the target.
fn play(ticket: Ticket) -> (Play, Events, Targets) {
    let targets = Targets::default();
    let noted = Arc::clone(&targets);
    let tickets = move |target: Target, _key: Option<[u8; 32]>| {
        noted.lock().unwrap().push(target);
        let ticket = ticket.clone();
        async move { Ok(ticket) }
    };
    let (play, events) = Play::start(client(), tickets, Target::Any, haste());
    (play, events, targets)
}

async fn next(events: &mut Events) -> Event {
    soon(events.next()).await.expect("an event")
}

async fn labels(events: &mut Events, count: usize) -> Vec<&'static str> {
    let mut labels = Vec::new();
    for _ in 0..count {
        labels.push(next(events).await.label());
    }
    labels
}

#[tokio::test]
async fn a_lost_seat_is_resumed_where_it_was() {
    let (endpoint, ticket) = gateway();
    let (play, mut events, targets) = play(ticket);
    let first = soon(Peer::admit(&endpoint)).await;
    assert_eq!(labels(&mut events, 2).await, ["connecting", "joined"]);

    // Who waits for something gets it over the next connection.
    let receiving = async { tokio::join!(play.recv_datagram(), play.recv_message()) };
    let gateway = async {
        first.close(CloseCode::InternalError, b"");
        let (mut second, _) = Peer::accept(&endpoint).await;
        let welcome = Welcome {
            resumed: true,
            ..WELCOME
        };
        second.write(&Frame::Welcome(welcome)).await;
        second.write(&Frame::Message("message".into())).await;
        second.quic.send_datagram("datagram".into()).unwrap();
        second
    };
    let ((datagram, message), _second) = soon(async { tokio::join!(receiving, gateway) }).await;
    assert_eq!(datagram.unwrap(), "datagram");
    assert_eq!(message.unwrap(), "message");

    match next(&mut events).await {
        Event::Lost { reason, .. } => assert_eq!(reason.code(), Some(CloseCode::InternalError)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        next(&mut events).await,
        Event::Connecting { attempt: 1 }
    ));
    assert!(matches!(
        next(&mut events).await,
        Event::Joined { resumed: true, .. }
    ));
    let home = Target::Gateway("dev-1".parse().unwrap());
    assert_eq!(*targets.lock().unwrap(), [Target::Any, home]);
}

#[tokio::test]
async fn what_is_sent_while_away_fails_at_once() {
    let never = |_: Target, _: Option<[u8; 32]>| std::future::pending();
    let (play, mut events) = Play::start(client(), never, Target::Any, haste());
    assert_eq!(labels(&mut events, 1).await, ["connecting"]);
    assert_eq!(play.welcome(), None);
    assert_eq!(
        play.send_datagram(Bytes::from_static(b"x")),
        Err(SendError::Away)
    );
    assert_eq!(soon(play.send_message(b"x")).await, Err(SendError::Away));
    assert_eq!(play.try_recv_datagram(), None);
    // Who waits for nothing can still leave.
    soon(play.leave()).await;
    assert_eq!(labels(&mut events, 1).await, ["ended"]);
    assert!(soon(events.next()).await.is_none());
}

#[tokio::test]
async fn a_final_close_is_final() {
    let (endpoint, ticket) = gateway();
    let (play, mut events, targets) = play(ticket);
    let peer = soon(Peer::admit(&endpoint)).await;
    assert_eq!(labels(&mut events, 2).await, ["connecting", "joined"]);
    peer.close(CloseCode::Superseded, b"");
    let end = soon(play.recv_datagram()).await.unwrap_err();
    assert_eq!(end.label(), "superseded");
    match next(&mut events).await {
        Event::Ended { reason, advice } => {
            assert_eq!((reason.label(), advice), ("superseded", Advice::GiveUp));
        }
        other => panic!("{other:?}"),
    }
    assert!(soon(events.next()).await.is_none());
    assert_eq!(soon(play.over()).await.label(), "superseded");
    assert_eq!(play.send_datagram(Bytes::new()), Err(SendError::Over));
    assert_eq!(targets.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_that_is_over_ends_it() {
    let refused = |_: Target, _: Option<[u8; 32]>| async {
        Err(CallError::Unauthenticated("revoked".into()))
    };
    let (_play, mut events) = Play::start(client(), refused, Target::Any, haste());
    assert_eq!(labels(&mut events, 1).await, ["connecting"]);
    match next(&mut events).await {
        Event::Ended { advice, .. } => assert_eq!(advice, Advice::LogIn),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rejections_are_outlasted() {
    let (endpoint, ticket) = gateway();
    let (_play, mut events, _) = play(ticket);
    for _ in 0..3 {
        let (peer, _) = soon(Peer::accept(&endpoint)).await;
        peer.close(CloseCode::TokenRejected, b"");
        assert_eq!(labels(&mut events, 2).await, ["connecting", "waiting"]);
    }
    let _peer = soon(Peer::admit(&endpoint)).await;
    assert!(matches!(
        next(&mut events).await,
        Event::Connecting { attempt: 4 }
    ));
    assert_eq!(labels(&mut events, 1).await, ["joined"]);
}

#[tokio::test]
async fn leaving_tells_the_gateway() {
    let (endpoint, ticket) = gateway();
    let (play, mut events, _) = play(ticket);
    let peer = soon(Peer::admit(&endpoint)).await;
    assert_eq!(labels(&mut events, 2).await, ["connecting", "joined"]);
    soon(play.leave()).await;
    let told = Closed::from(soon(peer.quic.closed()).await);
    assert_eq!(told.code(), Some(CloseCode::Left));
    match next(&mut events).await {
        Event::Ended { reason, advice } => {
            assert_eq!((reason.label(), advice), ("left", Advice::Nothing));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn dropping_it_leaves_and_ends_its_task() {
    let (endpoint, ticket) = gateway();
    let (play, mut events, targets) = play(ticket);
    let peer = soon(Peer::admit(&endpoint)).await;
    assert_eq!(labels(&mut events, 2).await, ["connecting", "joined"]);
    drop(play);
    let told = Closed::from(soon(peer.quic.closed()).await);
    assert_eq!(told.code(), Some(CloseCode::Left));
    // The task held the other one.
    let gone = async {
        while Arc::strong_count(&targets) > 1 {
            tokio::task::yield_now().await;
        }
    };
    soon(gone).await;
}
