//! Token buckets by address prefix, in bounded memory.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

/// What one customer of a network holds: an IPv4 address, or an IPv6 /64 (RFC 6177: a site has one at the least).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::gateway) enum Prefix {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Prefix {
    /// An IPv4 address in IPv6 clothes (`::ffff:192.0.2.1`, as a socket for both shows it) is the IPv4 address.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// One token bucket, as the time at which it will be full again: taking a token puts that off by the time which one token takes
/// to come, and a bucket is empty when it is put off by all that its depth takes. (The virtual scheduling of ITU-T I.371's generic
/// cell rate algorithm.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Refill {
    /// Time in which `rate` tokens come.
    period: Duration,
    rate: u32,
    /// Time in which an empty bucket fills.
    whole: Duration,
}

impl Refill {
    /// `rate` tokens a second, and at most `burst` at once; both at least 1.
    pub(in crate::gateway) fn new(rate: u32, burst: u32) -> Self {
        let rate = rate.max(1);
        Self::over(rate, Duration::from_secs(1) * burst.max(1) / rate)
    }

    /// `rate` tokens a second, at least 1, and at once as many as come in `whole`.
    pub(in crate::gateway) fn over(rate: u32, whole: Duration) -> Self {
        Self {
            period: Duration::from_secs(1),
            rate: rate.max(1),
            whole,
        }
    }

    /// `rate` tokens a minute, at least 1, and at once as many as come in so many minutes.
    pub(in crate::gateway) fn per_minute(rate: u32, minutes: u32) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            period: MINUTE,
            rate: rate.max(1),
            whole: MINUTE * minutes,
        }
    }

    /// Takes a token from a bucket that is full at `full_at` (none: it is full). When it will be full then; none if there is no token.
    pub(in crate::gateway) fn take(
        &self,
        now: Instant,
        full_at: Option<Instant>,
    ) -> Option<Instant> {
        self.take_many(now, full_at, 1)
    }

    /// The same with `tokens` at once: all of them, or none.
    pub(in crate::gateway) fn take_many(
        &self,
        now: Instant,
        full_at: Option<Instant>,
        tokens: u32,
    ) -> Option<Instant> {
        let full_at = self.charge(now, full_at, tokens);
        (full_at.saturating_duration_since(now) <= self.whole).then_some(full_at)
    }

    /// Whether there are so many tokens; whether it is not overdrawn, for none.
    pub(in crate::gateway) fn has(
        &self,
        now: Instant,
        full_at: Option<Instant>,
        tokens: u32,
    ) -> bool {
        self.take_many(now, full_at, tokens).is_some()
    }

    /// Takes tokens whether or not there are as many: what is overdrawn has to come in before there are any again.
    pub(in crate::gateway) fn charge(
        &self,
        now: Instant,
        full_at: Option<Instant>,
        tokens: u32,
    ) -> Instant {
        full_at.map_or(now, |at| at.max(now)) + self.period * tokens / self.rate
    }
}

/// The buckets of all prefixes that took a token of late.
///
/// A full bucket is the same as none, so only those that are not full are kept, at most `capacity` of them. When that is not
/// enough, the one that is nearest to full makes room. What an attacker can gain by that is little and dear: a bucket is forgotten
/// only when every other one lacks more than it does, so to win back the d tokens that his bucket lacks he has to take d tokens from
/// each of `capacity` other prefixes of his. And nobody is locked out: a prefix without a bucket always gets one.
///
/// Memory: 32 bytes for the map's entry and 32 for the set's, some 130 with what is spare in both: 2 MiB for 16,384.
#[derive(Debug)]
pub(in crate::gateway) struct Buckets {
    refill: Refill,
    capacity: usize,
    full_at: HashMap<Prefix, Instant>,
    by_time: BTreeSet<(Instant, Prefix)>,
}

