//! The ways in that a player has: adding one, changing the e-mail address, looking at them, taking one away.
//!
//! Whoever holds a session's token is the player, until the session ends; a way in outlives it. So a token alone adds and takes away nothing: its
//! session must have logged in a short while ago, which a token that was stolen later has not. And the owner is told by mail.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tonic::metadata::MetadataMap;

use crate::{
    id::{PlayerId, SessionId},
    proto,
    store::{Found, Identity, Join, Linked, OneTimePurpose, StoreError, Unlinked},
};

use super::{
    super::{
        audit::{self, Event, Revoked},
        login::{
            EMAIL, Proven,
            address::EmailAddress,
            verification::{EMAIL_CHANGE_LIFE, address_of},
        },
        mail::{Letter, Message, Notice, Room},
        refusal::{BadLogin, Refusal},
    },
    AuthApi,
};

/// Bytes of a way's id: none of a player's 32 has another's.
const ID_BYTES: usize = 16;

/// Where an owner is told of changes, and room for the letter.
pub(super) type Owner = (EmailAddress, Room);

impl AuthApi {
    /// The call's bearer, who may change how the player logs in: it is not long since this session did.
    pub(super) async fn changing(&self, metadata: &MetadataMap) -> Result<Found, Refusal> {
        let caller = self.caller(metadata).await?;
        if self.sessions.clock.wall() > caller.session.created_at.after(self.fresh) {
            return Err(Refusal::NotFresh);
        }
        self.limits.by_player(caller.player.id)?;
        Ok(caller)
    }

    /// Makes an account the caller's. Who asks has proved both.
    pub(super) async fn link(
        &self,
        caller: &Found,
        owner: Option<Owner>,
        proven: &Proven,
    ) -> Result<(), Refusal> {
        let player = caller.player.id;
        let identity = proven.identity.clone();
        let kind = identity.provider.clone();
        let linked = self.joined(identity, caller.session.id, proven.join());
        if linked.await? {
            let method = proven.method;
            audit::record(Event::Linked { player, method });
            self.tell(owner, Notice::Linked(kind));
        }
        Ok(())
    }

    /// Makes the address that a mailed link proves the player's, who has asked for it.
    pub(super) async fn change_email(
        &self,
        token: &str,
    ) -> Result<proto::ConsumeVerificationResponse, Refusal> {
        let verifications = self.verifications()?;
        // Before the token is used up, as whatever can be refused.
        let room = verifications.mailer.room()?;
        let purpose = OneTimePurpose::EmailChange;
        let payload = verifications.spend(token, purpose).await?;
        let EmailChange { session, email } = EmailChange::of(payload.bytes())?;
        let asked = self.sessions.store.session(session).await?;
        let asked = asked.ok_or(Refusal::Login(BadLogin::Outdated))?;
        let player = asked.player.id;
        let before = self.address(player).await?;
        // Whoever was thrown out of the session that asked for it has no say any more: that is for this step to see.
        if self
            .joined(email.identity(), session, Join::Instead)
            .await?
        {
            audit::record(Event::EmailChanged { player });
            let owner = before.map(|before| (before, room));
            self.tell(owner, Notice::EmailChanged);
        }
        Ok(proto::ConsumeVerificationResponse {
            player_id: player.to_string(),
            is_new_player: false,
            sessions_ended: 0,
        })
    }

    /// Joins an account to those of the player whose session it is; whether it was not one of them before.
    async fn joined(
        &self,
        identity: Identity,
        session: SessionId,
        join: Join,
    ) -> Result<bool, Refusal> {
        match self.sessions.store.link(identity, session, join).await? {
            Linked::Linked => Ok(true),
            Linked::Already => Ok(false),
            Linked::Taken => Err(Refusal::LinkTaken),
            Linked::HasOne => Err(Refusal::LinkHasOne),
            Linked::TooMany => Err(Refusal::LinkTooMany),
            Linked::Outdated => Err(Refusal::Login(BadLogin::Outdated)),
        }
    }

    /// The ways in of the caller's player.
    pub(super) async fn ways_of(
        &self,
        caller: &Found,
    ) -> Result<Vec<proto::IdentityInfo>, Refusal> {
        let player = caller.player.id;
        let identities = self.identities(player).await?;
        let ways = identities.into_iter().map(|identity| proto::IdentityInfo {
            id: self.id_of(player, &identity),
            hint: hint(&identity),
            kind: identity.provider,
        });
        Ok(ways.collect())
    }

