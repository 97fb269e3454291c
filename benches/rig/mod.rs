//! The rig that the benchmarks of the seat table share: crowds of sessions, what is asked of them, company for it, and time.
//!
//! A crowd is the same sessions for the reference and for our table, asked in the same order. [`Crowd::ask`] runs one subject;
//! [`company`] lets other threads work on the table meanwhile; [`pace`] runs ticks as a game does, 60 to the second.

#![allow(
    dead_code,
    reason = "each of the targets that share this module uses a part of it"
)]

pub(crate) mod company;
pub(crate) mod crowd;
pub(crate) mod index;
pub(crate) mod machine;
pub(crate) mod markers;
pub(crate) mod memory;
pub(crate) mod pace;
pub(crate) mod rival;
pub(crate) mod stopwatch;

use std::time::Duration;

/// Something to be measured, which knows which part of itself counts.
pub(crate) trait Subject {
    /// What goes before a pass and is not measured.
    fn prepare(&mut self) {}

    /// Whether every pass has to be prepared, and so to be timed by itself. Otherwise passes that stand back to back are timed as one.
    fn is_prepared(&self) -> bool {
        false
    }

    /// One pass over the crowd.
    fn pass(&mut self);

    /// So many passes back to back, and how long they took.
    fn run(&mut self, passes: u64) -> Duration {
        if self.is_prepared() {
            return (0..passes).map(|_| self.once()).sum();
        }
        self.prepare();
        let started = stopwatch::start();
        for _ in 0..passes {
            self.pass();
        }
        started.elapsed()
    }

    /// One pass, prepared, and how long it took.
    fn once(&mut self) -> Duration {
        self.prepare();
        let started = stopwatch::start();
        self.pass();
        started.elapsed()
    }
}

/// Nanoseconds of one pass: the mean of as many, back to back, as fit into about `span`, after one that is not counted.
pub(crate) fn mean_pass(subject: &mut dyn Subject, span: Duration) -> f64 {
    let started = stopwatch::start();
    subject.once();
    // With what prepares it, which may take longer than the pass itself.
    let whole = started.elapsed().max(Duration::from_nanos(1));
    let passes = (span.as_nanos() / whole.as_nanos()).clamp(1, 1 << 20) as u64;
    stopwatch::nanos(subject.run(passes)) / passes as f64
}
