//! The clients of one thread while they play: what each has sent, what was answered, how each ended.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::CreationError;
use tickgate::{
    client::{Closed, ConnectError, Connection, SendError},
    clock::Clock,
    demo::protocol::{Input, Snapshot},
    wire::CloseCode,
};
use tokio::sync::mpsc;

use crate::{
    busy_meter::BusyMeter,
    in_flight::{InFlight, Sent},
    measure::{Latencies, Recorder},
    plan::{Due, Plan},
    progress::{Live, count},
    report::ByName,
};

/// How a client's connection ended, as the rest of the program needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close {
    /// The client.
    pub(crate) client: u32,
    /// When the client saw it.
    pub(crate) at: Instant,
    /// The gateway's close code, if it gave one.
    pub(crate) code: Option<CloseCode>,
}

/// The clients of one thread. Everything that happens to them happens on that thread, so nothing here is locked.
pub(crate) struct Players {
    clock: Clock,
    meter: Arc<BusyMeter>,
    live: Arc<Live>,
    closes: mpsc::Sender<Close>,
    /// Member to client: the index in the whole run.
    clients: Vec<u32>,
    warmup: Duration,
    /// When play begins, once that is known.
    start: Cell<Option<Instant>>,
    /// Set when the run itself ends the connections.
    over: Cell<bool>,
    slots: Vec<RefCell<Slot>>,
    tally: RefCell<Tally>,
}

struct Slot {
    state: State,
    connection: Option<Rc<Connection>>,
    in_flight: InFlight,
    /// Of the next input.
    next_sequence: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not admitted.
    Absent,
    /// Admitted and connected.
    Playing,
    /// Closed as revoked: nothing more is expected of it.
    Revoked,
    /// Ended in another way: its sends are due all the same, and are missing.
    Gone,
}

/// What a thread's clients add up to.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Latencies and counts.
    pub(crate) recorder: Recorder,
    /// Admitted.
    pub(crate) admitted: u32,
    /// Still connected at the end.
    pub(crate) live_at_end: u32,
    /// Not admitted, by what they saw.
    pub(crate) refused: ByName,
    /// Connections that ended, by what was seen.
    pub(crate) closed: ByName,
    /// Latencies from the due instant since they were last told.
    recent: Latencies,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// As [`Latencies::new`].
    pub(crate) fn new() -> Result<Self, CreationError> {
        Ok(Self {
            recorder: Recorder::new()?,
            admitted: 0,
            live_at_end: 0,
            refused: ByName::new(),
            closed: ByName::new(),
            recent: Latencies::new()?,
        })
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.recorder.merge(&other.recorder);
        self.admitted += other.admitted;
        self.live_at_end += other.live_at_end;
        merge_by_name(&mut self.refused, &other.refused);
        merge_by_name(&mut self.closed, &other.closed);
    }
}

/// Adds the counts of `other`.
pub(crate) fn merge_by_name(into: &mut ByName, other: &ByName) {
    for (name, count) in other {
        *into.entry(name.clone()).or_default() += count;
    }
}

fn is_revoked(how: &Closed) -> bool {
    how.code() == Some(CloseCode::SessionRevoked)
}

/// How many inputs before the newest one a snapshot acknowledges.
const ACKNOWLEDGED_BEFORE: u32 = 32;

/// An input that steers one way for some two seconds and then another: what the demo world does with it is not measured.
fn input(sequence: u32) -> Bytes {
    let (right, up) = match (sequence >> 5) & 3 {
        0 => (64, 0),
        1 => (0, 64),
        2 => (-64, 0),
        _ => (0, -64),
    };
    let input = Input {
        sequence,
        right,
        up,
    };
    Bytes::copy_from_slice(&input.encode())
}

impl Players {
    /// Nobody is admitted yet.
    ///
    /// # Errors
    /// As [`Latencies::new`].
    pub(crate) fn new(
        plan: &Plan,
        clients: Vec<u32>,
        clock: Clock,
        meter: Arc<BusyMeter>,
        live: Arc<Live>,
        closes: mpsc::Sender<Close>,
    ) -> Result<Self, CreationError> {
        let slots = clients
            .iter()
            .map(|_| {
                RefCell::new(Slot {
                    state: State::Absent,
                    connection: None,
                    in_flight: InFlight::new(plan.settings.hz),
                    next_sequence: 0,
                })
            })
            .collect();
        Ok(Self {
            clock,
            meter,
            live,
            closes,
            clients,
            warmup: plan.settings.warmup,
            start: Cell::new(None),
            over: Cell::new(false),
            slots,
            tally: RefCell::new(Tally::new()?),
        })
    }

    /// Play begins at `start`.
    pub(crate) fn begin(&self, start: Instant) {
        self.start.set(Some(start));
    }

    /// A member was let in.
    pub(crate) fn admitted(&self, member: usize, connection: Rc<Connection>, took: Duration) {
        let Some(slot) = self.slots.get(member) else {
            return;
        };
        let mut slot = slot.borrow_mut();
        slot.state = State::Playing;
        slot.connection = Some(connection);
        let mut tally = self.tally.borrow_mut();
        tally.admitted += 1;
        tally.recorder.admission.record(took);
        count(&self.live.admitted);
        count(&self.live.connected);
    }

    /// A member was not let in.
    pub(crate) fn refused(&self, why: &ConnectError) {
        self.not_admitted(why.label());
    }

    /// A member did not come as far as to be let in or refused.
    pub(crate) fn not_admitted(&self, label: &str) {
        let mut tally = self.tally.borrow_mut();
        *tally.refused.entry(label.to_owned()).or_default() += 1;
    }

