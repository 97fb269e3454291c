//! Random histories in great number: which seeds a test runs, all of them on all cores, and what they reached together.
//!
//! Each test that runs histories keeps a tally of what happened in them, so that it shows when they pass something by.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

/// What histories reached.
pub(crate) trait Tally: Default + Send {
    fn add(&mut self, other: &Self);

    /// The names of what never happened.
    fn unreached(&self) -> Vec<&'static str>;
}

/// Declares `Tally`, of counters that must all be reached; after a semicolon those that need not be.
macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident),* $(,)? $(; $($(#[$may_be:meta])* $other:ident),* $(,)?)?) => {
        /// How often each thing happened.
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        pub(super) struct Tally {
            $($(#[$doc])* pub(super) $name: u64,)*
            $($($(#[$may_be])* pub(super) $other: u64,)*)?
        }

        impl crate::seeds::Tally for Tally {
            fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                $($(self.$other += other.$other;)*)?
            }

            fn unreached(&self) -> Vec<&'static str> {
                let all = [$((stringify!($name), self.$name)),*];
                let never = all.into_iter().filter(|(_, count)| *count == 0);
                never.map(|(name, _)| name).collect()
            }
        }
    };
}
pub(crate) use tally;

/// The seeds of a test: those of every run, or what `TICKGATE_SEEDS=first..last` says.
pub(crate) fn seeds(of_every_run: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("TICKGATE_SEEDS") else {
        return of_every_run;
    };
    let (first, last) = text.split_once("..").expect("TICKGATE_SEEDS=first..last");
    first.parse().expect("a number")..last.parse().expect("a number")
}

/// Runs a test's seeds, on all the processor's cores, telling how far it is every so many, and prints what they reached. The first that
/// `run` refuses is named. Together those of every run must have gone through everything.
pub(crate) fn run_all<T: Tally + std::fmt::Debug>(
    of_every_run: Range<u64>,
    told_every: u64,
    run: impl Fn(u64) -> Result<T, String> + Sync,
) {
    let seeds = seeds(of_every_run.clone());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let worker = || {
        let mut tally = T::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return tally;
            }
            match run(seed) {
                Ok(reached) => tally.add(&reached),
                Err(error) => panic!(
                    "seed {seed}: {error}; again with TICKGATE_SEEDS={seed}..{}",
                    seed + 1
                ),
            }
            let done = seed + 1 - seeds.start;
            if done.is_multiple_of(told_every) {
                println!("{done} seeds");
            }
        }
    };
    let mut total = T::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(tally) => total.add(&tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    // Shown by `cargo test … -- --nocapture`.
    println!("{total:#?}");
    if seeds == of_every_run {
        assert_eq!(total.unreached(), Vec::<&str>::new(), "{total:?}");
    }
}
