//! Opening the file: making it, checking it, and saying plainly what is wrong with it.

use std::{fs::OpenOptions, io, ops::Bound, path::Path};

use bytes::Bytes;
use redb::{
    BackendError, Database, DatabaseError, StorageBackend, StorageError, backends::FileBackend,
};

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

/// A new file is shorter: redb makes room for 1 MiB and its own books.
const UNFINISHED: u64 = 2 << 20;

/// redb's first page, and how many bytes of it are its mark.
const FIRST_PAGE: usize = 4_096;
const MARK: usize = 9;

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

/// Opens or makes the store in a medium, which errors call `path`, and returns it with the head of its revocation log.
pub(super) fn open<M: StorageBackend>(
    medium: impl Fn() -> Result<M, OpenError>,
    path: &Path,
) -> Result<(Database, Revision), OpenError> {
    let opened = match database(medium()?) {
        Err(error) if is_no_database(&error) && clear_unfinished(&medium()?, path)? => {
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
    Ok((database, Revision(log.head)))
}

fn database(medium: impl StorageBackend) -> Result<Database, DatabaseError> {
    Database::builder()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true)
        .create_with_backend(medium)
}

fn is_no_database(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Storage(StorageError::Io(source)) if source.kind() == io::ErrorKind::InvalidData)
}

/// Empties a file whose making was cut short, so that it can be made again; returns whether it was one.
///
/// redb marks a new file as its own only when its first page is on the disk, and takes one without the mark for somebody else's. Such a
/// file is short and holds nothing beyond that page: no store that was ever written to looks like that, whatever befell it.
fn clear_unfinished(medium: &impl StorageBackend, path: &Path) -> Result<bool, OpenError> {
    const EVERYTHING: (Bound<u64>, Bound<u64>) = (Bound::Unbounded, Bound::Unbounded);
    let inaccessible = |source| OpenError::Inaccessible {
        path: path.to_owned(),
        source,
    };
    // Another process may be about to make it. A medium that knows no locks has no other process.
    match medium.try_lock_range(EVERYTHING.0, EVERYTHING.1) {
        Ok(true) | Err(BackendError::Unsupported) => {}
        Ok(false) => {
            return Err(OpenError::InUse {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(inaccessible(io::Error::other(error.to_string()))),
    }
    let length = medium.len().map_err(inaccessible)?;
    let mut bytes = vec![0; usize::try_from(length.min(UNFINISHED)).unwrap_or_default()];
    medium.read(0, &mut bytes).map_err(inaccessible)?;
    let (page, rest) = bytes.split_at(bytes.len().min(FIRST_PAGE));
    let is_unmarked = page.iter().take(MARK).all(|byte| *byte == 0);
    let is_unfinished = length < UNFINISHED && is_unmarked && rest.iter().all(|byte| *byte == 0);
    if is_unfinished {
        tracing::warn!(path = %path.display(), "the making of the store was cut short before anything was in it: it is made again");
        medium.set_len(0).map_err(inaccessible)?;
        medium.sync_data().map_err(inaccessible)?;
    }
    medium.close().map_err(inaccessible)?;
    Ok(is_unfinished)
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
