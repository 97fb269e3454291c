//! The model gateway: its seats, its copy of the log, and a [`Link`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{
    super::{
        GatewayDescription, LiveSeat, Revocation, RevocationRange, SeatReport, link::Link,
        message::LogPosition,
    },
    gateway_id,
};
use crate::id::{Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId};

/// A connect token: who it admits, and until when.
pub(super) struct Token {
    pub(super) seat: LiveSeat,
    pub(super) expires_at: Instant,
}

pub(super) struct Gateway {
    pub(super) link: Link,
    pub(super) incarnation: Incarnation,
    pub(super) seats: BTreeMap<SessionId, LiveSeat>,
    pub(super) tokens: Vec<Token>,
    pub(super) keys_of: Option<Incarnation>,
    /// Where its copy of the log starts.
    pub(super) base: Option<LogPosition>,
    pub(super) dead_sessions: BTreeSet<SessionId>,
    pub(super) generations: BTreeMap<PlayerId, PlayerGeneration>,
    /// Sessions whose seat was taken (true) or ended since the last report.
    changed: BTreeMap<SessionId, bool>,
    active: BTreeSet<SessionId>,
}

impl Gateway {
    pub(super) fn new(now: Instant, incarnation: Incarnation, seed: u64) -> Self {
        Self {
            link: Link::new(now, seed),
            incarnation,
            seats: BTreeMap::new(),
            tokens: Vec::new(),
            keys_of: None,
            base: None,
            dead_sessions: BTreeSet::new(),
            generations: BTreeMap::new(),
            changed: BTreeMap::new(),
            active: BTreeSet::new(),
        }
    }

    pub(super) fn describe(&self) -> GatewayDescription {
        GatewayDescription {
            id: gateway_id(),
            incarnation: self.incarnation,
            addresses: Vec::new(),
            server_name: String::new(),
            certificate_sha256: Vec::new(),
            capacity: 1_000,
        }
    }

    /// Admits the token's session, unless the copy of the log says that it is dead.
    pub(super) fn admit(&mut self, now: Instant, token: &Token) {
        let seat = token.seat;
        let revoked = self.dead_sessions.contains(&seat.session)
            || self
                .generations
                .get(&seat.player)
                .is_some_and(|current| seat.player_generation < *current);
        if !revoked && now < token.expires_at {
            self.seats.insert(seat.session, seat);
            self.changed.insert(seat.session, true);
        }
        self.link.report_ready(now);
    }

    pub(super) fn leave(&mut self, now: Instant, session: SessionId) {
        if self.seats.remove(&session).is_some() {
            self.changed.insert(session, false);
            self.link.report_ready(now);
        }
    }

    pub(super) fn touch(&mut self, now: Instant, session: SessionId) {
        self.active.insert(session);
        self.link.report_ready(now);
    }

    pub(super) fn reset_log(
        &mut self,
        now: Instant,
        lineage: Lineage,
        revision: Revision,
        dead: &[SessionId],
    ) {
        self.base = Some(LogPosition { lineage, revision });
        self.dead_sessions.clear();
        self.generations.clear();
        for session in dead {
            self.leave(now, *session);
        }
    }

    pub(super) fn apply(&mut self, now: Instant, range: &RevocationRange) {
        for event in &range.events {
            match *event {
                Revocation::Session(session) => {
                    self.dead_sessions.insert(session);
                    self.leave(now, session);
                }
                Revocation::Player(player, generation) => {
                    let current = self.generations.entry(player).or_default();
                    *current = generation.max(*current);
                    let dead: Vec<_> = self
                        .seats
                        .values()
                        .filter(|seat| seat.player == player && seat.player_generation < generation)
                        .map(|seat| seat.session)
                        .collect();
                    for session in dead {
                        self.leave(now, session);
                    }
                }
            }
        }
    }

    pub(super) fn has_applied(&self, event: &Revocation) -> bool {
        match event {
            Revocation::Session(session) => self.dead_sessions.contains(session),
            Revocation::Player(player, generation) => self
                .generations
                .get(player)
                .is_some_and(|current| current >= generation),
        }
    }

    pub(super) fn take_report(&mut self) -> SeatReport {
        let mut report = SeatReport {
            active: std::mem::take(&mut self.active).into_iter().collect(),
            seats: u32::try_from(self.seats.len()).unwrap(),
            ..SeatReport::default()
        };
        for (session, opened) in std::mem::take(&mut self.changed) {
            match self.seats.get(&session) {
                Some(seat) if opened => report.opened.push(*seat),
                _ => report.closed.push(session),
            }
        }
        report
    }
}
