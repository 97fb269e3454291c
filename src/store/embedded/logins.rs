//! What the ways to log in keep, in two tables: one by key, and one by when they expire, for the purge.

use bytes::Bytes;
use prost::Message;
use redb::{ReadTransaction, ReadableTable};
use subtle::ConstantTimeEq;

use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId, SessionId},
    proto,
    store::{
        Account, Answer, Attempt, Code, Guess, Identity, Issued, Join, KeyedHash, Linked, Logins,
        MAX_IDENTITIES, OneTime, OneTimePurpose, PasswordSet, Payload, Place, PlayerRevocation,
        Spent, StoreError, Unlinked,
    },
};

use super::{
    EmbeddedStore,
    changes::{Changes, PURGE_STEP},
    places,
    tables::{self, Owner, decode},
};

/// What an entry is, as the tables' keys have it. Fixed for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    OneTime = 1,
    Code = 2,
    Attempts = 3,
    Places = 4,
}

/// An entry's key in the tables.
pub(super) type EntryKey = (u8, &'static [u8; 32]);

impl Logins for EmbeddedStore {
    fn issue(&self, entry: OneTime) -> Answer<'_, Issued> {
        self.change(move |changes| changes.issue(&entry))
    }

    fn spend(&self, key: KeyedHash, purpose: OneTimePurpose, at: Timestamp) -> Answer<'_, Spent> {
        self.change(move |changes| changes.spend(&key, purpose, at))
    }

    fn put_code(&self, code: Code) -> Answer<'_, ()> {
        self.change(move |changes| changes.put_code(&code))
    }

    fn guess(&self, key: KeyedHash, hash: KeyedHash, at: Timestamp) -> Answer<'_, Guess> {
        self.change(move |changes| changes.guess(&key, &hash, at))
    }

    fn attempt(
        &self,
        key: KeyedHash,
        most: u32,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Answer<'_, Attempt> {
        self.change(move |changes| changes.attempt(&key, most, at, forget_at))
    }

    fn forget_attempts(&self, key: KeyedHash) -> Answer<'_, ()> {
        self.change(move |changes| changes.take_entry::<proto::AttemptsRecord>(&key))
    }

    fn account(&self, identity: Identity) -> Answer<'_, Option<Account>> {
        Box::pin(async move { self.shared.read(|read| read_account(read, &identity)) })
    }

    fn identities(&self, player: PlayerId) -> Answer<'_, Option<Vec<Identity>>> {
        Box::pin(async move {
            let record = |read: &_| tables::read_player(read, player);
            let record = self.shared.read(record)?;
            Ok(record.map(|record| identities_of(record).collect()))
        })
    }

    fn link(&self, identity: Identity, by: SessionId, join: Join) -> Answer<'_, Linked> {
        self.change(move |changes| changes.link(&identity, by, join))
    }

    fn unlink(
        &self,
        identity: Identity,
        by: SessionId,
        with_password: bool,
        at: Timestamp,
    ) -> Answer<'_, Unlinked> {
        self.change(move |changes| changes.unlink(&identity, by, with_password, at))
    }

    fn known_place(
        &self,
        account: KeyedHash,
        place: Place,
        at: Timestamp,
    ) -> Answer<'_, Option<Timestamp>> {
        Box::pin(async move {
            let read = |read: &_| places::read(read, &account, &place, at);
            self.shared.read(read)
        })
    }

    fn remember_place(
        &self,
        account: KeyedHash,
        place: Place,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Answer<'_, ()> {
        self.change(move |changes| changes.remember_place(&account, &place, at, forget_at))
    }

    fn set_password(
        &self,
        identity: Identity,
        phc: String,
        at: Timestamp,
    ) -> Answer<'_, PasswordSet> {
        self.change(move |changes| changes.set_password(&identity, &phc, at))
    }

    fn set_role(&self, player: PlayerId, role: String) -> Answer<'_, Option<String>> {
        self.change(move |changes| changes.set_role(player, &role))
    }

    fn purge_logins(&self, before: Timestamp) -> Answer<'_, usize> {
        Box::pin(async move {
            let mut total: usize = 0;
            loop {
                let purged = self
                    .change(move |changes| changes.purge_logins(before))
                    .await?;
                total = total.saturating_add(purged);
                if purged < PURGE_STEP {
                    return Ok(total);
                }
            }
        })
    }
}

