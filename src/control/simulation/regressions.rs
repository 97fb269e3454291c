//! Seeds that once found something, each by what it was. A change to the model gives a seed another course, so what is known exactly
//! has a test beside the code as well.

use super::run;

fn pass(seeds: &[u64]) {
    for seed in seeds {
        if let Err(error) = run(*seed, None) {
            panic!("seed {seed}: {error}");
        }
    }
}

/// Unsent activity kept the link from taking a report before it attached again. So it told what an older report had said of draining,
/// the sidecar found nothing to order, and a drain that was cancelled meanwhile went on for ever.
#[test]
fn a_drain_cancelled_while_detached_ends() {
    pass(&[2_164, 6_538]);
}

/// A stream's end for a newer one of the same process, whose attach had been late, was told like that for a newer process: the gateway
/// took itself for fenced off and never came back.
#[test]
fn a_late_attach_shuts_nobody_out() {
    pass(&[55, 122, 294, 536, 906, 1_006]);
}

/// Not the code but the model: what a stream from before a restore brought late was held against sessions that the restore had given
/// back, long after the gateway's copy of the log had let go of it.
#[test]
fn a_late_word_of_what_a_restore_has_undone_counts_for_nothing() {
    pass(&[36_878, 46_310, 57_241, 65_091]);
}
