//! The embedded store on a disk that loses power: whatever it has answered is there afterwards, and the file opens.
//!
//! A short run is crashed at every single call that it makes of its disk, several times each, since what survives of the writes that
//! were not synced is drawn anew; long runs are crashed here and there, again and again, also while they open the file. Changes
//! go through the real writer in batches that are the same for the same seed: a first change holds the writer up until the others
//! wait behind it.

mod ledger;

use std::{ops::Range, time::Duration};

use futures_util::future::BoxFuture;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{EmbeddedStore, disk::Disk, fault::Fault};
use crate::{
    clock::Timestamp,
    id::{GatewayId, Incarnation, PlayerId, SessionId},
    store::{
        RefreshClaim, Store, StoreError,
        conformance::{LIVES, START, account},
        draw,
    },
};

use self::ledger::{Done, Ledger};

/// Batches of the short run, and how often each of its crash points is gone through.
const SHORT: usize = 10;
const DRAWS: u64 = 3;

/// Seeds of long runs that every run of the tests checks, and their batches; `TICKGATE_SEEDS=first..last` checks others.
const SEEDS: Range<u64> = 0..40;
const LONG: usize = 60;

/// What is asked of the store.
#[derive(Debug, Clone)]
enum Ask {
    LogIn(&'static str),
    Refresh(RefreshClaim),
    RevokeSession(SessionId),
    RevokePlayer(PlayerId),
    Grant(SessionId, GatewayId),
    Attach(GatewayId, Incarnation),
    Purge,
}

impl Ask {
    fn put(self, store: &EmbeddedStore, at: Timestamp) -> BoxFuture<'_, Result<Done, StoreError>> {
        Box::pin(async move {
            Ok(match self {
                Self::LogIn(subject) => {
                    let mut new = account(subject);
                    new.at = at;
                    new.ends_at = at.after(LIVES.longest);
                    Done::Started(store.start_session(new).await?)
                }
                Self::Refresh(claim) => Done::Refreshed(store.refresh(claim, at).await?),
                Self::RevokeSession(id) => Done::Session(store.revoke_session(id, at).await?),
                Self::RevokePlayer(id) => Done::Player(store.revoke_player(id, at).await?),
                Self::Grant(session, gateway) => {
                    store.grant(session, gateway).await?;
                    Done::Granted
                }
                Self::Attach(gateway, process) => {
                    Done::Attached(store.attach_gateway(gateway, process).await?)
                }
                Self::Purge => {
                    store.purge(at).await?;
                    Done::Purged
                }
            })
        })
    }
}

/// A store that lives on through crashes, and what it has promised.
struct Life {
    disk: Disk,
    /// None between a crash and the next start.
    store: Option<EmbeddedStore>,
    ledger: Ledger,
    rng: ChaCha8Rng,
    now: Timestamp,
    fault: Option<Fault>,
    processes: u128,
    crashes: u32,
}

impl Life {
    /// On an empty disk.
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        draw::seeded::adopt(Some(seed));
        Self {
            disk: Disk::empty(),
            store: None,
            ledger: Ledger::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: START,
            fault,
            processes: 0,
            crashes: 0,
        }
    }

    /// Opens the store, which may meet the disk's failure; else holds it to what was promised.
    async fn start(&mut self) -> Result<(), String> {
        match EmbeddedStore::on_disk(&self.disk, LIVES) {
            Ok(store) => {
                store.plant(self.fault);
                let checked = self.ledger.check(&store).await;
                self.store = Some(store);
                match checked {
                    Err(_) if self.disk.has_failed() => self.lose_power(),
                    checked => checked?,
                }
                Ok(())
            }
            Err(_) if self.disk.has_failed() => {
                self.lose_power();
                Ok(())
            }
            Err(error) => Err(format!("does not open: {error}")),
        }
    }

    fn lose_power(&mut self) {
        self.crashes += 1;
        let disk = match self.rng.random_range(0..5) {
            0 => self.disk.after_kill(),
            _ => self.disk.after_power_loss(&mut self.rng),
        };
        // Only now, or its end would tidy the disk up.
        self.store = None;
        self.disk = disk;
    }

    /// Time passes; some changes are asked for at once, and either answered or met by the disk's failure.
    async fn live(&mut self, most: usize) -> Result<(), String> {
        let pause = match self.rng.random_range(0..20) {
            0..12 => self.rng.random_range(1..2_000),
            12..19 => self.rng.random_range(1..20_000),
            _ => self.rng.random_range(1..20_000_000),
        };
        self.now = self.now.after(Duration::from_millis(pause));
        let asked: Vec<Ask> = (0..self.rng.random_range(1..=most))
            .map(|_| self.wish())
            .collect();
        let playing = self.ledger.any_session(&mut self.rng);
        let Some(store) = &self.store else {
            return Ok(());
        };
        let asks = asked.iter().cloned().map(|ask| ask.put(store, self.now));
        let plays = || {
            if let Some(session) = playing {
                store.note_activity(&[session], self.now);
            }
        };
        let answers = store.at_once(plays, asks.collect()).await;
        let is_settled = answers.iter().any(Result::is_ok) && !self.disk.has_failed();
        for (ask, answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok(done) => self.ledger.note(&ask, done, self.now)?,
                Err(_) => self.ledger.left_open(ask, self.now),
            }
        }
        if is_settled {
            ledger::check_lists(store).await?;
        }
        if let Some(session) = playing.filter(|_| is_settled) {
            self.ledger.was_active(session, self.now);
        }
        if self.disk.has_failed() {
            self.lose_power();
        }
        Ok(())
    }

    fn wish(&mut self) -> Ask {
        let rng = &mut self.rng;
        let gateway = || "eu".parse().unwrap();
        let subject = ["ada", "bob", "eve"].choose(rng).unwrap();
        let Some(session) = self.ledger.any_session(rng) else {
            return Ask::LogIn(subject);
        };
        match rng.random_range(0..100) {
            0..30 => Ask::LogIn(subject),
            30..60 => {
                let mut claim = self.ledger.claim_of(session);
                if rng.random_bool(0.3) {
                    claim.generation = claim.generation.saturating_sub(1);
                }
                Ask::Refresh(claim)
            }
            60..80 => Ask::RevokeSession(session),
            80..84 => Ask::RevokePlayer(self.ledger.player_of(session)),
            84..91 => Ask::Grant(session, gateway()),
            91..97 => {
                if rng.random_bool(0.7) {
                    self.processes += 1;
                }
                Ask::Attach(gateway(), Incarnation(self.processes))
            }
            _ => Ask::Purge,
        }
    }
}

