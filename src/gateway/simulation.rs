//! The game's side of the gateway: one synchronous call per tick, which never blocks.

use std::sync::Arc;

use super::{
    exchange::{Channel, Inbox, Input, Outgoing, WorkerExchange},
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    id::Tick,
    seat::{EndReason, Handle, Joined, SeatChange, SeatTable, TickReport},
};

/// The simulation's end of a gateway. One per gateway; it lives on the game loop's thread.
pub struct Simulation {
    shared: Arc<Shared>,
    workers: Arc<[Arc<WorkerExchange>]>,
    inboxes: Vec<Inbox>,
    outgoing: Vec<Outgoing>,
    /// By slot: the seat that the game knows of, and which worker serves it.
    roster: Vec<Option<Known>>,
    report: TickReport,
    tick: Tick,
}

impl Simulation {
    pub(super) fn new(shared: Arc<Shared>, workers: Arc<[Arc<WorkerExchange>]>) -> Self {
        Self {
            inboxes: workers.iter().map(|_| Inbox::default()).collect(),
            outgoing: workers.iter().map(|_| Outgoing::default()).collect(),
            roster: Vec::new(),
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
        if self.shared.ticked(now) {
            self.shared.watch_sidecar(now);
        }
        // Inputs before changes: whoever they come from was seated before, so that its join is told now or was told.
        for (worker, inbox) in self.workers.iter().zip(&mut self.inboxes) {
            worker.take_inputs(inbox);
        }
        self.shared.seats.tick(self.tick, now, &mut self.report);
        self.shared.journal.record(&self.report);
        note(&mut self.roster, &self.report.changes);
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
                roster: &self.roster,
            },
            inputs_dropped: dropped,
            seats: &self.shared.seats,
            out: Outbox {
                seats: &self.shared.seats,
                workers: &self.workers,
                outgoing: &mut self.outgoing,
                roster: &self.roster,
            },
        }
    }

    /// The seat table, for code beside the game loop that verifies too.
    pub fn seats(&self) -> Arc<SeatTable> {
        Arc::clone(&self.shared.seats)
    }
}

/// A seat that the game was told of and whose end it was not told yet.
#[derive(Debug, Clone, Copy)]
struct Known {
    handle: Handle,
    worker: u16,
}

fn known(roster: &[Option<Known>], handle: Handle) -> Option<Known> {
    let known = roster.get(handle.slot() as usize).copied().flatten()?;
    (known.handle == handle).then_some(known)
}

fn note(roster: &mut Vec<Option<Known>>, changes: &[SeatChange]) {
    for change in changes {
        let (handle, known) = match *change {
            SeatChange::Joined(Joined { handle, worker, .. })
            | SeatChange::Resumed { handle, worker } => (handle, Some(Known { handle, worker })),
            SeatChange::Suspended { .. } => continue,
            SeatChange::Ended { handle, .. } => (handle, None),
        };
        let slot = handle.slot() as usize;
        if slot >= roster.len() {
            // Grows to the highest slot in use, at most the table's capacity.
            roster.resize(slot + 1, None);
        }
        if let Some(entry) = roster.get_mut(slot) {
            *entry = known;
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
    /// What clients sent since the last tick, in the order of its arrival: of seats alone that the game was told of and whose end it
    /// was not.
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
    roster: &'a [Option<Known>],
}

impl<'a> Inputs<'a> {
    /// The inputs, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Input<'a>> + use<'a> {
        let roster = self.roster;
        self.inboxes
            .iter()
            .flat_map(Inbox::iter)
            .filter(move |input| known(roster, input.handle).is_some())
    }
}

/// Where the simulation puts what is to be sent; handed over to the workers when dropped.
pub struct Outbox<'a> {
    seats: &'a SeatTable,
    workers: &'a [Arc<WorkerExchange>],
    outgoing: &'a mut [Outgoing],
    roster: &'a [Option<Known>],
}

impl Outbox<'_> {
    /// Sends an unreliable datagram of at most [`MAX_DATAGRAM`](crate::wire::MAX_DATAGRAM) bytes. A longer one is refused, and so is one to
    /// a seat whose end was told (`false`); to a seat that has ended since nothing is sent.
    pub fn datagram(&mut self, handle: Handle, payload: &[u8]) -> bool {
        payload.len() <= crate::wire::MAX_DATAGRAM && self.push(handle, Channel::Datagram, payload)
    }

    /// Sends a reliable, ordered message of at most [`MAX_MESSAGE`](crate::wire::MAX_MESSAGE) bytes. A longer one is refused, and so is
    /// one to a seat whose end was told (`false`); to a seat that has ended since nothing is sent.
    pub fn message(&mut self, handle: Handle, payload: &[u8]) -> bool {
        payload.len() <= crate::wire::MAX_MESSAGE && self.push(handle, Channel::Message, payload)
    }

    fn push(&mut self, handle: Handle, channel: Channel, payload: &[u8]) -> bool {
        let outgoing = known(self.roster, handle)
            .and_then(|known| self.outgoing.get_mut(usize::from(known.worker)));
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
            worker.hand_over(outgoing, |handle| {
                self.seats.end(handle, EndReason::Internal);
            });
        }
    }
}