    /// Takes one of the caller's ways in away; how many sessions have ended with it.
    pub(super) async fn unlink(&self, caller: &Found, asked: &str) -> Result<u32, Refusal> {
        if asked.is_empty() {
            return Err(Refusal::Argument {
                field: "identity_id",
                allowed: "an id that ListIdentities tells",
            });
        }
        let player = caller.player.id;
        let identities = self.identities(player).await?;
        let mut identities = identities.into_iter();
        let identity = identities.find(|identity| self.id_of(player, identity) == asked);
        let identity = identity.ok_or(Refusal::NoSuchIdentity)?;
        let owner = self.owner(player).await?;
        let kind = identity.provider.clone();
        let at = self.sessions.clock.wall();
        let unlinked = self
            .sessions
            .store
            .unlink(identity, caller.session.id, kind == EMAIL, at);
        match unlinked.await? {
            Unlinked::Unlinked { revision, sessions } => {
                self.sessions.explain.player_revoked(player, revision, at);
                self.sessions.counters.revocations.count("player");
                audit::record(Event::Unlinked {
                    player,
                    kind: &kind,
                });
                audit::record(Event::PlayerRevoked {
                    player,
                    revision,
                    sessions,
                    reason: Revoked::Unlinked,
                });
                self.tell(owner, Notice::Unlinked(kind));
                Ok(sessions)
            }
            Unlinked::NotTheirs => Err(Refusal::NoSuchIdentity),
            Unlinked::LastOne => Err(Refusal::LastIdentity),
            Unlinked::Outdated => Err(Refusal::Login(BadLogin::Outdated)),
        }
    }

    async fn identities(&self, player: PlayerId) -> Result<Vec<Identity>, Refusal> {
        let identities = self.sessions.store.identities(player).await?;
        identities.ok_or(Refusal::Store(StoreError::Record("players")))
    }

    /// What a way in is called in calls: the same each time, and nothing that tells what is behind it.
    fn id_of(&self, player: PlayerId, identity: &Identity) -> String {
        let Identity { provider, subject } = identity;
        let parts = [
            &player.to_bytes()[..],
            provider.as_bytes(),
            subject.as_bytes(),
        ];
        let hash = self.limits.key().hash("identity", &parts);
        BASE64_URL_SAFE_NO_PAD.encode(hash.get(..ID_BYTES).unwrap_or_default())
    }

    /// The player's e-mail address, if there is one.
    async fn address(&self, player: PlayerId) -> Result<Option<EmailAddress>, Refusal> {
        let identities = self.identities(player).await?;
        let email = identities
            .iter()
            .find(|identity| identity.provider == EMAIL);
        Ok(email.and_then(|email| email.subject.parse().ok()))
    }

    /// Where the player's owner is told of changes, and room for a letter to there, to be asked for before anything is changed. None where the
    /// player has no address, or no mail leaves.
    pub(super) async fn owner(&self, player: PlayerId) -> Result<Option<Owner>, Refusal> {
        let Some(verifications) = self.methods.verifications.as_deref() else {
            return Ok(None);
        };
        let room = verifications.mailer.room()?;
        Ok(self.address(player).await?.map(|address| (address, room)))
    }

    fn tell(&self, owner: Option<Owner>, notice: Notice) {
        if let Some((to, room)) = owner {
            let expires_at = self.sessions.clock.wall().after(EMAIL_CHANGE_LIFE);
            room.post(Letter {
                to,
                message: Message::Notice(notice),
                expires_at,
            });
        }
    }
}

/// As much of an account's name as its owner knows it by.
fn hint(identity: &Identity) -> String {
    let Identity { provider, subject } = identity;
    let skipped = match subject.rsplit_once('@') {
        Some((local, domain)) if provider == EMAIL => {
            let first = local.chars().next().map(String::from).unwrap_or_default();
            return format!("{first}…@{domain}");
        }
        _ => subject.chars().count().saturating_sub(4),
    };
    let end: String = subject.chars().skip(skipped).collect();
    if skipped == 0 {
        end
    } else {
        format!("…{end}")
    }
}

/// Who asked for a new e-mail address, and for which.
pub(super) struct EmailChange {
    session: SessionId,
    email: EmailAddress,
}

impl EmailChange {
    /// As a token brings it: 16 bytes of session, and the address to the end.
    pub(super) fn payload(session: SessionId, email: &EmailAddress) -> Vec<u8> {
        let mut bytes = session.to_bytes().to_vec();
        bytes.extend_from_slice(email.as_str().as_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Result<Self, Refusal> {
        let damaged = || Refusal::Store(StoreError::Record("logins"));
        let (session, email) = bytes.split_first_chunk().ok_or_else(damaged)?;
        Ok(Self {
            session: SessionId::from_bytes(*session),
            email: address_of(email)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_enough_for_its_owner_and_not_for_others() {
        for (provider, subject, expected) in [
            ("email", "ada@example.com", "a…@example.com"),
            ("email", "a@example.com", "a…@example.com"),
            ("google", "110248495921238986420", "…6420"),
            ("backend/shop", "steam:76561197960287930", "…7930"),
            ("dev", "ada", "ada"),
            ("dev", "äöüäöü", "…üäöü"),
        ] {
            let identity = Identity {
                provider: provider.to_owned(),
                subject: subject.to_owned(),
            };
            assert_eq!(hint(&identity), expected);
        }
    }
}
