//! The gateway's core: one worker's QUIC endpoint and its connections, without I/O, clock or thread.
//!
//! Packets, timeouts and `now` go in; packets, the next timeout and the simulation's inputs come out. So the whole gateway runs in a
//! test against simulated clients, network and time. A driver calls, in a loop:
//!
//! 1. [`receive`](Core::receive) for each packet, [`handle_timeouts`](Core::handle_timeouts), [`exchange`](Core::exchange),
//! 2. [`process`](Core::process), which lets everything that changed take its effect,
//! 3. [`poll_transmit`](Core::poll_transmit) until it is empty, and then waits until [`next_timeout`](Core::next_timeout).

mod buckets;
mod budget;
mod charge;
mod deadlines;
mod entrance;
mod gate;
mod link;
mod parking;
mod passing;
mod resting;
mod session;
mod timers;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use quinn_proto::{ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Transmit, VarInt};

pub(super) use self::gate::Prefixes;
use self::{
    buckets::Refill,
    budget::Budgets,
    charge::Charged,
    deadlines::WaitingRoom,
    gate::Gate,
    link::{Link, LinkId, Stage},
    parking::Parking,
    resting::Resting,
    timers::Timers,
};
use super::{
    certificates::{Certificates, Served},
    exchange::{Buffers, Channel, Outgoing, WorkerExchange},
    farewell::Farewell,
    shared::Shared,
};
use crate::{
    seat::{Connection as SeatConnection, EndReason, Handle},
    udp::Packet,
};

/// Answers without a connection that may wait for the socket. Each packet in makes one at most; beyond this they are dropped, as
/// the network would.
const MAX_RESPONSES: usize = 1_024;

/// Stateless resets a second, and at once. A restarted gateway answers the clients of the process before it with them: 2,000 by far
/// within a second, 10,000 in little more than one. At some 3 µs each they take no more than 2.5 % of a core from the living.
const RESETS_PER_SECOND: u32 = 8_192;

/// Whether an answer without a connection is a stateless reset: alone of those it looks like a packet with a short header (RFC 9000,
/// section 10.3).
fn is_reset(response: &[u8]) -> bool {
    response.first().is_some_and(|first| first & 0x80 == 0)
}

/// The earlier of two times of which either may not come.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// One worker's endpoint and connections.
pub(super) struct Core {
    worker: u16,
    endpoint: Endpoint,
    shared: Arc<Shared>,
    exchange: Arc<WorkerExchange>,
    /// By quinn-proto's connection handle, which is an index of its own slab.
    links: Vec<Option<Box<Link>>>,
    /// The link that serves the seat in each slot.
    served: Vec<Option<(Handle, LinkId)>>,
    next_serial: u32,
    /// All workers' exchanges, by worker: to pass on what is another's. Empty if there is but one.
    neighbours: Arc<[Arc<WorkerExchange>]>,
    /// Packets that others have passed on, while they are taken.
    passed: Vec<Packet>,
    gate: Gate,
    budgets: Budgets,
    handshaking: WaitingRoom,
    awaiting_hello: WaitingRoom,
    /// Those who were never seated and are closed, until quinn-proto has drained them.
    refused: WaitingRoom,
    certificates: Arc<Certificates>,
    seen_certificates: u64,
    /// What new connections are served with, and when that changes.
    serving: Served,
    switch: Option<Instant>,
    /// When the bucket of stateless resets is full again.
    resets_full: Option<Instant>,
    /// Those who have said Hello and wait for the revocation log, and when it was last looked at.
    parking: Parking,
    seen_log: u64,
    timers: Timers,
    /// Links that something happened to.
    dirty: VecDeque<LinkId>,
    /// Links that may have packets to send.
    sending: VecDeque<LinkId>,
    /// Links that have something to say with the tick's output, and nothing before.
    resting: Resting,
    /// Links whose stream is left unread until the simulation takes its inputs, and when that was last looked at.
    unread: Vec<LinkId>,
    seen_taken: u64,
    responses: VecDeque<(Transmit, Vec<u8>)>,
    outgoing: Outgoing,
    buffers: Buffers,
    closings: Vec<(Handle, SeatConnection, EndReason)>,
}

