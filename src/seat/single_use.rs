//! Which connect tokens were used: the token history of netcode, with the rule of its version 1.4.5.
//!
//! netcode 1.4.5 (pull requests 183 and 184, after advisory GHSA-v29p-3vj4-vg4f): an entry is *pending* while the admission that
//! presented the token runs and *consumed* once it is seated; either admits nothing else. Entries live until the token's own
//! end; a full history refuses new tokens and never evicts a live entry, or a flood could make it forget.

use std::{
    collections::{BTreeSet, HashMap, hash_map},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use thiserror::Error;

use crate::clock::Timestamp;

/// A connect token's nonce: what it is known by here.
type Nonce = [u8; 24];

/// Dead entries that one call clears away at most. Two would do: each call adds one entry at most, so that the dead can only
/// dwindle.
const PURGED_PER_CALL: usize = 4;

/// The single-use history of a gateway process. Shared between its workers; one lock, held for a few map operations.
///
/// Memory: an entry takes 49 bytes in the map, which is 7/16 full after it has grown, and 32 in the order of ends, whose nodes are
/// 5/11 full at worst: under 190 bytes. A capacity of 65,536 (12 MiB) holds the tokens of 210 admissions a second, sustained, at
/// 5 min and 5 s each, or of 1,870 a second at the default 30 s and 5 s.
///
/// It lives and dies with the process: tokens are bound to a process, so that a restart cannot make used ones good again.
#[derive(Debug)]
pub struct SingleUse {
    capacity: usize,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    entries: HashMap<Nonce, Entry>,
    /// The entries in the order in which they end.
    ends: BTreeSet<(Timestamp, Nonce)>,
    serials: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    until: Timestamp,
    /// Tells the entry of one admission from that of another with the same token.
    serial: u64,
    consumed: bool,
}

/// The entry of an admission that is under way: to be consumed once it is seated, or released if it fails.
///
/// If it is dropped instead, the token stays unusable until its end: the safe side.
#[must_use = "an admission either consumes or releases its token"]
pub struct Pending {
    nonce: Nonce,
    serial: u64,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// Why a token is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum UseRefused {
    /// It was presented before: it is pending, or consumed.
    #[error("the token was presented before")]
    Used,
    /// The history is full of live entries.
    #[error("the single-use history is full")]
    Full,
}

impl UseRefused {
    /// The fixed name, for metrics and logs: that of the close code which the client sees.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Used => "token_used",
            Self::Full => "server_full",
        }
    }
}

