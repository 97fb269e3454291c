//! The game's side of the gateway: one synchronous call per tick, which never blocks.

use std::{
    cell::Cell,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    exchange::{Channel, Inbox, Input, Outgoing, WorkerExchange},
    shared::Shared,
};
use crate::{
    clock::Timestamp,
    id::{PlayerId, Tick},
    seat::{Answers, EndReason, Handle, Joined, SeatChange, SeatTable, TickReport, Verdict},
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
        let started = self.shared.clock.now();
        let now = self.shared.clock.wall_at(started);
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
        self.shared.events.record_ends(&self.report.changes, now);
        for change in &self.report.changes {
            self.log_end(change);
            note(&mut self.roster, change);
        }
        let dropped = self.inboxes.iter().map(Inbox::dropped).sum();
        self.shared
            .counters
            .inputs_dropped
            .fetch_add(dropped, Ordering::Relaxed);
        Exchange {
            tick: self.tick,
            now,
            changes: &self.report.changes,
            inputs: Inputs {
                inboxes: &self.inboxes,
                roster: &self.roster,
            },
            inputs_dropped: dropped,
            seats: Seats {
                table: &self.shared.seats,
                verified: Cell::new(0),
                total: &self.shared.counters.verifies,
            },
            out: Outbox {
                shared: &self.shared,
                started,
                workers: &self.workers,
                outgoing: &mut self.outgoing,
                roster: &self.roster,
            },
        }
    }

    fn log_end(&self, change: &SeatChange) {
        let SeatChange::Ended {
            handle,
            session,
            reason,
            ..
        } = *change
        else {
            return;
        };
        let player = known(&self.roster, handle).map(|known| tracing::field::display(known.player));
        tracing::debug!(gateway = %self.shared.id, %session, player, %handle, reason = reason.label(), "seat ended");
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
    player: PlayerId,
    worker: u16,
    /// As the game was told; not suspended.
    is_live: bool,
}

fn known(roster: &[Option<Known>], handle: Handle) -> Option<Known> {
    let known = roster.get(handle.slot() as usize).copied().flatten()?;
    (known.handle == handle).then_some(known)
}

fn note(roster: &mut Vec<Option<Known>>, change: &SeatChange) {
    let handle = change.handle();
    let slot = handle.slot() as usize;
    if slot >= roster.len() {
        // Grows to the highest slot in use, at most the table's slots.
        roster.resize(slot + 1, None);
    }
    let Some(entry) = roster.get_mut(slot) else {
        return;
    };
    match *change {
        SeatChange::Joined(Joined { player, worker, .. }) => {
            *entry = Some(Known {
                handle,
                player,
                worker,
                is_live: true,
            });
        }
        SeatChange::Resumed { worker, .. } => {
            if let Some(known) = entry.as_mut().filter(|known| known.handle == handle) {
                known.worker = worker;
                known.is_live = true;
            }
        }
        SeatChange::Suspended { .. } => {
            if let Some(known) = entry.as_mut().filter(|known| known.handle == handle) {
                known.is_live = false;
            }
        }
        SeatChange::Ended { .. } => *entry = None,
    }
}

/// What one tick brings and takes.
///
/// Take it apart (`let Exchange { changes, inputs, mut out, .. } = simulation.tick();`) to answer inputs while reading them. What was
/// written to `out` is handed over when that is dropped, and there the tick's measured duration ends.
pub struct Exchange<'a> {
    /// This tick's number, from 1.
    pub tick: Tick,
    /// This tick's time, read once.
    pub now: Timestamp,
    /// Who joined, was suspended, resumed and ended since the last tick, in order, each exactly once.
    pub changes: &'a [SeatChange],
    /// What clients sent since the last tick, in the order of its arrival: of seats alone that the game was told of and whose end it
    /// was not.
    pub inputs: Inputs<'a>,
    /// Datagrams that were dropped since the last tick because their seat, or all seats together, sent too many.
    pub inputs_dropped: u64,
    /// The seats: [`verify`](Seats::verify) each one, or [all at once](Seats::verify_batch), every tick.
    pub seats: Seats<'a>,
    /// What is to be sent.
    pub out: Outbox<'a>,
}

/// The seat table during a tick. It counts how many seats are looked at, for the gateway's metrics; whoever verifies on other threads
/// takes the table itself (`&*seats`), uncounted.
pub struct Seats<'a> {
    table: &'a SeatTable,
    /// Here and not in the shared counter, which another core may hold: so that to count costs no more than an addition.
    verified: Cell<u64>,
    total: &'a AtomicU64,
}

