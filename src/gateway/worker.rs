//! A worker: a thread that drives a core with a socket and a clock.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};
use quinn_proto::Transmit;
use tokio::sync::watch;
use tracing::{debug, error};

use super::{
    core::Core,
    drain::{self, Progress},
    exchange::WorkerExchange,
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

/// Between two looks at the socket while packets come. They are taken by the handful then, and each costs less: fewer system calls, and each
/// step's code and tables are warm for the next packet. A handshake has two of these pauses in it at the most.
const PAUSE: Duration = Duration::from_millis(1);

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
    /// Where it meets the simulation and the other workers, who wake it.
    pub(super) exchange: Arc<WorkerExchange>,
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

/// What a look at the socket has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brought {
    Nothing,
    /// All that was there.
    Packets,
    /// As many packets as are taken in one turn; there may be more.
    Turnful,
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
        let mut brought = Brought::Nothing;
        self.exchange.is_run_by(thread::current());
        while !self.stop.load(Ordering::Acquire) {
            if let Err(error) = self.wait(brought, &mut events)
                && error.kind() != io::ErrorKind::Interrupted
            {
                error!(%error, "waiting for packets failed; the worker stops");
                self.shared.fail();
                break;
            }
            let now = self.clock.now();
            brought = self.receive(now);
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

    /// Waits until there may be something to do.
    fn wait(&mut self, brought: Brought, events: &mut Events) -> io::Result<()> {
        match brought {
            Brought::Turnful => Ok(()),
            // More is on its way, so the socket would not let it wait. What else is due can wait that long, and the tick's output wakes it.
            Brought::Packets => {
                thread::park_timeout(PAUSE);
                Ok(())
            }
            Brought::Nothing => {
                let timeout = self.timeout();
                self.poll.poll(events, timeout)
            }
        }
    }

    /// Receives what is there.
    fn receive(&mut self, now: Instant) -> Brought {
        let mut brought = Brought::Nothing;
        for _ in 0..BATCHES_PER_TURN {
            let core = &mut self.core;
            let received = self
                .socket
                .receive(&mut self.buffers, |packet| core.receive(now, packet));
            match received {
                Ok(true) => brought = Brought::Packets,
                Ok(false) => return Brought::Packets,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return brought,
                // An ICMP answer to something sent earlier, for example: the next receive goes on.
                Err(error) => debug!(%error, "receiving failed"),
            }
        }
        Brought::Turnful
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
