//! The tick pass alone: what it takes when nobody is answered. It is no answer to the reference, which answers everybody.

use super::{PAIRS, SPAN, claims};
use crate::{
    bar::Figure,
    report::{Report, progress},
    rig::{
        company::Company,
        crowd::{Crowd, Order, What, sessions},
        mean_pass,
        pace::paced,
        stopwatch::{median, percentile},
    },
};

const PASS_ALONE: &str = "pass-alone";
pub(super) const NAMES: [&str; 2] = [claims::PASS_1M.name, PASS_ALONE];

/// Blocks of paced ticks: 1,080 ticks in all, so that the p99 is the eleventh worst.
const BLOCKS: usize = 9;
const TICKS: u32 = 120;

/// `crowd` is the million.
pub(super) fn measure(report: &mut Report, crowd: &Crowd) {
    if report.wants(claims::PASS_1M.name) {
        progress(claims::PASS_1M.name);
        let figure = p99(crowd, Company::Writer);
        report.bar(&claims::PASS_1M, figure);
        let figure = p99(crowd, Company::Alone);
        report.info("pass-1m-p99-us-without-writer", figure);
    }
    if report.wants(PASS_ALONE) {
        progress(PASS_ALONE);
        for size in [1_000, 10_000, 100_000] {
            tell(report, size, &Crowd::new(&sessions(size), Order::Random));
        }
        tell(report, 1_000_000, crowd);
    }
}

/// In microseconds: the p99 of all the ticks, with the spread of the blocks' own.
fn p99(crowd: &Crowd, company: Company) -> Figure {
    let mut pass = crowd.ask(What::Pass);
    let (mut all, mut blocks) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        let Some(samples) = company.beside_on_time(crowd, || paced(&mut pass, TICKS)) else {
            continue;
        };
        blocks.push(percentile(&samples, 0.99) / 1_000.0);
        all.extend(samples);
    }
    let note = format!(
        "p50 {:.0} us of {} ticks, {}",
        median(&all) / 1_000.0,
        all.len(),
        company.label()
    );
    // Of fewer blocks it would be the p99 of the quieter ones.
    let p99 = match blocks.len() {
        BLOCKS => percentile(&all, 0.99) / 1_000.0,
        _ => f64::NAN,
    };
    Figure::spread(p99, &blocks, "blocks", note)
}

fn tell(report: &mut Report, size: u32, crowd: &Crowd) {
    let mut pass = crowd.ask(What::Pass);
    let each: Vec<_> = (0..PAIRS)
        .map(|_| mean_pass(&mut pass, SPAN) / f64::from(size))
        .collect();
    let note = "the pass alone, ns a seat, back to back; it answers nobody";
    report.info(
        format!("{PASS_ALONE}-{size}"),
        Figure::spread(median(&each), &each, "means", note),
    );
}
