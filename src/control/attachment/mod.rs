//! The sidecar's end of one control stream: a state machine without I/O, clock or task.
//!
//! Its user feeds it what happened, with the time, then carries out [`Attachment::poll_action`] until it is empty, sends what
//! [`Attachment::poll_transmit`] gives whenever the stream takes a message, and calls [`Attachment::timer`] at
//! [`Attachment::poll_timeout`]. It ends with [`Action::End`], once.

mod action;
mod reason;

use std::{
    collections::{HashSet, VecDeque},
    time::Instant,
};

pub use self::{
    action::{Action, Registered},
    reason::EndReason,
};
use super::{
    ATTACH_TIMEOUT, AttachRefusal, HEARTBEAT_INTERVAL, LiveSeat, LogState, Orders, RevocationRange,
    SILENCE_LIMIT, SeatReport,
    message::{Attach, Attached, FromGateway, FromSidecar, LogPosition, Portions, Snapshot},
};
use crate::{
    clock::Timestamp,
    id::{GatewayId, Revision, SessionId},
};

/// How many events one range carries: 512 of at most 30 bytes are 15 KB, and a log of 100,000 events is read in 200 steps, between
/// which heartbeats and other work get their turn.
pub const RANGE_EVENTS: usize = 512;

#[derive(Debug)]
enum State {
    AwaitingAttach {
        give_up_at: Instant,
    },
    /// A part of the gateway's seats is to come.
    Gathering {
        attach: Box<Attach>,
        named: HashSet<SessionId>,
        give_up_at: Instant,
    },
    /// The host is asked about the gateway, and once that is registered, about its seats: it has what is left of the time.
    Asking {
        attach: Box<Attach>,
        registered: Option<Registered>,
        give_up_at: Instant,
    },
    Streaming {
        silent_at: Instant,
        heartbeat_at: Instant,
    },
    Ended,
}

/// The sidecar's end of one control stream.
#[derive(Debug)]
pub struct Attachment {
    /// Whose certificate the gateway showed.
    certificate: GatewayId,
    state: State,
    /// At most a handful: each input adds a fixed number, and the user empties it before the next.
    actions: VecDeque<Action>,
    /// Seats taken, by the gateway's last word.
    seats: u32,
    /// Whether the gateway drains, by its last word.
    draining: bool,
    /// Whether the host is taking in a report. The stream is not read meanwhile, so nothing can be heard of the gateway.
    reporting: bool,
    /// The newest revision of the log that is known.
    head: Revision,
    /// Everything up to here has been read for this stream.
    position: Revision,
    reading: Reading,
    attached: Option<Unsent>,
    /// Dead seats of the snapshot that go into further messages.
    dead: Vec<SessionId>,
    range: Option<RevocationRange>,
    heartbeat: bool,
    /// What the gateway is to be told beside the log. It is taken from the host only when nothing is left of what was taken before, so
    /// that what a slow gateway waits in is the host's newest state.
    orders: Orders,
    orders_wanted: bool,
    portions: Portions,
}

/// The log as this stream reads it: one piece at a time.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    Idle,
    Asked,
    /// The last read brought nothing although the head was further: not again before the head moves or a heartbeat is due.
    Resting,
}

/// The answer to Attach, but for the time, which is read when it goes out.
#[derive(Debug)]
struct Unsent {
    registered: Registered,
    /// Where the log starts afresh.
    snapshot: Option<Revision>,
}

impl Attachment {
    /// The machine of a stream whose peer has shown the certificate of `certificate`.
    pub fn new(now: Instant, certificate: GatewayId) -> Self {
        Self::with_portions(now, certificate, Portions::STANDARD)
    }

    /// The same with messages of another size.
    pub(super) fn with_portions(now: Instant, certificate: GatewayId, portions: Portions) -> Self {
        Self {
            certificate,
            state: State::AwaitingAttach {
                give_up_at: now + ATTACH_TIMEOUT,
            },
            actions: VecDeque::new(),
            seats: 0,
            draining: false,
            reporting: false,
            head: Revision::default(),
            position: Revision::default(),
            reading: Reading::Idle,
            attached: None,
            dead: Vec::new(),
            range: None,
            heartbeat: false,
            orders: Orders::default(),
            orders_wanted: false,
            portions,
        }
    }

    /// The gateway as it presented itself, while that is needed: at [`Action::Register`] and [`Action::FindDead`].
    pub fn presented(&self) -> Option<&Attach> {
        match &self.state {
            State::Asking { attach, .. } => Some(attach),
            State::AwaitingAttach { .. }
            | State::Gathering { .. }
            | State::Streaming { .. }
            | State::Ended => None,
        }
    }

