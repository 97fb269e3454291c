//! How often each of many may ask for something: sessions for connect tokens and refreshes, network addresses for logins.
//!
//! A token bucket for each, by `governor` (the generic cell rate algorithm, ITU-T I.371), which keeps it as one instant: the time at which
//! the bucket will be full again. A bucket that is full needs no memory. What is ours is where the instants are kept: `governor`'s own
//! stores grow with whoever asks, and this one does not.
//!
//! ```text
//! known                             its own bucket, whatever happens
//! not known, and there is room      a bucket of its own
//! not known, and there is no room   one of 16 buckets that its neighbours share, until those that are full again have been forgotten
//! ```
//!
//! So whoever fills the memory takes nothing from those who are known already, and from newcomers of his own neighbourhood alone, which
//! for whoever fills it by network addresses is the /32 (of IPv6) or /16 (of IPv4) that they are from. Nobody is without a limit.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter, clock::Clock as GovernorClock, middleware::NoOpMiddleware, nanos::Nanos,
    state::StateStore,
};

use crate::clock::Clock;

/// Buckets of one kind that are kept: 2^17 at some 50 bytes are 6.5 MB.
const CAPACITY: usize = 1 << 17;

/// Buckets that are shared when there are too many: 2^16 at 8 bytes are half a megabyte, and are there from the first time on.
const SHARED: u64 = 1 << 16;

/// How many of these the newcomers of one neighbourhood have.
const OF_A_NEIGHBOURHOOD: u64 = 16;

/// How long after full buckets were forgotten the rest is left alone, so that a full memory costs one look through it a second.
const SWEEP: Duration = Duration::from_secs(1);

/// One limit, and what each has used of it.
pub(super) struct Limit<K: Clone + Eq + Hash>(
    RateLimiter<Bucket<K>, Buckets<K>, SinceStart, NoOpMiddleware<Duration>>,
);

/// Who asks, and in which neighbourhood.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bucket<K> {
    key: K,
    neighbourhood: Option<u64>,
}

impl<K: Clone + Eq + Hash> Limit<K> {
    /// So many in an hour, all at once too.
    pub(super) fn per_hour(most: NonZeroU32, clock: &Clock) -> Self {
        Self::new(Quota::per_hour(most), clock, CAPACITY)
    }

    /// So many in a minute, all at once too; none is one.
    pub(super) fn per_minute(most: u32, clock: &Clock) -> Self {
        let most = NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN);
        Self::new(Quota::per_minute(most), clock, CAPACITY)
    }

    fn new(quota: Quota, clock: &Clock, capacity: usize) -> Self {
        let clock = SinceStart {
            start: clock.now(),
            clock: clock.clone(),
        };
        let buckets = Buckets {
            kept: Mutex::new(Kept {
                own: HashMap::new(),
                shared: Vec::new(),
                swept_at: None,
            }),
            clock: clock.clone(),
            capacity,
        };
        Self(RateLimiter::new(quota, buckets, clock))
    }

    /// Takes one token out of the bucket of `key`, which has its neighbours in `neighbourhood`; without one, chance says who they are.
    ///
    /// # Errors
    /// It is empty, and this long it takes until there is one again.
    pub(super) fn take(&self, key: K, neighbourhood: Option<u64>) -> Result<(), Duration> {
        let now = self.0.clock().now();
        let bucket = Bucket { key, neighbourhood };
        let taken = self.0.check_key(&bucket);
        taken.map_err(|until| until.wait_time_from(now))
    }
}

/// Time as `governor` asks for it: since the limit was made.
#[derive(Debug, Clone)]
struct SinceStart {
    clock: Clock,
    start: Instant,
}

impl GovernorClock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.start)
    }
}

/// When each bucket will be full again, in nanoseconds since the limit was made.
struct Buckets<K> {
    kept: Mutex<Kept<K>>,
    clock: SinceStart,
    capacity: usize,
}

struct Kept<K> {
    own: HashMap<K, u64>,
    /// None until they are needed.
    shared: Vec<u64>,
    swept_at: Option<Duration>,
}

impl<K: Clone + Eq + Hash> StateStore for Buckets<K> {
    type Key = Bucket<K>;

    fn measure_and_replace<T, F, E>(&self, bucket: &Bucket<K>, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let now = self.clock.now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = kept.own.get_mut(&bucket.key) {
            let (taken, next) = measure(Some(Nanos::new(*full_at)))?;
            *full_at = next.as_u64();
            return Ok(taken);
        }
        if kept.has_room(self.capacity, now) {
            let (taken, next) = measure(None)?;
            kept.own.insert(bucket.key.clone(), next.as_u64());
            return Ok(taken);
        }
        let Some(full_at) = kept.shared_with(bucket) else {
            return measure(None).map(|(taken, _)| taken);
        };
        let (taken, next) = measure(Some(Nanos::new(*full_at)))?;
        *full_at = next.as_u64();
        Ok(taken)
    }
}

