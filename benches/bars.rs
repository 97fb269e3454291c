//! Every claim that the project makes about its performance, measured: `bar NAME VALUE BOUND ok|short`, one line each.
//!
//! `scripts/bars` builds and runs this. A group of bars is a module under bars/ and a line in [`GROUPS`].

#![expect(
    clippy::panic,
    reason = "a benchmark that finds its subject broken ends there"
)]

#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark that finds its subject broken ends there"
)]
#[path = "bars/abuse/mod.rs"]
mod abuse;
#[path = "bars/bar.rs"]
mod bar;
#[path = "bars/command.rs"]
mod command;
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that finds its subject broken ends there"
)]
#[path = "bars/fleet/mod.rs"]
mod fleet;
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    reason = "what the tests start their processes by"
)]
#[path = "../tests/support/process.rs"]
mod process;
#[path = "reference/mod.rs"]
mod reference;
#[path = "bars/report.rs"]
mod report;
#[path = "rig/mod.rs"]
mod rig;
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that finds its subject broken ends there"
)]
#[path = "bars/sidecar/mod.rs"]
mod sidecar;
#[path = "bars/verify/mod.rs"]
mod verify;
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that finds its subject broken ends there"
)]
#[path = "bars/workers/mod.rs"]
mod workers;

use std::process::ExitCode;

use command::{Command, Run};
use report::{Group, Report, progress};

/// All groups, in the order in which they run.
const GROUPS: &[Group] = &[
    verify::GROUP,
    sidecar::GROUP,
    fleet::GROUP,
    workers::GROUP,
    abuse::GROUP,
    abuse::hold::GROUP,
];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(fleet::AS_SERVER) {
        fleet::serve();
        return ExitCode::SUCCESS;
    }
    match command::parse(std::env::args().skip(1), GROUPS) {
        Ok(Command::Help) => {
            command::print_help(GROUPS);
            ExitCode::SUCCESS
        }
        Ok(Command::List) => {
            command::print_list(GROUPS);
            ExitCode::SUCCESS
        }
        Ok(Command::Run(run)) => measure(run),
        Err(wrong) => {
            eprintln!("scripts/bars: {wrong}. See scripts/bars --help");
            ExitCode::from(2)
        }
    }
}

fn measure(run: Run) -> ExitCode {
    progress(&rig::machine::describe());
    if let Some(load) = rig::machine::load().filter(|load| *load > 0.5) {
        progress(&format!(
            "this machine is busy (load {load}): ratios hold better than times, and p99 not at all"
        ));
    }
    let mut report = Report::new(run.json, run.only);
    let mut short = Vec::new();
    for group in &run.groups {
        progress(&format!("group {}: {}", group.name, group.about));
        (group.run)(&mut report);
        short.extend(report.short(group).map(str::to_owned));
    }
    // What claims nothing stands in other tables.
    let claims = report.lines.iter().filter(|line| line.bound.is_some());
    if let Some(file) = &run.render
        && let Err(error) = command::render(file, "bars", claims)
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
