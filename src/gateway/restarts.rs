//! What a restarted gateway does for the clients of the process before it, and what it keeps of those it refused, at the level of the
//! core: real QUIC, no sockets.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Endpoint,
    EndpointConfig, Event, TransportConfig, crypto::rustls::QuicClientConfig,
};

use super::{
    Limits,
    certificates::{Certificates, Served},
    core::Core,
    exchange::WorkerExchange,
    shared::Shared,
    system_entropy,
    transport::{TransportKeys, endpoint_config, server_config},
};
use crate::{
    certs::quic_identity,
    clock::Clock,
    seat::{SeatConfig, SeatTable},
    tls::{self, Identity, pinned_quic_client_config},
    udp::Packet,
};

const GATEWAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7_777);
const CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5_000);

/// A gateway process: its keys for resets and connection ids come from `state`.
fn gateway(identity: &Identity, state: u8, now: Instant) -> Core {
    worker(0, identity, state, now)
}

/// One worker of a gateway process.
fn worker(index: u8, identity: &Identity, state: u8, now: Instant) -> Core {
    let keys = TransportKeys {
        reset: [state; 32],
        connection_id: [state; 32],
        retry: [0; 32],
    };
    let clock = Clock::system();
    // So large that nobody is displaced or asked to prove anything: all come from one address here.
    let limits = Limits {
        handshakes: 100_000,
        retry_above: 100_000,
        awaiting_hello: 100_000,
        ..Limits::default()
    };
    let tls = tls::quic_server_config(identity).unwrap();
    let server = server_config(tls, &keys, &limits, clock.clone()).unwrap();
    let seats = SeatTable::new(SeatConfig::default());
    let shared = Shared::new("one".parse().unwrap(), limits, clock, seats, None);
    let budget = shared.limits.seat;
    Core::new(
        index.into(),
        endpoint_config(index, &keys, system_entropy(), None),
        Arc::new(Certificates::new(Served {
            server: Arc::new(server),
            leaf_sha256: identity.fingerprint(),
        })),
        Arc::new(shared),
        Arc::new(WorkerExchange::new(budget, Box::new(|| {}))),
        now,
    )
}

/// Hands a packet to the gateway; what it answers.
fn exchange(gateway: &mut Core, now: Instant, packet: &[u8]) -> Vec<Vec<u8>> {
    gateway.receive(
        now,
        Packet {
            remote: CLIENT,
            local_ip: None,
            ecn: None,
            data: BytesMut::from(packet),
        },
    );
    gateway.process(now);
    let mut answers = Vec::new();
    let mut buffer = Vec::new();
    while let Some(transmit) = gateway.poll_transmit(now, 1, &mut buffer) {
        answers.push(buffer[..transmit.size].to_vec());
        buffer.clear();
    }
    answers
}

/// All clients, over one socket.
struct Clients {
    endpoint: Endpoint,
    config: ClientConfig,
    connections: Vec<(ConnectionHandle, Connection)>,
}

impl Clients {
    fn new(identity: &Identity) -> Self {
        Self::with(identity, TransportConfig::default())
    }

    fn with(identity: &Identity, mut transport: TransportConfig) -> Self {
        let tls = pinned_quic_client_config(vec![identity.fingerprint()]).unwrap();
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        let mut config = ClientConfig::new(Arc::new(crypto));
        transport.mtu_discovery_config(None);
        config.transport_config(Arc::new(transport));
        Self {
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None),
            config,
            connections: Vec::new(),
        }
    }

    /// One more, its handshake done.
    fn connect(&mut self, gateway: &mut Core, now: Instant) {
        let connected = self
            .endpoint
            .connect(now, self.config.clone(), GATEWAY, "localhost");
        self.connections.push(connected.unwrap());
        let last = self.connections.len() - 1;
        let mut is_connected = false;
        loop {
            let packets = self.packets(last, now);
            for answer in packets
                .iter()
                .flat_map(|packet| exchange(gateway, now, packet))
            {
                self.receive(now, &answer);
            }
            let connection = &mut self.connections[last].1;
            while let Some(event) = connection.poll() {
                is_connected |= matches!(event, Event::Connected);
            }
            if packets.is_empty() {
                assert!(is_connected);
                return;
            }
        }
    }

    fn packets(&mut self, client: usize, now: Instant) -> Vec<Vec<u8>> {
        let (handle, connection) = &mut self.connections[client];
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        let mut packets = Vec::new();
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
            packets.push(buffer[..transmit.size].to_vec());
            buffer.clear();
        }
        packets
    }

    fn receive(&mut self, now: Instant, packet: &[u8]) {
        let data = BytesMut::from(packet);
        let event = self
            .endpoint
            .handle(now, GATEWAY, None, None, data, &mut Vec::new());
        if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event {
            let found = self.connections.iter_mut().find(|(h, _)| *h == handle);
            found.unwrap().1.handle_event(event);
        }
    }

    fn is_reset(&mut self, client: usize) -> bool {
        let connection = &mut self.connections[client].1;
        let mut is_reset = false;
        while let Some(event) = connection.poll() {
            is_reset |= matches!(
                event,
                Event::ConnectionLost {
                    reason: ConnectionError::Reset
                }
            );
        }
        is_reset
    }
}

