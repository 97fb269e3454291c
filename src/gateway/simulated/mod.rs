//! The whole gateway against simulated clients, network and time: from a seed, without a socket, a thread or a clock.
//!
//! A seed makes a cast (honest players, replayers, players on two devices or with two sessions, holders of keys and of none, silent
//! and garbled clients, clients that flood, clients whose address or port changes), one to three workers, a network (loss, delay, reordering,
//! duplication, blackouts), rules (grace, what becomes of a player who comes twice), and
//! a course of events (revocations that arrive late, a log of a new lineage, draining, leaving, losing the link and coming back). The
//! same seed gives the same trace.

mod cast;
mod client;
mod game;
mod network;
mod sidecar;
mod world;

use self::world::{Outcome, World};

/// Seeds that every run checks. TICKGATE_SEEDS=first..last checks others.
const SEEDS: std::ops::Range<u64> = 0..500;

/// Runs a seed to its end; a failed check names the seed.
fn run(seed: u64) -> Outcome {
    let result = std::panic::catch_unwind(|| World::new(seed).run());
    result.unwrap_or_else(|_| panic!("seed {seed} failed: TICKGATE_SEEDS={seed}..{}", seed + 1))
}

#[test]
fn seeds_keep_the_rules() {
    let mut total = Outcome::default();
    let seeds = crate::seeds::seeds(SEEDS);
    for seed in seeds.clone() {
        total.add(&run(seed));
    }
    // Shown by `cargo test … -- --nocapture`.
    println!("{total:?}");
    if seeds != SEEDS {
        return;
    }
    // The schedules must reach what they are there to check.
    let Outcome {
        joined,
        resumed,
        suspended,
        grace_over,
        replaced,
        caught_up,
        proven,
        revoked_live,
        kicked,
        flooded,
        moved,
        misrouted,
        bursts,
        inputs,
        packets_lost,
        packets_reordered,
        roamed,
        darkened,
        ref refused,
        trace: _,
    } = total;
    for reached in [
        joined,
        resumed,
        suspended,
        grace_over,
        replaced,
        caught_up,
        proven,
        revoked_live,
        kicked,
        flooded,
        moved,
        misrouted,
        inputs,
        packets_lost,
        packets_reordered,
        roamed,
        darkened,
    ] {
        assert!(reached > 0, "{total:?}");
    }
    for reason in [
        "draining",
        "hello_room_full",
        "log_behind",
        "no_hello",
        "player_present",
        "proof_missing",
        "proof_wrong",
        "session_revoked",
        "token_before_log",
        "token_used",
        "unknown_key",
    ] {
        assert!(refused.contains_key(reason), "{reason}: {total:?}");
    }
    // Many live long enough, on a line that is good enough, for the whole burst.
    assert!(bursts * 4 > joined, "{total:?}");
}

#[test]
fn a_seed_gives_one_trace() {
    for seed in [1, 7, 42, 99, 1_234] {
        let (first, second) = (run(seed), run(seed));
        assert!(first.trace.len() > 10, "seed {seed}");
        for (a, b) in first.trace.iter().zip(&second.trace) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}

/// Once, a backlog that did not fit at the first attempt moved on only when the game wrote again.
#[test]
fn a_burst_to_a_silent_listener_arrives_whole() {
    let outcome = World::of_a_listener().run();
    assert_eq!((outcome.joined, outcome.bursts), (1, 1));
}
