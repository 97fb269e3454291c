//! The fleet without sockets and without a clock: packets, timeouts and `now` go in; packets, the next timeout and events come out.
//!
//! All clients share one quinn-proto endpoint, which routes packets by connection id alone. So a client may send from whichever socket its
//! driver likes, and change it at any time, as a player's router or phone does.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use quinn_proto::{
    ConnectError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, EndpointEvent,
    Transmit, VarInt,
};

use super::{
    config::{FleetError, Server},
    event::{End, Event, Member, NotSent, Stream, What},
    link::{Link, Payloads},
    wheel::Wheel,
};
use crate::udp::Packet;

/// Nobody.
const NOBODY: u32 = u32::MAX;

/// The clients and their endpoint.
pub(super) struct Core {
    endpoint: Endpoint,
    /// By place.
    links: Vec<Option<Box<Link>>>,
    free: Vec<u32>,
    /// The place of each of quinn-proto's connection handles, which it uses again before we have told how a connection ended.
    by_handle: Vec<u32>,
    next_serial: u32,
    wheel: Wheel,
    /// Those that something happened to.
    dirty: Vec<u32>,
    /// Those that may have packets to send, by socket.
    sending: Vec<VecDeque<u32>>,
    /// Those with something to tell.
    ready: VecDeque<u32>,
    payloads: Payloads,
    /// What the endpoint would answer to strangers.
    answer: Vec<u8>,
    open: usize,
}

impl Core {
    pub(super) fn new(sockets: usize, config: EndpointConfig, now: Instant) -> Self {
        Self {
            endpoint: Endpoint::new(Arc::new(config), None, false, None),
            links: Vec::new(),
            free: Vec::new(),
            by_handle: Vec::new(),
            next_serial: 0,
            wheel: Wheel::new(now),
            dirty: Vec::new(),
            sending: vec![VecDeque::new(); sockets],
            ready: VecDeque::new(),
            payloads: Payloads::default(),
            answer: Vec::new(),
            open: 0,
        }
    }

