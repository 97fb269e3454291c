//! The seat table under several threads at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    ActivitySource, Connection, EndReason, Grant, Handle, Installed, NotSeated, SeatChange,
    SeatConfig, SeatTable, TickReport,
    behaviour::{START, grant},
};
use crate::{
    clock::Timestamp,
    id::{SessionId, Tick},
};

fn table(capacity: u32) -> SeatTable {
    SeatTable::new(SeatConfig {
        capacity,
        window: 60,
        idle: Duration::from_secs(3_600),
        activity: ActivitySource::Verify,
        ..SeatConfig::default()
    })
}

#[test]
fn of_two_that_seat_one_session_one_takes_over_from_the_other() {
    let table = table(4);
    let barrier = Barrier::new(2);
    for round in 0..300_u64 {
        let install = |id: u64| {
            barrier.wait();
            table.install(grant(u128::from(round), id), START).unwrap()
        };
        let (a, b) = thread::scope(|scope| {
            let a = scope.spawn(|| install(2 * round));
            let b = scope.spawn(|| install(2 * round + 1));
            (a.join().unwrap(), b.join().unwrap())
        });
        let (fresh, taken, first) = match (a, b) {
            (Installed::Fresh(handle), taken) => (handle, taken, 2 * round),
            (taken, Installed::Fresh(handle)) => (handle, taken, 2 * round + 1),
            neither => panic!("{neither:?}"),
        };
        let Installed::Taken {
            handle,
            displaced: Connection { id, .. },
            ..
        } = taken
        else {
            panic!("both fresh");
        };
        assert_eq!((handle, id), (fresh, first));
        assert_eq!(table.len(), 1);
        assert!(table.end(handle, EndReason::Left));
        table.tick(Tick(round), START, &mut TickReport::default());
    }
}

/// What the threads of [`nothing_is_lost_or_revived`] share.
struct Arena {
    table: SeatTable,
    seats: Vec<Published>,
    done: AtomicBool,
}

/// Handles of one session's seats, packed; 0 is none.
#[derive(Default)]
struct Published {
    /// The latest seat.
    latest: AtomicU64,
    /// The latest that was ended: once its handle stands here, nobody may find it live.
    ended: AtomicU64,
}

fn pack(handle: Handle) -> u64 {
    u64::from(handle.slot) << 32 | u64::from(handle.generation)
}

fn unpack(packed: u64) -> Handle {
    Handle {
        slot: (packed >> 32) as u32,
        generation: packed as u32,
    }
}

const SESSIONS: usize = 24;
const OWNERS: usize = 2;
const ROUNDS: u32 = 3_000;

impl Arena {
    /// Seats this owner's sessions, `rounds` times, and ends them.
    fn seat_and_end(&self, owner: usize, rounds: u32) {
        let mut rng = ChaCha8Rng::seed_from_u64(owner as u64);
        for round in 0..rounds {
            let session = rng.random_range(0..SESSIONS / OWNERS) * OWNERS + owner;
            let grant = grant(session as u128, u64::from(round));
            let installed = self.install(grant);
            let Installed::Fresh(handle) = installed else {
                panic!("{installed:?}: its last seat was ended");
            };
            let published = &self.seats[session];
            published.latest.store(pack(handle), Ordering::Release);
            assert!(self.table.verify(handle).is_live());
            self.table.touch(handle);
            assert!(match round % 3 {
                0 => self
                    .table
                    .end_session(grant.session, EndReason::SessionRevoked),
                1 => self.table.end(handle, EndReason::Kicked(round)),
                _ => self
                    .table
                    .end_connection(handle, grant.connection, EndReason::Left),
            });
            assert!(!self.table.verify(handle).is_live());
            published.ended.store(pack(handle), Ordering::Release);
        }
    }

    /// Full means: until the ticker has freed slots.
    fn install(&self, grant: Grant) -> Installed {
        for _ in 0..10_000_000 {
            match self.table.install(grant, START) {
                Ok(installed) => return installed,
                Err(NotSeated::Full) => thread::yield_now(),
                Err(NotSeated::PlayerPresent) => panic!("every player has one session"),
            }
        }
        panic!("slots are not freed");
    }

