//! Where the groups put what they measured: printed at once, kept for the verdict.

use std::{collections::BTreeSet, sync::OnceLock, time::Instant};

use super::bar::{Bar, Figure, Line};
use crate::rig::stopwatch;

/// Bars that belong together and are measured together.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// All that it claims. A bar that a run leaves out is short.
    pub(crate) bars: &'static [&'static Bar],
    pub(crate) run: fn(&mut Report),
}

/// What came of a run.
pub(crate) struct Report {
    json: bool,
    /// Parts of names: what to measure. Everything if empty.
    only: Vec<String>,
    pub(crate) lines: Vec<Line>,
    measured: BTreeSet<&'static str>,
}

impl Report {
    pub(crate) fn new(json: bool, only: Vec<String>) -> Self {
        Self {
            json,
            only,
            lines: Vec::new(),
            measured: BTreeSet::new(),
        }
    }

    /// Whether something of this name is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// Whether one of these is.
    pub(crate) fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// A claim was measured.
    pub(crate) fn bar(&mut self, bar: &'static Bar, figure: Figure) {
        if self.wants(bar.name) {
            self.measured.insert(bar.name);
            self.line(Line {
                name: bar.name.to_owned(),
                bound: Some(bar.bound),
                figure,
            });
        }
    }

    /// Something was measured that nothing is claimed about.
    pub(crate) fn info(&mut self, name: impl Into<String>, figure: Figure) {
        self.line(Line {
            name: name.into(),
            bound: None,
            figure,
        });
    }

    #[expect(clippy::print_stdout, reason = "the lines are what it is for")]
    fn line(&mut self, line: Line) {
        if self.json {
            println!("{}", line.to_json());
        } else {
            println!("{line}");
        }
        self.lines.push(line);
    }

    /// The bars of `group` that are short, and those that it left out.
    pub(crate) fn short<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a str> {
        let missing = group
            .bars
            .iter()
            .map(|bar| bar.name)
            .filter(|name| self.wants(name) && !self.measured.contains(name));
        let short = self.lines.iter().filter(|line| !line.holds());
        short.map(|line| line.name.as_str()).chain(missing)
    }
}

/// Says on stderr what is going on, and how many seconds after the first that was said.
pub(crate) fn progress(what: &str) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let seconds = FIRST.get_or_init(stopwatch::start).elapsed().as_secs();
    eprintln!("-- {seconds:>3} s  {what}");
}
