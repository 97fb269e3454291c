//! What each operation changes, within a write transaction that may hold many of them.

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use redb::ReadableTable;

use crate::{
    clock::Timestamp,
    control::Revocation,
    id::{PlayerGeneration, PlayerId, Revision, SessionId},
    proto,
    store::{
        DEFAULT_ROLE, Identity, NewSession, PlayerRevocation, Purged, SessionRevocation, Standing,
        Started, StoreError, activity::Activity, draw,
    },
};

use super::{
    logins::identity_record,
    roster::{Moves, Roster},
    tables::{Tables, decode, found, player_of},
};

/// Rows that one purge step takes at most from each table, so that a long purge does not hold up others for longer than a commit.
pub(super) const PURGE_STEP: usize = 1_000;

/// A write transaction: its tables, and where the log stands in it.
pub(super) struct Changes<'t, 'a> {
    pub(super) tables: Tables<'t>,
    pub(super) log: proto::LogRecord,
    /// What was appended to it.
    pub(super) appended: Vec<Revocation>,
    /// Where the log stood when the transaction began.
    pub(super) log_before: proto::LogRecord,
    /// What becomes of the roster with it; [`Self::roster`] is as of the commit before.
    pub(super) moves: Moves,
    pub(super) roster: &'a Mutex<Roster>,
    pub(super) activity: &'a Mutex<Activity>,
    pub(super) idle: Duration,
    #[cfg(test)]
    pub(super) fault: Option<super::fault::Fault>,
}

impl Changes<'_, '_> {
    pub(super) fn start_session(&mut self, new: &NewSession) -> Result<Started, StoreError> {
        let provider = new.identity.provider.as_str();
        let subject = new.identity.subject.as_str();
        let known = self
            .tables
            .identities
            .get((provider, subject))?
            .map(|id| PlayerId(id.value()));
        let (owner, player) = match known {
            Some(id) => {
                let record = self.tables.player(id)?;
                (id, record.ok_or(StoreError::Record("players"))?)
            }
            None => self.make_player(&new.identity, new.at)?,
        };
        let record = proto::SessionRecord {
            player_id: Bytes::copy_from_slice(&owner.to_bytes()),
            player_generation: player.generation,
            created_at_ms: new.at.0,
            ends_at_ms: new.ends_at.0,
            active_at_ms: new.at.0,
            revoked_at_ms: 0,
            method: new.method.clone(),
            generation: 0,
            revoked_revision: 0,
            ..Default::default()
        };
        let id = self.put_new_session(new.at, &record)?;
        self.moves.started.push((owner, id));
        self.tables.by_end.insert((new.ends_at.0, id.0), ())?;
        Ok(Started {
            found: found(id, record, owner, player, self.head()),
            is_new_player: known.is_none(),
        })
    }

    pub(super) fn make_player(
        &mut self,
        identity: &Identity,
        at: Timestamp,
    ) -> Result<(PlayerId, proto::PlayerRecord), StoreError> {
        let mut id = draw::player_id()?;
        while self.tables.player(id)?.is_some() {
            id = draw::player_id()?;
        }
        let record = proto::PlayerRecord {
            generation: 0,
            role: DEFAULT_ROLE.to_owned(),
            created_at_ms: at.0,
            revoked_revision: 0,
            identities: vec![identity_record(identity)],
        };
        self.tables.put_player(id, &record)?;
        let key = (identity.provider.as_str(), identity.subject.as_str());
        self.tables.identities.insert(key, id.0)?;
        Ok((id, record))
    }

    /// Puts a session under an id that no other has.
    fn put_new_session(
        &mut self,
        at: Timestamp,
        record: &proto::SessionRecord,
    ) -> Result<SessionId, StoreError> {
        loop {
            let id = draw::session_id(at)?;
            if self.tables.add_session(id, record)? {
                return Ok(id);
            }
        }
    }

    pub(super) fn revoke_session(
        &mut self,
        id: SessionId,
        at: Timestamp,
    ) -> Result<SessionRevocation, StoreError> {
        let Some(mut record) = self.tables.session(id)? else {
            return Ok(SessionRevocation::Unknown);
        };
        let owner = player_of(&record)?;
        let player = self
            .tables
            .player(owner)?
            .ok_or(StoreError::Record("players"))?;
        let found = found(id, record.clone(), owner, player, self.head());
        if let Some(earlier) = found.revocation() {
            return Ok(SessionRevocation::AlreadyEnded(earlier));
        }
        if at >= found.session.ends_at {
            return Ok(SessionRevocation::AlreadyEnded(Revision(0)));
        }
        let revision = self.append(Revocation::Session(id), at)?;
        // The time doubles as the mark, and 0 means not revoked.
        record.revoked_at_ms = at.0.max(1);
        record.revoked_revision = revision.0;
        self.tables.put_session(id, &record)?;
        self.known_activity().forget(id);
        Ok(SessionRevocation::Ended(revision))
    }