    /// Touches and verifies whatever handles there are, stale or not.
    fn touch_and_verify(&self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        while !self.done.load(Ordering::Relaxed) {
            let published = &self.seats[rng.random_range(0..SESSIONS)];
            let ended = unpack(published.ended.load(Ordering::Acquire));
            let latest = unpack(published.latest.load(Ordering::Acquire));
            for handle in [latest, ended] {
                self.table.touch(handle);
                let _ = self.table.verify(handle);
            }
            assert!(!self.table.verify(ended).is_live(), "{ended} had ended");
        }
    }

    /// Ticks until all is done; returns how many joins and ends were told, after holding each seat to join, then end, once.
    fn tick(&self) -> (u32, u32) {
        let (mut joins, mut ends) = (0, 0);
        let mut told: HashMap<Handle, bool> = HashMap::new();
        let mut report = TickReport::default();
        for tick in 0.. {
            let last = self.done.load(Ordering::SeqCst);
            self.table
                .tick(Tick(tick), Timestamp(START.0 + tick), &mut report);
            for change in &report.changes {
                match change {
                    SeatChange::Joined(joined) => {
                        assert_eq!(told.insert(joined.handle, false), None);
                        joins += 1;
                    }
                    SeatChange::Ended { handle, .. } => {
                        assert_eq!(told.insert(*handle, true), Some(false));
                        ends += 1;
                    }
                    SeatChange::Suspended { .. } | SeatChange::Resumed { .. } => {
                        panic!("nobody takes over here")
                    }
                }
            }
            if last {
                break;
            }
            thread::yield_now();
        }
        (joins, ends)
    }
}

#[test]
fn nothing_is_lost_or_revived() {
    let mut seats = Vec::new();
    seats.resize_with(SESSIONS, Published::default);
    let arena = &Arena {
        table: table(SESSIONS as u32),
        seats,
        done: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let ticker = scope.spawn(|| arena.tick());
        let verifiers: Vec<_> = (0..2)
            .map(|seed| scope.spawn(move || arena.touch_and_verify(seed)))
            .collect();
        let owners: Vec<_> = (0..OWNERS)
            .map(|owner| scope.spawn(move || arena.seat_and_end(owner, ROUNDS)))
            .collect();
        owners.into_iter().for_each(|owner| owner.join().unwrap());
        arena.done.store(true, Ordering::SeqCst);
        verifiers
            .into_iter()
            .for_each(|verifier| verifier.join().unwrap());
        let seated = OWNERS as u32 * ROUNDS;
        assert_eq!(ticker.join().unwrap(), (seated, seated));
    });
    assert!(arena.table.is_empty());
    assert_eq!(arena.table.used(), 0);
}

#[test]
fn a_worker_is_woken_and_finds_what_to_close() {
    let table = Arc::new(table(8));
    let woken = Arc::new(AtomicU32::new(0));
    table.set_waker(0, {
        // A waker may call the table: no lock is held.
        let (table, woken) = (Arc::downgrade(&table), Arc::clone(&woken));
        Arc::new(move || {
            let mut closings = Vec::new();
            let table = table.upgrade().unwrap();
            table.take_closings(0, &mut closings);
            assert!(
                closings
                    .iter()
                    .all(|(handle, ..)| table.connection(*handle).is_none())
            );
            woken.fetch_add(closings.len() as u32, Ordering::SeqCst);
        })
    });
    for session in 0..8 {
        table
            .install(grant(session, session as u64), START)
            .unwrap();
    }
    assert_eq!(woken.load(Ordering::SeqCst), 0);
    assert!(table.end_session(SessionId(3), EndReason::SessionRevoked));
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    let far = START.after(Duration::from_secs(100_000));
    table.tick(Tick(1), far, &mut TickReport::default());
    assert_eq!(woken.load(Ordering::SeqCst), 8);
}
