//! Each rule of admission, alone and in its place, without a connection.

use std::{sync::Arc, time::Duration};

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::{
    clock::ManualTime,
    gateway::Limits,
    id::{ClientId, Lineage, PlayerGeneration},
    seat::{SamePlayer, SeatConfig, SeatTable},
    token::{Nonce, TransportKey, seal_connect},
};

pub(in crate::gateway) const START: Timestamp = Timestamp(1_700_000_000_000);
const LEAF: [u8; 32] = [9; 32];
/// What is known of the log at first: from here to there.
pub(in crate::gateway) const TAIL: Revision = Revision(10);
pub(in crate::gateway) const HEAD: Revision = Revision(20);

/// A gateway without workers, and all that a client needs to be let in.
pub(in crate::gateway) struct Door {
    pub(in crate::gateway) time: ManualTime,
    pub(in crate::gateway) shared: Arc<Shared>,
    key: TransportKey,
    client_key: Ed25519KeyPair,
    /// What the client's token claims.
    pub(in crate::gateway) claims: ConnectClaims,
    proof: Option<[u8; 64]>,
}

impl Door {
    pub(in crate::gateway) fn open(seats: SeatConfig) -> Self {
        let time = ManualTime::starting_at(START);
        let limits = Limits {
            single_use: 1,
            ..Limits::default()
        };
        let id: crate::id::GatewayId = "one".parse().unwrap();
        let seats = SeatTable::new(seats);
        let shared = Shared::new(id.clone(), limits, time.clock(), seats, None);
        let key = TransportKey::from_bytes(&[1; 32]);
        shared.keys_mut().replace(vec![key.clone()]);
        shared.heard_of_sidecar(START);
        shared.ticked(START);
        shared.change_revocations(|log| {
            log.reset(Lineage(1), TAIL);
            log.apply(TAIL, HEAD, [], START).unwrap();
        });
        let claims = ConnectClaims {
            player: PlayerId(1),
            session: SessionId(1),
            player_generation: PlayerGeneration(0),
            client: ClientId(1),
            nonce: Nonce([1; 24]),
            gateway: id,
            revision: HEAD,
            session_ends_at: START.after(Duration::from_secs(3_600)),
            client_key: None,
            issued_at: START,
            expires_at: START.after(Duration::from_secs(30)),
        };
        Self {
            time,
            shared: Arc::new(shared),
            key,
            client_key: Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap(),
            claims,
            proof: None,
        }
    }

    pub(in crate::gateway) fn plain() -> Self {
        Self::open(SeatConfig::default())
    }

    pub(in crate::gateway) fn token(&self) -> String {
        seal_connect(&self.key, &self.claims)
    }

    fn ask_with(&self, token: String) -> Result<Admission, Denied> {
        let hello = Hello {
            proof: self.proof,
            ..Hello::new(token)
        };
        let applicant = Applicant {
            connection: Connection { worker: 0, id: 1 },
            leaf_sha256: &LEAF,
            hello: &hello,
        };
        admit(&self.shared, applicant, self.time.clock().wall())
    }

    pub(in crate::gateway) fn ask(&self) -> Result<Admission, Denied> {
        self.ask_with(self.token())
    }

    pub(in crate::gateway) fn refusal(&self) -> Refusal {
        match self.ask() {
            Err(Denied::Refused { refusal, .. }) => refusal,
            other => panic!("{other:?}"),
        }
    }

    pub(in crate::gateway) fn bind(&mut self) {
        let public = self.client_key.public_key().as_ref();
        self.claims.client_key = Some(public.try_into().unwrap());
    }

    /// The client's signature over these.
    fn sign(&self, token: &str, leaf: &[u8; 32]) -> Option<[u8; 64]> {
        let message = proof_message(&token_sha256(token), leaf);
        let signature = self.client_key.sign(&message);
        Some(signature.as_ref().try_into().unwrap())
    }

    /// Somebody else takes a seat.
    fn seat(&self, session: u128, player: PlayerId) {
        let grant = Grant {
            session: SessionId(session),
            player,
            player_generation: PlayerGeneration(0),
            client: ClientId(99),
            ends_at: self.claims.session_ends_at,
            connection: Connection { worker: 0, id: 99 },
        };
        self.shared.seats.install(grant, START).unwrap();
    }
}

