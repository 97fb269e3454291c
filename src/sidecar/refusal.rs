//! Why a call is refused, and what that is in gRPC: the one place where status codes are chosen.

use std::time::Duration;

use thiserror::Error;
use tonic::Status;

use crate::{
    id::{GatewayId, InvalidId},
    rpc::{self, whole_seconds},
    store::{EndedBy, StoreError},
    token::Rejection,
};

use super::{
    audit::{self, Event},
    login::{oidc::BadIdToken, verification::BadToken},
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
        "this session asks for connect tokens too often: the next one can be had in {} s", whole_seconds(*.wait)
    )]
    TooManyConnectTokens { wait: Duration },
    #[error(
        "this session is refreshed too often: ask again in {} s, with the same refresh token", whole_seconds(*.wait)
    )]
    TooManyRefreshes { wait: Duration },
    #[error(
        "this needs a client certificate with the role tickgate://backend/<name> or tickgate://admin/<name>"
    )]
    Role,
    #[error("this needs a client certificate with the role tickgate://admin/<name>")]
    AdminRole,
    #[error(
        "login method {0} is switched off here: use another one (sidecar.login says which; dev is for development on loopback)"
    )]
    MethodOff(&'static str),
    #[error("{0}: an e-mail address, such as ada@example.com")]
    Email(&'static str),
    #[error("{0}")]
    Login(BadLogin),
    // One text for all of them: what became of a nonce is nobody's business but its owner's, who asks for another in any case.
    #[error(
        "this nonce or challenge is unknown, spent or expired: ask for another, and present it once"
    )]
    Nonce(&'static str),
    #[error("{0}")]
    Token(BadToken),
    #[error("{0}")]
    IdToken(BadIdToken),
    #[error(
        "the issuer does not tell its keys, so nobody can say whether it has signed this: try again in {} s", whole_seconds(*.wait)
    )]
    IssuerDown { wait: Duration },
    #[error("too much mail is waiting: try again later")]
    MailBusy,
    #[error("too many passwords are being checked: try again later")]
    HashingBusy,
    #[error("asked too often: try again in {} s", whole_seconds(*.wait))]
    TooManyLogins { wait: Duration },
    #[error(
        "where this call comes from cannot be told: the proxy in front has to say it in x-forwarded-for"
    )]
    NoOrigin,
    #[error("this account is another player's: log in with it, or link another one")]
    LinkTaken,
    #[error("the player has an account of this kind already")]
    LinkHasOne,
    #[error("the player has as many accounts as there may be")]
    LinkTooMany,
    #[error(
        "this session logged in too long ago for that: log in again, and ask with the new session's token"
    )]
    NotFresh,
    #[error("the player has no such way in: see ListIdentities for those that there are")]
    NoSuchIdentity,
    #[error("this is the player's only way in: link another one first")]
    LastIdentity,
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
    #[error(
        "this took longer than its caller waits, or than a call may: nothing more is done for it"
    )]
    TooLate,
    #[error("the store cannot answer now: try again later")]
    Store(#[from] StoreError),
}

/// Why what was brought proves nothing. Told to its caller: it says what to do, and of others nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum BadLogin {
    #[error("that is not the code: {left} guesses are left")]
    WrongCode { left: u32 },
    #[error("there is no guess left at this code: ask for another")]
    NoGuessLeft,
    #[error("the code has expired: ask for another")]
    Expired,
    #[error("there is no such code, or it was used: ask for another")]
    NoSuchCode,
    // One text for all of them: whether the address is anybody's is not told.
    #[error("the e-mail address or the password is wrong")]
    Password,
    #[error(
        "too many wrong passwords in a row: log in by another way, or set another password by mail"
    )]
    TooManyFailures,
    #[error("the player's sessions were revoked meanwhile: log in again")]
    Outdated,
    #[error("the signature does not fit the key, the challenge, its end and the audience")]
    Signature,
}

