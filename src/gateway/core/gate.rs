//! The gate: what becomes of a new connection before any cryptography is done for it. Pure: numbers in, a verdict out.

use std::time::Instant;

use super::buckets::{Buckets, Prefix, Refill};
use crate::gateway::config::Limits;

/// Prefixes whose buckets are kept. Only handshakes that are accepted take tokens; a core does 4,000 of those a second (250 µs
/// each), and an empty bucket of the default limits fills in 4 s, so that no more than 16,000 are not full at any time.
const PREFIXES: usize = 16_384;

/// Where a new connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) prefix: Prefix,
    /// The address has proved that packets reach it: it brought a Retry token back.
    pub(super) is_validated: bool,
}

/// How many handshakes are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) all: usize,
    /// Of these, of the newcomer's prefix, those whose address had proved itself when they began.
    pub(super) of_prefix: usize,
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its handshake begins.
    Accept,
    /// Its handshake begins, and the oldest unfinished one is dropped.
    AcceptDroppingOldest,
    /// Its handshake begins, and the oldest unfinished one of its prefix is dropped.
    AcceptDroppingOldestOfPrefix,
    /// It is asked to prove its address.
    Retry,
    /// It gets no answer: any would cost more than the packet that asked for it.
    Ignore,
}

/// The part of a room that one prefix may hold: an eighth, so that eight attackers at the least are needed to fill it.
///
/// A full share costs its own prefix's oldest its place, and not the newcomer: whoever is behind the same address as an attacker
/// gets in as well as others.
pub(super) const fn share(cap: usize) -> usize {
    if cap < 8 { 1 } else { cap / 8 }
}

/// Judges new connections.
#[derive(Debug)]
pub(super) struct Gate {
    cap: usize,
    retry_above: usize,
    buckets: Buckets,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            cap: limits.handshakes,
            retry_above: limits.retry_above,
            buckets: Buckets::new(
                Refill::new(limits.prefix_rate, limits.prefix_burst),
                PREFIXES,
            ),
        }
    }

    /// Judges a connection that begins now.
    ///
    /// Only addresses that have proved themselves are charged, and counted to their prefix: others may be anybody's, and charging
    /// them would let a forger of addresses lock their owners out.
    pub(super) fn judge(&mut self, now: Instant, in_flight: InFlight, origin: Origin) -> Verdict {
        if !origin.is_validated {
            return if in_flight.all >= self.retry_above {
                Verdict::Retry
            } else if in_flight.all >= self.cap {
                Verdict::AcceptDroppingOldest
            } else {
                Verdict::Accept
            };
        }
        if !self.buckets.take(now, origin.prefix) {
            Verdict::Ignore
        } else if in_flight.of_prefix >= share(self.cap) {
            Verdict::AcceptDroppingOldestOfPrefix
        } else if in_flight.all >= self.cap {
            Verdict::AcceptDroppingOldest
        } else {
            Verdict::Accept
        }
    }
}
