//! What clients have sent since the last tick, with a ring of bounded length per seat.

use super::Channel;
use crate::seat::Handle;

/// One payload that a client sent since the last tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// Whose seat it came from.
    pub handle: Handle,
    /// How it travelled.
    pub channel: Channel,
    /// The game's own bytes.
    pub payload: &'a [u8],
}

/// How much one seat may have in one inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatBudget {
    /// Datagrams kept per seat and tick; the oldest goes when another comes.
    pub datagrams: u16,
    /// Bytes of messages per seat and tick; above it the stream is left unread until the next tick.
    pub message_bytes: u32,
    /// Bytes of all seats in one inbox; above it new datagrams are dropped and streams left unread.
    pub total_bytes: usize,
}

impl Default for SeatBudget {
    /// 32 datagrams: half a second of 60 Hz inputs arriving in one tick. 32 KiB of messages: two of the largest. 32 MiB in all:
    /// 4,096 seats with 7 full-size datagrams each, in a tick.
    fn default() -> Self {
        Self {
            datagrams: 32,
            message_bytes: 32 * 1024,
            total_bytes: 32 * 1024 * 1024,
        }
    }
}

/// How many times its ring a seat may put into one inbox; beyond that its datagrams are dropped before they take memory.
const PUSHED_OUT_AT_MOST: u16 = 8;

/// End of a chain. No entry has this index, and every other index is smaller.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    handle: Handle,
    start: u32,
    len: u32,
    channel: Channel,
    /// The seat's next entry of this channel.
    next: u32,
    dropped: bool,
}

/// What one seat has in the inbox; valid while its epoch is the inbox's.
///
/// Its datagrams and its messages are a chain each, so that a datagram is dropped in constant time; an entry's index is its place in
/// the order of arrival, so that the two are read as one.
#[derive(Debug, Clone, Copy)]
struct Tally {
    epoch: u64,
    /// Which of the slot's seats it is; 0 for none yet.
    generation: u32,
    /// Datagrams in the ring, and those that were ever put there.
    kept: u16,
    appended: u16,
    oldest: u32,
    newest: u32,
    first_message: u32,
    last_message: u32,
    message_bytes: u32,
    /// Datagrams that were dropped.
    dropped: u32,
}

impl Tally {
    const fn empty(epoch: u64, generation: u32) -> Self {
        Self {
            epoch,
            generation,
            kept: 0,
            appended: 0,
            oldest: NONE,
            newest: NONE,
            first_message: NONE,
            last_message: NONE,
            message_bytes: 0,
            dropped: 0,
        }
    }
}

/// Payloads of many seats in the order of their arrival.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Inbox {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    /// By slot.
    tallies: Vec<Tally>,
    epoch: u64,
    dropped: u64,
}

