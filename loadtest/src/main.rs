//! `loadtest`: simulates thousands of game clients against Tickgate and tells the truth about what it measured.
//!
//! ```text
//! cli ─► run ─► target (stack: a child process, or a running one)
//!         │
//!         ├──► logins, plan ─► fleet ─► fleet_thread × cores ─► players ─► measure
//!         │                      due_timer ┘                in_flight ┘
//!         ├──► villains (scene), revocations
//!         └──► assemble (guard) ─► report ─► table, JSON
//! ```

mod assemble;
mod busy_meter;
mod cli;
mod cores;
mod due_timer;
mod fleet;
mod fleet_thread;
mod guard;
mod in_flight;
mod inquest;
mod logins;
mod measure;
mod output;
mod plan;
mod players;
mod procfs;
mod progress;
mod report;
mod revocations;
mod run;
mod scene;
mod stack;
mod table;
mod target;
mod villains;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().into_command() {
        Command::Run(args) => output::run_and_report(&args),
        Command::DevStack(args) => stack::run_as_stack(args),
    }
}
