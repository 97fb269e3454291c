//! What the ways to log in keep: things that can be spent once, codes that can be guessed at, attempts, passwords and who is who.
//!
//! No secret stands here. A token, nonce or code is known by a keyed hash alone, so that a stolen store opens nothing; passwords are
//! known by what argon2id made of them. Each call is one atomic step, and durable before it answers.

use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId, Revision, SessionId},
};

use super::{Answer, Identity};

/// A keyed hash: what a secret, or whom it was sent to, is known by.
pub type KeyedHash = [u8; 32];

/// What something that can be spent once is for. It is worth nothing for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OneTimePurpose {
    /// A nonce for an identity token that an OpenID provider is to issue.
    LoginNonce,
    /// A challenge for a device's key to sign.
    Challenge,
    /// A link that logs in.
    MagicLink,
    /// A link that sets another password.
    PasswordReset,
    /// A link that proves a new e-mail address.
    EmailChange,
}

impl OneTimePurpose {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::LoginNonce,
        Self::Challenge,
        Self::MagicLink,
        Self::PasswordReset,
        Self::EmailChange,
    ];

    /// Its fixed name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::LoginNonce => "login_nonce",
            Self::Challenge => "challenge",
            Self::MagicLink => "magic_link",
            Self::PasswordReset => "password_reset",
            Self::EmailChange => "email_change",
        }
    }

    /// Its number in records, which is fixed for ever.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::LoginNonce => 1,
            Self::Challenge => 2,
            Self::MagicLink => 3,
            Self::PasswordReset => 4,
            Self::EmailChange => 5,
        }
    }
}

/// What something brings to whoever spends it: [`MAX_PAYLOAD`] bytes at most.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload(Vec<u8>);

/// The longest payload in bytes: an e-mail address (254) and a player's id, and as much again.
pub const MAX_PAYLOAD: usize = 512;

impl Payload {
    /// These bytes, if they are not too many.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() <= MAX_PAYLOAD).then_some(Self(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// It may be an e-mail address.
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// Something that can be spent once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneTime {
    /// The keyed hash of the secret.
    pub key: KeyedHash,
    /// What it is for.
    pub purpose: OneTimePurpose,
    /// What it brings.
    pub payload: Payload,
    /// From then on it is worth nothing.
    pub expires_at: Timestamp,
}

/// Whether something can be spent from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issued {
    /// It can.
    Issued,
    /// There is one of that key already, spent or not, whatever it is for: draw another.
    Collision,
}

/// What became of spending something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spent {
    /// It was spent now, and this once.
    Spent(Payload),
    /// It is for something else, and for that it can still be spent.
    WrongPurpose,
    /// It was spent before.
    AlreadyUsed,
    /// It was not spent in time.
    Expired,
    /// There is none, or no more: what has expired is purged.
    Unknown,
}

/// A short code that is guessed at a few times at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The keyed hash of what it is for, and of whom and what it was sent to.
    pub key: KeyedHash,
    /// The keyed hash of the code.
    pub hash: KeyedHash,
    /// From then on it is worth nothing.
    pub expires_at: Timestamp,
    /// How many guesses there are.
    pub tries: u32,
}

/// What became of a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// It is the code, which is used up now.
    Right,
    /// It is not, and so many guesses are left; with none left the code is worth nothing.
    Wrong {
        /// Guesses that are left.
        left: u32,
    },
    /// There was no guess left.
    Exhausted,
    /// It came too late.
    Expired,
    /// There is no code, or no more: it was guessed, or is purged.
    Unknown,
}

/// Whether another attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It may, and is counted: so many have been made in a row, this one included.
    Counted(u32),
    /// It may not: too many have failed in a row.
    TooMany,
}

/// A player by one of the accounts that are known to be the player.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Who it is.
    pub player: PlayerId,
    /// The player's generation as of the same instant: whatever revokes all sessions raises it.
    pub generation: PlayerGeneration,
    /// What argon2id made of the password, as PHC string; none if none was ever set.
    pub password: Option<String>,
    /// The accounts that are known to be the player, the first one first.
    pub identities: Vec<Identity>,
}

/// A password's hash is no secret like the password, and yet nobody's business.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("player", &self.player)
            .field("generation", &self.generation)
            .field("password", &self.password.as_ref().map(|_| "[redacted]"))
            .field("identities", &self.identities.len())
            .finish()
    }
}

/// The accounts that one player may have.
pub const MAX_IDENTITIES: usize = 32;

/// How an account joins those that are the player's already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Beside whatever there is.
    Beside,
    /// As the only one of its provider: refused if there is one.
    Only,
    /// Instead of all others of its provider.
    Instead,
}

/// What became of linking an account to a player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// It is the player from now on.
    Linked,
    /// It was before.
    Already,
    /// It is another player. Nothing has changed: two players never become one.
    Taken,
    /// The player has one of that provider, and may have [one](Join::Only).
    HasOne,
    /// The player has [as many](MAX_IDENTITIES) as there may be.
    TooMany,
    /// The session in which it was asked for was revoked since, alone or with all of its player's, or is not known any more: whoever asks
    /// is not the player any more.
    Outdated,
}