impl Seats<'_> {
    /// May this seat stay? As [`SeatTable::verify`], and counted.
    pub fn verify(&self, handle: Handle) -> Verdict {
        self.verified.set(self.verified.get() + 1);
        self.table.verify(handle)
    }

    /// May these seats stay? As [`SeatTable::verify_batch`], and counted: one bit per handle, in their order, into memory that is used
    /// again. The way to ask about everybody on every tick.
    pub fn verify_batch(&self, handles: &[Handle], answers: &mut Answers) {
        // No slice has 2^64 handles.
        let asked = u64::try_from(handles.len()).unwrap_or(u64::MAX);
        self.verified.set(self.verified.get() + asked);
        self.table.verify_batch(handles, answers);
    }
}

impl Deref for Seats<'_> {
    type Target = SeatTable;

    fn deref(&self) -> &SeatTable {
        self.table
    }
}

impl Drop for Seats<'_> {
    fn drop(&mut self) {
        self.total.fetch_add(self.verified.get(), Ordering::Relaxed);
    }
}

/// A tick's inputs.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    inboxes: &'a [Inbox],
    roster: &'a [Option<Known>],
}

impl<'a> Inputs<'a> {
    /// The inputs of all seats, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Input<'a>> + use<'a> {
        let roster = self.roster;
        self.inboxes
            .iter()
            .flat_map(Inbox::iter)
            .filter(move |input| known(roster, input.handle).is_some())
    }

    /// One seat's inputs, oldest first: what its ring has kept since the last tick, and its messages. It looks at these alone, so that a
    /// loop over seats costs what their inputs cost. Empty for a seat that the game was not told of, or whose end it was told.
    pub fn of(&self, handle: Handle) -> impl Iterator<Item = Input<'a>> + use<'a> {
        let known = known(self.roster, handle).is_some();
        self.inboxes
            .iter()
            .filter(move |_| known)
            .flat_map(move |inbox| inbox.of(handle))
    }

    /// How many of this seat's datagrams were dropped since the last tick, because it sent more than its ring holds
    /// ([`SeatBudget::datagrams`](super::SeatBudget::datagrams)), or all seats together more than there was room for.
    pub fn dropped_of(&self, handle: Handle) -> u64 {
        if known(self.roster, handle).is_none() {
            return 0;
        }
        self.inboxes
            .iter()
            .map(|inbox| inbox.dropped_of(handle))
            .sum()
    }
}

/// Where the simulation puts what is to be sent; handed over to the workers when dropped.
pub struct Outbox<'a> {
    shared: &'a Shared,
    started: Instant,
    workers: &'a [Arc<WorkerExchange>],
    outgoing: &'a mut [Outgoing],
    roster: &'a [Option<Known>],
}

impl Outbox<'_> {
    /// Sends an unreliable datagram of at most [`MAX_DATAGRAM`](crate::wire::MAX_DATAGRAM) bytes. A longer one is refused, and so is one to
    /// a seat whose end was told (`false`); to a seat that has ended since, or is suspended, nothing is sent.
    pub fn datagram(&mut self, handle: Handle, payload: &[u8]) -> bool {
        payload.len() <= crate::wire::MAX_DATAGRAM && self.push(handle, Channel::Datagram, payload)
    }

    /// Sends a reliable, ordered message of at most [`MAX_MESSAGE`](crate::wire::MAX_MESSAGE) bytes. A longer one is refused, and so is
    /// one to a seat whose end was told (`false`); to a seat that has ended since, or is suspended, nothing is sent. So a client that
    /// resumes has missed what was said meanwhile, and what was under way when its connection was lost.
    pub fn message(&mut self, handle: Handle, payload: &[u8]) -> bool {
        payload.len() <= crate::wire::MAX_MESSAGE && self.push(handle, Channel::Message, payload)
    }

    fn push(&mut self, handle: Handle, channel: Channel, payload: &[u8]) -> bool {
        let Some(known) = known(self.roster, handle) else {
            return false;
        };
        if known.is_live
            && let Some(outgoing) = self.outgoing.get_mut(usize::from(known.worker))
        {
            outgoing.push(handle, channel, payload);
        }
        true
    }
}

impl Drop for Outbox<'_> {
    fn drop(&mut self) {
        for (worker, outgoing) in self.workers.iter().zip(self.outgoing.iter_mut()) {
            worker.hand_over(outgoing, |handle| {
                self.shared.seats.end(handle, EndReason::Internal);
            });
        }
        let took = self
            .shared
            .clock
            .now()
            .saturating_duration_since(self.started);
        self.shared.ticks.record(took);
    }
}

#[cfg(test)]
mod tests;
