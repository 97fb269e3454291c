//! What is remembered, what is forgotten, and what is made of it.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::{
    books::{Books, Limits},
    event::Labels,
    tokens::{Bearer, Tokens},
    *,
};
use crate::{control::GatewayEventKind, proto};

const SMALL: Limits = Limits {
    events: 6,
    sessions: 2,
    players: 4,
    bytes: usize::MAX,
    refusals: 3,
    gateways: 2,
    tokens: 5,
};

fn gateway(id: &str) -> GatewayId {
    id.parse().unwrap()
}

fn refused(reason: &'static str, session: Option<u128>, token: Option<u8>) -> GatewayEvent {
    let (reason, code) = (reason.into(), 0x21);
    GatewayEvent {
        at: Timestamp(50),
        kind: GatewayEventKind::Refused { reason, code },
        session: session.map(SessionId),
        token_sha256: token.map(|token| [token; 32]),
        remote: Some("192.0.2.9:4000".parse().unwrap()),
    }
}

fn seen(kind: GatewayEventKind, at: u64, session: u128, token: Option<u8>) -> GatewayEvent {
    GatewayEvent {
        at: Timestamp(at),
        kind,
        session: Some(SessionId(session)),
        token_sha256: token.map(|token| [token; 32]),
        remote: None,
    }
}

fn kinds(explain: &Explain, player: u128) -> Vec<&'static str> {
    let history = explain.player(PlayerId(player)).unwrap();
    history.events.iter().map(|e| e.kind.label()).collect()
}

/// Player 1 with session 1, who was given token 7 for gateway "eu".
fn minted() -> Explain {
    let explain = Explain::new(Timestamp(0));
    explain.logged_in(SessionId(1), PlayerId(1), Timestamp(10));
    explain.minted(
        SessionId(1),
        PlayerId(1),
        &gateway("eu"),
        [7; 32],
        Timestamp(30_020),
        Timestamp(20),
    );
    explain
}

#[test]
fn mint_and_refusal_meet_by_the_tokens_hash() {
    let explain = minted();
    // The wrong gateway cannot open it, and so names no session.
    explain.gateway_events(&gateway("us"), [refused("unknown_key", None, Some(7))], 0);
    assert_eq!(kinds(&explain, 1), ["logged_in", "token_minted", "refused"]);
    let history = explain.player(PlayerId(1)).unwrap();
    let told = proto::ExplainEvent::from(history.events.last().unwrap().clone());
    assert_eq!(told.session_id, SessionId(1).to_string());
    assert_eq!(told.gateway_id, "us");
    assert_eq!(told.reason, "unknown_key");
    assert_eq!(told.close_code, "token_rejected");
    assert_eq!(told.token_sha256, "07".repeat(32));
    assert_eq!(told.remote, "", "a player's address is nobody's business");
    assert_eq!(explain.gateway(&gateway("us")), None);
}

#[test]
fn a_refusal_that_names_nobody_is_the_gateways() {
    let explain = minted();
    let nameless = [
        refused("malformed", None, None),
        refused("unknown_key", None, Some(8)),
        refused("token_used", Some(99), Some(9)),
    ];
    explain.gateway_events(&gateway("eu"), nameless, 2);
    let door = explain.gateway(&gateway("eu")).unwrap();
    assert_eq!((door.refusals.len(), door.forgotten), (3, 2));
    let told = proto::ExplainEvent::from(door.refusals[0].clone());
    assert_eq!(
        (&*told.reason, &*told.remote),
        ("malformed", "192.0.2.9:4000")
    );
    assert!(of_gateway(&gateway("eu"), &door).starts_with("3 refusals at eu"));
    assert_eq!(kinds(&explain, 1), ["logged_in", "token_minted"]);
    // A seat of nobody's is counted, and no refusal.
    let strange = seen(GatewayEventKind::Suspended, 60, 99, None);
    explain.gateway_events(&gateway("eu"), [strange], 0);
    let door = explain.gateway(&gateway("eu")).unwrap();
    assert_eq!((door.refusals.len(), door.forgotten), (3, 3));
}

#[test]
fn a_session_can_be_introduced() {
    let explain = Explain::new(Timestamp(0));
    assert_eq!(explain.player_of(SessionId(4)), None);
    explain.introduce(SessionId(4), PlayerId(2));
    explain.gateway_events(&gateway("eu"), [refused("session_idle", Some(4), None)], 0);
    assert_eq!(kinds(&explain, 2), ["refused"]);
}