impl SingleUse {
    /// An empty history that holds up to `capacity` live entries.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            history: Mutex::default(),
        }
    }

    /// Begins to use a token that is good through `until` (its exp plus leeway, inclusive): of any number of calls with one
    /// nonce, one succeeds, until that is released.
    ///
    /// # Errors
    /// [`UseRefused`]; nothing has changed then.
    pub fn begin(
        &self,
        nonce: Nonce,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Pending, UseRefused> {
        let mut history = self.history();
        history.purge(now);
        if history
            .entries
            .get(&nonce)
            .is_some_and(|entry| entry.until >= now)
        {
            return Err(UseRefused::Used);
        }
        history.forget(&nonce);
        if history.entries.len() >= self.capacity {
            return Err(UseRefused::Full);
        }
        let serial = history.serials;
        history.serials += 1;
        history.ends.insert((until, nonce));
        history.entries.insert(
            nonce,
            Entry {
                until,
                serial,
                consumed: false,
            },
        );
        Ok(Pending { nonce, serial })
    }

    /// The admission was seated: its token is used for good.
    #[expect(clippy::needless_pass_by_value, reason = "it can be used up but once")]
    pub fn consume(&self, pending: Pending) {
        if let Some(entry) = self.history().pending(&pending) {
            entry.consumed = true;
        }
    }

    /// The admission failed before it was seated: its token may be presented again. Does nothing to an entry that another
    /// admission made since.
    #[expect(clippy::needless_pass_by_value, reason = "it can be used up but once")]
    pub fn release(&self, pending: Pending) {
        let mut history = self.history();
        if history.pending(&pending).is_some() {
            history.forget(&pending.nonce);
        }
    }

    /// How many entries there are, dead ones that were not cleared away yet included.
    pub fn len(&self) -> usize {
        self.history().entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing that is done under the lock can panic.
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// The entry that `pending` made, if it is there and still pending.
    fn pending(&mut self, pending: &Pending) -> Option<&mut Entry> {
        self.entries
            .get_mut(&pending.nonce)
            .filter(|entry| entry.serial == pending.serial && !entry.consumed)
    }

    fn forget(&mut self, nonce: &Nonce) {
        if let hash_map::Entry::Occupied(entry) = self.entries.entry(*nonce) {
            self.ends.remove(&(entry.remove().until, *nonce));
        }
    }

    /// Clears away some of the entries whose end has passed.
    fn purge(&mut self, now: Timestamp) {
        for _ in 0..PURGED_PER_CALL {
            match self.ends.first() {
                Some((until, nonce)) if *until < now => {
                    self.entries.remove(nonce);
                    self.ends.pop_first();
                }
                Some(_) | None => break,
            }
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Barrier, thread};

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn nonce(n: u8) -> Nonce {
        [n; 24]
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp(NOW.0 + ms)
    }

    #[test]
    fn pending_and_consumed_admit_nothing_else() {
        let uses = SingleUse::new(8);
        let pending = uses.begin(nonce(1), at(10), NOW).unwrap();
        assert_eq!(
            uses.begin(nonce(1), at(10), NOW).unwrap_err(),
            UseRefused::Used
        );
        uses.consume(pending);
        assert_eq!(
            uses.begin(nonce(1), at(10), at(10)).unwrap_err(),
            UseRefused::Used
        );
    }

    #[test]
    fn a_failed_admission_releases_its_token() {
        let uses = SingleUse::new(8);
        uses.release(uses.begin(nonce(1), at(10), NOW).unwrap());
        assert!(uses.is_empty());
        let second = uses.begin(nonce(1), at(10), NOW).unwrap();
        uses.consume(second);
        assert!(uses.begin(nonce(1), at(10), NOW).is_err());
    }

    #[test]
    fn a_stale_release_does_not_free_its_successor() {
        let uses = SingleUse::new(8);
        let stale = uses.begin(nonce(1), at(10), NOW).unwrap();
        let successor = uses.begin(nonce(1), at(30), at(20)).unwrap();
        uses.release(stale);
        assert_eq!(
            uses.begin(nonce(1), at(30), at(20)).unwrap_err(),
            UseRefused::Used
        );
        uses.consume(successor);
        assert!(uses.begin(nonce(1), at(30), at(20)).is_err());
    }

    #[test]
    fn a_full_history_refuses_and_never_evicts() {
        let uses = SingleUse::new(100);
        for n in 0..100 {
            uses.consume(uses.begin(nonce(n), at(100 + u64::from(n)), NOW).unwrap());
        }
        for n in 100..=255 {
            assert_eq!(
                uses.begin(nonce(n), at(500), at(100)).unwrap_err(),
                UseRefused::Full
            );
        }
        for n in 0..100 {
            assert_eq!(
                uses.begin(nonce(n), at(500), at(100)).unwrap_err(),
                UseRefused::Used
            );
        }
        assert!(
            uses.begin(nonce(200), at(500), at(101)).is_ok(),
            "the first has ended"
        );
    }

    #[test]
    fn the_dead_are_cleared_away_a_few_at_a_time() {
        let uses = SingleUse::new(1_000);
        for n in 0..=255 {
            uses.consume(uses.begin(nonce(n), at(1), NOW).unwrap());
        }
        let mut before = uses.len();
        for n in 0..200_u64 {
            let mut fresh = [0; 24];
            fresh[..8].copy_from_slice(&(1_000 + n).to_le_bytes());
            uses.consume(uses.begin(fresh, at(1_000), at(2)).unwrap());
            let len = uses.len();
            assert!(len + PURGED_PER_CALL > before);
            before = len;
        }
        assert_eq!(uses.len(), 200);
    }

    #[test]
    fn of_a_thousand_at_once_one_is_in() {
        let uses = SingleUse::new(8);
        let threads = 4;
        let barrier = Barrier::new(threads);
        let begun: usize = thread::scope(|scope| {
            let joins: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        (0..250)
                            .filter_map(|_| uses.begin(nonce(1), at(10), NOW).ok())
                            .count()
                    })
                })
                .collect();
            joins.into_iter().map(|join| join.join().unwrap()).sum()
        });
        assert_eq!(begun, 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin(u8, u64),
        Consume(usize),
        Release(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..24_u8, 0..60_u64).prop_map(|(n, life)| Step::Begin(n, life)),
            2 => any::<usize>().prop_map(Step::Consume),
            2 => any::<usize>().prop_map(Step::Release),
            1 => (0..20_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// The oracle forgets the dead at once, and is asked of the live alone.
        #[test]
        fn agrees_with_a_plain_map(steps in prop::collection::vec(step(), 1..300)) {
            const CAPACITY: usize = 12;
            let uses = SingleUse::new(CAPACITY);
            let mut live: BTreeMap<u8, (u64, u64, bool)> = BTreeMap::new();
            let mut open: Vec<(u8, u64, Pending)> = Vec::new();
            let (mut now, mut serial) = (0, 0);
            for step in steps {
                match step {
                    Step::Pass(ms) => now += ms,
                    Step::Begin(n, life) => {
                        live.retain(|_, (until, ..)| *until >= now);
                        let got = uses.begin(nonce(n), at(now + life), at(now));
                        if live.contains_key(&n) {
                            prop_assert_eq!(got.unwrap_err(), UseRefused::Used);
                        } else if live.len() == CAPACITY {
                            prop_assert_eq!(got.unwrap_err(), UseRefused::Full);
                        } else if let Ok(pending) = got {
                            live.insert(n, (now + life, serial, false));
                            open.push((n, serial, pending));
                            serial += 1;
                        } else {
                            prop_assert!(false, "refused for no reason");
                        }
                    }
                    Step::Consume(i) if !open.is_empty() => {
                        let (n, serial, pending) = open.swap_remove(i % open.len());
                        uses.consume(pending);
                        if let Some(entry) = live.get_mut(&n).filter(|entry| entry.1 == serial) {
                            entry.2 = true;
                        }
                    }
                    Step::Release(i) if !open.is_empty() => {
                        let (n, serial, pending) = open.swap_remove(i % open.len());
                        uses.release(pending);
                        if live.get(&n).is_some_and(|entry| entry.1 == serial && !entry.2) {
                            live.remove(&n);
                        }
                    }
                    Step::Consume(_) | Step::Release(_) => {}
                }
                prop_assert!(uses.len() <= CAPACITY);
            }
        }
    }
}
