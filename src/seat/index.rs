//! Finds slots by a hash: fixed in size from the start, so that to enter one never moves the others.
//!
//! Open addressing with linear probing. A bucket holds a slot and the 32 bits of its hash that say where its run begins; so most strangers
//! are told apart without a look at their seats, and taking one out can close the gap behind it (Knuth's algorithm R, TAOCP 6.4):
//! nothing is left that marks a deletion, and however many come and go, a search stays as short as it was. A map that grows and cleans up
//! as it goes would do so under the books' lock, some 100 ms of it at 1,000,000 seats.

/// An empty bucket. Others hold the hash above, and below the slot and one more.
const EMPTY: u64 = 0;

/// Slots by hash. What they are hashed for is for the caller to compare.
#[derive(Debug)]
pub(super) struct Index {
    /// A third more than there can be entries: a run of entries ends after a few, 1.5 on average and in a full index 8.5 if it is for
    /// nobody. 10.7 bytes an entry, in memory that the operating system backs as it is used.
    buckets: Box<[u64]>,
    entries: usize,
    capacity: usize,
}

impl Index {
    /// Room for so many.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            // One more at least, so that every run ends.
            buckets: vec![EMPTY; capacity + capacity / 3 + 1].into_boxed_slice(),
            entries: 0,
            capacity,
        }
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// The slot entered with this hash of which `is_it` says so.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.run(hash)
            .map(|(_, slot)| slot)
            .find(|slot| is_it(*slot))
    }

    /// Enters a slot, which must not be entered. False if there is no room.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) -> bool {
        if self.entries == self.capacity {
            return false;
        }
        let mut at = self.home(upper(hash));
        while self.at(at) != EMPTY {
            at = self.after(at);
        }
        self.put(at, entry(hash, slot));
        self.entries += 1;
        true
    }

    /// Puts a slot in another's place, under the same hash.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        if let Some(at) = self.place(hash, old) {
            self.put(at, entry(hash, new));
        }
    }

    /// Takes a slot out, if it was entered with this hash.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let Some(mut gap) = self.place(hash, slot) else {
            return;
        };
        self.entries -= 1;
        // Whatever could stand in the gap without coming before the place where its run begins moves into it, and leaves the next.
        let mut at = self.after(gap);
        while self.at(at) != EMPTY {
            let home = self.home((self.at(at) >> 32) as u32);
            if self.distance(home, at) >= self.distance(gap, at) {
                self.put(gap, self.at(at));
                gap = at;
            }
            at = self.after(at);
        }
        self.put(gap, EMPTY);
    }

    fn place(&self, hash: u64, slot: u32) -> Option<usize> {
        self.run(hash)
            .find(|(_, entered)| *entered == slot)
            .map(|(at, _)| at)
    }

    /// The places and slots that were entered with this hash, or with one that looks like it.
    fn run(&self, hash: u64) -> impl Iterator<Item = (usize, u32)> {
        let mut at = self.home(upper(hash));
        std::iter::from_fn(move || {
            let found = (at, self.at(at));
            at = self.after(at);
            (found.1 != EMPTY).then_some(found)
        })
        .filter(move |(_, entry)| (entry >> 32) as u32 == upper(hash))
        .map(|(at, entry)| (at, (entry as u32).wrapping_sub(1)))
    }

    /// Where the run of a hash begins: as far into the buckets as the hash is into all hashes.
    fn home(&self, upper: u32) -> usize {
        ((u64::from(upper) * self.buckets.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() {
            0
        } else {
            at + 1
        }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.buckets.len() - from
        }
    }

    fn at(&self, at: usize) -> u64 {
        self.buckets.get(at).copied().unwrap_or(EMPTY)
    }

    fn put(&mut self, at: usize, entry: u64) {
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket = entry;
        }
    }
}

const fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}

const fn entry(hash: u64, slot: u32) -> u64 {
    (upper(hash) as u64) << 32 | (slot as u64 + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Against a map, in an index that is full most of the time, with hashes of which many are equal and many begin at the end.
    #[test]
    fn finds_what_was_entered_and_nothing_else() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for capacity in [1_usize, 2, 3, 7, 64] {
            let mut index = Index::new(capacity);
            let mut entered = BTreeMap::new();
            for _ in 0..20_000 {
                let slot = rng.random_range(0..2 * capacity as u32 + 1);
                let hash = match slot % 4 {
                    0 => u64::MAX,
                    1 => u64::from(slot) << 33,
                    2 => 7 << 40,
                    _ => u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                };
                if entered.remove(&slot).is_some() {
                    index.remove(hash, slot);
                } else {
                    let is_full = entered.len() == capacity;
                    assert_eq!(index.insert(hash, slot), !is_full);
                    if !is_full {
                        entered.insert(slot, hash);
                    }
                }
                index.remove(hash, 1_000);
                for (slot, hash) in &entered {
                    assert_eq!(index.find(*hash, |it| it == *slot), Some(*slot));
                }
                let of_hash = entered.values().filter(|it| upper(**it) == upper(hash));
                let (expected, mut told) = (of_hash.count(), 0);
                let none = index.find(hash, |_| {
                    told += 1;
                    false
                });
                assert_eq!((none, told), (None, expected));
            }
        }
    }

    #[test]
    fn one_can_stand_in_for_another() {
        let mut index = Index::new(3);
        for slot in [1, 2, 3] {
            assert!(index.insert(9 << 32, slot));
        }
        index.replace(9 << 32, 2, 20);
        index.replace(9 << 32, 4, 40);
        for (slot, there) in [(1, true), (2, false), (3, true), (20, true), (40, false)] {
            assert_eq!(index.find(9 << 32, |it| it == slot).is_some(), there);
        }
    }

    #[test]
    fn without_room_nothing_is_found() {
        let mut index = Index::new(0);
        assert!(!index.insert(1, 1));
        assert_eq!(index.find(1, |_| true), None);
    }
}
