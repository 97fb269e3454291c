//! Packets that are another worker's, and those that others have got for this one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::Core;
use crate::{
    gateway::{
        exchange::{Passed, WorkerExchange},
        steering::worker_of,
    },
    udp::Packet,
};

impl Core {
    /// Makes the worker one of several: what names another is passed on to that one.
    #[must_use]
    pub(in crate::gateway) fn among(mut self, workers: &Arc<[Arc<WorkerExchange>]>) -> Self {
        self.neighbours = Arc::clone(workers);
        self
    }

    /// The packet, unless it is another worker's: then that one gets it.
    ///
    /// A worker that is gone for good, or was there in the process before and is not any more, has nobody to pass on to: what names it
    /// is anybody's.
    pub(super) fn keep_or_pass(&self, packet: Packet) -> Option<Packet> {
        // There are 255 at the most.
        let workers = u16::try_from(self.neighbours.len()).unwrap_or(u16::MAX);
        let named = worker_of(&packet.data, workers).filter(|named| *named != self.worker);
        let Some(owner) = named.and_then(|named| self.neighbours.get(usize::from(named))) else {
            return Some(packet);
        };
        let counters = &self.shared.counters;
        counters.misrouted.fetch_add(1, Ordering::Relaxed);
        if owner.pass(packet) == Passed::Dropped {
            counters.misrouted_dropped.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    /// Takes what others have got for this worker. It is not asked again whose it is.
    pub(super) fn take_passed(&mut self, now: Instant) {
        let mut passed = std::mem::take(&mut self.passed);
        self.exchange.take_passed(&mut passed);
        for packet in passed.drain(..) {
            self.take_packet(now, packet);
        }
        self.passed = passed;
    }
}
