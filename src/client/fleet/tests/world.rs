//! A simulated world for the fleet's core: a server of quinn-proto's, a network that delays and loses, and time that passes at once.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event as Quic,
    HashedConnectionIdGenerator, ServerConfig, StreamEvent, StreamId, TransportConfig, VarInt,
    crypto::rustls::QuicServerConfig,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::{
    config::{Server, Transport},
    core::Core,
    event::{Event, Member, What},
};
use crate::{
    certs::quic_identity,
    clock::Clock,
    tls::{pinned_quic_client_config, quic_server_config},
    udp::Packet,
};

pub(super) const SERVER: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
    7_777,
);
/// One way.
const DELAY: Duration = Duration::from_millis(5);

/// The address of one of the fleet's sockets.
pub(super) fn address(socket: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, socket as u8 + 1], 5_000))
}

/// A packet on its way.
struct Travelling {
    arrives: Instant,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// One connection of the server's.
pub(super) struct Peer {
    pub(super) quic: Connection,
    /// What its streams have brought and does not fit back yet.
    backlog: BTreeMap<StreamId, (Vec<u8>, bool)>,
    pub(super) datagrams: usize,
    pub(super) lost: bool,
}

/// A server that echoes datagrams and streams.
pub(super) struct Host {
    endpoint: Endpoint,
    pub(super) peers: BTreeMap<usize, Peer>,
}

impl Host {
    fn new(config: ServerConfig, reset_key: u8) -> Self {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[reset_key; 32]);
        let mut endpoint = EndpointConfig::new(Arc::new(key));
        endpoint
            .min_reset_interval(Duration::ZERO)
            .cid_generator(|| Box::new(HashedConnectionIdGenerator::from_key(1)));
        Self {
            endpoint: Endpoint::new(Arc::new(endpoint), Some(Arc::new(config)), false, None),
            peers: BTreeMap::new(),
        }
    }

    fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        mut send: impl FnMut(SocketAddr, &[u8]),
    ) {
        let mut answer = Vec::new();
        let data = BytesMut::from(bytes);
        match self
            .endpoint
            .handle(now, from, None, None, data, &mut answer)
        {
            Some(DatagramEvent::ConnectionEvent(ConnectionHandle(index), event)) => {
                if let Some(peer) = self.peers.get_mut(&index) {
                    peer.quic.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut answer, None);
                let (ConnectionHandle(index), quic) = accepted.unwrap();
                let peer = Peer {
                    quic,
                    backlog: BTreeMap::new(),
                    datagrams: 0,
                    lost: false,
                };
                self.peers.insert(index, peer);
            }
            Some(DatagramEvent::Response(transmit)) => {
                send(transmit.destination, &answer[..transmit.size]);
            }
            None => {}
        }
    }

    fn drive(&mut self, now: Instant, mut send: impl FnMut(SocketAddr, &[u8])) {
        let mut gone = Vec::new();
        for (&index, peer) in &mut self.peers {
            if peer.quic.poll_timeout().is_some_and(|at| at <= now) {
                peer.quic.handle_timeout(now);
            }
            while let Some(event) = peer.quic.poll() {
                peer.take(&event);
            }
            peer.echo();
            while let Some(event) = peer.quic.poll_endpoint_events() {
                if event.is_drained() {
                    gone.push(index);
                }
                if let Some(event) = self.endpoint.handle_event(ConnectionHandle(index), event) {
                    peer.quic.handle_event(event);
                }
            }
            let mut buffer = Vec::new();
            while let Some(transmit) = peer.quic.poll_transmit(now, 1, &mut buffer) {
                send(transmit.destination, &buffer[..transmit.size]);
                buffer.clear();
            }
        }
        for index in gone {
            self.peers.remove(&index);
        }
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        let peers = self.peers.values_mut();
        peers.filter_map(|peer| peer.quic.poll_timeout()).min()
    }
}

impl Peer {
    fn take(&mut self, event: &Quic) {
        match *event {
            Quic::DatagramReceived => {
                while let Some(payload) = self.quic.datagrams().recv() {
                    self.datagrams += 1;
                    self.quic.datagrams().send(payload, true).unwrap();
                }
            }
            Quic::Stream(StreamEvent::Opened { dir }) => {
                while let Some(id) = self.quic.streams().accept(dir) {
                    self.backlog.insert(id, (Vec::new(), false));
                }
            }
            Quic::ConnectionLost { .. } => self.lost = true,
            _ => {}
        }
    }

    /// Sends back what streams have brought, and their ends.
    fn echo(&mut self) {
        for (&id, (bytes, ended)) in &mut self.backlog {
            if let Ok(mut chunks) = self.quic.recv_stream(id).read(true) {
                // No more than one stream's worth at once, so that flow control has something to do.
                while bytes.len() < 4_096 {
                    match chunks.next(1_024) {
                        Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
                        Ok(None) => {
                            *ended = true;
                            break;
                        }
                        Err(_) => break,
                    }
                }
                let _ = chunks.finalize();
            }
            if id.dir() == Dir::Uni {
                bytes.clear();
                continue;
            }
            while let Ok(written) = self.quic.send_stream(id).write(bytes)
                && written > 0
            {
                bytes.drain(..written);
            }
            if *ended && bytes.is_empty() {
                let _ = self.quic.send_stream(id).finish();
            }
        }
    }
}

