//! A simulated network: packets are lost, delayed, reordered and duplicated as the seed says, and for a while none gets through.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// How much later than the others a packet arrives that is reordered.
const HOLD: Duration = Duration::from_millis(60);

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// Of 1,000 packets, how many are lost.
    pub(super) loss: u32,
    /// Of 1,000 packets, how many come twice.
    pub(super) duplication: u32,
    /// Of 1,000 packets, how many are held back by [`HOLD`], so that those sent later overtake them.
    pub(super) reorder: u32,
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
        reorder: 0,
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
    };

    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            loss: [0, 0, 10, 50, 100, 300][rng.random_range(0..6)],
            duplication: [0, 0, 50][rng.random_range(0..3)],
            reorder: [0, 0, 50, 250][rng.random_range(0..4)],
            delay: Duration::from_millis(rng.random_range(1..60)),
            jitter: Duration::from_millis([0, 1, 10, 80, 200][rng.random_range(0..5)]),
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
    /// Nothing arrives, either way, while it is dark.
    dark: Option<Instant>,
    pub(super) lost: u64,
    pub(super) reordered: u64,
}

impl Network {
    pub(super) fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            flying: BinaryHeap::new(),
            order: 0,
            dark: None,
            lost: 0,
            reordered: 0,
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
        let is_dark = self.dark.is_some_and(|until| now < until);
        if is_dark || rng.random_range(0..1_000) < self.conditions.loss {
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
            let hold = if rng.random_range(0..1_000) < self.conditions.reorder {
                self.reordered += 1;
                HOLD
            } else {
                Duration::ZERO
            };
            self.order += 1;
            self.flying.push(Reverse(Flying {
                at: now + self.conditions.delay + jitter + hold,
                order: self.order,
                from,
                to,
                bytes: bytes.to_vec(),
            }));
        }
    }

    /// Nothing gets through until then, neither what is sent nor what is on its way.
    pub(super) fn darken(&mut self, until: Instant) {
        self.dark = Some(self.dark.map_or(until, |before| before.max(until)));
        self.lost += self.flying.len() as u64;
        self.flying.clear();
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
