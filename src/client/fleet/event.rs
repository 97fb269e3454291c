//! What a fleet tells: what has come for which client, and how its connection ended.

use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{ConnectionError, Dir, Side, StreamId};
use thiserror::Error;

use crate::client::{Closed, TransportFailure};

/// Names one client of a fleet, for as long as the fleet lives: its place is used again, its name is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub(super) index: u32,
    pub(super) serial: u32,
}

impl Member {
    /// The client's place: small numbers, of which no two open clients have the same. It serves to keep what a caller knows of its clients
    /// in a `Vec`.
    pub const fn place(self) -> usize {
        self.index as usize
    }
}

/// A stream of one connection (RFC 9000, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream(pub(super) StreamId);

impl Stream {
    /// Whether the client opened it.
    pub fn is_ours(self) -> bool {
        self.0.initiator() == Side::Client
    }

    /// Whether both ends may write on it.
    pub fn is_bidirectional(self) -> bool {
        self.0.dir() == Dir::Bi
    }

    pub(super) fn is_writable(self) -> bool {
        self.is_bidirectional() || self.is_ours()
    }

    pub(super) fn is_readable(self) -> bool {
        self.is_bidirectional() || !self.is_ours()
    }
}

/// Something that happened to one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// To whom.
    pub member: Member,
    /// When the fleet read the packet that brought it off the socket, or ran the timer: for a datagram, the instant to measure latency by.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The handshake is done and the server's certificate is verified: datagrams and streams may be sent.
    Connected,
    /// A datagram has come. The bytes keep the packet alive that brought them: copy what is kept for long.
    Datagram(Bytes),
    /// The next bytes of a stream have come, in order.
    Bytes {
        /// On which.
        stream: Stream,
        /// 64 KiB at the most.
        bytes: Bytes,
    },
    /// The server sends nothing more on this stream.
    Ended {
        /// Which.
        stream: Stream,
        /// The code that it was reset with; none if it was finished and everything has been told.
        reset: Option<u64>,
    },
    /// A stream takes bytes again that [`write`](super::Fleet::write) did not take all of, or the server wants none any more.
    Writable(Stream),
    /// The connection has ended. It is the last event of a client, and every client has it once, also one that was closed from here.
    Closed(End),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The server's application closed it.
    Closed {
        /// Its code.
        code: u64,
        /// Its reason phrase.
        reason: Bytes,
    },
    /// The server has forgotten the connection, as one that was restarted has (a stateless reset; RFC 9000, section 10.3).
    Reset,
    /// Nothing was heard of the server for the idle timeout, or during the handshake.
    TimedOut,
    /// It was closed, or let go of, from here.
    Local,
    /// QUIC or TLS failed.
    Transport(TransportFailure),
}

impl End {
    /// The end as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Local => "local",
            Self::Transport(_) => "transport",
        }
    }
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        use ConnectionError as Quic;
        let text = error.to_string();
        let transport = |code, by_peer| {
            Self::Transport(TransportFailure {
                code,
                by_peer,
                text,
            })
        };
        match error {
            Quic::ApplicationClosed(close) => Self::Closed {
                code: close.error_code.into_inner(),
                reason: close.reason,
            },
            Quic::ConnectionClosed(close) => transport(close.error_code.into(), true),
            Quic::TransportError(error) => transport(error.code.into(), false),
            // The peer speaks no QUIC version of ours, or this endpoint has used up its connection ids: QUIC names no code for either.
            Quic::VersionMismatch | Quic::CidsExhausted => transport(0, false),
            Quic::Reset => Self::Reset,
            Quic::TimedOut => Self::TimedOut,
            Quic::LocallyClosed => Self::Local,
        }
    }
}

/// What the end of a connection to a gateway means to a game.
impl From<End> for Closed {
    fn from(end: End) -> Self {
        match end {
            End::Closed { code, reason } => Self::from_number(code, reason),
            End::Reset => Self::Reset,
            End::TimedOut => Self::Lost,
            End::Local => Self::Local,
            End::Transport(failure) => Self::Transport(failure),
        }
    }
}

/// Why something was not sent. The connection goes on, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotSent {
    /// There is no such client any more, or its connection has ended.
    #[error("the connection has ended")]
    Gone,
    /// It is too long for the path, or for the server.
    #[error("{length} bytes, where {limit} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// The server takes no datagrams, or has not said yet that it does: before [`What::Connected`].
    #[error("the server takes no datagrams")]
    Unsupported,
    /// The gateway has not let the client in yet ([`Players`](super::Players) alone says so).
    #[error("not let in yet")]
    NotIn,
    /// What was to be sent before is still waiting, as much as may wait ([`Players`](super::Players) alone says so).
    #[error("too much waits to be sent already")]
    Full,
    /// No such stream, or none that may be written to: it was finished or stopped.
    #[error("the stream takes nothing any more")]
    StreamClosed,
}

impl NotSent {
    /// The error as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::TooLong { .. } => "too_long",
            Self::Unsupported => "unsupported",
            Self::NotIn => "not_in",
            Self::Full => "full",
            Self::StreamClosed => "stream_closed",
        }
    }
}
