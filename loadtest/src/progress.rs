//! What is going on, while it goes on: one line that changes on a terminal, a line a second elsewhere. Always on standard error.

use std::{
    fmt,
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::table::{micros, thousands};

/// Counts that all threads add to and the progress line shows. For show only: the report has its own.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Players logged in.
    pub(crate) logged_in: AtomicU64,
    /// Players admitted.
    pub(crate) admitted: AtomicU64,
    /// Players connected now.
    pub(crate) connected: AtomicU64,
    /// Inputs sent.
    pub(crate) sent: AtomicU64,
    /// Inputs acknowledged.
    pub(crate) acked: AtomicU64,
    /// The last second's p99 from the due instant, in microseconds, of the thread where it was worst.
    pub(crate) p99_us: AtomicU64,
    /// Revoked players that saw their close.
    pub(crate) revoked: AtomicU64,
    /// Villains that were refused.
    pub(crate) refused: AtomicU64,
    /// Villains that were let in.
    pub(crate) wrongly_admitted: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Starting the stack, or finding it.
    Starting,
    /// Logging players in.
    LoggingIn,
    /// Connecting players.
    Connecting,
    /// Playing.
    Playing,
    /// Waiting for the last answers, revocations and villains.
    Finishing,
}

/// The line, as told so far.
pub(crate) struct Progress {
    live: Arc<Live>,
    clients: u64,
    shown: Shown,
    /// Counts at the last line: rates are differences.
    last: (u64, u64),
}

enum Shown {
    /// Nothing: asked to be quiet.
    Not,
    /// A line that changes.
    Bar(ProgressBar),
    /// A line a second.
    Lines,
}

/// How often a line is told.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

impl Progress {
    /// A line about `clients` players.
    pub(crate) fn new(live: Arc<Live>, clients: u32, quiet: bool) -> Self {
        let shown = if quiet {
            Shown::Not
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let spinner = ProgressStyle::with_template("{spinner} {elapsed:>4}  {msg}");
            bar.set_style(spinner.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            Shown::Bar(bar)
        } else {
            Shown::Lines
        };
        Self {
            live,
            clients: clients.into(),
            shown,
            last: (0, 0),
        }
    }

    /// Tells where the run is. To be called every [`EVERY`]: rates are per call.
    pub(crate) fn tell(&mut self, phase: Phase) {
        let line = Line::of(phase, &self.live, self.clients, &mut self.last);
        match &self.shown {
            Shown::Not => {}
            Shown::Bar(bar) => {
                bar.set_message(line.to_string());
                bar.tick();
            }
            Shown::Lines => {
                // Nobody is left to tell when standard error is gone.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// One line's figures.
struct Line {
    phase: Phase,
    clients: u64,
    logged_in: u64,
    admitted: u64,
    connected: u64,
    sent_per_second: u64,
    acked_per_second: u64,
    p99_us: u64,
    revoked: u64,
    refused: u64,
    wrongly_admitted: u64,
}

impl Line {
    fn of(phase: Phase, live: &Live, clients: u64, last: &mut (u64, u64)) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (sent, acked) = (read(&live.sent), read(&live.acked));
        let (sent_before, acked_before) = std::mem::replace(last, (sent, acked));
        Self {
            phase,
            clients,
            logged_in: read(&live.logged_in),
            admitted: read(&live.admitted),
            connected: read(&live.connected),
            sent_per_second: sent - sent_before,
            acked_per_second: acked - acked_before,
            // Each thread writes its own; taking it makes room for the worst of the next second.
            p99_us: live.p99_us.swap(0, Ordering::Relaxed),
            revoked: read(&live.revoked),
            refused: read(&live.refused),
            wrongly_admitted: read(&live.wrongly_admitted),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_clients = |count| format!("{} of {}", thousands(count), thousands(self.clients));
        match self.phase {
            Phase::Starting => f.write_str("starting the stack"),
            Phase::LoggingIn => write!(f, "logging in   {}", of_clients(self.logged_in)),
            Phase::Connecting => write!(f, "connecting   {}", of_clients(self.admitted)),
            Phase::Playing | Phase::Finishing => {
                let what = if self.phase == Phase::Playing {
                    "playing  "
                } else {
                    "finishing"
                };
                write!(
                    f,
                    "{what}    {} live, {} sent/s, {} answered/s",
                    thousands(self.connected),
                    thousands(self.sent_per_second),
                    thousands(self.acked_per_second),
                )?;
                if self.p99_us > 0 {
                    write!(f, ", p99 {}", micros(self.p99_us))?;
                }
                write!(
                    f,
                    ", {} revoked, {} villains refused",
                    self.revoked, self.refused
                )?;
                if self.wrongly_admitted > 0 {
                    write!(f, ", {} LET IN", self.wrongly_admitted)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rates_and_takes_the_worst_p99() {
        let live = Live::default();
        let mut last = (0, 0);
        live.sent.store(10_000, Ordering::Relaxed);
        Line::of(Phase::Playing, &live, 1_000, &mut last);
        live.sent.store(20_500, Ordering::Relaxed);
        live.p99_us.store(17_000, Ordering::Relaxed);
        let line = Line::of(Phase::Playing, &live, 1_000, &mut last).to_string();
        assert!(line.contains("10,500 sent/s"), "{line}");
        assert!(line.contains("p99 17.00 ms"), "{line}");
        assert!(!line.contains("LET IN"), "{line}");
        count(&live.wrongly_admitted);
        let line = Line::of(Phase::Playing, &live, 1_000, &mut last).to_string();
        assert!(!line.contains("p99") && line.contains("1 LET IN"), "{line}");
    }
}
