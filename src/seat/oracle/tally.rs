//! What the runs reached, so that it shows when they pass something by.

use crate::{seat::EndReason, seeds::tally};

tally! {
    seated,
    /// In a slot that had a seat before.
    slots_used_again,
    /// In a slot that had fifteen seats before.
    slots_used_often,
    full,
    player_present,
    superseded,
    taken_over_live,
    resumed,
    suspended,
    lost_at_once,
    left,
    kicked,
    session_revoked,
    /// A player's seats of an older generation, and not of the newer.
    player_revoked,
    player_spared,
    drained,
    idle,
    expired,
    lost,
    /// Idle or past its end while suspended.
    ended_in_grace,
    touched,
    touched_in_vain,
    extended,
    idle_time_changed,
    ticks,
    ticks_skipped,
    windows_skipped,
    ticks_repeated,
    time_jumped,
    /// Seats whose activity was written out.
    written,
    /// Written out on time, later, and while suspended.
    written_in_suspension,
    batches,
    batches_all_live,
    handles_refused,
    /// Handles from before that were looked at again.
    stale_handles,
    reasons_told,
    closings,
}

impl Tally {
    /// A seat ended by its time.
    pub(super) fn ended_by_time(&mut self, reason: EndReason, suspended: bool) {
        match reason {
            EndReason::Idle => self.idle += 1,
            EndReason::Expired => self.expired += 1,
            _ => self.lost += 1,
        }
        self.ended_in_grace += u64::from(suspended && reason != EndReason::Lost);
    }
}