/// Each rule broken alone, and together with all that come after it: the first is told.
#[test]
fn rules_are_judged_in_order_and_each_is_told() {
    type Break = fn(&mut Door);
    let rules: [(Refusal, Break); 12] = [
        (Refusal::Draining, |door| {
            door.shared.start_draining(START);
        }),
        (Refusal::ControlStale, |door| {
            door.shared
                .heard_of_sidecar(START.before(Duration::from_secs(31)));
        }),
        (Refusal::SimulationStalled, |door| {
            door.shared.ticked(START.before(Duration::from_secs(3)));
        }),
        (Refusal::Token(Rejection::UnknownKey), |door| {
            door.shared.keys_mut().replace(Vec::new());
        }),
        (Refusal::Token(Rejection::NotYetValid), |door| {
            door.claims.issued_at = START.after(Duration::from_secs(6));
            door.claims.expires_at = START.after(Duration::from_secs(7));
        }),
        (Refusal::ProofMissing, Door::bind),
        (Refusal::Token(Rejection::Expired), |door| {
            // Together with a rule before it: a token that is both too early and too late has a life below nothing.
            if door.claims.issued_at <= START {
                door.claims.issued_at = START.before(Duration::from_secs(20));
                door.claims.expires_at = START.before(Duration::from_secs(5));
            }
        }),
        (Refusal::SessionExpired, |door| {
            door.claims.session_ends_at = START;
        }),
        (Refusal::SessionRevoked, |door| {
            let session = door.claims.session;
            door.shared
                .change_revocations(|log| log.apply_session(session, START));
        }),
        (Refusal::TokenBeforeLog, |door| {
            door.claims.revision = Revision(TAIL.0 - 1);
        }),
        (Refusal::TokenUsed, |door| {
            let (nonce, until) = (door.claims.nonce.0, START.after(Duration::from_secs(60)));
            let pending = door.shared.history.begin(nonce, until, START).unwrap();
            door.shared.history.consume(pending);
        }),
        (Refusal::PlayerPresent, |door| {
            door.seat(2, door.claims.player);
        }),
    ];
    let oldest_wins = SeatConfig {
        same_player: SamePlayer::OldestWins,
        ..SeatConfig::default()
    };
    for (first, (expected, alone)) in rules.iter().enumerate() {
        let mut door = Door::open(oldest_wins);
        alone(&mut door);
        assert_eq!(door.refusal(), *expected, "alone");
        let mut door = Door::open(oldest_wins);
        for (_, broken) in &rules[first..] {
            broken(&mut door);
        }
        let seats = door.shared.seats.len();
        assert_eq!(door.refusal(), *expected, "with all that come after");
        assert_eq!(door.shared.seats.len(), seats, "nothing has happened");
    }
    Door::open(oldest_wins).ask().unwrap();
}

#[test]
fn a_refused_token_is_not_used_up() {
    let door = Door::open(SeatConfig {
        same_player: SamePlayer::OldestWins,
        ..SeatConfig::default()
    });
    door.seat(2, door.claims.player);
    assert_eq!(door.refusal(), Refusal::PlayerPresent);
    assert_eq!(door.refusal(), Refusal::PlayerPresent, "and not used");
    door.shared.seats.end_session(SessionId(2), EndReason::Left);
    door.ask().unwrap();
    assert_eq!(door.refusal(), Refusal::TokenUsed);
}

#[test]
fn capacity_and_history_are_full_for_others_alone() {
    let mut door = Door::open(SeatConfig {
        capacity: 1,
        ..SeatConfig::default()
    });
    door.seat(2, PlayerId(2));
    assert_eq!(door.refusal(), Refusal::ServerFull);
    // The newest session of the player wins, so there is its seat to be had.
    door.claims.player = PlayerId(2);
    let admission = door.ask().unwrap();
    assert!(!admission.welcome.resumed);
    // It may come back, if the history has room for its token: it holds one.
    door.claims.nonce = Nonce([2; 24]);
    assert_eq!(door.refusal(), Refusal::HistoryFull);
}

#[test]
fn the_same_session_keeps_its_seat_and_client_id() {
    let mut door = Door::plain();
    door.shared.heard_of_sidecar(START);
    let first = door.ask().unwrap();
    let connection = Connection { worker: 0, id: 1 };
    assert!(door.shared.seats.suspend(first.handle, connection, START));
    door.time.advance(Duration::from_secs(36));
    let now = door.time.clock().wall();
    door.shared.heard_of_sidecar(now);
    door.shared.ticked(now);
    // The first token is forgotten by now, and the history holds one.
    door.claims = ConnectClaims {
        client: ClientId(77),
        nonce: Nonce([2; 24]),
        issued_at: now,
        expires_at: now.after(Duration::from_secs(30)),
        ..door.claims
    };
    let second = door.ask().unwrap();
    assert!(second.welcome.resumed);
    assert_eq!(second.handle, first.handle);
    assert_eq!(second.welcome.client, first.welcome.client);
}

