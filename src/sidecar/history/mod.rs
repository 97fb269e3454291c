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

use std::ops::Range;

use self::{record::History, tally::Tally, world::World};
use crate::{
    seeds,
    store::{Fault, draw},
};

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

#[test]
fn every_promise_is_kept() {
    seeds::run_all(SEEDS, 10_000, |seed| {
        run(seed, None).map(|(reached, _)| reached)
    });
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
