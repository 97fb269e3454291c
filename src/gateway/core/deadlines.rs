//! When something is due: connections' timers, and rooms where connections wait in the order of their coming.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use super::link::LinkId;

/// Connections' timers by due time. A link whose timer was put off stays queued at the old time and is looked at again then, so a
/// timer that every packet pushes out costs nothing per packet.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(Instant, LinkId)>>);

impl Deadlines {
    pub(super) fn push(&mut self, at: Instant, id: LinkId) {
        self.0.push(Reverse((at, id)));
    }

    /// Entries, those included that no link stands behind any more.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps these entries alone: a timer that was put ahead leaves its old entry behind, and a peer can make many of them.
    pub(super) fn keep(&mut self, entries: impl Iterator<Item = (Instant, LinkId)>) {
        self.0.clear();
        self.0.extend(entries.map(Reverse));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, LinkId)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}

/// Connections that wait for the same thing, oldest first.
///
/// Those that leave from the middle are marked by a tombstone, and swept when the tombstones outnumber the waiting.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    queue: VecDeque<(LinkId, Instant, bool)>,
    waiting: usize,
}

impl WaitingRoom {
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn enter(&mut self, id: LinkId, now: Instant) {
        self.queue.push_back((id, now, true));
        self.waiting += 1;
    }

    /// Lets one leave. Those who leave came recently as a rule, so the search starts there.
    pub(super) fn leave(&mut self, id: LinkId) {
        let place = self
            .queue
            .iter_mut()
            .rev()
            .find(|(entry, _, here)| *here && *entry == id);
        if let Some((_, _, here)) = place {
            *here = false;
            self.waiting -= 1;
        }
        self.sweep();
    }

    /// Since when the oldest has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|(_, since, _)| *since)
    }

    /// Takes the oldest out.
    pub(super) fn pop_oldest(&mut self) -> Option<LinkId> {
        let (id, _, _) = self.queue.pop_front()?;
        self.waiting -= 1;
        self.sweep();
        Some(id)
    }

    /// Takes one out that has waited for `limit` or longer.
    pub(super) fn pop_older(&mut self, now: Instant, limit: Duration) -> Option<LinkId> {
        if self.oldest()? + limit > now {
            return None;
        }
        self.pop_oldest()
    }

    /// Keeps somebody who waits at the front, and the tombstones fewer than those who wait.
    fn sweep(&mut self) {
        while self.queue.front().is_some_and(|(_, _, here)| !here) {
            self.queue.pop_front();
        }
        if self.queue.len() > 2 * self.waiting + 16 {
            self.queue.retain(|(_, _, here)| *here);
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
            room.enter(id(i), start + Duration::from_millis(i as u64));
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
}
