//! The gateway: a QUIC listener that admits clients by connect token, keeps their seats, and exchanges traffic with the simulation
//! once per tick.
//!
//! [`Gateway::start`] gives two ends: the gateway itself, whose [`host`](Gateway::host) the control channel runs on, and the
//! [`Simulation`], on which the game loop calls [`tick`](Simulation::tick). Between them run worker threads, each of which drives a
//! core (quinn-proto, without I/O or clock) with a socket of its own.

mod admit;
mod certificates;
mod config;
mod core;
mod crew;
mod drain;
mod events;
mod exchange;
mod farewell;
mod host;
mod journal;
mod metrics;
mod shared;
mod simulation;
mod state;
mod steering;
mod ticker;
mod transport;
mod verifier;
mod worker;

#[cfg(test)]
mod restarts;
#[cfg(test)]
mod simulated;

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU8,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use quinn_proto::crypto::rustls::NoInitialCipherSuite;
use thiserror::Error;
use tokio::sync::watch;

#[cfg(feature = "cli")]
pub(crate) use self::crew::MANY_WORKERS;
pub use self::{
    admit::Refusal,
    config::{DEFAULT_SOCKET_BUFFER, GatewayConfig, Limits, NEXT_CERTIFICATE_LEAD, SeatRates},
    exchange::{Channel, Input, SeatBudget},
    metrics::GatewayMetrics,
    simulation::{Exchange, Inputs, Outbox, Seats, Simulation},
    state::StateError,
    ticker::{Jitter, Pace, Ticker},
    verifier::{SessionVerifier, VerifiedSession, Verifier, VerifyError},
};
use self::{
    certificates::{Announced, Certificates, Served},
    crew::{Crew, Means, Sockets},
    exchange::WorkerExchange,
    host::Host,
    shared::Shared,
    state::PersistedKeys,
    transport::{Entropy, TransportKeys},
};
use crate::{
    clock::Clock,
    control::GatewayHost,
    id::{GatewayId, Incarnation},
    seat::SeatTable,
    tls::{self, Identity, TlsError},
    udp::KernelDrops,
    wire::CloseCode,
};

/// Why a gateway did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The UDP address could not be bound.
    #[error("cannot listen on UDP {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate or key of the QUIC listener cannot be used.
    #[error("the gateway's QUIC certificate cannot be used: {0}")]
    Tls(#[from] TlsError),
    /// The TLS provider lacks what QUIC needs.
    #[error("the TLS provider lacks TLS13_AES_128_GCM_SHA256, which QUIC's first packets need")]
    NoInitialCipherSuite,
    /// The file with the transport's keys cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system gave no random bytes.
    #[error("no random bytes from the system: {0}")]
    Entropy(getrandom::Error),
    /// A worker's thread or its poll could not be made.
    #[error("cannot start a worker: {0}")]
    Worker(io::Error),
    /// More than one worker, on a system that cannot steer packets to them.
    #[error("this system cannot steer packets to {workers} workers (Linux can): take one")]
    NoSteering {
        /// How many were asked for.
        workers: NonZeroU8,
    },
}

impl StartError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "bind",
            Self::Tls(_) => "tls",
            Self::NoInitialCipherSuite => "no_initial_cipher_suite",
            Self::State(error) => error.label(),
            Self::Entropy(_) => "entropy",
            Self::Worker(_) => "worker",
            Self::NoSteering { .. } => "no_steering",
        }
    }
}

/// A running gateway. Dropping it stops it like [`shutdown`](Self::shutdown).
pub struct Gateway {
    host: Arc<Host>,
    workers: Arc<[Arc<WorkerExchange>]>,
    address: SocketAddr,
    keys: TransportKeys,
    certificates: Arc<Certificates>,
    certificate_lead: Duration,
    drained: Arc<watch::Sender<bool>>,
    kernel_drops: Arc<[KernelDrops]>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Kept until all threads have ended, so that no socket of the group takes another's place before.
    #[expect(dead_code, reason = "held for its drop")]
    sockets: Sockets,
}

