//! When connections' timers are due.

use std::time::{Duration, Instant};

use super::link::LinkId;

/// The wheel's grain: a timer is looked at so much late at the most, and never early. QUIC counts in the same
/// (RFC 9002, section 6.1.2: `kGranularity`).
const GRAIN_NS: u128 = 1_000_000;
/// Slots of the wheel: 4 s, more than the 3 s between a client's pings. What is due later is looked at then, and queued again.
const SLOTS: u64 = 4_096;
/// Slots in a word of the map of those in use.
const WORD: u64 = u64::BITS as u64;

/// The end of a slot's list. No entry has this index.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: LinkId,
    /// The next of the same slot; the next free one, for one that is free.
    next: u32,
}

/// Connections' timers by due time: a wheel of slots of a millisecond each (Varghese and Lauck 1987, scheme 6). To queue one and to
/// take one out cost the same however many wait: with a heap they were a twentieth of what a datagram costs at 1,000 clients.
///
/// A link whose timer was put off stays queued at the old time and is looked at again then, so a timer that every packet pushes out
/// costs nothing per packet.
#[derive(Debug)]
pub(super) struct Timers {
    /// The time of slot 0's first turn.
    origin: Instant,
    /// The first slot that was not looked at yet, counted from `origin` without turning over.
    cursor: u64,
    heads: Box<[u32]>,
    /// A bit for each slot that has an entry.
    used: Box<[u64]>,
    entries: Vec<Entry>,
    free: u32,
    len: usize,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            cursor: 0,
            heads: vec![NONE; SLOTS as usize].into(),
            used: vec![0; (SLOTS / WORD) as usize].into(),
            entries: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    /// Queues a link for `at`. When it will come out: at its slot's time, which is no earlier unless it is far away.
    pub(super) fn push(&mut self, at: Instant, id: LinkId) -> Instant {
        let since = at.saturating_duration_since(self.origin).as_nanos();
        let slot = since.div_ceil(GRAIN_NS);
        let slot = u64::try_from(slot).unwrap_or(u64::MAX);
        let slot = slot.clamp(self.cursor, self.cursor + SLOTS - 1);
        let place = slot % SLOTS;
        if let Some(head) = self.heads.get_mut(place as usize) {
            let entry = Entry { id, next: *head };
            let index = self.free;
            *head = match self.entries.get_mut(index as usize) {
                Some(free) => {
                    self.free = free.next;
                    *free = entry;
                    index
                }
                None => {
                    self.entries.push(entry);
                    // Bounded by `keep`, which the core calls: some entries for each connection.
                    u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
                }
            };
            if let Some(word) = self.used.get_mut((place / WORD) as usize) {
                *word |= 1 << (place % WORD);
            }
            self.len += 1;
        }
        self.time_of(slot)
    }

    fn time_of(&self, slot: u64) -> Instant {
        self.origin + Duration::from_millis(slot)
    }

    /// Entries, those included that no link stands behind any more.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Keeps these entries alone: a timer that was put ahead leaves its old entry behind, and a peer can make many of them. The times are
    /// those that [`push`](Self::push) gave.
    pub(super) fn keep(&mut self, entries: impl Iterator<Item = (Instant, LinkId)>) {
        self.heads.fill(NONE);
        self.used.fill(0);
        self.entries.clear();
        (self.free, self.len) = (NONE, 0);
        for (at, id) in entries {
            self.push(at, id);
        }
    }

    /// When the next one comes out.
    pub(super) fn next(&self) -> Option<Instant> {
        self.first_used().map(|slot| self.time_of(slot))
    }

    /// The first slot from the cursor on that has an entry.
    fn first_used(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let (word, bit) = (self.cursor / WORD, self.cursor % WORD);
        // The cursor's word comes twice: first its bits from the cursor on, last those before it, which are of the next turn.
        (0..=SLOTS / WORD).find_map(|n| {
            let bits = self.used.get(((word + n) % (SLOTS / WORD)) as usize)?;
            let bits = if n == 0 { bits >> bit << bit } else { *bits };
            (bits != 0).then(|| (word + n) * WORD + u64::from(bits.trailing_zeros()))
        })
    }