    /// Whether the gateway has been answered.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// A message has arrived.
    pub fn received(&mut self, now: Instant, message: FromGateway) {
        match (&mut self.state, message) {
            (State::Ended, _) => {}
            (&mut State::AwaitingAttach { give_up_at }, FromGateway::Attach(attach)) => {
                self.presents(attach, give_up_at);
            }
            (State::Gathering { .. }, FromGateway::AttachSeats { seats, more_seats }) => {
                self.gather(seats, more_seats);
            }
            (State::Streaming { silent_at, .. }, message) => {
                *silent_at = now + SILENCE_LIMIT;
                self.hears(message);
            }
            _ => self.malformed(),
        }
    }

    /// What has arrived is no message, or one out of place.
    pub fn malformed(&mut self) {
        match self.state {
            State::AwaitingAttach { .. } | State::Gathering { .. } => {
                self.refused(AttachRefusal::Malformed);
            }
            _ => self.end(EndReason::Malformed),
        }
    }

    /// Answers [`Action::Register`]: the gateway is registered.
    ///
    /// The log's state must have been read before the dead seats are, so that whatever ends a session in between is in the log.
    pub fn registered(&mut self, now: Instant, registered: Registered) {
        let (attach, give_up_at) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Asking {
                attach,
                registered: None,
                give_up_at,
            } => (attach, give_up_at),
            other => {
                self.state = other;
                return;
            }
        };
        let LogState {
            lineage,
            tail,
            head,
        } = registered.log;
        self.head = self.head.max(head);
        let continued = attach
            .position
            .filter(|p| p.lineage == lineage && (tail..=head).contains(&p.revision));
        match continued {
            Some(LogPosition { revision, .. }) => {
                self.position = revision;
                self.start(now, registered, None);
            }
            None => {
                self.position = tail;
                self.state = State::Asking {
                    attach,
                    registered: Some(registered),
                    give_up_at,
                };
                self.actions.push_back(Action::FindDead);
            }
        }
    }

    /// Answers [`Action::FindDead`]: these of the seats presented are dead.
    pub fn dead_found(&mut self, now: Instant, dead: Vec<SessionId>) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Asking {
                registered: Some(registered),
                ..
            } => {
                self.dead = dead;
                self.start(now, registered, Some(self.position));
            }
            other => self.state = other,
        }
    }

    /// Answers [`Action::Register`], [`Action::FindDead`] or [`Action::ReadLog`]: it could not be done.
    pub fn refused(&mut self, refusal: AttachRefusal) {
        self.end(EndReason::Refused(refusal));
    }

    /// Answers [`Action::ReadLog`].
    pub fn log_read(&mut self, range: RevocationRange) {
        if range.from > self.position {
            return self.end(EndReason::LogLost);
        }
        if range.to > self.position {
            self.position = range.to;
            self.head = self.head.max(range.to);
            self.range = Some(range);
            self.reading = Reading::Idle;
        } else {
            self.reading = Reading::Resting;
        }
        self.read_on();
    }

    /// Answers [`Action::Report`]. Taking note of it may have been slow, which is no silence of the gateway's.
    pub fn reported(&mut self, now: Instant) {
        self.reporting = false;
        if let State::Streaming { silent_at, .. } = &mut self.state {
            *silent_at = now + SILENCE_LIMIT;
        }
    }

    /// The head of the log has moved.
    pub fn head_moved(&mut self, head: Revision) {
        self.head = self.head.max(head);
        self.end_rest();
        self.read_on();
    }

    /// There are orders for the gateway.
    pub fn orders_ready(&mut self) {
        self.orders_wanted = true;
        self.ask_for_orders();
    }

    /// Answers [`Action::TakeOrders`]. What is newer replaces what has not gone out yet.
    pub fn ordered(&mut self, orders: Orders) {
        let Orders {
            keys,
            idle_moved,
            drain,
        } = orders;
        self.orders.keys = keys.or(self.orders.keys.take());
        self.orders.drain = drain.or(self.orders.drain.take());
        self.orders.idle_moved.extend(idle_moved);
    }

    /// A newer process of this gateway, or a newer stream of this one, has attached.
    pub fn replaced(&mut self) {
        self.end(EndReason::Replaced);
    }

    /// The gateway has closed the stream, or the connection broke.
    pub fn disconnected(&mut self) {
        self.end(EndReason::Left);
    }

    /// The sidecar is shutting down.
    pub fn shut_down(&mut self) {
        self.end(EndReason::ShuttingDown);
    }

    /// Time has come to [`poll_timeout`](Self::poll_timeout), or passed it.
    pub fn timer(&mut self, now: Instant) {
        if self.give_up_at().is_some_and(|at| now >= at) {
            return self.end(EndReason::AttachTimeout);
        }
        if let State::Streaming {
            silent_at,
            heartbeat_at,
        } = &mut self.state
        {
            if now >= *silent_at && !self.reporting {
                return self.end(EndReason::Silent);
            }
            if now >= *heartbeat_at {
                *heartbeat_at = now + HEARTBEAT_INTERVAL;
                self.heartbeat = true;
                self.end_rest();
                self.read_on();
            }
        }
    }

    /// When [`timer`](Self::timer) is to be called next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Streaming {
                silent_at,
                heartbeat_at,
            } if !self.reporting => Some(*silent_at.min(heartbeat_at)),
            State::Streaming { heartbeat_at, .. } => Some(*heartbeat_at),
            _ => self.give_up_at(),
        }
    }

    /// When the gateway must have been answered, until it has.
    fn give_up_at(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitingAttach { give_up_at }
            | State::Gathering { give_up_at, .. }
            | State::Asking { give_up_at, .. } => Some(*give_up_at),
            State::Streaming { .. } | State::Ended => None,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something.
    pub fn wants_transmit(&self) -> bool {
        self.is_streaming()
            && (self.attached.is_some()
                || !self.dead.is_empty()
                || self.heartbeat
                || self.range.is_some()
                || self.has_orders())
    }

    /// The next message to send; `time` is the sidecar's.
    pub fn poll_transmit(&mut self, time: Timestamp) -> Option<FromSidecar> {
        if !self.is_streaming() {
            return None;
        }
        if let Some(unsent) = self.attached.take() {
            return Some(FromSidecar::Attached(self.answer(unsent, time)));
        }
        let dead = self.portions.cut(&mut self.dead);
        if !dead.is_empty() {
            let more_dead = !self.dead.is_empty();
            return Some(FromSidecar::SnapshotDead { dead, more_dead });
        }
        if std::mem::take(&mut self.heartbeat) {
            return Some(FromSidecar::Heartbeat {
                time,
                head: self.head,
            });
        }
        if let Some(keys) = self.orders.keys.take() {
            self.ask_for_orders();
            return Some(FromSidecar::Keys(keys));
        }
        if let Some(drain) = self.orders.drain.take() {
            self.ask_for_orders();
            return Some(FromSidecar::Drain(drain));
        }
        if let Some(range) = self.range.take() {
            self.read_on();
            return Some(FromSidecar::Revocations(range));
        }
        let moved = self.portions.cut(&mut self.orders.idle_moved);
        self.ask_for_orders();
        (!moved.is_empty()).then_some(FromSidecar::IdleMoved(moved))
    }

    /// What waits to be sent, in list entries: what a test holds against its bounds.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let range = self.range.as_ref().map_or(0, |range| range.events.len());
        self.dead.len() + self.orders.idle_moved.len() + range + self.actions.len()
    }

    fn answer(&mut self, unsent: Unsent, time: Timestamp) -> Attached {
        let Unsent {
            registered,
            snapshot,
        } = unsent;
        let snapshot = snapshot.map(|revision| Snapshot {
            revision,
            dead_count: u32::try_from(self.dead.len()).unwrap_or(u32::MAX),
            dead: self.portions.cut(&mut self.dead),
            more_dead: !self.dead.is_empty(),
        });
        Attached {
            keys: registered.keys,
            time,
            idle_timeout: registered.idle_timeout,
            lineage: registered.log.lineage,
            snapshot,
        }
    }

    fn presents(&mut self, mut attach: Box<Attach>, give_up_at: Instant) {
        if attach.gateway.id != self.certificate {
            return self.refused(AttachRefusal::WrongIdentity);
        }
        if attach.seat_count > attach.gateway.capacity {
            return self.malformed();
        }
        let seats = std::mem::take(&mut attach.seats);
        let more_seats = attach.more_seats;
        self.state = State::Gathering {
            attach,
            named: HashSet::new(),
            give_up_at,
        };
        self.add(seats, more_seats);
    }

    fn gather(&mut self, seats: Vec<LiveSeat>, more_seats: bool) {
        if seats.is_empty() {
            return self.malformed();
        }
        self.add(seats, more_seats);
    }

    /// Adds a portion of the gateway's seats, and registers it once it is whole: with as many as it has counted, none of them twice.
    fn add(&mut self, seats: Vec<LiveSeat>, more_seats: bool) {
        let State::Gathering { attach, named, .. } = &mut self.state else {
            return;
        };
        let count = u32::try_from(attach.seats.len().saturating_add(seats.len()));
        let sound = match count {
            Ok(count) if more_seats => count < attach.seat_count,
            Ok(count) => count == attach.seat_count,
            Err(_) => false,
        };
        if !sound || !seats.iter().all(|seat| named.insert(seat.session)) {
            return self.malformed();
        }
        attach.seats.extend(seats);
        attach.more_seats = more_seats;
        if more_seats {
            return;
        }
        if let State::Gathering {
            attach, give_up_at, ..
        } = std::mem::replace(&mut self.state, State::Ended)
        {
            self.seats = attach.seat_count;
            self.draining = attach.draining;
            self.state = State::Asking {
                attach,
                registered: None,
                give_up_at,
            };
            self.actions.push_back(Action::Register);
        }
    }

    fn hears(&mut self, message: FromGateway) {
        let mut report = SeatReport::default();
        match message {
            FromGateway::Attach(_) | FromGateway::AttachSeats { .. } => return self.malformed(),
            FromGateway::Activity(active) => report.active = active,
            FromGateway::Seats { opened, closed } => {
                report.opened = opened;
                report.closed = closed;
            }
            FromGateway::Heartbeat { seats, draining } => {
                self.seats = seats;
                self.draining = draining;
            }
            FromGateway::KeysHeld(keys) => {
                return self.actions.push_back(Action::KeysHeld(keys));
            }
            FromGateway::Certificates(certificates) => {
                report.certificate_sha256 = Some(certificates);
            }
            FromGateway::Events { events, lost } => {
                report.events = events;
                report.events_lost = lost;
            }
            FromGateway::Ack(revision) if revision > self.position => {
                return self.end(EndReason::Malformed);
            }
            FromGateway::Ack(revision) => {
                return self.actions.push_back(Action::Acknowledged(revision));
            }
        }
        self.pass_on(report);
    }

    /// Passes a report on, with what the gateway has last said of itself.
    fn pass_on(&mut self, report: SeatReport) {
        self.reporting = true;
        self.actions.push_back(Action::Report(SeatReport {
            seats: self.seats,
            draining: self.draining,
            ..report
        }));
    }

    fn start(&mut self, now: Instant, registered: Registered, snapshot: Option<Revision>) {
        self.attached = Some(Unsent {
            registered,
            snapshot,
        });
        // The first heartbeat follows at once, so that the gateway knows from the start how far behind it is.
        self.heartbeat = true;
        // A gateway is silent until it has the whole of the answer, and waits for that as long as for an answer.
        let patience = match self.dead.len() {
            0 => SILENCE_LIMIT,
            _ => ATTACH_TIMEOUT,
        };
        self.state = State::Streaming {
            silent_at: now + patience,
            heartbeat_at: now + HEARTBEAT_INTERVAL,
        };
        if self.draining {
            self.pass_on(SeatReport::default());
        }
        self.orders_ready();
        self.read_on();
    }

    fn has_orders(&self) -> bool {
        let Orders {
            keys,
            idle_moved,
            drain,
        } = &self.orders;
        keys.is_some() || !idle_moved.is_empty() || drain.is_some()
    }

    fn ask_for_orders(&mut self) {
        if self.orders_wanted && self.is_streaming() && !self.has_orders() {
            self.orders_wanted = false;
            self.actions.push_back(Action::TakeOrders);
        }
    }

    /// Reads the next piece of the log once the last one is on its way: that, and not a queue, is what a slow gateway waits in.
    fn read_on(&mut self) {
        let due = self.is_streaming()
            && self.reading == Reading::Idle
            && self.range.is_none()
            && self.position < self.head;
        if due {
            self.reading = Reading::Asked;
            self.actions.push_back(Action::ReadLog(self.position));
        }
    }

    fn end_rest(&mut self) {
        if self.reading == Reading::Resting {
            self.reading = Reading::Idle;
        }
    }

    fn end(&mut self, reason: EndReason) {
        if !matches!(self.state, State::Ended) {
            self.state = State::Ended;
            self.actions.clear();
            self.actions.push_back(Action::End(reason));
        }
    }
}

#[cfg(test)]
mod tests;