impl Gateway {
    /// Binds the sockets, starts the workers, and gives the gateway and the simulation's end of it.
    ///
    /// Nobody is admitted before the control channel has attached ([`control::gateway::run`](crate::control::gateway::run) over
    /// [`host`](Self::host)) and the simulation has ticked.
    ///
    /// # Errors
    /// [`StartError`], which says what to do.
    pub fn start(config: GatewayConfig) -> Result<(Self, Simulation), StartError> {
        let GatewayConfig {
            id,
            listen,
            workers,
            advertise,
            server_name,
            identity,
            next_identity,
            next_certificate_lead,
            state,
            seats,
            limits,
            tick_interval,
            socket_buffer,
            clock,
        } = config;
        let sockets = crew::bind(listen, workers, socket_buffer)?;
        let limits = limits.among(workers);
        let crew = Crew::of(sockets, limits.seat).map_err(StartError::Worker)?;
        let sockets = crew.sockets();
        let kernel_drops = crew.kernel_drops();
        // There is a worker, so there is one.
        let address = crew.address().unwrap_or(listen);

        let seats = SeatTable::new(seats);
        let shared = Arc::new(Shared::new(id, limits, clock, seats, tick_interval));
        crew.listen_to(&shared);

        let incarnation = Incarnation::from_bytes(random()?);
        let keys = transport_keys(state.as_deref())?;
        let serve = |identity: &Identity| {
            let tls = tls::quic_server_config(identity)?;
            serve(identity, tls, &keys, &shared).map_err(|_| StartError::NoInitialCipherSuite)
        };
        let time = Clock::system();
        let certificates = Arc::new(Certificates::new(serve(&identity)?));
        if let Some(next) = &next_identity {
            certificates.announce(serve(next)?, time.now() + next_certificate_lead);
        }
        shared.set_certificates(certificates.sha256());
        let stop = Arc::new(AtomicBool::new(false));
        let drained = Arc::new(watch::Sender::new(false));
        let workers = Arc::clone(&crew.exchanges);
        let threads = crew
            .start(&Means {
                shared: &shared,
                keys: &keys,
                certificates: &certificates,
                stop: &stop,
                drained: &drained,
            })
            .map_err(StartError::Worker)?;

        let host = Arc::new(Host {
            shared: Arc::clone(&shared),
            incarnation,
            addresses: if advertise.is_empty() {
                vec![address]
            } else {
                advertise
            },
            server_name,
            is_attached: watch::Sender::new(false),
        });
        let gateway = Self {
            host,
            workers: Arc::clone(&workers),
            address,
            keys,
            certificates,
            certificate_lead: next_certificate_lead,
            drained,
            kernel_drops,
            sockets,
            stop,
            threads,
        };
        Ok((gateway, Simulation::new(shared, workers)))
    }

    /// The address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The gateway's id.
    pub fn id(&self) -> &GatewayId {
        &self.host.shared.id
    }

