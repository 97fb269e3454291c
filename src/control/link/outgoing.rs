//! What the gateway's end has to send: state, not a queue, so that a slow stream costs no memory.

use std::collections::VecDeque;

use crate::{
    control::{
        GatewayDescription, GatewayEvent, LiveSeat, MAX_SEATS, SeatReport,
        message::{Attach, FromGateway, LogPosition, Portions},
    },
    id::{Revision, SessionId},
    token::KeyId,
};

/// Sessions whose activity is kept while there is no stream to tell it on: as many as there may be seats.
const MAX_ACTIVE: usize = MAX_SEATS as usize;

/// What is to be sent. Whatever is newer replaces what has not gone out yet, but for three lists: the seats of an attach and the report
/// in hand go out before there is a next one, and of events the oldest are dropped and counted.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) portions: Portions,
    attach: Option<Box<Attach>>,
    /// Seats of that attach that go into further messages.
    attach_seats: Vec<LiveSeat>,
    heartbeat: bool,
    pub(super) ack: Option<Revision>,
    certificates: Option<Vec<[u8; 32]>>,
    /// The keys that are held, if the present stream has not been told of them.
    keys: Option<Vec<KeyId>>,
    opened: Vec<LiveSeat>,
    closed: Vec<SessionId>,
    active: Vec<SessionId>,
    events: VecDeque<GatewayEvent>,
    events_lost: u64,
    /// Seats taken and whether the gateway drains, by the last report.
    seats: u32,
    draining: bool,
}

impl Outgoing {
    pub(super) fn new(portions: Portions) -> Self {
        Self {
            portions,
            attach: None,
            attach_seats: Vec::new(),
            heartbeat: false,
            ack: None,
            certificates: None,
            keys: None,
            opened: Vec::new(),
            closed: Vec::new(),
            active: Vec::new(),
            events: VecDeque::new(),
            events_lost: 0,
            seats: 0,
            draining: false,
        }
    }

    /// A new stream: Attach says how things are, which outdates what was to be said before; but not who was active, and what happened.
    /// Returns how many seats it names.
    pub(super) fn attach(
        &mut self,
        gateway: GatewayDescription,
        position: Option<LogPosition>,
        keys: Vec<KeyId>,
        mut seats: Vec<LiveSeat>,
    ) -> u32 {
        self.opened.clear();
        self.closed.clear();
        self.certificates = None;
        self.keys = None;
        self.heartbeat = false;
        let seat_count = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        self.seats = seat_count;
        let first = self.portions.cut(&mut seats);
        self.attach = Some(Box::new(Attach {
            gateway,
            position,
            draining: self.draining,
            seat_count,
            seats: first,
            more_seats: !seats.is_empty(),
            keys,
        }));
        self.attach_seats = seats;
        seat_count
    }

    /// Whether the gateway has not presented itself in full yet.
    pub(super) fn is_attaching(&self) -> bool {
        self.attach.is_some() || !self.attach_seats.is_empty()
    }

    /// The stream has ended, and with it what made sense on it alone.
    pub(super) fn detach(&mut self) {
        self.attach = None;
        self.attach_seats = Vec::new();
        self.heartbeat = false;
        self.ack = None;
        self.keys = None;
    }

    /// Other keys are held from now on.
    pub(super) fn keys_held(&mut self, keys: Vec<KeyId>) {
        self.keys = Some(keys);
    }

    /// Who was active is too long ago to be told.
    pub(super) fn forget_activity(&mut self) {
        self.active = Vec::new();
    }

    pub(super) fn heartbeat_due(&mut self) {
        self.heartbeat = true;
    }

    /// A report. What is left of the last one is out of date but for events and activity: there is a next one only when that has gone
    /// out ([`has_report`](Self::has_report)), or before an attach, which tells the seats afresh.
    pub(super) fn report(&mut self, report: SeatReport) {
        let SeatReport {
            opened,
            closed,
            active,
            seats,
            draining,
            certificate_sha256,
            events,
            events_lost,
        } = report;
        self.opened = opened;
        self.closed = closed;
        let is_late = !self.active.is_empty() || active.len() > MAX_ACTIVE;
        if self.active.is_empty() {
            self.active = active;
        } else {
            self.active.extend(active);
        }
        if is_late {
            self.active.sort_unstable();
            self.active.dedup();
            // Some 16 MB. Those who play on are active again within a second.
            self.active.truncate(MAX_ACTIVE);
        }
        self.seats = seats;
        // The sidecar should not go on minting for as long as until the next heartbeat.
        self.heartbeat |= draining != self.draining;
        self.draining = draining;
        if certificate_sha256.is_some() {
            self.certificates = certificate_sha256;
        }
        self.events_lost = self.events_lost.saturating_add(events_lost);
        self.events.extend(events);
        let too_many = self.events.len().saturating_sub(self.portions.events_held);
        self.events.drain(..too_many);
        let dropped = u64::try_from(too_many).unwrap_or(u64::MAX);
        self.events_lost = self.events_lost.saturating_add(dropped);
    }

    /// Whether seats or activity of the last report are left.
    pub(super) fn has_report(&self) -> bool {
        !(self.opened.is_empty() && self.closed.is_empty() && self.active.is_empty())
    }

    /// Whether there is anything to say on a stream that has been answered.
    pub(super) fn has_news(&self) -> bool {
        self.heartbeat
            || self.ack.is_some()
            || self.certificates.is_some()
            || self.keys.is_some()
            || self.has_report()
            || self.has_events()
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty() || self.events_lost > 0
    }

    /// The next part of the gateway's presentation.
    pub(super) fn next_of_attach(&mut self) -> Option<FromGateway> {
        if let Some(attach) = self.attach.take() {
            return Some(FromGateway::Attach(attach));
        }
        let seats = self.portions.cut(&mut self.attach_seats);
        (!seats.is_empty()).then_some(FromGateway::AttachSeats {
            seats,
            more_seats: !self.attach_seats.is_empty(),
        })
    }

    /// The next message on a stream that has been answered; events last, since nothing rests on them.
    pub(super) fn next_of_news(&mut self) -> Option<FromGateway> {
        if std::mem::take(&mut self.heartbeat) {
            return Some(FromGateway::Heartbeat {
                seats: self.seats,
                draining: self.draining,
            });
        }
        if let Some(revision) = self.ack.take() {
            return Some(FromGateway::Ack(revision));
        }
        if let Some(keys) = self.keys.take() {
            return Some(FromGateway::KeysHeld(keys));
        }
        if let Some(certificates) = self.certificates.take() {
            return Some(FromGateway::Certificates(certificates));
        }
        let opened = self.portions.cut(&mut self.opened);
        let closed = self.portions.cut(&mut self.closed);
        if !opened.is_empty() || !closed.is_empty() {
            return Some(FromGateway::Seats { opened, closed });
        }
        let active = self.portions.cut(&mut self.active);
        if !active.is_empty() {
            return Some(FromGateway::Activity(active));
        }
        self.has_events().then(|| {
            let count = self.events.len().min(self.portions.events);
            FromGateway::Events {
                events: self.events.drain(..count).collect(),
                lost: std::mem::take(&mut self.events_lost),
            }
        })
    }

    /// Everything that waits, in entries: what a test holds against its bounds.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        let lists = self.attach_seats.len() + self.opened.len() + self.closed.len();
        (lists + self.active.len(), self.events.len())
    }
}
