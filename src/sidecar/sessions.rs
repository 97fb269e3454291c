//! Sessions: from a login to claims, and from a bearer token back to a live session.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{Clock, Timestamp},
    id::{ClientId, GatewayId, PlayerId, Revision, SessionId},
    proto,
    store::{Found, Identity, NewSession, Standing, Store},
    token::{ConnectClaims, Nonce, RefreshClaims, Rejection, SessionClaims},
};

use super::{
    SessionLives,
    audit::{self, Event, Revoked},
    explain::Explain,
    keys::Keys,
    limit::Limit,
    metrics::Counters,
    refusal::Refusal,
    trace,
};

/// What every service does with sessions.
pub(super) struct Sessions {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Arc<Keys>,
    pub(super) refresh_limit: Limit<SessionId>,
    pub(super) lives: SessionLives,
    pub(super) clock: Clock,
    pub(super) explain: Arc<Explain>,
    pub(super) counters: Arc<Counters>,
}

/// A session that was just made, with its first tokens.
pub(super) struct LoggedIn {
    pub(super) found: Found,
    pub(super) is_new_player: bool,
    /// Secret.
    pub(super) token: String,
    pub(super) expires_at: Timestamp,
    /// Secret.
    pub(super) refresh_token: String,
}

impl Sessions {
    /// Takes note that a session of this player was ended, by somebody else's wish than its own bearer's.
    pub(super) fn note_revoked(
        &self,
        session: SessionId,
        player: PlayerId,
        revision: Revision,
        at: Timestamp,
        reason: Revoked,
    ) {
        self.explain.session_revoked(session, player, revision, at);
        self.counters.revocations.count("session");
        audit::record(Event::SessionRevoked {
            session,
            player: Some(player),
            revision,
            reason,
        });
    }

    /// Makes a session for an account that has proven itself; `linked`, if it was by that made one of its player's.
    pub(super) async fn log_in(
        &self,
        identity: Identity,
        method: &'static str,
        linked: bool,
    ) -> Result<LoggedIn, Refusal> {
        let at = self.clock.wall();
        let new = NewSession {
            identity,
            method: method.to_owned(),
            at,
            ends_at: at.after(self.lives.absolute),
        };
        let started = self.store.start_session(new).await?;
        let claims = session_claims(&started.found, at, self.lives.session_token);
        self.explain.logged_in(claims.session, claims.player, at);
        self.counters.logins.count(method);
        trace::session(&started.found);
        audit::record(Event::LoggedIn {
            method,
            is_new_player: started.is_new_player,
            linked,
        });
        Ok(LoggedIn {
            token: self.keys.seal_session(&claims),
            expires_at: claims.expires_at,
            refresh_token: self.keys.seal_refresh(&refresh_claims(&started.found, at)),
            found: started.found,
            is_new_player: started.is_new_player,
        })
    }

    /// The live session that a bearer token speaks for.
    pub(super) async fn of_bearer(&self, token: &str) -> Result<Found, Refusal> {
        let now = self.clock.wall();
        let found = self.known_of_bearer(token, now).await?;
        match found.standing(now, self.lives.idle) {
            Standing::Live => Ok(found),
            Standing::Ended(by) => Err(Refusal::BearerEnded(by)),
        }
    }

    /// The session that a bearer token speaks for, though it may have ended.
    pub(super) async fn known_of_bearer(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Found, Refusal> {
        let claims = self.keys.open_session(token, now).map_err(|rejection| {
            if rejection == Rejection::Expired {
                Refusal::BearerExpired
            } else {
                Refusal::BearerRejected(rejection)
            }
        })?;
        let found = self.store.session(claims.session).await?;
        let found = found.ok_or(Refusal::BearerUnknown)?;
        if found.player.id != claims.player {
            return Err(Refusal::BearerRejected(Rejection::BadClaims));
        }
        trace::session(&found);
        Ok(found)
    }

    /// A session by id, if it is live.
    pub(super) async fn live(&self, id: SessionId) -> Result<Found, Refusal> {
        let found = self.store.session(id).await?;
        let found = found.ok_or(Refusal::NoSuchSession)?;
        trace::session(&found);
        match found.standing(self.clock.wall(), self.lives.idle) {
            Standing::Live => Ok(found),
            Standing::Ended(by) => Err(Refusal::SessionEnded(by)),
        }
    }
}

/// What its owner and operators see of a session that has a seat on these gateways.
pub(super) fn session_info(
    found: &Found,
    now: Timestamp,
    idle: Duration,
    gateways: &[GatewayId],
) -> proto::SessionInfo {
    let session = &found.session;
    let state = match found.standing(now, idle) {
        Standing::Live => "live",
        Standing::Ended(by) => by.label(),
    };
    proto::SessionInfo {
        session_id: session.id.to_string(),
        player_id: found.player.id.to_string(),
        method: session.method.clone(),
        generation: session.generation,
        state: state.to_owned(),
        created_at_ms: session.created_at.0,
        active_at_ms: session.active_at.0,
        ends_at_ms: session.ends_at.0,
        gateways: gateways.iter().map(GatewayId::to_string).collect(),
    }
}

/// What a session token says of a session. It does not outlive the session.
pub(super) fn session_claims(found: &Found, now: Timestamp, life: Duration) -> SessionClaims {
    let session = &found.session;
    SessionClaims {
        player: found.player.id,
        session: session.id,
        generation: session.generation,
        player_generation: session.player_generation,
        role: found.player.role.clone(),
        method: session.method.clone(),
        issued_at: now,
        expires_at: now.after(life).min(session.ends_at),
    }
}

/// What a refresh token says of a session's generation, made at `issued_at`. It lives as long as the session may.
pub(super) fn refresh_claims(found: &Found, issued_at: Timestamp) -> RefreshClaims {
    let session = &found.session;
    RefreshClaims {
        session: session.id,
        generation: session.generation,
        player_generation: session.player_generation,
        issued_at,
        expires_at: session.ends_at,
    }
}

/// What a connect token says of a live session. It does not outlive the session.
///
/// Its `rev` is the log's head as of the instant at which the session was seen alive, so no event up to it ends the session, and a
/// gateway whose log covers `rev` to now knows of every event that does.
pub(super) fn connect_claims(
    found: &Found,
    gateway: GatewayId,
    client: ClientId,
    client_key: Option<[u8; 32]>,
    now: Timestamp,
    life: Duration,
) -> ConnectClaims {
    let session = &found.session;
    ConnectClaims {
        player: found.player.id,
        session: session.id,
        player_generation: session.player_generation,
        client,
        nonce: Nonce::random(),
        gateway,
        revision: found.head,
        session_ends_at: session.ends_at,
        client_key,
        issued_at: now,
        expires_at: now.after(life).min(session.ends_at),
    }
}
