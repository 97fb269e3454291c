//! A UDP relay between clients and a gateway, which does to their packets what bad networks do: loses, delays, reorders and doubles them
//! as a seed says, swallows everything for a while (the tunnel that a phone goes through), and shows the gateway another address (a NAT
//! that forgets, a phone that leaves the Wi-Fi).
//!
//! What it does to the n-th packet of a client in a direction depends on the seed alone. Which packet that is, is up to QUIC and the
//! clock; so a run with real sockets is repeated in kind and not to the byte. For that there is the simulation within the gateway.

mod weather;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinSet,
};
pub use weather::{Fates, Weather};

/// Packets that may be on their way in each direction; beyond that they are lost, as in a router.
const QUEUE: usize = 4_096;

pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    gateway: SocketAddr,
    front: UdpSocket,
    passes: AtomicBool,
    weather: Mutex<Weather>,
    /// From which address clients are shown to the gateway; a change of it gives each a new socket.
    shown_from: watch::Sender<Ipv4Addr>,
    seed: u64,
    carried: AtomicU64,
}

impl Relay {
    /// A relay in fine weather.
    pub async fn to(gateway: SocketAddr) -> Self {
        Self::through(gateway, Weather::FINE, 0).await
    }

    /// A relay whose every packet is treated as `seed` says.
    pub async fn through(gateway: SocketAddr, weather: Weather, seed: u64) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            gateway,
            front,
            passes: AtomicBool::new(true),
            weather: Mutex::new(weather),
            shown_from: watch::Sender::new(Ipv4Addr::LOCALHOST),
            seed,
            carried: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(receive(Arc::clone(&shared)));
        Self {
            address,
            shared,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether packets pass, either way.
    pub fn pass(&self, passes: bool) {
        self.shared.passes.store(passes, Ordering::SeqCst);
    }

    /// From now on.
    pub fn set_weather(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Shows every client to the gateway from another port of the same address, as a NAT does that has forgotten them.
    pub fn rebind(&self) {
        let address = *self.shared.shown_from.borrow();
        self.shared.shown_from.send_replace(address);
    }

    /// Shows every client to the gateway from this address of 127.0.0.0/8.
    pub fn move_to(&self, address: Ipv4Addr) {
        self.shared.shown_from.send_replace(address);
    }

    /// How many packets have come through.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }
}

/// Takes what clients send, and hands it to the line of each.
async fn receive(shared: Arc<Shared>) {
    let mut lines: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut packet = [0; 2_048];
    loop {
        // An answer that the client's closed socket did not take comes back as an error, and means nothing here.
        let Ok((length, client)) = shared.front.recv_from(&mut packet).await else {
            continue;
        };
        let number = lines.len() as u64;
        let line = lines.entry(client).or_insert_with(|| {
            let (sender, packets) = mpsc::channel(QUEUE);
            tasks.spawn(carry(Arc::clone(&shared), client, number, packets));
            sender
        });
        let _ = line.try_send(packet[..length].to_vec());
    }
}

/// A packet on its way; the earliest first, and of those that arrive together the one that was sent first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: Instant,
    order: u64,
    is_upward: bool,
    packet: Vec<u8>,
}

/// One client's line, both ways.
async fn carry(
    shared: Arc<Shared>,
    client: SocketAddr,
    number: u64,
    mut packets: mpsc::Receiver<Vec<u8>>,
) {
    let seed = shared.seed.wrapping_add(number.wrapping_mul(2));
    let (mut up, mut down) = (Fates::new(seed), Fates::new(seed.wrapping_add(1)));
    let mut shown_from = shared.shown_from.subscribe();
    let mut back = open(&shared, &mut shown_from).await;
    let mut flying: BinaryHeap<Reverse<Flying>> = BinaryHeap::new();
    let (mut order, mut buffer) = (0, [0; 2_048]);
    loop {
        let due = flying.peek().map(|Reverse(first)| first.at);
        let arrival = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let (is_upward, packet) = tokio::select! {
            () = arrival => {
                deliver(&shared, &back, client, &mut flying).await;
                continue;
            }
            changed = shown_from.changed() => match changed {
                Ok(()) => {
                    back = open(&shared, &mut shown_from).await;
                    continue;
                }
                Err(_) => return,
            },
            packet = packets.recv() => match packet {
                Some(packet) => (true, packet),
                None => return,
            },
            received = back.recv(&mut buffer) => match received {
                Ok(length) => (false, buffer[..length].to_vec()),
                // The gateway's port is closed: that is an answer too, which QUIC does not believe.
                Err(_) => continue,
            },
        };
        let weather = *shared.weather.lock().unwrap();
        let fate = if is_upward { &mut up } else { &mut down }.next(&weather);
        if !shared.passes.load(Ordering::SeqCst) {
            continue;
        }
        let now = Instant::now();
        for after in fate.into_iter().flatten() {
            if flying.len() < QUEUE {
                order += 1;
                flying.push(Reverse(Flying {
                    at: now + after,
                    order,
                    is_upward,
                    packet: packet.clone(),
                }));
            }
        }
    }
}

/// Hands over everything that has arrived.
async fn deliver(
    shared: &Shared,
    back: &UdpSocket,
    client: SocketAddr,
    flying: &mut BinaryHeap<Reverse<Flying>>,
) {
    let now = Instant::now();
    while flying.peek().is_some_and(|Reverse(first)| first.at <= now) {
        let Some(Reverse(arrived)) = flying.pop() else {
            return;
        };
        // What was on its way when the tunnel began is lost in it.
        if !shared.passes.load(Ordering::SeqCst) {
            continue;
        }
        shared.carried.fetch_add(1, Ordering::Relaxed);
        let _ = if arrived.is_upward {
            back.send(&arrived.packet).await
        } else {
            shared.front.send_to(&arrived.packet, client).await
        };
    }
}

async fn open(shared: &Shared, shown_from: &mut watch::Receiver<Ipv4Addr>) -> UdpSocket {
    let from = *shown_from.borrow_and_update();
    let back = UdpSocket::bind((IpAddr::V4(from), 0)).await.unwrap();
    back.connect(shared.gateway).await.unwrap();
    back
}
