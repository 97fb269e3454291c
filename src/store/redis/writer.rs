//! Writes activity: batches from a bounded queue, so that nobody who reports it ever waits.

use std::sync::Arc;

use redis::Value;
use tokio::sync::mpsc;

use super::{Shared, lock, reply::Reply, scripts::SCRIPTS};
use crate::{clock::Timestamp, id::SessionId, store::StoreError};

/// A session, and when it was active.
pub(super) type Moment = (SessionId, Timestamp);

/// Reports that may wait. When it is full, what is reported is due again the next time.
pub(super) const QUEUE: usize = 256;

/// Sessions in one script: some milliseconds of the server's time, for which everybody else waits.
const BATCH: usize = 512;

/// Until the queue's other end is gone.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Vec<Moment>>) {
    let closed = &shared.link.closed;
    loop {
        let moments = tokio::select! {
            () = closed.cancelled() => return,
            moments = queue.recv() => moments,
        };
        let Some(moments) = moments else { return };
        if let Err(error) = write(&shared, &moments).await {
            tracing::warn!(label = error.label(), %error, "activity was not written: it is due again");
            let mut activity = lock(&shared.activity);
            for (session, _) in moments {
                activity.unsent(session);
            }
        }
    }
}

/// Writes `moments`, and forgets those of sessions that are over.
pub(super) async fn write(shared: &Shared, moments: &[Moment]) -> Result<(), StoreError> {
    for batch in moments.chunks(BATCH) {
        let mut call = shared.caller.call(&SCRIPTS.note_activity, Timestamp(0));
        // The server's clock bounds them; in a test the moments themselves are the time.
        for (session, at) in batch {
            call.arg(session.to_string()).arg(at.0);
        }
        let answer: Value = shared.link.invoke(&call).await?;
        let sessions: Vec<SessionId> = batch.iter().map(|(session, _)| *session).collect();
        let over = Reply::of(answer)?.places(&sessions)?;
        let mut activity = lock(&shared.activity);
        for session in over {
            activity.forget(session);
        }
    }
    Ok(())
}
