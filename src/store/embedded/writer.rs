//! The writer: one thread that commits everything that has queued up in one transaction, so that a thousand logins at once cost a
//! handful of fsyncs.

use std::time::Duration;

use redb::{Database, WriteTransaction};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use crate::{clock::Clock, control::Revocation, id::Revision, store::StoreError};

use super::{Shared, changes::Changes, lock, roster::Moves, tables::Tables};

#[cfg(test)]
use super::fault;

/// Changes that may wait for the writer. When it is full, callers wait for a place, and so for the disk.
pub(super) const QUEUE: usize = 4_096;

/// Changes in one transaction at most: bounds how long the first of them waits for the last.
const BATCH: usize = 1_024;

/// The longest wait for a batch to fill up, and how often it is looked at: some wake-ups of tasks.
const PATIENCE: Duration = Duration::from_millis(1);
const NAP: Duration = Duration::from_micros(20);

/// One queued change and whoever waits for it.
pub(super) trait Job: Send {
    /// Makes the change within the transaction. May be called again, if the transaction came to nothing.
    fn apply(&mut self, changes: &mut Changes<'_, '_>) -> Result<(), StoreError>;
    /// Tells the caller: the transaction is durable, or has failed.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Change<F, T> {
    make: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Change<F, T>
where
    F: FnMut(&mut Changes<'_, '_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn apply(&mut self, changes: &mut Changes<'_, '_>) -> Result<(), StoreError> {
        self.result = Some((self.make)(changes)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let result = outcome.and_then(|()| result.ok_or(StoreError::Closed));
        // A caller that has gone does not undo what it asked for.
        drop(reply.send(result));
    }
}

/// A job out of `make`, and where its answer arrives.
pub(super) fn job<F, T>(make: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T, StoreError>>)
where
    F: FnMut(&mut Changes<'_, '_>) -> Result<T, StoreError> + Send + 'static,
    T: Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let change = Change {
        make,
        result: None,
        reply,
    };
    (Box::new(change), answer)
}

/// Runs until the queue is closed and empty.
pub(super) fn run(shared: &Shared, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    let _watch = Watch(shared);
    let clock = Clock::system();
    let mut batch = Vec::with_capacity(BATCH);
    let mut last = Last::default();
    while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        last.gather(&clock, &mut queue, &mut batch);
        let (changes, started) = (batch.len(), clock.now());
        let database = shared.database();
        match database.as_ref() {
            Some(database) => commit(shared, database, &mut batch),
            None => batch
                .drain(..)
                .for_each(|job| job.answer(Err(StoreError::Closed))),
        }
        let took = clock.now().saturating_duration_since(started);
        last = Last { changes, took };
    }
}

/// The batch before.
#[derive(Default)]
struct Last {
    changes: usize,
    took: Duration,
}

impl Last {
    /// Waits a little for as many changes as the last batch had. Those whom it answered are about to ask again, and whoever is first
    /// would otherwise have a commit to himself while all others wait for the next: two commits where one does.
    ///
    /// An eighth of what the last commit took, and [`PATIENCE`] at most; one caller alone waits for nobody.
    #[expect(
        clippy::disallowed_methods,
        reason = "the queue cannot be waited for with a deadline by a thread without a runtime; the deadline bounds the naps"
    )]
    fn gather(
        &self,
        clock: &Clock,
        queue: &mut mpsc::Receiver<Box<dyn Job>>,
        batch: &mut Vec<Box<dyn Job>>,
    ) {
        let deadline = clock.now() + (self.took / 8).min(PATIENCE);
        while batch.len() < self.changes {
            match queue.try_recv() {
                Ok(job) => batch.push(job),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) if clock.now() >= deadline => return,
                Err(TryRecvError::Empty) => std::thread::sleep(NAP),
            }
        }
    }
}

/// Tells that the store has failed if its writer panics: nobody else would say why no change is made any more.
struct Watch<'a>(&'a Shared);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.0.failed.send_replace(true) {
            tracing::error!(
                "the store's writer has panicked and takes no more changes: restart the sidecar"
            );
        }
    }
}

