//! What can go wrong with a store.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A store that cannot be opened: which file, why, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be read, written or made.
    #[error("cannot open the store {}: make sure that its folder exists and that this user may write there", path.display())]
    Inaccessible {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "the store {} is in use by another process: one embedded store serves one sidecar; stop the other one, or give this one a file of its own",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is no store, or a damaged one.
    #[error(
        "the store {} is damaged or is no Tickgate store ({detail}): restore it from a backup, or move it away to start with an empty one (which logs every player out)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// It was written by a version of the program that this one does not understand.
    #[error("the store {} has layout {found}, and this program understands layout {supported}: run the version that wrote it", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The layout it has.
        found: u32,
        /// The layout this program writes.
        supported: u32,
    },
    /// The Redis server cannot be used.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] super::RedisOpenError),
}

impl OpenError {
    /// The error's fixed name in logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Inaccessible { .. } => "store_inaccessible",
            Self::InUse { .. } => "store_in_use",
            Self::Damaged { .. } => "store_damaged",
            Self::Layout { .. } => "store_layout",
            #[cfg(feature = "redis")]
            Self::Redis(error) => error.label(),
        }
    }
}

/// An operation that the store could not carry out. Whether it happened is unknown only for [`StoreError::Commit`] and
/// [`StoreError::Unanswered`].
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The medium failed; nothing has changed.
    #[error("the store cannot read or write: {0}")]
    Storage(String),
    /// The medium failed while the change was being made durable: after a restart it may or may not be there.
    #[error("the store cannot make changes durable: {0}")]
    Commit(String),
    /// The store is out of reach, or has too much to do; nothing has changed, and a little later it may work.
    #[error("the store is out of reach: {0}")]
    Unavailable(String),
    /// The store was asked and has not answered: it may or may not have done it. A little later it may work.
    #[error("the store has not answered: {0}")]
    Unanswered(String),
    /// A record does not decode; nothing has changed.
    #[error("a record of table {0} is damaged")]
    Record(&'static str),
    /// The system gave no random numbers; nothing has changed.
    #[error("no random numbers from the system")]
    Randomness,
    /// The store is closed, or is closing; nothing has changed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// All that [`label`](Self::label) may say.
    pub const LABELS: [&'static str; 7] = [
        "store_storage",
        "store_commit",
        "store_unavailable",
        "store_unanswered",
        "store_record",
        "store_randomness",
        "store_closed",
    ];

    /// The error's fixed name in logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Storage(_) => "store_storage",
            Self::Commit(_) => "store_commit",
            Self::Unavailable(_) => "store_unavailable",
            Self::Unanswered(_) => "store_unanswered",
            Self::Record(_) => "store_record",
            Self::Randomness => "store_randomness",
            Self::Closed => "store_closed",
        }
    }
}
