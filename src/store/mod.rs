//! The store: sessions, players and the revocation log behind one interface.
//!
//! Every state change is one atomic step, and durable before it is acknowledged: an answer that a caller has seen survives the
//! process being killed at any instant. Activity alone is a hint that may be up to one granule old after a crash.
//!
//! ```text
//! services ──► Store ──► embedded   one redb file; one writer thread that commits whatever has queued up in one transaction
//!                        redis      one primary that many sidecars share; each step a script on the server's own clock
//!                        memory     plain maps; the model that the tests hold the others against
//! ```

mod activity;
#[cfg(test)]
mod conformance;
pub(crate) mod draw;
mod embedded;
mod error;
mod leases;
mod logins;
#[cfg(test)]
pub(crate) mod memory;
mod recent;
#[cfg(feature = "redis")]
mod redis;
mod rotation;
mod session;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    clock::Timestamp,
    control::{GatewayDescription, LogState, RevocationRange},
    id::{GatewayId, Incarnation, PlayerGeneration, PlayerId, Revision, SessionId},
    token::KeyId,
};

#[cfg(feature = "redis")]
pub use self::redis::{
    DEFAULT_PREFIX, InvalidRedisUrl, RedisOpenError, RedisSettings, RedisStore, RedisUrl, Unfit,
};
pub use embedded::EmbeddedStore;
#[cfg(test)]
pub(crate) use embedded::{disk::Disk, fault::Fault};
pub use error::{OpenError, StoreError};
pub use logins::{
    Account, Attempt, Code, Guess, Issued, Join, KeyedHash, Linked, Logins, MAX_IDENTITIES,
    MAX_PAYLOAD, MAX_PLACES, OneTime, OneTimePurpose, PasswordSet, Payload, Place, Spent, Unlinked,
};
pub use session::{EndedBy, Found, Player, Session, Standing};

/// What a store answers, some time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// How long sessions live, as far as the store has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLives {
    /// Without activity for this long, a session has ended.
    pub idle: Duration,
    /// No session lives longer, however active.
    pub longest: Duration,
}

/// Margin around the ends of sessions: the leeway of tokens (5 s), and clocks of gateways that are being slewed.
const LEEWAY: Duration = Duration::from_secs(60);

impl StoreLives {
    /// How far activity moves before it is written: a sixtieth of the idle timeout, a minute of the default hour.
    ///
    /// So a session that is always active costs one write a minute instead of one a second, and a crash makes it look at most a
    /// sixtieth of the timeout more idle than it is.
    pub fn granule(&self) -> Duration {
        self.idle / 60
    }

    /// How long events of the revocation log are kept: the longest session life, and a margin.
    ///
    /// That is enough. Whatever an event of that age ended was created before it, so its session's absolute end, which every
    /// gateway holds for every seat (`sexp`), has passed with the margin; and connect tokens, which live five minutes at most,
    /// are long gone. Should the configured life have been shortened meanwhile, older seats are still caught: a gateway that
    /// comes back from before the retained log gets a snapshot, which asks the sessions themselves.
    pub fn retention(&self) -> Duration {
        self.longest + LEEWAY
    }
}

/// An account as its provider knows it. The same account is the same player, for ever.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Who vouches for the account: a login method, or a backend by name.
    pub provider: String,
    /// The provider's own name for the account.
    pub subject: String,
}

/// Its name may be an e-mail address, which no log is to have.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// A login that has succeeded: the session to be made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Whose session it is; an unknown account becomes a new player.
    pub identity: Identity,
    /// How the player logged in.
    pub method: String,
    /// Now.
    pub at: Timestamp,
    /// The session's absolute end.
    pub ends_at: Timestamp,
}

/// A session that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The session as it stands, and the player it belongs to.
    pub found: Found,
    /// Whether the player was made with it.
    pub is_new_player: bool,
}

/// A refresh token that has opened: which generation of which session asks to be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshClaim {
    /// The session.
    pub session: SessionId,
    /// The generation of the token that was presented.
    pub generation: u32,
    /// The player generation of the token that was presented.
    pub player_generation: PlayerGeneration,
}

/// What became of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// The one successor was made now.
    Rotated(Successor),
    /// It had been made within the grace, and was not used yet: the same one.
    Again(Successor),
    /// The token had been used before: the session ends now, with this event. Told once; whatever is presented of it from then on
    /// is of a session that has ended.
    Reused(Revision),
    /// The session has ended, or there is none.
    Ended(Option<EndedBy>),
}

/// The one successor of a generation of tokens: what they claim, each time they are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// The session (with its new generation) and the player.
    pub found: Found,
    /// When the generation was made: the `iat` of its tokens.
    pub issued_at: Timestamp,
    /// The role that its tokens carry.
    pub role: String,
}