    /// The clients that are connected now.
    pub(crate) fn connected(&self) -> Vec<u32> {
        let playing = |slot: &RefCell<Slot>| slot.borrow().state == State::Playing;
        self.clients
            .iter()
            .zip(&self.slots)
            .filter(|(_, slot)| playing(slot))
            .map(|(client, _)| *client)
            .collect()
    }

    /// Sends the input that is due, however late it is.
    pub(crate) fn send(&self, due: Due) {
        let (Some(slot), Some(start)) = (self.slots.get(due.member), self.start.get()) else {
            return;
        };
        let mut slot = slot.borrow_mut();
        let slot = &mut *slot;
        if slot.state == State::Revoked {
            return;
        }
        let at = self.clock.now().saturating_duration_since(start);
        let sequence = slot.next_sequence;
        let outcome = slot
            .connection
            .as_ref()
            .map(|connection| connection.send_datagram(input(sequence)));
        if matches!(&outcome, Some(Err(SendError::Closed(how))) if is_revoked(how)) {
            // Its listener has not been told yet.
            return;
        }
        let measured = due.at >= self.warmup;
        let mut tally = self.tally.borrow_mut();
        let recorder = &mut tally.recorder;
        recorder.counts(measured).planned += 1;
        let Some(Ok(())) = outcome else {
            return;
        };
        slot.next_sequence = sequence.wrapping_add(1);
        recorder.counts(measured).sent += 1;
        recorder.lagged(measured, at.saturating_sub(due.at));
        let sent = Sent {
            due: due.at,
            at,
            measured,
        };
        if let Some(lost) = slot.in_flight.sent(sequence, sent) {
            recorder.counts(lost.measured).lost += 1;
        }
        count(&self.live.sent);
    }

    /// Gives up the input that is due: it counts as planned and not sent.
    pub(crate) fn omit(&self, due: Due) {
        let is_expected = |slot: &RefCell<Slot>| slot.borrow().state != State::Revoked;
        if !self.slots.get(due.member).is_some_and(is_expected) {
            return;
        }
        let Some(start) = self.start.get() else {
            return;
        };
        let at = self.clock.now().saturating_duration_since(start);
        let measured = due.at >= self.warmup;
        let recorder = &mut self.tally.borrow_mut().recorder;
        recorder.counts(measured).planned += 1;
        recorder.lagged(measured, at.saturating_sub(due.at));
    }

    /// A datagram has come for a member.
    pub(crate) fn received(&self, member: usize, datagram: &[u8]) {
        let (Some(slot), Some(start)) = (self.slots.get(member), self.start.get()) else {
            return;
        };
        let Ok(snapshot) = Snapshot::decode(datagram) else {
            return;
        };
        let now = self.clock.now();
        let unread_for = self.meter.busy_for(now);
        let now = now.saturating_duration_since(start);
        let mut slot = slot.borrow_mut();
        let mut tally = self.tally.borrow_mut();
        tally.recorder.read(now >= self.warmup, unread_for);
        let mut new = false;
        for behind in 0..=ACKNOWLEDGED_BEFORE {
            let sequence = snapshot.received.newest.wrapping_sub(behind);
            if !snapshot.received.contains(sequence) {
                continue;
            }
            let Some(sent) = slot.in_flight.acknowledged(sequence) else {
                continue;
            };
            new = true;
            let since_due = now.saturating_sub(sent.due);
            let since_sent = now.saturating_sub(sent.at);
            tally
                .recorder
                .acknowledged(sent.measured, since_due, since_sent);
            tally.recent.record(since_due);
            count(&self.live.acked);
        }
        if !new {
            tally.recorder.stale_snapshots += 1;
        }
    }

    /// A member's connection has ended.
    pub(crate) fn closed(&self, member: usize, how: &Closed) {
        let at = self.clock.now();
        if self.over.get() {
            return;
        }
        let (Some(slot), Some(client)) = (self.slots.get(member), self.clients.get(member)) else {
            return;
        };
        let mut slot = slot.borrow_mut();
        slot.connection = None;
        slot.state = if is_revoked(how) {
            State::Revoked
        } else {
            State::Gone
        };
        let mut tally = self.tally.borrow_mut();
        for sent in slot.in_flight.drain() {
            tally.recorder.counts(sent.measured).cut_off += 1;
        }
        *tally.closed.entry(how.label().to_owned()).or_default() += 1;
        self.live.connected.fetch_sub(1, Ordering::Relaxed);
        // There is room: the channel holds one for each client, and each ends once.
        let _ = self.closes.try_send(Close {
            client: *client,
            at,
            code: how.code(),
        });
    }

    /// Tells the progress line how the last second went.
    pub(crate) fn tell(&self) {
        let recent = &mut self.tally.borrow_mut().recent;
        self.live
            .p99_us
            .fetch_max(recent.summary().p99, Ordering::Relaxed);
        recent.clear();
    }

    /// The end: inputs that still wait are lost, connections that still live are counted and closed. Returns the tally.
    ///
    /// # Errors
    /// As [`Latencies::new`].
    pub(crate) fn finish(&self) -> Result<Tally, CreationError> {
        self.over.set(true);
        let mut tally = self.tally.replace(Tally::new()?);
        for slot in &self.slots {
            let mut slot = slot.borrow_mut();
            if let Some(connection) = slot.connection.take() {
                tally.live_at_end += 1;
                connection.close();
            }
            for sent in slot.in_flight.drain() {
                tally.recorder.counts(sent.measured).lost += 1;
            }
        }
        Ok(tally)
    }
}
