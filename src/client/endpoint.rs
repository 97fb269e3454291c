//! A UDP socket of the client's, with any number of connections over it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quinn::{TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::time::timeout;

use super::{Closed, Connection, Handshaken, HelloOptions, Ticket, fleet::Transport};
use crate::{
    tls,
    wire::{Advice, CloseCode, FrameError},
};

/// Clients make themselves heard this often (QUIC PING), so that neither the gateway nor a NAT forgets them.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Unheard for this long, the connection is lost: three pings in a row.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages on their way in: two of the longest (16 KiB), so that one can travel while another is read.
pub(super) const RECEIVE_WINDOW: u32 = 32 * 1_024;
/// Messages on their way out: four of the longest.
pub(super) const SEND_WINDOW: u64 = 64 * 1_024;
/// Datagrams received and not yet taken: 1 s of snapshots of about 1,000 bytes at 60 Hz.
pub(super) const DATAGRAMS_IN: usize = 64 * 1_024;
/// Datagrams waiting for the network: more than that are too old to be worth sending.
pub(super) const DATAGRAMS_OUT: usize = 32 * 1_024;
/// What is asked of the kernel for the socket's receive buffer: at 60 Hz and 100 connections, 100 ms of scheduling delay are 600
/// packets, which the kernel counts as some 2,300 bytes each.
const SOCKET_BUFFER: usize = 4 * 1_024 * 1_024;
/// TLS configurations kept, one per set of pinned certificates: gateways that one endpoint speaks to at the same time.
pub(super) const PINNED_CONFIGS: usize = 16;
/// How long [`Endpoint::shutdown`] waits for connections to drain: three probe timeouts, of at most some 300 ms each on usable paths.
const DRAIN: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The ticket cannot be used from this endpoint: none of its addresses is of the socket's family, or the server name is none.
    #[error("the ticket cannot be used from here: {0}")]
    Ticket(&'static str),
    /// The certificates that the ticket pins cannot be used.
    #[error("unusable certificate pins: {0}")]
    Tls(#[from] tls::TlsError),
    /// The endpoint has been shut down, or its socket failed.
    #[error("this endpoint is shut down")]
    EndpointClosed,
    /// No QUIC handshake within the deadline, on any address.
    #[error("no answer from the gateway")]
    HandshakeTimeout,
    /// Neither Welcome nor a close within the deadline.
    #[error("the gateway did not answer Hello in time")]
    WelcomeTimeout,
    /// Hello cannot be put into a frame: its token is empty or too long.
    #[error("Hello cannot be sent: {0}")]
    Hello(FrameError),
    /// The connection ended before Welcome.
    #[error(transparent)]
    Refused(Closed),
}

impl ConnectError {
    /// The error as a fixed label: the close code's own name where the gateway gave one.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ticket(_) => "ticket",
            Self::Tls(_) => "tls",
            Self::EndpointClosed => "endpoint_closed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::WelcomeTimeout => "welcome_timeout",
            Self::Hello(error) => error.label(),
            Self::Refused(closed) => closed.label(),
        }
    }

    /// What the client should do now.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Ticket(_) | Self::Tls(_) | Self::Hello(_) | Self::EndpointClosed => {
                Advice::GiveUp
            }
            Self::HandshakeTimeout => Advice::RetryLater,
            Self::WelcomeTimeout => Advice::NewToken,
            Self::Refused(closed) => closed.advice(),
        }
    }
}

/// How long the steps of connecting may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The QUIC handshake, for each address of a ticket. Default 10 s: longer than the retransmissions of a lossy path take.
    pub handshake: Duration,
    /// Hello and its answer. Default 10 s.
    pub welcome: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            welcome: Duration::from_secs(10),
        }
    }
}

/// A UDP socket for any number of connections, also to different gateways. Cheap to clone; clones share the socket, which closes once
/// all of them and all connections are gone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    transport: Arc<TransportConfig>,
    pinned: Arc<Mutex<Vec<Pinned>>>,
    deadlines: Deadlines,
}

/// A configuration for gateways that hold one of these certificates.
#[derive(Debug)]
struct Pinned {
    certificates: Vec<[u8; 32]>,
    config: quinn::ClientConfig,
}

impl Endpoint {
    /// Binds a socket: `0.0.0.0:0` or `[::]:0` for any address and port of this machine (the latter speaks IPv4 too, where the
    /// system lets it). Call it inside a tokio runtime, which then drives the endpoint.
    ///
    /// # Errors
    /// When the address cannot be bound, or there is no tokio runtime.
    pub fn bind(local: SocketAddr) -> io::Result<Self> {
        let runtime = quinn::default_runtime()
            .ok_or_else(|| io::Error::other("a client endpoint needs a tokio runtime"))?;
        let config = quinn::EndpointConfig::default();
        let quic = quinn::Endpoint::new(config, None, open_socket(local)?, runtime)?;
        Ok(Self {
            quic,
            transport: Arc::new(Transport::default().config()),
            pinned: Arc::default(),
            deadlines: Deadlines::default(),
        })
    }

