//! Whether a client may come in: the checks of a Hello, cheap before dear, and the seat that it is given.

use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};

use super::shared::Shared;
use crate::{
    clock::Timestamp,
    id::{PlayerId, Revision, SessionId},
    seat::{Connection, Coverage, EndReason, Grant, Handle, Installed, NotSeated, UseRefused},
    token::{ConnectClaims, Rejection},
    wire::{CloseCode, Hello, VERSION, Welcome, proof_message},
};

/// What the game may put into a datagram, in bytes; told in Welcome.
const MAX_DATAGRAM: u16 = crate::wire::MAX_DATAGRAM as u16;
/// How often clients are to ping, in milliseconds; told in Welcome.
const PING_INTERVAL_MS: u16 = 3_000;

/// Why a Hello was refused: the true reason, for logs and metrics. The client is told [`close_code`](Self::close_code) alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The gateway is being drained.
    Draining,
    /// The sidecar has not been heard of for too long, or never.
    ControlStale,
    /// The simulation does not tick.
    SimulationStalled,
    /// The token does not open, or its claims do not hold.
    Token(Rejection),
    /// The token names a client key, and Hello has no proof of its possession.
    ProofMissing,
    /// The token names a client key, and Hello's proof is not its signature over this token and this gateway's certificate.
    ProofWrong,
    /// The session has reached its absolute end.
    SessionExpired,
    /// The session or all of the player's sessions were revoked.
    SessionRevoked,
    /// The token is older than what is known here of the revocation log: a revocation since may be missing for good.
    TokenBeforeLog,
    /// The token is newer than what is known here of the revocation log, and waiting for the rest was in vain.
    LogBehind,
    /// No seat is free.
    ServerFull,
    /// The player is seated with another session, and the older one wins.
    PlayerPresent,
    /// The token was presented before.
    TokenUsed,
    /// The single-use history is full.
    HistoryFull,
}

impl Refusal {
    /// The reason as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::ControlStale => "control_stale",
            Self::SimulationStalled => "simulation_stalled",
            Self::Token(rejection) => rejection.label(),
            Self::ProofMissing => "proof_missing",
            Self::ProofWrong => "proof_wrong",
            Self::SessionExpired => "session_expired",
            Self::SessionRevoked => "session_revoked",
            Self::TokenBeforeLog => "token_before_log",
            Self::LogBehind => "log_behind",
            Self::ServerFull => "server_full",
            Self::PlayerPresent => "player_present",
            Self::TokenUsed => "token_used",
            Self::HistoryFull => "history_full",
        }
    }

    /// What the client is told. All the ways in which a token can be wrong look the same.
    ///
    /// A token from before the log is told as expired, because that has the client fetch a new one and come back at once, and a new
    /// one is at the log's head.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Draining => CloseCode::Drained,
            Self::ControlStale | Self::SimulationStalled | Self::LogBehind => {
                CloseCode::GatewayNotReady
            }
            Self::Token(Rejection::Expired) | Self::TokenBeforeLog => CloseCode::TokenExpired,
            Self::Token(_) | Self::ProofMissing | Self::ProofWrong => CloseCode::TokenRejected,
            Self::SessionExpired => CloseCode::SessionExpired,
            Self::SessionRevoked => CloseCode::SessionRevoked,
            Self::ServerFull | Self::HistoryFull => CloseCode::ServerFull,
            Self::PlayerPresent => CloseCode::PlayerPresent,
            Self::TokenUsed => CloseCode::TokenUsed,
        }
    }
}

/// Who asks to come in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applicant<'a> {
    /// The connection that said Hello.
    pub(super) connection: Connection,
    /// SHA-256 of the leaf certificate that this connection was served.
    pub(super) leaf_sha256: &'a [u8; 32],
    pub(super) hello: &'a Hello,
}

/// A client that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) handle: Handle,
    pub(super) player: PlayerId,
    pub(super) welcome: Welcome,
    /// Whether a live connection of the session had the seat until now.
    pub(super) superseded: bool,
}

/// A client that was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is refused. The session is that of its token, if that has opened.
    Refused {
        refusal: Refusal,
        session: Option<SessionId>,
    },
    /// The revocation log has not come as far as the token: to be asked again once it has.
    Behind {
        revision: Revision,
        session: SessionId,
    },
}

/// Judges a Hello and seats the client.
///
/// Nothing has happened when it denies: a seat, a consumed token and a join exist only after every check has passed. So it may be
/// asked again.
pub(super) fn admit(
    shared: &Shared,
    applicant: Applicant<'_>,
    now: Timestamp,
) -> Result<Admission, Denied> {
    let nobody = |refusal| Denied::Refused {
        refusal,
        session: None,
    };
    ready(shared, now).map_err(nobody)?;
    let claims = open(shared, &applicant.hello.token, now).map_err(nobody)?;
    let session = claims.session;
    let refused = |refusal| Denied::Refused {
        refusal,
        session: Some(session),
    };
    prove(applicant, &claims).map_err(refused)?;
    hold(shared, &claims, now).map_err(|refusal| match refusal {
        Refusal::LogBehind => Denied::Behind {
            revision: claims.revision,
            session,
        },
        refusal => refused(refusal),
    })?;
    if !shared.seats.has_room_for(session, claims.player) {
        return Err(refused(Refusal::ServerFull));
    }
    seat(shared, applicant.connection, &claims, now).map_err(refused)
}

