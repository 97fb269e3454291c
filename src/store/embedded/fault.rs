//! Bugs to plant in the embedded store, so that tests can show that they would be found.

use redb::{Database, Durability, WriteTransaction};

use crate::{
    id::Revision,
    store::{StoreError, rotation::Worth},
};

use super::{EmbeddedStore, Shared, lock, tables::Tables};

/// A bug to plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Transactions are answered before they are on the disk.
    Undurable,
    /// The head of the log is written after the events, in a transaction of its own.
    HeadApart,
    /// A refresh that is asked for again counts as reuse, however soon.
    NoGrace,
}

impl EmbeddedStore {
    pub(crate) fn plant(&self, fault: Option<Fault>) {
        *lock(&self.shared.fault) = fault;
    }
}

pub(super) fn planted(shared: &Shared) -> Option<Fault> {
    *lock(&shared.fault)
}

pub(super) fn weakened(shared: &Shared, mut transaction: WriteTransaction) -> WriteTransaction {
    if planted(shared) == Some(Fault::Undurable) {
        transaction.set_durability(Durability::None).unwrap();
    }
    transaction
}

pub(super) fn write_head_late(
    shared: &Shared,
    database: &Database,
    head: Revision,
) -> Result<(), StoreError> {
    if planted(shared) != Some(Fault::HeadApart) {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    {
        let mut tables = Tables::open(&transaction)?;
        let mut log = tables.log_record()?.ok_or(StoreError::Record("meta"))?;
        log.head = head.0;
        tables.put_log_record(&log)?;
    }
    Ok(transaction.commit()?)
}

/// What a refresh token is worth where the bug is planted.
pub(super) fn misjudged(fault: Option<Fault>, worth: Worth) -> Worth {
    match worth {
        Worth::Again if fault == Some(Fault::NoGrace) => Worth::Reused,
        worth => worth,
    }
}
