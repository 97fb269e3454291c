//! Bytes by a counting allocator.

use super::claims;
use crate::{
    bar::Figure,
    reference::{Reference, WallClock},
    report::{Report, progress},
    rig::{
        crowd::{empty, seat, sessions},
        memory::held,
    },
};

const SEATS: u32 = 100_000;

/// A table is filled as players come, has run for two windows, and is then weighed; the reference is filled with the same sessions.
pub(super) fn measure(report: &mut Report) {
    let bars = [claims::BYTES_PER_SEAT.name, claims::BYTES_PER_SLOT.name];
    if !report.wants_any(&bars) {
        return;
    }
    progress("bytes");
    let sessions = sessions(SEATS);
    let (table, bytes) = held(|| {
        let table = empty(SEATS);
        seat(&table, &sessions);
        table
    });
    let (reference, theirs) = held(|| {
        let reference = Reference::new(WallClock);
        for session in &sessions {
            reference.log_in(session.to_string());
        }
        reference
    });
    assert_eq!(reference.kept(), table.len());

    let note = format!("{} slots for {SEATS} seats", table.slots());
    let each = bytes / f64::from(SEATS);
    report.bar(&claims::BYTES_PER_SEAT, Figure::exact(each, note.as_str()));
    let floor = table.floor_bytes() as f64;
    assert!(floor < bytes, "the floor is a part of the table");
    let each = floor / f64::from(table.slots());
    report.bar(&claims::BYTES_PER_SLOT, Figure::exact(each, note));
    let each = theirs / f64::from(SEATS);
    let note = "the reference, with its one index, weighed in the same way";
    report.info("bytes-per-seat-reference", Figure::exact(each, note));
}
