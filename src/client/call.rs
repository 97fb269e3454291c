//! Calls to the sidecar: their deadlines, and what their failures mean.

use std::{error::Error as _, future::Future, time::Duration};

use thiserror::Error;
use tonic::{Code, ConnectError, Response, Status};

use super::MalformedTicket;
use crate::{rpc::RpcError, tls::TlsError, wire::Advice};

/// How long a call may take: the sidecar answers within milliseconds, so this is a connection attempt's time and some patience.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long one refresh may take: three of them fit into the sidecar's grace for lost answers (10 s), so that whoever asks again
/// after one without an answer is still within it.
pub(super) const REFRESH_DEADLINE: Duration = Duration::from_secs(3);

/// Why a call to the sidecar failed, and what to do about it. The text in a variant is the sidecar's own explanation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The certificates given cannot be used.
    #[error("unusable certificates: {0}")]
    Tls(#[from] TlsError),
    /// The sidecar's URL cannot be used.
    #[error("unusable sidecar address: {0}")]
    Address(#[from] RpcError),
    /// The sidecar cannot be reached, or the connection to it broke. Try again, backing off; the call may have taken effect.
    #[error("the sidecar cannot be reached ({0}); try again later")]
    Unreachable(String),
    /// The sidecar is not ready, or the gateway asked for, or every one, is not attached now. Try again, backing off.
    #[error("the sidecar, or every gateway asked for, is unavailable ({0}); try again later")]
    Unavailable(String),
    /// No answer in time. Try again, backing off; the call may have taken effect.
    #[error("the sidecar did not answer in time; try again later")]
    TimedOut,
    /// Too many calls. Try again later.
    #[error("too many calls ({0}); try again later")]
    RateLimited(String),
    /// The credentials or the session token are not accepted. Log in again.
    #[error("not accepted ({0}); log in again")]
    Unauthenticated(String),
    /// The session has ended. Log in again.
    #[error("the session has ended ({0}); log in again")]
    Ended(String),
    /// The caller may not do that: the login method is switched off, or the certificate is of another role.
    #[error("not allowed ({0}); check the sidecar's login methods or this client's certificate")]
    Denied(String),
    /// No such session or gateway. A gateway that is being restarted comes back.
    #[error("not found ({0}); check the id, or wait for the gateway to attach")]
    NotFound(String),
    /// The request itself is wrong. Correct it.
    #[error("refused as invalid ({0}); correct the request")]
    Invalid(String),
    /// The sidecar failed, or answered with a status that this call does not know.
    #[error("the sidecar failed ({0}); look at its log")]
    Failed(String),
    /// The sidecar's answer has a field that cannot be used. Its version does not fit this library's.
    #[error("unusable answer: {0}; do the versions fit?")]
    Malformed(&'static str),
}

impl CallError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Address(_) => "address",
            Self::Unreachable(_) => "unreachable",
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut => "timed_out",
            Self::RateLimited(_) => "rate_limited",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Ended(_) => "ended",
            Self::Denied(_) => "denied",
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "invalid",
            Self::Failed(_) => "failed",
            Self::Malformed(_) => "malformed",
        }
    }

    /// What the caller should do.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Unreachable(_) | Self::Unavailable(_) | Self::TimedOut | Self::RateLimited(_) => {
                Advice::RetryLater
            }
            Self::Unauthenticated(_) | Self::Ended(_) => Advice::LogIn,
            Self::Tls(_)
            | Self::Address(_)
            | Self::Denied(_)
            | Self::NotFound(_)
            | Self::Invalid(_)
            | Self::Failed(_)
            | Self::Malformed(_) => Advice::GiveUp,
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        // A status with a source was made on this side, of a connection that could not be made or broke.
        let broken = status.source().is_some();
        let message = status.message().to_owned();
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled if broken => {
                Self::Unreachable(message)
            }
            Code::Unavailable | Code::Aborted => Self::Unavailable(message),
            Code::DeadlineExceeded | Code::Cancelled => Self::TimedOut,
            Code::ResourceExhausted => Self::RateLimited(message),
            Code::Unauthenticated => Self::Unauthenticated(message),
            Code::FailedPrecondition => Self::Ended(message),
            Code::PermissionDenied => Self::Denied(message),
            Code::NotFound => Self::NotFound(message),
            Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists => {
                Self::Invalid(message)
            }
            Code::Ok | Code::Unknown | Code::Internal | Code::Unimplemented | Code::DataLoss => {
                Self::Failed(message)
            }
        }
    }
}

/// A call that brought no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// Why.
    pub(super) error: CallError,
    /// Whether the sidecar may have done what it was asked. A call whose connection was never made has certainly done nothing, nor
    /// one that the sidecar refused.
    pub(super) may_have_run: bool,
}

impl From<CallError> for Unanswered {
    /// What this end refuses has not been asked, and what it cannot read has been answered.
    fn from(error: CallError) -> Self {
        let may_have_run = matches!(error, CallError::Malformed(_) | CallError::TimedOut);
        Self {
            error,
            may_have_run,
        }
    }
}

impl From<Status> for Unanswered {
    fn from(status: Status) -> Self {
        Self {
            may_have_run: may_have_run(&status),
            error: status.into(),
        }
    }
}

fn may_have_run(status: &Status) -> bool {
    let mut source = status.source();
    let broken = source.is_some();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return false;
        }
        source = error.source();
    }
    // What the sidecar itself says it means, but for these, with which it says that it does not know.
    broken
        || matches!(
            status.code(),
            Code::Unknown
                | Code::Internal
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Aborted
                | Code::DataLoss
        )
}

/// Awaits a call's answer, and knows of a failed one whether it may have taken effect. Has no deadline.
pub(super) async fn ask<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Unanswered> {
    Ok(call.await?.into_inner())
}

impl From<MalformedTicket> for CallError {
    fn from(malformed: MalformedTicket) -> Self {
        Self::Malformed(malformed.0)
    }
}

/// Awaits a call's answer for at most `deadline`.
pub(super) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(CallError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_what_to_do() {
        let advice = |status: Status| CallError::from(status).advice();
        assert_eq!(advice(Status::unauthenticated("")), Advice::LogIn);
        assert_eq!(advice(Status::failed_precondition("")), Advice::LogIn);
        assert_eq!(advice(Status::unavailable("")), Advice::RetryLater);
        assert_eq!(advice(Status::resource_exhausted("")), Advice::RetryLater);
        assert_eq!(advice(Status::invalid_argument("")), Advice::GiveUp);
        assert_eq!(advice(Status::internal("bug")), Advice::GiveUp);
    }

    #[test]
    fn a_broken_connection_is_worth_another_try() {
        let broken = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        let broken = CallError::from(broken);
        assert_eq!(broken.label(), "unreachable");
        assert_eq!(broken.advice(), Advice::RetryLater);
    }

    #[test]
    fn a_call_that_never_left_has_done_nothing() {
        let refused = || ConnectError(Box::new(std::io::Error::other("connection refused")));
        assert!(!may_have_run(&Status::from_error(Box::new(refused()))));
        assert!(may_have_run(&Status::from_error(Box::new(
            std::io::Error::other("connection reset")
        ))));
        assert!(!may_have_run(&Status::unavailable("store closed")));
        assert!(!may_have_run(&Status::unauthenticated("")));
        assert!(may_have_run(&Status::internal("bug")));
    }

    #[tokio::test]
    async fn a_call_without_an_answer_times_out() {
        let call = std::future::pending::<Result<Response<()>, Status>>();
        let failure = within(Duration::ZERO, call).await.unwrap_err();
        assert_eq!(failure.label(), "timed_out");
    }
}
