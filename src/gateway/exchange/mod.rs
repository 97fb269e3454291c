//! What passes between a worker and the simulation: inputs one way, datagrams and messages the other, each handed over whole.
//!
//! Both sides write into buffers of their own and swap them under a lock held for the swap alone, once per tick and
//! direction, so nothing is locked or woken per packet on the way out, and neither side waits for the other's work. The buffers
//! go round, so that in steady state neither side allocates for what passes here.

mod inbox;
mod outgoing;
mod passage;

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::Thread,
};

pub use self::inbox::{Input, SeatBudget};
use self::passage::Passage;
pub(super) use self::{
    inbox::Inbox,
    outgoing::{Buffers, Outgoing},
    passage::Passed,
};
use crate::{seat::Handle, udp::Packet};

/// How a payload travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Unreliable, unordered (RFC 9221).
    Datagram,
    /// Reliable, ordered: the session's stream.
    Message,
}

/// The meeting place of one worker and the simulation.
pub(super) struct WorkerExchange {
    inbox: Mutex<Inbox>,
    outgoing: Mutex<Outgoing>,
    pub(super) budget: SeatBudget,
    /// Counts the simulation's taking of inboxes, so that the worker knows when streams it left unread have room again.
    taken: AtomicU64,
    /// The worker left a stream unread and wants to be woken when there is room.
    waiting_for_room: AtomicBool,
    /// A worker that waited for room has got it and was not woken yet. The simulation's alone.
    owes_wake: AtomicBool,
    /// Payloads that were not handed over because the worker was too far behind.
    overflowed: AtomicU64,
    passage: Passage,
    wake: Box<dyn Fn() + Send + Sync>,
    /// The worker's thread, once it runs.
    thread: OnceLock<Thread>,
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
            owes_wake: AtomicBool::new(false),
            overflowed: AtomicU64::new(0),
            passage: Passage::default(),
            wake,
            thread: OnceLock::new(),
        }
    }

    /// The worker is this thread.
    pub(super) fn is_run_by(&self, thread: Thread) {
        // A second one would be the same worker started again, of which there is none.
        let _ = self.thread.set(thread);
    }

    /// Gets the worker out of its wait, and out of the pause between two looks at the socket.
    pub(super) fn wake(&self) {
        (self.wake)();
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The inbox, for the worker to write to; hold it for one connection's worth at the most.
    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The simulation takes all inputs: `mine` is emptied and swapped in. A worker that waits for room is woken at the tick's end: what
    /// it reads then is for the next tick in any case.
    pub(super) fn take_inputs(&self, mine: &mut Inbox) {
        mine.clear();
        std::mem::swap(&mut *self.inbox(), mine);
        self.taken.fetch_add(1, Ordering::Release);
        if self.waiting_for_room.swap(false, Ordering::AcqRel) {
            self.owes_wake.store(true, Ordering::Relaxed);
        }
    }

    /// How often inputs were taken.
    pub(super) fn times_taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// The worker asks to be woken in the tick of the next taking.
    pub(super) fn wait_for_room(&self) {
        self.waiting_for_room.store(true, Ordering::Release);
    }

    /// The simulation hands over what it has for this worker at the end of a tick, and wakes it once; not at all if there is nothing
    /// and it does not wait for room.
    ///
    /// When the worker is too far behind, datagrams are dropped and counted. A message cannot be dropped without breaking what it
    /// promises, so the seats that it was for are handed to `end`.
    pub(super) fn hand_over(&self, mine: &mut Outgoing, mut end: impl FnMut(Handle)) {
        let owes_wake = self.owes_wake.swap(false, Ordering::Relaxed);
        if mine.entries.is_empty() {
            if owes_wake {
                self.wake();
            }
            return;
        }
        self.outgoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(mine);
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

    /// Another worker hands over a packet that is for this one, which is woken for the first.
    pub(super) fn pass(&self, packet: Packet) -> Passed {
        let passed = self.passage.pass(packet);
        if passed == Passed::First {
            self.wake();
        }
        passed
    }

    /// The worker takes the packets that others have got for it, into `mine`, which must be empty.
    pub(super) fn take_passed(&self, mine: &mut Vec<Packet>) {
        self.passage.take(mine);
    }

    /// Payloads lost because the worker was too far behind.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }
}
