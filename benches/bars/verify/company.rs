//! What it costs that others work on the same table: a second thread that verifies, a writer.

use super::{PAIRS, SPAN, claims};
use crate::{
    bar::{Bar, Figure},
    report::{Report, progress},
    rig::{
        company::Company,
        crowd::{Crowd, What},
        mean_pass,
        pace::paced,
        stopwatch::median,
    },
};

pub(super) const NAMES: [&str; 2] = [claims::TWO_THREADS.name, claims::WRITER.name];
const COMPANIES: [(&Bar, Company); 2] = [
    (&claims::TWO_THREADS, Company::Verifier),
    (&claims::WRITER, Company::Writer),
];

/// Pairs of paced ticks, and the ticks of either half.
const PACED_PAIRS: usize = 9;
const TICKS: u32 = 60;

/// How much longer each subject takes in company than alone.
#[derive(Default)]
pub(super) struct Slowdowns(Vec<Slowdown>);

struct Slowdown {
    company: Company,
    subject: String,
    ratios: Vec<f64>,
}

impl Slowdowns {
    /// Alone, in company, alone, in company, and so on.
    pub(super) fn measure(&mut self, report: &Report, size: u32, crowd: &Crowd) {
        let subjects: &[(What, bool)] = match size {
            10_000 => &[
                (What::Verify, false),
                (What::Batch, false),
                (What::TickAnswers, false),
                (What::Verify, true),
                (What::TickAnswers, true),
                (What::TickSlots, true),
            ],
            100_000 => &[(What::Batch, false), (What::TickAnswers, false)],
            _ => &[(What::Pass, false)],
        };
        for (bar, company) in COMPANIES {
            for (what, at_60_hz) in subjects.iter().filter(|_| report.wants(bar.name)) {
                let pace = if *at_60_hz { " paced" } else { "" };
                let subject = format!("{} {size}{pace}", what.label());
                progress(&format!("{subject}, {}", company.label()));
                self.0.push(Slowdown {
                    company,
                    subject,
                    ratios: ratios(crowd, *what, company, *at_60_hz),
                });
            }
        }
    }

    /// The worst of each company; all of them beside it.
    pub(super) fn tell(&self, report: &mut Report) {
        for (bar, company) in COMPANIES {
            if report.wants(bar.name) {
                self.tell_of(report, bar, company);
            }
        }
    }

    fn tell_of(&self, report: &mut Report, bar: &'static Bar, company: Company) {
        let of = || self.0.iter().filter(|slowdown| slowdown.company == company);
        // A subject without a single pair has no median (NaN), which is the worst of all, and short.
        let worst = of().max_by(|a, b| median(&a.ratios).total_cmp(&median(&b.ratios)));
        if let Some(worst) = worst {
            let note = format!("the worst of {}: {}", of().count(), worst.subject);
            report.bar(bar, Figure::of_pairs(&worst.ratios, note));
        }
        for slowdown in of() {
            report.info(
                bar.name,
                Figure::of_pairs(&slowdown.ratios, slowdown.subject.as_str()),
            );
        }
    }
}

fn ratios(crowd: &Crowd, what: What, company: Company, at_60_hz: bool) -> Vec<f64> {
    let mut subject = crowd.ask(what);
    let mut time = || {
        if at_60_hz {
            median(&paced(&mut subject, TICKS))
        } else {
            mean_pass(&mut subject, SPAN)
        }
    };
    let pairs = if at_60_hz { PACED_PAIRS } else { PAIRS };
    let ratios: Vec<_> = (0..pairs)
        .filter_map(|_| {
            let alone = time();
            Some(company.beside_on_time(crowd, &mut time)? / alone)
        })
        .collect();
    // A median of fewer pairs is none.
    if ratios.len() < PACED_PAIRS {
        return Vec::new();
    }
    ratios
}