impl Inbox {
    /// Empties it; what memory it has taken stays.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        self.epoch += 1;
        self.dropped = 0;
    }

    /// The seat's tally. None for a seat whose slot has another one already: that happens while the connection of the one before is
    /// still being closed, and what it sends is nobody's any more.
    fn tally(&mut self, handle: Handle) -> Option<&mut Tally> {
        let (slot, generation) = (handle.slot() as usize, handle.generation());
        if slot >= self.tallies.len() {
            // Grows to the highest slot in use, at most the table's slots.
            let empty = Tally::empty(self.epoch, 0);
            self.tallies.resize(slot + 1, empty);
        }
        let tally = self.tallies.get_mut(slot)?;
        // Generations grow, and none is 0.
        if tally.epoch != self.epoch || tally.generation < generation {
            *tally = Tally::empty(self.epoch, generation);
        }
        (tally.generation == generation).then_some(tally)
    }

    /// What the seat has here, if it has anything.
    fn tally_of(&self, handle: Handle) -> Option<&Tally> {
        let tally = self.tallies.get(handle.slot() as usize)?;
        (tally.epoch == self.epoch && tally.generation == handle.generation()).then_some(tally)
    }

    /// Bytes in use, entries included: an empty payload is not free.
    fn used(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Appends a payload after the seat's `previous` one of this channel; `None` when the inbox as a whole is full.
    fn append(
        &mut self,
        total_bytes: usize,
        handle: Handle,
        channel: Channel,
        payload: &[u8],
        previous: u32,
    ) -> Option<u32> {
        if self.used() + payload.len() + size_of::<Entry>() > total_bytes {
            return None;
        }
        let start = u32::try_from(self.bytes.len()).ok()?;
        let len = u32::try_from(payload.len()).ok()?;
        let index = u32::try_from(self.entries.len()).ok()?;
        self.bytes.extend_from_slice(payload);
        self.entries.push(Entry {
            handle,
            start,
            len,
            channel,
            next: NONE,
            dropped: false,
        });
        if let Some(previous) = self.entries.get_mut(previous as usize) {
            previous.next = index;
        }
        Some(index)
    }

    /// Adds a datagram, in place of the seat's oldest when its ring is full.
    pub(in crate::gateway) fn push_datagram(
        &mut self,
        budget: &SeatBudget,
        handle: Handle,
        payload: &[u8],
    ) {
        let Some(mut tally) = self.tally(handle).copied() else {
            return;
        };
        // What is pushed out keeps its bytes until the tick, so a seat may not push out without end.
        let most = budget.datagrams.saturating_mul(PUSHED_OUT_AT_MOST);
        let mut dropped = 1;
        if tally.appended < most
            && let Some(index) = self.append(
                budget.total_bytes,
                handle,
                Channel::Datagram,
                payload,
                tally.newest,
            )
        {
            tally.newest = index;
            tally.oldest = tally.oldest.min(index);
            tally.appended += 1;
            if tally.kept < budget.datagrams {
                tally.kept += 1;
                dropped = 0;
            } else if let Some(oldest) = self.entries.get_mut(tally.oldest as usize) {
                oldest.dropped = true;
                tally.oldest = oldest.next;
            }
        }
        tally.dropped += dropped;
        self.dropped += u64::from(dropped);
        if let Some(place) = self.tally(handle) {
            *place = tally;
        }
    }

    /// Whether the seat may have another message read for it before the next tick.
    pub(in crate::gateway) fn takes_messages(
        &mut self,
        budget: &SeatBudget,
        handle: Handle,
    ) -> bool {
        let room = self.used() < budget.total_bytes;
        room && self
            .tally(handle)
            .is_some_and(|tally| tally.message_bytes < budget.message_bytes)
    }

    /// Adds a message. Ask [`takes_messages`](Self::takes_messages) before reading it off the stream: what that let through is kept,
    /// since a message that was acknowledged is never dropped.
    pub(in crate::gateway) fn push_message(&mut self, handle: Handle, payload: &[u8]) {
        let Some(mut tally) = self.tally(handle).copied() else {
            return;
        };
        let Some(index) = self.append(
            usize::MAX,
            handle,
            Channel::Message,
            payload,
            tally.last_message,
        ) else {
            return;
        };
        tally.last_message = index;
        tally.first_message = tally.first_message.min(index);
        // An empty message costs an entry all the same.
        let cost = u32::try_from(payload.len()).unwrap_or(u32::MAX).max(64);
        tally.message_bytes = tally.message_bytes.saturating_add(cost);
        if let Some(place) = self.tally(handle) {
            *place = tally;
        }
    }

    /// The payloads that were kept, in the order of their arrival.
    pub(in crate::gateway) fn iter(&self) -> impl Iterator<Item = Input<'_>> {
        self.entries
            .iter()
            .filter(|entry| !entry.dropped)
            .filter_map(|entry| self.input(entry))
    }

    /// The payloads of one seat that were kept, in the order of their arrival. Looks at no other seat's.
    pub(in crate::gateway) fn of(&self, handle: Handle) -> OfSeat<'_> {
        let tally = self.tally_of(handle);
        OfSeat {
            inbox: self,
            datagram: tally.map_or(NONE, |tally| tally.oldest),
            message: tally.map_or(NONE, |tally| tally.first_message),
        }
    }

    /// Datagrams of all seats that were dropped since the last tick.
    pub(in crate::gateway) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Datagrams of one seat that were dropped since the last tick.
    pub(in crate::gateway) fn dropped_of(&self, handle: Handle) -> u64 {
        self.tally_of(handle)
            .map_or(0, |tally| tally.dropped.into())
    }

    fn input(&self, entry: &Entry) -> Option<Input<'_>> {
        let start = entry.start as usize;
        Some(Input {
            handle: entry.handle,
            channel: entry.channel,
            payload: self.bytes.get(start..start + entry.len as usize)?,
        })
    }
}

/// One seat's payloads: its two chains, read as one.
pub(in crate::gateway) struct OfSeat<'a> {
    inbox: &'a Inbox,
    /// The next of each.
    datagram: u32,
    message: u32,
}

impl<'a> Iterator for OfSeat<'a> {
    type Item = Input<'a>;

    fn next(&mut self) -> Option<Input<'a>> {
        // Whichever came first; past the end of both there is no entry.
        let index = self.datagram.min(self.message);
        let entry = self.inbox.entries.get(index as usize)?;
        match entry.channel {
            Channel::Datagram => self.datagram = entry.next,
            Channel::Message => self.message = entry.next,
        }
        self.inbox.input(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const BUDGET: SeatBudget = SeatBudget {
        datagrams: 4,
        message_bytes: 1_024,
        total_bytes: 1 << 20,
    };

    const ANN: Handle = Handle::test(0, 1);
    const BOB: Handle = Handle::test(3, 7);

    fn told<'a>(inputs: impl Iterator<Item = Input<'a>>) -> Vec<(Handle, Channel, Vec<u8>)> {
        inputs
            .map(|input| (input.handle, input.channel, input.payload.to_vec()))
            .collect()
    }

