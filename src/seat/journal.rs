//! The changes that the simulation has not been told yet.

use super::{EndReason, Handle, Joined, SeatChange};
use crate::id::{ClientId, SessionId};

/// Changes since the last tick, in order of occurrence.
///
/// Bounded by construction: a seat is entered here at most once as joined or as moved, and at most once as ended, and a slot gets
/// its next seat only after the end of the last one was handed over. So there are at most two entries per slot.
#[derive(Debug, Default)]
pub(super) struct Journal {
    changes: Vec<SeatChange>,
    /// Counts the hand-overs, so that an [`Entry`] of an older one is not taken for one of this.
    volume: u64,
}

/// Where the join or the last move of a seat stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    volume: u64,
    index: usize,
}

impl Journal {
    pub(super) fn joined(&mut self, joined: Joined) -> Entry {
        self.enter(SeatChange::Joined(joined))
    }

    /// Enters that `worker` now serves the seat, amending its entry `last` if that was not handed over yet.
    pub(super) fn moved(&mut self, handle: Handle, worker: u16, last: Entry) -> Entry {
        if last.volume == self.volume {
            match self.changes.get_mut(last.index) {
                Some(SeatChange::Joined(joined)) => {
                    joined.worker = worker;
                    return last;
                }
                Some(SeatChange::Resumed { worker: served, .. }) => {
                    *served = worker;
                    return last;
                }
                Some(SeatChange::Suspended { .. } | SeatChange::Ended { .. }) | None => {}
            }
        }
        self.enter(SeatChange::Resumed { handle, worker })
    }

    pub(super) fn ended(
        &mut self,
        handle: Handle,
        session: SessionId,
        client: ClientId,
        reason: EndReason,
    ) {
        self.enter(SeatChange::Ended {
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

    fn enter(&mut self, change: SeatChange) -> Entry {
        let index = self.changes.len();
        self.changes.push(change);
        Entry {
            volume: self.volume,
            index,
        }
    }
}
