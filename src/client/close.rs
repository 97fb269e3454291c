//! How a connection ended, and what to do about it.

use std::fmt;

use bytes::Bytes;

use super::fleet::End;
use crate::wire::{Advice, CloseCode, FrameError};

/// QUIC's APPLICATION_ERROR (RFC 9000, section 20.1): what a close by the application looks like before the handshake is done.
const APPLICATION_ERROR: u64 = 0x0c;
/// QUIC's CONNECTION_REFUSED: the peer takes no new connection.
const CONNECTION_REFUSED: u64 = 0x02;
/// TLS alert no_application_protocol (120) as a QUIC error: the peer does not speak `tickgate/1` at all.
const NO_APPLICATION_PROTOCOL: u64 = 0x0178;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The gateway closed it, and says why.
    Gateway {
        /// Why.
        code: CloseCode,
        /// The reason phrase: for [`CloseCode::Kicked`] the simulation's own reason, see [`Closed::kick_reason`].
        reason: Bytes,
    },
    /// The gateway closed it with a code that this version of the library does not know.
    Unknown(u64),
    /// Nothing was heard of the gateway for the idle timeout.
    Lost,
    /// The gateway has forgotten the connection: it was restarted.
    Reset,
    /// The client closed it, or dropped it.
    Local,
    /// QUIC or TLS failed.
    Transport(TransportFailure),
    /// The gateway sent what is no frame, or no frame it may send, so the client closed the connection.
    Violation(FrameError),
    /// The gateway let in another session than the ticket's, so the client closed the connection.
    OtherSession,
    /// The gateway ended the stream, and did not close the connection as it then must; so the client did.
    StreamEnded,
}

/// A QUIC transport error (RFC 9000, section 20.1; 0x100 to 0x1ff are TLS alerts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportFailure {
    /// The error code.
    pub code: u64,
    /// Whether the gateway reported it, or this end did.
    pub by_peer: bool,
    /// What QUIC says about it, for logs.
    pub text: String,
}

impl Closed {
    /// The end as a fixed label: the close code's own name if it had one.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Gateway { code, .. } => code.label(),
            Self::Unknown(_) => "unknown_code",
            Self::Lost => "lost",
            Self::Reset => "reset",
            Self::Local => "local",
            Self::Transport(_) => "transport",
            Self::Violation(_) => "violation",
            Self::OtherSession => "other_session",
            Self::StreamEnded => "stream_ended",
        }
    }

    /// What the client should do now.
    ///
    /// An unknown code says give up: the codes to come may be final ones, and a client that comes back against them would do so for
    /// ever. A gateway that cannot be spoken to (wrong certificate, other transport errors) is worth a new ticket, which carries the
    /// addresses and certificates of now.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Gateway { code, .. } => code.advice(),
            Self::Unknown(_) | Self::Violation(_) | Self::OtherSession => Advice::GiveUp,
            Self::Lost | Self::Reset | Self::StreamEnded => Advice::NewToken,
            Self::Local => Advice::Nothing,
            Self::Transport(failure) => match failure.code {
                APPLICATION_ERROR => Advice::NewToken,
                CONNECTION_REFUSED => Advice::RetryLater,
                NO_APPLICATION_PROTOCOL => Advice::GiveUp,
                _ => Advice::NewToken,
            },
        }
    }

    /// The close code, if the gateway gave one that we know.
    pub const fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Gateway { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The simulation's own reason, if it threw the client out and gave one.
    pub fn kick_reason(&self) -> Option<u32> {
        match self {
            Self::Gateway {
                code: CloseCode::Kicked,
                reason,
            } => reason.as_ref().try_into().ok().map(u32::from_be_bytes),
            _ => None,
        }
    }

    pub(super) fn from_number(number: u64, reason: Bytes) -> Self {
        match CloseCode::from_number(number) {
            Some(code) => Self::Gateway { code, reason },
            None => Self::Unknown(number),
        }
    }
}

impl From<quinn::ConnectionError> for Closed {
    fn from(error: quinn::ConnectionError) -> Self {
        End::from(error).into()
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway { code, .. } => match self.kick_reason() {
                Some(reason) => write!(
                    f,
                    "closed by the gateway: {}, reason {reason}",
                    code.label()
                ),
                None => write!(f, "closed by the gateway: {}", code.label()),
            },
            Self::Unknown(number) => {
                write!(f, "closed by the gateway with unknown code {number:#x}")
            }
            Self::Lost => f.write_str("connection lost: nothing heard of the gateway"),
            Self::Reset => f.write_str("the gateway does not know the connection any more"),
            Self::Local => f.write_str("closed by this client"),
            Self::Transport(failure) => f.write_str(&failure.text),
            Self::Violation(error) => write!(f, "the gateway broke the protocol: {error}"),
            Self::OtherSession => f.write_str("the gateway let in another session"),
            Self::StreamEnded => f.write_str("the gateway ended the stream"),
        }
    }
}

impl std::error::Error for Closed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_keeps_its_name_and_advice() {
        for code in CloseCode::ALL {
            let closed = Closed::from_number(code.number(), Bytes::new());
            assert_eq!(closed.code(), Some(*code));
            assert_eq!(closed.label(), code.label());
            assert_eq!(closed.advice(), code.advice());
        }
        let unknown = Closed::from_number(0xbeef, Bytes::new());
        assert_eq!(unknown, Closed::Unknown(0xbeef));
        assert_eq!(unknown.advice(), Advice::GiveUp);
    }

    #[test]
    fn a_kick_carries_the_simulations_reason() {
        let kicked = |reason: &'static [u8]| {
            Closed::from_number(CloseCode::Kicked.number(), Bytes::from_static(reason))
        };
        assert_eq!(kicked(&[0, 0, 1, 2]).kick_reason(), Some(258));
        assert_eq!(kicked(b"cheat").kick_reason(), None);
        assert!(
            kicked(&[0, 0, 1, 2])
                .to_string()
                .ends_with("kicked, reason 258")
        );
    }

    #[test]
    fn what_a_restart_looks_like_is_worth_a_new_token() {
        assert_eq!(
            Closed::from(quinn::ConnectionError::Reset).advice(),
            Advice::NewToken
        );
        assert_eq!(
            Closed::from(quinn::ConnectionError::TimedOut).advice(),
            Advice::NewToken
        );
        let early_close = Closed::Transport(TransportFailure {
            code: APPLICATION_ERROR,
            by_peer: true,
            text: String::new(),
        });
        assert_eq!(early_close.advice(), Advice::NewToken);
    }
}
