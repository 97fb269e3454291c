//! The model network: two pipes with delay, which faults lose, repeat, reorder, stall and break.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::{
    attachment::{Action, Attachment},
    link::DetachReason,
    message::{FromGateway, FromSidecar},
};

/// How many messages a pipe holds before its sender has to wait, as flow control would have it.
pub(super) const PIPE: usize = 8;

/// One direction of a stream. Once faults are over it is what a stream is: reliable and in order.
pub(super) struct Pipe<T> {
    queue: VecDeque<(Instant, T)>,
    stalled_until: Instant,
}

impl<T: Clone> Pipe<T> {
    fn new(now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            stalled_until: now,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < PIPE
    }

    pub(super) fn push(&mut self, now: Instant, message: T, faults: bool, rng: &mut ChaCha8Rng) {
        let earliest = self.queue.back().map_or(now, |(due, _)| *due);
        let due = earliest.max(now + Duration::from_millis(rng.random_range(1..40)));
        let fate = if faults {
            rng.random_range(0..100)
        } else {
            100
        };
        match fate {
            0..2 => {}
            2..4 => {
                self.queue.push_back((due, message.clone()));
                self.queue.push_back((due, message));
            }
            4..6 => {
                let before_last = self.queue.len().saturating_sub(1);
                self.queue.insert(before_last, (earliest, message));
            }
            _ => self.queue.push_back((due, message)),
        }
    }

    pub(super) fn stall(&mut self, until: Instant) {
        self.stalled_until = until;
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        let due =
            now >= self.stalled_until && self.queue.front().is_some_and(|(due, _)| now >= *due);
        if due {
            self.queue.pop_front().map(|(_, message)| message)
        } else {
            None
        }
    }
}

/// One stream, with the sidecar's machine for it and what its host is busy with.
pub(super) struct Stream {
    pub(super) id: u64,
    pub(super) up: Pipe<FromGateway>,
    pub(super) down: Pipe<FromSidecar>,
    pub(super) broken: bool,
    /// When and as what the gateway notices the end; none while it has not ended, or only silence tells.
    pub(super) gateway_notices: Option<(Instant, DetachReason)>,
    pub(super) sidecar_notices: Option<Instant>,
    pub(super) machine: Option<Attachment>,
    /// What the sidecar's host is asked and answers later. One at a time, but for a report beside it.
    pub(super) asked: Option<(Instant, Action)>,
    pub(super) reporting_until: Option<Instant>,
}

impl Stream {
    pub(super) fn new(id: u64, now: Instant) -> Self {
        Self {
            id,
            up: Pipe::new(now),
            down: Pipe::new(now),
            broken: false,
            gateway_notices: None,
            sidecar_notices: None,
            machine: Some(Attachment::new(now, super::gateway_id())),
            asked: None,
            reporting_until: None,
        }
    }

    /// Breaks the stream. Each end notices soon, or never but by silence.
    pub(super) fn kill(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        self.broken = true;
        let mut notice = || {
            let after = Duration::from_millis(rng.random_range(0..1_000));
            rng.random_bool(0.6).then_some(now + after)
        };
        self.gateway_notices = notice().map(|at| (at, DetachReason::Unreachable));
        self.sidecar_notices = notice();
    }
}
