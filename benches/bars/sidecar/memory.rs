//! What a live session costs the sidecar in memory.

use super::{claims, stage::Stage};
use crate::{
    bar::Figure,
    report::{Report, progress},
};

const SESSIONS: usize = 100_000;

pub(super) fn measure(report: &mut Report) {
    let bar = &claims::BYTES_PER_SESSION;
    progress(bar.name);
    let stage = Stage::of(&["one"], "");
    // Connections and threads have their memory before it counts.
    drop(stage.sessions(1_000));
    let before = stage.anonymous_bytes();
    let sessions = stage.sessions(SESSIONS).len() as f64;
    let grown = stage.anonymous_bytes() - before;
    let note = format!(
        "{:.0} MiB more for {SESSIONS} sessions; {:.0} MiB before, with 1000",
        grown / f64::from(1 << 20),
        before / f64::from(1 << 20),
    );
    report.bar(bar, Figure::exact(grown / sessions, note));
}
