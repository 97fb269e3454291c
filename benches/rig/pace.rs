//! Ticks as a game runs them, 60 to the second: between two of them the thread sleeps, and what it finds when it wakes is as cold as
//! the machine has left it. That costs several times what the same pass costs back to back, and is what a game pays.

use std::time::Duration;

use super::{
    Subject,
    stopwatch::{self, nanos},
};

/// From tick to tick at 60 Hz.
pub(crate) const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);
/// Ticks at the start that are not counted: they find the caches as the subject before left them.
const UNCOUNTED: u32 = 6;

/// Runs one pass on each of `ticks` ticks, and returns how long each took, in nanoseconds.
///
/// What a pass needs is prepared before the sleep, so that it warms no cache for it. A pass that takes longer than a tick delays the
/// next one; none is skipped.
pub(crate) fn paced(subject: &mut dyn Subject, ticks: u32) -> Vec<f64> {
    let mut due = stopwatch::start();
    let mut samples = Vec::with_capacity(ticks as usize);
    for tick in 0..UNCOUNTED + ticks {
        subject.prepare();
        due = (due + TICK).max(stopwatch::start());
        stopwatch::sleep_until(due);
        let started = stopwatch::start();
        subject.pass();
        let took = started.elapsed();
        if tick >= UNCOUNTED {
            samples.push(nanos(took));
        }
    }
    samples
}
