//! A seat at a gateway as the client has it: datagrams and messages out and in, until it ends.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use thiserror::Error;
use tokio::{sync::Mutex, task::JoinSet};

use super::{
    Closed,
    keepalive::keep_alive,
    stream::{Incoming, Link, Outgoing},
};
use crate::wire::{self, CloseCode, MAX_DATAGRAM, MAX_MESSAGE, Welcome};

/// Why something was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// It is too long. Nothing was sent, and the connection goes on.
    #[error("{length} bytes, where {limit} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// The gateway takes no datagrams: it is none of ours.
    #[error("the gateway takes no datagrams")]
    Unsupported,
    /// There is no connection just now, and another one is being made. It was not sent, and is not kept to be sent later.
    #[error("away from the game just now; nothing was sent")]
    Away,
    /// What was to be sent before is still waiting, as much as may wait. It was not sent.
    #[error("too much waits to be sent already; nothing was sent")]
    Full,
    /// The game is over for this client, and no connection will be made any more.
    #[error("the game has ended")]
    Over,
    /// The connection has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl SendError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::Unsupported => "unsupported",
            Self::Away => "away",
            Self::Full => "full",
            Self::Over => "over",
            Self::Closed(closed) => closed.label(),
        }
    }
}

/// An admitted connection. All its calls take `&self`, so one task may send while another receives. Dropping it leaves: it closes with
/// code 0.
///
/// The gateway hears of it at least every 3 s, or as often as Welcome asks for; a gateway not heard of for 10 s is [`Closed::Lost`].
#[derive(Debug)]
pub struct Connection {
    link: Link,
    welcome: Welcome,
    outgoing: Mutex<Outgoing>,
    incoming: Mutex<Incoming>,
    /// What pings more often than QUIC by itself, if the gateway asks for it.
    _keep_alive: Option<JoinSet<()>>,
}

impl Connection {
    pub(super) fn new(
        link: Link,
        welcome: Welcome,
        outgoing: Mutex<Outgoing>,
        incoming: Mutex<Incoming>,
    ) -> Self {
        let keep_alive = keep_alive(&link.quic, welcome.ping_interval_ms);
        Self {
            link,
            welcome,
            outgoing,
            incoming,
            _keep_alive: keep_alive,
        }
    }

    /// Closes a connection that is another session's than it should be.
    pub(super) fn refuse_session(&self) -> Closed {
        self.link
            .fail(Closed::OtherSession, CloseCode::ProtocolViolation)
    }

    /// What the gateway said on admission: client id, session, limits.
    pub const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Sends a datagram: unreliable, unordered, at once. When datagrams are sent faster than the network takes them, the oldest unsent
    /// ones (beyond 32 KiB) are dropped.
    ///
    /// # Errors
    /// [`SendError::TooLong`] above 1,150 bytes or the gateway's own limit; [`SendError::Closed`] when the connection has ended.
    pub fn send_datagram(&self, payload: Bytes) -> Result<(), SendError> {
        let limit = usize::from(self.welcome.max_datagram).min(MAX_DATAGRAM);
        send_datagram(&self.link, payload, limit)
    }

    /// The next datagram. When they are not taken, the oldest (beyond 64 KiB) are dropped. Safe to cancel.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn recv_datagram(&self) -> Result<Bytes, Closed> {
        match self.link.quic.read_datagram().await {
            Ok(payload) => Ok(payload),
            Err(_) => Err(self.closed().await),
        }
    }

    /// The next datagram if there is one now; for clients that poll once per frame. After the end there is none.
    pub fn try_recv_datagram(&self) -> Option<Bytes> {
        // Buffered datagrams are looked at before a waker is registered, so this neither waits nor leaves anything behind.
        self.link.quic.read_datagram().now_or_never()?.ok()
    }

    /// Sends a message: reliable and in order. Waits while the gateway has not taken earlier ones.
    ///
    /// If it is cancelled, the message is sent whole with the next one or not at all, never in part.
    ///
    /// # Errors
    /// [`SendError::TooLong`] above 16 KiB; [`SendError::Closed`] when the connection has ended.
    pub async fn send_message(&self, payload: &[u8]) -> Result<(), SendError> {
        let mut outgoing = self.outgoing.lock().await;
        match outgoing
            .send(|out| wire::encode_message(payload, out))
            .await
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SendError::TooLong {
                length: payload.len(),
                limit: MAX_MESSAGE,
            }),
            Err(failure) => Err(self.link.settle(failure).await.into()),
        }
    }

    /// The next message. While they are not taken, the gateway cannot send more than some 32 KiB of them. Safe to cancel.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn recv_message(&self) -> Result<Bytes, Closed> {
        let mut incoming = self.incoming.lock().await;
        match incoming.message(MAX_MESSAGE).await {
            Ok(payload) => Ok(payload),
            Err(failure) => Err(self.link.settle(failure).await),
        }
    }

    /// Leaves: the seat ends at once. What was sent and not yet delivered may be lost.
    pub fn close(&self) {
        self.link.close(CloseCode::Left);
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> Closed {
        self.link.closed().await
    }

    /// How the connection ended, if it has.
    pub fn close_reason(&self) -> Option<Closed> {
        self.link.close_reason()
    }

    /// The gateway's address.
    pub fn remote_address(&self) -> SocketAddr {
        self.link.quic.remote_address()
    }

    /// QUIC's estimate of the round-trip time. Takes a lock: sample it about once a second.
    pub fn round_trip_time(&self) -> Duration {
        self.link.quic.rtt()
    }
}

pub(super) fn send_datagram(link: &Link, payload: Bytes, limit: usize) -> Result<(), SendError> {
    let length = payload.len();
    if length > limit {
        return Err(SendError::TooLong { length, limit });
    }
    match link.quic.send_datagram(payload) {
        Ok(()) => Ok(()),
        Err(quinn::SendDatagramError::TooLarge) => {
            let limit = link.quic.max_datagram_size().unwrap_or(0);
            Err(SendError::TooLong { length, limit })
        }
        Err(quinn::SendDatagramError::ConnectionLost(error)) => {
            Err(link.close_reason().unwrap_or_else(|| error.into()).into())
        }
        Err(quinn::SendDatagramError::UnsupportedByPeer | quinn::SendDatagramError::Disabled) => {
            Err(SendError::Unsupported)
        }
    }
}
