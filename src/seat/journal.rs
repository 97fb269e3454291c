//! The changes that the simulation has not been told yet.

use super::{
    EndReason, Handle, Joined, SeatChange,
    fault::{Fault, is_planted},
};
use crate::id::{ClientId, SessionId};

/// Changes since the last tick, each seat's in order of occurrence.
///
/// Bounded by construction, however often a seat is suspended and resumed between two ticks. A seat's entries are at most: its
/// join, or else the resumption that follows a suspension told before; one more that says whether it is suspended now or which
/// worker serves it, and is written over when that changes; its end. A slot gets its next seat only after the end of the last one
/// was handed over. So there are at most three entries per slot. [`SeatChange`] has the table.
///
/// It has a lock of its own, under which nothing is done but to push an entry or to swap buffers: a tick that takes the changes waits
/// for that at most.
#[derive(Debug)]
pub(super) struct Journal {
    changes: Vec<SeatChange>,
    /// The slots of the ends among them.
    ended: Vec<u32>,
    /// Slots whose last seat's end was handed over, not taken back yet.
    free: Vec<u32>,
    /// A buffer of more entries than this is given up when the storm that filled it is over.
    keep: usize,
}

/// Where the last change of a seat stands, as a record keeps it: handed over, or not.
///
/// It needs no number of the volume that it stands in: what stands in that place of another volume is not of the same seat, or its
/// entry would have been replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

impl Entry {
    pub(super) const NONE: Self = Self(u32::MAX);

    /// Whether the seat was live before, as it is told. Only then may the entry be turned into a suspension.
    const WAS_LIVE: u32 = 1;

    /// Three entries for each of 2²⁹ slots fit; a place beyond is none, and its seat is told at more length.
    fn new(index: usize, was_live: bool) -> Self {
        match u32::try_from(index) {
            Ok(index) if index < u32::MAX >> 1 => Self(index << 1 | u32::from(was_live)),
            _ => Self::NONE,
        }
    }

    const fn index(self) -> usize {
        (self.0 >> 1) as usize
    }

    const fn was_live(self) -> bool {
        self.0 & Self::WAS_LIVE != 0
    }
}

impl Journal {
    /// For a table of so many seats.
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            changes: Vec::new(),
            ended: Vec::new(),
            free: Vec::new(),
            keep: (capacity as usize / 16).max(8_192),
        }
    }

    pub(super) fn joined(&mut self, joined: Joined) -> Entry {
        self.enter(SeatChange::Joined(joined), false)
    }

    /// Enters that `worker` now serves the seat whose last change is `last`: in its place, if that was not handed over yet. The seat was
    /// live until now, or suspended.
    pub(super) fn resumed(
        &mut self,
        handle: Handle,
        worker: u16,
        last: Entry,
        was_live: bool,
    ) -> Entry {
        let resumed = SeatChange::Resumed { handle, worker };
        match self.pending(handle, last) {
            Some(SeatChange::Joined(joined)) => joined.worker = worker,
            Some(change) => *change = resumed,
            None => return self.enter(resumed, was_live),
        }
        last
    }

    /// Enters that nothing serves the seat whose last change is `last`: in place of a resumption that was not handed over yet,
    /// unless that itself is to follow a suspension.
    pub(super) fn suspended(&mut self, handle: Handle, last: Entry) -> Entry {
        let suspended = SeatChange::Suspended { handle };
        match self.pending(handle, last) {
            Some(change @ SeatChange::Resumed { .. }) if last.was_live() => {
                *change = suspended;
                last
            }
            Some(_) | None => self.enter(suspended, true),
        }
    }

    pub(super) fn ended(
        &mut self,
        handle: Handle,
        session: SessionId,
        client: ClientId,
        reason: EndReason,
    ) {
        self.changes.push(SeatChange::Ended {
            handle,
            session,
            client,
            reason,
        });
        if is_planted(Fault::FreesAtOnce) {
            self.free.push(handle.slot());
        } else {
            self.ended.push(handle.slot());
        }
    }

    /// How many ends have not been handed over yet: so many slots wait for that.
    pub(super) fn ends(&self) -> usize {
        self.ended.len()
    }

    /// Hands over what was entered, in exchange for `changes`, which must be empty and whose memory serves the next volume. The slots
    /// of the seats that ended are free.
    pub(super) fn hand_over(&mut self, changes: &mut Vec<SeatChange>) {
        if changes.capacity() > self.keep && self.changes.len() <= self.keep {
            *changes = Vec::new();
        }
        std::mem::swap(&mut self.changes, changes);
        self.free.append(&mut self.ended);
    }

    /// Takes the slots that are free again, in exchange for `free`, which must be empty.
    pub(super) fn take_free(&mut self, free: &mut Vec<u32>) {
        std::mem::swap(&mut self.free, free);
    }

    /// The change itself, if it was not handed over yet.
    fn pending(&mut self, handle: Handle, entry: Entry) -> Option<&mut SeatChange> {
        self.changes
            .get_mut(entry.index())
            .filter(|change| change.handle() == handle)
    }

    fn enter(&mut self, change: SeatChange, was_live: bool) -> Entry {
        let entry = Entry::new(self.changes.len(), was_live);
        self.changes.push(change);
        entry
    }
}
