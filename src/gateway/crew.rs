//! A gateway's workers: their sockets, bound in one order by one thread, and their threads.
//!
//! The kernel knows sockets that share a port by the order of their binding, and connection ids name workers by the same number. So no
//! socket of the group may go before all workers have ended, or others would move into its place: whoever starts the crew keeps the
//! [`Sockets`] until then. Should a worker panic, its socket stays where it is, and the gateway fails as a whole
//! ([`Shared::fail`](super::shared::Shared::fail)): a worker has met a bug that the others have too.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU8,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    thread::JoinHandle,
};

use mio::{Poll, Waker};
use tokio::sync::watch;

use super::{
    StartError,
    certificates::Certificates,
    core::Core,
    exchange::{SeatBudget, WorkerExchange},
    shared::Shared,
    steering, system_entropy,
    transport::{self, TransportKeys},
    worker::{self, Worker},
};
use crate::{
    clock::Clock,
    udp::{Buffers, KernelDrops, Socket},
};

/// Whether this system can steer packets to their worker, so that there may be more than one.
pub(crate) const MANY_WORKERS: bool = tickgate_steering::IS_SUPPORTED;

/// The sockets of all workers, in their order.
pub(super) type Sockets = Arc<[Arc<Socket>]>;

/// Binds one socket for each worker to the address; port 0 takes a free one, for all of them.
pub(super) fn bind(
    listen: SocketAddr,
    workers: NonZeroU8,
    buffer: usize,
) -> Result<Vec<Socket>, StartError> {
    if workers > NonZeroU8::MIN && !MANY_WORKERS {
        return Err(StartError::NoSteering { workers });
    }
    let program = steering::program();
    let sockets = Socket::bind_group(listen, buffer, usize::from(workers.get()), &program);
    let sockets = sockets.map_err(|source| StartError::Bind {
        address: listen,
        source,
    })?;
    if let Some(first) = sockets.first() {
        // All ask for the same and get the same.
        first.warn_of_small_buffer(buffer);
    }
    Ok(sockets)
}

/// What a worker needs of the system.
struct Post {
    socket: Arc<Socket>,
    poll: Poll,
}

/// Workers that have all they need, and do not work yet.
pub(super) struct Crew {
    posts: Vec<Post>,
    /// Where each meets the simulation, by worker.
    pub(super) exchanges: Arc<[Arc<WorkerExchange>]>,
}

/// What all workers of a gateway work with.
pub(super) struct Means<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) keys: &'a TransportKeys,
    pub(super) certificates: &'a Arc<Certificates>,
    pub(super) stop: &'a Arc<AtomicBool>,
    pub(super) drained: &'a Arc<watch::Sender<bool>>,
}

impl Crew {
    /// One worker for each socket.
    pub(super) fn of(sockets: Vec<Socket>, budget: SeatBudget) -> io::Result<Self> {
        let mut posts = Vec::with_capacity(sockets.len());
        let mut exchanges = Vec::with_capacity(sockets.len());
        for mut socket in sockets {
            let poll = Poll::new()?;
            socket.register(poll.registry(), worker::SOCKET)?;
            let waker = Waker::new(poll.registry(), worker::WAKE)?;
            // A wake-up fails only when the poll is gone, and then there is nobody to wake.
            let wake = Box::new(move || drop(waker.wake()));
            exchanges.push(Arc::new(WorkerExchange::new(budget, wake)));
            posts.push(Post {
                socket: Arc::new(socket),
                poll,
            });
        }
        Ok(Self {
            posts,
            exchanges: exchanges.into(),
        })
    }

    /// The sockets: to be kept until all workers have ended.
    pub(super) fn sockets(&self) -> Sockets {
        let sockets = self.posts.iter().map(|post| Arc::clone(&post.socket));
        sockets.collect()
    }

    /// The address that all listen on.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.posts.first().map(|post| post.socket.address())
    }

    /// Where the kernel tells what it drops, of each socket.
    pub(super) fn kernel_drops(&self) -> Arc<[KernelDrops]> {
        let drops = self.posts.iter().map(|post| post.socket.kernel_drops());
        drops.collect()
    }

    /// Has whoever ends a seat or changes what all share wake the workers.
    pub(super) fn listen_to(&self, shared: &Shared) {
        for (worker, exchange) in (0..).zip(self.exchanges.iter()) {
            let exchange = Arc::clone(exchange);
            shared
                .seats
                .set_waker(worker, Arc::new(move || exchange.wake()));
        }
        let all = Arc::clone(&self.exchanges);
        shared.set_wake(Box::new(move || {
            all.iter().for_each(|exchange| exchange.wake());
        }));
    }

    /// Starts the workers' threads.
    ///
    /// # Errors
    /// If the system gives no thread. Those that were started then end by themselves, for `stop` is set.
    pub(super) fn start(self, means: &Means<'_>) -> io::Result<Vec<JoinHandle<()>>> {
        let Self { posts, exchanges } = self;
        let at_work = Arc::new(AtomicUsize::new(posts.len()));
        let alone = posts.len() == 1;
        let mut threads = Vec::with_capacity(posts.len());
        for ((index, post), exchange) in (0_u8..).zip(posts).zip(exchanges.iter()) {
            let clock = Clock::system();
            let now = clock.now();
            let endpoint = transport::endpoint_config(index, means.keys, system_entropy(), None);
            let mut core = Core::new(
                index.into(),
                endpoint,
                Arc::clone(means.certificates),
                Arc::clone(means.shared),
                Arc::clone(exchange),
                now,
            );
            if !alone {
                core = core.among(&exchanges);
            }
            let worker = Worker {
                core,
                exchange: Arc::clone(exchange),
                socket: post.socket,
                buffers: Buffers::new(),
                poll: post.poll,
                sidecar_look_at: now,
                clock,
                shared: Arc::clone(means.shared),
                stop: Arc::clone(means.stop),
                draining: None,
                drained: Arc::clone(means.drained),
                at_work: Arc::clone(&at_work),
            };
            // Linux keeps 15 bytes of a thread's name.
            let name = if alone {
                "tickgate-worker".to_owned()
            } else {
                format!("tickgate-w{index}")
            };
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || worker.run());
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    means.stop.store(true, std::sync::atomic::Ordering::Release);
                    exchanges.iter().for_each(|exchange| exchange.wake());
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }
}
