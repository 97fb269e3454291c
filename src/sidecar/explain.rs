//! What happened to whom, for `explain`: bounded memory of the recent past, and the one place where a connect token's minting and
//! its refusal meet.
//!
//! ```text
//! logins, refreshes, mints, revocations ──┐                       ┌─► per player: its last events
//!                                         ├─► books ── by player ─┤
//! events of gateways ─ by session or hash ┘      └── by nobody ───┴─► per gateway: refusals that name nobody
//! ```
//!
//! It knows SHA-256 of tokens and never a token, and nothing rests on it: what is forgotten here is not explained, and no more.
//! Memory: 64 MiB for players ([`books`]), 12 MiB for gateways, 8 MiB for tokens ([`tokens`]).

mod books;
mod event;
mod summary;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    clock::Timestamp,
    control::GatewayEvent,
    id::{GatewayId, PlayerId, Revision, SessionId},
};

use self::books::{Books, Limits};

pub(super) use self::{
    books::{Door, History},
    event::{Event, Kind},
    summary::{SessionFacts, of_gateway, of_player},
};

/// The sidecar's memory of what happened. Every call is short: a lock, a few map look-ups, no I/O.
#[derive(Debug)]
pub(super) struct Explain {
    books: Mutex<Books>,
    since: Timestamp,
}

impl Explain {
    /// Nothing is remembered yet, at `since`.
    pub(super) fn new(since: Timestamp) -> Self {
        Self {
            books: Mutex::new(Books::new(Limits::default())),
            since,
        }
    }

    /// Since when it remembers.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// A session was made.
    pub(super) fn logged_in(&self, session: SessionId, player: PlayerId, at: Timestamp) {
        self.note(player, Event::of_session(Kind::LoggedIn, session, at));
    }

    /// A session's tokens were rotated.
    pub(super) fn refreshed(&self, session: SessionId, player: PlayerId, at: Timestamp) {
        self.note(player, Event::of_session(Kind::Refreshed, session, at));
    }

    /// A refresh token was presented that had been used before, for which the session has ended with `revision`.
    pub(super) fn refresh_reused(
        &self,
        session: SessionId,
        player: PlayerId,
        revision: Revision,
        at: Timestamp,
    ) {
        let kind = Kind::RefreshReused { revision };
        self.note(player, Event::of_session(kind, session, at));
    }

    /// The player ended a session with `revision`.
    pub(super) fn logged_out(
        &self,
        session: SessionId,
        player: PlayerId,
        revision: Revision,
        at: Timestamp,
    ) {
        let kind = Kind::LoggedOut { revision };
        self.note(player, Event::of_session(kind, session, at));
    }

    /// A connect token was minted; `token_sha256` is of its text. From now on a gateway's event with that hash is the player's.
    pub(super) fn minted(
        &self,
        session: SessionId,
        player: PlayerId,
        gateway: &GatewayId,
        token_sha256: [u8; 32],
        expires_at: Timestamp,
        at: Timestamp,
    ) {
        self.books()
            .minted(session, player, gateway, token_sha256, expires_at, at);
    }

    /// A session was revoked with `revision`, by its player's other session, a backend or an operator.
    pub(super) fn session_revoked(
        &self,
        session: SessionId,
        player: PlayerId,
        revision: Revision,
        at: Timestamp,
    ) {
        let kind = Kind::SessionRevoked { revision };
        self.note(player, Event::of_session(kind, session, at));
    }

    /// All sessions of a player were revoked with `revision`.
    pub(super) fn player_revoked(&self, player: PlayerId, revision: Revision, at: Timestamp) {
        self.note(
            player,
            Event::of_player(Kind::PlayerRevoked { revision }, at),
        );
    }

    /// What a gateway saw, and how many events it could not keep. Each is the player's whose session or token it names, if that is
    /// known here; a refusal that names nobody is the gateway's.
    pub(super) fn gateway_events(
        &self,
        gateway: &GatewayId,
        events: impl IntoIterator<Item = GatewayEvent>,
        lost: u64,
    ) {
        let mut books = self.books();
        for event in events {
            books.seen_at(gateway, event);
        }
        if lost > 0 {
            books.lost_at(gateway, lost);
        }
    }

    /// A session whose player is not known here belongs to this one: it began before the sidecar did, or has been forgotten.
    pub(super) fn introduce(&self, session: SessionId, player: PlayerId) {
        self.books().introduce(session, player);
    }

    /// Whose session it is, if that is remembered.
    pub(super) fn player_of(&self, session: SessionId) -> Option<PlayerId> {
        self.books().player_of(session)
    }

    /// What is remembered of a player.
    pub(super) fn player(&self, player: PlayerId) -> Option<History> {
        self.books().player(player)
    }

    /// The refusals at a gateway that name nobody, if any is remembered.
    pub(super) fn gateway(&self, gateway: &GatewayId) -> Option<Door> {
        self.books().gateway(gateway)
    }

    fn note(&self, player: PlayerId, event: Event) {
        self.books().note(player, event);
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
