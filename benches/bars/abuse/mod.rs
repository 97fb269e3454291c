//! The bars of abuse: what honest players feel while a gateway is attacked.
//!
//! The gateway is the real program as a process of its own, with the demo world at 60 Hz, on the first of this machine's processors; attackers,
//! honest players and the sidecar share the last. So an attacker takes time from the honest players' own machine too, which makes
//! their times longer than they would be, and never shorter.

#[allow(dead_code, unreachable_pub, reason = "what the tests attack with")]
#[path = "../../../tests/gate/attackers.rs"]
mod attackers;
mod flood;
mod garbage;
pub(crate) mod hold;
mod initials;
#[allow(dead_code, reason = "what the tests read metrics by")]
#[path = "../../../tests/support/scrape.rs"]
mod scrape;
mod stage;

use crate::{
    bar::{Bar, Bound::AtMost},
    report::{Group, Report},
};

#[rustfmt::skip]
mod claims {
    use super::{AtMost, Bar};

    pub(super) static HONEST: Bar = Bar {
        name: "flood-honest-s",
        bound: AtMost(3.0),
        about: "seconds within which 95 of 100 honest clients are admitted, during 30 s of spoofed Initials at 80 % of the rate that the gateway answers",
    };
    pub(super) static AMPLIFICATION: Bar = Bar {
        name: "flood-amplification",
        bound: AtMost(3.0),
        about: "bytes that the gateway sends to addresses that have proved nothing, for each byte received from them",
    };
    pub(super) static FLOOD_MEMORY: Bar = Bar {
        name: "flood-memory-mib",
        bound: AtMost(64.0),
        about: "what the gateway's anonymous memory grows by under the flood, at its highest",
    };
    pub(super) static FLOOD_TICK: Bar = Bar {
        name: "flood-late-ticks",
        bound: AtMost(0.01),
        about: "the part of the simulation's ticks under the flood that took longer than half a tick's interval: at most 0.01 is a p99 below it",
    };
    pub(super) static RECOVERY: Bar = Bar {
        name: "flood-recovery-s",
        bound: AtMost(2.0),
        about: "seconds after the flood until every admission takes under 0.25 s again",
    };
    pub(super) static GARBAGE: Bar = Bar {
        name: "garbage",
        bound: AtMost(0.0),
        about: "honest players of 100 who are dropped, or hear nothing for 2 s, under 20,000 garbage datagrams a second of one admitted client, 1,000 stalled handshakes and 1,000 silent connections at once",
    };
    pub(super) static GARBAGE_MEMORY: Bar = Bar {
        name: "garbage-memory-mib",
        bound: AtMost(16.0),
        about: "what the gateway's anonymous memory grows by meanwhile, once the attackers are in place",
    };
    pub(super) static GARBAGE_TICK: Bar = Bar {
        name: "garbage-late-ticks",
        bound: AtMost(0.01),
        about: "the part of the simulation's ticks meanwhile that took longer than half a tick's interval",
    };
}

pub(crate) const GROUP: Group = Group {
    name: "abuse",
    about: "floods and garbage at a real gateway, and what honest players feel of it (about two minutes)",
    bars: &[
        &claims::HONEST,
        &claims::AMPLIFICATION,
        &claims::FLOOD_MEMORY,
        &claims::FLOOD_TICK,
        &claims::RECOVERY,
        &claims::GARBAGE,
        &claims::GARBAGE_MEMORY,
        &claims::GARBAGE_TICK,
    ],
    run,
};

fn run(report: &mut Report) {
    if report.wants_any(&[
        "flood-honest-s",
        "flood-amplification",
        "flood-memory-mib",
        "flood-late-ticks",
        "flood-recovery-s",
    ]) {
        flood::measure(report);
    }
    if report.wants_any(&["garbage", "garbage-memory-mib", "garbage-late-ticks"]) {
        garbage::measure(report);
    }
}
