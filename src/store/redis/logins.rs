//! What the ways to log in keep: which script each call is, and what its answer means.
//!
//! How long something is worth anything goes by the server's clock, as all that rests on the time between two calls: a script is told for
//! how long, sets the end by its own clock, and holds the end against that clock later.

use std::time::Duration;

use super::{
    RedisStore,
    reply::{DAMAGED, Reply},
    scripts::SCRIPTS,
};
use crate::{
    clock::{Clock, Timestamp, millis},
    control::Revocation,
    id::{PlayerGeneration, PlayerId, SessionId},
    store::{
        Account, Answer, Attempt, Code, DEFAULT_ROLE, Guess, Identity, Issued, Join, KeyedHash,
        Linked, Logins, MAX_IDENTITIES, MAX_PLACES, OneTime, OneTimePurpose, PasswordSet, Payload,
        Place, Spent, StoreError, Unlinked, draw,
    },
};

/// Entries that one script purges.
const PURGED: usize = 256;

/// As long as what stands for a password, and no password's.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// An account as keys and lists have it. The length keeps "ab" of "c" apart from "a" of "bc".
pub(super) fn account_text(identity: &Identity) -> String {
    format!("{}{}", start_of(&identity.provider), identity.subject)
}

/// How all accounts of a provider begin, and no other's.
fn start_of(provider: &str) -> String {
    format!("{}:{provider}:", provider.len())
}

fn account_of(text: &str) -> Result<Identity, StoreError> {
    let parsed = || {
        let (length, rest) = text.split_once(':')?;
        let (provider, subject) = rest.split_at_checked(length.parse().ok()?)?;
        Some(Identity {
            provider: provider.to_owned(),
            subject: subject.strip_prefix(':')?.to_owned(),
        })
    };
    parsed().ok_or(DAMAGED)
}

fn identities_of(mut accounts: Reply) -> Result<Vec<Identity>, StoreError> {
    let mut identities = Vec::new();
    while !accounts.is_empty() {
        identities.push(account_of(&accounts.text()?)?);
    }
    Ok(identities)
}

impl RedisStore {
    /// What an end is reckoned from where the call names no time: the sidecar's clock, which is kept on the server's. By the callers' time
    /// there is no clock: from the beginning of all time, an end is how long it is until then.
    fn reckoned_from(&self) -> Timestamp {
        let clock = self.shared.clock.as_ref();
        clock.map_or(Timestamp(0), Clock::wall)
    }

    async fn issued(&self, entry: OneTime) -> Result<Issued, StoreError> {
        let OneTime {
            key,
            purpose,
            payload,
            expires_at,
        } = entry;
        let from = self.reckoned_from();
        let mut call = self.call(&SCRIPTS.issue, from);
        call.arg(&key[..])
            .arg(purpose.number())
            .arg(payload.bytes())
            .arg(millis(expires_at.since(from)));
        let outcome: String = self.shared.link.invoke(&call).await?;
        match &*outcome {
            "issued" => Ok(Issued::Issued),
            "collision" => Ok(Issued::Collision),
            _ => Err(DAMAGED),
        }
    }

    async fn spent(
        &self,
        key: KeyedHash,
        purpose: OneTimePurpose,
        at: Timestamp,
    ) -> Result<Spent, StoreError> {
        let mut call = self.call(&SCRIPTS.spend, at);
        call.arg(&key[..]).arg(purpose.number());
        let mut answer = self.invoke(&call).await?;
        match &*answer.text()? {
            "spent" => {
                let payload = Payload::new(answer.bytes()?);
                payload.map(Spent::Spent).ok_or(DAMAGED)
            }
            "wrong_purpose" => Ok(Spent::WrongPurpose),
            "already_used" => Ok(Spent::AlreadyUsed),
            "expired" => Ok(Spent::Expired),
            "unknown" => Ok(Spent::Unknown),
            _ => Err(DAMAGED),
        }
    }

    async fn guessed(
        &self,
        key: KeyedHash,
        hash: KeyedHash,
        at: Timestamp,
    ) -> Result<Guess, StoreError> {
        let mut call = self.call(&SCRIPTS.guess, at);
        call.arg(&key[..]).arg(&hash[..]);
        let mut answer = self.invoke(&call).await?;
        let outcome = answer.text()?;
        let left = answer.parsed()?;
        match &*outcome {
            "right" => Ok(Guess::Right),
            "wrong" => Ok(Guess::Wrong { left }),
            "exhausted" => Ok(Guess::Exhausted),
            "expired" => Ok(Guess::Expired),
            "unknown" => Ok(Guess::Unknown),
            _ => Err(DAMAGED),
        }
    }

