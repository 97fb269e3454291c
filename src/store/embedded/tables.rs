//! The tables of the embedded store, and records to and from bytes.

use std::ops::Bound;

use prost::Message;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::{
    clock::Timestamp,
    control::{LogState, Revocation},
    id::{GatewayId, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
    proto,
    store::{Found, Identity, Player, Session, StoreError},
};

use super::{
    logins::{EntryKey, Kind},
    roster::Roster,
};

/// Key or value that is a record or other bytes.
type Bytes = &'static [u8];

/// JTI to SessionRecord.
const SESSIONS: TableDefinition<'_, u128, Bytes> = TableDefinition::new("sessions");
/// Player id to PlayerRecord.
const PLAYERS: TableDefinition<'_, u128, Bytes> = TableDefinition::new("players");
/// Provider and subject to player id.
const IDENTITIES: TableDefinition<'_, (&str, &str), u128> = TableDefinition::new("identities");
/// Absolute end in milliseconds and JTI: what to purge first.
const BY_END: TableDefinition<'_, (u64, u128), ()> = TableDefinition::new("sessions_by_end");
/// Gateway id to GatewayRecord.
const GATEWAYS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("gateways");
/// Revision to RevocationRecord.
const LOG: TableDefinition<'_, u64, Bytes> = TableDefinition::new("revocations");
/// "log" to LogRecord.
const META: TableDefinition<'_, &str, Bytes> = TableDefinition::new("meta");
const META_LOG: &str = "log";
/// Kind and key to a record of [`logins`](super::logins).
const LOGINS: TableDefinition<'_, EntryKey, Bytes> = TableDefinition::new(LOGINS_NAME);
pub(super) const LOGINS_NAME: &str = "logins";
/// When each of them expires in milliseconds, kind and key: what to purge first.
const LOGINS_BY_END: TableDefinition<'_, EndKey, ()> = TableDefinition::new("logins_by_end");
/// Player id to what argon2id made of the password (PHC string).
const PASSWORDS: TableDefinition<'_, u128, Bytes> = TableDefinition::new("passwords");

type EndKey = (u64, u8, &'static [u8; 32]);

/// The tables within one write transaction.
pub(super) struct Tables<'t> {
    pub(super) sessions: Table<'t, u128, Bytes>,
    pub(super) players: Table<'t, u128, Bytes>,
    pub(super) identities: Table<'t, (&'static str, &'static str), u128>,
    pub(super) by_end: Table<'t, (u64, u128), ()>,
    gateways: Table<'t, &'static str, Bytes>,
    pub(super) log: Table<'t, u64, Bytes>,
    meta: Table<'t, &'static str, Bytes>,
    pub(super) logins: Table<'t, EntryKey, Bytes>,
    pub(super) logins_by_end: Table<'t, EndKey, ()>,
    pub(super) passwords: Table<'t, u128, Bytes>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            players: transaction.open_table(PLAYERS)?,
            identities: transaction.open_table(IDENTITIES)?,
            by_end: transaction.open_table(BY_END)?,
            gateways: transaction.open_table(GATEWAYS)?,
            log: transaction.open_table(LOG)?,
            meta: transaction.open_table(META)?,
            logins: transaction.open_table(LOGINS)?,
            logins_by_end: transaction.open_table(LOGINS_BY_END)?,
            passwords: transaction.open_table(PASSWORDS)?,
        })
    }

    /// What the file says about itself; none in a new one.
    pub(super) fn log_record(&self) -> Result<Option<proto::LogRecord>, StoreError> {
        log_record(&self.meta)
    }

    pub(super) fn put_log_record(&mut self, record: &proto::LogRecord) -> Result<(), StoreError> {
        self.meta
            .insert(META_LOG, record.encode_to_vec().as_slice())?;
        Ok(())
    }

    pub(super) fn session(
        &self,
        id: SessionId,
    ) -> Result<Option<proto::SessionRecord>, StoreError> {
        session(&self.sessions, id)
    }

    pub(super) fn put_session(
        &mut self,
        id: SessionId,
        record: &proto::SessionRecord,
    ) -> Result<(), StoreError> {
        self.sessions
            .insert(id.0, record.encode_to_vec().as_slice())?;
        Ok(())
    }

    /// Puts a session there, unless another one has that id already; returns whether none had. The insertion itself tells, which is one way
    /// down the tree less than to look first.
    pub(super) fn add_session(
        &mut self,
        id: SessionId,
        record: &proto::SessionRecord,
    ) -> Result<bool, StoreError> {
        let bytes = record.encode_to_vec();
        let other = self.sessions.insert(id.0, bytes.as_slice())?;
        let Some(other) = other.map(|other| other.value().to_vec()) else {
            return Ok(true);
        };
        self.sessions.insert(id.0, other.as_slice())?;
        Ok(false)
    }

    pub(super) fn player(&self, id: PlayerId) -> Result<Option<proto::PlayerRecord>, StoreError> {
        player(&self.players, id)
    }

    pub(super) fn put_player(
        &mut self,
        id: PlayerId,
        record: &proto::PlayerRecord,
    ) -> Result<(), StoreError> {
        self.players
            .insert(id.0, record.encode_to_vec().as_slice())?;
        Ok(())
    }

    pub(super) fn gateway(
        &self,
        id: &GatewayId,
    ) -> Result<Option<proto::GatewayRecord>, StoreError> {
        let bytes = self.gateways.get(id.as_str())?;
        bytes.map(|b| decode(b.value(), "gateways")).transpose()
    }

    pub(super) fn put_gateway(
        &mut self,
        id: &GatewayId,
        record: &proto::GatewayRecord,
    ) -> Result<(), StoreError> {
        self.gateways
            .insert(id.as_str(), record.encode_to_vec().as_slice())?;
        Ok(())
    }
}

