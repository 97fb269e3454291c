//! What is known about each seat beside its word: the cold half of the table, behind one lock.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::{
    Connection, EndReason, Handle, LiveSeatInfo, SamePlayer, SeatChange, SeatConfig, SeatCounts,
    closings::Closings,
    counts::Tally,
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

/// The seats and how to find them. Words of [`Floor`] are opened, suspended, resumed and ended only by whoever holds the books.
#[derive(Debug)]
pub(super) struct Books {
    /// How many seats there may be, live and suspended.
    pub(super) capacity: usize,
    pub(super) same_player: SamePlayer,
    pub(super) grace: Duration,
    /// One per slot ever used; grows to the number of slots.
    pub(super) berths: Vec<Berth>,
    /// Slots whose last seat's end was handed over. First in, first out, so that generations grow evenly.
    pub(super) free: VecDeque<u32>,
    /// How many seats there are, live and suspended.
    pub(super) seats: usize,
    /// Seats alone: one that has ended is nobody's, even while its slot is not free yet.
    pub(super) by_session: HashMap<SessionId, u32>,
    /// Seats alone. A set, so that a player's seats are a range of it.
    pub(super) by_player: BTreeSet<(PlayerId, u32)>,
    /// The suspended seats and when their grace is over, the earliest first.
    pub(super) graces: BTreeSet<(Timestamp, u32)>,
    pub(super) phases: Phases,
    pub(super) journal: Journal,
    pub(super) tally: Tally,
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
    /// The seat. None when it has ended, whether or not the simulation knows.
    pub(super) seat: Option<Seat>,
}

/// A seat, live or suspended.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) session: SessionId,
    pub(super) player: PlayerId,
    pub(super) player_generation: PlayerGeneration,
    pub(super) client: ClientId,
    pub(super) ends_at: Timestamp,
    pub(super) service: Service,
    /// The last activity known: the last write-out, or what was heard from elsewhere. A live seat's mark is newer; a suspended
    /// seat's is counted in.
    pub(super) active_at: Timestamp,
    /// The last write-out.
    pub(super) written: Option<Tick>,
    pub(super) place: Place,
    pub(super) told: Entry,
}

/// Who serves a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// This connection: the seat is live.
    By(Connection),
    /// Nobody: the seat is suspended, and ends at this time.
    NoneUntil(Timestamp),
}

impl Seat {
    /// The connection that serves it, unless it is suspended.
    pub(super) fn connection(&self) -> Option<Connection> {
        match self.service {
            Service::By(connection) => Some(connection),
            Service::NoneUntil(_) => None,
        }
    }

    pub(super) fn is_suspended(&self) -> bool {
        matches!(self.service, Service::NoneUntil(_))
    }
}

impl Books {
    pub(super) fn new(config: &SeatConfig) -> Self {
        let SeatConfig {
            capacity,
            window,
            idle,
            activity: _,
            grace,
            same_player,
        } = *config;
        Self {
            capacity: capacity as usize,
            same_player,
            grace,
            berths: Vec::new(),
            free: VecDeque::new(),
            seats: 0,
            by_session: HashMap::new(),
            by_player: BTreeSet::new(),
            graces: BTreeSet::new(),
            phases: Phases::new(window),
            journal: Journal::default(),
            tally: Tally::default(),
            window: u64::from(window.max(1)),
            idle,
            last_tick: None,
            swept: None,
        }
    }

    /// How many seats there are, live and suspended.
    pub(super) fn len(&self) -> usize {
        self.seats
    }

    /// Slots that no new seat can have: of seats, and of those that ended and whose end was not handed over yet.
    pub(super) fn used(&self) -> usize {
        self.berths.len() - self.free.len()
    }

    pub(super) fn counts(&self) -> SeatCounts {
        let suspended = self.graces.len();
        self.tally.with(self.seats - suspended, suspended)
    }

    /// The slot of a session's seat.
    pub(super) fn find(&self, session: SessionId) -> Option<u32> {
        self.by_session.get(&session).copied()
    }

    /// The handle of a slot's seat.
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
        if berth.generation == handle.generation {
            seat.connection()
        } else {
            None
        }
    }

    /// The slots of a player's seats.
    pub(super) fn of_player(&self, player: PlayerId) -> impl Iterator<Item = u32> {
        self.by_player
            .range((player, 0)..=(player, u32::MAX))
            .map(|(_, slot)| *slot)
    }

    /// The slots of a player's seats whose token is of a generation before `generation`.
    pub(super) fn of_player_before(
        &self,
        player: PlayerId,
        generation: PlayerGeneration,
    ) -> Vec<u32> {
        self.of_player(player)
            .filter(|slot| {
                self.berths
                    .get(*slot as usize)
                    .and_then(|berth| berth.seat.as_ref())
                    .is_some_and(|seat| seat.player_generation < generation)
            })
            .collect()
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(LiveSeatInfo)) {
        for seat in self.berths.iter().filter_map(|berth| berth.seat.as_ref()) {
            visit(LiveSeatInfo {
                session: seat.session,
                player: seat.player,
                player_generation: seat.player_generation,
            });
        }
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

    /// Ends the seat in `slot`: its handle, and the connection that served it if it was live. Returns with the word cleared, so that
    /// the next verify refuses.
    pub(super) fn end(
        &mut self,
        floor: &Floor,
        slot: u32,
        reason: EndReason,
    ) -> Option<(Handle, Option<Connection>)> {
        let handle = self.handle(slot)?;
        floor.slot(slot)?.end(handle.generation);
        self.retire(slot, reason)
    }

    /// Ends the seat in `slot`, and lists its connection, if it was live, for the worker to close. True if there was a seat.
    pub(super) fn end_and_close(&mut self, floor: &Floor, slot: u32, reason: EndReason) -> bool {
        let Some((handle, connection)) = self.end(floor, slot, reason) else {
            return false;
        };
        if let Some(connection) = connection {
            floor.closings.list(handle, connection, reason);
        }
        true
    }

    /// Strikes a seat whose word has been cleared from the books. Frees memory, and allocates none but for the journal.
    fn retire(&mut self, slot: u32, reason: EndReason) -> Option<(Handle, Option<Connection>)> {
        let berth = self.berths.get_mut(slot as usize)?;
        let seat = berth.seat.take()?;
        let connection = seat.connection();
        let Seat {
            session,
            player,
            player_generation: _,
            client,
            ends_at: _,
            service,
            active_at: _,
            written: _,
            place,
            told: _,
        } = seat;
        let handle = Handle {
            slot,
            generation: berth.generation,
        };
        self.by_session.remove(&session);
        self.by_player.remove(&(player, slot));
        if let Service::NoneUntil(end) = service {
            self.graces.remove(&(end, slot));
        }
        if let Some(moved) = self.phases.leave(place)
            && let Some(Berth {
                seat: Some(seat), ..
            }) = self.berths.get_mut(moved as usize)
        {
            seat.place = place;
        }
        self.seats -= 1;
        self.tally.ended(reason);
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