/// How long a parent may be presented again after its successor was made, in case the answer was lost.
pub const REFRESH_GRACE: Duration = Duration::from_secs(10);

/// Gateways that a session is known to have connect tokens for: more than a player visits while a seat anywhere still matters.
pub const MAX_GRANTS: usize = 16;

/// The role of a player who has not been given another.
const DEFAULT_ROLE: &str = "player";

/// Former processes of a gateway that are remembered, so that they stay fenced off: 16 bytes each.
pub const MAX_FENCED: usize = 64;

/// Whether a gateway process may attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fencing {
    /// It may: it is the newest of its gateway, now or already.
    Newest,
    /// It may not: a newer one has attached since.
    Fenced,
}

/// A gateway process that is attached to a sidecar, as that sidecar makes it known to those that share the store: what minting for it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedGateway {
    /// Which process it is, and where and how clients reach it.
    pub description: GatewayDescription,
    /// How many seats are taken there.
    pub seats: u32,
    /// Whether it drains: no tokens are to be minted for it.
    pub draining: bool,
    /// It has applied the revocation log up to here.
    pub acknowledged: Revision,
    /// The transport keys that it holds, by id.
    pub keys: Arc<[KeyId]>,
    /// Whether another sidecar has published it. Of no meaning to [`Store::publish_gateway`].
    pub elsewhere: bool,
}

/// What became of publishing a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// Every sidecar knows of it until the lease runs out.
    Published,
    /// The same process has attached to another sidecar since: its stream here is an old one.
    Elsewhere,
    /// A newer process of the gateway has attached.
    Fenced,
}

/// What became of revoking a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionRevocation {
    /// It ends with this event of the log.
    Ended(Revision),
    /// It had been revoked before, by this event; or it has passed its absolute end, and no event is needed (revision 0).
    AlreadyEnded(Revision),
    /// There is no such session; it may have ended so long ago that it was purged.
    Unknown,
}

/// What became of revoking a player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlayerRevocation {
    /// All sessions up to now have ended.
    Ended {
        /// Sessions with a smaller generation are dead.
        generation: PlayerGeneration,
        /// The event of the log that says so.
        revision: Revision,
        /// How many sessions were live until now.
        sessions: u32,
    },
    /// There is no such player.
    Unknown,
}

/// What a purge took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Sessions past their absolute end.
    pub sessions: usize,
    /// Events past their [retention](StoreLives::retention).
    pub events: usize,
}

