//! Look-ups by JTI: our index, and the map that it is compared with.

use std::hint::black_box;

use dashmap::DashMap;
use tickgate::{id::SessionId, seat::SeatTable};

use super::Subject;

/// The obvious index: a concurrent map from session to slot, with its default hash.
pub(crate) struct ConcurrentMap {
    slots: DashMap<SessionId, u32>,
    asked: Vec<SessionId>,
}

impl ConcurrentMap {
    pub(crate) fn new(sessions: &[SessionId], asked: &[SessionId]) -> Self {
        Self {
            slots: sessions.iter().copied().zip(0..).collect(),
            asked: asked.to_vec(),
        }
    }
}

impl Subject for ConcurrentMap {
    fn pass(&mut self) {
        let mut found = 0_usize;
        for session in &self.asked {
            found += usize::from(self.slots.get(black_box(session)).is_some());
        }
        assert_eq!(black_box(found), self.asked.len());
    }
}

/// The seat table, asked by session.
pub(crate) struct BySession<'a> {
    table: &'a SeatTable,
    asked: &'a [SessionId],
}

impl<'a> BySession<'a> {
    pub(crate) fn new(table: &'a SeatTable, asked: &'a [SessionId]) -> Self {
        Self { table, asked }
    }
}

impl Subject for BySession<'_> {
    fn pass(&mut self) {
        let mut live = 0_usize;
        for session in self.asked {
            live += usize::from(self.table.is_session_authorized(black_box(*session)));
        }
        assert_eq!(black_box(live), self.asked.len());
    }
}
