//! Tickgate's gateway measured beside its peers, each server a process of its own on one processor and the clients on another.
//!
//! `scripts/bars admission | datagrams | memory` builds and runs this; README.md says what is measured and how.

mod admission;
#[allow(dead_code, reason = "the groups of the benchmarks use the rest of it")]
#[path = "../../benches/bars/bar.rs"]
mod bar;
mod capacity;
mod clients;
#[path = "../../benches/bars/command.rs"]
mod command;
mod cores;
mod datagrams;
mod echo;
mod load;
mod memory;
mod process;
mod quota;
#[path = "../../benches/bars/report.rs"]
mod report;
mod rig;
mod server;
mod tls;
mod tokens;

use std::process::ExitCode;

use anyhow::Context;
use command::{Command, Run};
use cores::Cores;
use report::{Group, Report, progress};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(all(feature = "jemalloc", not(feature = "mimalloc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// All groups, in the order in which they run.
const GROUPS: &[Group] = &[admission::GROUP, datagrams::GROUP, memory::GROUP];
/// Interleaved pairs, unless `TICKGATE_PAIRS` says otherwise.
const PAIRS: usize = 9;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("serve") {
        return match serve(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match command::parse(first.into_iter().chain(arguments), GROUPS) {
        Ok(Command::Help) => {
            command::print_help(GROUPS);
            ExitCode::SUCCESS
        }
        Ok(Command::List) => {
            command::print_list(GROUPS);
            ExitCode::SUCCESS
        }
        Ok(Command::Run(run)) => measure(&run),
        Err(wrong) => {
            eprintln!("scripts/bars: {wrong}. See scripts/bars --help");
            ExitCode::from(2)
        }
    }
}

fn serve(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut word = || arguments.next().context("serve KIND CORE");
    let (kind, core) = (word()?.parse()?, word()?.parse()?);
    server::serve(kind, core)
}

fn measure(run: &Run) -> ExitCode {
    progress(&rig::machine::describe());
    let mut report = Report::new(run.json, run.only.clone());
    let mut short = Vec::new();
    for group in &run.groups {
        progress(&format!("group {}: {}", group.name, group.about));
        (group.run)(&mut report);
        short.extend(report.short(group).map(str::to_owned));
    }
    if let Some(file) = &run.render
        && let Err(error) = command::render(file, "peers", report.lines.iter())
    {
        eprintln!("scripts/bars: {file}: {error}");
        return ExitCode::from(2);
    }
    short.sort_unstable();
    short.dedup();
    if short.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("-- short: {}", short.join(", "));
    ExitCode::FAILURE
}

/// Measures a group, on the generator's own processor. A measurement that fails leaves its bars out, and so they are short.
fn run(
    report: &mut Report,
    group: &str,
    measure: fn(&mut Report, Cores, usize) -> anyhow::Result<()>,
) {
    let pairs = std::env::var("TICKGATE_PAIRS").ok();
    let pairs = pairs.and_then(|text| text.parse().ok()).unwrap_or(PAIRS);
    let measured = Cores::of_this_program().and_then(|cores| {
        cores::pin(cores.generator)?;
        measure(report, cores, pairs)
    });
    if let Err(error) = measured {
        progress(&format!("{group} was not measured: {error:#}"));
    }
}
