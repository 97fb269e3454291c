//! The model network: two pipes with delay to a stream, which faults stall, cut, and, on a hostile one, lose, repeat and reorder.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{
    super::{
        attachment::{Action, Attachment},
        link::DetachReason,
        message::{FromGateway, FromSidecar},
    },
    PORTIONS, gateway_id,
    tally::Tally,
};
use crate::id::Incarnation;

/// How many messages a pipe holds before its sender has to wait, as flow control would have it.
pub(super) const PIPE: usize = 8;

/// What a stream does to the messages on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    /// It delivers them in order, each once, until it breaks: what gRPC promises.
    Reliable,
    /// It also loses, repeats and reorders them: what the machines survive beyond that.
    Hostile,
}

/// One direction of a stream.
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

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn push(
        &mut self,
        now: Instant,
        message: T,
        conduct: Conduct,
        rng: &mut ChaCha8Rng,
        tally: &mut Tally,
    ) {
        let earliest = self.queue.back().map_or(now, |(due, _)| *due);
        let due = earliest.max(now + Duration::from_millis(rng.random_range(1..60)));
        let fate = match conduct {
            Conduct::Reliable => 100,
            Conduct::Hostile => rng.random_range(0..100),
        };
        match fate {
            0..2 => tally.messages_lost += 1,
            2..4 => {
                tally.messages_repeated += 1;
                self.queue.push_back((due, message.clone()));
                self.queue.push_back((due, message));
            }
            4..6 => {
                tally.messages_reordered += 1;
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
    /// The gateway process that opened it.
    pub(super) owner: Incarnation,
    pub(super) up: Pipe<FromGateway>,
    pub(super) down: Pipe<FromSidecar>,
    /// Nothing new gets through in either direction.
    pub(super) broken: bool,
    /// What the gateway sent before it broke still arrives, however late.
    pub(super) lingers: bool,
    /// When and as what the gateway notices the end; none while it has not ended, or only silence tells.
    pub(super) gateway_notices: Option<(Instant, DetachReason)>,
    pub(super) sidecar_notices: Option<Instant>,
    pub(super) machine: Option<Attachment>,
    /// What the sidecar's host is asked and answers later. One at a time, but for a report beside it.
    pub(super) asked: Option<(Instant, Action)>,
    pub(super) reporting_until: Option<Instant>,
}

impl Stream {
    pub(super) fn new(id: u64, owner: Incarnation, now: Instant) -> Self {
        Self {
            id,
            owner,
            up: Pipe::new(now),
            down: Pipe::new(now),
            broken: false,
            lingers: false,
            gateway_notices: None,
            sidecar_notices: None,
            machine: Some(Attachment::with_portions(now, gateway_id(), PORTIONS)),
            asked: None,
            reporting_until: None,
        }
    }

    /// Breaks the stream. Each end notices soon, or never but by silence.
    pub(super) fn cut(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        if self.broken {
            return;
        }
        self.broken = true;
        self.lingers = rng.random_bool(0.5);
        let mut notice = || {
            let after = Duration::from_millis(rng.random_range(0..1_000));
            rng.random_bool(0.6).then_some(now + after)
        };
        self.gateway_notices = notice().map(|at| (at, DetachReason::Unreachable));
        self.sidecar_notices = notice();
    }

    /// The gateway has dropped its end.
    pub(super) fn dropped(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        if !self.broken {
            self.broken = true;
            self.lingers = rng.random_bool(0.5);
            let after = Duration::from_millis(rng.random_range(0..50));
            // The news of it may be lost as well.
            self.sidecar_notices = rng.random_bool(0.8).then_some(now + after);
        }
    }
}
