//! The rings and what bounds them: a pure structure without clock or I/O.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{
    clock::Timestamp,
    control::{GatewayEvent, GatewayEventKind},
    id::{GatewayId, PlayerId, SessionId},
};

use super::{
    event::{Event, Kind, Labels, Nameless},
    tokens::{Bearer, TOKENS, Tokens},
};

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Events of one player.
    pub(super) events: usize,
    /// Sessions of one player by which it is found.
    pub(super) sessions: usize,
    /// Players.
    pub(super) players: usize,
    /// Bytes of all players together.
    pub(super) bytes: usize,
    /// Refusals of one gateway.
    pub(super) refusals: usize,
    /// Gateways.
    pub(super) gateways: usize,
    /// Tokens.
    pub(super) tokens: usize,
}

impl Default for Limits {
    /// 64 events of 128 bytes are a match with its troubles, and 8 KiB. A player with one match behind it (login, token, admission,
    /// end) has 4 events and takes under 1 KiB, so 64 MiB remember the last 65,536 of them; a player that fills its ring takes the
    /// room of ten. 256 refusals of 160 bytes at each of 256 gateways are 10 MiB.
    fn default() -> Self {
        Self {
            events: 64,
            sessions: 8,
            players: 65_536,
            bytes: 64 << 20,
            refusals: 256,
            gateways: 256,
            tokens: TOKENS,
        }
    }
}

/// What a player takes beside its events and sessions: its places in the map of players (112 bytes, at worst half of them in use) and
/// in the order of quiet (24 bytes, likewise), and the allocator's rounding.
const PLAYER_BYTES: usize = 320;

/// What a session takes: its place in the map of sessions (33 bytes, at worst half of them in use) and in its player's list.
const SESSION_BYTES: usize = 96;

/// The last so many, and how many were before them.
#[derive(Debug)]
struct Ring<T> {
    items: VecDeque<T>,
    forgotten: u64,
}

/// The smallest allocation of a ring: a login, and one thing more. Most players who are logged in and not in a match have no more than
/// that, and twice as much room would be a sixth of what a session costs the sidecar.
const FIRST: usize = 2;

impl<T> Ring<T> {
    fn new() -> Self {
        Self {
            items: VecDeque::new(),
            forgotten: 0,
        }
    }

    fn push(&mut self, limit: usize, item: T) {
        if self.items.len() >= limit {
            self.items.pop_front();
            self.forgotten = self.forgotten.saturating_add(1);
        } else if self.items.len() == self.items.capacity() {
            // Doubled by hand, so that what is allocated is what is counted, and never more than the limit.
            let more = self.items.len().max(FIRST).min(limit - self.items.len());
            self.items.reserve_exact(more);
        }
        self.items.push_back(item);
    }

    fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<T>()
    }
}

/// What is remembered of one player.
#[derive(Debug)]
struct Player {
    events: Ring<Event>,
    /// By which it is found, oldest first.
    sessions: VecDeque<SessionId>,
    /// Its place in the order of quiet.
    turn: u64,
}

impl Player {
    fn bytes(&self) -> usize {
        PLAYER_BYTES + self.sessions.len() * SESSION_BYTES + self.events.bytes()
    }
}

/// The refusals of one gateway.
#[derive(Debug)]
struct Refusals {
    ring: Ring<Nameless>,
    turn: u64,
}

/// What is remembered of a player.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct History {
    /// Oldest first, by the time at which each happened.
    pub(crate) events: Vec<Event>,
    /// Events before them.
    pub(crate) forgotten: u64,
}

/// What is remembered of those whom a gateway refused and nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Door {
    /// Oldest first.
    pub(crate) refusals: Vec<Nameless>,
    /// Refusals before them, and events that the gateway could not keep or that are nobody's.
    pub(crate) forgotten: u64,
}

/// All that is remembered.
#[derive(Debug)]
pub(super) struct Books {
    limits: Limits,
    players: HashMap<PlayerId, Player>,
    /// The players, the longest quiet first.
    quiet: BTreeMap<u64, PlayerId>,
    sessions: HashMap<SessionId, PlayerId>,
    bytes: usize,
    gateways: HashMap<GatewayId, Refusals>,
    tokens: Tokens,
    labels: Labels,
    turn: u64,
}

