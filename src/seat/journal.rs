//! The changes that the simulation has not been told yet.

use super::{EndReason, Handle, Joined, SeatChange};
use crate::id::{ClientId, SessionId};

/// Changes since the last tick, each seat's in order of occurrence.
///
/// Bounded by construction, however often a seat is suspended and resumed between two ticks. A seat's entries are at most: its
/// join, or else the resumption that follows a suspension told before; one more that says whether it is suspended now or which
/// worker serves it, and is written over when that changes; its end. A slot gets its next seat only after the end of the last one
/// was handed over. So there are at most three entries per slot. [`SeatChange`] has the table.
#[derive(Debug, Default)]
pub(super) struct Journal {
    changes: Vec<SeatChange>,
    /// Counts the hand-overs, so that an [`Entry`] of an older one is not taken for one of this.
    volume: u64,
}

/// Where the last change of a seat stands, handed over or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    volume: u64,
    index: usize,
    /// Whether the seat was live before, as it is told. Only then may the entry be turned into a suspension.
    was_live: bool,
    /// Whether the seat is live since.
    is_live: bool,
}

impl Journal {
    pub(super) fn joined(&mut self, joined: Joined) -> Entry {
        self.enter(SeatChange::Joined(joined), false, true)
    }

    /// Enters that `worker` now serves the seat whose last change is `last`: in its place, if that was not handed over yet.
    pub(super) fn resumed(&mut self, handle: Handle, worker: u16, last: Entry) -> Entry {
        let resumed = SeatChange::Resumed { handle, worker };
        match self.pending(last) {
            Some(SeatChange::Joined(joined)) => joined.worker = worker,
            Some(change) => *change = resumed,
            None => return self.enter(resumed, last.is_live, true),
        }
        Entry {
            is_live: true,
            ..last
        }
    }

    /// Enters that nothing serves the seat whose last change is `last`: in place of a resumption that was not handed over yet,
    /// unless that itself is to follow a suspension.
    pub(super) fn suspended(&mut self, handle: Handle, last: Entry) -> Entry {
        let suspended = SeatChange::Suspended { handle };
        match self.pending(last) {
            Some(change @ SeatChange::Resumed { .. }) if last.was_live => *change = suspended,
            Some(_) | None => return self.enter(suspended, true, false),
        }
        Entry {
            is_live: false,
            ..last
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
    }

    /// Hands over what was entered, in exchange for `changes`, which must be empty and whose memory serves the next volume.
    pub(super) fn hand_over(&mut self, changes: &mut Vec<SeatChange>) {
        std::mem::swap(&mut self.changes, changes);
        self.volume += 1;
    }

    /// The change itself, if it was not handed over yet.
    fn pending(&mut self, entry: Entry) -> Option<&mut SeatChange> {
        if entry.volume == self.volume {
            self.changes.get_mut(entry.index)
        } else {
            None
        }
    }

    fn enter(&mut self, change: SeatChange, was_live: bool, is_live: bool) -> Entry {
        let index = self.changes.len();
        self.changes.push(change);
        Entry {
            volume: self.volume,
            index,
            was_live,
            is_live,
        }
    }
}
