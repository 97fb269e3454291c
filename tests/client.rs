//! The client library against the real thing: sessions kept fresh in mid-play, seats resumed, keys proven, games without async.
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

use std::time::{Duration, Instant};

use relay::Relay;
use support::{Stack, connect, endpoint, plays, soon};
use tickgate::{
    client::{
        CallError, ClientKey, Closed, Event, Events, HelloOptions, Play, PlayOptions,
        RefreshPolicy, SendError, SessionKeeper, Target,
        blocking::{Client, Player, Settings},
    },
    clock::ManualTime,
    seat::SeatChange,
    sidecar::SidecarConfig,
    wire::{Advice, CloseCode},
};

const STEP: Duration = Duration::from_millis(10);

/// Lets the stack's time pass as time does, while the test goes on.
fn let_time_pass(time: &ManualTime) -> tokio::task::JoinHandle<()> {
    let time = time.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(STEP).await;
            time.advance(STEP);
        }
    })
}

fn one() -> Target {
    Target::Gateway("one".parse().unwrap())
}

/// Session tokens that live for 2 s.
fn short_lived(config: &mut SidecarConfig) {
    config.lives.session_token = Duration::from_secs(2);
}

/// A keeper that refreshes at any pace, by the stack's time.
fn keeper(stack: &Stack, session: tickgate::client::Session) -> SessionKeeper {
    let policy = RefreshPolicy {
        floor: Duration::ZERO,
        ..RefreshPolicy::default()
    };
    let account = stack.account.clone();
    SessionKeeper::with(account, session, policy, stack.time.clock())
}

