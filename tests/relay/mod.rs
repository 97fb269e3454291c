//! A UDP relay between clients and a gateway, which can swallow everything: the tunnel that a phone goes through.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinSet};

pub struct Relay {
    address: SocketAddr,
    passes: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub async fn to(gateway: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let passes = Arc::new(AtomicBool::new(true));
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(front, gateway, Arc::clone(&passes)));
        Self {
            address,
            passes,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether packets pass, either way.
    pub fn pass(&self, passes: bool) {
        self.passes.store(passes, Ordering::SeqCst);
    }
}

async fn forward(front: Arc<UdpSocket>, gateway: SocketAddr, passes: Arc<AtomicBool>) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut packet = [0; 2_048];
    loop {
        let (length, client) = front.recv_from(&mut packet).await.unwrap();
        if !passes.load(Ordering::SeqCst) {
            continue;
        }
        let back = match backs.entry(client) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                back.connect(gateway).await.unwrap();
                let (front, passes) = (Arc::clone(&front), Arc::clone(&passes));
                answers.spawn(answer(Arc::clone(&back), front, client, passes));
                new.insert(back)
            }
        };
        let _ = back.send(&packet[..length]).await;
    }
}

async fn answer(
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    passes: Arc<AtomicBool>,
) {
    let mut packet = [0; 2_048];
    while let Ok(length) = back.recv(&mut packet).await {
        if passes.load(Ordering::SeqCst) {
            let _ = front.send_to(&packet[..length], client).await;
        }
    }
}
