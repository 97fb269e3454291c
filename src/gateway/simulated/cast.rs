//! Who comes in a seed's world, and what happens to them when.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;

use super::client::Opening;
use crate::{
    clock::Timestamp,
    control::Revocation,
    id::{ClientId, GatewayId, PlayerGeneration, PlayerId, Revision, SessionId},
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
};

/// Nothing new begins after this.
const COURSE: Duration = Duration::from_secs(4);

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Connect(Opening),
    Revoke(Revocation),
    /// The client that connected as the n-th leaves, or its link is cut.
    Leave(usize),
    Vanish(usize),
}

impl Happening {
    /// For the trace, in which tokens have no place: they differ from run to run in their random nonce.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Connect(Opening::Token(token)) => {
                format!("connects with {} bytes of token", token.len())
            }
            other => format!("{other:?}"),
        }
    }
}

/// What a seed draws before its world begins.
pub(super) struct Script {
    pub(super) key: TransportKey,
    pub(super) players: BTreeMap<SessionId, PlayerId>,
    pub(super) course: BTreeMap<(Duration, usize), Happening>,
    gateway: GatewayId,
    start: Timestamp,
}

impl Script {
    fn empty(rng: &mut ChaCha8Rng, gateway: GatewayId, start: Timestamp) -> Self {
        Self {
            key: TransportKey::from_bytes(&rng.random()),
            players: BTreeMap::new(),
            course: BTreeMap::new(),
            gateway,
            start,
        }
    }

    /// One player comes, and nothing else happens.
    pub(super) fn of_one(rng: &mut ChaCha8Rng, gateway: GatewayId, start: Timestamp) -> Self {
        let mut script = Self::empty(rng, gateway, start);
        let key = script.key.clone();
        let token = script.mint(rng, &key, SessionId(100), PlayerId(1));
        script.plan(Duration::ZERO, Happening::Connect(Opening::Token(token)));
        script
    }

    pub(super) fn draw(rng: &mut ChaCha8Rng, gateway: GatewayId, start: Timestamp) -> Self {
        let mut script = Self::empty(rng, gateway, start);
        let mut arrivals = 0;
        for number in 0..rng.random_range(3..7_u128) {
            arrivals += script.player(rng, number, arrivals);
        }
        script.nuisances(rng);
        script
    }

    /// A player and what becomes of it; how many clients that makes. `first` clients were there before.
    fn player(&mut self, rng: &mut ChaCha8Rng, number: u128, first: usize) -> usize {
        let (session, player) = (SessionId(number + 100), PlayerId(number + 1));
        self.players.insert(session, player);
        let key = self.key.clone();
        let token = self.mint(rng, &key, session, player);
        let at = moment(rng);
        self.plan(at, Happening::Connect(Opening::Token(token.clone())));
        let later = moment(rng);
        match rng.random_range(0..8) {
            // The token is presented again, close by or a little later.
            0 => {
                let replays = rng.random_range(1..4);
                for _ in 0..replays {
                    let again = at + Duration::from_millis(rng.random_range(0..300));
                    self.plan(again, Happening::Connect(Opening::Token(token.clone())));
                }
                return 1 + replays;
            }
            // The same session comes on another connection.
            1 | 2 => {
                let token = self.mint(rng, &key, session, player);
                self.plan(later, Happening::Connect(Opening::Token(token)));
                return 2;
            }
            3 => self.plan(later, Happening::Revoke(Revocation::Session(session))),
            4 => self.plan(
                later,
                Happening::Revoke(Revocation::Player(player, PlayerGeneration(1))),
            ),
            5 => self.plan(at + later, Happening::Leave(first)),
            6 => self.plan(at + later, Happening::Vanish(first)),
            _ => {}
        }
        1
    }

    /// Clients that say nothing, or nonsense, or what was sealed under another key.
    fn nuisances(&mut self, rng: &mut ChaCha8Rng) {
        for _ in 0..rng.random_range(0..3) {
            let opening = match rng.random_range(0..3) {
                0 => Opening::Silence,
                1 => {
                    let mut bytes = vec![0; rng.random_range(1..2_000)];
                    rng.fill_bytes(&mut bytes);
                    Opening::Garbage(bytes)
                }
                _ => {
                    let forged = TransportKey::from_bytes(&rng.random());
                    Opening::Token(self.mint(rng, &forged, SessionId(9_999), PlayerId(9_999)))
                }
            };
            let at = moment(rng);
            self.plan(at, Happening::Connect(opening));
        }
    }

    fn plan(&mut self, at: Duration, happening: Happening) {
        let order = self.course.len();
        self.course.insert((at, order), happening);
    }

    fn mint(
        &self,
        rng: &mut ChaCha8Rng,
        key: &TransportKey,
        session: SessionId,
        player: PlayerId,
    ) -> String {
        let claims = ConnectClaims {
            player,
            session,
            player_generation: PlayerGeneration(0),
            // Of one length, so that all tokens are.
            client: ClientId(rng.random_range(1_000_000..9_999_999)),
            nonce: Nonce(rng.random()),
            gateway: self.gateway.clone(),
            revision: Revision(0),
            session_ends_at: self.start.after(Duration::from_secs(3_600)),
            client_key: None,
            issued_at: self.start,
            expires_at: self.start.after(Duration::from_secs(30)),
        };
        seal_connect(key, &claims)
    }
}

fn moment(rng: &mut ChaCha8Rng) -> Duration {
    Duration::from_micros(rng.random_range(0..COURSE.as_micros() as u64))
}
