//! The fleet's shell: sockets, the clock, and the turns in which the core is driven.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Events, Poll, Token};
use quinn_proto::{Dir, EndpointConfig, Transmit, VarInt};
use rustls::pki_types::CertificateDer;

use super::{
    config::{FleetConfig, FleetError, Server},
    core::Core,
    event::{Event, Member, NotSent, Stream},
};
use crate::{
    clock::Clock,
    tls,
    udp::{Buffers, KernelDrops, Socket},
};

/// The system's poll counts whole milliseconds, so what is left of one is slept through in steps of this: packets that come meanwhile are
/// read that much later.
const NAP: Duration = Duration::from_micros(250);

/// How a client changes its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The client knows, as a phone does that leaves Wi-Fi for the mobile network: it takes a new connection id and says so at once (RFC 9000,
    /// section 9.5).
    Known,
    /// The client does not, as behind a router that has forgotten it: the server finds out by the next packet.
    Silent,
}

/// What has gone over a fleet's sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// UDP packets received.
    pub packets_in: u64,
    /// UDP packets sent.
    pub packets_out: u64,
    /// UDP packets that the system refused to send, and which are lost.
    pub refused: u64,
    /// Times that a socket had no room, and what was to be sent had to wait.
    pub waits: u64,
}

/// A socket, and what it has not taken yet.
struct Port {
    socket: Socket,
    drops: KernelDrops,
    /// It may have packets for us.
    readable: bool,
    unsent: Option<Transmit>,
    bytes: Vec<u8>,
}

impl Port {
    /// Binds to any port of `source`, and has `poll` watch it as number `index`.
    fn bind(source: IpAddr, buffer: usize, poll: &Poll, index: usize) -> Result<Self, FleetError> {
        let bound = Socket::bind(SocketAddr::new(source, 0), buffer);
        let mut socket = bound.map_err(|error| FleetError::Bind {
            address: source,
            source: error,
        })?;
        socket
            .register(poll.registry(), Token(index))
            .map_err(FleetError::Poll)?;
        Ok(Self {
            drops: socket.kernel_drops(),
            socket,
            readable: false,
            unsent: None,
            bytes: Vec::new(),
        })
    }
}

/// Thousands of QUIC clients on one thread. The [module](super) says how it is used.
///
/// Dropping it lets go of all clients without a word; [`close_all`](Self::close_all) takes leave.
pub struct Fleet {
    core: Core,
    ports: Vec<Port>,
    next_port: usize,
    poll: Poll,
    polled: Events,
    buffers: Buffers,
    clock: Clock,
    socket_buffer: usize,
    traffic: Traffic,
    /// Packets that the kernel dropped at sockets that have been given up since.
    dropped_before: u64,
}

impl Fleet {
    /// Binds the sockets.
    ///
    /// # Errors
    /// [`FleetError::Empty`], [`FleetError::Bind`] and [`FleetError::Poll`].
    pub fn new(config: FleetConfig) -> Result<Self, FleetError> {
        let FleetConfig {
            sources,
            sockets,
            socket_buffer,
            clock,
        } = config;
        let poll = Poll::new().map_err(FleetError::Poll)?;
        let ports = sources
            .iter()
            .cycle()
            .take(if sources.is_empty() { 0 } else { sockets })
            .enumerate()
            .map(|(index, source)| Port::bind(*source, socket_buffer, &poll, index))
            .collect::<Result<Vec<_>, _>>()?;
        // All of them were asked for the same, and got it or did not.
        ports
            .first()
            .ok_or(FleetError::Empty)?
            .socket
            .warn_of_small_buffer(socket_buffer);
        Ok(Self {
            core: Core::new(ports.len(), EndpointConfig::default(), clock.now()),
            next_port: 0,
            polled: Events::with_capacity(ports.len()),
            ports,
            poll,
            buffers: Buffers::new(),
            clock,
            socket_buffer,
            traffic: Traffic::default(),
            dropped_before: 0,
        })
    }