#[test]
fn events_are_told_in_the_order_of_time() {
    let explain = minted();
    explain.session_revoked(SessionId(1), PlayerId(1), Revision(3), Timestamp(70));
    let late = seen(GatewayEventKind::Admitted, 40, 1, Some(7));
    explain.gateway_events(&gateway("eu"), [late], 0);
    let in_order = ["logged_in", "token_minted", "admitted", "session_revoked"];
    assert_eq!(kinds(&explain, 1), in_order);
}

#[test]
fn the_longest_quiet_player_is_forgotten_and_no_other() {
    let mut books = Books::new(SMALL);
    let login = |n: u128| Event::of_session(Kind::LoggedIn, SessionId(n), Timestamp(0));
    for player in 1..=4 {
        books.note(PlayerId(player), login(player));
    }
    books.note(PlayerId(1), login(11));
    books.note(PlayerId(5), login(5));
    assert_eq!(books.player(PlayerId(2)), None);
    assert_eq!(books.player_of(SessionId(2)), None);
    for player in [1, 3, 4, 5] {
        assert!(books.player(PlayerId(player)).is_some(), "{player}");
    }
    // Of three sessions of one player the two newest find it.
    books.note(PlayerId(1), login(12));
    assert_eq!(books.player_of(SessionId(1)), None);
    assert_eq!(books.player_of(SessionId(11)), Some(PlayerId(1)));
}

#[test]
fn the_bytes_of_all_players_are_bounded() {
    let limits = Limits {
        players: usize::MAX,
        bytes: 40_000,
        ..Limits::default()
    };
    let mut books = Books::new(limits);
    for n in 0..1_000_u128 {
        // Some with a full ring, most with one event.
        let events = if n % 10 == 0 { 100 } else { 1 };
        for _ in 0..events {
            let event = Event::of_session(Kind::Refreshed, SessionId(n), Timestamp(0));
            books.note(PlayerId(n), event);
        }
        assert!(books.bytes() <= 40_000);
        assert_eq!(books.bytes(), books.counted_bytes());
    }
    let history = books.player(PlayerId(990)).unwrap();
    assert_eq!((history.events.len(), history.forgotten), (64, 36));
}

#[test]
fn gateways_and_labels_are_bounded() {
    let mut books = Books::new(SMALL);
    for name in ["a", "b", "a", "c"] {
        books.seen_at(&gateway(name), refused("malformed", None, None));
    }
    assert_eq!(books.gateway(&gateway("b")), None);
    assert_eq!(books.gateway(&gateway("a")).unwrap().refusals.len(), 2);
    let mut labels = Labels::default();
    assert_eq!(&*labels.intern("token_used"), "token_used");
    for bad in ["", "Ä", "v4.local.secret", &"x".repeat(65)] {
        assert_eq!(&*labels.intern(bad), "other");
    }
    for n in 0..1_000 {
        labels.intern(&format!("made_up_{n}"));
    }
    assert_eq!(&*labels.intern("one_more"), "other");
    assert_eq!(&*labels.intern("token_used"), "token_used");
    assert!(labels.len() <= 257);
}

#[test]
fn the_summary_says_what_is_so_before_what_was() {
    let explain = minted();
    let now = Timestamp(1_000);
    let events = |explain: &Explain| explain.player(PlayerId(1)).unwrap().events;
    let session = |gateways: &[&str], ended| SessionFacts {
        id: SessionId(1),
        ended,
        created_at: Timestamp(10),
        gateways: gateways.iter().map(|id| gateway(id)).collect(),
    };
    let say = |explain: &Explain, now, session| of_player(now, &[session], &events(explain));
    let sentence = say(&explain, now, session(&[], None));
    assert!(
        sentence.starts_with("holds a connect token for eu"),
        "{sentence}"
    );
    let sentence = say(&explain, Timestamp(40_000), session(&[], None));
    assert!(
        sentence.contains("expired at 1970-01-01T00:00:30.020Z"),
        "{sentence}"
    );

    let admitted = seen(GatewayEventKind::Admitted, 40, 1, Some(7));
    explain.gateway_events(&gateway("eu"), [admitted], 0);
    let sentence = say(&explain, now, session(&["eu"], None));
    assert_eq!(sentence, "in play on eu since 1970-01-01T00:00:00.040Z");
    let sentence = say(&explain, now, session(&[], None));
    assert!(sentence.starts_with("last seen on eu"), "{sentence}");

    explain.gateway_events(&gateway("us"), [refused("unknown_key", None, Some(7))], 0);
    let sentence = say(&explain, now, session(&["eu"], None));
    assert!(sentence.starts_with("in play on eu"), "{sentence}");
    assert!(
        sentence.contains("; last refused at us: unknown_key"),
        "{sentence}"
    );
    let sentence = say(&explain, now, session(&[], None));
    assert!(
        sentence.starts_with("refused at us: unknown_key, at"),
        "{sentence}"
    );
    assert!(sentence.ends_with("(told token_rejected)"), "{sentence}");

    let suspended = seen(GatewayEventKind::Suspended, 60, 1, None);
    explain.gateway_events(&gateway("eu"), [suspended], 0);
    let sentence = say(&explain, now, session(&["eu"], None));
    assert!(sentence.starts_with("seat kept on eu"), "{sentence}");

    explain.player_revoked(PlayerId(1), Revision(3), Timestamp(70));
    let sentence = say(&explain, now, session(&["eu"], Some("session_revoked")));
    assert!(
        sentence.contains("eu has not taken the seat away yet"),
        "{sentence}"
    );
    let sentence = say(&explain, now, session(&[], Some("session_revoked")));
    assert_eq!(
        sentence,
        "all sessions were revoked at 1970-01-01T00:00:00.070Z"
    );
    let (reason, code) = ("session_revoked".into(), 0x30);
    let ended = seen(GatewayEventKind::Ended { reason, code }, 80, 1, None);
    explain.gateway_events(&gateway("eu"), [ended], 0);
    let sentence = say(&explain, now, session(&[], Some("session_revoked")));
    assert!(
        sentence.starts_with("removed from eu: session_revoked"),
        "{sentence}"
    );
    assert!(
        sentence.contains("after: all sessions were revoked"),
        "{sentence}"
    );
}

