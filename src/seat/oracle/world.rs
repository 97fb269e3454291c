//! Random histories: what happens to a table, in moods that last a while.

use std::time::Duration;

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    book::{Book, WORKERS},
    tally::Tally,
};
use crate::{
    id::{ClientId, PlayerGeneration, PlayerId, SessionId},
    seat::{
        ActivitySource, Connection, EndReason, Grant, Handle, SamePlayer, SeatConfig,
        behaviour::START, word::LAST_GENERATION,
    },
};

/// What goes on for a while.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// Everybody comes.
    Rush,
    /// Most stay, and play.
    Play,
    /// Connections are lost, and come back.
    Flap,
    /// Sessions and players are revoked, and thrown out.
    Purge,
    /// Nobody does anything, and time passes.
    Lull,
    /// The simulation skips ticks, stands still, and goes on.
    Stall,
}

const MOODS: [Mood; 6] = [
    Mood::Rush,
    Mood::Play,
    Mood::Flap,
    Mood::Purge,
    Mood::Lull,
    Mood::Stall,
];

#[derive(Debug, Clone, Copy)]
enum Step {
    Install,
    /// A session that is seated, or was just now.
    InstallAgain,
    Touch,
    TouchMany,
    Suspend,
    SuspendMany,
    End,
    EndConnection,
    EndSession,
    EndPlayer,
    EndAll,
    Extend,
    SetIdle,
    TakeClosings,
    Ask,
    Batch,
    Tick,
    Skip,
    Jump,
}

impl Mood {
    /// How often each step comes, beside each other.
    #[rustfmt::skip]
    fn weights(self) -> &'static [(u32, Step)] {
        use Step::*;
        match self {
            Self::Rush => &[
                (700, Install), (60, InstallAgain), (60, Touch), (20, Suspend), (20, EndConnection), (10, EndSession),
                (40, Ask), (10, Batch), (40, Tick),
            ],
            Self::Play => &[
                (40, Install), (20, InstallAgain), (400, Touch), (15, TouchMany), (10, Suspend), (10, EndConnection), (5, End),
                (20, Extend), (3, SetIdle), (10, TakeClosings), (100, Ask), (20, Batch), (150, Tick), (5, Skip),
            ],
            Self::Flap => &[
                (50, Install), (250, InstallAgain), (100, Touch), (300, Suspend), (5, SuspendMany), (30, EndConnection), (10, EndSession),
                (5, End), (5, TakeClosings), (50, Ask), (20, Batch), (80, Tick), (5, Skip),
            ],
            Self::Purge => &[
                (150, Install), (50, InstallAgain), (100, Touch), (20, Suspend), (50, End), (50, EndConnection), (100, EndSession),
                (100, EndPlayer), (1, EndAll), (10, TakeClosings), (100, Ask), (20, Batch), (60, Tick),
            ],
            Self::Lull => &[
                (5, Install), (5, Touch), (2, TouchMany), (2, Suspend), (2, Extend), (1, SetIdle), (2, TakeClosings), (20, Ask), (2, Batch), (200, Tick),
            ],
            Self::Stall => &[
                (50, Install), (20, InstallAgain), (200, Touch), (10, TouchMany), (20, Suspend), (10, EndSession), (10, EndConnection),
                (5, Extend), (30, Ask), (10, Batch), (30, Tick), (30, Skip), (4, Jump),
            ],
        }
    }

    fn step(self, rng: &mut ChaCha8Rng) -> Step {
        let weights = self.weights();
        let step = weights.choose_weighted(rng, |(weight, _)| *weight).unwrap();
        step.1
    }
}

pub(super) struct World {
    rng: ChaCha8Rng,
    book: Book,
    mood: Mood,
    /// Steps until it changes.
    lasts: u32,
    /// The sessions that there are to come; as many again of one player each.
    sessions: u64,
    per_player: u64,
    /// Number of the next connection.
    serial: u64,
    steps: u32,
    /// The time of a tick.
    tick: Duration,
}

