//! Attackers who hold what they can hold: connections that say nothing, and handshakes that are never finished. Whatever the gateway
//! drops they open again.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint as Core, EndpointConfig,
    crypto::rustls::QuicClientConfig,
};
use tickgate::{
    client::{Endpoint, Ticket},
    tls::pinned_quic_client_config,
};
use tokio::task::JoinSet;

/// Connections with their handshake done, on which nothing is ever said.
pub struct Silent {
    held: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Silent {
    /// Opens `count` connections over these endpoints, and opens each anew as soon as it is closed.
    pub fn hold(ticket: &Ticket, count: usize, endpoints: &[Endpoint]) -> Self {
        let (held, opened) = (Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for n in 0..count {
            let endpoint = endpoints[n % endpoints.len()].clone();
            let (held, opened) = (Arc::clone(&held), Arc::clone(&opened));
            let ticket = ticket.clone();
            tasks.spawn(be_silent(endpoint, ticket, held, opened));
        }
        Self {
            held,
            opened,
            tasks,
        }
    }

    /// How many are open now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many have been opened.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn be_silent(
    endpoint: Endpoint,
    ticket: Ticket,
    held: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
) {
    loop {
        let Ok(connection) = endpoint.handshake(&ticket).await else {
            continue;
        };
        opened.fetch_add(1, Ordering::Relaxed);
        held.fetch_add(1, Ordering::Relaxed);
        connection.closed().await;
        held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// After this long an attacker takes its handshake for forgotten and begins another: shorter than the gateway's own deadline, so that
/// the handshakes in flight are never fewer.
const STALL: Duration = Duration::from_secs(4);

/// Handshakes of which the client's second flight never comes. A Retry is answered: that is the strongest such attacker, whose
/// addresses are all proven.
pub struct Stalled {
    counts: Arc<StalledCounts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct StalledCounts {
    stop: AtomicBool,
    held: AtomicUsize,
    opened: AtomicUsize,
}

impl Stalled {
    /// Begins `count` handshakes from these addresses, and each anew after [`STALL`].
    pub fn hold(ticket: &Ticket, count: usize, locals: &[SocketAddr]) -> Self {
        let counts = Arc::new(StalledCounts::default());
        // A socket and a thread for each address.
        let threads = locals
            .iter()
            .map(|local| {
                let staller = Staller::new(*local, ticket, Arc::clone(&counts));
                let share = count / locals.len();
                std::thread::spawn(move || staller.run(share))
            })
            .collect();
        Self { counts, threads }
    }

    /// How many the gateway has answered and may be holding.
    pub fn held(&self) -> usize {
        self.counts.held.load(Ordering::Relaxed)
    }

    /// How many have been begun.
    pub fn opened(&self) -> usize {
        self.counts.opened.load(Ordering::Relaxed)
    }

    pub fn stop(self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

struct Staller {
    socket: UdpSocket,
    core: Core,
    config: ClientConfig,
    gateway: SocketAddr,
    server_name: String,
    counts: Arc<StalledCounts>,
    open: HashMap<ConnectionHandle, Stall>,
}

struct Stall {
    connection: Connection,
    since: Instant,
    is_held: bool,
}

impl Staller {
    fn new(local: SocketAddr, ticket: &Ticket, counts: Arc<StalledCounts>) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let tls = pinned_quic_client_config(ticket.certificate_sha256.clone()).unwrap();
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        Self {
            socket,
            core: Core::new(Arc::new(EndpointConfig::default()), None, false, None),
            config: ClientConfig::new(Arc::new(crypto)),
            gateway: ticket.addresses[0],
            server_name: ticket.server_name.clone(),
            counts,
            open: HashMap::new(),
        }
    }

    fn run(mut self, share: usize) {
        while !self.counts.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.give_up(now);
            // A few at a time: a first packet that the kernel drops is one that nobody holds.
            for _ in self.open.len()..share.min(self.open.len() + 4) {
                self.begin(now);
            }
            self.receive();
        }
    }

    fn begin(&mut self, now: Instant) {
        let (handle, connection) = self
            .core
            .connect(now, self.config.clone(), self.gateway, &self.server_name)
            .unwrap();
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        let mut stall = Stall {
            connection,
            since: now,
            is_held: false,
        };
        send(&self.socket, &mut stall.connection, now);
        self.open.insert(handle, stall);
    }

    fn give_up(&mut self, now: Instant) {
        let over: Vec<ConnectionHandle> = self
            .open
            .iter()
            .filter(|(_, stall)| now - stall.since >= STALL)
            .map(|(handle, _)| *handle)
            .collect();
        for handle in over {
            let stall = self.open.remove(&handle).unwrap();
            if stall.is_held {
                self.counts.held.fetch_sub(1, Ordering::Relaxed);
            }
            self.core
                .handle_event(handle, quinn_proto::EndpointEvent::drained());
        }
    }

    /// Answers a Retry, and nothing else.
    fn receive(&mut self) {
        let mut packet = [0; 2_048];
        while let Ok((length, from)) = self.socket.recv_from(&mut packet) {
            let now = Instant::now();
            // The two bits after the first two of a long header say what it is (RFC 9000, section 17.2).
            let is_retry = packet[0] & 0xf0 == 0xf0;
            let data = packet[..length].into();
            let event = self
                .core
                .handle(now, from, None, None, data, &mut Vec::new());
            let Some(DatagramEvent::ConnectionEvent(handle, event)) = event else {
                continue;
            };
            let Some(stall) = self.open.get_mut(&handle) else {
                continue;
            };
            if is_retry {
                stall.connection.handle_event(event);
                send(&self.socket, &mut stall.connection, now);
            } else if !stall.is_held {
                stall.is_held = true;
                self.counts.held.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn send(socket: &UdpSocket, connection: &mut Connection, now: Instant) {
    let mut buffer = Vec::new();
    while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
        socket
            .send_to(&buffer[..transmit.size], transmit.destination)
            .unwrap();
        buffer.clear();
    }
}
