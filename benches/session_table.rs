//! What it costs to ask about every seat on every tick, against the algorithm that game servers commonly use for it.
//!
//! `cargo bench --bench session_table` measures everything, first back to back by Criterion, then on ticks of 60 Hz by a sampler of its
//! own (Criterion knows no pace and no percentiles), and prints tables of this very run. A word after `--` leaves out all whose name
//! does not contain it, as in `cargo bench --bench session_table -- 10000`. With TICKGATE_RENDER=docs the tables and a chart are
//! written into docs/ (`scripts/bars --render` does that). docs/PERFORMANCE.md says what the figures mean.

#![expect(clippy::print_stdout, reason = "the tables are what it is for")]
#![expect(
    clippy::panic,
    reason = "a benchmark that finds its subject broken ends there"
)]

#[path = "session_table/chart.rs"]
mod chart;
#[path = "reference/mod.rs"]
mod reference;
#[path = "session_table/results.rs"]
mod results;
#[path = "rig/mod.rs"]
mod rig;
#[path = "session_table/tables.rs"]
mod tables;

use std::{cell::RefCell, fs, io, path::Path, time::Duration};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use results::{Key, Pace, Results};
use rig::{
    Subject,
    company::Company,
    crowd::{Crowd, Order, What, empty, seat, sessions, shuffled},
    index::{BySession, ConcurrentMap},
    memory::held,
    pace::paced,
    rival::Rival,
    stopwatch::nanos,
};
use tickgate::id::SessionId;

const SIZES: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Where company is kept: what fits into a core's own cache, and what does not.
const COMPANY_SIZES: [u32; 2] = [10_000, 100_000];
/// Paced ticks of each subject; the p99 of 300 is the third worst.
const TICKS: u32 = 300;
/// The reference's ticks where one of them is longer than a tick may be: enough for a p50.
const LONG_TICKS: u32 = 60;
/// Seats that are weighed.
const WEIGHED: u32 = 100_000;

/// What to leave out, as Criterion reads it from the same arguments.
struct Filter {
    words: Vec<String>,
    /// `cargo test --benches` runs everything once, and `--list` nothing: neither is for figures.
    measures: bool,
}

impl Filter {
    fn from_arguments() -> Self {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        Self {
            measures: !arguments.iter().any(|a| a == "--test" || a == "--list"),
            words: arguments
                .into_iter()
                .filter(|a| !a.starts_with('-'))
                .collect(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }
}

/// One run of everything.
struct Bench<'a> {
    filter: &'a Filter,
    results: &'a RefCell<Results>,
}

impl Bench<'_> {
    /// Back to back.
    fn criterion(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        key: Key,
        subject: &mut dyn Subject,
    ) {
        group.throughput(Throughput::Elements(key.size.into()));
        group.bench_function(key.name(), |bencher| {
            bencher.iter_custom(|passes| {
                let took = subject.run(passes);
                let each = nanos(took) / passes as f64;
                self.results.borrow_mut().add(key, &[each]);
                took
            });
        });
    }

    /// On ticks of 60 Hz.
    fn paced(&self, key: Key, subject: &mut dyn Subject, ticks: u32) {
        let name = key.name();
        if !self.filter.measures || !self.filter.wants(&name) {
            return;
        }
        let samples = paced(subject, ticks);
        let mut results = self.results.borrow_mut();
        results.add(key, &samples);
        if let Some((p50, p99)) = results.paced(key) {
            println!("session_table/{name:<60} p50 {p50:>9.1} us  p99 {p99:>9.1} us a tick");
        }
    }

    /// Everything that is asked of one size.
    fn size(&self, group: &mut BenchmarkGroup<'_, WallTime>, size: u32) {
        let sessions = sessions(size);
        let asked = shuffled(&sessions);
        self.reference(group, size, Order::Random, &sessions, &asked);
        self.reference(group, size, Order::Slots, &sessions, &sessions);
        if COMPANY_SIZES.contains(&size) {
            let key = Key::back_to_back(results::CONCURRENT_MAP, size);
            let mut map = ConcurrentMap::new(&sessions, &asked);
            self.criterion(group, key, &mut map);
        }
        for order in [Order::Random, Order::Slots] {
            let crowd = Crowd::new(&sessions, order);
            for what in What::ALL {
                let key = Key::back_to_back(what.label(), size).ordered(order);
                self.criterion(group, key, &mut crowd.ask(what));
            }
            if order == Order::Random {
                self.random_order_only(group, size, &crowd);
            }
        }
    }