impl Core {
    pub(super) fn new(
        worker: u16,
        endpoint: EndpointConfig,
        certificates: Arc<Certificates>,
        shared: Arc<Shared>,
        exchange: Arc<WorkerExchange>,
        now: Instant,
    ) -> Self {
        let seen_certificates = certificates.version();
        let (serving, switch) = certificates.serving(now);
        let server = Arc::clone(&serving.server);
        Self {
            worker,
            endpoint: Endpoint::new(Arc::new(endpoint), Some(server), false, None),
            neighbours: Arc::new([]),
            passed: Vec::new(),
            gate: Gate::new(&shared.limits),
            budgets: Budgets::new(&shared.limits.rates),
            shared,
            seen_taken: exchange.times_taken(),
            exchange,
            links: Vec::new(),
            served: Vec::new(),
            next_serial: 0,
            handshaking: WaitingRoom::default(),
            awaiting_hello: WaitingRoom::default(),
            refused: WaitingRoom::default(),
            certificates,
            seen_certificates,
            serving,
            switch,
            resets_full: None,
            parking: Parking::default(),
            seen_log: 0,
            timers: Timers::new(now),
            dirty: VecDeque::new(),
            sending: VecDeque::new(),
            resting: Resting::default(),
            unread: Vec::new(),
            responses: VecDeque::new(),
            outgoing: Outgoing::default(),
            buffers: Buffers::default(),
            closings: Vec::new(),
        }
    }

    /// Takes a packet, or passes it on to the worker that it is for.
    pub(super) fn receive(&mut self, now: Instant, packet: Packet) {
        if let Some(packet) = self.keep_or_pass(packet) {
            self.take_packet(now, packet);
        }
    }

