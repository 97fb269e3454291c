//! Which gRPC status stands for which end of a stream, both ways, in one place.

use tonic::{Code, Status};

use super::{AttachRefusal, attachment::EndReason, link::DetachReason};
use crate::rpc;

/// What a gateway is told when its stream ends; nothing if it is the one who left.
#[cfg_attr(not(feature = "sidecar"), allow(dead_code))] // The sidecar's shell is the only one to send it.
pub(super) fn status_of(reason: EndReason) -> Option<Status> {
    let code = match reason {
        EndReason::Left => return None,
        EndReason::Refused(refusal) => match refusal {
            AttachRefusal::WrongIdentity => Code::PermissionDenied,
            AttachRefusal::Malformed => Code::InvalidArgument,
            AttachRefusal::Fenced => Code::Aborted,
            AttachRefusal::NotReady => Code::Unavailable,
        },
        EndReason::Replaced => Code::Cancelled,
        EndReason::Malformed => Code::InvalidArgument,
        EndReason::AttachTimeout | EndReason::Silent => Code::DeadlineExceeded,
        EndReason::LogLost => Code::OutOfRange,
        EndReason::ShuttingDown => Code::Unavailable,
    };
    let wait = (code == Code::Unavailable).then_some(rpc::AWAY);
    let status = Status::new(code, reason.to_string());
    Some(rpc::explained(&status, reason.label(), wait))
}

/// What a status means to a gateway: whether the sidecar spoke, and what.
#[cfg_attr(not(feature = "gateway"), allow(dead_code))] // The gateway's shell is the only one to read it.
pub(super) fn reason_of(status: &Status) -> DetachReason {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => {
            DetachReason::Refused(AttachRefusal::WrongIdentity)
        }
        Code::InvalidArgument => DetachReason::Refused(AttachRefusal::Malformed),
        Code::Aborted => DetachReason::Refused(AttachRefusal::Fenced),
        Code::Cancelled | Code::DeadlineExceeded | Code::OutOfRange => DetachReason::Closed,
        // Also what a broken connection, a failed handshake and a proxy in between look like.
        _ => DetachReason::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_lasts_arrives_as_itself() {
        for refusal in [
            AttachRefusal::WrongIdentity,
            AttachRefusal::Malformed,
            AttachRefusal::Fenced,
        ] {
            let status = status_of(EndReason::Refused(refusal)).unwrap();
            assert_eq!(reason_of(&status), DetachReason::Refused(refusal));
        }
        assert!(status_of(EndReason::Left).is_none());
        // A stream that was replaced may be an older one of the same process: that one must come back.
        let replaced = status_of(EndReason::Replaced).unwrap();
        assert_eq!(reason_of(&replaced), DetachReason::Closed);
        assert_eq!(
            reason_of(&Status::unavailable("tcp connect error")),
            DetachReason::Unreachable
        );
    }
}