/// What became of taking an account away from a player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlinked {
    /// It is nobody's from now on, and all the player's sessions up to now have ended: whoever came in by it is out with it.
    Unlinked {
        /// The event of the revocation log that says so.
        revision: Revision,
        /// How many were live until now.
        sessions: u32,
    },
    /// It is not the player's.
    NotTheirs,
    /// It is the player's last one, without which nobody would be the player.
    LastOne,
    /// The session in which it was asked for was revoked since, or is not known any more.
    Outdated,
}

/// The keyed hash of a place that the owner of an account has logged in from.
pub type Place = [u8; 16];

/// Places that are remembered of one account: at home, at school, on the phone, and as many more.
pub const MAX_PLACES: usize = 8;

/// A password that was set by whoever proved the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordSet {
    /// Whose it is.
    pub player: PlayerId,
    /// Whether the player was made with it.
    pub is_new_player: bool,
    /// The event of the revocation log with which all sessions up to now have ended.
    pub revision: Revision,
    /// How many were live until now.
    pub sessions: u32,
}

/// What the ways to log in keep.
///
/// Times are the caller's or, in a store that many share, the store's own, as [`Store`](super::Store) says. Every call is one atomic
/// step: of any number of callers at once, on any number of sidecars, one spends what can be spent once, and no more guesses are made
/// than there are.
pub trait Logins: Send + Sync + 'static {
    /// Keeps something that can be spent once; an entry of the same key is never replaced.
    fn issue(&self, entry: OneTime) -> Answer<'_, Issued>;

    /// Spends it, if it is for `purpose`, not spent and not expired; else nothing changes. What was spent is known as spent until it
    /// is purged, so that a second use is told from a forgery.
    fn spend(&self, key: KeyedHash, purpose: OneTimePurpose, at: Timestamp) -> Answer<'_, Spent>;

    /// Keeps a code; one of the same key is replaced, along with its guesses.
    fn put_code(&self, code: Code) -> Answer<'_, ()>;

    /// Guesses: compares and counts in one step, so that there are never more guesses than there were tries.
    fn guess(&self, key: KeyedHash, hash: KeyedHash, at: Timestamp) -> Answer<'_, Guess>;

    /// Counts an attempt before it is made, unless `most` have been made since the last one that succeeded. So attempts that run
    /// beside each other are no way around the limit. They are forgotten at `forget_at`, unless another follows.
    fn attempt(
        &self,
        key: KeyedHash,
        most: u32,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Answer<'_, Attempt>;

    /// Forgets the attempts: one has succeeded, or whoever owns the account has proved it otherwise.
    fn forget_attempts(&self, key: KeyedHash) -> Answer<'_, ()>;

    /// The player that an account is; none if it is nobody yet.
    fn account(&self, identity: Identity) -> Answer<'_, Option<Account>>;

    /// The accounts that are known to be the player, the first one first; none if there is no such player.
    fn identities(&self, player: PlayerId) -> Answer<'_, Option<Vec<Identity>>>;

    /// Makes an account, which its caller has proved, the player's whose session `by` is, if that was not revoked until this very step:
    /// so that nobody who was put out adds a way in. One that is another player stays that.
    fn link(&self, identity: Identity, by: SessionId, join: Join) -> Answer<'_, Linked>;

    /// Takes an account away from the player whose session `by` is, if that was not revoked until this very step, and ends all the
    /// player's sessions in the same one; `with_password` takes the player's password too, where it is the account that it was for. The
    /// last account stays.
    fn unlink(
        &self,
        identity: Identity,
        by: SessionId,
        with_password: bool,
        at: Timestamp,
    ) -> Answer<'_, Unlinked>;

    /// Until when it is remembered that the owner of an account, which is known by a keyed hash, has been at this place; none if it is
    /// not. As much is done for an account that is not known as for one that is.
    fn known_place(
        &self,
        account: KeyedHash,
        place: Place,
        at: Timestamp,
    ) -> Answer<'_, Option<Timestamp>>;

    /// Remembers that the owner of an account has been at this place, which becomes the newest; of more than [`MAX_PLACES`] the oldest is
    /// forgotten. All of the account are forgotten at `forget_at`, unless another call follows.
    fn remember_place(
        &self,
        account: KeyedHash,
        place: Place,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Answer<'_, ()>;

    /// Sets the password of the player that this account is (made if it is nobody yet) and ends all the player's sessions, in one
    /// step: whoever knew the old password is out with it.
    fn set_password(
        &self,
        identity: Identity,
        phc: String,
        at: Timestamp,
    ) -> Answer<'_, PasswordSet>;

    /// Gives a player a role, and returns the one before; none if there is no such player. Tokens carry it from their next refresh on.
    fn set_role(&self, player: PlayerId, role: String) -> Answer<'_, Option<String>>;

    /// Takes away what expired before `before`: entries, used or not, codes, attempts and places. How many.
    fn purge_logins(&self, before: Timestamp) -> Answer<'_, usize>;
}