    /// Sets how long the steps of connecting may take.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Connects to the ticket's gateway, presents the token, and waits until the client is let in.
    ///
    /// # Errors
    /// [`ConnectError`], with what to do next in [`ConnectError::advice`].
    pub async fn connect(&self, ticket: &Ticket) -> Result<Connection, ConnectError> {
        self.connect_with(ticket, &HelloOptions::default()).await
    }

    /// As [`connect`](Self::connect), with a say in what Hello says.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        &self,
        ticket: &Ticket,
        options: &HelloOptions,
    ) -> Result<Connection, ConnectError> {
        let handshaken = self.handshake(ticket).await?;
        let hello = options.hello(ticket, &handshaken.leaf_sha256());
        let connection = handshaken.admit(&hello).await?;
        // Whoever presents another token than the ticket's has another session.
        if options.token.is_none() && connection.welcome().session != ticket.session {
            return Err(ConnectError::Refused(connection.refuse_session()));
        }
        Ok(connection)
    }

    /// Does the QUIC handshake alone, trying the ticket's addresses in order, and presents nothing: for tests and load generators.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); of several addresses the last one's.
    pub async fn handshake(&self, ticket: &Ticket) -> Result<Handshaken, ConnectError> {
        let config = self.config_for(&ticket.certificate_sha256)?;
        let mut outcome = Err(ConnectError::Ticket("no address of the socket's family"));
        for address in &ticket.addresses {
            match self
                .quic
                .connect_with(config.clone(), *address, &ticket.server_name)
            {
                Ok(connecting) => outcome = self.shake(connecting).await,
                // Of the other family: the next address may do.
                Err(quinn::ConnectError::InvalidRemoteAddress(_)) => continue,
                Err(quinn::ConnectError::InvalidServerName(_)) => {
                    return Err(ConnectError::Ticket("unusable server name"));
                }
                Err(_) => return Err(ConnectError::EndpointClosed),
            }
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn shake(&self, connecting: quinn::Connecting) -> Result<Handshaken, ConnectError> {
        match timeout(self.deadlines.handshake, connecting).await {
            Ok(Ok(quic)) => Ok(Handshaken::new(quic, self.deadlines.welcome)),
            Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => {
                Err(ConnectError::HandshakeTimeout)
            }
            Ok(Err(error)) => Err(ConnectError::Refused(error.into())),
        }
    }

    /// Moves to another socket, bound to `local`, with all connections: what a phone does that changes from Wi-Fi to the mobile network.
    /// Gateways see it by the next packets and keep the seats (RFC 9000, section 9).
    ///
    /// # Errors
    /// When the address cannot be bound; the endpoint stays where it is then.
    pub fn rebind(&self, local: SocketAddr) -> io::Result<()> {
        self.quic.rebind(open_socket(local)?)
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Connections that are open, or draining after their end.
    pub fn open_connections(&self) -> usize {
        self.quic.open_connections()
    }

    /// Leaves on every connection and waits, for a second at most, until the gateways have been told. No new connection can be made.
    pub async fn shutdown(&self) {
        let left = VarInt::from_u32(CloseCode::Left as u32);
        self.quic.close(left, &[]);
        // Who has not heard of it by then finds out by its idle timeout.
        let _ = timeout(DRAIN, self.quic.wait_idle()).await;
    }

    /// Making a TLS configuration costs more than the rest of a connection attempt on this side, and its state is worth sharing.
    fn config_for(&self, certificates: &[[u8; 32]]) -> Result<quinn::ClientConfig, ConnectError> {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pinned.iter().find(|p| p.certificates == certificates) {
            return Ok(known.config.clone());
        }
        let crypto = tls::pinned_quic_client_config(certificates.to_vec())?;
        let crypto = QuicClientConfig::try_from(crypto)
            .map_err(|_| ConnectError::Ticket("no cipher suite for QUIC"))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        if pinned.len() == PINNED_CONFIGS {
            pinned.remove(0);
        }
        pinned.push(Pinned {
            certificates: certificates.to_vec(),
            config: config.clone(),
        });
        Ok(config)
    }
}

/// A socket with a receive buffer as large as the system grants: its default holds under 100 packets.
fn open_socket(local: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        // Systems that do not let one socket speak both families are spoken to in IPv6.
        if let Err(error) = socket.set_only_v6(false) {
            tracing::debug!(%error, "no dual-stack socket");
        }
    }
    if let Err(error) = socket.set_recv_buffer_size(SOCKET_BUFFER) {
        tracing::debug!(%error, "no larger receive buffer");
    }
    socket.bind(&local.into())?;
    Ok(socket.into())
}