    fn reference(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        size: u32,
        order: Order,
        sessions: &[SessionId],
        asked: &[SessionId],
    ) {
        let mut rival = Rival::new(sessions, asked);
        let key = Key::back_to_back(results::REFERENCE, size).ordered(order);
        self.criterion(group, key, &mut rival);
        // At a million a tick of it takes longer than half a second.
        if order == Order::Random && size < 1_000_000 {
            let key = key.at(Pace::SixtyHertz);
            let ticks = if size < 100_000 { TICKS } else { LONG_TICKS };
            self.paced(key, &mut rival, ticks);
        }
    }

    fn random_order_only(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        size: u32,
        crowd: &Crowd,
    ) {
        for what in [What::Verify, What::Batch, What::Pass, What::TickAnswers] {
            let key = Key::back_to_back(what.label(), size).at(Pace::SixtyHertz);
            self.paced(key, &mut crowd.ask(what), TICKS);
        }
        if !COMPANY_SIZES.contains(&size) {
            return;
        }
        let mut lookups = BySession::new(&crowd.table, &crowd.asked);
        let key = Key::back_to_back(results::BY_SESSION, size);
        self.criterion(group, key, &mut lookups);
        for company in [Company::Verifier, Company::Writer] {
            for what in [What::Verify, What::Batch, What::TickAnswers] {
                let key = Key::back_to_back(what.label(), size).beside(company);
                if self.filter.measures && self.filter.wants(&key.name()) {
                    // A company that falls behind says so; the figure stays, as there is no way to take it back from Criterion.
                    company.beside(crowd, || {
                        self.criterion(group, key, &mut crowd.ask(what));
                    });
                }
            }
        }
    }
}

/// Bytes a seat by a counting allocator.
fn weigh(results: &mut Results) {
    let sessions = sessions(WEIGHED);
    let each = |bytes: f64| bytes / f64::from(WEIGHED);
    let (_, bytes) = held(|| Rival::new(&sessions, &[]));
    results.weigh("the reference, with its one index", each(bytes));
    let (_, bytes) = held(|| ConcurrentMap::new(&sessions, &[]));
    results.weigh("DashMap from session to slot alone", each(bytes));
    let (table, bytes) = held(|| {
        let table = empty(WEIGHED);
        seat(&table, &sessions);
        table
    });
    results.weigh("seat table, with both indexes", each(bytes));
    results.weigh(
        "of it: what verify, touch and pass read",
        each(table.floor_bytes() as f64),
    );
    results.weigh(
        "of it: the look-up by session",
        each(table.index_bytes() as f64),
    );
}

/// Writes the tables into PERFORMANCE.md, and the chart beside it.
fn render(folder: &Path, results: &Results) -> io::Result<()> {
    let document = folder.join("PERFORMANCE.md");
    let text = fs::read_to_string(&document)?;
    let tables = tables::markdown(results, &rig::machine::describe());
    fs::write(
        &document,
        rig::markers::replace(&text, "session_table", &tables)?,
    )?;
    let chart = chart::svg(results, &rig::machine::describe());
    fs::write(folder.join("verify.svg"), chart)
}

fn main() -> io::Result<()> {
    let filter = Filter::from_arguments();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
        .configure_from_args();
    let results = RefCell::new(Results::default());
    let bench = Bench {
        filter: &filter,
        results: &results,
    };
    let mut group = criterion.benchmark_group("session_table");
    group.sampling_mode(SamplingMode::Flat);
    for size in SIZES {
        // Tables of a million take seconds to fill.
        if filter.words.is_empty() || Key::all_of(size).any(|key| filter.wants(&key.name())) {
            bench.size(&mut group, size);
        }
    }
    group.finish();
    criterion.final_summary();
    if !filter.measures {
        return Ok(());
    }
    let mut results = results.into_inner();
    if filter.words.is_empty() {
        weigh(&mut results);
    }
    println!(
        "\n{}",
        tables::markdown(&results, &rig::machine::describe())
    );
    match std::env::var_os("TICKGATE_RENDER") {
        Some(_) if !filter.words.is_empty() => Err(io::Error::other(
            "TICKGATE_RENDER: figures that leave something out are not rendered",
        )),
        Some(folder) => render(Path::new(&folder), &results),
        None => Ok(()),
    }
}
