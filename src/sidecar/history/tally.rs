//! What the runs went through: a test that never gets somewhere tests nothing there.

use crate::seeds::tally;

tally!(
    calls,
    logins,
    renewed,
    renewed_by_a_retry,
    reuses,
    seen_live,
    seen_revoked,
    seen_idle,
    seen_expired,
    seen_unknown,
    revoked,
    players_revoked,
    failed,
    requests_lost,
    answers_lost,
    duplicates,
    presented_while_down,
    kills,
    power_losses,
    crashes_in_a_batch,
    broken_disks,
    crashes_while_opening,
);
