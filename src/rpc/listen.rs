//! The listening end: so many connections and no more, TLS handshakes beside each other, each with a deadline, under a certificate
//! that can be replaced.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{Stream, stream};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::{
    Exempt, Peer, Role,
    shares::{Share, Shares},
};

/// What a client says first: the HTTP/2 connection preface (RFC 9113, section 3.4), 24 bytes.
const PREFACE: usize = 24;

/// The bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many connections there may be, handshakes included; one more is dropped.
    pub(super) connections: usize,
    /// How many of them one network may have (IPv4 address, IPv6 /64); one more is dropped.
    pub(super) of_one_network: usize,
    /// How many may be unfinished; one more drops the oldest.
    pub(super) handshakes: usize,
    /// How long one may take, and after it the client's first words.
    pub(super) patience: Duration,
    /// How long to wait after the system refused to accept.
    pub(super) pause: Duration,
}

impl Default for Limits {
    /// 4,096 connections are more than the backends, gateways and players that call at one moment, and few enough that they alone
    /// do not use up a service's file descriptors (8,192 or more is usual). An eighth of them for one network is what a large household, an
    /// office or a backend needs, and leaves the others theirs. 1,024 handshakes of some 20 KiB each are 20 MiB, and twice what one
    /// network can have. A handshake takes three round trips, so 10 s serve the worst of lines. 50 ms without file descriptors are long
    /// enough for some to be closed, and short enough not to be felt.
    fn default() -> Self {
        Self {
            connections: 4_096,
            of_one_network: 512,
            handshakes: 1_024,
            patience: Duration::from_secs(10),
            pause: Duration::from_millis(50),
        }
    }
}

/// Accepts gRPC connections for `serve_with_incoming`; it never ends, and drops its unfinished handshakes when it is dropped.
///
/// With `tls` each new connection is served with the configuration that is in there at that moment. Handshakes run beside each
/// other: a peer that stalls in its own delays nobody, and is dropped after 10 s, or sooner when it is the oldest of 1,024. Without
/// `tls` the listener must be bound to a loopback address.
///
/// There are at most 4,096 connections, and 512 from one network; one more is dropped at once. One that does not begin to speak HTTP/2
/// within 10 s breaks.
///
/// # Errors
/// The only item that is an error is [`io::ErrorKind::PermissionDenied`], for plain text beyond loopback; it is the last item.
/// Failed handshakes and a system that refuses to accept are logged, and listening goes on.
pub fn listen(
    listener: TcpListener,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
) -> impl Stream<Item = io::Result<RpcStream>> + Send {
    listen_sharing(listener, tls, Arc::new(|_| false))
}

/// As [`listen`]; connections from addresses that are `exempt` count for no network's share.
///
/// # Errors
/// As [`listen`].
pub fn listen_sharing(
    listener: TcpListener,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    exempt: Exempt,
) -> impl Stream<Item = io::Result<RpcStream>> + Send {
    listen_within(listener, tls, Limits::default(), exempt)
}