#[test]
fn two_thousand_old_connections_are_reset_within_a_second() {
    const CLIENTS: usize = 2_000;
    let identity = quic_identity("localhost").unwrap();
    let now = Clock::system().now();
    let mut clients = Clients::new(&identity);
    let mut before = gateway(&identity, 1, now);
    for _ in 0..CLIENTS {
        clients.connect(&mut before, now);
    }
    drop(before);

    // They come back at the same instant, which is harder than within a second.
    let mut after = gateway(&identity, 1, now);
    let mut stranger = gateway(&identity, 2, now);
    let now = now + Duration::from_millis(500);
    for client in 0..CLIENTS {
        clients.connections[client].1.ping();
        let packets = clients.packets(client, now);
        let [packet] = &packets[..] else {
            panic!("one ping, one packet");
        };
        assert!(exchange(&mut stranger, now, packet).is_empty());
        let answers = exchange(&mut after, now, packet);
        let [reset] = &answers[..] else {
            panic!("one reset: {}", answers.len());
        };
        // Each answer is shorter than the question, so no two gateways can keep each other busy (RFC 9000, section 10.3.3), and
        // none answers a reset at all: the id in it is nobody's.
        assert!(reset.len() < packet.len());
        assert!(exchange(&mut after, now, reset).is_empty());
        clients.receive(now, reset);
        assert!(clients.is_reset(client), "client {client}");
    }
}

/// The kernel gives what names a worker that is gone to any of those that are there.
#[test]
fn a_gateway_that_has_fewer_workers_than_before_resets_the_connections_of_those_that_are_gone() {
    let identity = quic_identity("localhost").unwrap();
    let now = Clock::system().now();
    let mut clients = Clients::new(&identity);
    clients.connect(&mut worker(7, &identity, 1, now), now);
    clients.connections[0].1.ping();
    let packet = clients.packets(0, now).remove(0);
    for answer in exchange(&mut worker(0, &identity, 1, now), now, &packet) {
        clients.receive(now, &answer);
    }
    assert!(clients.is_reset(0));
}

#[test]
fn resets_have_a_budget_and_junk_gets_none() {
    let identity = quic_identity("localhost").unwrap();
    let now = Clock::system().now();
    let mut clients = Clients::new(&identity);
    clients.connect(&mut gateway(&identity, 1, now), now);
    clients.connections[0].1.ping();
    let packet = clients.packets(0, now).remove(0);

    let mut after = gateway(&identity, 1, now);
    let mut resets = |now: Instant, tries: usize| -> usize {
        (0..tries)
            .map(|_| exchange(&mut after, now, &packet).len())
            .sum()
    };
    assert_eq!(resets(now, 10_000), 8_192);
    assert_eq!(resets(now + Duration::from_secs(1), 10_000), 8_192);

    let mut fresh = gateway(&identity, 1, now);
    let answered = (0_u32..10_000).filter(|n| {
        let mut junk = packet.clone();
        junk[5..9].copy_from_slice(&n.to_be_bytes());
        !exchange(&mut fresh, now, &junk).is_empty()
    });
    // An id is ours by chance once in 16.8 million times: two of these are once in millions of runs.
    assert!(answered.count() <= 1);
    // Nor does one that is too short to be told from a reset.
    assert!(exchange(&mut fresh, now, &packet[..21]).is_empty());
    assert_eq!(exchange(&mut fresh, now, &packet).len(), 1);
}

/// How long a refused connection drains is partly the peer's word: so many are kept, and no more.
#[test]
fn of_those_refused_only_so_many_are_kept() {
    let identity = quic_identity("localhost").unwrap();
    let now = Clock::system().now();
    let mut core = gateway(&identity, 1, now);
    let mut transport = TransportConfig::default();
    // Who takes no datagrams cannot play, and is told so as soon as its handshake is done.
    transport.datagram_receive_buffer_size(None);
    let mut clients = Clients::with(&identity, transport);
    for n in 1..=1_200 {
        clients.connect(&mut core, now);
        assert_eq!(core.connections(), n.min(1_024));
    }
}
