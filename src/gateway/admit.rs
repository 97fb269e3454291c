//! Whether a client may come in: the checks of a Hello, cheap before dear, and the seat that it is given.

use crate::{
    clock::Timestamp,
    seat::{Connection, EndReason, Grant, Handle, Installed, NotSeated, UseRefused},
    token::{ConnectClaims, Rejection},
    wire::{CloseCode, Hello, VERSION, Welcome},
};

use super::shared::Shared;

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
    /// The token names a client key, which this gateway cannot check the possession of.
    ProofUnsupported,
    /// The session has reached its absolute end.
    SessionExpired,
    /// The session or all of the player's sessions were revoked.
    SessionRevoked,
    /// No seat is free.
    ServerFull,
    /// The player is seated with another session, and the oldest wins.
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
            Self::ProofUnsupported => "proof_unsupported",
            Self::SessionExpired => "session_expired",
            Self::SessionRevoked => "session_revoked",
            Self::ServerFull => "server_full",
            Self::PlayerPresent => "player_present",
            Self::TokenUsed => "token_used",
            Self::HistoryFull => "history_full",
        }
    }

    /// What the client is told. All the ways in which a token can be wrong look the same.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Draining => CloseCode::Drained,
            Self::ControlStale | Self::SimulationStalled => CloseCode::GatewayNotReady,
            Self::Token(Rejection::Expired) => CloseCode::TokenExpired,
            Self::Token(_) | Self::ProofUnsupported => CloseCode::TokenRejected,
            Self::SessionExpired => CloseCode::SessionExpired,
            Self::SessionRevoked => CloseCode::SessionRevoked,
            Self::ServerFull | Self::HistoryFull => CloseCode::ServerFull,
            Self::PlayerPresent => CloseCode::PlayerPresent,
            Self::TokenUsed => CloseCode::TokenUsed,
        }
    }
}

/// A client that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) handle: Handle,
    pub(super) welcome: Welcome,
}

/// Judges a Hello and seats the client.
///
/// Nothing has happened when it refuses: a seat, a consumed token and a join exist only after every check has passed.
pub(super) fn admit(
    shared: &Shared,
    connection: Connection,
    hello: &Hello,
    now: Timestamp,
) -> Result<Admission, Refusal> {
    ready(shared, now)?;
    let claims = shared
        .keys()
        .open(&hello.token, now)
        .map_err(Refusal::Token)?;
    if claims.client_key.is_some() {
        return Err(Refusal::ProofUnsupported);
    }
    if claims.session_ends_at <= now {
        return Err(Refusal::SessionExpired);
    }
    if is_revoked(shared, &claims) {
        return Err(Refusal::SessionRevoked);
    }
    if !shared.seats.has_room_for(claims.session, claims.player) {
        return Err(Refusal::ServerFull);
    }
    seat(shared, connection, &claims, now)
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
        Err(refused) => {
            shared.history.release(pending);
            return Err(match refused {
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
        welcome: Welcome {
            version: VERSION,
            client,
            session: claims.session,
            resumed,
            max_datagram: MAX_DATAGRAM,
            ping_interval_ms: PING_INTERVAL_MS,
        },
    })
}
