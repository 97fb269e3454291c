//! How often each session may ask for something: for connect tokens, or to be refreshed.
//!
//! A token bucket per session, kept as one instant: the time at which the bucket will be full again (the "theoretical arrival time" of
//! the generic cell rate algorithm, ITU-T I.371). A bucket that is full needs no memory.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::id::SessionId;

/// In this time an empty bucket fills up.
const WINDOW: Duration = Duration::from_secs(60);

/// Sessions that are remembered: 2^16 at about 48 bytes are 3 MiB. A connect token keeps its session here for [`WINDOW`] over the limit, a
/// second by default, so this many serve as many tokens a second; a refresh keeps it for two.
const CAPACITY: usize = 1 << 16;

/// How long after it was swept the memory is left alone, so that a full one costs one sweep a second.
const SWEEP: Duration = Duration::from_secs(1);

/// The limit, and what each session has used of it.
#[derive(Debug)]
pub(super) struct Limit {
    /// What asking once costs.
    cost: Duration,
    capacity: usize,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<SessionId, Instant>,
    swept_at: Option<Instant>,
}

impl Limit {
    /// So many in a minute, all at once too.
    pub(super) fn per_minute(most: u32) -> Self {
        Self {
            cost: WINDOW / most.max(1),
            capacity: CAPACITY,
            buckets: Mutex::default(),
        }
    }

    /// Takes one token out of the session's bucket.
    ///
    /// # Errors
    /// It is empty, and this long it takes until there is one again.
    pub(super) fn take(&self, session: SessionId, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = buckets.full_at.get(&session).copied();
        let full_at = known.map_or(now, |at| at.max(now)) + self.cost;
        let used = full_at.saturating_duration_since(now);
        if used > WINDOW {
            return Err(used.saturating_sub(WINDOW));
        }
        if known.is_some() || buckets.has_room(self.capacity, now) {
            buckets.full_at.insert(session, full_at);
        }
        Ok(())
    }
}

impl Buckets {
    /// Whether another session can be remembered. One that cannot be is served without a limit: whoever logs in this often is to be
    /// stopped there, and not by refusing everybody else here.
    fn has_room(&mut self, capacity: usize, now: Instant) -> bool {
        let is_due = self
            .swept_at
            .is_none_or(|at| now.saturating_duration_since(at) >= SWEEP);
        if self.full_at.len() >= capacity && is_due {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.swept_at = Some(now);
        }
        self.full_at.len() < capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_the_rate_for_each_session_alone() {
        let time = ManualTime::starting_at(Timestamp(0));
        let clock = time.clock();
        let limit = Limit::per_minute(60);
        let (ada, bob) = (SessionId(1), SessionId(2));
        for _ in 0..60 {
            assert_eq!(limit.take(ada, clock.now()), Ok(()));
        }
        assert_eq!(limit.take(ada, clock.now()), Err(SECOND));
        assert_eq!(limit.take(bob, clock.now()), Ok(()));
        // What was refused costs nothing.
        time.advance(SECOND);
        assert_eq!(limit.take(ada, clock.now()), Ok(()));
        assert_eq!(limit.take(ada, clock.now()), Err(SECOND));
        time.advance(WINDOW);
        let burst = (0..100).filter(|_| limit.take(ada, clock.now()).is_ok());
        assert_eq!(burst.count(), 60);
    }

    #[test]
    fn every_limit_is_kept_to_the_last_token() {
        let clock = ManualTime::starting_at(Timestamp(0)).clock();
        for most in [1, 2, 7, 61, 1_000] {
            let limit = Limit::per_minute(most);
            let taken = (0..most + 5).filter(|_| limit.take(SessionId(1), clock.now()).is_ok());
            assert_eq!(taken.count(), most as usize);
        }
    }

    #[test]
    fn memory_is_bounded_and_forgets_full_buckets() {
        let time = ManualTime::starting_at(Timestamp(0));
        let clock = time.clock();
        let mut limit = Limit::per_minute(1);
        limit.capacity = 3;
        let sessions = |limit: &Limit| limit.buckets.lock().unwrap().full_at.len();
        for id in 0..10 {
            assert_eq!(limit.take(SessionId(id), clock.now()), Ok(()));
        }
        assert_eq!(sessions(&limit), 3);
        assert!(limit.take(SessionId(0), clock.now()).is_err());
        time.advance(WINDOW);
        assert_eq!(limit.take(SessionId(50), clock.now()), Ok(()));
        assert_eq!(sessions(&limit), 1);
        assert!(limit.take(SessionId(50), clock.now()).is_err());
    }
}
