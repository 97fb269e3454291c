//! The seat table: what admission, the workers, the simulation and the control channel call.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;

use super::{
    Connection, EndReason, Handle, TickReport, Verdict,
    books::{Books, Floor},
    closings::{Closing, Closings, Waker},
    slot::Slot,
};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
};

/// The window of activity writes, in ticks: one second at 60 Hz.
pub const DEFAULT_WINDOW: u32 = 60;

/// How a [`SeatTable`] is laid out and what it enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatConfig {
    /// How many slots there are. Each takes 8 bytes from the start, and about 300 once it is used.
    pub capacity: u32,
    /// In ticks: activity of a session is written at most once in so many. [`DEFAULT_WINDOW`] unless the tick rate is another;
    /// 0 is taken for 1.
    pub window: u32,
    /// A session that was active nowhere for so long ends.
    pub idle: Duration,
    /// What counts as activity.
    pub activity: ActivitySource,
    /// How long a session whose connection was lost may come back to its seat. Zero: not at all.
    pub grace: Duration,
    /// What becomes of a player who comes with another session while one is seated.
    pub same_player: SamePlayer,
}

impl Default for SeatConfig {
    /// 4,096 seats, activity written once a second at 60 Hz, sessions idle after an hour.
    fn default() -> Self {
        Self {
            capacity: 4_096,
            window: DEFAULT_WINDOW,
            idle: Duration::from_secs(3_600),
            activity: ActivitySource::Input,
            grace: Duration::from_secs(15),
            same_player: SamePlayer::NewestWins,
        }
    }
}

/// What becomes of a player who comes with another session while one is seated at the same gateway. Decided in the order in which
/// they are seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SamePlayer {
    /// The new session is seated, and the other one's seat ends as superseded.
    #[default]
    NewestWins,
    /// The new session is refused.
    OldestWins,
    /// Both are seated.
    Allow,
}

/// What counts as activity of a session. To be seated counts as well, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ActivitySource {
    /// What the client sends: [`SeatTable::touch`] alone.
    #[default]
    Input,
    /// To be checked by the simulation as well: [`SeatTable::verify`] touches the seat, as in engines that keep connected players
    /// alive.
    Verify,
}

/// An admission that passed every check: who is to be seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The session.
    pub session: SessionId,
    /// Whose session that is.
    pub player: PlayerId,
    /// The player generation of the token.
    pub player_generation: PlayerGeneration,
    /// The client's id, for a new seat; a seat that is taken over keeps its own.
    pub client: ClientId,
    /// The session's absolute end, for a new seat; a seat that is taken over keeps its own.
    pub ends_at: Timestamp,
    /// The connection that is going to serve the seat.
    pub connection: Connection,
}

/// What [`SeatTable::install`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// The session had no live seat here and has one now.
    Fresh(Handle),
    /// The session had one, and keeps it: the new connection serves it from now on.
    Taken {
        /// The seat, as before.
        handle: Handle,
        /// Its client id, as before.
        client: ClientId,
        /// The connection that served it until now. It is listed among its worker's closings.
        displaced: Connection,
    },
}

impl Installed {
    /// The seat.
    pub const fn handle(&self) -> Handle {
        match self {
            Self::Fresh(handle) | Self::Taken { handle, .. } => *handle,
        }
    }
}

/// Why a session was not seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotSeated {
    /// No slot is free.
    #[error("no seat is free")]
    Full,
    /// The player is seated with another session, and [`SamePlayer::OldestWins`].
    #[error("the player is seated with another session")]
    PlayerPresent,
}

impl NotSeated {
    /// The fixed name, for metrics and logs: that of the close code which the client sees.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "server_full",
            Self::PlayerPresent => "player_present",
        }
    }
}

/// A live seat, as [`SeatTable::live_seats`] tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LiveSeatInfo {
    /// The session that holds it.
    pub session: SessionId,
    /// Whose session that is.
    pub player: PlayerId,
    /// The player generation of the token that took the seat, or of the latest that took it over.
    pub player_generation: PlayerGeneration,
}

/// Who is in. Shared between the workers, the simulation and the control channel; any thread may call anything.
///
/// [`verify`](SeatTable::verify) and [`touch`](SeatTable::touch) are atomics alone. Everything else takes one lock for a short
/// while: no call under it blocks, calls out (but [`live_seats`](SeatTable::live_seats)) or does more than a pass over the seats.
///
/// A seat that ends, by whatever call, is refused by the very next verify on any thread, is reported by the next tick, and only
/// then leaves its slot to another. No touch and no activity write can undo an end.
#[derive(Debug)]
pub struct SeatTable {
    floor: Floor,
    books: Mutex<Books>,
    activity: ActivitySource,
}

