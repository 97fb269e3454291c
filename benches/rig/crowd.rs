//! A seat table with a crowd in it, in the steady state of a game that runs for a while, and what is asked of it.

use std::{
    collections::VecDeque,
    hint::black_box,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tickgate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
    seat::{
        Answers, Connection, DEFAULT_WINDOW, Grant, Handle, NotSeated, SeatConfig, SeatTable,
        TickReport,
    },
};

use super::Subject;

const START: Timestamp = Timestamp(1_700_000_000_000);
/// Longer than any measurement, at any speed: nobody's session ends by time.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3_600);
const HZ: u64 = 60;
/// Beyond so many seats, to touch all in random order takes longer than a tick.
const MANY: usize = 500_000;

/// In which order the crowd is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As the seats stand in the table.
    Slots,
    /// As they come to stand in a game's own structures after a while.
    Random,
}

/// What is asked about the whole crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// `verify` of every handle, one by one.
    Verify,
    /// `verify_batch` of all handles: an answer for each, in the batch's order.
    Batch,
    /// The tick pass alone. It ends and writes what is due and answers nobody.
    Pass,
    /// A whole tick: the pass, then an answer for every handle by `verify_batch`.
    TickAnswers,
    /// A whole tick of a game that keeps its players by slot: the pass, then the slot of each who may stay, one by one, by
    /// [`tickgate::seat::LiveSlots`].
    TickSlots,
    /// The same, and a byte of the game's own about each of its players is read.
    TickPlayers,
    /// Tick and answers by batch, with everybody's touch measured too. In a gateway the workers touch, when a packet comes; here one thread does all.
    TouchTickAnswers,
}

impl What {
    pub(crate) const ALL: [Self; 7] = [
        Self::Verify,
        Self::Batch,
        Self::Pass,
        Self::TickAnswers,
        Self::TickSlots,
        Self::TickPlayers,
        Self::TouchTickAnswers,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Batch => "verify_batch",
            Self::Pass => "pass alone",
            Self::TickAnswers => "tick-answers",
            Self::TickSlots => "tick-answers by slot",
            Self::TickPlayers => "tick-answers by slot, with players",
            Self::TouchTickAnswers => "touch+tick-answers",
        }
    }
}

/// The crowd, seated, and some guests between them, whom a writer may replace.
pub(crate) struct Crowd {
    pub(crate) table: SeatTable,
    /// In the order in which they are asked; without the guests.
    pub(crate) handles: Vec<Handle>,
    /// Of the same seats, in the same order.
    pub(crate) asked: Vec<SessionId>,
    /// A million of them in slot order, in which to touch all takes less than a tick. Of fewer none: a second list, which no game has,
    /// would put the first out of the core's own cache.
    in_slot_order: Vec<Handle>,
    /// By slot: whether one of them sits there, as a game knows it that keeps its players so.
    players: Vec<u8>,
    guests_at_most: usize,
    tick: AtomicU64,
    guests: Mutex<Guests>,
}

/// Those who come and go. They sit between the others, so that a writer's slots share cache lines with slots that are read.
pub(crate) struct Guests {
    seated: VecDeque<SessionId>,
    rng: ChaCha8Rng,
    next: u64,
}

/// So many sessions: ULIDs of random bits, the same for the same number.
pub(crate) fn sessions(size: u32) -> Vec<SessionId> {
    let mut rng = ChaCha8Rng::seed_from_u64(size.into());
    (0..size).map(|_| SessionId(rng.random())).collect()
}

/// Sessions in the order in which random order asks about them.
pub(crate) fn shuffled(sessions: &[SessionId]) -> Vec<SessionId> {
    let mut asked = sessions.to_vec();
    asked.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    asked
}

fn grant(session: SessionId, number: u64) -> Grant {
    Grant {
        session,
        player: PlayerId(session.0),
        player_generation: PlayerGeneration(0),
        client: ClientId(number),
        ends_at: START.after(LIFE),
        connection: Connection {
            worker: 0,
            id: number,
        },
    }
}

