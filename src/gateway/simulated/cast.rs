//! Who comes in a seed's world, and what happens to them when.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, RngCore, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::client::Proof;
use crate::{
    control::Revocation,
    id::{PlayerGeneration, PlayerId, SessionId},
    token::TransportKey,
};

/// Nothing new begins after this.
const COURSE: Duration = Duration::from_secs(4);
/// The longest time between a token's making and its first presentation.
const MINTED_BEFORE_MS: u64 = 300;

/// What a client does once connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Presents the token that was drawn as the n-th.
    Token(usize, Proof),
    /// Says nothing.
    Silence,
    /// Sends bytes that are no Hello.
    Garbage(Vec<u8>),
}

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// The n-th token is made.
    Mint(usize),
    /// The n-th client connects.
    Connect(usize, Plan),
    Revoke(Revocation),
    /// The n-th client leaves, breaks its connection off, or its link is cut.
    Leave(usize),
    Break(usize),
    Vanish(usize),
    /// The n-th client gets another port, or sends without a pause.
    Move(usize),
    Flood(usize),
    /// The n-th client is in another network from now on.
    Roam(usize),
    /// Nothing gets through for so long.
    Dark(Duration),
    /// The gateway is to admit nobody any more, or again.
    Drain(bool),
    /// The sidecar comes back with a log of a new lineage, of which so many events are still to come.
    NewLineage(usize),
}

/// A token as it will be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenPlan {
    pub(super) session: SessionId,
    pub(super) player: PlayerId,
    /// Whether it names a client key: that of its session.
    pub(super) is_bound: bool,
    /// Sealed under a key that the gateway does not have.
    pub(super) is_forged: bool,
}

/// What a seed draws before its world begins.
pub(super) struct Script {
    pub(super) key: TransportKey,
    pub(super) tokens: Vec<TokenPlan>,
    pub(super) course: BTreeMap<(Duration, usize), Happening>,
    clients: usize,
    sessions: u128,
}

impl Script {
    fn empty(rng: &mut ChaCha8Rng) -> Self {
        Self {
            key: TransportKey::from_bytes(&rng.random()),
            tokens: Vec::new(),
            course: BTreeMap::new(),
            clients: 0,
            sessions: 100,
        }
    }

