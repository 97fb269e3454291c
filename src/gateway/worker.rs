//! A worker: a thread that drives a core with a socket and a clock.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};
use quinn_proto::Transmit;
use tokio::sync::watch;
use tracing::{debug, error};

use super::{
    core::Core,
    drain::{self, Progress},
    shared::Shared,
};
use crate::{
    clock::Clock,
    seat::EndReason,
    udp::{Buffers, Socket},
};

/// The socket's readiness.
pub(super) const SOCKET: Token = Token(0);
/// Another thread has something for the worker.
pub(super) const WAKE: Token = Token(1);

/// Batches received before timers and sending have their turn: at 32 packets each, what 10 ms of full load bring.
const BATCHES_PER_TURN: usize = 16;

/// How long a worker that ends waits for its socket to take the last packets.
const FAREWELL: Duration = Duration::from_millis(250);

/// How often a worker looks at a drain at the least: its deadline is told in wall time, which a sidecar's heartbeat may move.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// How often a worker looks how long the sidecar has been away. The tick does too, but a game may stand still, and its seats are not to
/// outlive `max_stale` for that.
const SIDECAR_LOOK: Duration = Duration::from_secs(1);

/// One worker's parts.
pub(super) struct Worker {
    pub(super) core: Core,
    pub(super) socket: Arc<Socket>,
    /// Where it is received.
    pub(super) buffers: Buffers,
    pub(super) poll: Poll,
    /// Time for QUIC's own timers. Not the clock of tokens and seats, so that a test may hold that one.
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: Arc<AtomicBool>,
    /// When to look next how long the sidecar has been away.
    pub(super) sidecar_look_at: Instant,
    /// How far a drain has come.
    pub(super) draining: Option<Progress>,
    /// Whether the gateway drains and nobody is in any more.
    pub(super) drained: Arc<watch::Sender<bool>>,
    /// How many workers have not ended.
    pub(super) at_work: Arc<AtomicUsize>,
}

/// Sees to it that a worker which panics leaves no gateway behind that looks alive, and that the last one to end says so.
struct Mourner {
    shared: Arc<Shared>,
    drained: Arc<watch::Sender<bool>>,
    at_work: Arc<AtomicUsize>,
}

impl Drop for Mourner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail();
        }
        if self.at_work.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Whether they panicked or were stopped: nobody is in any more.
            self.drained.send_replace(true);
        }
    }
}

/// A packet that the socket did not take yet.
#[derive(Default)]
struct Unsent {
    transmit: Option<Transmit>,
    bytes: Vec<u8>,
}

impl Worker {
    /// Runs until told to stop; then all connections are closed as drained.
    pub(super) fn run(mut self) {
        let _mourner = Mourner {
            shared: Arc::clone(&self.shared),
            drained: Arc::clone(&self.drained),
            at_work: Arc::clone(&self.at_work),
        };
        let mut events = Events::with_capacity(8);
        let mut unsent = Unsent::default();
        let mut more_to_receive = false;
        while !self.stop.load(Ordering::Acquire) {
            let timeout = if more_to_receive {
                Some(Duration::ZERO)
            } else {
                self.timeout()
            };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                error!(%error, "waiting for packets failed; the worker stops");
                self.shared.fail();
                break;
            }
            let now = self.clock.now();
            more_to_receive = self.receive(now);
            self.core.handle_timeouts(now);
            self.draining = drain::enforce(&self.shared);
            self.look_for_sidecar(now);
            self.core.exchange(now);
            self.send(now, &mut unsent);
            self.tell_drain();
        }
        self.farewell(&mut events, &mut unsent);
    }

    fn look_for_sidecar(&mut self, now: Instant) {
        if now >= self.sidecar_look_at {
            self.sidecar_look_at = now + SIDECAR_LOOK;
            self.shared.watch_sidecar(self.shared.clock.wall());
        }
    }

    fn tell_drain(&self) {
        let done = self.draining == Some(Progress::Done);
        self.drained.send_if_modified(|told| {
            let changed = *told != done;
            *told = done;
            changed
        });
    }

    /// Closes all connections, and stays until the socket has taken what tells them so, or for [`FAREWELL`].
    fn farewell(&mut self, events: &mut Events, unsent: &mut Unsent) {
        let until = self.clock.now() + FAREWELL;
        self.core.close_all(self.clock.now(), EndReason::Drained);
        loop {
            let now = self.clock.now();
            self.core.handle_timeouts(now);
            self.send(now, unsent);
            if (unsent.transmit.is_none() && !self.core.is_sending()) || now >= until {
                return;
            }
            let wait = self.timeout().unwrap_or(FAREWELL).min(until - now);
            if self.poll.poll(events, Some(wait)).is_err() {
                return;
            }
        }
    }

    /// How long nothing needs to be done.
    fn timeout(&self) -> Option<Duration> {
        let next = [self.core.next_timeout(), Some(self.sidecar_look_at)];
        let next = next.into_iter().flatten().min();
        let next = next.map(|at| at.saturating_duration_since(self.clock.now()));
        let look = match self.draining {
            Some(Progress::Waiting(left)) => Some(left.min(DRAIN_LOOK)),
            Some(Progress::Done) | None => None,
        };
        next.into_iter().chain(look).min()
    }

    /// Receives what is there; whether there may be more.
    fn receive(&mut self, now: Instant) -> bool {
        for _ in 0..BATCHES_PER_TURN {
            let core = &mut self.core;
            match self
                .socket
                .receive(&mut self.buffers, |packet| core.receive(now, packet))
            {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP answer to something sent earlier, for example: the next receive goes on.
                Err(error) => debug!(%error, "receiving failed"),
            }
        }
        true
    }

    /// Lets all changes take effect and sends until there is nothing left or the socket is full.
    fn send(&mut self, now: Instant, unsent: &mut Unsent) {
        loop {
            self.core.process(now);
            if unsent.transmit.is_none() {
                unsent.bytes.clear();
                let segments = self.socket.max_segments();
                unsent.transmit = self.core.poll_transmit(now, segments, &mut unsent.bytes);
            }
            let Some(transmit) = &unsent.transmit else {
                if self.core.is_settled() {
                    return;
                }
                continue;
            };
            let contents = unsent.bytes.get(..transmit.size).unwrap_or_default();
            match self.socket.send(transmit, contents) {
                Ok(()) => {}
                // The poll tells when there is room again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => debug!(%error, "sending failed"),
            }
            unsent.transmit = None;
        }
    }
}