/// Where sessions, players and revocations are kept, and, as [`Logins`], what the ways to log in keep.
///
/// **Time.** A store of one sidecar takes the time from its caller and needs no clock of its own. Callers that share a store do not
/// share a clock, though, and by theirs a lost answer that is asked for again at another sidecar could look like reuse: so a shared
/// store (`redis`) goes by *its* clock in everything that rests on the time between two calls (the grace of a refresh, idleness and
/// absolute ends, what can be spent and guessed, what is purged, leases), and takes from `at` no more than how long something is to live;
/// it keeps the clock that it was opened with on its own, so that what callers judge by theirs agrees.
///
/// Dropping a future does not undo what it asked for: a change that was queued happens.
///
/// **Failure.** [`StoreError::Unavailable`] and most other errors mean that nothing has changed. After [`StoreError::Unanswered`] and
/// [`StoreError::Commit`] a change may have been made; every call may be made again, and says or does what it would have the first
/// time, with these exceptions: a login makes another session, a revocation of a player (by a password, too) ends what was made in between
/// as well, a refresh is the same only within its grace, what was spent or guessed is used up, and an attempt counts twice.
pub trait Store: Logins + Send + Sync + 'static {
    /// Makes a session, and the player if the account is new, in one step. The session carries the player generation of that very
    /// instant, so that it is on one side or the other of every revocation of the player.
    fn start_session(&self, new: NewSession) -> Answer<'_, Started>;

    /// A session, its player, and the head of the log, as of one instant.
    ///
    /// The head is what makes a connect token's `rev` honest: a session that is live here has not been revoked by any event up
    /// to it.
    fn session(&self, id: SessionId) -> Answer<'_, Option<Found>>;

    /// Rotates a session's tokens: one compare-and-swap on (session, generation). A live session whose generation is the claim's gets
    /// the next one; its parent presented again within [`REFRESH_GRACE`], while the successor has not been used, gets the same
    /// successor; any other reuse of a session that is not over yet revokes it in the same step. Neither activity nor the absolute end are touched.
    fn refresh(&self, claim: RefreshClaim, at: Timestamp) -> Answer<'_, Refreshed>;

    /// Up to `limit` sessions with an id below `before` (all, if none), newest first, of one player or of all. What has ended is
    /// there until it is purged.
    fn sessions(
        &self,
        player: Option<PlayerId>,
        before: Option<SessionId>,
        limit: usize,
    ) -> Answer<'_, Vec<Found>>;

    /// Takes note that a connect token of the session is minted for the gateway, before it is handed out: from now on the gateway
    /// may report the session's activity. Costs a write the first time alone. Of more than [`MAX_GRANTS`] gateways the one that was
    /// noted first is forgotten; a session that is unknown is no error.
    fn grant(&self, session: SessionId, gateway: GatewayId) -> Answer<'_, ()>;

    /// Which of these sessions a connect token was minted of for the gateway, in their order.
    fn granted_among(
        &self,
        gateway: GatewayId,
        sessions: Vec<SessionId>,
    ) -> Answer<'_, Vec<SessionId>>;

    /// The last activity of those of these sessions of which a connect token was minted for another gateway than this one, in their
    /// order: only there can they have been active without its knowing. Nearly no session is among them.
    fn active_elsewhere(
        &self,
        gateway: GatewayId,
        sessions: Vec<SessionId>,
    ) -> Answer<'_, Vec<(SessionId, Timestamp)>>;

    /// A gateway process wants to attach: one that has not been seen before is the newest, and fences off the one before, for good
    /// (the last [`MAX_FENCED`] are remembered). Durable when it answers, so that a restart of the sidecar lets no old process back.
    fn attach_gateway(&self, gateway: GatewayId, incarnation: Incarnation) -> Answer<'_, Fencing>;

    /// Tells all sidecars of a gateway that is attached to this one, for as long as `lease` at most: a sidecar that dies is forgotten with
    /// its gateways. `has_attached` at its attachment, which takes it over from wherever it was; later calls renew the lease. The
    /// process must be the [newest](Self::attach_gateway).
    fn publish_gateway(
        &self,
        gateway: PublishedGateway,
        lease: Duration,
        has_attached: bool,
        at: Timestamp,
    ) -> Answer<'_, Publication>;

    /// The process is not attached to this sidecar any more; if it is to another one, that one's word stands.
    fn withdraw_gateway(&self, gateway: GatewayId, incarnation: Incarnation) -> Answer<'_, ()>;

    /// Whether other sidecars may have the same store: then gateways are to be published, and found.
    fn is_shared(&self) -> bool {
        false
    }

    /// The gateways that are published now, by id.
    fn gateways(&self, at: Timestamp) -> Answer<'_, Vec<PublishedGateway>>;

    /// Ends a session and appends the event to the log, in one step. Only the first call appends; an idle session is revoked
    /// like any other, since a gateway may know of activity that has not arrived here.
    fn revoke_session(&self, id: SessionId, at: Timestamp) -> Answer<'_, SessionRevocation>;

    /// Raises the player's generation and appends the event to the log, in one step.
    fn revoke_player(&self, id: PlayerId, at: Timestamp) -> Answer<'_, PlayerRevocation>;

    /// Where the log stands.
    fn log_state(&self) -> Answer<'_, LogState>;

    /// Up to `limit` events after `from`. None if the log cannot be continued from there: purged, or not written yet.
    fn log_after(&self, from: Revision, limit: usize) -> Answer<'_, Option<RevocationRange>>;

    /// Which of these sessions are dead: unknown, revoked, of an older player generation, or past their absolute end.
    ///
    /// Idle ones are not: what asks is a gateway with live seats, and it may know of activity that has not arrived here, because
    /// nobody was here to take note of it. A gateway ends idle seats by itself.
    fn dead_among(&self, sessions: Vec<SessionId>, at: Timestamp) -> Answer<'_, Vec<SessionId>>;

    /// Moves the last activity of these sessions forward to `at`; never back, and not that of a session that was revoked or has
    /// passed its absolute end. Never blocks. Visible at once, on disk within a [granule](StoreLives::granule).
    fn note_activity(&self, sessions: &[SessionId], at: Timestamp);

    /// Takes away sessions past their absolute end and events past their retention.
    fn purge(&self, at: Timestamp) -> Answer<'_, Purged>;

    /// Watches the head of the log: it changes after the event is durable, whichever sidecar has made it. Its end says that the log has
    /// another lineage from now on (of a shared store, which was restored or restarted) or that the store is closed: whoever goes on asks
    /// for the new one.
    fn watch_head(&self) -> watch::Receiver<Revision>;

    /// Watches whether the medium has failed. From then on no change can be made; the store has to be closed and opened again. A store
    /// over a network does not fail in that way: what it cannot do now it may be able to do later.
    fn watch_failed(&self) -> watch::Receiver<bool>;

    /// Finishes what is queued, writes down activity, and lets go of the file. Later calls fail with [`StoreError::Closed`].
    fn close(&self) -> Answer<'_, ()>;
}
