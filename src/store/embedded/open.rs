//! Opening the file: making it, checking it, and saying plainly what is wrong with it.

use std::{fs::OpenOptions, path::Path};

use bytes::Bytes;
use redb::{Database, DatabaseError, StorageError, backends::FileBackend};

use crate::{
    id::Revision,
    proto,
    store::{OpenError, StoreError, draw},
};

use super::tables::{Tables, lineage_of};

/// The layout of tables and records that this program reads and writes.
const LAYOUT: u32 = 1;

/// Memory for cached pages: 64 MiB hold the sessions of some 200,000 players.
const CACHE: usize = 64 << 20;

/// Opens or makes the file, and returns it with the head of its revocation log.
pub(super) fn open(path: &Path) -> Result<(Database, Revision), OpenError> {
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
    let backend = FileBackend::new(file).map_err(|error| classify(path, error))?;
    let database = Database::builder()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
        .map_err(|error| classify(path, error))?;
    let log = prepare(&database).map_err(|error| damaged(path, error.to_string()))?;
    if log.format != LAYOUT {
        return Err(OpenError::Layout {
            path: path.to_owned(),
            found: log.format,
            supported: LAYOUT,
        });
    }
    lineage_of(&log).map_err(|error| damaged(path, error.to_string()))?;
    Ok((database, Revision(log.head)))
}

/// Makes the tables if they are not there yet, and gives the log a new identity.
///
/// New at every opening: a file that was restored from a backup counts on from an older revision, and a gateway which took it for the
/// log that it knows would skip as many events as were lost. So every gateway gets a snapshot and the retained log after a restart.
fn prepare(database: &Database) -> Result<proto::LogRecord, StoreError> {
    let transaction = database.begin_write()?;
    let log = {
        let mut tables = Tables::open(&transaction)?;
        let known = tables.log_record()?;
        if let Some(other) = known.as_ref().filter(|log| log.format != LAYOUT) {
            // Not this program's to write in.
            return Ok(other.clone());
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
            if source.kind() != std::io::ErrorKind::InvalidData =>
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
