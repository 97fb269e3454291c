//! The seat table against plain maps, for long: tables of many blocks and phases, histories in which every slot is used again and
//! again, and every handle that ever was kept, to be refused for ever.
//!
//! Where the model beside it (`model/`) is small and says step by step what the table is to do, this one knows only what is promised. So it
//! holds whatever the table is made of. What it knows of time is from and to: no seat ends before it is due, none lives on longer than
//! may be. All in between is the table's choice, and is learnt from what the tick tells.
//!
//! Each seed is a table of its own size and rules, and a history of moods: rush hours, play, flapping connections, revocations, lulls,
//! a simulation that stands still.

mod book;
mod order;
mod passes;
mod tally;
mod world;

use std::ops::Range;

use self::{tally::Tally, world::World};
use super::fault::{self, Fault};
use crate::seeds;

/// Seeds that every run checks. `TICKGATE_SEEDS=first..last` checks others; `scripts/soak-table` does so in a release build.
const SEEDS: Range<u64> = 0..36;

/// Steps to a seed: 360,000 in every run.
const STEPS: u32 = 10_000;

/// Names the seed if its run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed) = *self;
            println!(
                "seed {seed} failed: again with TICKGATE_SEEDS={seed}..{}",
                seed + 1
            );
        }
    }
}

fn run(seed: u64) -> Tally {
    let _named = Seed(seed);
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.finish()
}

#[test]
fn agrees_with_plain_maps() {
    seeds::run_all(SEEDS, 1_000, |seed| Ok(run(seed)));
}

#[test]
fn planted_bugs_are_found() {
    use Fault::{
        EndsEarly, FreesAtOnce, LooksAway, NoSeatCheck, SameGeneration, ShowsUntold,
        TellsUnchecked, WritesTwice,
    };
    let faults = [
        EndsEarly,
        FreesAtOnce,
        LooksAway,
        NoSeatCheck,
        SameGeneration,
        ShowsUntold,
        TellsUnchecked,
        WritesTwice,
    ];
    for bug in faults {
        let _planted = fault::plant(Some(bug));
        let found = (0..20).find(|seed| std::panic::catch_unwind(|| run(*seed)).is_err());
        assert!(found.is_some(), "{bug:?} is not found");
    }
}
