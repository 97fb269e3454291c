//! Tables of one or two seats, and what the interleavings of a few steps on them must come to.

use std::{sync::Arc, time::Duration};

use loom::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};
use tickgate_interleavings::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
    seat::{
        Connection, EndReason, Fault, Grant, Handle, Installed, NotSeated, SeatChange, SeatConfig,
        SeatTable, TickReport, fault,
    },
};

pub const START: Timestamp = Timestamp(1_700_000_000_000);
pub const IDLE: Duration = Duration::from_secs(2);
pub const GRACE: Duration = Duration::from_secs(3);

/// Both halves differ from session to session, so that halves of two make none of either.
pub const A: SessionId = SessionId(0xa << 64 | 0xa);
pub const B: SessionId = SessionId(0xb << 64 | 0xb);

/// How often a thread may be stopped in the middle of what it does, in one run: each more takes six times as long. Bugs of this kind
/// show with two (Musuvathi and Qadeer, PLDI 2007). `LOOM_MAX_PREEMPTIONS` sets another number.
const PREEMPTIONS: usize = 3;

/// Runs a check through its interleavings, with a bug planted or without one.
pub fn explore(planted: Option<Fault>, check: impl Fn() + Send + Sync + 'static) {
    let mut loom = loom::model::Builder::new();
    loom.preemption_bound = loom.preemption_bound.or(Some(PREEMPTIONS));
    let _planted = fault::plant(planted);
    loom.check(check);
}

/// Prepares something as if no bug were planted.
pub fn soundly<T>(prepare: impl FnOnce() -> T) -> T {
    let _none = fault::plant(None);
    prepare()
}

pub fn grant(session: SessionId, connection: u64) -> Grant {
    Grant {
        session,
        player: PlayerId(session.0),
        player_generation: PlayerGeneration(0),
        client: ClientId(connection),
        ends_at: START.after(Duration::from_secs(60)),
        connection: Connection {
            worker: 0,
            id: connection,
        },
    }
}

/// A table, and a simulation that keeps what it was told.
pub struct Arena {
    pub table: Arc<SeatTable>,
    tick: u64,
    pub now: Timestamp,
    report: TickReport,
    /// Every change that was told.
    pub changes: Vec<SeatChange>,
    /// Whose activity the last tick told.
    pub active: Vec<SessionId>,
}

impl Arena {
    /// So many seats, and about as many slots more. The window is one tick: each tick looks at every seat's activity.
    pub fn new(capacity: u32) -> Self {
        Self::with_window(capacity, 1)
    }

    fn with_window(capacity: u32, window: u32) -> Self {
        let table = SeatTable::new(SeatConfig {
            capacity,
            window,
            idle: IDLE,
            grace: GRACE,
            ..SeatConfig::default()
        });
        // Workers and what they have to close are found through a structure that loom does not see. It is made here, before threads meet.
        table.set_waker(0, Arc::new(|| ()));
        Self {
            table: Arc::new(table),
            tick: 0,
            now: START,
            report: TickReport::default(),
            changes: Vec::new(),
            active: Vec::new(),
        }
    }

    /// One seat, of [`A`], whose join was told and whose activity was written out.
    pub fn seated() -> (Self, Handle) {
        let mut arena = Self::new(1);
        let handle = arena.install(grant(A, 1));
        arena.tick();
        assert_eq!(arena.active, [A], "to be seated is activity");
        arena.tick();
        assert_eq!(arena.active, []);
        (arena, handle)
    }

    /// One seat, of [`A`], in a window of two ticks, of which the next is not the seat's.
    pub fn seated_out_of_turn() -> (Self, Handle) {
        let mut arena = Self::with_window(1, 2);
        let handle = arena.install(grant(A, 1));
        while arena.active.is_empty() {
            arena.tick();
        }
        (arena, handle)
    }

    pub fn install(&self, grant: Grant) -> Handle {
        self.table.install(grant, self.now).unwrap().handle()
    }

    /// A tick, which comes at once after the last: no time passes but by hand.
    pub fn tick(&mut self) {
        self.tick += 1;
        self.table.tick(Tick(self.tick), self.now, &mut self.report);
        self.changes.extend_from_slice(&self.report.changes);
        self.active.clone_from(&self.report.active);
    }

    /// The ends of a seat that were told.
    pub fn ends_of(&self, seat: Handle) -> Vec<EndReason> {
        self.changes
            .iter()
            .filter_map(|change| match change {
                SeatChange::Ended { handle, reason, .. } if *handle == seat => Some(*reason),
                _ => None,
            })
            .collect()
    }

    /// Does something on another thread.
    pub fn spawn<T: 'static>(
        &self,
        act: impl FnOnce(&SeatTable) -> T + 'static,
    ) -> thread::JoinHandle<T> {
        let table = Arc::clone(&self.table);
        thread::spawn(move || act(&table))
    }
}

/// Says on one thread that something is done, to others.
#[derive(Clone, Default)]
pub struct Done(Arc<AtomicBool>);

impl Done {
    pub fn say(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_said(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Seats a session if there is room.
pub fn try_install(table: &SeatTable, grant: Grant) -> Option<Handle> {
    match table.install(grant, START) {
        Ok(Installed::Fresh(handle)) => Some(handle),
        Err(NotSeated::Full) => None,
        unexpected => panic!("{unexpected:?}"),
    }
}
