//! The rules about a gateway's workers, and about what its clients may send.

use super::{
    super::{Size, schema},
    Check, MINUTE, SECOND,
};
use crate::gateway::MANY_WORKERS;

impl Check {
    /// How many workers there may be.
    pub(super) fn workers(&mut self, workers: u32) {
        const KEY: &str = "gateway.workers";
        self.range(KEY, workers, 1..=255);
        let may_be = workers <= 1 || MANY_WORKERS;
        self.must(
            may_be,
            KEY,
            "this system cannot steer packets to their worker",
        );
    }

    /// What a client may send.
    pub(super) fn budget(&mut self, budget: &schema::Budget) {
        let schema::Budget {
            packets,
            datagrams,
            bytes,
            messages,
            moves,
            burst,
        } = *budget;
        self.range("gateway.budget.packets", packets, 100..=1_000_000);
        self.range("gateway.budget.datagrams", datagrams, 1..=1_000_000);
        self.must(
            datagrams <= packets,
            "gateway.budget.datagrams",
            format_args!("{datagrams} is more than gateway.budget.packets ({packets})"),
        );
        self.range(
            "gateway.budget.bytes",
            bytes,
            Size(16 << 10)..=Size(64 << 20),
        );
        self.range("gateway.budget.messages", messages, 1..=1_000_000);
        self.range("gateway.budget.moves", moves, 1..=600);
        self.duration("gateway.budget.burst", burst, SECOND..=MINUTE);
    }
}
