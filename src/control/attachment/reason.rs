//! Why the sidecar's end of a stream comes to its end.

use thiserror::Error;

use crate::control::AttachRefusal;

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EndReason {
    /// The gateway closed it, or the connection broke.
    #[error("the gateway has left")]
    Left,
    /// The attach was refused, or the store failed.
    #[error("{0}")]
    Refused(AttachRefusal),
    /// A newer process of the gateway has attached, or a newer stream of this one. Which of the two, an attach tells.
    #[error("a newer attachment of this gateway has taken its place")]
    Replaced,
    /// No Attach in time, with all its seats; or the sidecar's host could not answer it in that time.
    #[error("the attach took too long")]
    AttachTimeout,
    /// Nothing heard for [`SILENCE_LIMIT`](crate::control::SILENCE_LIMIT).
    #[error("no heartbeat from the gateway")]
    Silent,
    /// A message that does not parse, or that does not belong there.
    #[error("malformed message")]
    Malformed,
    /// The log no longer holds what the gateway needs next; attaching again brings a snapshot.
    #[error("the log no longer holds this position")]
    LogLost,
    /// The sidecar is shutting down.
    #[error("the sidecar is shutting down")]
    ShuttingDown,
}

impl EndReason {
    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Refused(refusal) => refusal.label(),
            Self::Replaced => "replaced",
            Self::AttachTimeout => "attach_timeout",
            Self::Silent => "silent",
            Self::Malformed => "malformed",
            Self::LogLost => "log_lost",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