    async fn account_of(&self, identity: Identity) -> Result<Option<Account>, StoreError> {
        let mut call = self.call(&SCRIPTS.account, Timestamp(0));
        call.arg(account_text(&identity))
            .arg(PlayerId(0).to_string())
            .arg(NOBODYS);
        let mut answer = self.invoke(&call).await?;
        let is_somebody = !answer.text()?.is_empty();
        let player = answer.parsed()?;
        let generation = answer.parsed().map(PlayerGeneration)?;
        let password = answer.text()?;
        let identities = identities_of(answer.list()?)?;
        // Nobody's is made, too, and thrown away: how long an answer takes tells nobody whose address it is.
        let account = Account {
            player,
            generation,
            password: (!password.is_empty()).then_some(password),
            identities,
        };
        Ok(is_somebody.then_some(account))
    }

    async fn linked(
        &self,
        identity: Identity,
        by: SessionId,
        join: Join,
    ) -> Result<Linked, StoreError> {
        let mut call = self.call(&SCRIPTS.link, Timestamp(0));
        call.arg(account_text(&identity))
            .arg(start_of(&identity.provider))
            .arg(by.to_string())
            .arg(match join {
                Join::Beside => "beside",
                Join::Only => "only",
                Join::Instead => "instead",
            })
            .arg(MAX_IDENTITIES);
        let outcome: String = self.shared.link.invoke(&call).await?;
        match &*outcome {
            "linked" => Ok(Linked::Linked),
            "already" => Ok(Linked::Already),
            "taken" => Ok(Linked::Taken),
            "has_one" => Ok(Linked::HasOne),
            "too_many" => Ok(Linked::TooMany),
            "outdated" => Ok(Linked::Outdated),
            _ => Err(DAMAGED),
        }
    }

    async fn unlinked(
        &self,
        identity: Identity,
        by: SessionId,
        with_password: bool,
        at: Timestamp,
    ) -> Result<Unlinked, StoreError> {
        let mut call = self.call(&SCRIPTS.unlink, at);
        call.arg(account_text(&identity))
            .arg(by.to_string())
            .arg(u8::from(with_password))
            .arg(millis(self.shared.lives.idle));
        let mut answer = self.invoke(&call).await?;
        match &*answer.text()? {
            "unlinked" => {
                let player = answer.parsed()?;
                let generation = answer.parsed().map(PlayerGeneration)?;
                let revision = answer.revision()?;
                self.made(revision, Revocation::Player(player, generation));
                Ok(Unlinked::Unlinked {
                    revision,
                    sessions: answer.parsed()?,
                })
            }
            "not_theirs" => Ok(Unlinked::NotTheirs),
            "last_one" => Ok(Unlinked::LastOne),
            "outdated" => Ok(Unlinked::Outdated),
            _ => Err(DAMAGED),
        }
    }

    async fn password_set(
        &self,
        identity: Identity,
        phc: String,
        at: Timestamp,
    ) -> Result<PasswordSet, StoreError> {
        let account = account_text(&identity);
        loop {
            let mut call = self.call(&SCRIPTS.set_password, at);
            call.arg(&account)
                .arg(draw::player_id()?.to_string())
                .arg(DEFAULT_ROLE)
                .arg(&phc)
                .arg(millis(self.shared.lives.idle));
            let mut answer = self.invoke(&call).await?;
            let is_new_player = match &*answer.text()? {
                "new" => true,
                "known" => false,
                "taken" => continue,
                _ => return Err(DAMAGED),
            };
            let player = answer.parsed()?;
            let generation = answer.parsed().map(PlayerGeneration)?;
            let revision = answer.revision()?;
            self.made(revision, Revocation::Player(player, generation));
            return Ok(PasswordSet {
                player,
                is_new_player,
                revision,
                sessions: answer.parsed()?,
            });
        }
    }

    async fn logins_purged(&self, before: Timestamp) -> Result<usize, StoreError> {
        // How long ago that is; by the callers' time it is now.
        let kept = match &self.shared.clock {
            Some(clock) => clock.wall().since(before),
            None => Duration::ZERO,
        };
        let mut total: usize = 0;
        loop {
            let mut call = self.call(&SCRIPTS.purge_logins, before);
            call.arg(millis(kept)).arg(PURGED);
            let purged: usize = self.shared.link.invoke(&call).await?;
            total = total.saturating_add(purged);
            if purged < PURGED {
                return Ok(total);
            }
        }
    }
}