impl World {
    /// A table of the seed's size and rules. The rules go round by the seed's number, so that few seeds have them all.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let policies = [
            SamePlayer::NewestWins,
            SamePlayer::OldestWins,
            SamePlayer::Allow,
        ];
        let capacity = [1_500, 40, 300][(seed / 3 % 3) as usize];
        let window = *[1, 7, 20, 60, 128].choose(&mut rng).unwrap();
        let config = SeatConfig {
            capacity,
            window,
            idle: Duration::from_millis(*[1_000, 2_000, 2_750, 6_000].choose(&mut rng).unwrap()),
            activity: if rng.random_bool(0.2) {
                ActivitySource::Verify
            } else {
                ActivitySource::Input
            },
            grace: Duration::from_millis(*[0, 300, 1_234, 4_000, 15_000].choose(&mut rng).unwrap()),
            same_player: policies[(seed % 3) as usize],
        };
        Self {
            book: Book::new(config),
            mood: Mood::Rush,
            lasts: capacity,
            sessions: u64::from(capacity) * 2,
            per_player: rng.random_range(1..4),
            serial: 0,
            steps: 0,
            tick: Duration::from_millis(1_000 / u64::from(window)),
            rng,
        }
    }

    pub(super) fn step(&mut self) {
        if self.lasts == 0 {
            self.mood = *MOODS.choose(&mut self.rng).unwrap();
            self.lasts = self.rng.random_range(50..1_500);
        }
        self.lasts -= 1;
        self.steps += 1;
        // Time goes on between ticks, too.
        if self.rng.random_bool(0.05) {
            let passed = Duration::from_millis(self.rng.random_range(0..4));
            self.book.now = self.book.now.after(passed);
        }
        let step = self.mood.step(&mut self.rng);
        self.take(step);
        for handle in self.stale(4) {
            self.book.verify(handle);
        }
        if self.steps.is_multiple_of(50) {
            self.book.compare();
        }
        if self.steps.is_multiple_of(2_500) {
            self.book.compare_all();
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Install => {
                let session = self.session();
                self.install(session);
            }
            Step::InstallAgain => {
                let handle = self.seat();
                let session = self.book.seat(handle).map(|seat| seat.grant.session);
                let session = session.unwrap_or_else(|| self.session());
                self.install(session);
            }
            Step::Touch => {
                let handle = self.seat();
                self.book.touch(handle);
            }
            Step::TouchMany => self
                .some_seats()
                .into_iter()
                .for_each(|handle| self.book.touch(handle)),
            Step::Suspend => {
                let (handle, stale) = (self.seat(), self.rng.random_bool(0.2));
                self.book.suspend(handle, stale);
            }
            Step::SuspendMany => {
                let handles = self.some_seats();
                handles
                    .into_iter()
                    .for_each(|handle| self.book.suspend(handle, false));
            }
            Step::End => {
                let (handle, reason) = (self.seat(), EndReason::Kicked(self.rng.random()));
                self.book.end(handle, reason);
            }
            Step::EndConnection => {
                let (handle, stale) = (self.seat(), self.rng.random_bool(0.2));
                self.book.end_connection(handle, stale);
            }
            Step::EndSession => {
                let session = self.session();
                self.book.end_session(session);
            }
            Step::EndPlayer => {
                let number = self.session_number();
                let player = self.player_of(number);
                let generation = PlayerGeneration(self.rng.random_range(0..4));
                self.book.end_player(player, generation);
            }
            Step::EndAll => self.book.end_all(),
            Step::Extend => {
                let active_at = self
                    .book
                    .now
                    .before(Duration::from_millis(self.rng.random_range(0..3_000)));
                let session = self.session();
                self.book.extend_idle(session, active_at);
            }
            Step::SetIdle => {
                let idle = Duration::from_millis(self.rng.random_range(900..8_000));
                self.book.set_idle(idle);
            }
            Step::TakeClosings => {
                let worker = self.rng.random_range(0..WORKERS);
                self.book.take_closings(worker);
            }
            Step::Ask => {
                let (session, handle) = (self.session(), self.seat());
                self.book.ask_session(session);
                self.book.ask_reason(handle);
                self.book.verify(handle);
            }
            Step::Batch => {
                let handles = self.batch();
                self.book.verify_batch(&handles);
            }
            Step::Tick => {
                // Real ticks come a little early or late, and sometimes the same one is asked for again.
                let again = self.rng.random_bool(0.01);
                let jitter = self.rng.random_range(0.8..1.2);
                let (skip, passed) = if again {
                    (0, Duration::ZERO)
                } else {
                    (1, self.tick.mul_f64(jitter))
                };
                self.book.pass(skip, passed);
                self.book.tally.ticks += 1;
                self.book.tally.ticks_repeated += u64::from(again);
            }
            Step::Skip => self.skip(),
            Step::Jump => self.jump(),
        }
    }

    fn skip(&mut self) {
        let window = u64::from(self.book.config.window);
        let long = self.rng.random_bool(0.1);
        let skip = if long {
            self.rng.random_range(window..4 * window + 2)
        } else {
            self.rng.random_range(2..9)
        };
        let passed = self.tick * u32::try_from(skip).unwrap();
        self.book.pass(skip, passed);
        self.book.tally.ticks_skipped += 1;
        self.book.tally.windows_skipped += u64::from(skip >= window);
    }

    /// Much time passes, and few ticks are counted.
    fn jump(&mut self) {
        let skip = self.rng.random_range(1..3);
        let secs = *[2, 5, 20, 90_000].choose(&mut self.rng).unwrap();
        self.book.pass(skip, Duration::from_secs(secs));
        self.book.tally.time_jumped += 1;
    }

    fn session_number(&mut self) -> u64 {
        self.rng.random_range(0..self.sessions)
    }

    fn session(&mut self) -> SessionId {
        let number = self.session_number();
        // ULIDs of one millisecond that count up.
        SessionId((u128::from(START.0) << 80) + 0x1234_5678_0000 + u128::from(number))
    }

    fn player_of(&self, number: u64) -> PlayerId {
        PlayerId((number / self.per_player).into())
    }

    fn install(&mut self, session: SessionId) {
        let number = (session.0 as u64 & 0xffff_ffff_ffff) - 0x1234_5678_0000;
        self.serial += 1;
        // Some end soon, most not before a day is over.
        let life = if self.rng.random_bool(0.2) {
            self.rng.random_range(0..10_000)
        } else {
            86_400_000
        };
        self.book.install(Grant {
            session,
            player: self.player_of(number),
            player_generation: PlayerGeneration(self.rng.random_range(0..3)),
            client: ClientId(self.serial),
            ends_at: self.book.now.after(Duration::from_millis(life)),
            connection: Connection {
                worker: self.rng.random_range(0..WORKERS),
                id: self.serial,
            },
        });
    }

    /// The latest seat of some slot; mostly it has not ended.
    fn seat(&mut self) -> Handle {
        let slots = self
            .book
            .seats
            .last_key_value()
            .map_or(0, |(slot, _)| *slot);
        let from = self.rng.random_range(0..=slots);
        let mut seats = self.book.seats.range(from..).map(|(_, seat)| seat);
        let first = self
            .book
            .seats
            .range(from..)
            .map(|(_, seat)| seat.handle)
            .next();
        let seated = seats.by_ref().take(8).find(|seat| seat.is_seated());
        let nobody = Handle::new(0, 1);
        seated.map(|seat| seat.handle).or(first).unwrap_or(nobody)
    }

    /// A part of those who are seated.
    fn some_seats(&mut self) -> Vec<Handle> {
        let part = self.rng.random_range(0.05..1.0);
        let seated = self.book.seats.values().filter(|seat| seat.is_seated());
        seated
            .filter(|_| self.rng.random_bool(part))
            .map(|seat| seat.handle)
            .collect()
    }

    /// Handles of seats that ended, of late and long ago.
    fn stale(&mut self, count: usize) -> Vec<Handle> {
        let past = &self.book.past;
        if past.is_empty() {
            return Vec::new();
        }
        self.book.tally.stale_handles += count as u64;
        let recent = past.len().saturating_sub(64);
        (0..count)
            .map(|n| {
                if n % 2 == 0 {
                    self.rng.random_range(0..past.len())
                } else {
                    self.rng.random_range(recent..past.len())
                }
            })
            .map(|index| past[index])
            .collect()
    }

    /// Seats, handles from before, handles that nobody was given; or seats alone.
    fn batch(&mut self) -> Vec<Handle> {
        if self.rng.random_bool(0.3) {
            let mut seats = self.some_seats();
            seats.retain(|handle| {
                self.book
                    .seat(*handle)
                    .is_some_and(|seat| !seat.is_suspended())
            });
            return seats;
        }
        let count = self.rng.random_range(0..200);
        (0..count)
            .filter_map(|_| match self.rng.random_range(0..10_u32) {
                0 => self.stale(1).pop(),
                1 => Some(self.forged()),
                _ => Some(self.seat()),
            })
            .collect()
    }

    /// Of a generation that a slot had, has or will have, or of no slot at all.
    fn forged(&mut self) -> Handle {
        let slot = self.rng.random_range(0..self.book.table.slots() + 100);
        let current = self
            .book
            .seats
            .get(&slot)
            .map_or(0, |seat| seat.handle.generation());
        let generation = match self.rng.random_range(0..3_u32) {
            0 => self.rng.random_range(1..LAST_GENERATION),
            1 => current + 1,
            _ => self.rng.random_range(0..=current),
        };
        Handle::new(slot, generation.max(1))
    }

    /// Lets everybody go, and sees that nothing is left.
    pub(super) fn finish(mut self) -> Tally {
        self.book.compare_all();
        for _ in 0..=2 * self.book.config.window {
            self.book.pass(1, self.tick);
        }
        self.book.end_all();
        self.book.pass(1, self.tick);
        (0..WORKERS).for_each(|worker| self.book.take_closings(worker));
        self.book.compare_all();
        assert_eq!((self.book.table.len(), self.book.table.used()), (0, 0));
        self.book.tally
    }
}
