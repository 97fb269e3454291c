//! The seat table: what admission, the workers, the simulation and the control channel call.

use std::{fmt, time::Duration};

use super::{
    ActivitySource, Answers, Connection, EndReason, Grant, Handle, Installed, LiveSeatInfo,
    LiveSlots, NotSeated, SeatConfig, SeatCounts, TickReport, Verdict,
    books::Books,
    closings::{Closing, Waker},
    hall::Hall,
    layout::Layout,
    pass::Pass,
    sync::{Apart, Mutex, MutexGuard, lock},
};
use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId, SessionId, Tick},
};

/// Who is in. Shared between the workers, the simulation and the control channel; any thread may call anything.
///
/// [`verify`](SeatTable::verify), [`verify_batch`](SeatTable::verify_batch) and [`touch`](SeatTable::touch) are atomics alone. A
/// [`tick`](SeatTable::tick) waits for no more than the push of a change, unless it has seats to end. Everything else takes one lock for
/// a short while, for one seat or a portion of them: the module's table of locks says for how long.
///
/// A seat is live while a connection serves it, suspended for a grace after that was lost, and then ended; a session that comes
/// back in time finds its seat as it was. A seat that ends, by whatever call, is refused by the very next verify on any thread, is
/// reported by the next tick, and only then leaves its slot to another. No touch and no activity write can undo an end or a
/// suspension.
pub struct SeatTable {
    hall: Hall,
    activity: ActivitySource,
    capacity: u32,
    books: Apart<Mutex<Books>>,
    pass: Apart<Mutex<Pass>>,
}

/// How many slots [`SeatTable::live_seats`] looks at under the lock at a time: some microseconds.
const PORTION: u32 = 1_024;

impl SeatTable {
    /// An empty table.
    pub fn new(config: SeatConfig) -> Self {
        Self::with_layout(config, Layout::new(&config))
    }

    /// An empty table with so many slots beyond its capacity, or a few more.
    #[cfg(test)]
    pub(super) fn with_spare_slots(config: SeatConfig, spare: u32) -> Self {
        let Layout { phases, block, .. } = Layout::new(&config);
        let slots = config.capacity.saturating_add(spare);
        Self::with_layout(config, Layout::with_slots(phases, block, slots))
    }

    fn with_layout(config: SeatConfig, layout: Layout) -> Self {
        Self {
            hall: Hall::new(&config, layout),
            activity: config.activity,
            capacity: config.capacity,
            books: Apart(Mutex::new(Books::new(&config, &layout))),
            pass: Apart(Mutex::new(Pass::new(&layout))),
        }
    }

    /// May this seat stay? A bounds check and one atomic load; a handle whose seat has ended is refused, also after its slot was
    /// used again. With [`ActivitySource::Verify`] it touches a live seat as well.
    #[inline]
    pub fn verify(&self, handle: Handle) -> Verdict {
        let verdict = self.hall.floor.verdict(handle);
        if self.activity == ActivitySource::Verify && verdict.is_live() {
            self.hall.floor.mark(handle.slot());
        }
        verdict
    }

    /// May these seats stay? As [`verify`](SeatTable::verify) for each, in less time: one bit per handle, in their order. With
    /// [`ActivitySource::Verify`] it touches the live ones as well.
    pub fn verify_batch(&self, handles: &[Handle], answers: &mut Answers) {
        let floor = &self.hall.floor;
        let touches = self.activity == ActivitySource::Verify;
        answers.begin(handles.len());
        floor.live_among(handles, |handles, live| {
            if touches {
                for (bit, handle) in handles.iter().enumerate() {
                    if live >> bit & 1 != 0 {
                        floor.mark(handle.slot());
                    }
                }
            }
            answers.push(live);
        });
    }

    /// Who may stay, by slot: for whoever keeps players by [`Handle::slot`] and has heard what `report` says, which must be that of this
    /// table's last tick. After another tick it lends a view of nobody; one that was taken before a tick with another report is void.
    ///
    /// It touches nobody: with [`ActivitySource::Verify`] ask by handle.
    pub fn live<'a>(&'a self, report: &'a TickReport) -> LiveSlots<'a> {
        if report.pass == self.hall.passes() && report.pass != 0 {
            LiveSlots::of(&self.hall.floor.live)
        } else {
            LiveSlots::none()
        }
    }

    /// Notes that the seat's session is active. Two atomic loads, and one store for the first touch after each write-out; does
    /// nothing to a seat that is suspended or has ended.
    #[inline]
    pub fn touch(&self, handle: Handle) {
        self.hall.floor.touch(handle);
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
        let slot = books.find(&self.hall, session)?;
        self.hall.floor.handle(slot)
    }

    /// The connection that serves a live seat; none if it is suspended or has ended.
    pub fn connection(&self, handle: Handle) -> Option<Connection> {
        self.books().connection(&self.hall, handle)
    }

    /// Why a seat ended, for as long as its slot was not given to another; none before its end.
    pub fn end_reason(&self, handle: Handle) -> Option<EndReason> {
        self.books().end_reason(&self.hall, handle)
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
        self.hall.era.begin(now);
        self.change(|books| books.install(&self.hall, grant, now))
    }

    /// Whether there is room for this session: a free seat, or one of its own, or one that its admission replaces. False where
    /// [`install`](SeatTable::install) would say [`NotSeated::Full`]; that the player is present is for `install` to say.
    pub fn has_room_for(&self, session: SessionId, player: PlayerId) -> bool {
        let room = self.books().room_for(&self.hall, session, player);
        room != Err(NotSeated::Full)
    }