impl BadLogin {
    fn label(self) -> &'static str {
        match self {
            Self::WrongCode { .. } => "wrong_code",
            Self::NoGuessLeft => "no_guess_left",
            Self::Expired => "code_expired",
            Self::NoSuchCode => "no_such_code",
            Self::Password => "bad_password",
            Self::TooManyFailures => "too_many_failures",
            Self::Outdated => "outdated",
            Self::Signature => "bad_signature",
        }
    }
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

    /// All that [`of_login`](Self::of_login) may say, but for the store's labels.
    pub(super) const OF_LOGINS: [&'static str; 37] = [
        "argument",
        "bearer",
        "no_origin",
        "rate_limited",
        "method_off",
        "wrong_code",
        "no_guess_left",
        "code_expired",
        "no_such_code",
        "bad_password",
        "too_many_failures",
        "outdated",
        "bad_signature",
        "unknown_nonce",
        "nonce_already_used",
        "nonce_expired",
        "link_wrong_purpose",
        "link_expired",
        "link_already_used",
        "link_unknown",
        "link_taken",
        "link_has_one",
        "link_too_many",
        "login_not_fresh",
        "hashing_busy",
        "mail_busy",
        "issuer_down",
        "id_token_malformed",
        "id_token_algorithm",
        "id_token_unknown_key",
        "id_token_bad_signature",
        "id_token_wrong_issuer",
        "id_token_wrong_audience",
        "id_token_wrong_party",
        "id_token_expired",
        "id_token_not_yet_valid",
        "id_token_no_nonce",
    ];

    /// Why a login was refused, in logs and metrics: the label, where it is not about a bearer's token.
    pub(super) fn of_login(&self) -> &'static str {
        match self {
            Self::NoBearer
            | Self::BearerExpired
            | Self::BearerRejected(_)
            | Self::BearerEnded(_)
            | Self::BearerUnknown => "bearer",
            _ => self.label(),
        }
    }

    /// The refusal's fixed name in logs and metrics; of a token, the true reason, which the caller is not told.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::NoBearer => "no_bearer",
            Self::BearerExpired => "expired",
            Self::BearerRejected(rejection) => rejection.label(),
            Self::BearerEnded(ended) | Self::SessionEnded(ended) => ended.label(),
            Self::BearerUnknown | Self::NoSuchSession => "no_such_session",
            Self::Refresh(bad) => bad.label(),
            Self::TooManyConnectTokens { .. }
            | Self::TooManyRefreshes { .. }
            | Self::TooManyLogins { .. } => "rate_limited",
            Self::Role | Self::AdminRole => "role",
            Self::MethodOff(_) => "method_off",
            Self::Login(bad) => bad.label(),
            Self::Nonce(label) => label,
            Self::Token(bad) => bad.label(),
            Self::IdToken(bad) => bad.label(),
            Self::IssuerDown { .. } => "issuer_down",
            Self::MailBusy => "mail_busy",
            Self::HashingBusy => "hashing_busy",
            Self::NoOrigin => "no_origin",
            Self::LinkTaken => "link_taken",
            Self::LinkHasOne => "link_has_one",
            Self::LinkTooMany => "link_too_many",
            Self::NotFresh => "login_not_fresh",
            Self::NoSuchIdentity => "no_such_identity",
            Self::LastIdentity => "last_identity",
            Self::Argument { .. } | Self::Id { .. } | Self::Email(_) => "argument",
            Self::NoSuchPlayer => "no_such_player",
            Self::NothingKnown => "nothing_known",
            Self::NoSuchGateway(_) | Self::NoSuchAddress => "no_such_gateway",
            Self::GatewayAway => "gateway_away",
            Self::GatewayDrains => "gateway_drains",
            Self::NoGateway => "no_gateway",
            Self::TooLate => "too_late",
            Self::Store(error) => error.label(),
        }
    }
}

/// How long to wait where it is the mail's or the processor's fault: as long as what waits takes.
const BUSY: Duration = Duration::from_secs(5);

impl Refusal {
    /// When to ask again, where that is known.
    fn wait(&self) -> Option<Duration> {
        match self {
            Self::TooManyConnectTokens { wait }
            | Self::TooManyRefreshes { wait }
            | Self::TooManyLogins { wait }
            | Self::IssuerDown { wait } => Some(*wait),
            Self::MailBusy | Self::HashingBusy => Some(BUSY),
            Self::GatewayAway | Self::GatewayDrains | Self::NoGateway | Self::Store(_) => {
                Some(rpc::AWAY)
            }
            _ => None,
        }
    }

    /// The reason as the calling code is told it. Of tokens and nonces that are refused it is one for all: whoever holds somebody else's
    /// learns nothing of what became of it. And what has become of the store is its operator's business.
    fn public_label(&self) -> &'static str {
        match self {
            Self::BearerRejected(_) => "bearer_rejected",
            Self::Refresh(_) => "refresh_refused",
            Self::Nonce(_) => "nonce_refused",
            Self::Store(_) => "store_unavailable",
            _ => self.label(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        audit::record(Event::Refused {
            reason: refusal.label(),
        });
        let (reason, wait) = (refusal.public_label(), refusal.wait());
        rpc::explained(&plain_status(&refusal), reason, wait)
    }
}

fn plain_status(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
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
        | Refusal::Login(_)
        | Refusal::Nonce(_)
        | Refusal::Token(_)
        | Refusal::IdToken(_)
        | Refusal::Refresh(_) => Status::unauthenticated(message),
        Refusal::Role | Refusal::AdminRole | Refusal::MethodOff(_) | Refusal::NoOrigin => {
            Status::permission_denied(message)
        }
        Refusal::Argument { .. } | Refusal::Id { .. } | Refusal::Email(_) => {
            Status::invalid_argument(message)
        }
        Refusal::LinkTaken | Refusal::LinkHasOne => Status::already_exists(message),
        Refusal::NoSuchSession
        | Refusal::NoSuchIdentity
        | Refusal::NoSuchPlayer
        | Refusal::NothingKnown
        | Refusal::NoSuchGateway(_)
        | Refusal::NoSuchAddress => Status::not_found(message),
        Refusal::TooManyConnectTokens { .. }
        | Refusal::TooManyRefreshes { .. }
        | Refusal::TooManyLogins { .. }
        | Refusal::LinkTooMany => Status::resource_exhausted(message),
        Refusal::SessionEnded(_) | Refusal::NotFresh | Refusal::LastIdentity => {
            Status::failed_precondition(message)
        }
        Refusal::GatewayAway
        | Refusal::GatewayDrains
        | Refusal::NoGateway
        | Refusal::MailBusy
        | Refusal::HashingBusy
        | Refusal::IssuerDown { .. }
        | Refusal::Store(_) => Status::unavailable(message),
        Refusal::TooLate => Status::deadline_exceeded(message),
    }
}