    fn take_packet(&mut self, now: Instant, packet: Packet) {
        let Packet {
            remote,
            local_ip,
            ecn,
            data,
        } = packet;
        let mut response = Vec::new();
        match self
            .endpoint
            .handle(now, remote, local_ip, ecn, data, &mut response)
        {
            Some(DatagramEvent::ConnectionEvent(ConnectionHandle(index), event)) => {
                let Some(Some(link)) = self.links.get_mut(index) else {
                    return;
                };
                let id = link.id;
                match link.handle_packet(&self.budgets, now, remote, event) {
                    // Whether there is something to send for it is seen when its events are.
                    Charged::Within if !link.dirty => {
                        link.dirty = true;
                        self.dirty.push_back(id);
                    }
                    Charged::Within => {}
                    over => self.overspent(now, id, over),
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.gate(now, incoming),
            Some(DatagramEvent::Response(_)) if is_reset(&response) && !self.may_reset(now) => {}
            Some(DatagramEvent::Response(transmit)) => self.respond(transmit, response),
            None => {}
        }
    }

    /// Takes a token of the bucket of stateless resets.
    fn may_reset(&mut self, now: Instant) -> bool {
        let full = Refill::new(RESETS_PER_SECOND, RESETS_PER_SECOND).take(now, self.resets_full);
        self.resets_full = full.or(self.resets_full);
        full.is_some()
    }

    fn respond(&mut self, transmit: Transmit, mut bytes: Vec<u8>) {
        if self.responses.len() < MAX_RESPONSES {
            bytes.truncate(transmit.size);
            self.responses.push_back((transmit, bytes));
        }
    }

    /// Lets the timers that are due take their effect.
    pub(super) fn handle_timeouts(&mut self, now: Instant) {
        if self.timers.len() > 4 * self.links.len() + 64 {
            let links = self.links.iter().flatten();
            self.timers
                .keep(links.filter_map(|link| Some((link.queued?, link.id))));
        }
        while let Some((at, id)) = self.timers.pop_due(now) {
            let Some(link) = self.link(id) else { continue };
            if link.queued != Some(at) {
                continue;
            }
            link.queued = None;
            if (link.quic.poll_timeout()).is_some_and(|timeout| timeout <= now) {
                link.quic.handle_timeout(now);
                self.mark(id);
            } else {
                // The timer was put off since: queue it again.
                self.schedule(id);
            }
        }
        if self.resting.is_over(now) {
            self.wake_resting();
        }
        self.expire_waiting(now);
        if self.switch.is_some_and(|at| at <= now) {
            self.serve_certificate(now);
        }
        self.turn_parked_away(now);
    }

    /// Looks up what is to be served, and announces it.
    fn serve_certificate(&mut self, now: Instant) {
        self.seen_certificates = self.certificates.version();
        (self.serving, self.switch) = self.certificates.serving(now);
        self.shared.set_certificates(self.certificates.sha256());
    }

    /// When [`handle_timeouts`](Self::handle_timeouts) is to be called at the latest.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let waiting = earlier(self.next_expiry(), self.parking.next_timeout());
        let timers = earlier(self.timers.next(), self.resting.until());
        earlier(timers, earlier(waiting, self.switch))
    }

    /// Takes what the simulation has handed over, and closes the connections of seats that others have ended.
    pub(super) fn exchange(&mut self, now: Instant) {
        self.take_passed(now);
        let taken = self.exchange.times_taken();
        if taken != self.seen_taken {
            self.seen_taken = taken;
            for id in std::mem::take(&mut self.unread) {
                if let Some(link) = self.link(id) {
                    link.unread = false;
                    link.readable = true;
                    self.mark(id);
                }
            }
        }
        if self.certificates.version() != self.seen_certificates {
            self.serve_certificate(now);
        }
        self.look_at_parked(now);
        self.send_outgoing(now);
        self.close_ended(now);
    }

    fn send_outgoing(&mut self, now: Instant) {
        let backlog = self.shared.limits.message_backlog;
        let mut outgoing = std::mem::take(&mut self.outgoing);
        self.exchange.take_outgoing(&mut outgoing);
        // The payloads are slices of one buffer, which is used again when all are gone.
        let mut bytes = self.buffers.freeze(&mut outgoing.bytes);
        let has_come = !outgoing.entries.is_empty();
        for entry in outgoing.entries.drain(..) {
            let payload = bytes.split_to(entry.len.min(bytes.len()));
            let Some(id) = self.served_by(entry.handle) else {
                continue;
            };
            let Some(link) = self.link(id) else { continue };
            match entry.channel {
                Channel::Datagram => link.send_datagram(payload),
                Channel::Message => {
                    if link.send_message(now, &payload, backlog).is_err() {
                        self.end(now, id, EndReason::TooSlow, EndReason::TooSlow.into());
                    }
                }
            }
            self.mark(id);
        }
        self.outgoing = outgoing;
        if has_come {
            self.wake_resting();
        }
    }

    /// Closes the connections whose seats were ended by the tick, a revocation, or another connection.
    fn close_ended(&mut self, now: Instant) {
        let mut closings = std::mem::take(&mut self.closings);
        self.shared.seats.take_closings(self.worker, &mut closings);
        for (_, connection, reason) in closings.drain(..) {
            let id = LinkId::from_connection(connection);
            self.close(now, id, reason.into());
        }
        self.closings = closings;
    }

    /// Lets everything that changed take its effect.
    pub(super) fn process(&mut self, now: Instant) {
        while let Some(id) = self.dirty.pop_front() {
            let Some(mut link) = self.take(id) else {
                continue;
            };
            link.dirty = false;
            let calm = self.handle_events(&mut link, now);
            if !calm || !self.rest(&mut link, now) {
                self.queue_sending(&mut link);
            }
            // Its timers and its events for the endpoint are looked at when it has sent what it has.
            if let Some(place) = self.links.get_mut(id.index) {
                *place = Some(link);
            }
        }
    }

    /// The next packet to send, appended to `buffer`, which must be empty. At most `max_segments` packets of one size in one.
    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        if let Some((transmit, bytes)) = self.responses.pop_front() {
            buffer.extend_from_slice(&bytes);
            return Some(transmit);
        }
        while let Some(&id) = self.sending.front() {
            if let Some(link) = self.link(id) {
                if let Some(transmit) = link.quic.poll_transmit(now, max_segments, buffer) {
                    return Some(transmit);
                }
                link.sending = false;
            }
            self.sending.pop_front();
            if let Some(link) = self.take(id) {
                self.put_back(link);
            }
        }
        None
    }

