//! The seat table: what admission, the workers, the simulation and the control channel call.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    ActivitySource, Connection, EndReason, Grant, Handle, Installed, LiveSeatInfo, NotSeated,
    SeatConfig, SeatCounts, TickReport, Verdict,
    books::{Books, Floor},
    closings::{Closing, Closings, Waker},
    slot::Slot,
};
use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId, SessionId, Tick},
};

/// How many slots there are beyond the capacity.
///
/// A seat that ends makes room for another at once, but its slot only once the simulation was told. So the slots must be more than
/// the seats by those that end between two ticks while the table is full, each replaced: by its player's new session, or by whoever
/// waited. One core completes fewer than 4,000 handshakes a second (at best 250 µs each), 200 in a tick of 20 Hz and 67 in one of
/// 60 Hz. If there are more all the same, or no ticks, the next is refused as on a full table, and may come again. 2 KiB of words.
const SPARE_SLOTS: u32 = 256;

/// Who is in. Shared between the workers, the simulation and the control channel; any thread may call anything.
///
/// [`verify`](SeatTable::verify) and [`touch`](SeatTable::touch) are atomics alone. Everything else takes one lock for a short
/// while: no call under it blocks, calls out (but [`live_seats`](SeatTable::live_seats)) or does more than a pass over the seats.
///
/// A seat is live while a connection serves it, suspended for a grace after that was lost, and then ended; a session that comes
/// back in time finds its seat as it was. A seat that ends, by whatever call, is refused by the very next verify on any thread, is
/// reported by the next tick, and only then leaves its slot to another. No touch and no activity write can undo an end or a
/// suspension.
#[derive(Debug)]
pub struct SeatTable {
    floor: Floor,
    books: Mutex<Books>,
    activity: ActivitySource,
    capacity: u32,
}

impl SeatTable {
    /// An empty table.
    pub fn new(config: SeatConfig) -> Self {
        Self::with_spare_slots(config, SPARE_SLOTS)
    }

