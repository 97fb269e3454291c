//! How many times as long the reference takes.

use super::{PAIRS, SPAN, claims};
use crate::{
    bar::{Bar, Figure},
    report::{Report, progress},
    rig::{
        Subject,
        crowd::{Crowd, What},
        mean_pass,
        pace::paced,
        rival::Rival,
        stopwatch::{median, percentile},
    },
};

pub(super) const NAMES_10K: [&str; 6] = [
    claims::VERIFY_10K.name,
    claims::VERIFY_10K_PACED.name,
    claims::BATCH_10K.name,
    claims::ANSWERS_10K.name,
    claims::ANSWERS_10K_PACED.name,
    claims::ANSWERS_10K_PACED_P99.name,
];
pub(super) const NAMES_100K: [&str; 2] = [claims::BATCH_100K.name, claims::ANSWERS_100K.name];

/// Rounds of paced ticks, and the ticks of each subject in a round: the p99 of 120 is the second worst.
const ROUNDS: usize = 9;
const TICKS: u32 = 120;

/// Other ways to a tick's answers than by slot: with what a game knows of each player, and by a list of handles.
const OTHER_WAYS: [What; 2] = [What::TickPlayers, What::TickAnswers];

pub(super) fn measure(report: &mut Report, size: u32, crowd: &Crowd, rival: &mut Rival) {
    let claims: &[(&'static Bar, What)] = match size {
        10_000 => &[
            (&claims::VERIFY_10K, What::Verify),
            (&claims::BATCH_10K, What::Batch),
            (&claims::ANSWERS_10K, What::TickSlots),
        ],
        _ => &[
            (&claims::BATCH_100K, What::Batch),
            (&claims::ANSWERS_100K, What::TickSlots),
        ],
    };
    for (bar, what) in claims {
        if report.wants(bar.name) {
            progress(bar.name);
            let figure = back_to_back(size, rival, &mut crowd.ask(*what));
            report.bar(bar, figure);
            if *what == What::TickSlots {
                for other in OTHER_WAYS {
                    let figure = back_to_back(size, rival, &mut crowd.ask(other));
                    report.info(format!("{}: {}", bar.name, other.label()), figure);
                }
            }
        }
    }
    let names = [
        claims::VERIFY_10K_PACED.name,
        claims::ANSWERS_10K_PACED.name,
        claims::ANSWERS_10K_PACED_P99.name,
    ];
    if size == 10_000 && report.wants_any(&names) {
        at_60_hz(report, crowd, rival);
    }
}

/// Reference, ours, reference, ours, and so on; the ratio of each pair.
fn back_to_back(size: u32, rival: &mut Rival, ours: &mut dyn Subject) -> Figure {
    let mut pairs = Pairs::new();
    for _ in 0..PAIRS {
        let (theirs, ours) = (mean_pass(rival, SPAN), mean_pass(ours, SPAN));
        pairs.push(theirs, ours);
    }
    pairs.figure(f64::from(size), "ns a seat")
}

fn at_60_hz(report: &mut Report, crowd: &Crowd, rival: &mut Rival) {
    let mut verify = crowd.ask(What::Verify);
    let mut slots = crowd.ask(What::TickSlots);
    let mut beside = OTHER_WAYS.map(|what| {
        let pairs = [const { Pairs::new() }; 2];
        (what, crowd.ask(what), pairs)
    });
    let [mut verify_p50, mut slots_p50, mut slots_p99] = [const { Pairs::new() }; 3];
    for round in 1..=ROUNDS {
        progress(&format!("ticks of 60 Hz, round {round} of {ROUNDS}"));
        let theirs = paced(rival, TICKS);
        let ours = paced(&mut verify, TICKS);
        verify_p50.push(median(&theirs), median(&ours));
        let theirs = paced(rival, TICKS);
        let ours = paced(&mut slots, TICKS);
        slots_p50.push(median(&theirs), median(&ours));
        slots_p99.push(percentile(&theirs, 0.99), percentile(&ours, 0.99));
        for (_, asker, [p50, p99]) in &mut beside {
            let ours = paced(asker, TICKS);
            p50.push(median(&theirs), median(&ours));
            p99.push(percentile(&theirs, 0.99), percentile(&ours, 0.99));
        }
    }
    for (bar, pairs) in [
        (&claims::VERIFY_10K_PACED, verify_p50),
        (&claims::ANSWERS_10K_PACED, slots_p50),
        (&claims::ANSWERS_10K_PACED_P99, slots_p99),
    ] {
        report.bar(bar, pairs.figure(1_000.0, "us a tick"));
    }
    for (what, _, [p50, p99]) in beside {
        for (percentile, pairs) in [("p50", p50), ("p99", p99)] {
            let name = format!("tick-answers-10k-paced, {percentile}: {}", what.label());
            report.info(name, pairs.figure(1_000.0, "us a tick"));
        }
    }
}

/// Pairs of times, in nanoseconds.
struct Pairs {
    theirs: Vec<f64>,
    ours: Vec<f64>,
    ratios: Vec<f64>,
}

impl Pairs {
    const fn new() -> Self {
        Self {
            theirs: Vec::new(),
            ours: Vec::new(),
            ratios: Vec::new(),
        }
    }

    fn push(&mut self, theirs: f64, ours: f64) {
        self.theirs.push(theirs);
        self.ours.push(ours);
        self.ratios.push(theirs / ours);
    }

    /// The median ratio, with the medians of both in `unit`, of which `nanos` nanoseconds are one.
    fn figure(&self, nanos: f64, unit: &str) -> Figure {
        let (theirs, ours) = (median(&self.theirs) / nanos, median(&self.ours) / nanos);
        Figure::of_pairs(
            &self.ratios,
            format!("reference {theirs:.1}, ours {ours:.2} {unit}"),
        )
    }
}