    /// Begins a connection from `socket`.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        server: &Server,
        socket: usize,
    ) -> Result<Member, FleetError> {
        let (handle, quic) = self
            .endpoint
            .connect(now, server.config.clone(), server.address, &server.name)
            .map_err(|error| match error {
                ConnectError::InvalidServerName(_) => FleetError::Server("unusable name"),
                ConnectError::InvalidRemoteAddress(_) => FleetError::Server("unusable address"),
                _ => FleetError::Server("connection ids are used up"),
            })?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.links.push(None);
            u32::try_from(self.links.len() - 1).unwrap_or(NOBODY)
        });
        self.next_serial = self.next_serial.wrapping_add(1);
        let member = Member {
            index,
            serial: self.next_serial,
        };
        if self.by_handle.len() <= handle.0 {
            self.by_handle.resize(handle.0 + 1, NOBODY);
        }
        if let Some(place) = self.by_handle.get_mut(handle.0) {
            *place = index;
        }
        let link = Link::new(member, handle, quic, socket, server.datagrams_out, now);
        if let Some(place) = self.links.get_mut(index as usize) {
            *place = Some(Box::new(link));
        }
        self.open += 1;
        self.mark(index);
        Ok(member)
    }

    /// Takes a packet.
    pub(super) fn receive(&mut self, now: Instant, packet: Packet) {
        let Packet {
            remote,
            local_ip,
            ecn,
            data,
        } = packet;
        let event = self
            .endpoint
            .handle(now, remote, local_ip, ecn, data, &mut self.answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(ConnectionHandle(handle), event)) => {
                let Some(&index) = self.by_handle.get(handle) else {
                    return;
                };
                if let Some(link) = at(&mut self.links, index)
                    && !link.vanished
                {
                    link.touched_at = now;
                    link.quic.handle_event(event);
                    self.mark(index);
                }
            }
            // Nobody connects to a client.
            Some(DatagramEvent::NewConnection(incoming)) => self.endpoint.ignore(incoming),
            // A stateless reset for a client that is no more: who has vanished answers nothing.
            Some(DatagramEvent::Response(_)) => self.answer.clear(),
            None => {}
        }
    }

    /// Lets the timers that are due take their effect.
    pub(super) fn handle_timeouts(&mut self, now: Instant) {
        while let Some(index) = self.wheel.pop_due(now) {
            let Some(link) = at(&mut self.links, index) else {
                continue;
            };
            match link.quic.poll_timeout() {
                Some(due) if due <= now => {
                    link.touched_at = now;
                    link.quic.handle_timeout(now);
                    self.mark(index);
                }
                Some(later) => self.wheel.schedule(index, later),
                None => {}
            }
        }
    }

    /// When [`handle_timeouts`](Self::handle_timeouts) is to be called at the latest.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// Lets everything that changed take its effect.
    pub(super) fn process(&mut self) {
        while let Some(index) = self.dirty.pop() {
            if let Some(link) = at(&mut self.links, index) {
                link.dirty = false;
                self.settle(index);
            }
        }
    }

    /// The next packet to send from `socket`, appended to `buffer`, which must be empty. At most `max_segments` packets of one client and one
    /// size in one. Call [`process`](Self::process) before.
    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        socket: usize,
        max_segments: usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        loop {
            let index = *self.sending.get(socket)?.front()?;
            let link = at(&mut self.links, index);
            let elsewhere = match link {
                Some(link) if link.socket != socket => Some(link.socket),
                Some(link) => {
                    if !link.vanished
                        && let Some(transmit) = link.quic.poll_transmit(now, max_segments, buffer)
                    {
                        return Some(transmit);
                    }
                    link.sending = false;
                    None
                }
                None => None,
            };
            self.sending.get_mut(socket)?.pop_front();
            match elsewhere.and_then(|socket| self.sending.get_mut(socket)) {
                Some(queue) => queue.push_back(index),
                None => self.settle(index),
            }
        }
    }

    /// The next event.
    pub(super) fn poll(&mut self) -> Option<Event> {
        while let Some(&index) = self.ready.front() {
            if let Some(link) = at(&mut self.links, index) {
                let (told, room) = link.tell();
                let (member, at) = (link.member, link.touched_at);
                if room {
                    self.mark(index);
                }
                if let Some(what) = told {
                    self.open -= usize::from(matches!(what, What::Closed(_)));
                    return Some(Event { member, at, what });
                }
            }
            self.ready.pop_front();
            if let Some(link) = at(&mut self.links, index) {
                link.ready = false;
                self.release(index);
            }
        }
        None
    }

    /// Whether all changes have taken effect.
    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Whether there are events.
    pub(super) fn has_events(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Clients whose end has not been told.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Clients that take memory, those included that drain after their end.
    pub(super) fn held(&self) -> usize {
        self.links.len() - self.free.len()
    }

    /// All clients whose connections have not ended.
    pub(super) fn members(&self) -> impl Iterator<Item = Member> + '_ {
        let links = self.links.iter().flatten();
        links
            .filter(|link| !link.has_ended())
            .map(|link| link.member)
    }

    /// The client, if its connection has not ended.
    pub(super) fn link(&self, member: Member) -> Option<&Link> {
        self.links
            .get(member.index as usize)?
            .as_deref()
            .filter(|link| link.member == member && !link.has_ended())
    }

    /// Does something to a client whose connection has not ended, and lets it send.
    fn with<T>(
        &mut self,
        member: Member,
        act: impl FnOnce(&mut Link, &mut Payloads) -> T,
    ) -> Option<T> {
        let link = at(&mut self.links, member.index)
            .filter(|link| link.member == member && !link.has_ended())?;
        let done = act(link, &mut self.payloads);
        if !link.sending {
            link.sending = true;
            if let Some(queue) = self.sending.get_mut(link.socket) {
                queue.push_back(member.index);
            }
        }
        Some(done)
    }

    pub(super) fn send_datagram(&mut self, member: Member, payload: &[u8]) -> Result<(), NotSent> {
        self.with(member, |link, payloads| {
            link.send_datagram(payload, payloads)
        })
        .unwrap_or(Err(NotSent::Gone))
    }

    /// Opens a stream; none if the server allows no more.
    pub(super) fn open_stream(
        &mut self,
        member: Member,
        dir: Dir,
    ) -> Result<Option<Stream>, NotSent> {
        self.with(member, |link, _| link.quic.streams().open(dir).map(Stream))
            .ok_or(NotSent::Gone)
    }

    pub(super) fn write(
        &mut self,
        member: Member,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<usize, NotSent> {
        self.with(member, |link, _| link.write(stream, bytes))
            .unwrap_or(Err(NotSent::Gone))
    }

    pub(super) fn finish(&mut self, member: Member, stream: Stream) -> Result<(), NotSent> {
        self.with(member, |link, _| {
            if !stream.is_writable() {
                return Err(NotSent::StreamClosed);
            }
            let finished = link.quic.send_stream(stream.0).finish();
            finished.map_err(|_| NotSent::StreamClosed)
        })
        .unwrap_or(Err(NotSent::Gone))
    }

    /// Gives up a stream both ways.
    pub(super) fn reset(
        &mut self,
        member: Member,
        stream: Stream,
        code: VarInt,
    ) -> Result<(), NotSent> {
        self.with(member, |link, _| {
            // Each fails only if that direction has ended.
            if stream.is_writable() {
                let _ = link.quic.send_stream(stream.0).reset(code);
            }
            if stream.is_readable() {
                let _ = link.quic.recv_stream(stream.0).stop(code);
            }
        })
        .ok_or(NotSent::Gone)
    }

    pub(super) fn ping(&mut self, member: Member) {
        self.with(member, |link, _| link.quic.ping());
    }

    /// Closes the connection with the application's `code`.
    pub(super) fn close(&mut self, now: Instant, member: Member, code: VarInt, reason: Bytes) {
        let closed = self.with(member, |link, _| {
            link.touched_at = now;
            link.quic.close(now, code, reason);
            link.end(End::Local);
        });
        if closed.is_some() {
            self.mark(member.index);
        }
    }

    /// Lets go of the client without a word: its packets are neither sent nor taken any more.
    pub(super) fn vanish(&mut self, now: Instant, member: Member) {
        let Some(link) = at(&mut self.links, member.index)
            .filter(|link| link.member == member && !link.has_ended())
        else {
            return;
        };
        link.touched_at = now;
        link.vanished = true;
        link.end(End::Local);
        self.mark(member.index);
    }

    /// Has the client send from another socket. If it `knows`, it takes a new connection id and says so at once, as a phone does that changes
    /// networks; if not, the server finds out by what it sends next, as behind a router that has forgotten it.
    pub(super) fn move_to(&mut self, member: Member, socket: usize, knows: bool) {
        let link = at(&mut self.links, member.index)
            .filter(|link| link.member == member && !link.has_ended());
        if let Some(link) = link {
            link.socket = socket;
            if knows {
                link.quic.local_address_changed();
                self.mark(member.index);
            }
        }
    }

    /// The server's address.
    pub(super) fn remote_address(&self, member: Member) -> Option<SocketAddr> {
        Some(self.link(member)?.quic.remote_address())
    }

    /// Something happened to the client: it is to be processed and may have something to send.
    fn mark(&mut self, index: u32) {
        let Some(link) = at(&mut self.links, index) else {
            return;
        };
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(index);
        }
        if !link.sending {
            link.sending = true;
            if let Some(queue) = self.sending.get_mut(link.socket) {
                queue.push_back(index);
            }
        }
    }

    /// Notes what has happened to the client, hands the endpoint its events, and keeps the timer.
    fn settle(&mut self, index: u32) {
        let Some(link) = at(&mut self.links, index) else {
            return;
        };
        link.collect();
        if link.vanished && !link.drained {
            link.drained = true;
            self.endpoint
                .handle_event(link.handle, EndpointEvent::drained());
            self.forget(index);
        }
        let Some(link) = at(&mut self.links, index) else {
            return;
        };
        let mut answered = false;
        while !link.drained
            && let Some(event) = link.quic.poll_endpoint_events()
        {
            link.drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(link.handle, event) {
                link.quic.handle_event(event);
                answered = true;
            }
        }
        if link.drained {
            // It has ended before, unless quinn-proto gave up without a word.
            link.end(End::Local);
            self.forget(index);
        } else if let Some(due) = link.quic.poll_timeout() {
            self.wheel.schedule(index, due);
        }
        if answered {
            // New connection ids, of which the server is to be told.
            self.mark(index);
        }
        if let Some(link) = at(&mut self.links, index)
            && !link.ready
            && link.has_news()
        {
            link.ready = true;
            self.ready.push_back(index);
        }
        self.release(index);
    }

    /// The endpoint may use the handle for another connection now.
    fn forget(&mut self, index: u32) {
        self.wheel.remove(index);
        if let Some(link) = at(&mut self.links, index)
            && let Some(place) = self.by_handle.get_mut(link.handle.0)
            && *place == index
        {
            *place = NOBODY;
        }
    }

    /// Frees the place of a client that QUIC is done with and whose end has been told.
    fn release(&mut self, index: u32) {
        let Some(place) = self.links.get_mut(index as usize) else {
            return;
        };
        let done = place.take_if(|link| {
            link.drained && link.end_is_told && !link.dirty && !link.sending && !link.ready
        });
        if done.is_some() {
            self.free.push(index);
        }
    }
}

fn at(links: &mut [Option<Box<Link>>], index: u32) -> Option<&mut Link> {
    links.get_mut(index as usize)?.as_deref_mut()
}
