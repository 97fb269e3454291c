//! What the simulation sends on a tick, and the memory that it travels in.

use bytes::{Bytes, BytesMut};

use super::Channel;
use crate::seat::Handle;

/// Payloads of the simulation for the seats of one worker, in order.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Outgoing {
    /// The payloads, back to back; the worker freezes and slices it.
    pub(in crate::gateway) bytes: BytesMut,
    pub(in crate::gateway) entries: Vec<OutgoingEntry>,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct OutgoingEntry {
    pub(in crate::gateway) handle: Handle,
    pub(in crate::gateway) channel: Channel,
    pub(in crate::gateway) len: usize,
}

/// The most that may wait for a worker; beyond it the worker is too far behind for datagrams to be worth sending.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Likewise, in payloads: an empty one is not free.
const MAX_ENTRIES: usize = 1024 * 1024;

impl Outgoing {
    /// Adds a payload.
    pub(in crate::gateway) fn push(&mut self, handle: Handle, channel: Channel, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.entries.push(OutgoingEntry {
            handle,
            channel,
            len: payload.len(),
        });
    }

    /// Puts what `later` has behind what waits here, if that is not too much; else `later` keeps it.
    pub(super) fn append(&mut self, later: &mut Self) {
        if self.entries.is_empty() {
            std::mem::swap(self, later);
        } else if self.bytes.len() + later.bytes.len() <= MAX_BYTES
            && self.entries.len() + later.entries.len() <= MAX_ENTRIES
        {
            self.bytes.extend_from_slice(&later.bytes);
            self.entries.append(&mut later.entries);
            later.bytes.clear();
        }
    }
}

/// Buffers kept for use again: one for what the simulation writes, one for what waits, one that the worker sends, and one of which a
/// congested connection still has a slice.
const KEPT: usize = 4;
/// The largest buffer that is kept, in bytes: a tick of 10,000 seats with a full-size datagram each. A larger tick is no everyday's,
/// and its memory is given back.
const LARGEST_KEPT: usize = 12 * 1024 * 1024;

/// The worker's stock of buffers. They go round: the simulation writes a tick's payloads into one, the worker slices it for the
/// connections, and once the last slice is gone it is filled anew. So in steady state neither side allocates.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Buffers {
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Empty: the hold on the memory that the slices are of.
    handle: BytesMut,
    /// How many bytes all of that memory has.
    whole: usize,
}

impl Buffers {
    /// Takes a tick's payloads out of `bytes`, and leaves an empty buffer there.
    pub(in crate::gateway) fn freeze(&mut self, bytes: &mut BytesMut) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        let whole = bytes.capacity();
        let payloads = bytes.split().freeze();
        let next = self.free();
        let handle = std::mem::replace(bytes, next);
        if whole <= LARGEST_KEPT {
            if self.kept.len() == KEPT {
                // Whoever holds a slice of the oldest has held it for longest: it need not be ours any more to stay as it is.
                self.kept.remove(0);
            }
            self.kept.push(Kept { handle, whole });
        }
        payloads
    }

    /// The largest buffer of which nobody has a slice any more, or a new one.
    fn free(&mut self) -> BytesMut {
        // As a whole or not at all: a buffer of which only the rest was used would grow with every turn.
        let free = (0..).zip(&mut self.kept).filter_map(|(index, kept)| {
            let is_free = kept.handle.try_reclaim(kept.whole);
            is_free.then_some((kept.whole, index))
        });
        match free.max() {
            Some((_, index)) => self.kept.remove(index).handle,
            None => BytesMut::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Handle = Handle::test(0, 1);

    fn tick(outgoing: &mut Outgoing, payloads: usize) {
        for _ in 0..payloads {
            outgoing.push(ANN, Channel::Datagram, &[7; 100]);
        }
    }

    /// Slices what is there, as a worker does for its connections.
    fn slices(buffers: &mut Buffers, outgoing: &mut Outgoing) -> Vec<Bytes> {
        let mut bytes = buffers.freeze(&mut outgoing.bytes);
        let entries = outgoing.entries.drain(..);
        let slices = entries.map(|entry| bytes.split_to(entry.len)).collect();
        assert!(bytes.is_empty());
        slices
    }

    #[test]
    fn buffers_go_round_and_what_is_held_stays_as_it_was() {
        let (mut buffers, mut outgoing) = (Buffers::default(), Outgoing::default());
        let mut held = Vec::new();
        for n in 0..100 {
            tick(&mut outgoing, n % 7);
            let slices = slices(&mut buffers, &mut outgoing);
            assert_eq!(slices.len(), n % 7);
            assert!(outgoing.bytes.is_empty());
            // A connection that takes nothing keeps one of them.
            held.extend(slices.into_iter().next().filter(|_| n % 10 == 0));
            assert!(buffers.kept.len() <= KEPT);
        }
        assert!(held.len() > 5 && held.iter().all(|slice| slice[..] == [7; 100]));
        let capacities: Vec<_> = buffers.kept.iter().map(|kept| kept.whole).collect();
        assert!(
            capacities.iter().all(|whole| *whole <= 2_048),
            "{capacities:?}"
        );
    }

    #[test]
    fn no_tick_allocates_once_buffers_are_warm_however_ticks_vary() {
        let (mut buffers, mut outgoing) = (Buffers::default(), Outgoing::default());
        let mut round = |n: usize| {
            tick(&mut outgoing, n * 37 % 101);
            let mut bytes = buffers.freeze(&mut outgoing.bytes);
            for entry in outgoing.entries.drain(..) {
                drop(bytes.split_to(entry.len));
            }
        };
        (0..500).for_each(&mut round);
        let count = allocation_counter::measure(|| (500..1_000).for_each(&mut round));
        assert_eq!(count.count_total, 0);
    }

    #[test]
    fn the_memory_of_a_tick_far_too_large_is_given_back() {
        let (mut buffers, mut outgoing) = (Buffers::default(), Outgoing::default());
        outgoing.push(ANN, Channel::Datagram, &vec![0; LARGEST_KEPT + 1]);
        drop(slices(&mut buffers, &mut outgoing));
        assert!(buffers.kept.is_empty());
        assert!(outgoing.bytes.capacity() < LARGEST_KEPT);
    }
}
