//! Draining: nobody is admitted any more, seats go on until the deadline, and then they end.

use std::time::Duration;

use super::shared::Shared;
use crate::seat::EndReason;

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Seats go on, for so long at the most.
    Waiting(Duration),
    /// Nobody is in any more.
    Done,
}

/// Does what a drain asks for now; none if the gateway does not drain.
///
/// Called by the worker and not by the tick: a game that hangs is no reason for its gateway not to end. A seat whose connection is
/// lost is not waited for, since its session would not be let in again.
pub(super) fn enforce(shared: &Shared) -> Option<Progress> {
    let deadline = shared.drain_deadline()?;
    let left = deadline.since(shared.clock.wall());
    if left > Duration::ZERO && shared.seats.counts().live > 0 {
        return Some(Progress::Waiting(left));
    }
    shared.seats.end_all(EndReason::Drained);
    Some(Progress::Done)
}
