//! A simulated network: packets are lost, delayed, reordered and duplicated as the seed says.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// Of 1,000 packets, how many are lost.
    pub(super) loss: u32,
    /// Of 1,000 packets, how many come twice.
    pub(super) duplication: u32,
    /// The least delay.
    pub(super) delay: Duration,
    /// What is added to it at random, which reorders.
    pub(super) jitter: Duration,
}

impl Conditions {
    /// A good line: 10 ms, and nothing is lost.
    pub(super) const GOOD: Self = Self {
        loss: 0,
        duplication: 0,
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
    };

    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            loss: [0, 0, 10, 50, 150][rng.random_range(0..5)],
            duplication: [0, 0, 20][rng.random_range(0..3)],
            delay: Duration::from_millis(rng.random_range(1..60)),
            jitter: Duration::from_millis([0, 1, 10, 80][rng.random_range(0..4)]),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flying {
    pub(super) at: Instant,
    /// Ties are broken by the order of sending.
    order: u64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Network {
    conditions: Conditions,
    flying: BinaryHeap<Reverse<Flying>>,
    order: u64,
    pub(super) lost: u64,
}

impl Network {
    pub(super) fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            flying: BinaryHeap::new(),
            order: 0,
            lost: 0,
        }
    }

    /// Sends a packet, on its way or into the void.
    pub(super) fn send(
        &mut self,
        rng: &mut ChaCha8Rng,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) {
        if rng.random_range(0..1_000) < self.conditions.loss {
            self.lost += 1;
            return;
        }
        let copies = if rng.random_range(0..1_000) < self.conditions.duplication {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let jitter = self.conditions.jitter.mul_f64(rng.random::<f64>());
            self.order += 1;
            self.flying.push(Reverse(Flying {
                at: now + self.conditions.delay + jitter,
                order: self.order,
                from,
                to,
                bytes: bytes.to_vec(),
            }));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse(packet)| packet.at)
    }

    pub(super) fn arrived(&mut self, now: Instant) -> Option<Flying> {
        if self.next()? > now {
            return None;
        }
        self.flying.pop().map(|Reverse(packet)| packet)
    }
}
