//! The tick pass: writes out the activity that is due, ends what is due by time, hands over what happened.
//!
//! ```text
//! ├─ write out   the blocks of the phases since the last pass    marks, words, sessions, last activity      no lock
//! ├─ sweep       the share of the table whose turn it is         earliest deadlines of 64; who is due is ended            books, per 64 slots, if any is due
//! ├─ graces      the suspended seats whose grace is over         one time; who is due is ended              books, per 64 seats, if any is due
//! └─ hand over   what the journal has                            swaps two buffers                          journal
//! ```
//!
//! So a tick on which nobody ends by time waits for nobody but the last push into the journal, whatever the workers do.

use std::ops::Range;

use super::{
    EndReason, TickReport,
    books::Books,
    era::Due,
    fault::{Fault, is_planted},
    floor::{GROUP, Overdue},
    hall::Hall,
    layout::Layout,
    phases::Phases,
    sync::{Mutex, lock},
};
use crate::{
    clock::Timestamp,
    id::{SessionId, Tick},
};

/// In milliseconds: how often each slot is looked at for deadlines, in the steps of a clock that ticks often enough.
///
/// A due end waits for its slot's turn for so long at most, then for the tick, and its deadline was rounded up by less than 100 ms:
/// together less than a second where a tick comes every 200 ms.
const SWEEP: u64 = 700;

/// In milliseconds: after so long without a pass, each slot is looked at.
const LONG_AGO: u64 = 200;

/// How many graces are ended at once.
const PORTION: usize = 64;

/// What passes know of those before. Passes come one after the other.
pub(super) struct Pass {
    phases: Phases,
    /// As slots per block.
    block: usize,
    last: Option<Timestamp>,
}

impl Pass {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            phases: Phases::new(layout),
            block: layout.block as usize,
            last: None,
        }
    }

    pub(super) fn run(
        &mut self,
        hall: &Hall,
        books: &Mutex<Books>,
        tick: Tick,
        now: Timestamp,
        report: &mut TickReport,
    ) {
        let TickReport {
            changes,
            active,
            pass,
        } = report;
        changes.clear();
        active.clear();
        hall.era.begin(now);
        self.phases.follow(&hall.deals);
        self.write_out(hall, tick, now, active);
        self.sweep(hall, books, now);
        end_lost(hall, books, now);
        lock(&hall.journal).hand_over(changes);
        // Views of the last report are void before anybody new is shown.
        let number = hall.count_pass();
        for change in &*changes {
            hall.floor.tell(change);
        }
        *pass = number;
    }

    /// Writes out the marked seats of each phase since the last pass: about N/window of N.
    fn write_out(&mut self, hall: &Hall, tick: Tick, now: Timestamp, active: &mut Vec<SessionId>) {
        let (now, slots) = (hall.era.round_up(now), self.block);
        self.phases.due(tick, |block| {
            let first = block as usize * slots;
            hall.floor.write_out(first..first + slots, now, active);
        });
    }

    /// Ends the seats whose absolute end has come, and those that were not active for the idle timeout, in the part of the table
    /// whose turn has come since the last pass.
    fn sweep(&mut self, hall: &Hall, books: &Mutex<Books>, now: Timestamp) {
        let is_to_sweep_all = hall.is_to_sweep_all();
        let due = hall.era.due(now, hall.idle());
        let turn = match self.last {
            _ if is_to_sweep_all => None,
            Some(last) if now.0.saturating_sub(last.0) < LONG_AGO => Some((last, now.max(last))),
            Some(_) | None => None,
        };
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
        let groups = hall.floor.groups();
        let Some((last, now)) = turn else {
            end_due(hall, books, due, 0..groups);
            return;
        };
        // A group's turn comes at a fixed time of each period, so that it comes again after one, however the passes fall.
        let turn = |at: Timestamp| (at.0 % SWEEP * groups as u64 / SWEEP) as usize;
        let (from, to) = (turn(last), turn(now));
        if last.0 / SWEEP == now.0 / SWEEP {
            end_due(hall, books, due, from..to);
        } else {
            end_due(hall, books, due, from..groups);
            if !is_planted(Fault::LooksAway) {
                end_due(hall, books, due, 0..to);
            }
        }
    }
}

/// Ends the seats that are due in these groups, as far as slots were ever used.
fn end_due(hall: &Hall, books: &Mutex<Books>, due: Due, groups: Range<usize>) {
    let used = (hall.slots_dealt() as usize).div_ceil(GROUP);
    for group in groups.start..groups.end.min(used) {
        let found = hall.floor.look(group, due);
        if found == 0 {
            continue;
        }
        let slots = || {
            (0..GROUP)
                .filter(move |bit| found >> bit & 1 != 0)
                .filter_map(move |bit| u32::try_from(group * GROUP + bit).ok())
        };
        // Without the lock first: most of what is found was active since, and is about to be written out.
        if slots().any(|slot| hall.floor.overdue(slot, due).is_some()) {
            let mut books = lock(books);
            for slot in slots() {
                let overdue = if is_planted(Fault::EndsUnchecked) {
                    Some(Overdue::Idle)
                } else {
                    hall.floor.overdue(slot, due)
                };
                let reason = match overdue {
                    Some(Overdue::Expired) => EndReason::Expired,
                    Some(Overdue::Idle) => EndReason::Idle,
                    None => continue,
                };
                books.end_and_close(hall, slot, reason);
            }
        }
    }
}

/// Ends the suspended seats whose grace is over. They stand in order, so that a tick on which none is due costs one look.
fn end_lost(hall: &Hall, books: &Mutex<Books>, now: Timestamp) {
    while hall.next_grace_end() <= now {
        let mut books = lock(books);
        for _ in 0..PORTION {
            match books.first_grace() {
                Some((end, slot)) if end <= now => {
                    books.end_and_close(hall, slot, EndReason::Lost);
                }
                // Or somebody came back just now.
                Some(_) | None => return,
            }
        }
    }
}