    /// Connections that take memory here, whatever has become of them.
    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.links.iter().flatten().count()
    }

    /// Whether all changes have taken effect.
    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Whether there may be packets to send.
    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty() || !self.responses.is_empty()
    }

    /// Closes every connection with this code, seats included.
    pub(super) fn close_all(&mut self, now: Instant, reason: EndReason) {
        let ids: Vec<LinkId> = self.links.iter().flatten().map(|link| link.id).collect();
        for id in ids {
            self.end(now, id, reason, reason.into());
        }
    }

    /// Hands the endpoint its events, keeps the timer, and puts the link where it was; a drained one is gone.
    fn put_back(&mut self, mut link: Box<Link>) {
        let id = link.id;
        let mut drained = false;
        while let Some(event) = link.quic.poll_endpoint_events() {
            drained |= event.is_drained();
            if let Some(event) = self
                .endpoint
                .handle_event(ConnectionHandle(id.index), event)
            {
                link.quic.handle_event(event);
                self.queue_dirty(&mut link);
            }
        }
        if drained {
            // Closed or lost before, so this finds nothing, unless quinn-proto gave up without a word.
            self.suspend_seat(&link);
            self.leave_rooms(&link);
            if link.is_connected {
                self.refused.leave(link.id);
            } else {
                self.handshaking.leave(link.id);
            }
            return;
        }
        if let Some(place) = self.links.get_mut(id.index) {
            *place = Some(link);
        }
        self.schedule(id);
    }

    /// Makes sure that the link's timer is looked at when it is due; one that was put off is found out when the old time comes.
    fn schedule(&mut self, id: LinkId) {
        let Some(link) = self.link(id) else { return };
        let Some(timeout) = link.quic.poll_timeout() else {
            return;
        };
        if link.queued.is_none_or(|queued| timeout < queued) {
            let queued = self.timers.push(timeout, id);
            if let Some(link) = self.link(id) {
                link.queued = Some(queued);
            }
        }
    }

    fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        match self.links.get_mut(id.index) {
            Some(Some(link)) if link.id == id => Some(link),
            _ => None,
        }
    }

    fn take(&mut self, id: LinkId) -> Option<Box<Link>> {
        self.links.get_mut(id.index)?.take_if(|link| link.id == id)
    }

    fn served_by(&self, handle: Handle) -> Option<LinkId> {
        match self.served.get(handle.slot() as usize) {
            Some(&Some((served, id))) if served == handle => Some(id),
            _ => None,
        }
    }

    /// Something happened to the link: it is to be processed and may have something to send.
    fn mark(&mut self, id: LinkId) {
        if let Some(mut link) = self.take(id) {
            self.queue_dirty(&mut link);
            if let Some(place) = self.links.get_mut(id.index) {
                *place = Some(link);
            }
        }
    }

    fn queue_dirty(&mut self, link: &mut Link) {
        if !link.dirty {
            link.dirty = true;
            self.dirty.push_back(link.id);
        }
        self.queue_sending(link);
    }

    fn queue_sending(&mut self, link: &mut Link) {
        if !link.sending {
            link.sending = true;
            self.sending.push_back(link.id);
        }
    }

    /// Closes a connection without a seat of its own, or whose seat has ended already.
    fn close(&mut self, now: Instant, id: LinkId, told: Farewell) {
        if let Some(mut link) = self.take(id) {
            self.close_link(&mut link, now, told);
            self.queue_dirty(&mut link);
            self.put_back(link);
        }
    }

    fn close_link(&mut self, link: &mut Link, now: Instant, told: Farewell) {
        self.keep_refused(link, now);
        self.leave_rooms(link);
        if let Stage::Seated(handle) = link.stage {
            self.serve_no_more(handle, link.id);
        }
        link.stage = Stage::Closed;
        // Every code fits: they are 16 bits wide.
        let number = VarInt::from_u64(told.code.number()).unwrap_or(VarInt::MAX);
        link.quic.close(now, number, told.phrase);
    }
}
