//! The bars of the seat table: what it costs to ask about every seat on every tick, against the reference measured beside.

mod alone;
mod company;
mod footprint;
mod ratios;

use std::time::Duration;

use crate::{
    bar::{
        Bar,
        Bound::{AtLeast, AtMost},
    },
    report::{Group, Report, progress},
    rig::{
        crowd::{Crowd, Order, sessions, shuffled},
        rival::Rival,
    },
};

/// Back-to-back pairs. Cheap, so that there are more of them than the nine that a median takes at the least.
const PAIRS: usize = 15;
/// How long each half of such a pair is measured.
const SPAN: Duration = Duration::from_millis(25);

const fn at_least(name: &'static str, bound: f64, about: &'static str) -> Bar {
    Bar {
        name,
        bound: AtLeast(bound),
        about,
    }
}

const fn at_most(name: &'static str, bound: f64, about: &'static str) -> Bar {
    Bar {
        name,
        bound: AtMost(bound),
        about,
    }
}

#[rustfmt::skip]
mod claims {
    use super::{Bar, at_least, at_most};

    pub(super) static VERIFY_10K: Bar = at_least("verify-10k", 30.0, "reference / verify(handle), 10,000 seats in random order, back to back");
    pub(super) static VERIFY_10K_PACED: Bar = at_least("verify-10k-paced", 20.0, "the same on ticks of 60 Hz, p50");
    pub(super) static BATCH_10K: Bar = at_least("batch-10k", 40.0, "reference / verify_batch, 10,000 seats in random order, back to back");
    pub(super) static BATCH_100K: Bar = at_least("batch-100k", 80.0, "the same with 100,000 seats");
    pub(super) static ANSWERS_10K: Bar = at_least("tick-answers-10k", 120.0, "reference / tick pass and the slot of each who may stay, by LiveSlots, all active, 10,000 seats, back to back; beside it with a byte of each player read, and by verify_batch");
    pub(super) static ANSWERS_10K_PACED: Bar = at_least("tick-answers-10k-paced", 200.0, "the same on ticks of 60 Hz, p50");
    pub(super) static ANSWERS_10K_PACED_P99: Bar = at_least("tick-answers-10k-paced-p99", 200.0, "the same, p99 against p99");
    pub(super) static ANSWERS_100K: Bar = at_least("tick-answers-100k", 300.0, "as tick-answers-10k, with 100,000 seats");
    pub(super) static PASS_1M: Bar = at_most("pass-1m-p99-us", 200.0, "p99 of the tick pass alone, microseconds, 1,000,000 seats, all active, at 60 Hz, beside a writer");
    pub(super) static TWO_THREADS: Bar = at_most("two-threads", 2.0, "the worst slowdown of any of the above with a second thread verifying the same table");
    pub(super) static WRITER: Bar = at_most("writer", 1.5, "the worst slowdown with 1,000 inserts and 1,000 revocations a second");
    pub(super) static BYTES_PER_SEAT: Bar = at_most("bytes-per-seat", 128.0, "bytes by a counting allocator, 100,000 seats, with the look-ups by JTI and by player");
    pub(super) static BYTES_PER_SLOT: Bar = at_most("bytes-per-slot", 40.0, "of these, what verify, touch and the pass read");
}

const BARS: &[&Bar] = &[
    &claims::VERIFY_10K,
    &claims::VERIFY_10K_PACED,
    &claims::BATCH_10K,
    &claims::BATCH_100K,
    &claims::ANSWERS_10K,
    &claims::ANSWERS_10K_PACED,
    &claims::ANSWERS_10K_PACED_P99,
    &claims::ANSWERS_100K,
    &claims::PASS_1M,
    &claims::TWO_THREADS,
    &claims::WRITER,
    &claims::BYTES_PER_SEAT,
    &claims::BYTES_PER_SLOT,
];

pub(crate) const GROUP: Group = Group {
    name: "verify",
    about: "the seat table against the reference algorithm (about four minutes)",
    bars: BARS,
    run,
};

fn run(report: &mut Report) {
    let mut slowdowns = company::Slowdowns::default();
    for (size, names) in [
        (10_000, &ratios::NAMES_10K[..]),
        (100_000, &ratios::NAMES_100K[..]),
    ] {
        let beside = report.wants_any(&company::NAMES);
        if !report.wants_any(names) && !beside {
            continue;
        }
        progress(&format!("{size} seats: filling the tables"));
        let sessions = sessions(size);
        let crowd = Crowd::new(&sessions, Order::Random);
        if report.wants_any(names) {
            let mut rival = Rival::new(&sessions, &shuffled(&sessions));
            ratios::measure(report, size, &crowd, &mut rival);
        }
        if beside {
            slowdowns.measure(report, size, &crowd);
        }
    }
    if report.wants_any(&alone::NAMES) || report.wants_any(&company::NAMES) {
        progress("1000000 seats: filling the table");
        let crowd = Crowd::new(&sessions(1_000_000), Order::Random);
        alone::measure(report, &crowd);
        if report.wants_any(&company::NAMES) {
            slowdowns.measure(report, 1_000_000, &crowd);
        }
    }
    slowdowns.tell(report);
    footprint::measure(report);
}
