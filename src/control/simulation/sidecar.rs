//! The model sidecar: sessions, the revocation log, and which stream of the gateway counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::super::{ATTACH_TIMEOUT, LiveSeat, LogState, Revocation, RevocationRange, SeatReport};
use crate::id::{Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId};

/// How long a connect token lives in the model.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(5);

/// How long an event stays in the log: as long as a token that it ends, and as the attach whose list of seats that token missed.
pub(super) const RETENTION: Duration = TOKEN_LIFE.saturating_add(ATTACH_TIMEOUT);

pub(super) struct Sidecar {
    pub(super) lineage: Lineage,
    /// All events ever; the revision of each is its place, counted from 1.
    pub(super) log: Vec<(Instant, Revocation)>,
    pub(super) tail: Revision,
    sessions: BTreeMap<SessionId, LiveSeat>,
    generations: BTreeMap<PlayerId, PlayerGeneration>,
    revoked: BTreeSet<SessionId>,
    /// The stream that counts and its process.
    pub(super) current: Option<(u64, Incarnation)>,
    pub(super) known_seats: BTreeSet<SessionId>,
    pub(super) acknowledged: Revision,
    pub(super) down_until: Instant,
}

impl Sidecar {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lineage: Lineage(1),
            log: Vec::new(),
            tail: Revision(0),
            sessions: BTreeMap::new(),
            generations: BTreeMap::new(),
            revoked: BTreeSet::new(),
            current: None,
            known_seats: BTreeSet::new(),
            acknowledged: Revision(0),
            down_until: now,
        }
    }

    pub(super) fn head(&self) -> Revision {
        Revision(self.log.len() as u64)
    }

    pub(super) fn log_state(&self) -> LogState {
        LogState {
            lineage: self.lineage,
            tail: self.tail,
            head: self.head(),
        }
    }

    /// The events after `from`, as far as they are retained.
    pub(super) fn log_after(&self, from: Revision, limit: usize) -> RevocationRange {
        let from = from.max(self.tail);
        let events: Vec<_> = self.events_after(from).take(limit).copied().collect();
        RevocationRange {
            from,
            to: Revision(from.0 + events.len() as u64),
            events,
        }
    }

    pub(super) fn events_after(&self, from: Revision) -> impl Iterator<Item = &Revocation> {
        self.log
            .iter()
            .skip(usize::try_from(from.0).unwrap())
            .map(|(_, event)| event)
    }

    pub(super) fn log_in(&mut self, player: PlayerId) -> SessionId {
        let session = SessionId(self.sessions.len() as u128);
        let player_generation = self.generations.get(&player).copied().unwrap_or_default();
        self.sessions.insert(
            session,
            LiveSeat {
                session,
                player,
                player_generation,
            },
        );
        session
    }

    /// The seat that a token for this session would take, if it lives.
    pub(super) fn mint(&self, session: SessionId) -> Option<LiveSeat> {
        let seat = *self.sessions.get(&session)?;
        (!self.is_dead(&seat)).then_some(seat)
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn is_dead(&self, seat: &LiveSeat) -> bool {
        self.revoked.contains(&seat.session)
            || self
                .generations
                .get(&seat.player)
                .is_some_and(|current| seat.player_generation < *current)
    }

    pub(super) fn revoke_session(&mut self, now: Instant, session: SessionId) {
        if self.revoked.insert(session) {
            self.log.push((now, Revocation::Session(session)));
        }
    }

    pub(super) fn revoke_player(&mut self, now: Instant, player: PlayerId) {
        let generation = self.generations.entry(player).or_default();
        generation.0 += 1;
        self.log
            .push((now, Revocation::Player(player, *generation)));
    }

    /// Forgets events older than the retention.
    pub(super) fn purge(&mut self, now: Instant) {
        while let Some((at, _)) = self.log.get(usize::try_from(self.tail.0).unwrap())
            && now.saturating_duration_since(*at) > RETENTION
        {
            self.tail.0 += 1;
        }
    }

    /// A new log, as after a restore: what the old one retained, from revision 1 on.
    pub(super) fn new_lineage(&mut self) {
        self.log.drain(..usize::try_from(self.tail.0).unwrap());
        self.tail = Revision(0);
        self.lineage.0 += 1;
    }

    pub(super) fn report(&mut self, stream: u64, report: &SeatReport) {
        if self.current.is_some_and(|(current, _)| current == stream) {
            for seat in &report.opened {
                self.known_seats.insert(seat.session);
            }
            for session in &report.closed {
                self.known_seats.remove(session);
            }
        }
    }

    pub(super) fn detach(&mut self, stream: u64) {
        if self.current.is_some_and(|(current, _)| current == stream) {
            self.current = None;
            self.known_seats.clear();
        }
    }
}