    /// Begins a connection from the next socket of the server's address family. Its first packet leaves in the next [`turn`](Self::turn).
    ///
    /// # Errors
    /// [`FleetError::NoSocket`] and [`FleetError::Server`].
    pub fn connect(&mut self, server: &Server) -> Result<Member, FleetError> {
        let fits = |port: &&Port| {
            let local = port.socket.address();
            local.is_ipv4() == server.address.is_ipv4()
        };
        let count = self.ports.len();
        let next = (0..count)
            .map(|step| (self.next_port + step) % count)
            .find(|index| self.ports.get(*index).as_ref().is_some_and(fits))
            .ok_or(FleetError::NoSocket)?;
        self.next_port = (next + 1) % count;
        self.connect_from(server, next)
    }

    /// The same from a socket that the caller names.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_from(&mut self, server: &Server, socket: usize) -> Result<Member, FleetError> {
        match self.ports.get(socket) {
            Some(port) if port.socket.address().is_ipv4() == server.address.is_ipv4() => {
                self.core.connect(self.clock.now(), server, socket)
            }
            _ => Err(FleetError::NoSocket),
        }
    }

    /// Sends what there is to send, and waits until `until` or until something has happened, whichever comes first. Returns at once, having
    /// sent, while events wait to be taken by [`poll`](Self::poll).
    ///
    /// It returns within a fraction of a millisecond of `until`, if the thread has a processor then. What has come to a client is answered (acknowledged, that is) in the next
    /// turn, so do not be away for long.
    ///
    /// # Errors
    /// When the system lets nobody wait for sockets any more.
    pub fn turn(&mut self, until: Instant) -> io::Result<()> {
        loop {
            let now = self.clock.now();
            self.core.handle_timeouts(now);
            self.send(now);
            if self.core.has_events() {
                return Ok(());
            }
            let more = self.ports.iter().any(|port| port.readable);
            let due = self.core.next_timeout().map_or(until, |at| at.min(until));
            self.wait(if more { now } else { due }, now)?;
            self.receive();
            self.core.process();
            if self.core.has_events() || self.clock.now() >= until {
                return Ok(());
            }
        }
    }

    /// The next event. Take all of them before the next [`turn`](Self::turn).
    pub fn poll(&mut self) -> Option<Event> {
        self.core.poll()
    }

    /// Whether there are events to be polled for.
    pub fn has_events(&self) -> bool {
        self.core.has_events()
    }

    /// Waits until `due`, or until a socket is ready.
    fn wait(&mut self, due: Instant, now: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(now);
        let whole = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        if whole.is_zero() && !left.is_zero() {
            nap(left.min(NAP));
        }
        match self.poll.poll(&mut self.polled, Some(whole)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.polled {
            if let Some(port) = self.ports.get_mut(event.token().0) {
                port.readable |= event.is_readable();
            }
        }
        Ok(())
    }

    /// Receives a batch from each socket that has one.
    fn receive(&mut self) {
        let Self {
            core,
            ports,
            buffers,
            traffic,
            clock,
            ..
        } = self;
        for port in ports.iter_mut().filter(|port| port.readable) {
            // Packets of a batch were there by now; it is the instant that their events show.
            let mut now = None;
            let received = port.socket.receive(buffers, |packet| {
                traffic.packets_in += 1;
                core.receive(*now.get_or_insert_with(|| clock.now()), packet);
            });
            match received {
                Ok(more) => port.readable = more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => port.readable = false,
                // An ICMP answer to something sent earlier, for example: the next receive goes on.
                Err(error) => tracing::debug!(%error, "receiving failed"),
            }
        }
    }

    /// Lets all changes take effect and sends until nothing is left or sockets are full.
    fn send(&mut self, now: Instant) {
        loop {
            self.core.process();
            for index in 0..self.ports.len() {
                self.send_from(now, index);
            }
            if self.core.is_settled() {
                return;
            }
        }
    }

    fn send_from(&mut self, now: Instant, index: usize) {
        let Some(port) = self.ports.get_mut(index) else {
            return;
        };
        loop {
            if port.unsent.is_none() {
                port.bytes.clear();
                let segments = port.socket.max_segments();
                port.unsent = self
                    .core
                    .poll_transmit(now, index, segments, &mut port.bytes);
            }
            let Some(transmit) = &port.unsent else { return };
            let contents = port.bytes.get(..transmit.size).unwrap_or_default();
            match port.socket.send(transmit, contents) {
                Ok(()) => self.traffic.packets_out += packets(transmit),
                // The next turn tries again; the poll wakes it when there is room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.traffic.waits += 1;
                    return;
                }
                Err(error) => {
                    self.traffic.refused += packets(transmit);
                    tracing::debug!(%error, "sending failed");
                }
            }
            port.unsent = None;
        }
    }

    /// Queues a datagram of `member`'s, which leaves in the next [`turn`](Self::turn). When more waits than
    /// [`Transport::datagrams_out`](super::Transport::datagrams_out), the oldest is dropped.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn send_datagram(&mut self, member: Member, payload: &[u8]) -> Result<(), NotSent> {
        self.core.send_datagram(member, payload)
    }

    /// Opens a stream for both directions; none while the server allows no more of them.
    ///
    /// # Errors
    /// [`NotSent::Gone`].
    pub fn open_bidirectional(&mut self, member: Member) -> Result<Option<Stream>, NotSent> {
        self.core.open_stream(member, Dir::Bi)
    }

    /// Opens a stream to the server; none while the server allows no more of them.
    ///
    /// # Errors
    /// [`NotSent::Gone`].
    pub fn open_unidirectional(&mut self, member: Member) -> Result<Option<Stream>, NotSent> {
        self.core.open_stream(member, Dir::Uni)
    }

    /// Writes to a stream, and says how many bytes it took. If those were not all, [`What::Writable`](super::What::Writable) tells when to go
    /// on.
    ///
    /// # Errors
    /// [`NotSent::Gone`] and [`NotSent::StreamClosed`].
    pub fn write(
        &mut self,
        member: Member,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<usize, NotSent> {
        self.core.write(member, stream, bytes)
    }

    /// Ends our direction of a stream.
    ///
    /// # Errors
    /// [`NotSent::Gone`] and [`NotSent::StreamClosed`].
    pub fn finish(&mut self, member: Member, stream: Stream) -> Result<(), NotSent> {
        self.core.finish(member, stream)
    }

    /// Gives up both directions of a stream, with the application's `code` (62 bits).
    ///
    /// # Errors
    /// [`NotSent::Gone`].
    pub fn reset(&mut self, member: Member, stream: Stream, code: u64) -> Result<(), NotSent> {
        self.core.reset(member, stream, number(code))
    }

    /// Has the client say something that the server must acknowledge (a PING frame).
    pub fn ping(&mut self, member: Member) {
        self.core.ping(member);
    }

    /// Closes the connection with the application's `code` (62 bits) and reason phrase.
    pub fn close(&mut self, member: Member, code: u64, reason: &[u8]) {
        let reason = Bytes::copy_from_slice(reason);
        self.core
            .close(self.clock.now(), member, number(code), reason);
    }

    /// Closes all connections. They are told in the next turns.
    pub fn close_all(&mut self, code: u64) {
        let members: Vec<Member> = self.members().collect();
        for member in members {
            self.close(member, code, &[]);
        }
    }

    /// Lets go of a client without a word, as if its machine had lost its power: the server finds out by its own idle timeout.
    pub fn vanish(&mut self, member: Member) {
        self.core.vanish(self.clock.now(), member);
    }

    /// Has one client send from another socket of the fleet: another port, and another address if the sockets have several.
    ///
    /// # Errors
    /// [`FleetError::NoSocket`].
    pub fn move_to(
        &mut self,
        member: Member,
        socket: usize,
        change: Change,
    ) -> Result<(), FleetError> {
        let family = self
            .ports
            .get(socket)
            .map(|port| port.socket.address().is_ipv4());
        let server = self
            .core
            .remote_address(member)
            .map(|server| server.is_ipv4());
        if family.is_none() || server.is_some_and(|server| family != Some(server)) {
            return Err(FleetError::NoSocket);
        }
        self.core.move_to(member, socket, change == Change::Known);
        Ok(())
    }

    /// Has one client send from the next socket of the fleet that fits: see [`move_to`](Self::move_to).
    ///
    /// # Errors
    /// [`FleetError::NoSocket`] if the fleet has no other socket.
    pub fn rebind(&mut self, member: Member, change: Change) -> Result<(), FleetError> {
        let Some(socket) = self.core.link(member).map(|link| link.socket) else {
            return Ok(());
        };
        let count = self.ports.len();
        let others = (1..count).map(|step| (socket + step) % count);
        for other in others {
            if self.move_to(member, other, change).is_ok() {
                return Ok(());
            }
        }
        Err(FleetError::NoSocket)
    }

    /// Gives a socket a new port at the same address, so that all its clients change theirs at once, as when their router restarts. What it had
    /// received and not read is lost.
    ///
    /// # Errors
    /// [`FleetError::NoSocket`], [`FleetError::Bind`] and [`FleetError::Poll`]; the socket stays as it is then.
    pub fn renew(&mut self, socket: usize) -> Result<(), FleetError> {
        let Some(port) = self.ports.get_mut(socket) else {
            return Err(FleetError::NoSocket);
        };
        let source = port.socket.address().ip();
        let new = Port::bind(source, self.socket_buffer, &self.poll, socket)?;
        self.dropped_before += port.drops.read().unwrap_or(0);
        *port = new;
        Ok(())
    }

    /// How many sockets there are.
    pub fn sockets(&self) -> usize {
        self.ports.len()
    }

    /// The address that a socket is bound to.
    pub fn local_address(&self, socket: usize) -> Option<SocketAddr> {
        Some(self.ports.get(socket)?.socket.address())
    }

    /// The socket that a client sends from.
    pub fn socket_of(&self, member: Member) -> Option<usize> {
        Some(self.core.link(member)?.socket)
    }

    /// The address of a client's server.
    pub fn remote_address(&self, member: Member) -> Option<SocketAddr> {
        self.core.remote_address(member)
    }

    /// QUIC's estimate of a client's round-trip time.
    pub fn round_trip_time(&self, member: Member) -> Option<Duration> {
        Some(self.core.link(member)?.round_trip_time())
    }

    /// The SHA-256 of the leaf certificate that the server showed, and has proven to hold; none before [`What::Connected`](super::What::Connected).
    pub fn leaf_sha256(&self, member: Member) -> Option<[u8; 32]> {
        let chain = self
            .core
            .link(member)?
            .quic
            .crypto_session()
            .peer_identity()?;
        let chain = chain.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        Some(tls::fingerprint(chain.first()?))
    }

    /// The clients whose connections have not ended, or have not been made yet.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.core.members()
    }

    /// Clients whose end has not been told.
    pub fn open(&self) -> usize {
        self.core.open()
    }

    /// Clients that take memory: those included whose end has been told and whose servers may not have heard of it.
    pub fn held(&self) -> usize {
        self.core.held()
    }

    /// What has gone over the sockets.
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Packets that the kernel dropped because a socket's buffer was full, where the system tells (Linux). More than none says that the fleet
    /// did not keep up, and nothing of what the server did. Reads a file for each socket.
    pub fn kernel_drops(&self) -> Option<u64> {
        let drops = self.ports.iter().map(|port| port.drops.read());
        Some(self.dropped_before + drops.sum::<Option<u64>>()?)
    }

    /// The clock that the fleet goes by.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("sockets", &self.ports.len())
            .field("open", &self.open())
            .field("traffic", &self.traffic)
            .finish_non_exhaustive()
    }
}

/// The packets in a transmission.
fn packets(transmit: &Transmit) -> u64 {
    let segments = transmit
        .segment_size
        .map_or(1, |size| transmit.size.div_ceil(size.max(1)));
    segments as u64
}

/// QUIC's numbers have 62 bits.
fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the deadline itself is what is waited for, in a finer grain than the poll's"
)]
fn nap(duration: Duration) {
    std::thread::sleep(duration);
}