/// Waits for an event that `wanted` accepts, and says which.
async fn told(what: &'static str, events: &mut Events, wanted: fn(&Event) -> bool) -> Event {
    soon(what, async {
        loop {
            let event = events.next().await.expect("playing has not ended");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

/// Sends until an echo comes.
async fn echoes(play: &Play) {
    let echo = async {
        loop {
            match play.send_datagram(bytes::Bytes::from_static(b"ping")) {
                Ok(()) | Err(SendError::Away) => {}
                Err(error) => panic!("{error}"),
            }
            let echo = tokio::time::timeout(Duration::from_millis(200), play.recv_datagram());
            if let Ok(echo) = echo.await {
                assert_eq!(echo.unwrap().as_ref(), b"ping");
                return;
            }
        }
    };
    soon("an echo", echo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_refreshed_in_mid_play_and_nobody_is_disturbed() {
    let stack = Stack::start_with(short_lived).await;
    let gateway = stack.plain_gateway("one").await;
    let clock = let_time_pass(&stack.time);
    let session = stack.login("ann").await;
    let keeper = keeper(&stack, session.clone());
    let (play, mut events) = Play::start(endpoint(), keeper.clone(), one(), PlayOptions::default());
    let joined = |event: &Event| matches!(event, Event::Joined { resumed: false, .. });
    told("a join", &mut events, joined).await;

    let refreshed = |event: &Event| matches!(event, Event::SessionRefreshed { .. });
    for _ in 0..3 {
        told("a refresh", &mut events, refreshed).await;
        echoes(&play).await;
    }
    let kept = keeper.session();
    assert_eq!((kept.id, kept.player), (session.id, session.player));
    assert_ne!(kept.token, session.token);
    assert_eq!(kept.role.as_deref(), Some("player"));
    assert_eq!(kept.ends_at, session.ends_at);
    let sessions = stack.account.list_sessions(&kept, false).await.unwrap();
    assert_eq!(sessions.len(), 1);
    assert!(sessions[0].generation >= 3);

    // The game has seen one player come, and nothing else.
    assert_eq!(gateway.joins(), 1);
    assert_eq!(gateway.changes.lock().unwrap().len(), 1);
    clock.abort();
    play.leave().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_need_a_token_share_one_refresh() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let keeper = keeper(&stack, stack.login("ann").await);
    stack.time.advance(Duration::from_secs(15 * 60));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let keeper = keeper.clone();
            tokio::spawn(async move { keeper.issue_connect_token(one(), None).await.unwrap() })
        })
        .collect();
    for caller in callers {
        soon("a ticket", caller).await.unwrap();
    }
    let session = keeper.stop().await;
    let listed = stack.account.list_sessions(&session, false).await.unwrap();
    assert_eq!(listed[0].generation, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_the_session_everywhere() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let keeper = keeper(&stack, stack.login("ann").await);
    let (_play, mut events) =
        Play::start(endpoint(), keeper.clone(), one(), PlayOptions::default());
    told("a join", &mut events, |event| {
        matches!(event, Event::Joined { .. })
    })
    .await;
    assert!(keeper.logout().await.unwrap());
    let ended = told("the end", &mut events, |event| {
        matches!(event, Event::Ended { .. })
    });
    match ended.await {
        Event::Ended { reason, advice } => {
            assert_eq!(reason.label(), "session_revoked");
            assert_eq!(advice, Advice::LogIn);
        }
        other => panic!("{other:?}"),
    }
    let session = keeper.session();
    assert!(matches!(
        stack.account.refresh(&session).await,
        Err(CallError::Unauthenticated(_))
    ));
    gateway.stop().await;
}

/// A connection that is lost without a word takes the idle timeout of 10 s to be missed; this test takes as long.
#[tokio::test(flavor = "multi_thread")]
async fn a_player_comes_out_of_a_tunnel_and_plays_on() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let keeper = SessionKeeper::with(
        stack.account.clone(),
        stack.login("ann").await,
        RefreshPolicy::default(),
        stack.time.clock(),
    );
    let relay = Relay::to(stack.ticket(&keeper.session(), "one").await.addresses[0]).await;
    let through = relay.address();
    let tickets = move |target: Target, _key: Option<[u8; 32]>| {
        let keeper = keeper.clone();
        async move {
            let mut ticket = keeper.issue_connect_token(target, None).await?;
            ticket.addresses = vec![through];
            Ok(ticket)
        }
    };
    let (play, mut events) = Play::start(endpoint(), tickets, Target::Any, PlayOptions::default());
    let joined = |event: &Event| matches!(event, Event::Joined { .. });
    let Event::Joined { client, .. } = told("a join", &mut events, joined).await else {
        panic!("no join");
    };
    echoes(&play).await;

    relay.pass(false);
    let lost = told("the loss", &mut events, |event| {
        matches!(event, Event::Lost { .. })
    });
    match lost.await {
        Event::Lost { reason, .. } => assert_eq!(reason, Closed::Lost),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        play.send_datagram(bytes::Bytes::new()),
        Err(SendError::Away)
    );
    relay.pass(true);
    match told("the return", &mut events, joined).await {
        Event::Joined {
            client: again,
            resumed,
            ..
        } => {
            assert!(resumed);
            assert_eq!(again, client);
        }
        other => panic!("{other:?}"),
    }
    echoes(&play).await;
    assert_eq!(gateway.joins(), 1);
    let ended = |change: &SeatChange| matches!(change, SeatChange::Ended { .. });
    assert!(!gateway.changes.lock().unwrap().iter().any(ended));
    play.leave().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_restarts_gets_its_players_back() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let keeper = SessionKeeper::with(
        stack.account.clone(),
        stack.login("ann").await,
        RefreshPolicy::default(),
        stack.time.clock(),
    );
    let (play, mut events) = Play::start(endpoint(), keeper, one(), PlayOptions::default());
    let joined = |event: &Event| matches!(event, Event::Joined { resumed: false, .. });
    told("a join", &mut events, joined).await;
    gateway.stop().await;
    told("the loss", &mut events, |event| {
        matches!(event, Event::Lost { .. })
    })
    .await;
    let gateway = stack.plain_gateway("one").await;
    told("the return", &mut events, joined).await;
    echoes(&play).await;
    play.leave().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_device_is_final_for_the_first() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let session = stack.login("ann").await;
    let keeper = keeper(&stack, session.clone());
    let (_play, mut events) = Play::start(endpoint(), keeper, one(), PlayOptions::default());
    told("a join", &mut events, |event| {
        matches!(event, Event::Joined { .. })
    })
    .await;
    let ticket = stack.ticket(&session, "one").await;
    let second = connect(&endpoint(), &ticket).await.unwrap();
    let ended = told("the end", &mut events, |event| {
        matches!(event, Event::Ended { .. })
    });
    match ended.await {
        Event::Ended { reason, advice } => {
            assert_eq!((reason.label(), advice), ("superseded", Advice::GiveUp));
        }
        other => panic!("{other:?}"),
    }
    plays(&second).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_admits_only_who_holds_the_key() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let session = stack.login("ann").await;
    let key = ClientKey::generate().unwrap();
    let endpoint = endpoint();
    let thief = ClientKey::generate().unwrap();
    for stolen in [None, Some(thief)] {
        let ticket = stack
            .account
            .issue_bound_connect_token(&session, one(), &key);
        let options = HelloOptions {
            client_key: stolen,
            ..HelloOptions::default()
        };
        let ticket = soon("a ticket", ticket).await.unwrap();
        let refused = soon("a refusal", endpoint.connect_with(&ticket, &options)).await;
        assert_eq!(
            refused.unwrap_err().label(),
            CloseCode::TokenRejected.label()
        );
    }
    let options = PlayOptions {
        client_key: Some(key),
        ..PlayOptions::default()
    };
    let keeper = keeper(&stack, session);
    let (play, _events) = Play::start(endpoint, keeper, one(), options);
    echoes(&play).await;
    play.leave().await;
    gateway.stop().await;
}

/// The game's side of it: no async, a loop with frames.
fn frames<T>(
    what: &str,
    client: &mut Client,
    mut frame: impl FnMut(&mut Client) -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(done) = frame(client) {
            return done;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_without_async_plays() {
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let url = format!("https://{}", stack.sidecar.addresses().auth);
    let ca = vec![stack.certs.ca.clone()];
    let game = move || {
        // The stack's clock is years behind this machine's: tokens seem to have expired when they come, which must not matter.
        let player = Player::Dev("ann".into());
        let mut client = Client::start(Settings::new(url, ca, player, one())).unwrap();
        assert_eq!(client.send_datagram(b"early"), Err(SendError::Away));
        let mut seen = Vec::new();
        frames("a join", &mut client, |client| {
            let event = client.poll_event()?;
            seen.push(event.label());
            matches!(event, Event::Joined { .. }).then_some(())
        });
        assert_eq!(seen.first(), Some(&"logging_in"));
        assert!(client.is_in());
        client.send_message(b"hello").unwrap();
        let message = frames("a message", &mut client, Client::recv_message);
        assert_eq!(message, "hello");
        let datagram = frames("a datagram", &mut client, |client| {
            client.send_datagram(b"ping").unwrap();
            client.recv_datagram()
        });
        assert_eq!(datagram, "ping");
        client.close().expect("there was a log-in")
    };
    let session = tokio::task::spawn_blocking(game).await.unwrap();
    // The session lives on, and its newest tokens are good.
    stack.account.refresh(&session).await.unwrap();
    gateway
        .told("the end", |change| {
            matches!(change, SeatChange::Ended { .. })
        })
        .await;
    gateway.stop().await;
}

#[test]
fn a_game_without_async_ends_at_once_though_nobody_answers() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let settings = Settings::new(url, Vec::new(), Player::Dev("ann".into()), one());
    let mut client = Client::start(settings).unwrap();
    let event = frames("an event", &mut client, Client::poll_event);
    assert_eq!(event.label(), "logging_in");
    assert_eq!(client.recv_message(), None);
    assert_eq!(client.session(), None);
    let begun = Instant::now();
    drop(client);
    assert!(begun.elapsed() < Duration::from_secs(5));
}