/// Everything.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) core: Core,
    pub(super) host: Host,
    pub(super) server: Server,
    config: ServerConfig,
    packets: VecDeque<Travelling>,
    random: ChaCha8Rng,
    /// Of a hundred packets.
    loss: u32,
    /// Packets that each of the fleet's sockets has sent.
    pub(super) sent: Vec<usize>,
    sockets: usize,
}

impl World {
    pub(super) fn new(sockets: usize) -> Self {
        Self::with(sockets, 0, 1)
    }

    pub(super) fn with(sockets: usize, loss: u32, seed: u64) -> Self {
        let identity = quic_identity("fleet.test").unwrap();
        let crypto = QuicServerConfig::try_from(quic_server_config(&identity).unwrap()).unwrap();
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(4))
            .stream_receive_window(VarInt::from_u32(8_192));
        config.transport_config(Arc::new(transport));
        let tls = pinned_quic_client_config(vec![identity.fingerprint()]).unwrap();
        let transport = Transport {
            peer_streams: 2,
            ..Transport::default()
        };
        let start = Clock::system().now();
        Self {
            now: start,
            start,
            core: Core::new(sockets, EndpointConfig::default(), start),
            host: Host::new(config.clone(), 1),
            server: Server::new(SERVER, "fleet.test", tls, &transport).unwrap(),
            config,
            packets: VecDeque::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            loss,
            sent: vec![0; sockets],
            sockets,
        }
    }

    /// Connects `count` clients, in turn from each socket.
    pub(super) fn connect(&mut self, count: usize) -> Vec<Member> {
        (0..count)
            .map(|n| {
                let socket = n % self.sockets;
                self.core.connect(self.now, &self.server, socket).unwrap()
            })
            .collect()
    }

    /// The server's process ends, and another one takes its place that has its keys.
    pub(super) fn restart_server(&mut self) {
        self.host = Host::new(self.config.clone(), 1);
    }

    /// The one peer of the server's.
    pub(super) fn only_peer(&mut self) -> &mut Peer {
        assert_eq!(self.host.peers.len(), 1);
        self.host.peers.values_mut().next().unwrap()
    }

    fn step(&mut self) {
        let now = self.now;
        let (random, loss) = (&mut self.random, self.loss);
        let mut travelling = Vec::new();
        let mut put = |from, to, bytes: &[u8]| {
            if random.random_range(0..100) >= loss {
                travelling.push(Travelling {
                    arrives: now + DELAY,
                    from,
                    to,
                    bytes: bytes.to_vec(),
                });
            }
        };
        while self.packets.front().is_some_and(|p| p.arrives <= now) {
            let packet = self.packets.pop_front().unwrap();
            if packet.to == SERVER {
                self.host
                    .receive(now, packet.from, &packet.bytes, |to, bytes| {
                        put(SERVER, to, bytes);
                    });
            } else if (0..self.sockets).any(|socket| address(socket) == packet.to) {
                let packet = Packet {
                    remote: packet.from,
                    local_ip: Some(packet.to.ip()),
                    ecn: None,
                    data: BytesMut::from(packet.bytes.as_slice()),
                };
                self.core.receive(now, packet);
            }
        }
        self.core.handle_timeouts(now);
        self.host.drive(now, |to, bytes| put(SERVER, to, bytes));
        let mut buffer = Vec::new();
        loop {
            self.core.process();
            for socket in 0..self.sockets {
                while let Some(transmit) = self.core.poll_transmit(now, socket, 1, &mut buffer) {
                    assert_eq!(transmit.size, buffer.len());
                    self.sent[socket] += 1;
                    put(address(socket), transmit.destination, &buffer);
                    buffer.clear();
                }
            }
            if self.core.is_settled() {
                break;
            }
        }
        self.packets.extend(travelling);
    }

    /// Lets time pass until `until`, or until something is to be told.
    pub(super) fn step_until_told(&mut self, until: Instant) {
        loop {
            self.step();
            if self.core.has_events() {
                return;
            }
            let times = [
                self.packets.front().map(|packet| packet.arrives),
                self.core.next_timeout(),
                self.host.next_timeout(),
                Some(until),
            ];
            let next = times.into_iter().flatten().min().unwrap();
            if self.now >= until {
                return;
            }
            self.now = next.max(self.now);
        }
    }

    /// Lets `span` pass, and gives each event to `each`, which may act upon it.
    pub(super) fn pass(&mut self, span: Duration, mut each: impl FnMut(&mut Self, Event)) {
        let until = self.now + span;
        while self.now < until {
            self.step_until_told(until);
            while let Some(event) = self.core.poll() {
                each(self, event);
            }
        }
    }

    /// Lets a second pass, in which these connect and nothing else happens.
    pub(super) fn connected(&mut self, count: usize) -> Vec<Member> {
        let mut members = self.connect(count);
        members.sort_unstable();
        let mut connected = Vec::new();
        self.pass(Duration::from_secs(1), |_, event| {
            assert_eq!(event.what, What::Connected);
            connected.push(event.member);
        });
        connected.sort_unstable();
        assert_eq!(connected, members);
        members
    }

    /// The server closes all its connections.
    pub(super) fn close_server(&mut self, code: u32, reason: &'static [u8]) {
        for peer in self.host.peers.values_mut() {
            peer.quic
                .close(self.now, VarInt::from_u32(code), Bytes::from_static(reason));
        }
    }
}
