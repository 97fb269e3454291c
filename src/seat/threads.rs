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
    ActivitySource, Connection, EndReason, Grant, Handle, Installed, NotSeated, SamePlayer,
    SeatChange, SeatConfig, SeatTable, TickReport, Verdict,
    behaviour::{START, grant},
    model::follow,
};
use crate::{
    clock::Timestamp,
    id::{PlayerId, SessionId, Tick},
};

/// Longer than any test goes on, by its own time.
const FOR_EVER: Duration = Duration::from_secs(1 << 40);

fn table(capacity: u32) -> SeatTable {
    SeatTable::new(config(capacity))
}

fn config(capacity: u32) -> SeatConfig {
    SeatConfig {
        capacity,
        idle: FOR_EVER,
        activity: ActivitySource::Verify,
        grace: FOR_EVER,
        ..SeatConfig::default()
    }
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
            displaced: Some(Connection { id, .. }),
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

/// Two sessions of one player are seated at once: both policies leave one of them, and say so to the right one.
#[test]
fn of_two_sessions_of_a_player_one_is_the_newer() {
    let winners = [SamePlayer::NewestWins, SamePlayer::OldestWins];
    for (same_player, round) in winners.into_iter().cycle().zip(0..300_u64) {
        let table = SeatTable::new(SeatConfig {
            same_player,
            ..config(1)
        });
        let barrier = Barrier::new(2);
        let install = |session: u64| {
            barrier.wait();
            let player = PlayerId(1);
            let grant = Grant {
                player,
                ..grant(session.into(), round)
            };
            table.install(grant, START)
        };
        let (a, b) = thread::scope(|scope| {
            let a = scope.spawn(|| install(1));
            let b = scope.spawn(|| install(2));
            (a.join().unwrap(), b.join().unwrap())
        });
        let live = |installed: &Result<Installed, NotSeated>| {
            installed.is_ok_and(|seat| table.verify(seat.handle()).is_live())
        };
        assert_ne!(live(&a), live(&b));
        let mut closings = Vec::new();
        table.take_closings(0, &mut closings);
        match same_player {
            SamePlayer::NewestWins => assert!(a.is_ok() && b.is_ok() && closings.len() == 1),
            _ => {
                let refused = [a, b].map(|it| it == Err(NotSeated::PlayerPresent));
                assert!(refused[0] != refused[1] && closings.is_empty());
            }
        }
    }
}

/// What the threads of [`nothing_is_lost_or_revived`] share.
struct Arena {
    table: SeatTable,
    seats: Vec<Published>,
    suspensions: AtomicU32,
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
    u64::from(handle.slot()) << 32 | u64::from(handle.generation())
}

fn unpack(packed: u64) -> Handle {
    Handle::new((packed >> 32) as u32, packed as u32)
}

const SESSIONS: usize = 24;
const OWNERS: usize = 2;
const ROUNDS: u32 = 3_000;

impl Arena {
    /// Seats this owner's sessions, `rounds` times, suspends and resumes some of them, and ends them.
    fn seat_and_end(&self, owner: usize, rounds: u32) {
        let mut rng = ChaCha8Rng::seed_from_u64(owner as u64);
        for round in 0..rounds {
            let session = rng.random_range(0..SESSIONS / OWNERS) * OWNERS + owner;
            let mut grant = grant(session as u128, u64::from(round) << 8);
            let installed = self.install(grant);
            let Installed::Fresh(handle) = installed else {
                panic!("{installed:?}: its last seat was ended");
            };
            let published = &self.seats[session];
            published.latest.store(pack(handle), Ordering::Release);
            assert!(self.table.verify(handle).is_live());
            self.table.touch(handle);
            let losses = rng.random_range(0..4_u32);
            for _ in 0..losses {
                self.lose_and_come_back(handle, &mut grant);
            }
            let away = rng.random_bool(0.3);
            if away {
                assert!(self.table.suspend(handle, grant.connection, START));
            }
            self.suspensions
                .fetch_add(losses + u32::from(away), Ordering::Relaxed);
            assert!(match round % 3 {
                0 => self
                    .table
                    .end_session(grant.session, EndReason::SessionRevoked),
                1 if !away => {
                    let left = EndReason::Left;
                    self.table.end_connection(handle, grant.connection, left)
                }
                _ => self.table.end(handle, EndReason::Kicked(round)),
            });
            assert_eq!(self.table.verify(handle), Verdict::Ended);
            published.ended.store(pack(handle), Ordering::Release);
        }
    }

    /// No touch of another thread makes a suspended seat live, and nothing takes the resumed one away.
    fn lose_and_come_back(&self, handle: Handle, grant: &mut Grant) {
        assert!(self.table.suspend(handle, grant.connection, START));
        for _ in 0..20 {
            assert_eq!(self.table.verify(handle), Verdict::Suspended);
        }
        grant.connection.id += 1;
        let installed = self.table.install(*grant, START).unwrap();
        let Installed::Taken {
            handle: taken,
            displaced: None,
            ..
        } = installed
        else {
            panic!("{installed:?}: it was suspended");
        };
        assert_eq!(taken, handle);
        assert!(self.table.verify(handle).is_live());
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

    /// Ticks until all is done; returns how many joins and ends were told, after holding each seat to what may follow what.
    fn tick(&self) -> (u32, u32) {
        let (mut joins, mut ends) = (0, 0);
        let mut told: HashMap<Handle, Verdict> = HashMap::new();
        let mut report = TickReport::default();
        for tick in 0.. {
            let last = self.done.load(Ordering::SeqCst);
            self.table
                .tick(Tick(tick), Timestamp(START.0 + tick), &mut report);
            for change in &report.changes {
                let handle = change.handle();
                let known = follow(told.get(&handle).copied(), change);
                told.insert(handle, known);
                joins += u32::from(matches!(change, SeatChange::Joined(_)));
                ends += u32::from(matches!(change, SeatChange::Ended { .. }));
            }
            let counts = self.table.counts();
            assert_eq!(
                counts.joined,
                counts.live + counts.suspended + counts.ended_in_all()
            );
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
        suspensions: AtomicU32::new(0),
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
    let counts = arena.table.counts();
    assert_eq!(
        counts.suspensions,
        u64::from(arena.suspensions.load(Ordering::Relaxed))
    );
    assert_eq!(counts.ended_in_all(), u64::from(OWNERS as u32 * ROUNDS));
}

/// A session that comes back just when its grace is over gets its own seat, whole, or a fresh one, after its own was lost.
#[test]
fn who_races_the_end_of_the_grace_gets_one_seat_or_the_other() {
    let table = &SeatTable::new(SeatConfig {
        grace: Duration::from_millis(3),
        ..config(1)
    });
    let (now, done) = (&AtomicU64::new(START.0), &AtomicBool::new(false));
    let (kept, afresh) = thread::scope(|scope| {
        let client = scope.spawn(move || {
            let (mut kept, mut afresh) = (0_u32, 0_u32);
            let mut handle = table.install(grant(7, 0), START).unwrap().handle();
            for id in 1..20_000 {
                let at = Timestamp(now.load(Ordering::SeqCst));
                let served = table.connection(handle).unwrap();
                assert!(table.suspend(handle, served, at));
                // At once, just in time or just not, and too late.
                let in_time = || now.load(Ordering::SeqCst) < at.0 + 2;
                let not_late = || table.verify(handle) == Verdict::Suspended;
                while id % 3 == 1 && in_time() || id % 3 == 2 && not_late() {
                    thread::yield_now();
                }
                let installed = table.install(grant(7, id), at).unwrap();
                if installed.handle() == handle {
                    kept += 1;
                } else {
                    assert_eq!(table.verify(handle), Verdict::Ended);
                    afresh += 1;
                }
                handle = installed.handle();
                assert_eq!(table.verify(handle), Verdict::Live);
            }
            done.store(true, Ordering::SeqCst);
            (kept, afresh)
        });
        let mut told = HashMap::new();
        let mut report = TickReport::default();
        let mut lost = 0;
        for tick in 0.. {
            let last = done.load(Ordering::SeqCst);
            let at = Timestamp(now.fetch_add(1, Ordering::SeqCst));
            table.tick(Tick(tick), at, &mut report);
            for change in &report.changes {
                let known = follow(told.get(&change.handle()).copied(), change);
                told.insert(change.handle(), known);
                lost += u32::from(known == Verdict::Ended);
            }
            if last {
                break;
            }
            thread::yield_now();
        }
        let (kept, afresh) = client.join().unwrap();
        assert_eq!(lost, afresh);
        (kept, afresh)
    });
    assert!(kept > 0 && afresh > 0, "{kept} kept, {afresh} afresh");
    let counts = table.counts();
    assert_eq!((counts.live, counts.suspended), (1, 0));
    assert_eq!(counts.joined, u64::from(afresh) + 1);
    assert_eq!(counts.resumed, u64::from(kept));
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
    let far = START.after(FOR_EVER).after(FOR_EVER);
    table.tick(Tick(1), far, &mut TickReport::default());
    assert_eq!(woken.load(Ordering::SeqCst), 8);
}