impl<K: Eq + Hash> Kept<K> {
    fn has_room(&mut self, capacity: usize, now: Duration) -> bool {
        let is_due = self
            .swept_at
            .is_none_or(|at| now.saturating_sub(at) >= SWEEP);
        if self.own.len() >= capacity && is_due {
            self.own
                .retain(|_, full_at| u128::from(*full_at) > now.as_nanos());
            self.swept_at = Some(now);
        }
        self.own.len() < capacity
    }

    /// The bucket that a newcomer shares with others of the neighbourhood.
    fn shared_with(&mut self, bucket: &Bucket<K>) -> Option<&mut u64> {
        if self.shared.is_empty() {
            self.shared = vec![0; usize::try_from(SHARED).unwrap_or_default()];
        }
        // By hashes whose key nobody knows.
        let hasher = self.own.hasher();
        let own = hasher.hash_one(&bucket.key);
        let place = match bucket.neighbourhood {
            Some(neighbourhood) => hasher.hash_one((neighbourhood, own % OF_A_NEIGHBOURHOOD)),
            None => own,
        };
        let place = place % SHARED;
        self.shared.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn limit(most: u32, capacity: usize) -> (Limit<u32>, ManualTime) {
        let time = ManualTime::starting_at(Timestamp(0));
        let quota = Quota::per_minute(NonZeroU32::new(most).unwrap());
        (Limit::new(quota, &time.clock(), capacity), time)
    }

    fn count(limit: &Limit<u32>, key: u32, neighbourhood: u64) -> usize {
        let taken = (0..2_000).take_while(|_| limit.take(key, Some(neighbourhood)).is_ok());
        taken.count()
    }

    #[test]
    fn a_burst_then_the_rate_for_each_alone() {
        let (limit, time) = limit(60, CAPACITY);
        let (ada, bob) = (1, 2);
        assert_eq!(count(&limit, ada, 0), 60);
        assert_eq!(limit.take(ada, None), Err(SECOND));
        assert_eq!(limit.take(bob, None), Ok(()));
        // What was refused costs nothing.
        time.advance(SECOND);
        assert_eq!(limit.take(ada, None), Ok(()));
        assert_eq!(limit.take(ada, None), Err(SECOND));
        for _ in 0..2 {
            time.advance(10 * MINUTE);
            assert_eq!(count(&limit, ada, 0), 60);
        }
    }

    #[test]
    fn every_limit_is_kept_to_the_last_token() {
        for most in [1, 2, 7, 61, 1_000] {
            assert_eq!(count(&limit(most, CAPACITY).0, 1, 0), most as usize);
        }
    }

    #[test]
    fn memory_is_bounded_and_forgets_full_buckets() {
        let (limit, time) = limit(1, 3);
        // There is no other way to look into it.
        let buckets = |limit: Limit<u32>| limit.0.into_state_store().kept.into_inner().unwrap();
        for key in 0..10_000 {
            let _ = limit.take(key, None);
        }
        assert!(limit.take(0, None).is_err());
        time.advance(MINUTE);
        assert_eq!(limit.take(50, None), Ok(()));
        assert!(limit.take(50, None).is_err());
        let kept = buckets(limit);
        assert_eq!(kept.own.len(), 1);
        assert_eq!(kept.shared.len() as u64, SHARED);
    }

    /// Whoever has used up his own share gets no other by filling the memory, and neither does he take theirs from those who are known,
    /// or from newcomers who are not his neighbours.
    #[test]
    fn who_fills_the_memory_takes_from_his_neighbours_alone() {
        let (limit, _time) = limit(2, 100);
        let (known, attacker) = (0, 7);
        assert_eq!(limit.take(known, Some(1)), Ok(()));
        assert_eq!(count(&limit, 1, attacker), 2);
        let let_in = (2..10_000).filter(|key| limit.take(*key, Some(attacker)).is_ok());
        let let_in = let_in.count();
        let most = 98 + 2 * OF_A_NEIGHBOURHOOD as usize;
        assert!(let_in <= most, "{let_in} of {most}");
        assert_eq!(count(&limit, 1, attacker), 0, "its own is used up");
        assert_eq!(count(&limit, known, 1), 1, "its own is not");
        // Chance has a few of them share with the attacker.
        let newcomers =
            (20_000..20_100).filter(|key| limit.take(*key, Some((*key).into())).is_ok());
        assert!(newcomers.count() >= 95);
    }
}
