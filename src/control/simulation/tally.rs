//! What runs went through, to know that together they go through everything.

use crate::seeds::tally;

tally! {
    // Streams and how they end.
    attaches, continued, snapshots, streams_broken, partitions, stalls, messages_late, messages_lost, messages_repeated,
    messages_reordered, replaced, fenced, gaps, behind, silent, violations, malformed, log_lost, attach_timeouts,
    // Processes.
    gateways_killed, gateways_succeeded, gateways_shut_out, sidecars_restarted, new_lineages, restores, clocks_stepped,
    // What goes over streams.
    seat_portions, dead_portions, dead_named, events_applied, acknowledged, idle_moved, drains, drains_cancelled,
    keys_published, keys_promoted, keys_retired, sealed_with_previous,
    certificates_changed, explained, explained_lost,
    // Players.
    logins, minted, admitted, resumed, revoked_sessions, revoked_players, seats_revoked, waited, refused_key, refused_time,
    refused_draining, refused_revoked, refused_not_yet, refused_full;
    /// An event outlives every token minted before it, so that hardly a token is older than a log.
    refused_too_old,
}
