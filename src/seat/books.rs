//! What is known about each seat beside its word: the cold half of the table, behind one lock.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::{
    Connection, EndReason, Grant, Handle, Joined, NotSeated, SeatChange,
    closings::Closings,
    journal::{Entry, Journal},
    phases::{Phases, Place},
    slot::Slot,
};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
};

/// The half of the table that needs no lock: what the hot path reads, and what the workers collect.
#[derive(Debug)]
pub(super) struct Floor {
    pub(super) slots: Box<[Slot]>,
    pub(super) closings: Closings,
}

impl Floor {
    pub(super) fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }
}

/// The seats and how to find them. Words of [`Floor`] go from live to ended, and are opened, only by whoever holds the books.
#[derive(Debug)]
pub(super) struct Books {
    capacity: u32,
    /// One per slot ever used; grows to the capacity.
    pub(super) berths: Vec<Berth>,
    /// Slots whose last seat's end was handed over. First in, first out, so that generations grow evenly.
    free: VecDeque<u32>,
    live: usize,
    /// Live seats alone: one that has ended is nobody's seat, even while its slot is not free yet.
    by_session: HashMap<SessionId, u32>,
    /// Live seats alone. A set, so that a player's seats are a range of it.
    by_player: BTreeSet<(PlayerId, u32)>,
    pub(super) phases: Phases,
    journal: Journal,
    /// In ticks, at least 1.
    pub(super) window: u64,
    pub(super) idle: Duration,
    pub(super) last_tick: Option<Tick>,
    /// The second of the last look for ends that are due; none if there is to be one on the next tick.
    pub(super) swept: Option<u64>,
}

/// A slot, as the books have it.
#[derive(Debug)]
pub(super) struct Berth {
    /// That of its seat, or of the last one.
    pub(super) generation: u32,
    /// The live seat. None when it has ended, whether or not the simulation knows.
    pub(super) seat: Option<Seat>,
}

/// A live seat.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) session: SessionId,
    player: PlayerId,
    player_generation: PlayerGeneration,
    client: ClientId,
    pub(super) ends_at: Timestamp,
    connection: Connection,
    /// The last activity known: the last write-out, or what was heard from elsewhere. A mark not yet written out is newer.
    pub(super) active_at: Timestamp,
    /// The last write-out.
    pub(super) written: Option<Tick>,
    place: Place,
    told: Entry,
}