pub(super) fn listen_within(
    listener: TcpListener,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    limits: Limits,
    exempt: Exempt,
) -> impl Stream<Item = io::Result<RpcStream>> + Send {
    let incoming = Incoming {
        listener,
        tls,
        limits,
        places: Arc::new(Semaphore::new(limits.connections)),
        shares: Shares::new(limits.of_one_network, exempt),
        handshakes: JoinSet::new(),
        by_age: VecDeque::new(),
    };
    stream::unfold(Some(incoming), async |incoming| {
        let mut incoming = incoming?;
        match incoming.next().await {
            Ok(stream) => Some((Ok(stream), Some(incoming))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// A listener with its handshakes in flight.
struct Incoming {
    listener: TcpListener,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    limits: Limits,
    /// One for each connection, which holds it.
    places: Arc<Semaphore>,
    shares: Shares,
    handshakes: JoinSet<Option<RpcStream>>,
    /// The same handshakes, oldest first; some may have finished.
    by_age: VecDeque<AbortHandle>,
}

impl Incoming {
    async fn next(&mut self) -> io::Result<RpcStream> {
        if self.tls.is_none() && !self.listener.local_addr()?.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "gRPC in plain text is for loopback addresses alone",
            ));
        }
        loop {
            tokio::select! {
                // What is finished goes first, so that finished handshakes never pile up.
                biased;
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(stream)) = done {
                        return Ok(stream);
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        if let Some(stream) = self.begin(stream, address) {
                            return Ok(stream);
                        }
                    }
                    Err(error) => self.endure(&error).await,
                },
            }
        }
    }

    /// Starts the handshake of an accepted connection; without TLS there is none, and the connection is ready.
    fn begin(&mut self, stream: TcpStream, address: SocketAddr) -> Option<RpcStream> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::debug!(%address, "too many gRPC connections: a new one is dropped");
            return None;
        };
        let Some(share) = self.shares.take(address.ip()) else {
            tracing::debug!(%address, "too many gRPC connections from one network: a new one is dropped");
            return None;
        };
        let place = (place, share);
        // Small messages that are due now: Nagle's algorithm would hold them back for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "the connection is gone already");
            return None;
        }
        let patience = self.limits.patience;
        let Some(tls) = &self.tls else {
            let peer = Peer {
                address,
                role: None,
            };
            return Some(RpcStream::new(Io::Plain(stream), peer, patience, place));
        };
        let acceptor = TlsAcceptor::from(tls.load_full());
        self.make_room();
        let task = self.handshakes.spawn(async move {
            let stream = handshake(acceptor, stream, address, patience).await?;
            Some(RpcStream::secured(stream, address, patience, place))
        });
        self.by_age.push_back(task);
        None
    }

    /// Sees to it that one more handshake is within the limit, if need be at the cost of the oldest.
    fn make_room(&mut self) {
        if self.by_age.len() >= self.limits.handshakes {
            self.by_age.retain(|task| !task.is_finished());
        }
        if self.by_age.len() >= self.limits.handshakes
            && let Some(oldest) = self.by_age.pop_front()
        {
            oldest.abort();
            tracing::debug!("too many gRPC handshakes in flight: the oldest is dropped");
        }
    }

    /// Goes on after a failed accept.
    async fn endure(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(
            error.kind(),
            ConnectionAborted | ConnectionReset | Interrupted
        ) {
            // One connection's own misfortune, as accept(2) reports it.
            return;
        }
        tracing::warn!(%error, "gRPC connections cannot be accepted (out of file descriptors?)");
        tokio::time::sleep(self.limits.pause).await;
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    patience: Duration,
) -> Option<TlsStream<TcpStream>> {
    match timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "gRPC handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "gRPC handshake took too long");
            None
        }
    }
}

/// A gRPC connection, accepted and, with TLS, authenticated.
#[derive(Debug)]
pub struct RpcStream {
    io: Io,
    peer: Peer,
    /// None once the peer has said its first words.
    silence: Option<Silence>,
    /// Given back when the connection is dropped.
    _place: Place,
}

/// A place among all connections, and in the network's share.
type Place = (OwnedSemaphorePermit, Share);

/// A connection whose peer has not spoken yet.
#[derive(Debug)]
struct Silence {
    /// Bytes of the preface that are to come.
    missing: usize,
    ends: Pin<Box<Sleep>>,
}

impl RpcStream {
    /// Must be called within a tokio runtime.
    fn new(io: Io, peer: Peer, patience: Duration, place: Place) -> Self {
        Self {
            io,
            peer,
            silence: Some(Silence {
                missing: PREFACE,
                ends: Box::pin(sleep(patience)),
            }),
            _place: place,
        }
    }

    fn secured(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        patience: Duration,
        place: Place,
    ) -> Self {
        // Certificates that stand here were verified: without a client CA, none was asked for.
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let role = leaf.and_then(Role::of_certificate);
        let io = Io::Tls(Box::new(stream));
        Self::new(io, Peer { address, role }, patience, place)
    }

    /// Who is at the other end.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for RpcStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Hands one call on to whatever the connection runs over.
macro_rules! on_io {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.as_mut().get_mut().io {
            Io::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Io::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for RpcStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = on_io!(self, stream => stream.poll_read(cx, buf))?;
        if let Some(silence) = &mut self.silence {
            let came = buf.filled().len().saturating_sub(before);
            silence.missing = silence.missing.saturating_sub(came);
            if silence.missing == 0 {
                self.silence = None;
            } else if silence.ends.as_mut().poll(cx).is_ready() {
                // A server that speaks HTTP/2 always has a read pending, so this is noticed when it is due.
                tracing::debug!(address = %self.peer.address, "a gRPC connection was opened and not used");
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read.map(Ok)
    }
}

impl AsyncWrite for RpcStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_io!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_io!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(self, stream => stream.poll_shutdown(cx))
    }
}