impl Buckets {
    pub(in crate::gateway) fn new(refill: Refill, capacity: usize) -> Self {
        Self {
            refill,
            capacity: capacity.max(1),
            full_at: HashMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Takes a token of the prefix's; false if it has none.
    pub(in crate::gateway) fn take(&mut self, now: Instant, prefix: Prefix) -> bool {
        self.forget_full(now);
        let before = self.full_at.get(&prefix).copied();
        let Some(after) = self.refill.take(now, before) else {
            return false;
        };
        match before {
            Some(before) => {
                self.by_time.remove(&(before, prefix));
            }
            None if self.full_at.len() >= self.capacity => {
                if let Some((_, nearest)) = self.by_time.pop_first() {
                    self.full_at.remove(&nearest);
                }
            }
            None => {}
        }
        self.full_at.insert(prefix, after);
        self.by_time.insert((after, prefix));
        true
    }

    /// Each taking adds one bucket at most, and this drops two, so that the full ones never pile up and none pays for many.
    fn forget_full(&mut self, now: Instant) {
        for _ in 0..2 {
            match self.by_time.first() {
                Some(&(at, prefix)) if at <= now => {
                    self.by_time.pop_first();
                    self.full_at.remove(&prefix);
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    fn v4(n: u32) -> Prefix {
        Prefix::V4(n)
    }

    #[test]
    fn an_address_is_its_customer() {
        let prefix = |text: &str| Prefix::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.1"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.2.2"));
        assert_eq!(prefix("2001:db8:1:2::1"), prefix("2001:db8:1:2:ffff::9"));
        assert_ne!(prefix("2001:db8:1:2::1"), prefix("2001:db8:1:3::1"));
    }

    #[test]
    fn a_burst_is_had_at_once_and_the_rate_after_it() {
        let start = Clock::system().now();
        let mut buckets = Buckets::new(Refill::new(50, 200), 4);
        let taken =
            |buckets: &mut Buckets, now| (0..1_000).filter(|_| buckets.take(now, v4(1))).count();
        assert_eq!(taken(&mut buckets, start), 200);
        assert_eq!(taken(&mut buckets, start + Duration::from_secs(1)), 50);
        assert!(
            buckets.take(start + Duration::from_secs(1), v4(2)),
            "another's is full"
        );
        assert_eq!(
            taken(&mut buckets, start + Duration::from_secs(60)),
            200,
            "never more than the burst"
        );
    }

    #[test]
    fn others_cannot_reset_a_bucket_that_lacks_more_than_theirs() {
        let now = Clock::system().now();
        let mut buckets = Buckets::new(Refill::new(1, 3), 8);
        while buckets.take(now, v4(0)) {}
        // A thousand prefixes with one token each: they displace each other.
        for n in 1..1_000 {
            assert!(buckets.take(now, v4(n)), "nobody is locked out");
            assert!(!buckets.take(now, v4(0)));
        }
    }

    proptest! {
        /// As long as there is room, each prefix gets exactly what a bucket of its own would give it.
        #[test]
        fn buckets_are_independent(takes in proptest::collection::vec((0_u32..6, 0_u64..3_000), 1..300)) {
            let mut now = Clock::system().now();
            let refill = Refill::new(4, 3);
            let mut buckets = Buckets::new(refill, 6);
            let mut model: HashMap<u32, Instant> = HashMap::new();
            for (who, later) in takes {
                now += Duration::from_millis(later / 4);
                let expected = refill.take(now, model.get(&who).copied());
                prop_assert_eq!(buckets.take(now, v4(who)), expected.is_some());
                model.extend(expected.map(|at| (who, at)));
            }
        }

        /// Whoever comes, memory is bounded, and no prefix ever gets more than its burst at once while its bucket is kept.
        #[test]
        fn memory_is_bounded(takes in proptest::collection::vec((0_u32..100, 0_u64..50), 1..500)) {
            let mut now = Clock::system().now();
            let mut buckets = Buckets::new(Refill::new(10, 5), 16);
            for (who, later) in takes {
                now += Duration::from_millis(later);
                buckets.take(now, v4(who));
                prop_assert!(buckets.full_at.len() <= 16);
                prop_assert_eq!(buckets.full_at.len(), buckets.by_time.len());
            }
        }
    }
}
