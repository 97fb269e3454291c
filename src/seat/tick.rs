//! The tick pass: writes out the activity that is due, ends what is due, hands over what happened.

use super::{
    EndReason, TickReport,
    books::{Berth, Books, Floor, Seat},
    slot::Slot,
};
use crate::{
    clock::Timestamp,
    id::{SessionId, Tick},
};

impl Books {
    pub(super) fn tick(
        &mut self,
        floor: &Floor,
        tick: Tick,
        now: Timestamp,
        report: &mut TickReport,
    ) {
        let TickReport { changes, active } = report;
        changes.clear();
        active.clear();
        self.write_out_due(floor, tick, now, active);
        // Deadlines are enforced within one second, so that it is enough to look when the second changes.
        let second = now.0 / 1_000;
        if self.swept != Some(second) {
            self.swept = Some(second);
            self.end_due(floor, tick, now, active);
        }
        self.end_lost(floor, now);
        self.hand_over(changes);
    }

    /// Writes out the marked seats of each phase since the last pass: about N/window of N.
    fn write_out_due(
        &mut self,
        floor: &Floor,
        tick: Tick,
        now: Timestamp,
        active: &mut Vec<SessionId>,
    ) {
        let Self {
            phases,
            berths,
            window,
            last_tick,
            ..
        } = self;
        for slot in phases.due(*last_tick, tick) {
            if let Some(Berth {
                generation,
                seat: Some(seat),
            }) = berths.get_mut(slot as usize)
                && let Some(word) = floor.slot(slot)
            {
                seat.write_out(word, *generation, *window, tick, now, active);
            }
        }
        *last_tick = Some(tick);
    }

    /// Ends the seats whose absolute end has come, and those that were not active for the idle timeout. A pass over all slots.
    fn end_due(&mut self, floor: &Floor, tick: Tick, now: Timestamp, active: &mut Vec<SessionId>) {
        let (idle, window) = (self.idle, self.window);
        for (slot, word) in (0..).zip(&floor.slots) {
            let Some(berth) = self.berths.get_mut(slot as usize) else {
                break;
            };
            let (generation, Some(seat)) = (berth.generation, &mut berth.seat) else {
                continue;
            };
            let reason = if now >= seat.ends_at {
                EndReason::Expired
            } else if now < seat.active_at.after(idle) {
                continue;
            } else if seat.is_suspended() || word.end_unmarked(generation) {
                // A suspended seat's mark is counted in already.
                EndReason::Idle
            } else {
                // Touched since, and its phase is still to come: that is activity, as of now.
                seat.active_at = now;
                seat.write_out(word, generation, window, tick, now, active);
                continue;
            };
            self.end_and_close(floor, slot, reason);
        }
    }

    /// Ends the suspended seats whose grace is over. They stand in order, so that a tick on which none is due costs one look.
    fn end_lost(&mut self, floor: &Floor, now: Timestamp) {
        while let Some((end, slot)) = self.graces.first().copied()
            && end <= now
            && self.end_and_close(floor, slot, EndReason::Lost)
        {}
    }
}

impl Seat {
    /// Writes out the activity of a marked seat, unless that was done less than a window ago; then the mark stays for the next
    /// time. (That happens after skipped ticks, when seats are written out later than their phase.)
    fn write_out(
        &mut self,
        word: &Slot,
        generation: u32,
        window: u64,
        tick: Tick,
        now: Timestamp,
        active: &mut Vec<SessionId>,
    ) {
        let passed = self
            .written
            .and_then(|written| tick.0.checked_sub(written.0));
        if passed.is_some_and(|passed| passed < window) || !word.take_mark(generation) {
            return;
        }
        self.written = Some(tick);
        if !self.is_suspended() {
            self.active_at = self.active_at.max(now);
        }
        active.push(self.session);
    }
}