impl Books {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            players: HashMap::new(),
            quiet: BTreeMap::new(),
            sessions: HashMap::new(),
            bytes: 0,
            gateways: HashMap::new(),
            tokens: Tokens::new(limits.tokens),
            labels: Labels::default(),
            turn: 0,
        }
    }

    /// Something happened to a player.
    pub(super) fn note(&mut self, player: PlayerId, event: Event) {
        let (limit, session) = (self.limits.events, event.session);
        self.change(player, session, |known| known.events.push(limit, event));
    }

    /// A session belongs to a player.
    pub(super) fn introduce(&mut self, session: SessionId, player: PlayerId) {
        self.change(player, Some(session), |_| ());
    }

    pub(super) fn minted(
        &mut self,
        session: SessionId,
        player: PlayerId,
        gateway: &GatewayId,
        token_sha256: [u8; 32],
        expires_at: Timestamp,
        at: Timestamp,
    ) {
        self.tokens.minted(token_sha256, Bearer { session, player });
        let event = Event {
            gateway: Some(gateway.clone()),
            token_sha256: Some(token_sha256),
            ..Event::of_session(Kind::Minted { expires_at }, session, at)
        };
        self.note(player, event);
    }

    /// A gateway saw something.
    pub(super) fn seen_at(&mut self, gateway: &GatewayId, event: GatewayEvent) {
        let GatewayEvent {
            at,
            kind,
            session,
            token_sha256,
            remote,
        } = event;
        let kind = match kind {
            GatewayEventKind::Admitted => Kind::Admitted,
            GatewayEventKind::Resumed { superseded } => Kind::Resumed { superseded },
            GatewayEventKind::Suspended => Kind::Suspended,
            GatewayEventKind::Refused { reason, code } => Kind::Refused {
                reason: self.labels.intern(&reason),
                code,
            },
            GatewayEventKind::Ended { reason, code } => Kind::Ended {
                reason: self.labels.intern(&reason),
                code,
            },
        };
        // Who minted the token knows best; a gateway that could not open it knows nothing but its hash.
        let minted = token_sha256.and_then(|hash| self.tokens.bearer(&hash));
        let session = minted.map(|bearer| bearer.session).or(session);
        let player = minted
            .map(|bearer| bearer.player)
            .or_else(|| self.player_of(session?));
        let event = Event {
            at,
            kind,
            session,
            gateway: Some(gateway.clone()),
            token_sha256,
        };
        match player {
            Some(player) => self.note(player, event),
            None if matches!(event.kind, Kind::Refused { .. }) => {
                let limit = self.limits.refusals;
                self.refusals(gateway)
                    .push(limit, Nameless { event, remote });
            }
            None => self.lost_at(gateway, 1),
        }
    }

    /// A gateway could not keep so many events.
    pub(super) fn lost_at(&mut self, gateway: &GatewayId, lost: u64) {
        let ring = self.refusals(gateway);
        ring.forgotten = ring.forgotten.saturating_add(lost);
    }

    pub(super) fn player_of(&self, session: SessionId) -> Option<PlayerId> {
        self.sessions.get(&session).copied()
    }

    pub(super) fn player(&self, player: PlayerId) -> Option<History> {
        let known = self.players.get(&player)?;
        let mut events: Vec<_> = known.events.items.iter().cloned().collect();
        // Gateways tell of the past, by clocks that differ by some milliseconds. What happened at one time stays as it arrived.
        events.sort_by_key(|event| event.at);
        Some(History {
            events,
            forgotten: known.events.forgotten,
        })
    }

    pub(super) fn gateway(&self, gateway: &GatewayId) -> Option<Door> {
        let known = self.gateways.get(gateway)?;
        Some(Door {
            refusals: known.ring.items.iter().cloned().collect(),
            forgotten: known.ring.forgotten,
        })
    }

    /// Changes what is known of a player, which is the least quiet from now on; then forgets others until all fits.
    fn change(
        &mut self,
        id: PlayerId,
        session: Option<SessionId>,
        change: impl FnOnce(&mut Player),
    ) {
        self.turn += 1;
        let turn = self.turn;
        let player = self.players.entry(id).or_insert_with(|| Player {
            events: Ring::new(),
            sessions: VecDeque::new(),
            turn,
        });
        // A new player's is the present turn, which is nobody's yet.
        let before = match self.quiet.remove(&player.turn) {
            Some(_) => player.bytes(),
            None => 0,
        };
        player.turn = turn;
        self.quiet.insert(turn, id);
        change(player);
        if let Some(session) = session
            && self.sessions.insert(session, id) != Some(id)
        {
            player.sessions.push_back(session);
            if player.sessions.len() > self.limits.sessions
                && let Some(oldest) = player.sessions.pop_front()
            {
                self.sessions.remove(&oldest);
            }
        }
        self.bytes = self.bytes - before + player.bytes();
        while self.players.len() > self.limits.players || self.bytes > self.limits.bytes {
            if !self.forget_the_longest_quiet(id) {
                break;
            }
        }
    }

    /// Forgets the player of whom nothing was heard for the longest time; whether there was one beside `spared`.
    fn forget_the_longest_quiet(&mut self, spared: PlayerId) -> bool {
        let Some((turn, id)) = self.quiet.first_key_value().map(|(turn, id)| (*turn, *id)) else {
            return false;
        };
        if id == spared {
            return false;
        }
        self.quiet.remove(&turn);
        if let Some(player) = self.players.remove(&id) {
            self.bytes -= player.bytes();
            for session in player.sessions {
                if self.sessions.get(&session) == Some(&id) {
                    self.sessions.remove(&session);
                }
            }
        }
        true
    }

    /// The refusals of a gateway; the one of which nothing was heard for the longest time makes room.
    fn refusals(&mut self, gateway: &GatewayId) -> &mut Ring<Nameless> {
        self.turn += 1;
        if !self.gateways.contains_key(gateway) && self.gateways.len() >= self.limits.gateways {
            let quietest = self.gateways.iter().min_by_key(|(_, known)| known.turn);
            if let Some(id) = quietest.map(|(id, _)| id.clone()) {
                self.gateways.remove(&id);
            }
        }
        let known = self
            .gateways
            .entry(gateway.clone())
            .or_insert_with(|| Refusals {
                ring: Ring::new(),
                turn: 0,
            });
        known.turn = self.turn;
        &mut known.ring
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn counted_bytes(&self) -> usize {
        assert_eq!(self.players.len(), self.quiet.len());
        self.players.values().map(Player::bytes).sum()
    }
}
