//! Who sits where, and how to find them: the cold half of the table, behind one lock.

use std::time::Duration;

use super::{
    Connection, EndReason, Handle, LiveSeatInfo, SamePlayer, SeatConfig, SeatCounts,
    counts::Tally,
    graces::Graces,
    hall::Hall,
    index::Index,
    layout::Layout,
    phases::hash,
    record::{Links, NONE, Records, Service},
    sync::lock,
    vacancies::Vacancies,
};
use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId, SessionId},
};

/// How many slots that became free are sorted in at once, by an admission that needs one.
const PORTION: usize = 256;

/// The seats. Words of the floor are opened, suspended, resumed and ended only by whoever holds the books.
///
/// Whatever is done under their lock is done to one seat, or to a portion of them, in a time that does not depend on how many there
/// are; but for [`end_all`](Books::end_all), and for the many seats that one player may have if the rules allow it.
#[derive(Debug)]
pub(super) struct Books {
    /// How many seats there may be, live and suspended.
    pub(super) capacity: usize,
    pub(super) same_player: SamePlayer,
    pub(super) grace: Duration,
    pub(super) records: Records,
    /// Seats alone: one that has ended is nobody's, even while its slot is not free yet.
    pub(super) by_session: Index,
    /// One of each player's seats: the others stand in a ring with it, the latest first.
    pub(super) by_player: Index,
    /// The suspended seats and when their grace is over, the earliest first.
    pub(super) graces: Graces,
    pub(super) vacancies: Vacancies,
    /// Free slots that are still to be sorted in.
    unsorted: Vec<u32>,
    /// How many seats there are, live and suspended.
    pub(super) seats: usize,
    /// Slots whose generations are used up.
    pub(super) worn_out: usize,
    pub(super) tally: Tally,
}

impl Books {
    pub(super) fn new(config: &SeatConfig, layout: &Layout) -> Self {
        let SeatConfig {
            capacity,
            window: _,
            idle: _,
            activity: _,
            grace,
            same_player,
        } = *config;
        let capacity = capacity as usize;
        Self {
            capacity,
            same_player,
            grace,
            records: Records::new(layout.slots()),
            by_session: Index::new(capacity),
            by_player: Index::new(capacity),
            graces: Graces::new(),
            vacancies: Vacancies::new(layout),
            unsorted: Vec::new(),
            seats: 0,
            worn_out: 0,
            tally: Tally::default(),
        }
    }

    /// How many seats there are, live and suspended.
    pub(super) fn len(&self) -> usize {
        self.seats
    }

    /// Slots that no new seat can have: of seats, and of those that ended and whose end was not handed over yet.
    pub(super) fn used(&self, hall: &Hall) -> usize {
        self.seats + lock(&hall.journal).ends()
    }

    pub(super) fn counts(&self) -> SeatCounts {
        let suspended = self.graces.len();
        self.tally.with(self.seats - suspended, suspended)
    }

    /// The slot of a session's seat.
    pub(super) fn find(&self, hall: &Hall, session: SessionId) -> Option<u32> {
        self.by_session.find(hash(session.0), |slot| {
            hall.floor.session(slot) == Some(session)
        })
    }

    /// The connection that serves a live seat.
    pub(super) fn connection(&self, hall: &Hall, handle: Handle) -> Option<Connection> {
        if hall.floor.handle(handle.slot()) == Some(handle) {
            self.records.get(handle.slot())?.service.connection()
        } else {
            None
        }
    }

    /// Why a seat ended, while its slot is not another's.
    pub(super) fn end_reason(&self, hall: &Hall, handle: Handle) -> Option<EndReason> {
        if hall.floor.generation(handle.slot()) != handle.generation() {
            return None;
        }
        match self.records.get(handle.slot())?.service {
            Service::Ended(reason) => Some(reason),
            Service::By { .. } | Service::NoneUntil(_) => None,
        }
    }

    /// One of a player's seats: the latest.
    pub(super) fn first_of_player(&self, player: PlayerId) -> Option<u32> {
        self.by_player.find(hash(player.0), |slot| {
            self.records
                .get(slot)
                .is_some_and(|record| record.player == player)
        })
    }

    /// The slots of a player's seats, the latest first.
    pub(super) fn of_player(&self, player: PlayerId) -> impl Iterator<Item = u32> {
        let first = self.first_of_player(player);
        std::iter::successors(first, move |slot| {
            let next = self.records.get(*slot)?.siblings.next;
            (Some(next) != first).then_some(next)
        })
    }

    /// The slots of a player's seats whose token is of a generation before `generation`.
    pub(super) fn of_player_before(
        &self,
        player: PlayerId,
        generation: PlayerGeneration,
    ) -> Vec<u32> {
        self.of_player(player)
            .filter(|slot| {
                self.records
                    .get(*slot)
                    .is_some_and(|record| record.player_generation < generation)
            })
            .collect()
    }

