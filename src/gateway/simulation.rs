//! The game's side of the gateway: one synchronous call per tick, which never blocks.

use std::sync::Arc;

use super::{
    exchange::{Channel, Inbox, Input, Outgoing, WorkerExchange},
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    id::Tick,
    seat::{Handle, SeatChange, SeatTable, TickReport},
};

/// The simulation's end of a gateway. One per gateway; it lives on the game loop's thread.
pub struct Simulation {
    shared: Arc<Shared>,
    workers: Arc<[Arc<WorkerExchange>]>,
    inboxes: Vec<Inbox>,
    outgoing: Vec<Outgoing>,
    /// Which worker serves each slot's seat.
    served_by: Vec<u16>,
    report: TickReport,
    tick: Tick,
}

impl Simulation {
    pub(super) fn new(shared: Arc<Shared>, workers: Arc<[Arc<WorkerExchange>]>) -> Self {
        Self {
            inboxes: workers.iter().map(|_| Inbox::default()).collect(),
            outgoing: workers.iter().map(|_| Outgoing::default()).collect(),
            served_by: Vec::new(),
            report: TickReport::default(),
            tick: Tick(0),
            shared,
            workers,
        }
    }

    /// Runs the gateway's part of a tick and exchanges with it all that has come and is to go.
    ///
    /// Call it once per game tick, at a steady rate: until the first call, and when the last one is 2 s ago
    /// ([`Limits::tick_stall`](super::Limits::tick_stall)), nobody is admitted.
    pub fn tick(&mut self) -> Exchange<'_> {
        let now = self.shared.clock.wall();
        self.tick.0 += 1;
        self.shared.ticked(now);
        // Inputs before changes: whoever they come from was seated before, so that its join is told now or was told.
        for (worker, inbox) in self.workers.iter().zip(&mut self.inboxes) {
            worker.take_inputs(inbox);
        }
        self.shared.seats.tick(self.tick, now, &mut self.report);
        self.shared.journal.record(&self.report);
        note_workers(&mut self.served_by, &self.report.changes);
        let dropped = self.inboxes.iter().map(Inbox::dropped).sum();
        self.shared
            .counters
            .inputs_dropped
            .fetch_add(dropped, std::sync::atomic::Ordering::Relaxed);
        Exchange {
            tick: self.tick,
            now,
            changes: &self.report.changes,
            inputs: Inputs {
                inboxes: &self.inboxes,
            },
            inputs_dropped: dropped,
            seats: &self.shared.seats,
            out: Outbox {
                workers: &self.workers,
                outgoing: &mut self.outgoing,
                served_by: &self.served_by,
            },
        }
    }

    /// The seat table, for code beside the game loop that verifies too.
    pub fn seats(&self) -> Arc<SeatTable> {
        Arc::clone(&self.shared.seats)
    }
}

fn note_workers(served_by: &mut Vec<u16>, changes: &[SeatChange]) {
    for change in changes {
        let (handle, worker) = match change {
            SeatChange::Joined(joined) => (joined.handle, joined.worker),
            SeatChange::Moved { handle, worker, .. } => (*handle, *worker),
            _ => continue,
        };
        let slot = handle.slot() as usize;
        if slot >= served_by.len() {
            // Grows to the highest slot in use, at most the table's capacity.
            served_by.resize(slot + 1, 0);
        }
        if let Some(entry) = served_by.get_mut(slot) {
            *entry = worker;
        }
    }
}

/// What one tick brings and takes.
///
/// Take it apart (`let Exchange { changes, inputs, mut out, .. } = simulation.tick();`) to answer inputs while reading them. What was
/// written to `out` is handed over when that is dropped.
pub struct Exchange<'a> {
    /// This tick's number, from 1.
    pub tick: Tick,
    /// This tick's time, read once.
    pub now: Timestamp,
    /// Who joined, moved and left since the last tick, in order, each exactly once.
    pub changes: &'a [SeatChange],
    /// What clients sent since the last tick, in the order of its arrival.
    pub inputs: Inputs<'a>,
    /// Datagrams that were dropped since the last tick because their seat, or all seats together, sent too many.
    pub inputs_dropped: u64,
    /// The seats: [`verify`](SeatTable::verify) each one, every tick.
    pub seats: &'a SeatTable,
    /// What is to be sent.
    pub out: Outbox<'a>,
}

/// A tick's inputs.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    inboxes: &'a [Inbox],
}

impl<'a> Inputs<'a> {
    /// The inputs, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Input<'a>> + use<'a> {
        self.inboxes.iter().flat_map(Inbox::iter)
    }
}

/// Where the simulation puts what is to be sent; handed over to the workers when dropped.
pub struct Outbox<'a> {
    workers: &'a [Arc<WorkerExchange>],
    outgoing: &'a mut [Outgoing],
    served_by: &'a [u16],
}

impl Outbox<'_> {
    /// Sends an unreliable datagram of at most [`MAX_DATAGRAM`](crate::wire::MAX_DATAGRAM) bytes; a longer one is refused (`false`).
    ///
    /// To a seat that has ended meanwhile nothing is sent.
    pub fn datagram(&mut self, handle: Handle, payload: &[u8]) -> bool {
        payload.len() <= crate::wire::MAX_DATAGRAM && self.push(handle, Channel::Datagram, payload)
    }

    /// Sends a reliable, ordered message of at most [`MAX_MESSAGE`](crate::wire::MAX_MESSAGE) bytes; a longer one is refused (`false`).
    ///
    /// To a seat that has ended meanwhile nothing is sent.
    pub fn message(&mut self, handle: Handle, payload: &[u8]) -> bool {
        payload.len() <= crate::wire::MAX_MESSAGE && self.push(handle, Channel::Message, payload)
    }

    fn push(&mut self, handle: Handle, channel: Channel, payload: &[u8]) -> bool {
        let worker = self.served_by.get(handle.slot() as usize);
        let outgoing = worker.and_then(|worker| self.outgoing.get_mut(usize::from(*worker)));
        let Some(outgoing) = outgoing else {
            return false;
        };
        outgoing.push(handle, channel, payload);
        true
    }
}

impl Drop for Outbox<'_> {
    fn drop(&mut self) {
        for (worker, outgoing) in self.workers.iter().zip(self.outgoing.iter_mut()) {
            worker.hand_over(outgoing);
        }
    }
}