/// An empty table for so many seats.
pub(crate) fn empty(capacity: u32) -> SeatTable {
    SeatTable::new(SeatConfig {
        capacity,
        window: DEFAULT_WINDOW,
        idle: LIFE,
        ..SeatConfig::default()
    })
}

/// Seats `sessions` as players come: some between two ticks, not all at once. Then two windows go by in which everybody is active.
pub(crate) fn seat(table: &SeatTable, sessions: &[SessionId]) -> u64 {
    const BETWEEN_TICKS: usize = 64;
    let mut report = TickReport::default();
    for (portion, first) in sessions
        .chunks(BETWEEN_TICKS)
        .zip((0..).step_by(BETWEEN_TICKS))
    {
        for (session, number) in portion.iter().zip(first..) {
            let seated = table.install(grant(*session, number), START);
            assert!(seated.is_ok(), "{seated:?}");
        }
        // The same tick again: joins are told, and no time goes by.
        table.tick(Tick(0), START, &mut report);
    }
    let mut handles: Vec<_> = sessions.iter().filter_map(|s| table.find(*s)).collect();
    handles.sort_unstable();
    let ticks = 2 * u64::from(DEFAULT_WINDOW);
    for tick in 1..=ticks {
        handles.iter().for_each(|handle| table.touch(*handle));
        table.tick(Tick(tick), at(tick), &mut report);
    }
    ticks
}

fn at(tick: u64) -> Timestamp {
    START.after(Duration::from_millis(tick * 1_000 / HZ))
}

impl Crowd {
    /// A crowd of `sessions`, and a guest for every sixteen of them, 64 at least and 1,024 at most.
    pub(crate) fn new(sessions: &[SessionId], order: Order) -> Self {
        let guests = (sessions.len() / 16).clamp(64, 1_024);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut guests: VecDeque<_> = (0..guests).map(|_| SessionId(rng.random())).collect();
        let every = sessions.len().div_ceil(guests.len());
        let everybody: Vec<_> = sessions
            .chunks(every)
            .zip(&guests)
            .flat_map(|(portion, guest)| portion.iter().chain([guest]))
            .copied()
            .collect();
        // The last chunks may be missing.
        guests.truncate(everybody.len() - sessions.len());

        let table = empty(everybody.len() as u32);
        let ticks = seat(&table, &everybody);
        let mut asked = shuffled(sessions);
        if order == Order::Slots {
            asked.sort_by_key(|session| table.find(*session).map(Handle::slot));
        }
        let handles: Vec<_> = asked.iter().filter_map(|s| table.find(*s)).collect();
        assert_eq!(handles.len(), sessions.len(), "everybody is seated");
        let mut in_slot_order = Vec::new();
        if handles.len() >= MANY {
            in_slot_order.clone_from(&handles);
            in_slot_order.sort_unstable();
        }
        let mut players = vec![0; table.slots() as usize];
        for handle in &handles {
            if let Some(player) = players.get_mut(handle.slot() as usize) {
                *player = 1;
            }
        }
        Self {
            players,
            table,
            handles,
            asked,
            in_slot_order,
            tick: AtomicU64::new(ticks),
            guests_at_most: guests.len(),
            guests: Mutex::new(Guests {
                next: everybody.len() as u64,
                seated: guests,
                rng,
            }),
        }
    }

    /// Asks `what` about everybody, as often as the subject is run.
    pub(crate) fn ask(&self, what: What) -> Asker<'_> {
        Asker {
            crowd: self,
            what,
            answers: Answers::default(),
            report: TickReport::default(),
        }
    }

    /// The next tick of the table, whatever the clock on the wall says.
    fn next_tick(&self, report: &mut TickReport) {
        let tick = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        self.table.tick(Tick(tick), at(tick), report);
    }

    pub(crate) fn touch_all(&self) {
        let touched = if self.in_slot_order.is_empty() {
            &self.handles
        } else {
            &self.in_slot_order
        };
        for handle in touched {
            self.table.touch(*handle);
        }
    }

    pub(crate) fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        at(self.tick.load(Ordering::Relaxed))
    }
}