impl Logins for RedisStore {
    fn issue(&self, entry: OneTime) -> Answer<'_, Issued> {
        Box::pin(self.issued(entry))
    }

    fn spend(&self, key: KeyedHash, purpose: OneTimePurpose, at: Timestamp) -> Answer<'_, Spent> {
        Box::pin(self.spent(key, purpose, at))
    }

    fn put_code(&self, code: Code) -> Answer<'_, ()> {
        Box::pin(async move {
            let Code {
                key,
                hash,
                expires_at,
                tries,
            } = code;
            let from = self.reckoned_from();
            let mut call = self.call(&SCRIPTS.put_code, from);
            call.arg(&key[..])
                .arg(&hash[..])
                .arg(tries)
                .arg(millis(expires_at.since(from)));
            self.shared.link.invoke(&call).await
        })
    }

    fn guess(&self, key: KeyedHash, hash: KeyedHash, at: Timestamp) -> Answer<'_, Guess> {
        Box::pin(self.guessed(key, hash, at))
    }

    fn attempt(
        &self,
        key: KeyedHash,
        most: u32,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Answer<'_, Attempt> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.attempt, at);
            call.arg(&key[..])
                .arg(most)
                .arg(millis(forget_at.since(at)));
            Ok(match self.shared.link.invoke(&call).await? {
                0 => Attempt::TooMany,
                count => Attempt::Counted(count),
            })
        })
    }

    fn forget_attempts(&self, key: KeyedHash) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.forget_attempts, Timestamp(0));
            call.arg(&key[..]);
            self.shared.link.invoke(&call).await
        })
    }

    fn account(&self, identity: Identity) -> Answer<'_, Option<Account>> {
        Box::pin(self.account_of(identity))
    }

    fn identities(&self, player: PlayerId) -> Answer<'_, Option<Vec<Identity>>> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.identities, Timestamp(0));
            call.arg(player.to_string());
            let mut answer = self.invoke(&call).await?;
            if answer.is_empty() {
                return Ok(None);
            }
            answer.text()?;
            identities_of(answer.list()?).map(Some)
        })
    }

    fn link(&self, identity: Identity, by: SessionId, join: Join) -> Answer<'_, Linked> {
        Box::pin(self.linked(identity, by, join))
    }

    fn unlink(
        &self,
        identity: Identity,
        by: SessionId,
        with_password: bool,
        at: Timestamp,
    ) -> Answer<'_, Unlinked> {
        Box::pin(self.unlinked(identity, by, with_password, at))
    }

    fn known_place(
        &self,
        account: KeyedHash,
        place: Place,
        at: Timestamp,
    ) -> Answer<'_, Option<Timestamp>> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.known_place, at);
            call.arg(&account[..]).arg(&place[..]);
            let until: u64 = self.shared.link.invoke(&call).await?;
            Ok((until > 0).then_some(Timestamp(until)))
        })
    }

    fn remember_place(
        &self,
        account: KeyedHash,
        place: Place,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.remember_place, at);
            call.arg(&account[..])
                .arg(&place[..])
                .arg(MAX_PLACES)
                .arg(millis(forget_at.since(at)));
            self.shared.link.invoke(&call).await
        })
    }

    fn set_password(
        &self,
        identity: Identity,
        phc: String,
        at: Timestamp,
    ) -> Answer<'_, PasswordSet> {
        Box::pin(self.password_set(identity, phc, at))
    }

    fn set_role(&self, player: PlayerId, role: String) -> Answer<'_, Option<String>> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.set_role, Timestamp(0));
            call.arg(player.to_string()).arg(role);
            let mut before = self.invoke(&call).await?;
            if before.is_empty() {
                return Ok(None);
            }
            before.text().map(Some)
        })
    }

    fn purge_logins(&self, before: Timestamp) -> Answer<'_, usize> {
        Box::pin(self.logins_purged(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_survives_its_text() {
        for (provider, subject) in [
            ("email", "ada@x.org"),
            ("a:b", ":c:"),
            ("ä", ""),
            ("", "1:"),
        ] {
            let identity = Identity {
                provider: provider.to_owned(),
                subject: subject.to_owned(),
            };
            assert_eq!(account_of(&account_text(&identity)).unwrap(), identity);
        }
        for damaged in ["", "3", "3:dev", "4:dev:ada", "1:ä:ada", "x:dev:ada"] {
            assert!(account_of(damaged).is_err(), "{damaged}");
        }
    }
}