    pub(super) fn revoke_player(
        &mut self,
        id: PlayerId,
        at: Timestamp,
    ) -> Result<PlayerRevocation, StoreError> {
        let Some(mut player) = self.tables.player(id)? else {
            return Ok(PlayerRevocation::Unknown);
        };
        let sessions = self.live_sessions_of(id, &player, at)?;
        player.generation = player.generation.saturating_add(1);
        let generation = PlayerGeneration(player.generation);
        let revision = self.append(Revocation::Player(id, generation), at)?;
        player.revoked_revision = revision.0;
        self.tables.put_player(id, &player)?;
        Ok(PlayerRevocation::Ended {
            generation,
            revision,
            sessions,
        })
    }

    fn live_sessions_of(
        &self,
        owner: PlayerId,
        player: &proto::PlayerRecord,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        let mut ids = super::lock(self.roster).of(owner, None, usize::MAX);
        let is_owners = |(player, _): &&(PlayerId, SessionId)| *player == owner;
        let started = self.moves.started.iter().filter(is_owners);
        ids.extend(started.map(|(_, id)| *id));
        let mut live = 0;
        for id in ids {
            // Else it was purged in this very transaction.
            let Some(record) = self.tables.session(id)? else {
                continue;
            };
            let mut found = found(id, record, owner, player.clone(), self.head());
            found.session.active_at = self.known_activity().exact(id, found.session.active_at);
            live += u32::from(found.standing(at, self.idle) == Standing::Live);
        }
        Ok(live)
    }

    pub(super) fn note_activity(
        &mut self,
        moments: &[(SessionId, Timestamp)],
    ) -> Result<(), StoreError> {
        for &(id, at) in moments {
            match self.tables.session(id)? {
                Some(mut record) if record.revoked_at_ms == 0 && at.0 < record.ends_at_ms => {
                    if at.0 > record.active_at_ms {
                        record.active_at_ms = at.0;
                        self.tables.put_session(id, &record)?;
                    }
                }
                _ => self.known_activity().forget(id),
            }
        }
        Ok(())
    }

    /// Takes away up to [`PURGE_STEP`] sessions that ended before `sessions_before`, and as many events from before `events_before`.
    pub(super) fn purge(
        &mut self,
        sessions_before: Timestamp,
        events_before: Timestamp,
    ) -> Result<(Purged, bool), StoreError> {
        let mut ended = Vec::new();
        for entry in self
            .tables
            .by_end
            .range(..(sessions_before.0, 0))?
            .take(PURGE_STEP)
        {
            ended.push(entry?.0.value());
        }
        for &(end, id) in &ended {
            if let Some(record) = self.tables.session(SessionId(id))? {
                let owner = player_of(&record)?;
                self.tables.sessions.remove(id)?;
                self.moves.purged.push((owner, SessionId(id)));
            }
            self.tables.by_end.remove((end, id))?;
            self.known_activity().forget(SessionId(id));
        }
        let mut old = Vec::new();
        for entry in self.tables.log.range(self.log.tail + 1..)?.take(PURGE_STEP) {
            let (revision, record) = entry?;
            let record: proto::RevocationRecord = decode(record.value(), "revocations")?;
            if record.at_ms >= events_before.0 {
                break;
            }
            old.push(revision.value());
        }
        for &revision in &old {
            self.tables.log.remove(revision)?;
            self.log.tail = revision;
        }
        let purged = Purged {
            sessions: ended.len(),
            events: old.len(),
        };
        let more = ended.len() == PURGE_STEP || old.len() == PURGE_STEP;
        Ok((purged, more))
    }

    fn append(&mut self, event: Revocation, at: Timestamp) -> Result<Revision, StoreError> {
        let revision = self.log.head + 1;
        let at_ms = at.0;
        let record = match event {
            Revocation::Session(id) => proto::RevocationRecord {
                session_id: Bytes::copy_from_slice(&id.to_bytes()),
                at_ms,
                ..Default::default()
            },
            Revocation::Player(id, generation) => proto::RevocationRecord {
                player_id: Bytes::copy_from_slice(&id.to_bytes()),
                player_generation: generation.0,
                at_ms,
                ..Default::default()
            },
        };
        let bytes = prost::Message::encode_to_vec(&record);
        self.tables.log.insert(revision, bytes.as_slice())?;
        self.log.head = revision;
        self.appended.push(event);
        Ok(Revision(revision))
    }

    pub(super) fn head(&self) -> Revision {
        Revision(self.log.head)
    }

    pub(super) fn known_activity(&self) -> std::sync::MutexGuard<'_, Activity> {
        super::lock(self.activity)
    }
}
