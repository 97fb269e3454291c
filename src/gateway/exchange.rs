//! What passes between a worker and the simulation: inputs one way, datagrams and messages the other, each handed over whole.
//!
//! Both sides write into buffers of their own kind and swap them under a lock held for the swap alone, once per tick and
//! direction, so nothing is locked or woken per packet on the way out, and neither side waits for the other's work.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::BytesMut;

use crate::seat::Handle;

/// How a payload travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Unreliable, unordered (RFC 9221).
    Datagram,
    /// Reliable, ordered: the session's stream.
    Message,
}

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

/// End of a seat's chain of datagrams.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    handle: Handle,
    start: u32,
    len: u32,
    channel: Channel,
    /// The seat's next datagram in this inbox.
    next: u32,
    dropped: bool,
}

/// What one seat has in the inbox; valid while its epoch is the inbox's.
#[derive(Debug, Clone, Copy)]
struct Tally {
    epoch: u64,
    /// Datagrams in the ring, and those that were ever put there.
    kept: u16,
    appended: u16,
    oldest: u32,
    newest: u32,
    message_bytes: u32,
}

/// Payloads of many seats in the order of their arrival, with a ring of bounded length per seat.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    /// By slot.
    tallies: Vec<Tally>,
    epoch: u64,
    dropped: u64,
}

