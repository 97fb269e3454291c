//! A sidecar's sessions over its store, from a seed: players log in, refresh, look and log out, operators revoke, over a network that
//! loses, repeats and delays messages, while the sidecar is killed, its power fails and its disk breaks. What was asked and answered is
//! written down, and a checker that knows nothing of the program says whether every promise was kept.
//!
//! ```text
//! clients ─► network ─► sidecar: sessions ─► embedded store ─► disk that forgets      (every other seed)
//!    │                                  └──► memory store                             (the others: the sidecar crashes alone)
//!    └────────► history ─► checker
//! ```
//!
//! The sessions and the store are the real thing, keys and tokens included; left out is what stands before them: gRPC, and the
//! ways to prove an account. `tests/crashes.rs` writes the same histories of real processes, for the same checker.

mod bad;
mod check;
mod clients;
mod record;
mod server;
mod tally;
mod world;

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use self::{record::History, tally::Tally, world::World};
use crate::store::{Fault, draw};

/// Seeds that every run of the tests checks. `TICKGATE_SEEDS=first..last` checks others; `scripts/soak-sidecar` does so in a release
/// build.
const SEEDS: Range<u64> = 0..1_000;

/// Runs a seed to its end: what it reached, or which promise was broken.
fn run(seed: u64, fault: Option<Fault>) -> Result<(Tally, History), String> {
    draw::seeded::adopt(Some(seed));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(World::new(seed, fault).run());
    draw::seeded::adopt(None);
    let (tally, history) = outcome?;
    check::check(&history, world::RULES).map_err(|broken| broken.to_string())?;
    Ok((tally, history))
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("TICKGATE_SEEDS") else {
        return SEEDS;
    };
    let (first, last) = text.split_once("..").expect("TICKGATE_SEEDS=first..last");
    first.parse().expect("a number")..last.parse().expect("a number")
}

/// Runs many seeds, on all the processor's cores.
fn run_all(seeds: Range<u64>) -> Tally {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let worker = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return tally;
            }
            match run(seed, None) {
                Ok((reached, _)) => tally.add(&reached),
                Err(error) => panic!(
                    "seed {seed}: {error}; again with TICKGATE_SEEDS={seed}..{}",
                    seed + 1
                ),
            }
            let done = seed + 1 - seeds.start;
            if done.is_multiple_of(10_000) {
                println!("{done} seeds");
            }
        }
    };
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(tally) => total.add(&tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    total
}

#[test]
fn every_promise_is_kept() {
    let total = run_all(seeds());
    // Shown by `cargo test … -- --nocapture`.
    println!("{total:#?}");
    if seeds() == SEEDS {
        // Together the runs went through everything.
        assert_eq!(total.unreached(), Vec::<&str>::new(), "{total:?}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for fault in [Fault::Undurable, Fault::HeadApart, Fault::NoGrace] {
        let broken: Vec<String> = (0..40)
            .filter_map(|seed| run(seed, Some(fault)).err())
            .collect();
        println!(
            "{fault:?}: found by {} of 40 seeds, as in {:?}",
            broken.len(),
            broken.first()
        );
        assert!(!broken.is_empty(), "{fault:?}");
        if fault == Fault::NoGrace {
            let is_reuse = |error: &String| error.starts_with("reuse:");
            assert!(broken.iter().any(is_reuse), "{broken:?}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [4, 7] {
        assert_eq!(run(seed, None), run(seed, None));
    }
}