    #[test]
    fn a_seats_inputs_are_its_own_in_the_order_in_which_they_came() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.of(ANN).count(), 0);
        inbox.push_message(ANN, b"hello");
        inbox.push_datagram(&BUDGET, BOB, b"0");
        for n in 0..6_u8 {
            inbox.push_datagram(&BUDGET, ANN, &[n]);
            if n == 3 {
                inbox.push_message(ANN, b"again");
            }
        }
        let datagram = |n: u8| (ANN, Channel::Datagram, vec![n]);
        let message = |text: &str| (ANN, Channel::Message, text.as_bytes().to_vec());
        let expected = [
            message("hello"),
            datagram(2),
            datagram(3),
            message("again"),
            datagram(4),
            datagram(5),
        ];
        assert_eq!(told(inbox.of(ANN)), expected);
        assert_eq!((inbox.dropped_of(ANN), inbox.dropped_of(BOB)), (2, 0));
        assert_eq!(inbox.dropped(), 2);
        assert_eq!(inbox.of(BOB).count(), 1);
        inbox.clear();
        assert_eq!((inbox.of(ANN).count(), inbox.dropped_of(ANN)), (0, 0));
    }

    #[test]
    fn a_slots_next_seat_has_nothing_of_the_one_before() {
        let (before, after) = (Handle::test(5, 1), Handle::test(5, 2));
        let mut inbox = Inbox::default();
        for _ in 0..6 {
            inbox.push_datagram(&BUDGET, before, b"old");
        }
        inbox.push_datagram(&BUDGET, after, b"new");
        // Its connection is being closed, and has said something more.
        inbox.push_datagram(&BUDGET, before, b"late");
        inbox.push_message(before, b"late");
        assert!(!inbox.takes_messages(&BUDGET, before));
        inbox.push_datagram(&BUDGET, after, b"newer");
        let mine = told(inbox.of(after));
        assert_eq!(mine.len(), 2);
        assert!(
            mine.iter()
                .all(|(_, _, payload)| payload.starts_with(b"new"))
        );
        assert_eq!(inbox.dropped_of(after), 0);
        assert_eq!(inbox.of(before).count(), 0, "it has ended");
    }

    #[test]
    fn a_full_inbox_drops_what_comes_and_says_whose() {
        let mut inbox = Inbox::default();
        let budget = SeatBudget {
            total_bytes: 2 * (10 + size_of::<Entry>()),
            ..BUDGET
        };
        for handle in [ANN, BOB, ANN, ANN] {
            inbox.push_datagram(&budget, handle, &[0; 10]);
        }
        assert_eq!((inbox.dropped_of(ANN), inbox.dropped_of(BOB)), (2, 0));
        assert!(!inbox.takes_messages(&budget, BOB));
        assert_eq!((inbox.of(ANN).count(), inbox.of(BOB).count()), (1, 1));
    }

    #[test]
    fn a_seat_that_floods_takes_no_more_than_eight_rings() {
        let mut inbox = Inbox::default();
        for n in 0..1_000_u32 {
            inbox.push_datagram(&BUDGET, ANN, &n.to_be_bytes());
        }
        assert_eq!(inbox.entries.len(), 8 * 4);
        assert_eq!(inbox.dropped_of(ANN), 996);
        assert_eq!(inbox.of(ANN).count(), 4);
    }

    /// Against a list and a queue per seat: what each seat is said to have sent, and all together, tick after tick.
    #[test]
    fn rings_hold_what_plain_queues_hold() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut inbox = Inbox::default();
        let seats: Vec<Handle> = (0..8).map(|slot| Handle::test(slot, slot + 1)).collect();
        for _ in 0..200 {
            inbox.clear();
            let mut all: Vec<(Handle, Channel, Vec<u8>)> = Vec::new();
            let mut rings: Vec<VecDeque<usize>> = vec![VecDeque::new(); seats.len()];
            let mut lost = vec![false; 300];
            let mut appended = [0; 8];
            let mut dropped = [0; 8];
            for n in 0..rng.random_range(0..300_u32) {
                let seat = rng.random_range(0..seats.len());
                let payload = n.to_be_bytes()[..rng.random_range(0..=4)].to_vec();
                if rng.random_range(0..4) == 0 {
                    inbox.push_message(seats[seat], &payload);
                    all.push((seats[seat], Channel::Message, payload));
                    continue;
                }
                inbox.push_datagram(&BUDGET, seats[seat], &payload);
                if appended[seat] == 32 {
                    dropped[seat] += 1;
                    continue;
                }
                appended[seat] += 1;
                rings[seat].push_back(all.len());
                all.push((seats[seat], Channel::Datagram, payload));
                if rings[seat].len() > 4 {
                    lost[rings[seat].pop_front().unwrap()] = true;
                    dropped[seat] += 1;
                }
            }
            let kept = all.iter().zip(&lost).filter(|(_, lost)| !**lost);
            let kept: Vec<_> = kept.map(|(input, _)| input.clone()).collect();
            assert_eq!(told(inbox.iter()), kept);
            for (seat, handle) in seats.iter().enumerate() {
                let own = kept.iter().filter(|(of, ..)| of == handle);
                assert_eq!(told(inbox.of(*handle)), own.cloned().collect::<Vec<_>>());
                assert_eq!(inbox.dropped_of(*handle), dropped[seat]);
            }
        }
    }
}