/// A session and its player.
pub(super) fn read_found(
    transaction: &ReadTransaction,
    id: SessionId,
) -> Result<Option<Found>, StoreError> {
    let sessions = transaction.open_table(SESSIONS)?;
    let players = transaction.open_table(PLAYERS)?;
    let head = read_log_state(transaction)?.head;
    find(&sessions, &players, head, id)
}

/// A session and its player, and the session's record for what the rest of the program does not see.
pub(super) fn read_record(
    transaction: &ReadTransaction,
    id: SessionId,
) -> Result<Option<(Found, proto::SessionRecord)>, StoreError> {
    let Some(record) = session(&transaction.open_table(SESSIONS)?, id)? else {
        return Ok(None);
    };
    let owner = player_of(&record)?;
    let player = player(&transaction.open_table(PLAYERS)?, owner)?;
    let player = player.ok_or(StoreError::Record("players"))?;
    let head = read_log_state(transaction)?.head;
    let found = found(id, record.clone(), owner, player, head);
    Ok(Some((found, record)))
}

/// A player, with the record and what there is of a password.
pub(super) struct Owner {
    pub(super) id: PlayerId,
    pub(super) record: proto::PlayerRecord,
    pub(super) password: Option<Vec<u8>>,
}

/// The player that an account is, and whether it really is: for an account that is nobody's, somebody else is read. So whoever does the
/// same with both does not tell by the time which it was.
pub(super) fn read_owner(
    transaction: &ReadTransaction,
    identity: &Identity,
) -> Result<Option<(Owner, bool)>, StoreError> {
    let key = (identity.provider.as_str(), identity.subject.as_str());
    let identities = transaction.open_table(IDENTITIES)?;
    let players = transaction.open_table(PLAYERS)?;
    let passwords = transaction.open_table(PASSWORDS)?;
    let somebody = match passwords.first()? {
        Some((id, _)) => Some(id.value()),
        None => players.first()?.map(|(id, _)| id.value()),
    };
    let known = identities.get(key)?.map(|id| id.value());
    let Some(id) = known.or(somebody) else {
        return Ok(None);
    };
    let owner = Owner {
        id: PlayerId(id),
        record: player(&players, PlayerId(id))?.ok_or(StoreError::Record("players"))?,
        password: passwords.get(id)?.map(|phc| phc.value().to_vec()),
    };
    Ok(Some((owner, known.is_some())))
}