#[test]
fn a_token_ahead_of_the_log_waits_and_has_used_nothing() {
    let mut door = Door::plain();
    door.claims.revision = Revision(HEAD.0 + 2);
    let behind = Err(Denied::Behind {
        revision: door.claims.revision,
        session: door.claims.session,
    });
    assert_eq!(door.ask(), behind);
    let apply = |from: u64, events: Vec<crate::seat::Revoked>| {
        let to = Revision(from + 1);
        door.shared
            .change_revocations(|log| log.apply(Revision(from), to, events, START))
            .unwrap();
    };
    apply(HEAD.0, Vec::new());
    assert_eq!(door.ask(), behind);
    assert!(door.shared.seats.is_empty());
    apply(HEAD.0 + 1, Vec::new());
    door.ask().unwrap();
}

#[test]
fn what_the_client_waited_for_may_be_its_own_revocation() {
    let mut door = Door::plain();
    door.claims.revision = Revision(HEAD.0 + 1);
    assert!(matches!(door.ask(), Err(Denied::Behind { .. })));
    let own = crate::seat::Revoked::Session(door.claims.session);
    door.shared
        .change_revocations(|log| log.apply(HEAD, door.claims.revision, [own], START))
        .unwrap();
    assert_eq!(door.refusal(), Refusal::SessionRevoked);
}

#[test]
fn a_token_with_a_key_is_good_for_who_holds_it_here_alone() {
    let mut door = Door::plain();
    door.bind();
    let token = door.token();
    let refused = Err(Denied::Refused {
        refusal: Refusal::ProofWrong,
        session: Some(door.claims.session),
    });
    for (text, leaf) in [("another", LEAF), (token.as_str(), [0; 32])] {
        door.proof = door.sign(text, &leaf);
        assert_eq!(door.ask_with(token.clone()), refused);
    }
    door.proof = door.sign(&token, &LEAF);
    door.client_key = Ed25519KeyPair::from_seed_unchecked(&[6; 32]).unwrap();
    let stolen = door.sign(&token, &LEAF);
    let own = std::mem::replace(&mut door.proof, stolen);
    assert_eq!(door.ask_with(token.clone()), refused);
    door.proof = own;
    door.ask_with(token).unwrap();
}

#[test]
fn a_proof_that_no_token_asks_for_is_not_looked_at() {
    let mut door = Door::plain();
    door.proof = Some([0; 64]);
    door.ask().unwrap();
}

#[test]
fn a_refusal_names_its_session_once_the_token_has_opened() {
    let mut door = Door::plain();
    door.claims.session_ends_at = START;
    let expired = Err(Denied::Refused {
        refusal: Refusal::SessionExpired,
        session: Some(door.claims.session),
    });
    assert_eq!(door.ask(), expired);
    door.shared.keys_mut().replace(Vec::new());
    assert!(matches!(
        door.ask(),
        Err(Denied::Refused { session: None, .. })
    ));
}

#[test]
fn labels_are_unique_and_codes_have_the_client_do_the_right_thing() {
    use crate::wire::Advice;
    let advice = [
        (Refusal::Draining, Advice::RetryLater),
        (Refusal::ControlStale, Advice::RetryLater),
        (Refusal::SimulationStalled, Advice::RetryLater),
        (Refusal::Token(Rejection::BadMac), Advice::NewToken),
        (Refusal::Token(Rejection::Expired), Advice::NewToken),
        (Refusal::ProofMissing, Advice::NewToken),
        (Refusal::ProofWrong, Advice::NewToken),
        (Refusal::SessionExpired, Advice::LogIn),
        (Refusal::SessionRevoked, Advice::LogIn),
        (Refusal::TokenBeforeLog, Advice::NewToken),
        (Refusal::LogBehind, Advice::RetryLater),
        (Refusal::ServerFull, Advice::RetryLater),
        (Refusal::PlayerPresent, Advice::GiveUp),
        (Refusal::TokenUsed, Advice::NewToken),
        (Refusal::HistoryFull, Advice::RetryLater),
    ];
    let mut labels: Vec<_> = advice.iter().map(|(refusal, _)| refusal.label()).collect();
    for (refusal, expected) in advice {
        assert_eq!(refusal.close_code().advice(), expected, "{refusal:?}");
    }
    labels.sort_unstable();
    assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
}
