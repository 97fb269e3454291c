//! The gate: what becomes of a new connection before any cryptography is done for it. Pure: numbers in, a verdict out.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::buckets::{Buckets, Prefix, Refill};
use crate::gateway::config::Limits;

/// Prefixes whose buckets are kept. Only handshakes that are accepted take tokens; a core does 4,000 of those a second (250 µs
/// each), and an empty bucket of the default limits fills in 4 s, so that with four workers no more than 64,000 are not full at any
/// time.
const PREFIXES: usize = 65_536;

/// The buckets of all prefixes, which the gates of all workers charge: what a prefix may begin is not more for reaching several workers.
///
/// Locked for each handshake of a proven address, which is some microseconds of the 250 that it takes, and for nothing else.
#[derive(Debug)]
pub(in crate::gateway) struct Prefixes(Mutex<Buckets>);

impl Prefixes {
    pub(in crate::gateway) fn new(limits: &Limits) -> Self {
        let refill = Refill::new(limits.prefix_rate, limits.prefix_burst);
        Self(Mutex::new(Buckets::new(refill, PREFIXES)))
    }

    /// Takes a token of the prefix's; false if it has none.
    fn charge(&self, now: Instant, prefix: Prefix) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(now, prefix)
    }
}

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
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            cap: limits.handshakes,
            retry_above: limits.retry_above,
        }
    }

    /// Judges a connection that begins now.
    ///
    /// Only addresses that have proved themselves are charged, and counted to their prefix: others may be anybody's, and charging
    /// them would let a forger of addresses lock their owners out.
    pub(super) fn judge(
        &self,
        prefixes: &Prefixes,
        now: Instant,
        in_flight: InFlight,
        origin: Origin,
    ) -> Verdict {
        if !origin.is_validated {
            return if in_flight.all >= self.retry_above {
                Verdict::Retry
            } else if in_flight.all >= self.cap {
                Verdict::AcceptDroppingOldest
            } else {
                Verdict::Accept
            };
        }
        if !prefixes.charge(now, origin.prefix) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::Clock,
        gateway::core::{deadlines::WaitingRoom, link::LinkId},
    };

    fn limits(handshakes: usize, retry_above: usize, rate: u32, burst: u32) -> Limits {
        Limits {
            handshakes,
            retry_above,
            prefix_rate: rate,
            prefix_burst: burst,
            ..Limits::default()
        }
    }

    /// A gate, and buckets that are its alone.
    struct Booth(Gate, Prefixes);

    impl Booth {
        fn new(limits: &Limits) -> Self {
            Self(Gate::new(limits), Prefixes::new(limits))
        }

        fn judge(&self, now: Instant, in_flight: InFlight, origin: Origin) -> Verdict {
            self.0.judge(&self.1, now, in_flight, origin)
        }
    }

    fn proven(prefix: u32) -> Origin {
        Origin {
            prefix: Prefix::V4(prefix),
            is_validated: true,
        }
    }

    fn unproven(prefix: u32) -> Origin {
        Origin {
            is_validated: false,
            ..proven(prefix)
        }
    }

    fn flying(all: usize, of_prefix: usize) -> InFlight {
        InFlight { all, of_prefix }
    }

    #[test]
    fn each_mark_has_its_verdict() {
        let now = Clock::system().now();
        let gate = Booth::new(&limits(64, 16, 50, 200));
        let judge = |in_flight, origin| gate.judge(now, in_flight, origin);
        assert_eq!(judge(flying(15, 0), unproven(1)), Verdict::Accept);
        assert_eq!(judge(flying(16, 0), unproven(1)), Verdict::Retry);
        assert_eq!(judge(flying(64, 0), unproven(1)), Verdict::Retry);
        assert_eq!(judge(flying(16, 0), proven(1)), Verdict::Accept);
        assert_eq!(judge(flying(63, 7), proven(1)), Verdict::Accept);
        assert_eq!(
            judge(flying(64, 7), proven(1)),
            Verdict::AcceptDroppingOldest
        );
        // At both bounds its own prefix pays: that makes the room that the cap asks for as well.
        assert_eq!(
            judge(flying(64, 8), proven(1)),
            Verdict::AcceptDroppingOldestOfPrefix
        );
        // A mark above the cap is never reached: then the cap alone counts.
        let gate = Booth::new(&limits(4, 16, 50, 200));
        assert_eq!(
            gate.judge(now, flying(4, 0), unproven(1)),
            Verdict::AcceptDroppingOldest
        );
    }

    #[test]
    fn a_forger_of_addresses_takes_nothing_from_their_owner() {
        let now = Clock::system().now();
        let gate = Booth::new(&limits(64, 16, 1, 3));
        for n in 0..10_000 {
            assert_ne!(
                gate.judge(now, flying(n % 64, 0), unproven(7)),
                Verdict::Ignore
            );
        }
        for _ in 0..3 {
            assert_eq!(gate.judge(now, flying(20, 0), proven(7)), Verdict::Accept);
        }
        assert_eq!(gate.judge(now, flying(20, 0), proven(7)), Verdict::Ignore);
        // Not even who has used up his rate is refused a Retry: it may be somebody else who sends in his name.
        assert_eq!(gate.judge(now, flying(20, 0), unproven(7)), Verdict::Retry);
    }

    #[test]
    fn every_prefix_may_hold_something() {
        assert_eq!(
            [0, 1, 7, 8, 15, 16, 1_024].map(share),
            [1, 1, 1, 1, 1, 2, 128]
        );
    }

    /// A gate with its room, as the core joins them, and nothing else.
    struct Door {
        gate: Booth,
        room: WaitingRoom,
        next: usize,
    }

    impl Door {
        fn knock(&mut self, now: Instant, origin: Origin) -> Option<LinkId> {
            let in_flight = InFlight {
                all: self.room.len(),
                of_prefix: self.room.of(origin.prefix),
            };
            let oldest = match self.gate.judge(now, in_flight, origin) {
                Verdict::Accept => None,
                Verdict::AcceptDroppingOldest => self.room.oldest_id(),
                Verdict::AcceptDroppingOldestOfPrefix => self.room.oldest_id_of(origin.prefix),
                Verdict::Retry | Verdict::Ignore => return None,
            };
            let id = LinkId {
                index: self.next,
                serial: 0,
            };
            self.next += 1;
            let prefix = origin.is_validated.then_some(origin.prefix);
            self.room.enter(id, now, prefix);
            if let Some(oldest) = oldest {
                self.room.leave(oldest);
            }
            Some(id)
        }
    }

    /// Attackers of 40 prefixes who begin as many handshakes as they may and finish none, and an honest client each 10 ms whose
    /// handshake takes 150 ms: none of those is ever dropped.
    #[test]
    fn who_finishes_in_time_keeps_its_place_whatever_attackers_hold() {
        let start = Clock::system().now();
        let limits = Limits::default();
        let mut door = Door {
            gate: Booth::new(&limits),
            room: WaitingRoom::default(),
            next: 0,
        };
        let mut honest: Vec<(LinkId, Instant)> = Vec::new();
        let mut finished = 0;
        for ms in 0_u32..10_000 {
            let now = start + Duration::from_millis(u64::from(ms));
            while door.room.pop_older(now, limits.handshake_timeout).is_some() {}
            // Past their bursts, 2,000 handshakes a second: half of what a core can do, all of it wasted.
            for n in 0..4 {
                door.knock(now, proven(1 + (ms * 4 + n) % 40));
                door.knock(now, unproven(ms));
            }
            if ms >= 4_500 && ms % 10 == 0 {
                let id = door.knock(now, proven(1_000_000 + ms));
                honest.push((id.expect("an honest client is let in"), now));
            }
            while let Some((id, since)) = honest.first().copied() {
                if now - since < Duration::from_millis(150) {
                    break;
                }
                let before = door.room.len();
                door.room.leave(id);
                assert_eq!(door.room.len(), before - 1, "it was still there");
                honest.remove(0);
                finished += 1;
            }
        }
        assert!(finished > 500);
    }

    proptest! {
        /// The room is never fuller than its cap, and no proven prefix holds more than its share.
        #[test]
        fn rooms_keep_to_their_caps(
            cap in 1_usize..64,
            retry_above in 0_usize..64,
            knocks in proptest::collection::vec((0_u32..12, any::<bool>(), 0_u64..400), 1..400),
        ) {
            let mut now = Clock::system().now();
            let mut door = Door {
                gate: Booth::new(&limits(cap, retry_above, 5, 20)),
                room: WaitingRoom::default(),
                next: 0,
            };
            for (prefix, is_validated, later) in knocks {
                now += Duration::from_millis(later / 8);
                door.knock(now, Origin { prefix: Prefix::V4(prefix), is_validated });
                prop_assert!(door.room.len() <= cap);
                for prefix in 0..12 {
                    prop_assert!(door.room.of(Prefix::V4(prefix)) <= share(cap));
                }
            }
        }
    }
}
