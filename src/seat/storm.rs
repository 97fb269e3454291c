//! Passes, batches, touches and revocations at full speed, on a table of many blocks: what a revocation has finished, no batch finds live.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    ActivitySource, Answers, EndReason, Grant, Handle, Installed, NotSeated, SeatChange,
    SeatConfig, SeatTable, TickReport, Verdict,
    behaviour::{START, grant},
    model::follow,
};
use crate::{
    clock::Timestamp,
    id::{SessionId, Tick},
};

const SESSIONS: usize = 600;
const WINDOW: u32 = 20;
/// Revocations, and so seats that are given again.
const ROUNDS: usize = 30_000;
const NOBODY: Handle = Handle::new(u32::MAX, 1);
/// Longer than the test goes on by its own time, however long a thread has to wait for a core meanwhile.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// The latest handle of each session, and the latest that was revoked: what stands there, nobody may find live any more.
#[derive(Default)]
struct Board {
    latest: AtomicU64,
    revoked: AtomicU64,
}

fn pack(handle: Handle) -> u64 {
    u64::from(handle.slot()) << 32 | u64::from(handle.generation())
}

fn read(at: &AtomicU64) -> Handle {
    match at.load(Ordering::Acquire) {
        0 => NOBODY,
        packed => Handle::new((packed >> 32) as u32, packed as u32),
    }
}

/// Says that all is done, also when it is over because somebody panicked.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Storm {
    table: SeatTable,
    boards: Vec<Board>,
    done: AtomicBool,
}

impl Storm {
    fn install(&self, session: usize, connection: u64) -> Handle {
        for _ in 0..50_000_000 {
            let grant = Grant {
                ends_at: START.after(FOR_EVER),
                ..grant(session as u128, connection)
            };
            match self.table.install(grant, START) {
                Ok(Installed::Fresh(handle)) => return handle,
                Ok(taken @ Installed::Taken { .. }) => {
                    panic!("{taken:?}: its last seat was revoked")
                }
                // Until a tick has freed slots.
                Err(NotSeated::Full) => thread::yield_now(),
                Err(NotSeated::PlayerPresent) => panic!("every player has one session"),
            }
        }
        panic!("slots are not freed");
    }

    /// Seats everybody, revokes one after the other, and seats them again.
    fn revoke(&self) {
        let _finish = Finish(&self.done);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut seats: Vec<Handle> = (0..SESSIONS)
            .map(|session| self.install(session, 0))
            .collect();
        for round in 0..ROUNDS {
            let session = rng.random_range(0..SESSIONS);
            let board = &self.boards[session];
            let handle = seats[session];
            match round % 3 {
                0 => assert!(self.table.end(handle, EndReason::Kicked(1))),
                1 => {
                    let connection = self.table.connection(handle).unwrap();
                    assert!(self.table.suspend(handle, connection, START));
                    assert_eq!(self.table.verify(handle), Verdict::Suspended);
                    assert!(self.table.end(handle, EndReason::Lost));
                }
                _ => {
                    let revoked = EndReason::SessionRevoked;
                    assert!(self.table.end_session(SessionId(session as u128), revoked));
                }
            }
            board.revoked.store(pack(handle), Ordering::Release);
            assert_eq!(self.table.verify(handle), Verdict::Ended);
            seats[session] = self.install(session, round as u64 + 1);
            board.latest.store(pack(seats[session]), Ordering::Release);
        }
    }

    /// Plays in all seats, stale ones as well, and asks about them in batches. Returns how many answers said that a seat was live.
    fn play(&self) -> u64 {
        let mut answers = Answers::default();
        let mut batch = Vec::with_capacity(2 * SESSIONS);
        let mut live = 0;
        while !self.done.load(Ordering::Relaxed) {
            batch.clear();
            batch.extend(self.boards.iter().map(|board| read(&board.revoked)));
            batch.extend(self.boards.iter().map(|board| read(&board.latest)));
            self.table.verify_batch(&batch, &mut answers);
            let revived = (0..SESSIONS).find(|index| answers.is_live(*index));
            assert_eq!(revived.map(|index| batch[index]), None, "revoked, and live");
            live += answers.live() as u64;
            for handle in &batch {
                self.table.touch(*handle);
            }
            for handle in &batch[..SESSIONS] {
                assert_eq!(self.table.verify(*handle), Verdict::Ended);
            }
        }
        live
    }

    /// Ticks without a rest. Returns how many ends and how much activity was told.
    fn tick(&self) -> (usize, usize) {
        let (mut ends, mut written) = (0, 0);
        let mut report = TickReport::default();
        let mut told: HashMap<Handle, Verdict> = HashMap::new();
        let mut seated: HashMap<SessionId, Handle> = HashMap::new();
        let mut before_its_join: Vec<SessionId> = Vec::new();
        for tick in 0.. {
            let last = self.done.load(Ordering::SeqCst);
            let now = Timestamp(START.0 + tick);
            self.table.tick(Tick(tick), now, &mut report);
            let mut ended = Vec::new();
            for change in &report.changes {
                let handle = change.handle();
                told.insert(handle, follow(told.get(&handle).copied(), change));
                match change {
                    SeatChange::Joined(joined) => {
                        seated.insert(joined.session, handle);
                    }
                    SeatChange::Ended { session, .. } => {
                        ends += 1;
                        // Nobody will be told of it again.
                        told.remove(&handle);
                        if seated.get(session) == Some(&handle) {
                            seated.remove(session);
                        }
                        ended.push(*session);
                    }
                    SeatChange::Resumed { .. } | SeatChange::Suspended { .. } => {}
                }
            }
            // A pass may meet a seat just before its join is there to be told; the next one tells it then.
            for session in before_its_join.drain(..) {
                assert!(
                    seated.contains_key(&session) || ended.contains(&session),
                    "{session} had no seat, and was active"
                );
            }
            written += report.active.len();
            for session in &report.active {
                if !seated.contains_key(session) && !ended.contains(session) {
                    before_its_join.push(*session);
                }
            }
            if last {
                break;
            }
        }
        (ends, written)
    }
}

#[test]
fn what_was_revoked_is_live_in_no_batch_and_active_in_no_pass() {
    for activity in [ActivitySource::Input, ActivitySource::Verify] {
        let mut boards = Vec::new();
        boards.resize_with(SESSIONS, Board::default);
        let storm = &Storm {
            table: SeatTable::new(SeatConfig {
                capacity: SESSIONS as u32,
                window: WINDOW,
                idle: FOR_EVER,
                grace: FOR_EVER,
                activity,
                ..SeatConfig::default()
            }),
            boards,
            done: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            let ticker = scope.spawn(|| storm.tick());
            let players = [(), ()].map(|()| scope.spawn(|| storm.play()));
            scope.spawn(|| storm.revoke()).join().unwrap();
            for player in players {
                assert!(player.join().unwrap() > 0, "nobody was found live");
            }
            let (ends, written) = ticker.join().unwrap();
            assert_eq!(ends, ROUNDS);
            assert!(written > SESSIONS, "{written} written");
        });
        assert_eq!(
            (storm.table.len(), storm.table.used()),
            (SESSIONS, SESSIONS)
        );
        let counts = storm.table.counts();
        assert_eq!(counts.ended_in_all(), ROUNDS as u64);
        assert_eq!(counts.live, SESSIONS as u64);
    }
}