impl SeatTable {
    /// An empty table.
    pub fn new(config: SeatConfig) -> Self {
        let SeatConfig {
            capacity,
            window,
            idle,
            activity,
            grace: _,
            same_player: _,
        } = config;
        let mut slots = Vec::new();
        slots.resize_with(capacity as usize, Slot::default);
        Self {
            floor: Floor {
                slots: slots.into_boxed_slice(),
                closings: Closings::default(),
            },
            books: Mutex::new(Books::new(capacity, window, idle)),
            activity,
        }
    }

    /// May this seat stay? A bounds check and one atomic load; a handle whose seat has ended is refused, also after its slot was
    /// used again. With [`ActivitySource::Verify`] it touches the seat as well.
    pub fn verify(&self, handle: Handle) -> Verdict {
        match self.floor.slot(handle.slot) {
            Some(slot) if slot.is_live(handle.generation) => {
                if self.activity == ActivitySource::Verify {
                    slot.mark(handle.generation);
                }
                Verdict::Live
            }
            Some(_) | None => Verdict::Ended,
        }
    }

    /// Notes that the seat's session is active. One atomic load, and one exchange for the first touch after each write-out; does
    /// nothing to a seat that has ended.
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

    /// The session's live seat here.
    pub fn find(&self, session: SessionId) -> Option<Handle> {
        let books = self.books();
        books.find(session).and_then(|slot| books.handle(slot))
    }

    /// The connection that serves a live seat.
    pub fn connection(&self, handle: Handle) -> Option<Connection> {
        self.books().connection(handle)
    }

    /// Seats a session.
    ///
    /// A session that has a live seat keeps it, with handle and client id, and the new connection takes it over; the one that
    /// served it is listed among its worker's closings as [`EndReason::Superseded`], whichever worker that is. A seat that has
    /// ended is not there any more, reported or not. Of two threads that seat one session at once, one gets the seat and the
    /// other takes it over.
    ///
    /// # Errors
    /// [`NotSeated::Full`] if the session has no seat and every slot is used: by a live seat, or by one whose end the simulation was
    /// not told yet. Nothing has changed then.
    pub fn install(&self, grant: Grant, now: Timestamp) -> Result<Installed, NotSeated> {
        self.change(|books| {
            let taken = books
                .find(grant.session)
                .and_then(|slot| books.take_over(&self.floor, slot, &grant, now));
            Ok(match taken {
                Some((handle, client, displaced)) => Installed::Taken {
                    handle,
                    client,
                    displaced,
                },
                None => Installed::Fresh(books.seat(&self.floor, grant, now)?),
            })
        })
    }

    /// Ends a seat, and lists its connection for its worker to close. True exactly once per seat, over all calls that end it.
    pub fn end(&self, handle: Handle, reason: EndReason) -> bool {
        self.change(|books| {
            books.connection(handle).is_some()
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

    /// The connection that serves a seat was lost: the seat is suspended for the grace, or ends as [`EndReason::Lost`] if there is
    /// none. False if that connection does not serve the seat.
    pub fn suspend(&self, handle: Handle, connection: Connection, now: Timestamp) -> bool {
        let _ = now;
        self.end_connection(handle, connection, EndReason::Lost)
    }

    /// Ends the session's live seat, if it has one, and lists its connection for its worker to close.
    pub fn end_session(&self, session: SessionId, reason: EndReason) -> bool {
        self.change(|books| {
            books
                .find(session)
                .is_some_and(|slot| books.end_and_close(&self.floor, slot, reason))
        })
    }

    /// Ends the player's live seats whose token is of an older generation, and lists their connections for their workers to
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
    /// end has come (within one second), reports what happened since the last tick, and frees the slots of seats whose end that
    /// reports. Allocates nothing once the report's memory has grown to what ticks need.
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

    /// Tells each live seat. The lock is held meanwhile: `visit` must not call the table.
    pub fn live_seats(&self, mut visit: impl FnMut(LiveSeatInfo)) {
        self.books()
            .for_each_live(|session, player, player_generation| {
                visit(LiveSeatInfo {
                    session,
                    player,
                    player_generation,
                });
            });
    }

    /// How many seats are live.
    pub fn len(&self) -> usize {
        self.books().live()
    }

    /// Whether no seat is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots are used: by live seats, and by those whose end the simulation was not told yet. What capacity counts.
    pub fn used(&self) -> usize {
        self.books().used()
    }

    /// Whether this session could be seated now: a slot is free, or it has a live seat to take over.
    pub fn has_room_for(&self, session: SessionId) -> bool {
        let books = self.books();
        books.used() < self.floor.slots.len() || books.find(session).is_some()
    }

    /// How many slots there are.
    pub fn capacity(&self) -> u32 {
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
