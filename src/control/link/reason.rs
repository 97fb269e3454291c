//! Why the gateway's end is detached, and what follows from it.

use thiserror::Error;

use crate::control::AttachRefusal;

/// Why a stream ended, or could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DetachReason {
    /// The sidecar could not be reached, or the connection broke.
    #[error("the sidecar cannot be reached")]
    Unreachable,
    /// The sidecar ended the stream.
    #[error("the sidecar has closed the stream")]
    Closed,
    /// The sidecar would not have this gateway.
    #[error("refused: {0}")]
    Refused(AttachRefusal),
    /// No answer to Attach in time.
    #[error("no answer to the attach")]
    AttachTimeout,
    /// Nothing heard for [`SILENCE_LIMIT`](crate::control::SILENCE_LIMIT).
    #[error("no heartbeat from the sidecar")]
    Silent,
    /// A range of the log started beyond what is applied: events between are missing.
    #[error("a gap in the revocation log")]
    Gap,
    /// The log's head was told, and the events up to it did not follow within [`BEHIND_LIMIT`](super::BEHIND_LIMIT).
    #[error("the revocation log does not follow its head")]
    Behind,
    /// The sidecar broke the protocol.
    #[error("the sidecar broke the protocol")]
    Violation,
}

impl DetachReason {
    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Refused(refusal) => refusal.label(),
            Self::AttachTimeout => "attach_timeout",
            Self::Silent => "silent",
            Self::Gap => "gap",
            Self::Behind => "behind",
            Self::Violation => "violation",
        }
    }

    /// Whether trying again soon is pointless: somebody has to change something first.
    pub(super) const fn lasts(self) -> bool {
        matches!(
            self,
            Self::Refused(AttachRefusal::WrongIdentity | AttachRefusal::Malformed)
        )
    }

    /// Whether trying again is useless for good, and might do harm: the sidecar remembers who is fenced off, but one that was restored
    /// from a backup may not, and would send players to a process that has been replaced.
    pub(super) const fn is_final(self) -> bool {
        matches!(self, Self::Refused(AttachRefusal::Fenced))
    }
}