/// A record that expires.
pub(super) trait Expires: Message + Default {
    const KIND: Kind;
    fn expires_at_ms(&self) -> u64;
}

impl Expires for proto::OneTimeRecord {
    const KIND: Kind = Kind::OneTime;
    fn expires_at_ms(&self) -> u64 {
        self.expires_at_ms
    }
}

impl Expires for proto::CodeRecord {
    const KIND: Kind = Kind::Code;
    fn expires_at_ms(&self) -> u64 {
        self.expires_at_ms
    }
}

impl Expires for proto::AttemptsRecord {
    const KIND: Kind = Kind::Attempts;
    fn expires_at_ms(&self) -> u64 {
        self.forgotten_at_ms
    }
}

/// Nothing can come between the look and the change: there is one writer, and each of these is one of its steps.
impl Changes<'_, '_> {
    fn issue(&mut self, entry: &OneTime) -> Result<Issued, StoreError> {
        let OneTime {
            key,
            purpose,
            payload,
            expires_at,
        } = entry;
        if self.entry::<proto::OneTimeRecord>(key)?.is_some() {
            return Ok(Issued::Collision);
        }
        let record = proto::OneTimeRecord {
            purpose: purpose.number(),
            payload: Bytes::copy_from_slice(payload.bytes()),
            expires_at_ms: expires_at.0,
            used: false,
        };
        self.put_entry(key, &record)?;
        Ok(Issued::Issued)
    }

    fn spend(
        &mut self,
        key: &KeyedHash,
        purpose: OneTimePurpose,
        at: Timestamp,
    ) -> Result<Spent, StoreError> {
        let Some(mut record) = self.entry::<proto::OneTimeRecord>(key)? else {
            return Ok(Spent::Unknown);
        };
        if record.purpose != purpose.number() {
            return Ok(Spent::WrongPurpose);
        }
        if record.used {
            return Ok(Spent::AlreadyUsed);
        }
        if at.0 >= record.expires_at_ms {
            return Ok(Spent::Expired);
        }
        // What it brought is not needed again.
        let payload = std::mem::take(&mut record.payload).to_vec();
        record.used = true;
        self.put_entry(key, &record)?;
        let payload = Payload::new(payload).ok_or(StoreError::Record(tables::LOGINS_NAME))?;
        Ok(Spent::Spent(payload))
    }

    fn put_code(&mut self, code: &Code) -> Result<(), StoreError> {
        let Code {
            key,
            hash,
            expires_at,
            tries,
        } = code;
        let record = proto::CodeRecord {
            hash: Bytes::copy_from_slice(hash),
            expires_at_ms: expires_at.0,
            tries: *tries,
        };
        self.put_entry(key, &record)
    }

    fn guess(
        &mut self,
        key: &KeyedHash,
        hash: &KeyedHash,
        at: Timestamp,
    ) -> Result<Guess, StoreError> {
        let Some(mut record) = self.entry::<proto::CodeRecord>(key)? else {
            return Ok(Guess::Unknown);
        };
        if at.0 >= record.expires_at_ms {
            return Ok(Guess::Expired);
        }
        let Some(left) = record.tries.checked_sub(1) else {
            return Ok(Guess::Exhausted);
        };
        if bool::from(record.hash.as_ref().ct_eq(hash)) {
            self.take_entry::<proto::CodeRecord>(key)?;
            return Ok(Guess::Right);
        }
        record.tries = left;
        self.put_entry(key, &record)?;
        Ok(Guess::Wrong { left })
    }

