//! Why a call is refused, and what that is in gRPC: the one place where status codes are chosen.

use std::time::Duration;

use thiserror::Error;
use tonic::Status;

use crate::{
    id::{GatewayId, InvalidId},
    store::{EndedBy, StoreError},
    token::Rejection,
};

/// A call that is refused. The message says what to do, and holds nothing secret.
#[derive(Debug, Clone, Error)]
pub(super) enum Refusal {
    #[error(
        "send the session token as metadata `authorization: Bearer v4.local.…`; Login gives one"
    )]
    NoBearer,
    #[error("the session token has expired: log in again")]
    BearerExpired,
    #[error("the session token is not accepted: log in again")]
    BearerRejected(Rejection),
    #[error("the session is over ({}): log in again", .0.label())]
    BearerEnded(EndedBy),
    #[error("the session does not exist any more: log in again")]
    BearerUnknown,
    // One text for all of them: whoever holds somebody else's token learns nothing of what became of it.
    #[error(
        "the refresh token is refused, expired or used before, or its session is over: log in again"
    )]
    Refresh(BadRefresh),
    #[error(
        "this session asks for connect tokens too often: the next one can be had in {} s", seconds(.wait)
    )]
    TooManyConnectTokens { wait: Duration },
    #[error(
        "this session is refreshed too often: ask again in {} s, with the same refresh token", seconds(.wait)
    )]
    TooManyRefreshes { wait: Duration },
    #[error(
        "this needs a client certificate with the role tickgate://backend/<name> or tickgate://admin/<name>"
    )]
    Role,
    #[error("this needs a client certificate with the role tickgate://admin/<name>")]
    AdminRole,
    #[error(
        "{0} is switched off here: use another login method, or a development sidecar on loopback"
    )]
    MethodOff(&'static str),
    #[error("{field}: {allowed}")]
    Argument {
        field: &'static str,
        allowed: &'static str,
    },
    #[error("{field}: {source}")]
    Id {
        field: &'static str,
        source: InvalidId,
    },
    #[error("no such session; one that ended long ago is forgotten")]
    NoSuchSession,
    #[error("no such player")]
    NoSuchPlayer,
    #[error("nothing is known of it; what happened long ago is forgotten")]
    NothingKnown,
    #[error("the session is over ({}): create another one", .0.label())]
    SessionEnded(EndedBy),
    #[error("gateway {0} is not attached: see ListGateways for those that are")]
    NoSuchGateway(GatewayId),
    #[error(
        "no attached gateway advertises that address: see ListGateways for those that are attached"
    )]
    NoSuchAddress,
    #[error(
        "that gateway is not attached now: try again when it has come back, or ask for another"
    )]
    GatewayAway,
    #[error("that gateway drains, or every one does: ask for another, or try again later")]
    GatewayDrains,
    #[error("no gateway is attached now: try again when one has started or come back")]
    NoGateway,
    #[error("the store cannot answer now: try again later")]
    Store(#[from] StoreError),
}

/// Why a refresh token is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadRefresh {
    /// It does not open.
    Rejected(Rejection),
    /// It had been used before, and has ended its session.
    Reused,
    /// Its session has ended, or is not known any more.
    Ended(Option<EndedBy>),
}

impl BadRefresh {
    fn label(self) -> &'static str {
        match self {
            Self::Rejected(rejection) => rejection.label(),
            Self::Reused => "refresh_reused",
            Self::Ended(Some(by)) => by.label(),
            Self::Ended(None) => "no_such_session",
        }
    }
}

impl Refusal {
    /// The labels of what a connect token may be refused for, but for the store's.
    pub(super) const OF_CONNECT_TOKENS: [&'static str; 6] = [
        "argument",
        "rate_limited",
        "no_such_gateway",
        "gateway_away",
        "gateway_drains",
        "no_gateway",
    ];

    /// The refusal's fixed name in logs and metrics; of a token, the true reason, which the caller is not told.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::NoBearer => "no_bearer",
            Self::BearerExpired => "expired",
            Self::BearerRejected(rejection) => rejection.label(),
            Self::BearerEnded(ended) | Self::SessionEnded(ended) => ended.label(),
            Self::BearerUnknown | Self::NoSuchSession => "no_such_session",
            Self::Refresh(bad) => bad.label(),
            Self::TooManyConnectTokens { .. } | Self::TooManyRefreshes { .. } => "rate_limited",
            Self::Role | Self::AdminRole => "role",
            Self::MethodOff(_) => "method_off",
            Self::Argument { .. } | Self::Id { .. } => "argument",
            Self::NoSuchPlayer => "no_such_player",
            Self::NothingKnown => "nothing_known",
            Self::NoSuchGateway(_) | Self::NoSuchAddress => "no_such_gateway",
            Self::GatewayAway => "gateway_away",
            Self::GatewayDrains => "gateway_drains",
            Self::NoGateway => "no_gateway",
            Self::Store(error) => error.label(),
        }
    }
}

/// The metadata that says in how many seconds to ask again, as the header of that name does in HTTP (RFC 9110, section 10.2.3).
const RETRY_AFTER: &str = "retry-after";

/// Whole seconds, rounded up: who waits for as long is not too early.
const fn seconds(wait: &Duration) -> u128 {
    wait.as_nanos().div_ceil(1_000_000_000)
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match &refusal {
            Refusal::Store(error) => {
                tracing::error!(label = refusal.label(), %error, "call failed");
            }
            _ => tracing::debug!(label = refusal.label(), "call refused"),
        }
        match refusal {
            Refusal::NoBearer
            | Refusal::BearerExpired
            | Refusal::BearerRejected(_)
            | Refusal::BearerEnded(_)
            | Refusal::BearerUnknown
            | Refusal::Refresh(_) => Self::unauthenticated(message),
            Refusal::Role | Refusal::AdminRole | Refusal::MethodOff(_) => {
                Self::permission_denied(message)
            }
            Refusal::Argument { .. } | Refusal::Id { .. } => Self::invalid_argument(message),
            Refusal::NoSuchSession
            | Refusal::NoSuchPlayer
            | Refusal::NothingKnown
            | Refusal::NoSuchGateway(_)
            | Refusal::NoSuchAddress => Self::not_found(message),
            Refusal::TooManyConnectTokens { wait } | Refusal::TooManyRefreshes { wait } => {
                let mut status = Self::resource_exhausted(message);
                let seconds = u64::try_from(seconds(&wait)).unwrap_or(u64::MAX);
                status.metadata_mut().insert(RETRY_AFTER, seconds.into());
                status
            }
            Refusal::SessionEnded(_) => Self::failed_precondition(message),
            Refusal::GatewayAway
            | Refusal::GatewayDrains
            | Refusal::NoGateway
            | Refusal::Store(_) => Self::unavailable(message),
        }
    }
}
