//! Both machines against each other over a model network, from a seed: whatever is lost, broken, killed or restored, once that stops
//! the gateway has applied the log, its seats are known, and nothing that is revoked sits; and at no time is anybody verified, admitted
//! or acknowledged who must not be.
//!
//! The gateway's side is the real thing but for its sockets: [`Link`](super::link::Link), seat table, revocation log and clock. The
//! sidecar's is [`Attachment`](super::attachment::Attachment) over a model of registry and store. Seeds with an even number run over
//! streams that keep gRPC's promise (in order, each message once, until the stream breaks, and what was on its way then may arrive
//! late); odd ones over streams that also lose, repeat and reorder messages, which the machines have to survive as well.
//!
//! What the model takes for granted, since nothing in the protocol could mend it:
//! - An event outlives in the log every token minted before it, however slow clocks and attaches are (`sidecar::RETENTION`).
//! - A restore from a backup takes longer than connect tokens live (`sidecar::RESTORE`).
//! - A gateway process that dies before its first attach has been registered takes that attach with it: processes are told apart by
//!   who attaches first, so one that arrived from beyond the grave would fence off its living successor.

mod ends;
mod invariants;
mod keys;
mod network;
mod process;
mod regressions;
mod sidecar;
mod store;
mod streams;
mod tally;
mod world;

use std::{ops::Range, time::Duration};

use self::{network::Conduct, tally::Tally, world::World};
use super::{ATTACH_TIMEOUT, link::Fault, message::Portions};
use crate::{id::GatewayId, seeds};

/// Seeds that every run checks. `TICKGATE_SEEDS=first..last` checks others; `scripts/soak-control` does so in a release build.
const SEEDS: Range<u64> = 0..2_000;

const STEP: Duration = Duration::from_millis(20);
const PLAYERS: u128 = 8;
/// Seats of the gateway.
const CAPACITY: u32 = 24;
/// So little to a message that a handful of seats takes several.
const PORTIONS: Portions = Portions {
    sessions: 3,
    events: 4,
    events_held: 16,
};
/// Events that a gateway keeps until they are taken.
const EVENTS_KEPT: usize = 8;

/// How long a connect token lives.
const TOKEN_LIFE: Duration = Duration::from_secs(3);
/// How much clocks may differ when a token's times are judged.
const LEEWAY: Duration = Duration::from_secs(1);
/// How far the sidecar's wall clock steps from the true time, either way.
const SKEW: Duration = Duration::from_secs(1);
/// How late an answer to an attach may be, and so how far a gateway's clock may lag.
const PATIENCE: Duration = ATTACH_TIMEOUT;
/// How long a gateway keeps an event: longer than a token that it ends, by a clock that lags and is drawn forward.
const COPY_RETENTION: Duration = Duration::from_secs(20);

fn gateway_id() -> GatewayId {
    "model".parse().unwrap()
}

/// Runs a seed to its end: what it reached, or what went wrong.
fn run(seed: u64, fault: Option<Fault>) -> Result<Tally, String> {
    let conduct = match seed % 2 {
        0 => Conduct::Reliable,
        _ => Conduct::Hostile,
    };
    let mut world = World::new(seed, conduct, fault);
    world.pass(Duration::from_secs(60))?;
    // First without a fault: whatever was lost on the stream that is left must be noticed by itself.
    world.calm();
    world.pass(Duration::from_secs(25))?;
    world.check_log()?;
    if conduct == Conduct::Hostile {
        // A lost report cannot be noticed, since a stream does not lose one and live: attaching again heals it.
        world.break_stream();
        world.pass(Duration::from_secs(12))?;
        world.check_log()?;
    }
    world.check_seats()?;
    world.check_orders()?;
    world.check_rotation()?;
    Ok(world.tally)
}

#[test]
fn whatever_happens_attaching_again_heals_it() {
    seeds::run_all(SEEDS, 10_000, |seed| run(seed, None));
}

#[test]
fn planted_bugs_are_found() {
    for fault in [Fault::NoGapCheck, Fault::EarlyAck, Fault::NoReset] {
        let found = (0..40)
            .filter(|seed| run(*seed, Some(fault)).is_err())
            .count();
        println!("{fault:?}: found by {found} of 40 seeds");
        assert!(found > 0, "{fault:?}");
    }
}

/// Why tokens are sealed with what their gateway holds, and with nothing else.
#[test]
fn a_key_that_seals_before_it_is_held_is_found() {
    let found = (0..40).filter(|seed| {
        let mut world = World::new(2 * seed, Conduct::Reliable, None);
        world.rushes_keys = true;
        world.pass(Duration::from_secs(60)).is_err()
    });
    let found = found.count();
    println!("found by {found} of 40 seeds");
    assert!(found > 0);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [6, 7] {
        assert_eq!(run(seed, None), run(seed, None));
    }
}