#[test]
fn the_summary_of_one_who_only_logged_in() {
    let facts = |ended| SessionFacts {
        id: SessionId(1),
        ended,
        created_at: Timestamp(10),
        gateways: Vec::new(),
    };
    let login = [Event::of_session(
        Kind::LoggedIn,
        SessionId(1),
        Timestamp(10),
    )];
    let sentence = of_player(Timestamp(20), &[facts(None)], &login);
    assert!(sentence.starts_with("logged in since 1970"), "{sentence}");
    let sentence = of_player(Timestamp(20), &[facts(Some("session_idle"))], &login);
    assert!(sentence.contains("session_idle"), "{sentence}");
    assert_eq!(
        of_player(Timestamp(20), &[], &login),
        "has no session any more"
    );
    assert!(of_player(Timestamp(20), &[], &[]).starts_with("nothing"));
}

proptest! {
    /// The books against plain lists: the last events of the last players to be heard of, and nothing else.
    #[test]
    fn the_books_remember_the_last_of_the_least_quiet(
        steps in prop::collection::vec((0..7_u128, 0..30_u128), 1..200)
    ) {
        let mut books = Books::new(SMALL);
        let mut order: VecDeque<u128> = VecDeque::new();
        let mut events: HashMap<u128, Vec<u64>> = HashMap::new();
        for (at, (player, session)) in steps.into_iter().enumerate() {
            // A session is one player's.
            let session = session * 7 + player;
            let at = u64::try_from(at).unwrap();
            books.note(
                PlayerId(player),
                Event::of_session(Kind::Refreshed, SessionId(session), Timestamp(at)),
            );
            order.retain(|known| *known != player);
            order.push_back(player);
            events.entry(player).or_default().push(at);
            if order.len() > SMALL.players {
                events.remove(&order.pop_front().unwrap());
            }
            prop_assert_eq!(books.bytes(), books.counted_bytes());
            prop_assert_eq!(books.player_of(SessionId(session)), Some(PlayerId(player)));
            for player in 0..7 {
                let known = books.player(PlayerId(player));
                let expected = events.get(&player);
                prop_assert_eq!(known.is_some(), expected.is_some());
                if let (Some(known), Some(expected)) = (known, expected) {
                    let kept: Vec<_> = known.events.iter().map(|event| event.at.0).collect();
                    let first = expected.len().saturating_sub(SMALL.events);
                    prop_assert_eq!(kept, &expected[first..]);
                    prop_assert_eq!(usize::try_from(known.forgotten).unwrap(), first);
                }
            }
        }
    }

    #[test]
    fn the_newest_tokens_are_known(steps in prop::collection::vec(any::<u8>(), 1..50)) {
        let mut tokens = Tokens::new(SMALL.tokens);
        let mut newest: Vec<u8> = Vec::new();
        for token in steps {
            let bearer = Bearer { session: SessionId(token.into()), player: PlayerId(1) };
            tokens.minted([token; 32], bearer);
            if !newest.contains(&token) {
                newest.push(token);
            }
            if newest.len() > SMALL.tokens {
                newest.remove(0);
            }
            prop_assert_eq!(tokens.len(), newest.len());
            for known in &newest {
                let bearer = tokens.bearer(&[*known; 32]).unwrap();
                prop_assert_eq!(bearer.session, SessionId((*known).into()));
            }
        }
    }
}