    /// Sessions by JTI and connect tokens by their text, for callers that know no handles: an engine with a verifier of its own kind, or
    /// another part of the server, on any thread.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(Arc::clone(&self.host.shared))
    }

    /// Whether the control channel is up, and when it comes up and goes down.
    pub fn watch_attached(&self) -> watch::Receiver<bool> {
        self.host.is_attached.subscribe()
    }

    /// This process's name, drawn at its start.
    pub fn incarnation(&self) -> Incarnation {
        self.host.incarnation
    }

    /// What the control channel runs on.
    pub fn host(&self) -> Arc<dyn GatewayHost> {
        Arc::clone(&self.host) as Arc<dyn GatewayHost>
    }

    /// Announces the certificate that is to follow the one served now, at once; after 5 minutes
    /// ([`next_certificate_lead`](GatewayConfig::next_certificate_lead)) it is served, and it alone. Connections that are up then go on
    /// under the one that they were shown.
    ///
    /// One that was announced and is not served yet is replaced. To announce the one that is served calls off whatever was to follow.
    ///
    /// # Errors
    /// If certificate and key cannot be used; nothing has changed then.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a private key is handed over, not lent"
    )]
    pub fn rotate_certificate(&self, identity: Identity) -> Result<(), TlsError> {
        let shared = &self.host.shared;
        let tls = tls::quic_server_config(&identity)?;
        let served = serve(&identity, tls, &self.keys, shared)
            .map_err(|error| TlsError::Refused(rustls::Error::General(error.to_string())))?;
        let from = Clock::system().now() + self.certificate_lead;
        let announced = self.certificates.announce(served, from);
        if announced == Announced::Anew {
            tracing::info!(gateway = %shared.id, in_s = self.certificate_lead.as_secs(), "a new certificate will be served");
        }
        shared.set_certificates(self.certificates.sha256());
        shared.wake_workers();
        Ok(())
    }

    /// Admits nobody any more (close code `drained`). Those who are in go on for `within` at the most and are closed with the same
    /// code then, whether the simulation ticks or not. The gateway is drained as soon as nobody is in any more; it runs on until
    /// [`shutdown`](Self::shutdown), and tells whoever comes that it is drained. Called again it sets another deadline.
    pub fn drain(&self, within: Duration) {
        let shared = &self.host.shared;
        tracing::info!(gateway = %shared.id, ?within, "drains: nobody is admitted any more");
        shared.start_draining(shared.clock.wall().after(within));
    }

    /// Admits again. Whom the drain has closed already comes back by itself, or not.
    pub fn cancel_drain(&self) {
        self.host.shared.cancel_draining();
    }

    /// Whether the gateway drains, by [`drain`](Self::drain) or by order of the sidecar, and nobody is in any more.
    pub fn is_drained(&self) -> bool {
        *self.drained.borrow()
    }

    /// Resolves when the gateway [is drained](Self::is_drained).
    pub async fn drained(&self) {
        // It fails only when the sender is gone, which is ours.
        let _ = self.drained.subscribe().wait_for(|drained| *drained).await;
    }

    /// Packets that the kernel dropped because the gateway took them too late, since the start. Read from `/proc/net/udp` at each
    /// call; none where there is no such file (outside Linux).
    pub fn socket_drops(&self) -> Option<u64> {
        metrics::all_drops(&self.kernel_drops)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let counters = &self.host.shared.counters;
        Counts {
            admitted: counters.admitted.load(Ordering::Relaxed),
            refused: counters
                .refusals()
                .filter(|(_, count)| *count > 0)
                .collect(),
            handshakes_dropped: counters.handshakes_dropped.load(Ordering::Relaxed),
            handshake_timeouts: counters.handshake_timeouts.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
            rate_limited: counters.rate_limited.load(Ordering::Relaxed),
            inputs_dropped: counters.inputs_dropped.load(Ordering::Relaxed),
            over_budget: counters.over_budget.datagrams.load(Ordering::Relaxed),
            misrouted: counters.misrouted.load(Ordering::Relaxed),
            outputs_dropped: self.workers.iter().map(|worker| worker.overflowed()).sum(),
        }
    }

    /// Its metrics and health, for an HTTP listener to tell.
    pub fn metrics(&self) -> GatewayMetrics {
        GatewayMetrics::new(
            Arc::clone(&self.host.shared),
            Arc::clone(&self.workers),
            Arc::clone(&self.kernel_drops),
        )
    }

    /// Admits nobody any more and closes all connections as drained; returns when the workers have stopped.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let shared = &self.host.shared;
        shared.start_draining(shared.clock.wall());
        self.stop.store(true, Ordering::Release);
        for worker in self.workers.iter() {
            worker.wake();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Counts since a gateway's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Clients admitted.
    pub admitted: u64,
    /// Connections closed before they had a seat, by close code; those codes that occurred.
    pub refused: Vec<(CloseCode, u64)>,
    /// Handshakes dropped unfinished because their place was needed: at the cap on handshakes in flight, or at a prefix's share of it.
    pub handshakes_dropped: u64,
    /// Handshakes dropped because they were not finished in time.
    pub handshake_timeouts: u64,
    /// Connections that were asked to prove their address first (Retry).
    pub retries: u64,
    /// Connections that got no answer because their prefix had begun too many.
    pub rate_limited: u64,
    /// Datagrams of clients dropped before the simulation saw them, because a seat or all together sent too many.
    pub inputs_dropped: u64,
    /// Datagrams of clients dropped because they were beyond their budgets ([`SeatRates`]).
    pub over_budget: u64,
    /// Packets that the kernel gave to another worker than theirs; that one passed them on.
    pub misrouted: u64,
    /// Payloads of the simulation dropped because the worker was too far behind.
    pub outputs_dropped: u64,
}

/// The keys of this process: those that outlive it from the state file, if there is one.
fn transport_keys(state: Option<&Path>) -> Result<TransportKeys, StartError> {
    let fresh = PersistedKeys {
        reset: random()?,
        connection_id: random()?,
    };
    let PersistedKeys {
        reset,
        connection_id,
    } = match state {
        Some(path) => state::load_or_create(path, fresh)?,
        None => fresh,
    };
    Ok(TransportKeys {
        reset,
        connection_id,
        retry: random()?,
    })
}

/// How connections are served with this identity. All share one key for Retry tokens, so that a Retry sent under the certificate
/// before is good under the next.
fn serve(
    identity: &Identity,
    tls: rustls::ServerConfig,
    keys: &TransportKeys,
    shared: &Shared,
) -> Result<Served, NoInitialCipherSuite> {
    let server = transport::server_config(tls, keys, &shared.limits, shared.clock.clone())?;
    Ok(Served {
        server: Arc::new(server),
        leaf_sha256: identity.fingerprint(),
    })
}

fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(StartError::Entropy)?;
    Ok(bytes)
}

/// Random bytes from the system, which gave some at the start and does not stop.
fn system_entropy() -> Entropy {
    Arc::new(|bytes| {
        if let Err(error) = getrandom::fill(bytes) {
            tracing::error!(%error, "the system gave no random bytes for a connection id");
        }
    })
}