impl Books {
    pub(super) fn new(capacity: u32, window: u32, idle: Duration) -> Self {
        Self {
            capacity,
            berths: Vec::new(),
            free: VecDeque::new(),
            live: 0,
            by_session: HashMap::new(),
            by_player: BTreeSet::new(),
            phases: Phases::new(window),
            journal: Journal::default(),
            window: u64::from(window.max(1)),
            idle,
            last_tick: None,
            swept: None,
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Slots that no new seat can have: of live seats, and of those whose end was not handed over yet.
    pub(super) fn used(&self) -> usize {
        self.berths.len() - self.free.len()
    }

    /// The slot of a session's live seat.
    pub(super) fn find(&self, session: SessionId) -> Option<u32> {
        self.by_session.get(&session).copied()
    }

    /// The handle of a slot's live seat.
    pub(super) fn handle(&self, slot: u32) -> Option<Handle> {
        let berth = self.berths.get(slot as usize)?;
        berth.seat.as_ref().map(|_| Handle {
            slot,
            generation: berth.generation,
        })
    }

    /// The connection that serves a live seat.
    pub(super) fn connection(&self, handle: Handle) -> Option<Connection> {
        let berth = self.berths.get(handle.slot as usize)?;
        let seat = berth.seat.as_ref()?;
        (berth.generation == handle.generation).then_some(seat.connection)
    }

    /// The slots of a player's live seats whose token is of a generation before `generation`.
    pub(super) fn of_player_before(
        &self,
        player: PlayerId,
        generation: PlayerGeneration,
    ) -> Vec<u32> {
        self.by_player
            .range((player, 0)..=(player, u32::MAX))
            .map(|(_, slot)| *slot)
            .filter(|slot| {
                self.berths
                    .get(*slot as usize)
                    .and_then(|berth| berth.seat.as_ref())
                    .is_some_and(|seat| seat.player_generation < generation)
            })
            .collect()
    }

    pub(super) fn for_each_live(
        &self,
        mut visit: impl FnMut(SessionId, PlayerId, PlayerGeneration),
    ) {
        for seat in self.berths.iter().filter_map(|berth| berth.seat.as_ref()) {
            visit(seat.session, seat.player, seat.player_generation);
        }
    }

    /// Seats a session that has no live seat.
    pub(super) fn seat(
        &mut self,
        floor: &Floor,
        grant: Grant,
        now: Timestamp,
    ) -> Result<Handle, NotSeated> {
        let Grant {
            session,
            player,
            player_generation,
            client,
            ends_at,
            connection,
        } = grant;
        let slot = self.free_slot().ok_or(NotSeated::Full)?;
        let (Some(berth), Some(word)) = (self.berths.get_mut(slot as usize), floor.slot(slot))
        else {
            // Unreachable: there is a berth and a word for every slot below the capacity.
            return Err(NotSeated::Full);
        };
        berth.generation = berth.generation.wrapping_add(1).max(1);
        let handle = Handle {
            slot,
            generation: berth.generation,
        };
        berth.seat = Some(Seat {
            session,
            player,
            player_generation,
            client,
            ends_at,
            connection,
            active_at: now,
            written: None,
            place: self.phases.enter(session, slot),
            told: self.journal.joined(Joined {
                handle,
                session,
                player,
                player_generation,
                client,
                worker: connection.worker,
            }),
        });
        self.by_session.insert(session, slot);
        self.by_player.insert((player, slot));
        self.live += 1;
        word.open(handle.generation);
        Ok(handle)
    }

    fn free_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop_front() {
            return Some(slot);
        }
        let slot = u32::try_from(self.berths.len())
            .ok()
            .filter(|slot| *slot < self.capacity)?;
        self.berths.push(Berth {
            generation: 0,
            seat: None,
        });
        // Room for every slot to be free, so that a tick that frees slots never allocates.
        self.free.reserve(self.berths.len() - self.free.len());
        Some(slot)
    }

    /// Gives the live seat in `slot` to the connection of `grant`, of the same session; lists the one that served it for its
    /// worker to close. The absolute end stays: it is the session's, and cannot be moved.
    pub(super) fn take_over(
        &mut self,
        floor: &Floor,
        slot: u32,
        grant: &Grant,
        now: Timestamp,
    ) -> Option<(Handle, ClientId, Connection)> {
        let berth = self.berths.get_mut(slot as usize)?;
        let seat = berth.seat.as_mut()?;
        let handle = Handle {
            slot,
            generation: berth.generation,
        };
        let displaced = std::mem::replace(&mut seat.connection, grant.connection);
        seat.player_generation = seat.player_generation.max(grant.player_generation);
        seat.active_at = seat.active_at.max(now);
        floor.slot(slot)?.mark(handle.generation);
        seat.told = self
            .journal
            .moved(handle, grant.connection.worker, seat.told);
        floor
            .closings
            .list(handle, displaced, EndReason::Superseded);
        Some((handle, seat.client, displaced))
    }

    /// Notes activity of a session elsewhere.
    pub(super) fn extend_idle(&mut self, session: SessionId, active_at: Timestamp) {
        let Some(slot) = self.find(session) else {
            return;
        };
        if let Some(Berth {
            seat: Some(seat), ..
        }) = self.berths.get_mut(slot as usize)
        {
            seat.active_at = seat.active_at.max(active_at);
        }
    }

    /// Ends the live seat in `slot`: true if there was one. Returns with the word cleared, so that the next verify refuses.
    pub(super) fn end(
        &mut self,
        floor: &Floor,
        slot: u32,
        reason: EndReason,
    ) -> Option<(Handle, Connection)> {
        let handle = self.handle(slot)?;
        floor.slot(slot)?.end(handle.generation);
        self.retire(slot, reason)
    }

    /// Ends the live seat in `slot`, and lists its connection for the worker to close.
    pub(super) fn end_and_close(&mut self, floor: &Floor, slot: u32, reason: EndReason) -> bool {
        let Some((handle, connection)) = self.end(floor, slot, reason) else {
            return false;
        };
        floor.closings.list(handle, connection, reason);
        true
    }

    /// Strikes a seat whose word has been cleared from the books. Frees memory, and allocates none but for the journal.
    pub(super) fn retire(&mut self, slot: u32, reason: EndReason) -> Option<(Handle, Connection)> {
        let berth = self.berths.get_mut(slot as usize)?;
        let Seat {
            session,
            player,
            player_generation: _,
            client,
            ends_at: _,
            connection,
            active_at: _,
            written: _,
            place,
            told: _,
        } = berth.seat.take()?;
        let handle = Handle {
            slot,
            generation: berth.generation,
        };
        self.by_session.remove(&session);
        self.by_player.remove(&(player, slot));
        if let Some(moved) = self.phases.leave(place)
            && let Some(Berth {
                seat: Some(seat), ..
            }) = self.berths.get_mut(moved as usize)
        {
            seat.place = place;
        }
        self.live -= 1;
        self.journal.ended(handle, session, client, reason);
        Some((handle, connection))
    }

    /// Hands over the changes, and frees the slots of the seats whose end is among them.
    pub(super) fn hand_over(&mut self, changes: &mut Vec<SeatChange>) {
        self.journal.hand_over(changes);
        self.free.extend(changes.iter().filter_map(|change| {
            matches!(change, SeatChange::Ended { .. }).then_some(change.handle().slot)
        }));
    }
}