    /// Takes out one that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, LinkId)> {
        let since = now.saturating_duration_since(self.origin).as_nanos();
        let current = u64::try_from(since / GRAIN_NS).unwrap_or(u64::MAX);
        let slot = self.first_used().filter(|slot| *slot <= current);
        // Nothing before it is left; what is queued from now on for an earlier time comes out at once.
        self.cursor = self.cursor.max(slot.unwrap_or(current));
        let (slot, place) = slot.map(|slot| (slot, slot % SLOTS))?;
        let head = self.heads.get_mut(place as usize)?;
        let index = *head;
        let entry = self.entries.get_mut(index as usize)?;
        *head = entry.next;
        let id = entry.id;
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
        if *head == NONE
            && let Some(word) = self.used.get_mut((place / WORD) as usize)
        {
            *word &= !(1 << (place % WORD));
        }
        Some((self.time_of(slot), id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::clock::Clock;

    const MS: Duration = Duration::from_millis(1);

    fn id(index: usize) -> LinkId {
        LinkId { index, serial: 7 }
    }

    #[test]
    fn a_timer_comes_out_within_a_millisecond_of_its_time_and_never_before() {
        let start = Clock::system().now();
        let mut timers = Timers::new(start);
        for n in 0..4_000 {
            let at = start + MS.mul_f64(f64::from(n + 1) / 3.0);
            let queued = timers.push(at, id(n as usize));
            assert!(queued >= at && queued < at + MS);
        }
        let (mut now, mut seen) = (start, 0);
        while timers.len() > 0 {
            assert_eq!(
                timers.pop_due(now),
                None,
                "not before the time that it gave"
            );
            now = timers.next().unwrap();
            while let Some((at, id)) = timers.pop_due(now) {
                let due = start + MS.mul_f64((id.index + 1) as f64 / 3.0);
                assert!(at == now && due <= now && now < due + MS);
                seen += 1;
            }
        }
        assert_eq!((seen, timers.next()), (4_000, None));
    }

    #[test]
    fn what_is_far_away_is_looked_at_before_and_what_is_past_at_once() {
        let start = Clock::system().now();
        let mut timers = Timers::new(start);
        let day = Duration::from_secs(86_400);
        assert!(timers.push(start + 60 * day, id(1)) < start + Duration::from_secs(5));
        let now = start + 59 * day;
        assert!(timers.pop_due(now).is_some());
        assert_eq!(timers.pop_due(now), None);
        let queued = timers.push(start + day, id(2));
        assert_eq!(timers.pop_due(now), Some((queued, id(2))));
        // Fifty days are more milliseconds than 32 bits hold.
        let queued = timers.push(now + MS, id(3));
        assert!((now + MS..now + 2 * MS).contains(&queued));
        assert_eq!(timers.next(), Some(queued));
    }

    /// Against a map by time: pushes, steps of time short and long, and sweeps.
    #[test]
    fn it_gives_what_a_sorted_map_gives_and_keeps_no_more_memory() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let start = Clock::system().now();
        let (mut timers, mut now) = (Timers::new(start), start);
        let mut waiting: BTreeMap<(Instant, usize), ()> = BTreeMap::new();
        let mut most = 0;
        for n in 0..20_000 {
            for _ in 0..rng.random_range(0..4) {
                let index = rng.random_range(0..1_000_000);
                let at = now + MS.mul_f64(rng.random_range(0.0..9_000.0));
                waiting.insert((timers.push(at, id(index)), index), ());
            }
            if n % 1_000 == 0 {
                timers.keep(waiting.keys().map(|(at, index)| (*at, id(*index))));
            }
            assert_eq!(timers.len(), waiting.len());
            most = most.max(waiting.len());
            assert_eq!(timers.next(), waiting.keys().next().map(|(at, _)| *at));
            now += MS.mul_f64([0.3, 2.0, 50.0, 5_000.0][rng.random_range(0..4)]);
            while let Some((at, id)) = timers.pop_due(now) {
                assert!(at <= now);
                assert!(waiting.remove(&(at, id.index)).is_some());
            }
            assert!(waiting.keys().next().is_none_or(|(at, _)| *at > now));
        }
        assert!(timers.entries.len() <= most);
    }
}