/// The checks that need no cryptography.
fn ready(shared: &Shared, now: Timestamp) -> Result<(), Refusal> {
    if shared.is_draining() {
        Err(Refusal::Draining)
    } else if !shared.sidecar_is_fresh(now) {
        Err(Refusal::ControlStale)
    } else if !shared.simulation_is_running(now) {
        Err(Refusal::SimulationStalled)
    } else {
        Ok(())
    }
}

/// Opens a connect token of this process's: its key, its MAC, and the claims that hold for as long as it exists.
pub(super) fn open(shared: &Shared, token: &str, now: Timestamp) -> Result<ConnectClaims, Refusal> {
    shared
        .keys()
        .open_of_any_age(token, now)
        .map_err(Refusal::Token)
}

/// A token that names a client key is good for whoever holds that key alone. A proof that no token asks for proves nothing and is
/// not looked at, so that a client with a key may always send one.
fn prove(applicant: Applicant<'_>, claims: &ConnectClaims) -> Result<(), Refusal> {
    let Some(key) = &claims.client_key else {
        return Ok(());
    };
    let Some(proof) = &applicant.hello.proof else {
        return Err(Refusal::ProofMissing);
    };
    let token = token_sha256(&applicant.hello.token);
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&proof_message(&token, applicant.leaf_sha256), proof)
        .map_err(|_| Refusal::ProofWrong)
}

/// SHA-256 of a token's text: what the proof signs, and what the token is known by where it may not stand itself.
pub(super) fn token_sha256(token: &str) -> [u8; 32] {
    let mut sha256 = [0; 32];
    for (place, byte) in sha256
        .iter_mut()
        .zip(digest(&SHA256, token.as_bytes()).as_ref())
    {
        *place = *byte;
    }
    sha256
}

/// Whether an open token's claims hold now: its own end and its session's, and that nothing of it was revoked, as far as the token
/// was made. [`Refusal::LogBehind`] when the log has not come that far; it may yet.
pub(super) fn hold(shared: &Shared, claims: &ConnectClaims, now: Timestamp) -> Result<(), Refusal> {
    claims.check_expiry(now).map_err(Refusal::Token)?;
    if claims.session_ends_at <= now {
        return Err(Refusal::SessionExpired);
    }
    if is_revoked(shared, claims) {
        return Err(Refusal::SessionRevoked);
    }
    match shared.revocations().covers(claims.revision) {
        Coverage::Covered => Ok(()),
        Coverage::TooOld => Err(Refusal::TokenBeforeLog),
        Coverage::NotYet => Err(Refusal::LogBehind),
    }
}

fn is_revoked(shared: &Shared, claims: &ConnectClaims) -> bool {
    shared
        .revocations()
        .check(claims.session, claims.player, claims.player_generation)
}

/// Uses the token up and fills the seat, in the order of netcode 1.4.5: pending while this runs, consumed once seated.
fn seat(
    shared: &Shared,
    connection: Connection,
    claims: &ConnectClaims,
    now: Timestamp,
) -> Result<Admission, Refusal> {
    let forgotten_at = claims.expires_at.after(crate::token::LEEWAY);
    let pending = shared
        .history
        .begin(claims.nonce.0, forgotten_at, now)
        .map_err(|refused| match refused {
            UseRefused::Used => Refusal::TokenUsed,
            UseRefused::Full => Refusal::HistoryFull,
        })?;
    let grant = Grant {
        session: claims.session,
        player: claims.player,
        player_generation: claims.player_generation,
        client: claims.client,
        ends_at: claims.session_ends_at,
        connection,
    };
    let installed = match shared.seats.install(grant, now) {
        Ok(installed) => installed,
        Err(not_seated) => {
            shared.history.release(pending);
            return Err(match not_seated {
                NotSeated::Full => Refusal::ServerFull,
                NotSeated::PlayerPresent => Refusal::PlayerPresent,
            });
        }
    };
    shared.history.consume(pending);
    // A revocation that was applied between the check above and the seat's filling did not find the seat: look again.
    if is_revoked(shared, claims) {
        shared
            .seats
            .end_session(claims.session, EndReason::SessionRevoked);
        return Err(Refusal::SessionRevoked);
    }
    let (handle, client, resumed) = match installed {
        Installed::Fresh(handle) => (handle, claims.client, false),
        Installed::Taken { handle, client, .. } => (handle, client, true),
    };
    Ok(Admission {
        handle,
        player: claims.player,
        welcome: Welcome {
            version: VERSION,
            client,
            session: claims.session,
            resumed,
            max_datagram: MAX_DATAGRAM,
            ping_interval_ms: PING_INTERVAL_MS,
        },
        superseded: matches!(
            installed,
            Installed::Taken {
                displaced: Some(_),
                ..
            }
        ),
    })
}

#[cfg(test)]
pub(super) mod tests;
