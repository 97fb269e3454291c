//! An issuer's keys, and when they are asked for anew.
//!
//! ```text
//! a token of an unknown key ──► wish ──► one task: due? ──► fetch ──► all who wait look again
//! keys older than an hour ────► wish      not due: nothing
//! ```
//!
//! One task for each issuer fetches, so one fetch is under way at most, and it ends whoever of its callers goes away. After one that
//! brought keys there is none for a minute, so that nobody who makes up keys has us ask more often; after one that failed the pause is
//! short first and doubles. What was fetched last stays in force until something newer is: an issuer that is down lets those in whom it
//! has vouched for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use openidconnect::core::CoreJsonWebKeySet;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, sidecar::metrics::Counters};

use super::{
    https::{Https, NotFetched},
    settings::IssuerName,
};

/// How long after keys were fetched none are: issuers announce a key long before they sign with it.
pub(super) const COOL_DOWN: Duration = Duration::from_secs(60);

/// How long after a fetch has failed for the first time there is none; twice as long after each further one, up to [`COOL_DOWN`].
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// From this age on keys are fetched anew beside their use: one that the issuer has withdrawn is believed no longer than that.
pub(super) const FRESH: Duration = Duration::from_secs(60 * 60);

/// How long a caller waits for keys: a little longer than fetching them may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// What is known of an issuer's keys.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) keys: Arc<CoreJsonWebKeySet>,
    /// How many fetches have ended.
    pub(super) fetches: u64,
    /// How many of the last ones have failed in a row.
    failures: u32,
    /// When the last one ended that brought keys, and the last one of all.
    fetched_at: Option<Instant>,
    ended_at: Option<Instant>,
}

impl Known {
    fn nothing() -> Self {
        Self {
            keys: Arc::default(),
            fetches: 0,
            failures: 0,
            fetched_at: None,
            ended_at: None,
        }
    }

    /// Whether they may be asked for now; else how long it is until then.
    fn due(&self, now: Instant) -> Result<(), Duration> {
        let Some(ended_at) = self.ended_at else {
            return Ok(());
        };
        let doubled = 1_u32.checked_shl(self.failures.saturating_sub(1));
        let pause = match self.failures {
            0 => COOL_DOWN,
            _ => RETRY
                .saturating_mul(doubled.unwrap_or(u32::MAX))
                .min(COOL_DOWN),
        };
        let wait = pause.saturating_sub(now.saturating_duration_since(ended_at));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let fresh = |at| now.saturating_duration_since(at) < FRESH;
        self.fetched_at.is_some_and(fresh)
    }

    /// Whether the issuer has told its keys when it was last asked.
    pub(super) fn is_up(&self) -> bool {
        self.fetches > 0 && self.failures == 0
    }

    /// How long it is until it is asked again.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due(now).err().unwrap_or(RETRY)
    }

    fn learn(&mut self, fetched: Option<Arc<CoreJsonWebKeySet>>, now: Instant) {
        self.fetches += 1;
        self.ended_at = Some(now);
        match fetched {
            Some(keys) => {
                self.keys = keys;
                self.failures = 0;
                self.fetched_at = Some(now);
            }
            None => self.failures = self.failures.saturating_add(1),
        }
    }
}

/// Where callers look keys up.
pub(super) struct Keys {
    known: watch::Receiver<Known>,
    wish: Arc<Notify>,
    clock: Clock,
}

/// Who fetches them.
pub(super) struct Keeper {
    name: IssuerName,
    https: Https,
    known: watch::Sender<Known>,
    wish: Arc<Notify>,
    clock: Clock,
    counters: Arc<Counters>,
}

