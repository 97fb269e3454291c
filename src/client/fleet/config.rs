//! What a fleet is made of, and how its clients speak QUIC.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn_proto::{
    ClientConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};
use thiserror::Error;

use crate::{
    client::endpoint::{
        DATAGRAMS_IN, DATAGRAMS_OUT, IDLE_TIMEOUT, KEEP_ALIVE, RECEIVE_WINDOW, SEND_WINDOW,
    },
    clock::Clock,
};

/// Sockets of a fleet, by default.
pub const DEFAULT_SOCKETS: usize = 16;
/// What is asked of the kernel for each socket's buffers, in bytes: at 10,000 clients x 30 Hz on 16 sockets, 100 ms of scheduling delay are
/// 1,900 packets a socket, which the kernel counts as some 800 to 2,300 bytes each.
pub const DEFAULT_SOCKET_BUFFER: usize = 4 * 1_024 * 1_024;

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The local addresses to send from, in turn. Any of 127.0.0.0/8 may stand for a network of its own on one machine. Default: 127.0.0.1.
    pub sources: Vec<IpAddr>,
    /// How many UDP sockets the clients share, each with a port of its own; the first is bound to the first source, the second to the second,
    /// and so on, around and around. Default 16, and 16 to 64 is right for thousands: all clients on one socket would reach one worker of a
    /// server that has several, and a socket for each would take some kilobytes of kernel memory and a system call for every packet in.
    pub sockets: usize,
    /// What to ask of the kernel for each socket's receive and send buffer, in bytes; it may give less (`net.core.rmem_max`). Default 4 MiB.
    pub socket_buffer: usize,
    /// Where time comes from. Default: the system.
    pub clock: Clock,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            sources: vec![Ipv4Addr::LOCALHOST.into()],
            sockets: DEFAULT_SOCKETS,
            socket_buffer: DEFAULT_SOCKET_BUFFER,
            clock: Clock::system(),
        }
    }
}

/// Why there is no fleet, or no new client of one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FleetError {
    /// A fleet needs a source address and a socket.
    #[error("a fleet needs at least one source address and one socket")]
    Empty,
    /// A source address could not be bound.
    #[error("cannot bind UDP {address}: {source}")]
    Bind {
        /// Which.
        address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system lets nobody wait for sockets.
    #[error("cannot wait for sockets: {0}")]
    Poll(io::Error),
    /// No socket of the fleet has this number, or none is of the server's address family.
    #[error("the fleet has no such socket, or none of the server's address family")]
    NoSocket,
    /// The TLS configuration cannot begin a QUIC connection: it lacks TLS 1.3 or TLS13_AES_128_GCM_SHA256.
    #[error(
        "the TLS configuration lacks TLS 1.3 or TLS13_AES_128_GCM_SHA256, which QUIC's first packets need"
    )]
    NoInitialCipherSuite,
    /// The server's name or address cannot be connected to.
    #[error("the server cannot be connected to: {0}")]
    Server(&'static str),
}

impl FleetError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Bind { .. } => "bind",
            Self::Poll(_) => "poll",
            Self::NoSocket => "no_socket",
            Self::NoInitialCipherSuite => "no_initial_cipher_suite",
            Self::Server(_) => "server",
        }
    }
}

/// How clients speak QUIC. The default is what [`Endpoint`](crate::client::Endpoint) does, so that to a server a fleet looks like so many
/// clients of this library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Unheard for this long, the connection is lost. Default 10 s.
    pub idle_timeout: Duration,
    /// A client that has nothing to say pings this often; none: never. Default 3 s.
    pub keep_alive: Option<Duration>,
    /// Streams of each kind that the server may have open at once. Default 0.
    pub peer_streams: u32,
    /// Bytes of streams that may be on their way in. Default 32 KiB.
    pub receive_window: u32,
    /// Bytes of streams that may wait or be unacknowledged on their way out. Default 64 KiB.
    pub send_window: u64,
    /// Bytes of datagrams received and not yet told; the oldest make room. Default 64 KiB.
    pub datagrams_in: usize,
    /// Bytes of datagrams that may wait to be sent; the oldest make room. Default 32 KiB.
    pub datagrams_out: usize,
    /// Whether to find out if the path carries packets larger than 1,200 bytes. Default no.
    pub mtu_discovery: bool,
    /// Whether several packets of one client may leave in one system call (GSO). Default no: clients send one small packet at a time. Packets of
    /// different clients never do, though they could: no network hands them to a server that way, and it would find them cheaper than they are.
    pub segmentation: bool,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            idle_timeout: IDLE_TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
            peer_streams: 0,
            receive_window: RECEIVE_WINDOW,
            send_window: SEND_WINDOW,
            datagrams_in: DATAGRAMS_IN,
            datagrams_out: DATAGRAMS_OUT,
            mtu_discovery: false,
            segmentation: false,
        }
    }
}

impl Transport {
    /// A game's needs are small: no streams from the gateway, little in flight, packets that fit every path.
    pub(in crate::client) fn config(&self) -> TransportConfig {
        let Self {
            idle_timeout,
            keep_alive,
            peer_streams,
            receive_window,
            send_window,
            datagrams_in,
            datagrams_out,
            mtu_discovery,
            segmentation,
        } = *self;
        let idle = u64::try_from(idle_timeout.as_millis()).unwrap_or(u64::MAX);
        let idle = VarInt::from_u64(idle).unwrap_or(VarInt::MAX);
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(peer_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(peer_streams))
            .stream_receive_window(VarInt::from_u32(receive_window))
            .receive_window(VarInt::from_u32(receive_window))
            .send_window(send_window)
            .datagram_receive_buffer_size(Some(datagrams_in))
            .datagram_send_buffer_size(datagrams_out)
            .keep_alive_interval(keep_alive)
            .max_idle_timeout(Some(IdleTimeout::from(idle)))
            // Payloads are 1,150 bytes at most, which 1,200-byte packets carry: nothing would be gained by finding out what else fits.
            .mtu_discovery_config(mtu_discovery.then(MtuDiscoveryConfig::default))
            // One small packet at a time: nothing to segment, and some network cards fail at it.
            .enable_segmentation_offload(segmentation);
        config
    }
}

/// Whom to connect to, and what to believe of it. Cheap to clone; thousands of clients share one.
#[derive(Debug, Clone)]
pub struct Server {
    pub(super) address: SocketAddr,
    pub(super) name: Arc<str>,
    pub(super) config: ClientConfig,
    pub(super) datagrams_out: usize,
}

impl Server {
    /// The server at `address`, asked for by `name`. `tls` says which ALPN protocol to speak and which certificates to believe: those that
    /// [`tls::pinned_quic_client_config`](crate::tls::pinned_quic_client_config) pins, for example, or any public root's.
    ///
    /// # Errors
    /// [`FleetError::NoInitialCipherSuite`].
    pub fn new(
        address: SocketAddr,
        name: &str,
        tls: rustls::ClientConfig,
        transport: &Transport,
    ) -> Result<Self, FleetError> {
        let crypto =
            QuicClientConfig::try_from(tls).map_err(|_| FleetError::NoInitialCipherSuite)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport.config()));
        Ok(Self {
            address,
            name: name.into(),
            config,
            datagrams_out: transport.datagrams_out,
        })
    }

    /// The same server at another address: a relay on the way to it, or another of its own.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    /// The same server by another name and address.
    pub(super) fn named(&self, address: SocketAddr, name: &str) -> Self {
        Self {
            address,
            name: name.into(),
            ..self.clone()
        }
    }

    /// Where it is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}