    /// One player comes, and nothing else happens.
    pub(super) fn of_one(rng: &mut ChaCha8Rng) -> Self {
        let mut script = Self::empty(rng);
        let session = script.session();
        script.come(rng, Duration::ZERO, session, PlayerId(1));
        script
    }

    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut script = Self::empty(rng);
        for number in 0..rng.random_range(3..7_u128) {
            script.player(rng, PlayerId(number + 1));
        }
        script.nuisances(rng);
        if rng.random_ratio(1, 3) {
            script.others_are_revoked(rng);
        }
        if rng.random_ratio(1, 3) {
            script.addresses_change(rng);
        }
        // Shorter than the idle timeout of 1.5 s, and longer.
        if rng.random_ratio(1, 5) {
            let at = moment(rng);
            let long = Duration::from_millis(rng.random_range(100..2_500));
            script.plan(at, Happening::Dark(long));
        }
        if rng.random_ratio(1, 6) {
            let at = moment(rng);
            script.plan(at, Happening::Drain(true));
            let later = at + moment(rng);
            script.plan(later, Happening::Drain(false));
        }
        if rng.random_ratio(1, 4) {
            let still_to_come = rng.random_range(0..3);
            let at = moment(rng);
            script.plan(at, Happening::NewLineage(still_to_come));
        }
        script
    }

    fn session(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId(self.sessions)
    }

    /// A player and what becomes of it.
    fn player(&mut self, rng: &mut ChaCha8Rng, player: PlayerId) {
        let session = self.session();
        let (at, later) = (moment(rng), moment(rng));
        match rng.random_range(0..20) {
            // The token is presented again, close by or a little later.
            0 => {
                let token = self.token(rng, at, session, player);
                self.connect(at, Plan::Token(token, Proof::Absent));
                for _ in 0..rng.random_range(1..4) {
                    let again = at + Duration::from_millis(rng.random_range(0..300));
                    self.connect(again, Plan::Token(token, Proof::Absent));
                }
            }
            // The same session comes on another connection.
            1 | 2 => {
                self.come(rng, at, session, player);
                self.come(rng, later, session, player);
            }
            3 => {
                self.come(rng, at, session, player);
                self.plan(later, Happening::Revoke(Revocation::Session(session)));
            }
            4 => {
                self.come(rng, at, session, player);
                let revocation = Revocation::Player(player, PlayerGeneration(1));
                self.plan(later, Happening::Revoke(revocation));
            }
            5 => {
                let client = self.come(rng, at, session, player);
                self.plan(at + later, Happening::Leave(client));
            }
            6 => {
                let client = self.come(rng, at, session, player);
                self.plan(at + later, Happening::Vanish(client));
            }
            // The connection breaks or falls silent, once or twice, and the session comes back: in time, or too late.
            7..=9 => self.comes_and_goes(rng, session, player, Happening::Break),
            10 => self.comes_and_goes(rng, session, player, Happening::Vanish),
            // The player logs in a second time, and comes with both sessions.
            11 | 12 => {
                let other = self.session();
                let client = self.come(rng, at, session, player);
                self.come(rng, later, other, player);
                if rng.random() {
                    self.plan(at + later / 2, Happening::Break(client));
                }
            }
            // The token names a key.
            13 | 14 => {
                let token = self.token(rng, at, session, player);
                if let Some(plan) = self.tokens.get_mut(token) {
                    plan.is_bound = true;
                }
                if rng.random() {
                    let wrong = *Proof::WRONG.choose(rng).unwrap();
                    self.connect(at, Plan::Token(token, wrong));
                }
                self.connect(at + later / 4, Plan::Token(token, Proof::Right));
            }
            // A NAT gives it other ports.
            15 | 16 => {
                let client = self.come(rng, at, session, player);
                for _ in 0..rng.random_range(1..5) {
                    let then = at + moment(rng);
                    self.plan(then, Happening::Move(client));
                }
            }
            17 => {
                let client = self.come(rng, at, session, player);
                self.plan(at + later / 2, Happening::Flood(client));
            }
            _ => {
                self.come(rng, at, session, player);
            }
        }
    }

    fn comes_and_goes(
        &mut self,
        rng: &mut ChaCha8Rng,
        session: SessionId,
        player: PlayerId,
        goes: fn(usize) -> Happening,
    ) {
        let mut at = moment(rng) / 2;
        for _ in 0..rng.random_range(1..3) {
            let client = self.come(rng, at, session, player);
            at += Duration::from_millis(rng.random_range(100..1_000));
            self.plan(at, goes(client));
            at += Duration::from_millis(rng.random_range(0..3_000));
        }
        self.come(rng, at, session, player);
    }

    /// Clients that say nothing, or nonsense, or what was sealed under another key.
    fn nuisances(&mut self, rng: &mut ChaCha8Rng) {
        for _ in 0..rng.random_range(0..3) {
            let at = moment(rng);
            let plan = match rng.random_range(0..3) {
                0 => Plan::Silence,
                1 => {
                    let mut bytes = vec![0; rng.random_range(1..2_000)];
                    rng.fill_bytes(&mut bytes);
                    Plan::Garbage(bytes)
                }
                _ => {
                    let token = self.token(rng, at, SessionId(9_999), PlayerId(9_999));
                    if let Some(plan) = self.tokens.get_mut(token) {
                        plan.is_forged = true;
                    }
                    Plan::Token(token, Proof::Absent)
                }
            };
            self.connect(at, plan);
        }
    }

    /// Sessions that are not here are revoked all the time, so that tokens are often ahead of what is known of the log.
    fn others_are_revoked(&mut self, rng: &mut ChaCha8Rng) {
        for number in 0..rng.random_range(4..20) {
            let at = moment(rng);
            let elsewhere = Revocation::Session(SessionId(5_000 + number));
            self.plan(at, Happening::Revoke(elsewhere));
        }
    }

    /// NATs forget, and phones leave their Wi-Fi: in mid-play, in the handshake and after the end.
    fn addresses_change(&mut self, rng: &mut ChaCha8Rng) {
        for _ in 0..rng.random_range(1..5) {
            let client = rng.random_range(0..self.clients);
            let at = moment(rng) + moment(rng);
            let change = if rng.random() {
                Happening::Move(client)
            } else {
                Happening::Roam(client)
            };
            self.plan(at, change);
        }
    }

    /// The session's client comes, with a token of its own; which one that is.
    fn come(
        &mut self,
        rng: &mut ChaCha8Rng,
        at: Duration,
        session: SessionId,
        player: PlayerId,
    ) -> usize {
        let token = self.token(rng, at, session, player);
        self.connect(at, Plan::Token(token, Proof::Absent))
    }

    /// A token that is made a little before `at`.
    fn token(
        &mut self,
        rng: &mut ChaCha8Rng,
        at: Duration,
        session: SessionId,
        player: PlayerId,
    ) -> usize {
        let token = self.tokens.len();
        self.tokens.push(TokenPlan {
            session,
            player,
            is_bound: false,
            is_forged: false,
        });
        let before = Duration::from_millis(rng.random_range(0..MINTED_BEFORE_MS));
        self.plan(at.saturating_sub(before), Happening::Mint(token));
        token
    }

    fn connect(&mut self, at: Duration, plan: Plan) -> usize {
        let client = self.clients;
        self.clients += 1;
        self.plan(at, Happening::Connect(client, plan));
        client
    }

    fn plan(&mut self, at: Duration, happening: Happening) {
        let order = self.course.len();
        self.course.insert((at, order), happening);
    }
}

fn moment(rng: &mut ChaCha8Rng) -> Duration {
    Duration::from_micros(rng.random_range(0..COURSE.as_micros() as u64))
}
