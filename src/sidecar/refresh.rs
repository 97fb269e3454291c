//! How a session goes on, and how its owner ends it: refresh and logout.

use crate::{
    clock::Timestamp,
    store::{Found, RefreshClaim, Refreshed, SessionRevocation, Successor},
    token::RefreshClaims,
};

use super::{
    audit::{self, Event, Revoked},
    refusal::{BadRefresh, Refusal},
    sessions::{Sessions, refresh_claims, session_claims},
    trace,
};

/// The next generation of a session's tokens.
pub(super) struct Renewed {
    pub(super) found: Found,
    /// The role that the tokens carry.
    pub(super) role: String,
    /// Secret.
    pub(super) token: String,
    pub(super) expires_at: Timestamp,
    /// Secret.
    pub(super) refresh_token: String,
}

impl Sessions {
    /// Changes a refresh token for the next generation.
    pub(super) async fn refresh(&self, token: &str) -> Result<Renewed, Refusal> {
        let at = self.clock.wall();
        let RefreshClaims {
            session,
            generation,
            player_generation,
            ..
        } = self.open_refresh(token, at).inspect_err(|_| {
            self.counters.refreshes.count("rejected");
        })?;
        // Also of a token that was used before: a limit that told the two apart would tell it to whoever asks.
        self.refresh_limit.take(session, None).map_err(|wait| {
            self.counters.refreshes.count("rate_limited");
            Refusal::TooManyRefreshes { wait }
        })?;
        let claim = RefreshClaim {
            session,
            generation,
            player_generation,
        };
        match self.store.refresh(claim, at).await? {
            Refreshed::Rotated(successor) => {
                let player = successor.found.player.id;
                self.explain.refreshed(session, player, at);
                self.counters.refreshes.count("rotated");
                trace::session(&successor.found);
                audit::record(Event::Refreshed {
                    generation: successor.found.session.generation,
                    again: false,
                });
                Ok(self.seal(successor))
            }
            Refreshed::Again(successor) => {
                self.counters.refreshes.count("again");
                trace::session(&successor.found);
                // The answer was lost, or asked for twice.
                audit::record(Event::Refreshed {
                    generation: successor.found.session.generation,
                    again: true,
                });
                Ok(self.seal(successor))
            }
            Refreshed::Reused(revision) => {
                self.counters.refreshes.count("reused");
                tracing::warn!(%session, generation, %revision, "a refresh token was used twice: its session is revoked");
                // The token does not say whose it is.
                let found = self.store.session(session).await.ok().flatten();
                let player = found.map(|found| found.player.id);
                if let Some(player) = player {
                    self.explain.refresh_reused(session, player, revision, at);
                }
                audit::record(Event::SessionRevoked {
                    session,
                    player,
                    revision,
                    reason: Revoked::RefreshReused,
                });
                Err(Refusal::Refresh(BadRefresh::Reused))
            }
            Refreshed::Ended(by) => {
                self.counters.refreshes.count("ended");
                Err(Refusal::Refresh(BadRefresh::Ended(by)))
            }
        }
    }

    /// The session that a refresh token is of, though it may have ended or the token been used.
    pub(super) async fn known_of_refresh(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Found, Refusal> {
        let claims = self.open_refresh(token, now)?;
        let found = self.store.session(claims.session).await?;
        let found = found
            .filter(|found| found.session.player_generation == claims.player_generation)
            .ok_or(Refusal::Refresh(BadRefresh::Ended(None)))?;
        trace::session(&found);
        Ok(found)
    }

    /// Ends a session by its owner's wish; whether it was still to be ended.
    pub(super) async fn log_out(&self, found: &Found, at: Timestamp) -> Result<bool, Refusal> {
        let (session, player) = (found.session.id, found.player.id);
        match self.store.revoke_session(session, at).await? {
            SessionRevocation::Ended(revision) => {
                self.explain.logged_out(session, player, revision, at);
                self.counters.revocations.count("logout");
                audit::record(Event::SessionRevoked {
                    session,
                    player: Some(player),
                    revision,
                    reason: Revoked::Logout,
                });
                Ok(true)
            }
            SessionRevocation::AlreadyEnded(_) | SessionRevocation::Unknown => Ok(false),
        }
    }

    fn open_refresh(&self, token: &str, now: Timestamp) -> Result<RefreshClaims, Refusal> {
        self.keys
            .open_refresh(token, now)
            .map_err(|rejection| Refusal::Refresh(BadRefresh::Rejected(rejection)))
    }

    /// Seals the successor's tokens. Each time the bytes differ and the claims do not: they come from what the store kept.
    fn seal(&self, successor: Successor) -> Renewed {
        let Successor {
            found,
            issued_at,
            role,
        } = successor;
        let mut claims = session_claims(&found, issued_at, self.lives.session_token);
        claims.role.clone_from(&role);
        Renewed {
            token: self.keys.seal_session(&claims),
            expires_at: claims.expires_at,
            refresh_token: self.keys.seal_refresh(&refresh_claims(&found, issued_at)),
            found,
            role,
        }
    }
}