    /// An empty table with so many slots beyond its capacity.
    pub(super) fn with_spare_slots(config: SeatConfig, spare: u32) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(
            config.capacity.saturating_add(spare) as usize,
            Slot::default,
        );
        Self {
            floor: Floor {
                slots: slots.into_boxed_slice(),
                closings: Closings::default(),
            },
            books: Mutex::new(Books::new(&config)),
            activity: config.activity,
            capacity: config.capacity,
        }
    }

    /// May this seat stay? A bounds check and one atomic load; a handle whose seat has ended is refused, also after its slot was
    /// used again. With [`ActivitySource::Verify`] it touches a live seat as well.
    pub fn verify(&self, handle: Handle) -> Verdict {
        let Some(slot) = self.floor.slot(handle.slot) else {
            return Verdict::Ended;
        };
        let verdict = slot.verdict(handle.generation);
        if self.activity == ActivitySource::Verify && verdict.is_live() {
            slot.mark(handle.generation);
        }
        verdict
    }

    /// Notes that the seat's session is active. One atomic load, and one exchange for the first touch after each write-out; does
    /// nothing to a seat that is suspended or has ended.
    pub fn touch(&self, handle: Handle) {
        if let Some(slot) = self.floor.slot(handle.slot) {
            slot.mark(handle.generation);
        }
    }

    /// Whether the session has a live seat here. For callers that know sessions and no handles: a lock and a hash map.
    ///
    /// With [`ActivitySource::Verify`] it touches the seat, as [`verify`](SeatTable::verify) does.
    pub fn is_session_authorized(&self, session: SessionId) -> bool {
        self.find(session)
            .is_some_and(|handle| self.verify(handle).is_live())
    }

    /// The session's seat here, live or suspended.
    pub fn find(&self, session: SessionId) -> Option<Handle> {
        let books = self.books();
        books.find(session).and_then(|slot| books.handle(slot))
    }

    /// The connection that serves a live seat; none if it is suspended or has ended.
    pub fn connection(&self, handle: Handle) -> Option<Connection> {
        self.books().connection(handle)
    }

    /// Seats a session.
    ///
    /// A session that has a seat, live or suspended, keeps it, with handle and client id, and the new connection takes it over; the
    /// one that served it is listed among its worker's closings as [`EndReason::Superseded`], whichever worker that is. A seat that
    /// has ended is not there any more, reported or not. Of two threads that seat one session at once, one gets the seat and the
    /// other takes it over.
    ///
    /// Whether a player's other session may stay, or this one may come, is [`SeatConfig::same_player`]; it is decided under the
    /// lock, so that of two sessions that come at once one is the newer. Where the newest wins, the other's seat has ended when this
    /// returns, has made room if the table was full, and its end is told before this join.
    ///
    /// # Errors
    /// [`NotSeated`]; nothing has changed then. [`NotSeated::Full`] if all seats are taken, suspended ones included, and none of
    /// them is this session's or replaced; or if so many seats ended since the last tick that no slot is left. [`NotSeated::PlayerPresent`]
    /// if the oldest wins and the player has another session's seat.
    pub fn install(&self, grant: Grant, now: Timestamp) -> Result<Installed, NotSeated> {
        self.change(|books| books.install(&self.floor, grant, now))
    }

    /// Whether there is room for this session: a free seat, or one of its own, or one that its admission replaces. False where
    /// [`install`](SeatTable::install) would say [`NotSeated::Full`]; that the player is present is for `install` to say.
    pub fn has_room_for(&self, session: SessionId, player: PlayerId) -> bool {
        let room = self.books().room_for(&self.floor, session, player);
        room != Err(NotSeated::Full)
    }

    /// Ends a seat, live or suspended, and lists its connection for its worker to close. True exactly once per seat, over all calls
    /// that end it.
    pub fn end(&self, handle: Handle, reason: EndReason) -> bool {
        self.change(|books| {
            books.handle(handle.slot) == Some(handle)
                && books.end_and_close(&self.floor, handle.slot, reason)
        })
    }

    /// Ends a seat because of the connection that serves it: only if it still does, and without listing it to be closed.
    pub fn end_connection(
        &self,
        handle: Handle,
        connection: Connection,
        reason: EndReason,
    ) -> bool {
        self.change(|books| {
            books.connection(handle) == Some(connection)
                && books.end(&self.floor, handle.slot, reason).is_some()
        })
    }

    /// The connection that serves a seat was lost: the seat is suspended for the grace from `now` on, or ends as
    /// [`EndReason::Lost`] at once if there is none. False if that connection does not serve the seat, or not any more.
    ///
    /// The very next verify says [`Verdict::Suspended`]. A session that is [installed](SeatTable::install) again before the tick pass has
    /// found the grace over goes on in its seat; otherwise that ends it as lost. Everything that ends a live seat ends a suspended one too.
    pub fn suspend(&self, handle: Handle, connection: Connection, now: Timestamp) -> bool {
        self.change(|books| books.suspend(&self.floor, handle, connection, now))
    }

    /// Ends the session's seat, if it has one, and lists its connection for its worker to close.
    pub fn end_session(&self, session: SessionId, reason: EndReason) -> bool {
        self.change(|books| {
            books
                .find(session)
                .is_some_and(|slot| books.end_and_close(&self.floor, slot, reason))
        })
    }

    /// Ends every seat, and lists the connections for their workers to close. Returns how many seats there were.
    pub fn end_all(&self, reason: EndReason) -> usize {
        self.change(|books| books.end_all(&self.floor, reason))
    }

    /// Ends the player's seats whose token is of an older generation, and lists their connections for their workers to
    /// close. Returns how many.
    pub fn end_player_before(
        &self,
        player: PlayerId,
        generation: PlayerGeneration,
        reason: EndReason,
    ) -> usize {
        self.change(|books| {
            let mut ended = books.of_player_before(player, generation);
            ended.retain(|slot| books.end_and_close(&self.floor, *slot, reason));
            ended.len()
        })
    }

    /// The session was active elsewhere at `active_at`, which moves its idle end, never back. Its absolute end stays.
    pub fn extend_idle(&self, session: SessionId, active_at: Timestamp) {
        self.books().extend_idle(session, active_at);
    }

    /// Sets the idle timeout of all sessions. The next tick enforces it.
    pub fn set_idle(&self, idle: Duration) {
        let mut books = self.books();
        books.idle = idle;
        books.swept = None;
    }

    /// The tick pass, once per tick of the simulation: writes out the activity that is due, ends the seats whose idle or absolute
    /// end has come (within one second) and the suspended ones whose grace is over (by the tick), reports what happened since the
    /// last tick, and frees the slots of seats whose end that reports. Allocates nothing once the report's memory has grown to what ticks need.
    ///
    /// Activity: the marked seats of each phase since the last tick are written out, none twice within the window. A tick that
    /// was skipped loses nothing. A seat whose idle end has come but which was touched since its last write-out is active now,
    /// whatever its phase.
    pub fn tick(&self, tick: Tick, now: Timestamp, report: &mut TickReport) {
        self.change(|books| books.tick(&self.floor, tick, now, report));
    }

    /// Moves the worker's closings to the end of `into`: the connections which that worker has to close because their seat was
    /// ended by another than themselves, or was taken over. Each is listed once.
    pub fn take_closings(&self, worker: u16, into: &mut Vec<Closing>) {
        self.floor.closings.take(worker, into);
    }

    /// Sets what is called when there are new closings for `worker`.
    pub fn set_waker(&self, worker: u16, waker: Waker) {
        self.floor.closings.set_waker(worker, waker);
    }

    /// Tells each seat, suspended ones too. The lock is held meanwhile: `visit` must not call the table.
    pub fn live_seats(&self, visit: impl FnMut(LiveSeatInfo)) {
        self.books().for_each(visit);
    }

    /// How many seats there are and were, all of one instant.
    pub fn counts(&self) -> SeatCounts {
        self.books().counts()
    }

    /// How many seats there are, live and suspended: what capacity counts.
    pub fn len(&self) -> usize {
        self.books().len()
    }

    /// Whether there are no seats, live or suspended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots are used: by seats, and by those that ended and whose end the simulation was not told yet.
    pub fn used(&self) -> usize {
        self.books().used()
    }

    /// How many seats there may be at once, live and suspended.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many slots there are: more than the capacity, since a seat's slot stays its own until the simulation was told of its
    /// end. [`Handle::slot`] is smaller than this.
    pub fn slots(&self) -> u32 {
        // Made from a u32.
        u32::try_from(self.floor.slots.len()).unwrap_or(u32::MAX)
    }

    /// Changes the books, then, with the lock released, wakes the workers that have something to close.
    fn change<R>(&self, act: impl FnOnce(&mut Books) -> R) -> R {
        let outcome = act(&mut self.books());
        self.floor.closings.ring();
        outcome
    }

    /// Nothing that is done under the lock can panic, so it is never poisoned; and if it were, the words still tell the truth.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