fn wait_for<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let outcome = { runtime }.build().unwrap().block_on(run);
    draw::seeded::adopt(None);
    outcome
}

/// The short run on a disk that fails at its call `at`, and the starts after it. Returns whether it came that far.
async fn crashed_at(at: u64, draw: u64) -> Result<bool, String> {
    let mut life = Life::new(1, None);
    life.disk.fail_after(at);
    life.start().await?;
    for _ in 0..SHORT {
        if life.crashes == 0 {
            life.live(3).await?;
        }
    }
    let came_that_far = life.crashes > 0;
    if !came_that_far {
        life.disk.spare();
        return Ok(false);
    }
    life.rng = ChaCha8Rng::seed_from_u64(draw);
    if draw % 2 == 1 {
        // The power fails once more, while the store opens.
        let calls = life.rng.random_range(0..30);
        life.disk.fail_after(calls);
        life.start().await?;
        life.disk.spare();
        if life.store.is_some() {
            life.lose_power();
        }
    }
    life.start().await?;
    // It goes on as if nothing had been.
    life.live(3).await?;
    life.lose_power();
    life.start().await?;
    Ok(true)
}

#[test]
fn every_crash_point_of_a_short_run() {
    let mut at = 0;
    while (0..DRAWS).all(|draw| {
        wait_for(crashed_at(at, draw))
            .unwrap_or_else(|error| panic!("call {at}, draw {draw}: {error}"))
    }) {
        at += 1;
    }
    println!("{at} crash points");
    assert!(at > 100, "only {at} calls in the whole run");
}

async fn long(seed: u64, fault: Option<Fault>) -> Result<u32, String> {
    let mut life = Life::new(seed, fault);
    for _ in 0..LONG {
        if life.store.is_none() {
            if life.rng.random_bool(0.3) {
                let calls = life.rng.random_range(0..40);
                life.disk.fail_after(calls);
            }
            life.start().await?;
            continue;
        }
        if life.rng.random_bool(0.3) {
            let calls = life.rng.random_range(0..60);
            life.disk.fail_after(calls);
        }
        life.live(8).await?;
        if life.store.is_some() && life.rng.random_bool(0.05) {
            life.lose_power();
        }
    }
    life.disk.spare();
    if life.store.is_some() {
        life.lose_power();
    }
    life.start().await?;
    Ok(life.crashes)
}

#[test]
fn long_runs_that_crash_again_and_again() {
    let mut crashes = 0;
    let seeds = crate::seeds::seeds(SEEDS);
    for seed in seeds.clone() {
        match wait_for(long(seed, None)) {
            Ok(more) => crashes += more,
            Err(error) => panic!(
                "seed {seed}: {error}; again with TICKGATE_SEEDS={seed}..{}",
                seed + 1
            ),
        }
    }
    println!("{crashes} crashes");
    assert!(u64::from(crashes) > seeds.count() as u64 * 3);
}

#[test]
fn planted_bugs_are_found() {
    for fault in [Fault::Undurable, Fault::HeadApart] {
        let found: Vec<String> = (0..10)
            .filter_map(|seed| wait_for(long(seed, Some(fault))).err())
            .collect();
        println!(
            "{fault:?}: found by {} of 10 seeds: {:?}",
            found.len(),
            found.first()
        );
        assert!(!found.is_empty(), "{fault:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let once = || {
        wait_for(async {
            let mut life = Life::new(5, None);
            life.start().await?;
            for _ in 0..20 {
                life.live(8).await?;
            }
            Ok::<_, String>((life.disk.calls(), life.disk.digest()))
        })
    };
    assert_eq!(once(), once());
}