    /// Adds the seats among some slots to `seats`.
    pub(super) fn list(
        &self,
        hall: &Hall,
        slots: std::ops::Range<u32>,
        seats: &mut Vec<LiveSeatInfo>,
    ) {
        seats.extend(slots.filter_map(|slot| {
            hall.floor.handle(slot)?;
            let record = self.records.get(slot)?;
            Some(LiveSeatInfo {
                session: hall.floor.session(slot)?,
                player: record.player,
                player_generation: record.player_generation,
            })
        }));
    }

    /// Notes activity of a session elsewhere.
    pub(super) fn extend_idle(&self, hall: &Hall, session: SessionId, active_at: Timestamp) {
        if let Some(slot) = self.find(hall, session) {
            hall.floor.was_active(slot, hall.era.round_up(active_at));
        }
    }

    /// The end of a grace that comes first, and whose.
    pub(super) fn first_grace(&self) -> Option<(Timestamp, u32)> {
        self.graces.first(&self.records)
    }

    /// Ends the seat in `slot`: its handle, and the connection that served it if it was live. Returns with the word cleared, so that
    /// the next verify refuses. Allocates nothing but for the journal.
    pub(super) fn end(
        &mut self,
        hall: &Hall,
        slot: u32,
        reason: EndReason,
    ) -> Option<(Handle, Option<Connection>)> {
        let handle = hall.floor.handle(slot)?;
        let session = hall.floor.session(slot)?;
        let record = self.records.get_mut(slot)?;
        hall.floor.end(handle);
        let served = record.service;
        let (player, client) = (record.player, record.client);
        if let Service::NoneUntil(_) = served {
            self.graces.remove(&mut self.records, slot);
            hall.set_next_grace_end(self.first_grace());
        }
        self.by_session.remove(hash(session.0), slot);
        self.leave_player(player, slot);
        self.seats -= 1;
        self.tally.ended(reason);
        lock(&hall.journal).ended(handle, session, client, reason);
        self.records.get_mut(slot)?.service = Service::Ended(reason);
        Some((handle, served.connection()))
    }

    /// Ends the seat in `slot`, and lists its connection, if it was live, for the worker to close. True if there was a seat.
    pub(super) fn end_and_close(&mut self, hall: &Hall, slot: u32, reason: EndReason) -> bool {
        let Some((handle, connection)) = self.end(hall, slot, reason) else {
            return false;
        };
        if let Some(connection) = connection {
            hall.closings.list(handle, connection, reason);
        }
        true
    }

    /// Ends every seat; returns how many there were.
    pub(super) fn end_all(&mut self, hall: &Hall, reason: EndReason) -> usize {
        (0..hall.slots_dealt())
            .filter(|slot| self.end_and_close(hall, *slot, reason))
            .count()
    }

    /// A free slot for a session of `phase`.
    pub(super) fn free_slot(&mut self, hall: &Hall, phase: u32) -> Option<u32> {
        loop {
            if self.unsorted.is_empty() {
                lock(&hall.journal).take_free(&mut self.unsorted);
            }
            let left = self.unsorted.len().saturating_sub(PORTION);
            for slot in self.unsorted.drain(left..) {
                if hall.floor.is_worn_out(slot) {
                    self.worn_out += 1;
                } else {
                    let records = &mut self.records;
                    self.vacancies.give_back(slot, records, &hall.deals);
                }
            }
            let (records, deals, floor) = (&mut self.records, &hall.deals, &hall.floor);
            let slot = self.vacancies.take(phase, records, deals, floor);
            if slot.is_some() || left == 0 {
                return slot;
            }
        }
    }

    /// Adds a slot to its player's seats.
    pub(super) fn join_player(&mut self, player: PlayerId, slot: u32) {
        let Some(next) = self.first_of_player(player) else {
            self.by_player.insert(hash(player.0), slot);
            self.set_siblings(
                slot,
                Links {
                    prior: slot,
                    next: slot,
                },
            );
            return;
        };
        let Some(after) = self.records.siblings(next) else {
            return;
        };
        let prior = std::mem::replace(&mut after.prior, slot);
        if let Some(before) = self.records.siblings(prior) {
            before.next = slot;
        }
        self.set_siblings(slot, Links { prior, next });
        self.by_player.replace(hash(player.0), next, slot);
    }

    fn leave_player(&mut self, player: PlayerId, slot: u32) {
        let Some(siblings) = self.records.siblings(slot) else {
            return;
        };
        let Links { prior, next } = std::mem::replace(siblings, Links::NONE);
        if next == slot || next == NONE {
            self.by_player.remove(hash(player.0), slot);
            return;
        }
        if let Some(before) = self.records.siblings(prior) {
            before.next = next;
        }
        if let Some(after) = self.records.siblings(next) {
            after.prior = prior;
        }
        // Only if it was the one that is entered.
        self.by_player.replace(hash(player.0), slot, next);
    }

    fn set_siblings(&mut self, slot: u32, links: Links) {
        if let Some(siblings) = self.records.siblings(slot) {
            *siblings = links;
        }
    }
}
