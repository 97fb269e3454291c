//! Who may stay and who may not, over real QUIC and the real control channel.
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

use std::time::Duration;

use support::{Stack, connect, endpoint, plays, soon};
use tickgate::{
    client::{Closed, ConnectError, Connection, Ticket, Wait},
    gateway::GatewayConfig,
    id::ClientId,
    seat::{EndReason, SeatChange, Verdict},
    wire::{CloseCode, Welcome},
};

const DAY_MS: i64 = 86_400_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// The code with which the gateway closes this connection.
async fn closed(connection: &Connection) -> CloseCode {
    match soon("close", connection.closed()).await {
        Closed::Gateway { code, .. } => code,
        other => panic!("closed otherwise: {other:?}"),
    }
}

fn ended(reason: EndReason) -> impl Fn(&SeatChange) -> bool {
    move |change| matches!(change, SeatChange::Ended { reason: why, .. } if *why == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_is_thrown_out_and_others_are_not() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let endpoint = endpoint();
    let (ann, anns) = stack.join("ann", "one", &endpoint).await;
    let (_, bobs) = stack.join("bob", "one", &endpoint).await;

    let revoked = stack
        .backend
        .revoke_session(ann.id, Wait::Gateways(Duration::from_secs(10)))
        .await
        .unwrap();
    assert!(revoked.acknowledged);
    assert_eq!(revoked.sessions_ended, 1);
    // The gateways have acknowledged: from here on no verify lets her stay.
    assert!(!gateway.seats(ann.id));
    assert_eq!(closed(&anns).await, CloseCode::SessionRevoked);
    gateway
        .told("ann's end", ended(EndReason::SessionRevoked))
        .await;
    plays(&bobs).await;

    // Her tokens are worth nothing any more.
    assert!(stack.account.who_am_i(&ann.token).await.is_err());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_player_is_thrown_out_everywhere_and_may_log_in_again() {
    let stack = Stack::start().await;
    let (one, two) = (
        stack.plain_gateway("one").await,
        stack.plain_gateway("two").await,
    );
    let endpoint = endpoint();
    let (first, at_one) = stack.join("ann", "one", &endpoint).await;
    let (second, at_two) = stack.join("ann", "two", &endpoint).await;
    let (_, bobs) = stack.join("bob", "one", &endpoint).await;
    assert_eq!(first.player, second.player);

    let revoked = stack
        .backend
        .revoke_player(first.player, Wait::Gateways(Duration::from_secs(10)))
        .await
        .unwrap();
    assert!(revoked.acknowledged);
    assert_eq!(revoked.sessions_ended, 2);
    assert_eq!(closed(&at_one).await, CloseCode::SessionRevoked);
    assert_eq!(closed(&at_two).await, CloseCode::SessionRevoked);
    plays(&bobs).await;

    let (_, again) = stack.join("ann", "one", &endpoint).await;
    plays(&again).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_revoked_between_mint_and_presentation_does_not_come_in() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let session = stack.login("ann").await;
    let by_session = stack.ticket(&session, "one").await;
    let other = stack.login("bob").await;
    let by_player = stack.ticket(&other, "one").await;
    let wait = Wait::Gateways(Duration::from_secs(10));
    assert!(
        stack
            .backend
            .revoke_session(session.id, wait)
            .await
            .unwrap()
            .acknowledged
    );
    assert!(
        stack
            .backend
            .revoke_player(other.player, wait)
            .await
            .unwrap()
            .acknowledged
    );
    for ticket in [by_session, by_player] {
        match connect(&endpoint(), &ticket).await {
            Err(ConnectError::Refused(Closed::Gateway { code, .. })) => {
                assert_eq!(code, CloseCode::SessionRevoked);
            }
            other => panic!("{:?}", other.map(|_| "admitted")),
        }
    }
    assert_eq!(gateway.joins(), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_absolute_ends_come_when_they_are_due() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let endpoint = endpoint();
    let (_, idles) = stack.join("idle", "one", &endpoint).await;
    let (_, plays_on) = stack.join("active", "one", &endpoint).await;

    // To be seated is activity, and written within a window. The pings that keep the connections up are none.
    gateway.activity_is_written().await;
    stack.time.advance(HOUR - Duration::from_secs(2));
    plays(&plays_on).await;
    stack.time.advance(Duration::from_secs(3));
    assert_eq!(closed(&idles).await, CloseCode::SessionIdle);
    gateway
        .told("the idle one's end", ended(EndReason::Idle))
        .await;
    plays(&plays_on).await;

    // Active all day long, and over after a day all the same.
    for _ in 0..23 {
        stack.time.advance(HOUR - Duration::from_secs(60));
        plays(&plays_on).await;
    }
    stack.time.advance(HOUR - Duration::from_secs(60));
    assert_eq!(closed(&plays_on).await, CloseCode::SessionExpired);
    gateway
        .told("the active one's end", ended(EndReason::Expired))
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_wall_clock_changes_nothing() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let endpoint = endpoint();
    let (_, before) = stack.join("before", "one", &endpoint).await;
    let mut in_play = Vec::new();
    for (step, name) in [(DAY_MS, "ahead"), (-2 * DAY_MS, "behind")] {
        let session = stack.login(&format!("{name}-early")).await;
        let early = stack.ticket(&session, "one").await;
        stack.time.step_wall(step);
        // Nobody is dropped; a token from before the step opens; new ones do; and time goes on as before.
        plays(&before).await;
        in_play.push(connect(&endpoint, &early).await.unwrap());
        let (session, connection) = stack.join(name, "one", &endpoint).await;
        plays(&connection).await;
        stack.account.who_am_i(&session.token).await.unwrap();
        stack.time.advance(Duration::from_secs(60));
        in_play.push(connection);
        for connection in &in_play {
            plays(connection).await;
        }
    }
    // Nor is anybody revived: a token that was too old stays too old.
    let session = stack.login("late").await;
    let late = stack.ticket(&session, "one").await;
    stack.time.advance(Duration::from_secs(40));
    stack.time.step_wall(-DAY_MS);
    match connect(&endpoint, &late).await {
        Err(ConnectError::Refused(Closed::Gateway { code, .. })) => {
            assert_eq!(code, CloseCode::TokenExpired)
        }
        other => panic!("{:?}", other.map(|_| "admitted")),
    }
    let changes = gateway.changes.lock().unwrap().clone();
    assert!(
        !changes
            .iter()
            .any(|change| matches!(change, SeatChange::Ended { .. })),
        "{changes:?}"
    );
    gateway.stop().await;
}

/// How long a session may come back to its seat, by the stack's clock, which stands still.
const GRACE: Duration = Duration::from_secs(15);

/// A gateway that finds out soon that a client is gone.
fn attentive(stack: &Stack) -> GatewayConfig {
    let mut config = stack.gateway_config("one");
    config.limits.idle_timeout = Duration::from_secs(1);
    config.seats.grace = GRACE;
    config
}

/// Plays with this ticket and is cut off in the middle: no packet says so, as when a phone goes into a tunnel.
async fn plays_and_is_cut_off(ticket: Ticket) -> Welcome {
    let lost = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (endpoint, connection) = runtime.block_on(async {
            let endpoint = endpoint();
            let connection = connect(&endpoint, &ticket).await.unwrap();
            plays(&connection).await;
            (endpoint, connection)
        });
        let welcome = *connection.welcome();
        // What would send the farewell of connection and endpoint is gone before them.
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop((connection, endpoint));
        welcome
    });
    soon("to play and be cut off", lost).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_cut_off_comes_back_to_its_seat() {
    let stack = Stack::start().await;
    let gateway = stack.gateway(attentive(&stack)).await;
    let session = stack.login("ann").await;
    let welcome = plays_and_is_cut_off(stack.ticket(&session, "one").await).await;
    let seat = gateway.seats.find(session.id).unwrap();
    gateway
        .told("the suspension", |change| {
            *change == SeatChange::Suspended { handle: seat }
        })
        .await;
    assert_eq!(gateway.seats.verify(seat), Verdict::Suspended);
    assert!(!gateway.seats(session.id), "nobody is there");

    stack.time.advance(GRACE - Duration::from_secs(1));
    let ticket = stack.ticket(&session, "one").await;
    let endpoint = endpoint();
    let back = connect(&endpoint, &ticket).await.unwrap();
    assert!(back.welcome().resumed);
    assert_eq!(back.welcome().client, welcome.client);
    assert_eq!(gateway.seats.find(session.id), Some(seat));
    plays(&back).await;
    gateway
        .told(
            "the resumption",
            |change| matches!(change, SeatChange::Resumed { handle, .. } if *handle == seat),
        )
        .await;
    // The grace of the first loss is void.
    stack.time.advance(Duration::from_secs(5));
    plays(&back).await;
    assert_eq!(gateway.joins(), 1);
    let counts = gateway.seats.counts();
    assert_eq!(
        (counts.joined, counts.resumed, counts.suspensions),
        (1, 1, 1)
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_back_too_late_gets_a_new_seat() {
    let stack = Stack::start().await;
    let gateway = stack.gateway(attentive(&stack)).await;
    let session = stack.login("ann").await;
    let welcome = plays_and_is_cut_off(stack.ticket(&session, "one").await).await;
    let client = welcome.client;
    let is_suspended = |change: &SeatChange| matches!(change, SeatChange::Suspended { .. });
    gateway.told("the suspension", is_suspended).await;
    stack.time.advance(GRACE);
    gateway
        .told("the end", |change| {
            ended_as(change, client, EndReason::Lost)
        })
        .await;

    let endpoint = endpoint();
    let ticket = stack.ticket(&session, "one").await;
    let again = connect(&endpoint, &ticket).await.unwrap();
    assert!(!again.welcome().resumed);
    assert_ne!(again.welcome().client, client);
    plays(&again).await;
    assert_eq!(gateway.joins(), 2);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_a_seat_that_nobody_serves() {
    let stack = Stack::start().await;
    let gateway = stack.gateway(attentive(&stack)).await;
    let session = stack.login("ann").await;
    let welcome = plays_and_is_cut_off(stack.ticket(&session, "one").await).await;
    let is_suspended = |change: &SeatChange| matches!(change, SeatChange::Suspended { .. });
    gateway.told("the suspension", is_suspended).await;
    let ticket = stack.ticket(&session, "one").await;
    let wait = Wait::Gateways(Duration::from_secs(10));
    let revoked = stack
        .backend
        .revoke_session(session.id, wait)
        .await
        .unwrap();
    assert!(revoked.acknowledged);
    gateway
        .told("the end", |change| {
            ended_as(change, welcome.client, EndReason::SessionRevoked)
        })
        .await;
    match connect(&endpoint(), &ticket).await {
        Err(ConnectError::Refused(Closed::Gateway { code, .. })) => {
            assert_eq!(code, CloseCode::SessionRevoked);
        }
        other => panic!("{:?}", other.map(|_| "admitted")),
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_that_it_leaves_is_gone_at_once() {
    let stack = Stack::start().await;
    let gateway = stack.gateway(attentive(&stack)).await;
    let endpoint = endpoint();
    let (session, connection) = stack.join("ann", "one", &endpoint).await;
    plays(&connection).await;
    connection.close();
    gateway.told("the leaving", ended(EndReason::Left)).await;
    let ticket = stack.ticket(&session, "one").await;
    let again = connect(&endpoint, &ticket).await.unwrap();
    assert!(!again.welcome().resumed);
    assert_eq!(gateway.seats.counts().suspensions, 0);
    gateway.stop().await;
}

fn ended_as(change: &SeatChange, client: ClientId, reason: EndReason) -> bool {
    matches!(
        change,
        SeatChange::Ended { client: whose, reason: why, .. } if *whose == client && *why == reason
    )
}