/// Commits the batch as one, or, if one of its jobs fails, each of its jobs alone, so that no caller pays for another's failure.
fn commit(shared: &Shared, database: &Database, batch: &mut Vec<Box<dyn Job>>) {
    match attempt(shared, database, batch) {
        Attempt::Done(outcome) => batch.drain(..).for_each(|job| job.answer(outcome.clone())),
        Attempt::JobFailed(_) if batch.len() > 1 => {
            for job in batch.drain(..) {
                commit(shared, database, &mut vec![job]);
            }
        }
        Attempt::JobFailed(error) => batch
            .drain(..)
            .for_each(|job| job.answer(Err(error.clone()))),
    }
}

enum Attempt {
    /// All jobs applied; how the transaction went.
    Done(Result<(), StoreError>),
    /// A job failed, and nothing has changed.
    JobFailed(StoreError),
}

fn attempt(shared: &Shared, database: &Database, batch: &mut [Box<dyn Job>]) -> Attempt {
    let transaction = match database.begin_write() {
        Ok(transaction) => transaction,
        Err(error) => {
            let error = error.into();
            note_failure(shared, &error);
            return Attempt::Done(Err(error));
        }
    };
    #[cfg(test)]
    let transaction = fault::weakened(shared, transaction);
    match apply(shared, &transaction, batch) {
        // Dropping the transaction aborts it.
        Err(error) => {
            note_failure(shared, &error);
            Attempt::JobFailed(error)
        }
        Ok(Applied {
            appended,
            tail,
            head,
            moves,
        }) => {
            let outcome = transaction.commit().map_err(StoreError::from);
            #[cfg(test)]
            let outcome = outcome.and_then(|()| fault::write_head_late(shared, database, head));
            match &outcome {
                Ok(()) => {
                    lock(&shared.roster).follow(moves);
                    // Before anybody hears of the head, and asks for what is new.
                    lock(&shared.recent).append(&appended, tail, head);
                    shared.head.send_if_modified(|known| {
                        let moved = *known < head;
                        *known = head.max(*known);
                        moved
                    });
                }
                Err(error) => note_failure(shared, error),
            }
            Attempt::Done(outcome)
        }
    }
}

/// Tells that the medium has failed, once; errors of other kinds pass.
fn note_failure(shared: &Shared, error: &StoreError) {
    match error {
        StoreError::Storage(_) | StoreError::Commit(_) => {}
        StoreError::Unavailable(_)
        | StoreError::Unanswered(_)
        | StoreError::Record(_)
        | StoreError::Randomness
        | StoreError::Closed => return,
    }
    if !shared.failed.send_replace(true) {
        tracing::error!(
            label = error.label(),
            %error,
            "the store has failed and takes no more changes: see to its disk and restart the sidecar"
        );
    }
}

/// What a batch has made of the log and the roster.
struct Applied {
    appended: Vec<Revocation>,
    tail: Revision,
    head: Revision,
    moves: Moves,
}

/// Applies the batch.
fn apply(
    shared: &Shared,
    transaction: &WriteTransaction,
    batch: &mut [Box<dyn Job>],
) -> Result<Applied, StoreError> {
    let tables = Tables::open(transaction)?;
    let log = tables.log_record()?.ok_or(StoreError::Record("meta"))?;
    let mut changes = Changes {
        tables,
        log_before: log.clone(),
        log,
        appended: Vec::new(),
        moves: Moves::default(),
        roster: &shared.roster,
        activity: &shared.activity,
        idle: shared.lives.idle,
        #[cfg(test)]
        fault: fault::planted(shared),
    };
    for job in batch {
        job.apply(&mut changes)?;
    }
    #[cfg(test)]
    if changes.fault == Some(fault::Fault::HeadApart) {
        changes.log_before = changes.log.clone();
    }
    if changes.log != changes.log_before {
        changes.tables.put_log_record(&changes.log)?;
    }
    Ok(Applied {
        tail: Revision(changes.log.tail),
        head: changes.head(),
        appended: changes.appended,
        moves: changes.moves,
    })
}

/// Writes down what memory knows of activity and the disk does not.
pub(super) fn flush_activity(
    shared: &Shared,
    changes: &mut Changes<'_, '_>,
) -> Result<(), StoreError> {
    let unwritten = lock(&shared.activity).unwritten();
    changes.note_activity(&unwritten)
}