/// Nothing is known at first, and asked for as soon as the keeper runs.
pub(super) fn keys(
    name: IssuerName,
    https: Https,
    clock: Clock,
    counters: Arc<Counters>,
) -> (Keys, Keeper) {
    let (sender, receiver) = watch::channel(Known::nothing());
    let wish = Arc::new(Notify::new());
    wish.notify_one();
    let keys = Keys {
        known: receiver,
        wish: Arc::clone(&wish),
        clock: clock.clone(),
    };
    let keeper = Keeper {
        name,
        https,
        known: sender,
        wish,
        clock,
        counters,
    };
    (keys, keeper)
}

impl Keys {
    /// What is known now. Nobody waits for what is merely old to be fetched again.
    pub(super) fn known(&self) -> Known {
        let known = self.known.borrow().clone();
        if !known.is_fresh(self.clock.now()) {
            self.wish.notify_one();
        }
        known
    }

    /// What is known after `known` turned out not to be enough: waits for a fetch if one is under way or due, and else does not.
    pub(super) async fn beyond(&self, known: &Known) -> Known {
        let mut later = self.known.clone();
        let seen = later.borrow().clone();
        if seen.fetches > known.fetches || seen.due(self.clock.now()).is_err() {
            return seen;
        }
        self.wish.notify_one();
        let fetched = later.wait_for(|later| later.fetches > known.fetches);
        match tokio::time::timeout(PATIENCE, fetched).await {
            Ok(Ok(later)) => later.clone(),
            Ok(Err(_)) | Err(_) => seen,
        }
    }
}

impl Keeper {
    /// Fetches when that is wished for and due, until it is told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let serve = async {
            loop {
                self.wish.notified().await;
                let is_due = self.known.borrow().due(self.clock.now()).is_ok();
                if is_due {
                    self.fetch().await;
                }
            }
        };
        tokio::select! {
            () = serve => {}
            () = stop.cancelled() => {}
        }
    }

    async fn fetch(&self) {
        let issuer = self.name.as_str();
        let fetched = match self.https.fetch().await {
            Ok(keys) => {
                tracing::info!(issuer, keys = keys.keys().len(), "identity keys fetched");
                self.counters.key_fetches.count("fetched");
                Some(keys)
            }
            Err(NotFetched { label, detail }) => {
                tracing::warn!(
                    issuer,
                    label,
                    detail,
                    "identity keys cannot be fetched: those that are known stay in force"
                );
                self.counters.key_fetches.count("failed");
                None
            }
        };
        let now = self.clock.now();
        self.known.send_modify(|known| known.learn(fetched, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        ManualTime::starting_at(Timestamp(0)).clock().now()
    }

    #[test]
    fn after_keys_there_is_a_pause_of_a_minute_whatever_is_wished() {
        let (mut known, start) = (Known::nothing(), start());
        assert_eq!(known.due(start), Ok(()));
        assert!(!known.is_up());
        known.learn(Some(Arc::default()), start);
        assert!(known.is_up());
        assert_eq!(known.due(start), Err(COOL_DOWN));
        assert_eq!(known.due(start + COOL_DOWN - SECOND), Err(SECOND));
        assert_eq!(known.due(start + COOL_DOWN), Ok(()));
        assert!(known.is_fresh(start + FRESH - SECOND));
        assert!(!known.is_fresh(start + FRESH));
    }

    #[test]
    fn pauses_after_failures_double_and_end_with_the_first_success() {
        let (mut known, start) = (Known::nothing(), start());
        let keys: Arc<CoreJsonWebKeySet> = Arc::default();
        known.learn(Some(Arc::clone(&keys)), start);
        for seconds in [5, 10, 20, 40, 60, 60] {
            known.learn(None, start);
            assert_eq!(known.due(start), Err(seconds * SECOND));
            assert!(!known.is_up());
            assert!(Arc::ptr_eq(&known.keys, &keys), "keys were dropped");
        }
        for _ in 0..100 {
            known.learn(None, start);
        }
        assert_eq!(known.due(start), Err(COOL_DOWN));
        known.learn(Some(keys), start);
        known.learn(None, start);
        assert_eq!(known.due(start), Err(RETRY));
    }
}
