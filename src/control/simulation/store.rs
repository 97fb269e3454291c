//! The sidecar's store in the model: what survives its process, and what a backup is of.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{LiveSeat, LogState, Revocation, RevocationRange};
use crate::{
    clock::Timestamp,
    id::{Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
};

#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) lineage: Lineage,
    /// All events ever; the revision of each is its place, counted from 1.
    log: Vec<(Timestamp, Revocation)>,
    tail: Revision,
    sessions: BTreeMap<SessionId, LiveSeat>,
    generations: BTreeMap<PlayerId, PlayerGeneration>,
    revoked: BTreeSet<SessionId>,
    newest: Option<Incarnation>,
    pub(super) fenced: BTreeSet<Incarnation>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            lineage: Lineage(1),
            log: Vec::new(),
            tail: Revision(0),
            sessions: BTreeMap::new(),
            generations: BTreeMap::new(),
            revoked: BTreeSet::new(),
            newest: None,
            fenced: BTreeSet::new(),
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

    /// The events in the range (from, to].
    pub(super) fn events_between(
        &self,
        from: Revision,
        to: Revision,
    ) -> impl Iterator<Item = &Revocation> {
        let count = usize::try_from(to.0.saturating_sub(from.0)).unwrap();
        self.events_after(from).take(count)
    }

    pub(super) fn log_in(&mut self, session: SessionId, player: PlayerId) {
        let player_generation = self.generations.get(&player).copied().unwrap_or_default();
        let seat = LiveSeat {
            session,
            player,
            player_generation,
        };
        self.sessions.insert(session, seat);
    }

    /// The seat that a token for this session would take, if it lives.
    pub(super) fn alive(&self, session: SessionId) -> Option<LiveSeat> {
        let seat = *self.sessions.get(&session)?;
        (!self.is_dead(&seat)).then_some(seat)
    }

    /// Whether the seat's session has ended, or was never heard of.
    pub(super) fn is_dead(&self, seat: &LiveSeat) -> bool {
        self.is_gone(seat.session)
            || self
                .generations
                .get(&seat.player)
                .is_some_and(|current| seat.player_generation < *current)
    }

    /// Whether the session itself has ended, or was never heard of.
    pub(super) fn is_gone(&self, session: SessionId) -> bool {
        self.revoked.contains(&session) || !self.sessions.contains_key(&session)
    }

    pub(super) fn generation(&self, player: PlayerId) -> PlayerGeneration {
        self.generations.get(&player).copied().unwrap_or_default()
    }

    /// True if the session was there to be revoked.
    pub(super) fn revoke_session(&mut self, at: Timestamp, session: SessionId) -> bool {
        let live = self.sessions.contains_key(&session) && self.revoked.insert(session);
        if live {
            self.log.push((at, Revocation::Session(session)));
        }
        live
    }

    pub(super) fn revoke_player(&mut self, at: Timestamp, player: PlayerId) {
        let generation = self.generations.entry(player).or_default();
        generation.0 += 1;
        self.log.push((at, Revocation::Player(player, *generation)));
    }

    /// Forgets events from before `before`.
    pub(super) fn purge(&mut self, before: Timestamp) {
        while let Some((at, _)) = self.log.get(usize::try_from(self.tail.0).unwrap())
            && *at < before
        {
            self.tail.0 += 1;
        }
    }

    /// Whether the process may attach, as the real store decides: one that was not seen before is the newest, and fences off the one
    /// before, for good.
    pub(super) fn attach_gateway(&mut self, incarnation: Incarnation) -> bool {
        if self.fenced.contains(&incarnation) {
            return false;
        }
        if let Some(older) = self.newest.replace(incarnation)
            && older != incarnation
        {
            self.fenced.insert(older);
        }
        true
    }

    /// Whether this process has attached before, or a newer one since.
    pub(super) fn has_seen(&self, incarnation: Incarnation) -> bool {
        self.newest == Some(incarnation) || self.fenced.contains(&incarnation)
    }
}