impl Inbox {
    fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        self.epoch += 1;
        self.dropped = 0;
    }

    fn tally(&mut self, handle: Handle) -> Option<&mut Tally> {
        let fresh = Tally {
            epoch: self.epoch,
            kept: 0,
            appended: 0,
            oldest: NONE,
            newest: NONE,
            message_bytes: 0,
        };
        let slot = handle.slot() as usize;
        if slot >= self.tallies.len() {
            // Grows to the highest slot in use, at most the table's capacity.
            self.tallies.resize(slot + 1, fresh);
        }
        let tally = self.tallies.get_mut(slot)?;
        if tally.epoch != self.epoch {
            *tally = fresh;
        }
        Some(tally)
    }

    /// Bytes in use, entries included: an empty payload is not free.
    fn used(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Appends a payload; `None` when the inbox as a whole is full.
    fn append(
        &mut self,
        budget: &SeatBudget,
        handle: Handle,
        channel: Channel,
        payload: &[u8],
    ) -> Option<u32> {
        if self.used() + payload.len() + size_of::<Entry>() > budget.total_bytes {
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
        Some(index)
    }

    /// Adds a datagram, in place of the seat's oldest when its ring is full.
    pub(super) fn push_datagram(&mut self, budget: &SeatBudget, handle: Handle, payload: &[u8]) {
        let Some(&mut tally) = self.tally(handle) else {
            return;
        };
        // What is pushed out keeps its bytes until the tick, so a seat may not push out without end.
        let most = budget.datagrams.saturating_mul(PUSHED_OUT_AT_MOST);
        let index = if tally.appended < most {
            self.append(budget, handle, Channel::Datagram, payload)
        } else {
            None
        };
        let Some(index) = index else {
            self.dropped += 1;
            return;
        };
        if let Some(previous) = self.entries.get_mut(tally.newest as usize) {
            previous.next = index;
        }
        let mut oldest = if tally.oldest == NONE {
            index
        } else {
            tally.oldest
        };
        let mut kept = tally.kept + 1;
        if kept > budget.datagrams {
            if let Some(entry) = self.entries.get_mut(oldest as usize) {
                entry.dropped = true;
                oldest = entry.next;
            }
            kept -= 1;
            self.dropped += 1;
        }
        if let Some(place) = self.tally(handle) {
            *place = Tally {
                kept,
                appended: tally.appended + 1,
                oldest,
                newest: index,
                ..tally
            };
        }
    }

    /// Whether the seat may have another message read for it before the next tick.
    pub(super) fn takes_messages(&mut self, budget: &SeatBudget, handle: Handle) -> bool {
        let room = self.used() < budget.total_bytes;
        room && self
            .tally(handle)
            .is_some_and(|tally| tally.message_bytes < budget.message_bytes)
    }

    /// Adds a message. Ask [`takes_messages`](Self::takes_messages) before reading it off the stream.
    pub(super) fn push_message(&mut self, budget: &SeatBudget, handle: Handle, payload: &[u8]) {
        // What `takes_messages` let through is kept: a message that was acknowledged is never dropped.
        let unbounded = SeatBudget {
            total_bytes: usize::MAX,
            ..*budget
        };
        if self
            .append(&unbounded, handle, Channel::Message, payload)
            .is_some()
            && let Some(tally) = self.tally(handle)
        {
            // An empty message costs an entry all the same.
            let cost = u32::try_from(payload.len()).unwrap_or(u32::MAX).max(64);
            tally.message_bytes = tally.message_bytes.saturating_add(cost);
        }
    }

    /// The payloads that were kept, in the order of their arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = Input<'_>> {
        self.entries
            .iter()
            .filter(|entry| !entry.dropped)
            .filter_map(|entry| {
                let start = entry.start as usize;
                Some(Input {
                    handle: entry.handle,
                    channel: entry.channel,
                    payload: self.bytes.get(start..start + entry.len as usize)?,
                })
            })
    }

    /// Datagrams dropped since the last tick.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Payloads of the simulation for the seats of one worker, in order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The payloads, back to back; the worker freezes and slices it.
    pub(super) bytes: BytesMut,
    pub(super) entries: Vec<OutgoingEntry>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct OutgoingEntry {
    pub(super) handle: Handle,
    pub(super) channel: Channel,
    pub(super) len: usize,
}

impl Outgoing {
    /// Adds a payload.
    pub(super) fn push(&mut self, handle: Handle, channel: Channel, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.entries.push(OutgoingEntry {
            handle,
            channel,
            len: payload.len(),
        });
    }
}

/// The most that may wait for a worker; beyond it the worker is too far behind for datagrams to be worth sending.
const MAX_OUTGOING_BYTES: usize = 64 * 1024 * 1024;
/// Likewise, in payloads: an empty one is not free.
const MAX_OUTGOING_ENTRIES: usize = 1024 * 1024;

/// The meeting place of one worker and the simulation.
pub(super) struct WorkerExchange {
    inbox: Mutex<Inbox>,
    outgoing: Mutex<Outgoing>,
    pub(super) budget: SeatBudget,
    /// Counts the simulation's taking of inboxes, so that the worker knows when streams it left unread have room again.
    taken: AtomicU64,
    /// The worker left a stream unread and wants to be woken when there is room.
    waiting_for_room: AtomicBool,
    /// Payloads that were not handed over because the worker was too far behind.
    overflowed: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl WorkerExchange {
    /// A meeting place; `wake` gets the worker out of its wait.
    pub(super) fn new(budget: SeatBudget, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            inbox: Mutex::default(),
            outgoing: Mutex::default(),
            budget,
            taken: AtomicU64::new(0),
            waiting_for_room: AtomicBool::new(false),
            overflowed: AtomicU64::new(0),
            wake,
        }
    }

    /// Gets the worker out of its wait.
    pub(super) fn wake(&self) {
        (self.wake)();
    }

    /// The inbox, for the worker to write to; hold it for one connection's worth at the most.
    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The simulation takes all inputs: `mine` is emptied and swapped in.
    pub(super) fn take_inputs(&self, mine: &mut Inbox) {
        mine.clear();
        std::mem::swap(&mut *self.inbox(), mine);
        self.taken.fetch_add(1, Ordering::Release);
        if self.waiting_for_room.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// How often inputs were taken.
    pub(super) fn times_taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// The worker asks to be woken at the next taking.
    pub(super) fn wait_for_room(&self) {
        self.waiting_for_room.store(true, Ordering::Release);
    }

    /// The simulation hands over what it has for this worker, and wakes it once.
    ///
    /// When the worker is too far behind, datagrams are dropped and counted. A message cannot be dropped without breaking what it
    /// promises, so the seats that it was for are handed to `end`.
    pub(super) fn hand_over(&self, mine: &mut Outgoing, mut end: impl FnMut(Handle)) {
        if mine.entries.is_empty() {
            return;
        }
        {
            let mut waiting = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.entries.is_empty() {
                std::mem::swap(&mut *waiting, mine);
            } else if waiting.bytes.len() + mine.bytes.len() <= MAX_OUTGOING_BYTES
                && waiting.entries.len() + mine.entries.len() <= MAX_OUTGOING_ENTRIES
            {
                waiting.bytes.extend_from_slice(&mine.bytes);
                waiting.entries.append(&mut mine.entries);
            }
        }
        for entry in mine.entries.drain(..) {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            if entry.channel == Channel::Message {
                end(entry.handle);
            }
        }
        mine.bytes.clear();
        self.wake();
    }

    /// The worker takes what the simulation has handed over; `mine` must be empty and is swapped in.
    pub(super) fn take_outgoing(&self, mine: &mut Outgoing) {
        std::mem::swap(
            &mut *self.outgoing.lock().unwrap_or_else(PoisonError::into_inner),
            mine,
        );
    }

    /// Payloads lost because the worker was too far behind.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }
}
