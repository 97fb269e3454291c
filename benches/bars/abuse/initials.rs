//! First packets of handshakes that nobody means, from many addresses.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    ClientConfig, Endpoint, EndpointConfig, EndpointEvent, crypto::rustls::QuicClientConfig,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tickgate::{client::Ticket, tls::pinned_quic_client_config};

/// Different first packets. Each is a real one, under its own Initial keys, with a TLS ClientHello of its own; to the gateway it is as good as
/// new whenever it comes again, unless it holds one of the few handshakes that are in flight.
const PACKETS: usize = 8_192;
/// Addresses that they come from. They are bound here, so that answers can be counted; the gateway cannot know.
const ADDRESSES: usize = 128;
/// Packets that are sent before answers are looked for.
const BURST: usize = 16;

/// What went each way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// Answers that ask to prove the address.
    pub(super) retries: u64,
    pub(super) others: u64,
    pub(super) took: Duration,
}

impl Traffic {
    pub(super) fn sent_per_second(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }

    pub(super) fn retries_per_second(&self) -> f64 {
        self.retries as f64 / self.took.as_secs_f64()
    }
}

pub(super) struct Flood {
    sockets: Vec<UdpSocket>,
    packets: Vec<Vec<u8>>,
    gateway: SocketAddr,
    rng: ChaCha8Rng,
    next: usize,
}

impl Flood {
    /// Makes the packets: some tenths of a millisecond each.
    pub(super) fn at(ticket: &Ticket) -> Self {
        let tls = pinned_quic_client_config(ticket.certificate_sha256.clone()).unwrap();
        let crypto: Arc<dyn quinn_proto::crypto::ClientConfig> =
            Arc::new(QuicClientConfig::try_from(tls).unwrap());
        let gateway = ticket.addresses[0];
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let now = Instant::now();
        let packets = (0..PACKETS)
            .map(|_| {
                let config = ClientConfig::new(Arc::clone(&crypto));
                let (handle, mut connection) = endpoint
                    .connect(now, config, gateway, &ticket.server_name)
                    .unwrap();
                let mut packet = Vec::new();
                let first = connection.poll_transmit(now, 1, &mut packet).unwrap();
                packet.truncate(first.size);
                endpoint.handle_event(handle, EndpointEvent::drained());
                packet
            })
            .collect();
        let sockets = (0..ADDRESSES)
            .map(|n| {
                let local = Ipv4Addr::new(127, 100 + (n / 64) as u8, (n % 64) as u8, 7);
                let socket = UdpSocket::bind((local, 0)).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            })
            .collect();
        Self {
            sockets,
            packets,
            gateway,
            rng: ChaCha8Rng::seed_from_u64(1),
            next: 0,
        }
    }

    /// Sends so many a second, or as many as it can, for so long.
    pub(super) fn run(&mut self, per_second: Option<f64>, time: Duration) -> Traffic {
        let mut traffic = Traffic::default();
        let start = Instant::now();
        let mut buffer = [0; 2_048];
        loop {
            let passed = start.elapsed();
            if passed >= time {
                break;
            }
            let due = per_second.map_or(u64::MAX, |rate| (passed.as_secs_f64() * rate) as u64);
            if traffic.sent >= due {
                self.receive(&mut traffic, &mut buffer);
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            for _ in 0..BURST.min((due - traffic.sent) as usize) {
                let packet = &self.packets[self.next];
                self.next = (self.next + 1) % self.packets.len();
                let socket = &self.sockets[self.rng.random_range(0..ADDRESSES)];
                if socket.send_to(packet, self.gateway).is_ok() {
                    traffic.sent += 1;
                    traffic.sent_bytes += packet.len() as u64;
                }
            }
            if traffic.sent % 64 < BURST as u64 {
                self.receive(&mut traffic, &mut buffer);
            }
        }
        traffic.took = start.elapsed();
        // What is still on its way.
        std::thread::sleep(Duration::from_millis(100));
        self.receive(&mut traffic, &mut buffer);
        traffic
    }

    fn receive(&self, traffic: &mut Traffic, buffer: &mut [u8]) {
        for socket in &self.sockets {
            while let Ok(length) = socket.recv(buffer) {
                traffic.received_bytes += length as u64;
                // A Retry is the long header of type 3 (RFC 9000, section 17.2.5).
                if buffer[0] & 0xf0 == 0xf0 {
                    traffic.retries += 1;
                } else {
                    traffic.others += 1;
                }
            }
        }
    }
}
