//! What the ways to log in keep, in plain maps.

use std::collections::HashMap;

use crate::{
    clock::Timestamp,
    id::{PlayerId, SessionId},
    store::{
        Account, Answer, Attempt, Code, Guess, Identity, Issued, Join, KeyedHash, Linked, Logins,
        MAX_IDENTITIES, MAX_PLACES, OneTime, OneTimePurpose, PasswordSet, Place, PlayerRevocation,
        Spent, StoreError, Unlinked,
    },
};

use super::{MemoryStore, Model};

#[derive(Default)]
pub(super) struct Kept {
    /// And whether it was spent.
    one_time: HashMap<KeyedHash, (OneTime, bool)>,
    codes: HashMap<KeyedHash, Code>,
    /// How many, and when they are forgotten.
    attempts: HashMap<KeyedHash, (u32, Timestamp)>,
    /// The newest last, and when they are forgotten.
    places: HashMap<KeyedHash, (Vec<Place>, Timestamp)>,
    passwords: HashMap<PlayerId, String>,
    pub(super) identities: HashMap<PlayerId, Vec<Identity>>,
}

impl Model {
    /// Whose session it is, if it was not revoked.
    fn has_a_say(&self, session: SessionId) -> Option<PlayerId> {
        let found = self.found(session)?;
        found.revocation().is_none().then_some(found.player.id)
    }
}