    fn attempt(
        &mut self,
        key: &KeyedHash,
        most: u32,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Result<Attempt, StoreError> {
        let known = self.entry::<proto::AttemptsRecord>(key)?;
        let known = known.filter(|record| at.0 < record.forgotten_at_ms);
        let made = known.map_or(0, |record| record.count);
        if made >= most {
            return Ok(Attempt::TooMany);
        }
        let count = made.saturating_add(1);
        let record = proto::AttemptsRecord {
            count,
            forgotten_at_ms: forget_at.0,
        };
        self.put_entry(key, &record)?;
        Ok(Attempt::Counted(count))
    }

    fn link(
        &mut self,
        identity: &Identity,
        by: SessionId,
        join: Join,
    ) -> Result<Linked, StoreError> {
        let Some((player, mut record)) = self.has_a_say(by)? else {
            return Ok(Linked::Outdated);
        };
        match self.player_of_identity(identity)? {
            Some(owner) if owner == player => return Ok(Linked::Already),
            Some(_) => return Ok(Linked::Taken),
            None => {}
        }
        let is_alike = |other: &proto::IdentityRecord| other.provider == identity.provider;
        if join == Join::Only && record.identities.iter().any(is_alike) {
            return Ok(Linked::HasOne);
        }
        let (old, mut kept): (Vec<_>, Vec<_>) = record
            .identities
            .into_iter()
            .partition(|other| join == Join::Instead && is_alike(other));
        if kept.len() >= MAX_IDENTITIES {
            return Ok(Linked::TooMany);
        }
        for old in old {
            let key = (old.provider.as_str(), old.subject.as_str());
            self.tables.identities.remove(key)?;
        }
        kept.push(identity_record(identity));
        record.identities = kept;
        self.tables.put_player(player, &record)?;
        let key = (identity.provider.as_str(), identity.subject.as_str());
        self.tables.identities.insert(key, player.0)?;
        Ok(Linked::Linked)
    }

    fn unlink(
        &mut self,
        identity: &Identity,
        by: SessionId,
        with_password: bool,
        at: Timestamp,
    ) -> Result<Unlinked, StoreError> {
        let Some((player, mut record)) = self.has_a_say(by)? else {
            return Ok(Unlinked::Outdated);
        };
        if self.player_of_identity(identity)? != Some(player) {
            return Ok(Unlinked::NotTheirs);
        }
        let removed = identity_record(identity);
        record.identities.retain(|other| *other != removed);
        if record.identities.is_empty() {
            return Ok(Unlinked::LastOne);
        }
        self.tables.put_player(player, &record)?;
        let key = (identity.provider.as_str(), identity.subject.as_str());
        self.tables.identities.remove(key)?;
        if with_password {
            self.tables.passwords.remove(player.0)?;
        }
        match self.revoke_player(player, at)? {
            PlayerRevocation::Ended {
                generation: _,
                revision,
                sessions,
            } => Ok(Unlinked::Unlinked { revision, sessions }),
            PlayerRevocation::Unknown => Err(StoreError::Record("players")),
        }
    }

    /// Whose session it is, if it was not revoked.
    fn has_a_say(
        &self,
        session: SessionId,
    ) -> Result<Option<(PlayerId, proto::PlayerRecord)>, StoreError> {
        let Some(record) = self.tables.session(session)? else {
            return Ok(None);
        };
        let owner = tables::player_of(&record)?;
        let player = self.tables.player(owner)?;
        let player = player.ok_or(StoreError::Record("players"))?;
        let found = tables::found(session, record, owner, player.clone(), self.head());
        Ok(found.revocation().is_none().then_some((owner, player)))
    }

    fn set_password(
        &mut self,
        identity: &Identity,
        phc: &str,
        at: Timestamp,
    ) -> Result<PasswordSet, StoreError> {
        let known = self.player_of_identity(identity)?;
        let player = match known {
            Some(player) => player,
            None => self.make_player(identity, at)?.0,
        };
        self.tables.passwords.insert(player.0, phc.as_bytes())?;
        match self.revoke_player(player, at)? {
            PlayerRevocation::Ended {
                generation: _,
                revision,
                sessions,
            } => Ok(PasswordSet {
                player,
                is_new_player: known.is_none(),
                revision,
                sessions,
            }),
            PlayerRevocation::Unknown => Err(StoreError::Record("players")),
        }
    }

    fn set_role(&mut self, player: PlayerId, role: &str) -> Result<Option<String>, StoreError> {
        let Some(mut record) = self.tables.player(player)? else {
            return Ok(None);
        };
        let before = std::mem::replace(&mut record.role, role.to_owned());
        self.tables.put_player(player, &record)?;
        Ok(Some(before))
    }

    /// Takes away up to [`PURGE_STEP`] entries that expired before `before`.
    fn purge_logins(&mut self, before: Timestamp) -> Result<usize, StoreError> {
        let mut expired = Vec::new();
        let until = (before.0, u8::MIN, &[u8::MIN; 32]);
        for entry in self.tables.logins_by_end.range(..until)?.take(PURGE_STEP) {
            let entry = entry?;
            let (end, kind, key) = entry.0.value();
            expired.push((end, kind, *key));
        }
        for (end, kind, key) in &expired {
            self.tables.logins.remove((*kind, key))?;
            self.tables.logins_by_end.remove((*end, *kind, key))?;
        }
        Ok(expired.len())
    }

    fn player_of_identity(&self, identity: &Identity) -> Result<Option<PlayerId>, StoreError> {
        let key = (identity.provider.as_str(), identity.subject.as_str());
        let found = self.tables.identities.get(key)?;
        Ok(found.map(|id| PlayerId(id.value())))
    }

    pub(super) fn entry<M: Expires>(&self, key: &KeyedHash) -> Result<Option<M>, StoreError> {
        let bytes = self.tables.logins.get((M::KIND as u8, key))?;
        bytes
            .map(|bytes| decode(bytes.value(), tables::LOGINS_NAME))
            .transpose()
    }

    /// Keeps an entry, instead of one of the same key if there is one.
    pub(super) fn put_entry<M: Expires>(
        &mut self,
        key: &KeyedHash,
        record: &M,
    ) -> Result<(), StoreError> {
        let kind = M::KIND as u8;
        if let Some(old) = self.entry::<M>(key)? {
            let end = (old.expires_at_ms(), kind, key);
            self.tables.logins_by_end.remove(end)?;
        }
        let bytes = record.encode_to_vec();
        self.tables.logins.insert((kind, key), bytes.as_slice())?;
        let end = (record.expires_at_ms(), kind, key);
        self.tables.logins_by_end.insert(end, ())?;
        Ok(())
    }

    fn take_entry<M: Expires>(&mut self, key: &KeyedHash) -> Result<(), StoreError> {
        if let Some(old) = self.entry::<M>(key)? {
            let (kind, end) = (M::KIND as u8, old.expires_at_ms());
            self.tables.logins.remove((kind, key))?;
            self.tables.logins_by_end.remove((end, kind, key))?;
        }
        Ok(())
    }
}

/// An account as records have it.
pub(super) fn identity_record(identity: &Identity) -> proto::IdentityRecord {
    proto::IdentityRecord {
        provider: identity.provider.clone(),
        subject: identity.subject.clone(),
    }
}

fn identities_of(record: proto::PlayerRecord) -> impl Iterator<Item = Identity> {
    record.identities.into_iter().map(|identity| Identity {
        provider: identity.provider,
        subject: identity.subject,
    })
}

/// As much is done for an account that is nobody's as for one that is somebody's.
fn read_account(
    transaction: &ReadTransaction,
    identity: &Identity,
) -> Result<Option<Account>, StoreError> {
    let Some((owner, is_known)) = tables::read_owner(transaction, identity)? else {
        return Ok(None);
    };
    let Owner {
        id,
        record,
        password,
    } = owner;
    let password = password
        .map(|phc| String::from_utf8(phc).map_err(|_| StoreError::Record("passwords")))
        .transpose()?;
    let account = std::hint::black_box(Account {
        player: id,
        generation: PlayerGeneration(record.generation),
        password,
        identities: identities_of(record).collect(),
    });
    Ok(is_known.then_some(account))
}
