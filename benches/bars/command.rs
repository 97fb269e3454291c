//! The command line of the bars, and what it prints without measuring.
#![expect(clippy::print_stdout, reason = "help and lists are printed")]

use std::{fs, io};

use super::{bar::Line, report::Group};
use crate::rig::{machine, markers};

/// What is asked for.
pub(crate) enum Command {
    Help,
    List,
    Run(Run),
}

/// What to measure, and where to.
pub(crate) struct Run {
    pub(crate) groups: Vec<&'static Group>,
    pub(crate) only: Vec<String>,
    pub(crate) json: bool,
    /// A Markdown file whose table of bars is to be written anew.
    pub(crate) render: Option<String>,
}

const HELP: &str = "\
Measures what the project claims about its performance, and says of each claim whether it holds here and now.

Usage: scripts/bars [GROUP...] [--only TEXT] [--json] [--pin CPUS] [--render]
       scripts/bars --list

  GROUP        measure these groups alone; all of them without
  --only TEXT  measure what has TEXT in its name alone (may be given several times)
  --json       one JSON object a line instead of text
  --list       the bars and what they say, without measuring
  --pin CPUS   keep the whole run on these processors, as in 0-1; nothing is pinned otherwise
  --render     afterwards write tables and charts of all measurements into docs/ (takes about twelve minutes)

One line for each claim goes to standard output, progress to standard error:

  bar NAME VALUE BOUND ok|short   (least..most of N pairs; what was measured)

A ratio is the median of at least 9 pairs in which the baseline and ours take turns, so that a machine that slows down meets both.
`info` lines stand beside the claims, without a bound. Let nothing else run meanwhile: a p99 is mostly about what else does.

Exit code: 0 if every bar holds, 1 if one is short or was left out, 2 if it was called wrongly.

Groups:
";

pub(crate) fn print_help(groups: &[Group]) {
    print!("{HELP}");
    for group in groups {
        println!("  {:<12} {}", group.name, group.about);
    }
}

pub(crate) fn print_list(groups: &[Group]) {
    for group in groups {
        println!("{}: {}", group.name, group.about);
        for bar in group.bars {
            println!(
                "  {:<28} {:>6}  {}",
                bar.name,
                bar.bound.to_string(),
                bar.about
            );
        }
    }
}

/// Reads the arguments; `Err` says what is wrong with them.
pub(crate) fn parse(
    mut arguments: impl Iterator<Item = String>,
    groups: &'static [Group],
) -> Result<Command, String> {
    let mut run = Run {
        groups: Vec::new(),
        only: Vec::new(),
        json: false,
        render: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} what?"));
        match argument.as_str() {
            "--help" | "-h" | "help" => return Ok(Command::Help),
            "--list" => return Ok(Command::List),
            "--json" => run.json = true,
            "--only" => run.only.push(value()?),
            "--render" => run.render = Some(value()?),
            // What `cargo bench` says to every benchmark.
            "--bench" => {}
            option if option.starts_with('-') => return Err(format!("no option {option}")),
            name => match groups.iter().find(|group| group.name == name) {
                Some(group) => run.groups.push(group),
                None => return Err(format!("no group {name}")),
            },
        }
    }
    if run.groups.is_empty() {
        run.groups = groups.iter().collect();
    }
    Ok(Command::Run(run))
}

/// Writes a table of these lines into a Markdown file, between the markers of this name.
pub(crate) fn render<'a>(
    file: &str,
    section: &str,
    lines: impl Iterator<Item = &'a Line>,
) -> io::Result<()> {
    let mut table = format!(
        "On {}.\n\n| | value | bound | | spread | |\n|---|---:|---:|---|---|---|\n",
        machine::describe()
    );
    for line in lines {
        table += &line.to_markdown();
        table.push('\n');
    }
    let text = fs::read_to_string(file)?;
    fs::write(file, markers::replace(&text, section, &table)?)
}