impl Guests {
    /// The guest who came first is revoked, and another comes. False if there was no seat for that one.
    pub(crate) fn replace_one(&mut self, crowd: &Crowd) -> bool {
        if let Some(leaving) = self.seated.pop_front() {
            let ended = crowd
                .table
                .end_session(leaving, tickgate::seat::EndReason::SessionRevoked);
            assert!(ended, "a guest had no seat");
        }
        let coming = SessionId(self.rng.random());
        self.next += 1;
        match crowd.table.install(grant(coming, self.next), crowd.now()) {
            Ok(_) => {
                self.seated.push_back(coming);
                true
            }
            Err(NotSeated::Full | NotSeated::PlayerPresent) => false,
        }
    }
}

/// Asks about the whole crowd.
pub(crate) struct Asker<'a> {
    crowd: &'a Crowd,
    what: What,
    answers: Answers,
    report: TickReport,
}

impl Asker<'_> {
    fn verify_each(&self) {
        let mut live = 0_usize;
        for handle in &self.crowd.handles {
            live += usize::from(self.crowd.table.verify(black_box(*handle)).is_live());
        }
        assert_eq!(black_box(live), self.crowd.handles.len());
    }

    fn verify_batch(&mut self) {
        let Self { crowd, answers, .. } = self;
        crowd.table.verify_batch(black_box(&crowd.handles), answers);
        assert!(black_box(answers).all_live());
    }

    /// Each slot by itself, as a game takes it to find its player there: combined in a way that no formula for a whole run gives.
    fn live_slots(&self) {
        let (mut live, mut slots) = (0_usize, 0_u32);
        for run in self.crowd.table.live(&self.report).runs() {
            live += run.len();
            slots = run.fold(slots, |slots, slot| slots ^ slot);
        }
        black_box(slots);
        // Guests may be coming and going.
        let everybody = self.crowd.handles.len();
        assert!((everybody..=everybody + self.crowd.guests_at_most).contains(&live));
    }

    /// The game's own player in each slot, too; guests are not the game's.
    fn live_players(&self) {
        let players = &*self.crowd.players;
        let mut live = 0_usize;
        for run in self.crowd.table.live(&self.report).runs() {
            let run = run.start as usize..run.end as usize;
            let players = players.get(run).unwrap_or_default();
            live += players
                .iter()
                .map(|player| usize::from(*player))
                .sum::<usize>();
        }
        assert_eq!(black_box(live), self.crowd.handles.len());
    }

    fn tick(&mut self) {
        self.crowd.next_tick(&mut self.report);
        black_box(&self.report);
    }
}

impl Subject for Asker<'_> {
    /// Everybody is active between two ticks, so that the activity writes that are due are in the tick. Where the tick is no part of
    /// the question, it goes by here: it frees the slots of those whom a writer has revoked.
    fn prepare(&mut self) {
        match self.what {
            What::Pass | What::TickAnswers | What::TickSlots | What::TickPlayers => {
                self.crowd.touch_all();
            }
            What::Verify | What::Batch => self.crowd.next_tick(&mut self.report),
            What::TouchTickAnswers => {}
        }
    }

    fn is_prepared(&self) -> bool {
        matches!(
            self.what,
            What::Pass | What::TickAnswers | What::TickSlots | What::TickPlayers
        )
    }

    fn pass(&mut self) {
        match self.what {
            What::Verify => self.verify_each(),
            What::Batch => self.verify_batch(),
            What::Pass => self.tick(),
            What::TickAnswers => {
                self.tick();
                self.verify_batch();
            }
            What::TickSlots => {
                self.tick();
                self.live_slots();
            }
            What::TickPlayers => {
                self.tick();
                self.live_players();
            }
            What::TouchTickAnswers => {
                self.crowd.touch_all();
                self.tick();
                self.verify_batch();
            }
        }
    }
}