impl Logins for MemoryStore {
    fn issue(&self, entry: OneTime) -> Answer<'_, Issued> {
        self.with(|model| {
            let kept = &mut model.logins.one_time;
            if kept.contains_key(&entry.key) {
                return Ok(Issued::Collision);
            }
            kept.insert(entry.key, (entry, false));
            Ok(Issued::Issued)
        })
    }

    fn spend(&self, key: KeyedHash, purpose: OneTimePurpose, at: Timestamp) -> Answer<'_, Spent> {
        self.with(|model| {
            let Some((entry, used)) = model.logins.one_time.get_mut(&key) else {
                return Ok(Spent::Unknown);
            };
            if entry.purpose != purpose {
                return Ok(Spent::WrongPurpose);
            }
            if *used {
                return Ok(Spent::AlreadyUsed);
            }
            if at >= entry.expires_at {
                return Ok(Spent::Expired);
            }
            *used = true;
            Ok(Spent::Spent(entry.payload.clone()))
        })
    }

    fn put_code(&self, code: Code) -> Answer<'_, ()> {
        self.with(|model| {
            model.logins.codes.insert(code.key, code);
            Ok(())
        })
    }

    fn guess(&self, key: KeyedHash, hash: KeyedHash, at: Timestamp) -> Answer<'_, Guess> {
        self.with(|model| {
            let Some(code) = model.logins.codes.get_mut(&key) else {
                return Ok(Guess::Unknown);
            };
            if at >= code.expires_at {
                return Ok(Guess::Expired);
            }
            if code.tries == 0 {
                return Ok(Guess::Exhausted);
            }
            if code.hash == hash {
                model.logins.codes.remove(&key);
                return Ok(Guess::Right);
            }
            code.tries -= 1;
            Ok(Guess::Wrong { left: code.tries })
        })
    }

    fn attempt(
        &self,
        key: KeyedHash,
        most: u32,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Answer<'_, Attempt> {
        self.with(|model| {
            let (count, until) = model.logins.attempts.entry(key).or_default();
            if at >= *until {
                *count = 0;
            }
            if *count >= most {
                return Ok(Attempt::TooMany);
            }
            *count += 1;
            *until = forget_at;
            Ok(Attempt::Counted(*count))
        })
    }

    fn forget_attempts(&self, key: KeyedHash) -> Answer<'_, ()> {
        self.with(|model| {
            model.logins.attempts.remove(&key);
            Ok(())
        })
    }

    fn account(&self, identity: Identity) -> Answer<'_, Option<Account>> {
        self.with(|model| {
            let Some(player) = model.identities.get(&identity) else {
                return Ok(None);
            };
            Ok(Some(Account {
                player: *player,
                generation: model.players[player].generation,
                password: model.logins.passwords.get(player).cloned(),
                identities: model.logins.identities[player].clone(),
            }))
        })
    }

    fn identities(&self, player: PlayerId) -> Answer<'_, Option<Vec<Identity>>> {
        self.with(|model| Ok(model.logins.identities.get(&player).cloned()))
    }

    fn link(&self, identity: Identity, by: SessionId, join: Join) -> Answer<'_, Linked> {
        self.with(|model| {
            let Some(player) = model.has_a_say(by) else {
                return Ok(Linked::Outdated);
            };
            match model.identities.get(&identity) {
                Some(owner) if *owner == player => return Ok(Linked::Already),
                Some(_) => return Ok(Linked::Taken),
                None => {}
            }
            let own = model.logins.identities.get_mut(&player).unwrap();
            let is_alike = |other: &Identity| other.provider == identity.provider;
            if join == Join::Only && own.iter().any(is_alike) {
                return Ok(Linked::HasOne);
            }
            if join == Join::Instead {
                own.iter().filter(|other| is_alike(other)).for_each(|old| {
                    model.identities.remove(old);
                });
                own.retain(|other| !is_alike(other));
            }
            if own.len() >= MAX_IDENTITIES {
                return Ok(Linked::TooMany);
            }
            own.push(identity.clone());
            model.identities.insert(identity, player);
            Ok(Linked::Linked)
        })
    }

    fn unlink(
        &self,
        identity: Identity,
        by: SessionId,
        with_password: bool,
        at: Timestamp,
    ) -> Answer<'_, Unlinked> {
        let idle = self.lives.idle;
        self.with(|model| {
            let Some(player) = model.has_a_say(by) else {
                return Ok(Unlinked::Outdated);
            };
            let own = model.logins.identities.get_mut(&player).unwrap();
            if !own.contains(&identity) {
                return Ok(Unlinked::NotTheirs);
            }
            if own.len() == 1 {
                return Ok(Unlinked::LastOne);
            }
            own.retain(|other| *other != identity);
            model.identities.remove(&identity);
            if with_password {
                model.logins.passwords.remove(&player);
            }
            match model.revoke_player(player, at, idle) {
                PlayerRevocation::Ended {
                    revision, sessions, ..
                } => Ok(Unlinked::Unlinked { revision, sessions }),
                PlayerRevocation::Unknown => Err(StoreError::Record("players")),
            }
        })
    }

    fn known_place(
        &self,
        account: KeyedHash,
        place: Place,
        at: Timestamp,
    ) -> Answer<'_, Option<Timestamp>> {
        self.with(|model| {
            let known = model.logins.places.get(&account);
            let known = known.filter(|(places, until)| at < *until && places.contains(&place));
            Ok(known.map(|(_, until)| *until))
        })
    }

    fn remember_place(
        &self,
        account: KeyedHash,
        place: Place,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Answer<'_, ()> {
        self.with(|model| {
            let (places, until) = model.logins.places.entry(account).or_default();
            if at >= *until {
                places.clear();
            }
            places.retain(|known| *known != place);
            places.push(place);
            if places.len() > MAX_PLACES {
                places.remove(0);
            }
            *until = forget_at;
            Ok(())
        })
    }

    fn set_password(
        &self,
        identity: Identity,
        phc: String,
        at: Timestamp,
    ) -> Answer<'_, PasswordSet> {
        let idle = self.lives.idle;
        self.with(|model| {
            let known = model.identities.get(&identity).copied();
            let player = match known {
                Some(player) => player,
                None => model.make_player(identity)?,
            };
            model.logins.passwords.insert(player, phc);
            match model.revoke_player(player, at, idle) {
                PlayerRevocation::Ended {
                    revision, sessions, ..
                } => Ok(PasswordSet {
                    player,
                    is_new_player: known.is_none(),
                    revision,
                    sessions,
                }),
                PlayerRevocation::Unknown => Err(StoreError::Record("players")),
            }
        })
    }

    fn set_role(&self, player: PlayerId, role: String) -> Answer<'_, Option<String>> {
        self.with(|model| {
            let player = model.players.get_mut(&player);
            Ok(player.map(|player| std::mem::replace(&mut player.role, role)))
        })
    }

    fn purge_logins(&self, before: Timestamp) -> Answer<'_, usize> {
        self.with(|model| {
            let kept = &mut model.logins;
            let count = |kept: &Kept| {
                kept.one_time.len() + kept.codes.len() + kept.attempts.len() + kept.places.len()
            };
            let had = count(kept);
            kept.one_time
                .retain(|_, (entry, _)| entry.expires_at >= before);
            kept.codes.retain(|_, code| code.expires_at >= before);
            kept.attempts.retain(|_, (_, until)| *until >= before);
            kept.places.retain(|_, (_, until)| *until >= before);
            Ok(had - count(kept))
        })
    }
}
