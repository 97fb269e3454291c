//! Rooms where connections wait in the order of their coming.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::{Duration, Instant},
};

use super::{buckets::Prefix, link::LinkId};

/// Connections that wait for the same thing, oldest first.
///
/// Those that leave from the middle are marked by a tombstone, and swept when the tombstones outnumber the waiting.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    queue: VecDeque<Waiting>,
    waiting: usize,
    /// How many of each prefix wait, of those that wait under their prefix's name.
    of_prefix: HashMap<Prefix, usize>,
}

#[derive(Debug)]
struct Waiting {
    id: LinkId,
    since: Instant,
    prefix: Option<Prefix>,
    here: bool,
}

impl WaitingRoom {
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// How many wait under this prefix's name.
    pub(super) fn of(&self, prefix: Prefix) -> usize {
        self.of_prefix.get(&prefix).copied().unwrap_or(0)
    }

    /// Lets one in, under its prefix's name if its address has proved itself.
    pub(super) fn enter(&mut self, id: LinkId, since: Instant, prefix: Option<Prefix>) {
        self.queue.push_back(Waiting {
            id,
            since,
            prefix,
            here: true,
        });
        self.waiting += 1;
        if let Some(prefix) = prefix {
            *self.of_prefix.entry(prefix).or_default() += 1;
        }
    }

    /// Lets one leave. Those who leave came recently as a rule, so the search starts there.
    pub(super) fn leave(&mut self, id: LinkId) {
        let place = self
            .queue
            .iter()
            .rposition(|waiting| waiting.here && waiting.id == id);
        if let Some(place) = place {
            self.clear(place);
        }
    }

    /// Since when the oldest has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|waiting| waiting.since)
    }

    /// The oldest.
    pub(super) fn oldest_id(&self) -> Option<LinkId> {
        self.queue.front().map(|waiting| waiting.id)
    }

    /// The oldest that waits under this prefix's name. It looks at every place, twice the room's cap at the most: some microseconds,
    /// beside the 250 that a handshake takes.
    pub(super) fn oldest_id_of(&self, prefix: Prefix) -> Option<LinkId> {
        self.place_of_oldest(prefix)
            .and_then(|place| self.queue.get(place))
            .map(|waiting| waiting.id)
    }

    fn place_of_oldest(&self, prefix: Prefix) -> Option<usize> {
        self.queue
            .iter()
            .position(|waiting| waiting.here && waiting.prefix == Some(prefix))
    }

    /// Takes the oldest out.
    pub(super) fn pop_oldest(&mut self) -> Option<LinkId> {
        self.clear(0)
    }

    /// Takes the oldest out that waits under this prefix's name.
    pub(super) fn pop_oldest_of(&mut self, prefix: Prefix) -> Option<LinkId> {
        let place = self.place_of_oldest(prefix)?;
        self.clear(place)
    }

    /// Takes one out that has waited for `limit` or longer.
    pub(super) fn pop_older(&mut self, now: Instant, limit: Duration) -> Option<LinkId> {
        if self.oldest()? + limit > now {
            return None;
        }
        self.pop_oldest()
    }

    fn clear(&mut self, place: usize) -> Option<LinkId> {
        let waiting = self.queue.get_mut(place)?;
        waiting.here = false;
        let (id, prefix) = (waiting.id, waiting.prefix);
        self.waiting -= 1;
        if let Some(prefix) = prefix
            && let Entry::Occupied(mut count) = self.of_prefix.entry(prefix)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.sweep();
        Some(id)
    }

    /// Keeps somebody who waits at the front, and the tombstones fewer than those who wait.
    fn sweep(&mut self) {
        while self.queue.front().is_some_and(|waiting| !waiting.here) {
            self.queue.pop_front();
        }
        if self.queue.len() > 2 * self.waiting + 16 {
            self.queue.retain(|waiting| waiting.here);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: usize) -> LinkId {
        LinkId { index, serial: 7 }
    }

    #[test]
    fn a_room_is_left_in_any_order_and_stays_small() {
        let start = crate::clock::Clock::system().now();
        let mut room = WaitingRoom::default();
        for i in 0..1_000 {
            room.enter(id(i), start + Duration::from_millis(i as u64), None);
        }
        for i in 1..1_000 {
            room.leave(id(i));
            assert!(room.queue.len() <= 2 * room.len() + 16 + 1);
        }
        assert_eq!((room.len(), room.oldest()), (1, Some(start)));
        assert_eq!(
            room.pop_older(start + Duration::from_secs(1), Duration::from_secs(2)),
            None
        );
        assert_eq!(
            room.pop_older(start + Duration::from_secs(2), Duration::from_secs(2)),
            Some(id(0))
        );
        assert_eq!((room.len(), room.oldest()), (0, None));
    }

    #[test]
    fn a_prefix_is_counted_and_loses_its_own_oldest() {
        let start = crate::clock::Clock::system().now();
        let mut room = WaitingRoom::default();
        let (a, b) = (Prefix::V4(1), Prefix::V4(2));
        for (i, prefix) in [None, Some(a), Some(b), Some(a), Some(b)]
            .into_iter()
            .enumerate()
        {
            room.enter(id(i), start, prefix);
        }
        assert_eq!((room.of(a), room.of(b), room.len()), (2, 2, 5));
        assert_eq!(room.pop_oldest_of(a), Some(id(1)));
        room.leave(id(3));
        assert_eq!(room.pop_oldest_of(a), None);
        assert_eq!((room.of(a), room.of(b), room.len()), (0, 2, 3));
        assert_eq!(room.pop_oldest(), Some(id(0)));
        assert_eq!(room.pop_oldest(), Some(id(2)));
        assert_eq!(room.pop_oldest(), Some(id(4)));
        assert_eq!(room.pop_oldest(), None);
        assert!(room.of_prefix.is_empty() && room.queue.is_empty());
    }
}
