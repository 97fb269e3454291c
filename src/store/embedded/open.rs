//! Opening the file: making it, checking it, and saying plainly what is wrong with it.

use std::{fs::OpenOptions, io, path::Path};

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError,
    TableDefinition, backends::FileBackend,
};

use crate::{
    id::Revision,
    proto,
    store::{OpenError, StoreError, draw},
};

use super::{
    roster::Roster,
    tables::{self, Tables, lineage_of},
    unfinished,
};

/// The layout of tables and records that this program reads and writes.
const LAYOUT: u32 = 2;

/// The layout before it, whose table of each player's sessions is the [roster](super::roster) now.
const WITH_SESSIONS_BY_PLAYER: u32 = 1;
pub(super) const SESSIONS_BY_PLAYER: TableDefinition<'_, (u128, u128), ()> =
    TableDefinition::new("sessions_by_player");

/// Memory for cached pages. A session with its player and account takes some 300 bytes of pages, so 48 MiB hold 150,000 of them. Beyond that
/// pages are read again from the system's cache, which is several times slower: measured with twice as much data as cache, a
/// look-up took 7 us instead of 2.5, and a commit of 256 refreshes 10 ms instead of 4.6.
const CACHE: usize = 48 << 20;

/// What opening comes to.
pub(super) struct Opened {
    pub(super) database: Database,
    /// The head of the revocation log.
    pub(super) head: Revision,
    pub(super) roster: Roster,
}

/// Opens or makes the file at `path`, and locks it.
pub(super) fn file(path: &Path) -> Result<FileBackend, OpenError> {
    let inaccessible = |source| OpenError::Inaccessible {
        path: path.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        // Account names are personal data: nobody else's to read.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let file = options.open(path).map_err(inaccessible)?;
    FileBackend::new(file).map_err(|error| classify(path, error))
}

/// Opens or makes the store in a medium, which errors call `path`.
pub(super) fn open<M: StorageBackend>(
    medium: impl Fn() -> Result<M, OpenError>,
    path: &Path,
) -> Result<Opened, OpenError> {
    let opened = match database(medium()?) {
        Err(error) if is_no_database(&error) && unfinished::clear(&medium()?, path)? => {
            database(medium()?)
        }
        opened => opened,
    };
    let database = opened.map_err(|error| classify(path, error))?;
    let log = prepare(&database).map_err(|error| damaged(path, error.to_string()))?;
    if log.format != LAYOUT {
        return Err(OpenError::Layout {
            path: path.to_owned(),
            found: log.format,
            supported: LAYOUT,
        });
    }
    lineage_of(&log).map_err(|error| damaged(path, error.to_string()))?;
    let roster = read_roster(&database).map_err(|error| damaged(path, error.to_string()))?;
    Ok(Opened {
        database,
        head: Revision(log.head),
        roster,
    })
}

fn database(medium: impl StorageBackend) -> Result<Database, DatabaseError> {
    builder().create_with_backend(medium)
}

/// How the file is opened, and made.
pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true);
    builder
}

fn read_roster(database: &Database) -> Result<Roster, StoreError> {
    tables::read_roster(&database.begin_read()?)
}

fn is_no_database(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Storage(StorageError::Io(source)) if source.kind() == io::ErrorKind::InvalidData)
}

/// Makes the tables if they are not there yet, brings an older layout up to this one, and gives the log a new identity.
///
/// New at every opening: a file that was restored from a backup counts on from an older revision, and a gateway which took it for the
/// log that it knows would skip as many events as were lost. So every gateway gets a snapshot and the retained log after a restart.
fn prepare(database: &Database) -> Result<proto::LogRecord, StoreError> {
    let transaction = database.begin_write()?;
    let log = {
        let mut tables = Tables::open(&transaction)?;
        let known = tables.log_record()?;
        match known.as_ref() {
            None => {}
            Some(known) if known.format == LAYOUT => {}
            Some(known) if known.format == WITH_SESSIONS_BY_PLAYER => {
                transaction.delete_table(SESSIONS_BY_PLAYER)?;
            }
            // Not this program's to write in.
            Some(other) => return Ok(other.clone()),
        }
        let (head, tail) = known.map_or((0, 0), |log| (log.head, log.tail));
        let log = proto::LogRecord {
            format: LAYOUT,
            lineage: Bytes::copy_from_slice(&draw::lineage()?.to_bytes()),
            head,
            tail,
        };
        tables.put_log_record(&log)?;
        log
    };
    transaction.commit()?;
    Ok(log)
}

fn damaged(path: &Path, detail: String) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        detail,
    }
}

fn classify(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse {
                path: path.to_owned(),
            }
        }
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() != io::ErrorKind::InvalidData =>
        {
            OpenError::Inaccessible {
                path: path.to_owned(),
                source,
            }
        }
        other => damaged(path, other.to_string()),
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<redb::TableError> for StoreError {
    fn from(error: redb::TableError) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<redb::TransactionError> for StoreError {
    fn from(error: redb::TransactionError) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<redb::CommitError> for StoreError {
    fn from(error: redb::CommitError) -> Self {
        Self::Commit(error.to_string())
    }
}