    /// Ends a seat, live or suspended, and lists its connection for its worker to close. True exactly once per seat, over all calls
    /// that end it.
    pub fn end(&self, handle: Handle, reason: EndReason) -> bool {
        self.change(|books| {
            self.hall.floor.handle(handle.slot()) == Some(handle)
                && books.end_and_close(&self.hall, handle.slot(), reason)
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
            books.connection(&self.hall, handle) == Some(connection)
                && books.end(&self.hall, handle.slot(), reason).is_some()
        })
    }

    /// The connection that serves a seat was lost: the seat is suspended for the grace from `now` on, or ends as
    /// [`EndReason::Lost`] at once if there is none. False if that connection does not serve the seat, or not any more.
    ///
    /// The very next verify says [`Verdict::Suspended`]. A session that is [installed](SeatTable::install) again before the tick pass has
    /// found the grace over goes on in its seat; otherwise that ends it as lost. Everything that ends a live seat ends a suspended one too.
    pub fn suspend(&self, handle: Handle, connection: Connection, now: Timestamp) -> bool {
        self.change(|books| books.suspend(&self.hall, handle, connection, now))
    }

    /// Ends the session's seat, if it has one, and lists its connection for its worker to close.
    pub fn end_session(&self, session: SessionId, reason: EndReason) -> bool {
        self.change(|books| {
            books
                .find(&self.hall, session)
                .is_some_and(|slot| books.end_and_close(&self.hall, slot, reason))
        })
    }

    /// Ends every seat, and lists the connections for their workers to close. Returns how many seats there were.
    pub fn end_all(&self, reason: EndReason) -> usize {
        self.change(|books| books.end_all(&self.hall, reason))
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
            ended.retain(|slot| books.end_and_close(&self.hall, *slot, reason));
            ended.len()
        })
    }

    /// The session was active elsewhere at `active_at`, which moves its idle end, never back. Its absolute end stays.
    pub fn extend_idle(&self, session: SessionId, active_at: Timestamp) {
        self.books().extend_idle(&self.hall, session, active_at);
    }

    /// Sets the idle timeout of all sessions. The next tick enforces it.
    pub fn set_idle(&self, idle: Duration) {
        self.hall.set_idle(idle);
    }

    /// The tick pass, once per tick of the simulation: writes out the activity that is due, ends the seats whose idle or absolute
    /// end has come and the suspended ones whose grace is over, reports what happened since the last tick, and frees the slots of
    /// seats whose end that reports. Allocates nothing once the report's memory has grown to what ticks need.
    ///
    /// Activity: the marked seats of each phase since the last tick are written out, none twice within the window. A tick that
    /// was skipped loses nothing. An activity counts from the tick that writes it out: at most a window after it happened where ticks are
    /// not skipped, so that a session is idle by its timeout at the earliest, and a window and a second later at the latest.
    ///
    /// Ends by time: idle and absolute ends come within a second of being due, and never before; where no tick came in the last 200 ms
    /// of that second, on the first one after. Each tick looks at a part of the table for them. A seat that was touched since its last
    /// write-out is not idle. A grace ends with the first tick at its end or after.
    pub fn tick(&self, tick: Tick, now: Timestamp, report: &mut TickReport) {
        lock(&self.pass).run(&self.hall, &self.books, tick, now, report);
        self.hall.closings.ring();
    }

    /// Moves the worker's closings to the end of `into`: the connections which that worker has to close because their seat was
    /// ended by another than themselves, or was taken over. Each is listed once.
    pub fn take_closings(&self, worker: u16, into: &mut Vec<Closing>) {
        self.hall.closings.take(worker, into);
    }

    /// Sets what is called when there are new closings for `worker`.
    pub fn set_waker(&self, worker: u16, waker: Waker) {
        self.hall.closings.set_waker(worker, waker);
    }

    /// Tells each seat, suspended ones too: each that is there from beginning to end, and of those that come or go meanwhile some. (A
    /// session that loses its seat and gets another meanwhile may be told twice.) No lock is held while `visit` is called.
    pub fn live_seats(&self, mut visit: impl FnMut(LiveSeatInfo)) {
        let mut seats = Vec::new();
        let mut first = 0;
        while first < self.hall.slots_dealt() {
            let slots = first..self.hall.slots_dealt().min(first.saturating_add(PORTION));
            first = slots.end;
            self.books().list(&self.hall, slots, &mut seats);
            seats.drain(..).for_each(&mut visit);
        }
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
        self.books().used(&self.hall)
    }

    /// How many seats there may be at once, live and suspended.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many slots there are: more than the capacity, since a seat's slot stays its own until the simulation was told of its
    /// end. [`Handle::slot`] is smaller than this.
    pub fn slots(&self) -> u32 {
        self.hall.layout.slots()
    }

    /// Leaves a slot, which nobody sits in, one generation.
    #[cfg(test)]
    pub(super) fn wear_out(&self, slot: u32) {
        self.hall.floor.wear_out(slot);
    }

    /// The phase of the activity window on which a slot is written out; none before it was ever used.
    #[cfg(test)]
    pub(super) fn phase(&self, slot: u32) -> Option<u32> {
        self.hall.deals.phase(self.hall.layout.block_of(slot))
    }

    /// In bytes: what verify, touch and the pass read, for all slots, used or not.
    pub fn floor_bytes(&self) -> usize {
        self.hall.floor.bytes()
    }

    /// In bytes: the look-up by session alone, for all seats that there may be.
    pub fn index_bytes(&self) -> usize {
        self.books().by_session.bytes()
    }

    /// Changes the books, then, with the lock released, wakes the workers that have something to close.
    fn change<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        let outcome = change(&mut self.books());
        self.hall.closings.ring();
        outcome
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }
}

impl fmt::Debug for SeatTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeatTable")
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