/// A player's record.
pub(super) fn read_player(
    transaction: &ReadTransaction,
    id: PlayerId,
) -> Result<Option<proto::PlayerRecord>, StoreError> {
    player(&transaction.open_table(PLAYERS)?, id)
}

/// The bytes of a record of [`logins`](super::logins).
pub(super) fn read_login(
    transaction: &ReadTransaction,
    kind: Kind,
    key: &[u8; 32],
) -> Result<Option<Vec<u8>>, StoreError> {
    let bytes = transaction.open_table(LOGINS)?.get((kind as u8, key))?;
    Ok(bytes.map(|bytes| bytes.value().to_vec()))
}

/// Up to `limit` sessions with an id below `before`, newest first.
pub(super) fn read_newest(
    transaction: &ReadTransaction,
    before: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Found>, StoreError> {
    let sessions = transaction.open_table(SESSIONS)?;
    let end = before.map_or(Bound::Unbounded, |id| Bound::Excluded(id.0));
    let newest_first = sessions.range((Bound::Unbounded, end))?.rev();
    let ids: Result<_, StoreError> = newest_first
        .take(limit)
        .map(|entry| Ok(SessionId(entry?.0.value())))
        .collect();
    read_these(transaction, ids?)
}

/// Those of these sessions that are there, in their order.
pub(super) fn read_these(
    transaction: &ReadTransaction,
    ids: Vec<SessionId>,
) -> Result<Vec<Found>, StoreError> {
    let sessions = transaction.open_table(SESSIONS)?;
    let players = transaction.open_table(PLAYERS)?;
    let head = read_log_state(transaction)?.head;
    ids.into_iter()
        .filter_map(|id| find(&sessions, &players, head, id).transpose())
        .collect()
}

/// Whose session each is.
pub(super) fn read_roster(transaction: &ReadTransaction) -> Result<Roster, StoreError> {
    transaction
        .open_table(SESSIONS)?
        .iter()?
        .map(|entry| {
            let (id, record) = entry?;
            let owner = player_of(&decode(record.value(), "sessions")?)?;
            Ok((owner, SessionId(id.value())))
        })
        .collect()
}

/// Looks sessions' records up, all as of one instant.
pub(super) fn session_reader(
    transaction: &ReadTransaction,
) -> Result<impl Fn(SessionId) -> Result<Option<proto::SessionRecord>, StoreError>, StoreError> {
    let sessions = transaction.open_table(SESSIONS)?;
    Ok(move |id| session(&sessions, id))
}

/// What is known of a gateway's processes.
pub(super) fn read_gateway(
    transaction: &ReadTransaction,
    id: &GatewayId,
) -> Result<Option<proto::GatewayRecord>, StoreError> {
    let gateways = transaction.open_table(GATEWAYS)?;
    let bytes = gateways.get(id.as_str())?;
    bytes.map(|b| decode(b.value(), "gateways")).transpose()
}

/// Which of these sessions cannot have a live seat any more.
pub(super) fn read_dead(
    transaction: &ReadTransaction,
    ids: &[SessionId],
    at: Timestamp,
) -> Result<Vec<SessionId>, StoreError> {
    let sessions = transaction.open_table(SESSIONS)?;
    let players = transaction.open_table(PLAYERS)?;
    let head = read_log_state(transaction)?.head;
    let mut dead = Vec::new();
    for &id in ids {
        let found = find(&sessions, &players, head, id)?;
        let lives = |found: &Found| found.revocation().is_none() && at < found.session.ends_at;
        if !found.as_ref().is_some_and(lives) {
            dead.push(id);
        }
    }
    Ok(dead)
}

fn find(
    sessions: &impl ReadableTable<u128, Bytes>,
    players: &impl ReadableTable<u128, Bytes>,
    head: Revision,
    id: SessionId,
) -> Result<Option<Found>, StoreError> {
    let Some(record) = session(sessions, id)? else {
        return Ok(None);
    };
    let owner = player_of(&record)?;
    let player = player(players, owner)?.ok_or(StoreError::Record("players"))?;
    Ok(Some(found(id, record, owner, player, head)))
}

/// Where the log stands.
pub(super) fn read_log_state(transaction: &ReadTransaction) -> Result<LogState, StoreError> {
    let record = log_record(&transaction.open_table(META)?)?.ok_or(StoreError::Record("meta"))?;
    Ok(LogState {
        lineage: lineage_of(&record)?,
        tail: Revision(record.tail),
        head: Revision(record.head),
    })
}

/// Up to `limit` events after `from`.
pub(super) fn read_log(
    transaction: &ReadTransaction,
    from: Revision,
    limit: usize,
) -> Result<Vec<Revocation>, StoreError> {
    transaction
        .open_table(LOG)?
        .range(from.0.saturating_add(1)..)?
        .take(limit)
        .map(|entry| {
            let record: proto::RevocationRecord = decode(entry?.1.value(), "revocations")?;
            if record.session_id.is_empty() {
                let player = PlayerId(u128_of(&record.player_id, "revocations")?);
                let generation = PlayerGeneration(record.player_generation);
                Ok(Revocation::Player(player, generation))
            } else {
                u128_of(&record.session_id, "revocations")
                    .map(|id| Revocation::Session(SessionId(id)))
            }
        })
        .collect()
}

/// The records of a session as the rest of the program sees them.
pub(super) fn found(
    id: SessionId,
    session: proto::SessionRecord,
    owner: PlayerId,
    player: proto::PlayerRecord,
    head: Revision,
) -> Found {
    let revoked = (session.revoked_at_ms != 0).then_some(Revision(session.revoked_revision));
    Found {
        session: Session {
            id,
            player_generation: PlayerGeneration(session.player_generation),
            generation: session.generation,
            method: session.method,
            created_at: Timestamp(session.created_at_ms),
            ends_at: Timestamp(session.ends_at_ms),
            active_at: Timestamp(session.active_at_ms),
            revoked,
        },
        player: Player {
            id: owner,
            generation: PlayerGeneration(player.generation),
            role: player.role,
            revoked_revision: Revision(player.revoked_revision),
        },
        head,
    }
}

/// Whose session it is.
pub(super) fn player_of(record: &proto::SessionRecord) -> Result<PlayerId, StoreError> {
    u128_of(&record.player_id, "sessions").map(PlayerId)
}

/// The identity of the log.
pub(super) fn lineage_of(record: &proto::LogRecord) -> Result<Lineage, StoreError> {
    u128_of(&record.lineage, "meta").map(Lineage)
}

/// A record from its bytes; `table` names the table that it is from.
pub(super) fn decode<M: Message + Default>(
    bytes: &[u8],
    table: &'static str,
) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|_| StoreError::Record(table))
}

fn session(
    table: &impl ReadableTable<u128, Bytes>,
    id: SessionId,
) -> Result<Option<proto::SessionRecord>, StoreError> {
    let bytes = table.get(id.0)?;
    bytes.map(|b| decode(b.value(), "sessions")).transpose()
}

fn player(
    table: &impl ReadableTable<u128, Bytes>,
    id: PlayerId,
) -> Result<Option<proto::PlayerRecord>, StoreError> {
    let bytes = table.get(id.0)?;
    bytes.map(|b| decode(b.value(), "players")).transpose()
}

fn log_record(
    table: &impl ReadableTable<&'static str, Bytes>,
) -> Result<Option<proto::LogRecord>, StoreError> {
    let bytes = table.get(META_LOG)?;
    bytes.map(|b| decode(b.value(), "meta")).transpose()
}

fn u128_of(bytes: &[u8], table: &'static str) -> Result<u128, StoreError> {
    bytes
        .try_into()
        .map(u128::from_be_bytes)
        .map_err(|_| StoreError::Record(table))
}
