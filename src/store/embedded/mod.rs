//! The embedded store: one redb file, written by one thread with group commit, read where the question is asked.

mod changes;
#[cfg(test)]
mod crashes;
#[cfg(test)]
pub(super) mod disk;
#[cfg(test)]
pub(super) mod fault;
mod gateways;
mod logins;
mod open;
mod places;
mod roster;
mod rotation;
mod tables;
#[cfg(test)]
mod tests;
mod unfinished;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    thread::JoinHandle,
    time::Duration,
};

use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend};
use tokio::sync::{mpsc, watch};

use crate::{
    clock::Timestamp,
    control::{GatewayDescription, LogState, RevocationRange},
    id::{GatewayId, Incarnation, PlayerId, Revision, SessionId},
};

use self::{changes::Changes, open::Opened, roster::Roster, writer::Job};
use super::{
    Answer, Fencing, Found, LEEWAY, NewSession, OpenError, PlayerRevocation, Publication,
    PublishedGateway, Purged, RefreshClaim, Refreshed, SessionRevocation, Started, Store,
    StoreError, StoreLives, activity::Activity, leases::Leases, recent::Recent,
};

#[cfg(test)]
use super::draw;

/// A store in a local file. One process at a time has it open.
///
/// Writes wait in a bounded queue for one writer thread, which commits all that has queued up in one transaction: durable, then
/// answered. Reads see the last commit and never wait for a write. A look-up of one session runs where it is asked, on the async
/// thread: it is a few steps down B-trees that redb keeps in memory, less than handing it to another thread and back would cost,
/// and seldom more than one read of the page cache. Scans (the log, many sessions) go to the blocking pool.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// None once the store is closed.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// No other process shares the file, so that nobody needs these from the disk.
    leases: Leases,
}

/// What the writer thread and readers share.
struct Shared {
    /// None once the store is closed. Readers and the writer hold the read lock while they use it; only closing takes the other.
    database: RwLock<Option<Database>>,
    activity: Mutex<Activity>,
    roster: Mutex<Roster>,
    head: watch::Sender<Revision>,
    /// The log's end: each revocation is read by every gateway's stream.
    recent: Mutex<Recent>,
    /// Set once, when the file cannot be written: redb takes no more changes before it is opened anew.
    failed: watch::Sender<bool>,
    lives: StoreLives,
    /// Planted by tests, which show that they would find it.
    #[cfg(test)]
    fault: Mutex<Option<fault::Fault>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.database();
        let transaction = database.as_ref().ok_or(StoreError::Closed)?.begin_read()?;
        read(&transaction)
    }

    fn close(&self) {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *database = None;
    }
}

impl EmbeddedStore {
    /// Opens the store in the file at `path`, or makes it.
    ///
    /// Reads the whole file to check it (a second per gigabyte or so), which is what it takes to tell a damaged file at start-up
    /// and not in the middle of a match.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do about it.
    pub fn open(path: &Path, lives: StoreLives) -> Result<Self, OpenError> {
        Self::over(|| open::file(path), path, lives)
    }

    /// The same over another medium, which errors call `path`.
    fn over<M: StorageBackend>(
        medium: impl Fn() -> Result<M, OpenError>,
        path: &Path,
        lives: StoreLives,
    ) -> Result<Self, OpenError> {
        let Opened {
            database,
            head,
            roster,
        } = open::open(medium, path)?;
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(database)),
            activity: Mutex::new(Activity::new(lives.granule())),
            roster: Mutex::new(roster),
            head: watch::Sender::new(head),
            recent: Mutex::new(Recent::after(head)),
            failed: watch::Sender::new(false),
            lives,
            #[cfg(test)]
            fault: Mutex::default(),
        });
        let (sender, receiver) = mpsc::channel(writer::QUEUE);
        let for_writer = Arc::clone(&shared);
        #[cfg(test)]
        let draws = draw::seeded::fork();
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                #[cfg(test)]
                draw::seeded::adopt(draws);
                writer::run(&for_writer, receiver);
            })
            .map_err(|source| OpenError::Inaccessible {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            shared,
            queue: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            leases: Leases::default(),
        })
    }

    fn queue(&self) -> Option<mpsc::Sender<Box<dyn Job>>> {
        lock(&self.queue).clone()
    }

    /// Has the writer make a change; resolves when it is durable.
    fn change<T: Send + 'static>(
        &self,
        make: impl FnMut(&mut Changes<'_, '_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let queue = self.queue().ok_or(StoreError::Closed)?;
            let (job, answer) = writer::job(make);
            queue.send(job).await.map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)?
        })
    }

    /// A player's sessions, with the activity that the file has.
    ///
    /// The roster is asked first. So a session of it is in the file, or else was purged since, and the next older one takes its place.
    async fn sessions_of(
        &self,
        player: PlayerId,
        mut before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Found>, StoreError> {
        let mut listed = Vec::new();
        while listed.len() < limit {
            let wanted = limit - listed.len();
            let ids = lock(&self.shared.roster).of(player, before, wanted);
            let (asked, last) = (ids.len(), ids.last().copied());
            before = last;
            listed.extend(self.scan(|read| tables::read_these(read, ids)).await?);
            if asked < wanted {
                break;
            }
        }
        Ok(listed)
    }

    /// Runs a scan on the blocking pool.
    fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || shared.read(read))
                .await
                .map_err(|_| StoreError::Closed)?
        })
    }
}

impl Store for EmbeddedStore {
    fn start_session(&self, new: NewSession) -> Answer<'_, Started> {
        self.change(move |changes| changes.start_session(&new))
    }

    fn session(&self, id: SessionId) -> Answer<'_, Option<Found>> {
        Box::pin(async move {
            let mut found = self.shared.read(|read| tables::read_found(read, id))?;
            if let Some(found) = &mut found {
                let on_disk = found.session.active_at;
                found.session.active_at = lock(&self.shared.activity).exact(id, on_disk);
            }
            Ok(found)
        })
    }

    fn refresh(&self, claim: RefreshClaim, at: Timestamp) -> Answer<'_, Refreshed> {
        Box::pin(async move {
            match rotation::read_settled(&self.shared, claim, at)? {
                Some(settled) => Ok(settled),
                None => self.change(move |changes| changes.refresh(claim, at)).await,
            }
        })
    }

    fn sessions(
        &self,
        player: Option<PlayerId>,
        before: Option<SessionId>,
        limit: usize,
    ) -> Answer<'_, Vec<Found>> {
        Box::pin(async move {
            let mut listed = match player {
                Some(player) => self.sessions_of(player, before, limit).await?,
                None => {
                    let newest = self.scan(move |read| tables::read_newest(read, before, limit));
                    newest.await?
                }
            };
            let activity = lock(&self.shared.activity);
            for Found { session, .. } in &mut listed {
                session.active_at = activity.exact(session.id, session.active_at);
            }
            Ok(listed)
        })
    }

    fn grant(&self, session: SessionId, gateway: GatewayId) -> Answer<'_, ()> {
        Box::pin(async move {
            // Almost every token of a session is for a gateway that it has been at before: no write then, and no wait for one.
            let known = self
                .shared
                .read(|read| gateways::read_granted(read, &gateway, vec![session]))?;
            if known.is_empty() {
                self.change(move |changes| changes.grant(session, &gateway))
                    .await?;
            }
            Ok(())
        })
    }

    fn granted_among(
        &self,
        gateway: GatewayId,
        sessions: Vec<SessionId>,
    ) -> Answer<'_, Vec<SessionId>> {
        self.scan(move |read| gateways::read_granted(read, &gateway, sessions))
    }

    fn active_elsewhere(
        &self,
        gateway: GatewayId,
        sessions: Vec<SessionId>,
    ) -> Answer<'_, Vec<(SessionId, Timestamp)>> {
        Box::pin(async move {
            let read =
                self.scan(move |read| gateways::read_active_elsewhere(read, &gateway, sessions));
            let mut moved = read.await?;
            let activity = lock(&self.shared.activity);
            for (session, active_at) in &mut moved {
                *active_at = activity.exact(*session, *active_at);
            }
            Ok(moved)
        })
    }

    fn attach_gateway(&self, gateway: GatewayId, incarnation: Incarnation) -> Answer<'_, Fencing> {
        Box::pin(async move {
            // A process whose stream broke comes back: no write then, and no wait for one.
            let known = self
                .shared
                .read(|read| gateways::read_fencing(read, &gateway, incarnation))?;
            match known {
                Some(fencing) => Ok(fencing),
                None => {
                    self.change(move |changes| changes.attach_gateway(&gateway, incarnation))
                        .await
                }
            }
        })
    }

    fn publish_gateway(
        &self,
        gateway: PublishedGateway,
        lease: Duration,
        _has_attached: bool,
        at: Timestamp,
    ) -> Answer<'_, Publication> {
        Box::pin(async move {
            let GatewayDescription {
                id, incarnation, ..
            } = &gateway.description;
            let fencing = self
                .shared
                .read(|read| gateways::read_fencing(read, id, *incarnation))?;
            Ok(self.leases.publish(fencing, gateway, at.after(lease)))
        })
    }

    fn withdraw_gateway(&self, gateway: GatewayId, incarnation: Incarnation) -> Answer<'_, ()> {
        self.leases.withdraw(&gateway, incarnation);
        Box::pin(std::future::ready(Ok(())))
    }

    fn gateways(&self, at: Timestamp) -> Answer<'_, Vec<PublishedGateway>> {
        Box::pin(std::future::ready(Ok(self.leases.list(at))))
    }

    fn revoke_session(&self, id: SessionId, at: Timestamp) -> Answer<'_, SessionRevocation> {
        self.change(move |changes| changes.revoke_session(id, at))
    }

    fn revoke_player(&self, id: PlayerId, at: Timestamp) -> Answer<'_, PlayerRevocation> {
        self.change(move |changes| changes.revoke_player(id, at))
    }

    fn log_state(&self) -> Answer<'_, LogState> {
        Box::pin(async move { self.shared.read(tables::read_log_state) })
    }

    fn log_after(&self, from: Revision, limit: usize) -> Answer<'_, Option<RevocationRange>> {
        let recent = lock(&self.shared.recent).range(from, limit);
        if let Some(range) = recent
            && self.queue().is_some()
        {
            return Box::pin(std::future::ready(Ok(Some(range))));
        }
        self.scan(move |read| {
            let state = tables::read_log_state(read)?;
            if from < state.tail || from > state.head {
                return Ok(None);
            }
            let events = tables::read_log(read, from, limit)?;
            let to = Revision(from.0.saturating_add(events.len() as u64));
            Ok(Some(RevocationRange { from, to, events }))
        })
    }

    fn dead_among(&self, sessions: Vec<SessionId>, at: Timestamp) -> Answer<'_, Vec<SessionId>> {
        self.scan(move |read| tables::read_dead(read, &sessions, at))
    }

    fn note_activity(&self, sessions: &[SessionId], at: Timestamp) {
        let Some(queue) = self.queue() else { return };
        let mut activity = lock(&self.shared.activity);
        let due: Vec<_> = sessions
            .iter()
            .filter(|id| activity.note(**id, at))
            .map(|id| (*id, at))
            .collect();
        if due.is_empty() {
            return;
        }
        let sent = due.clone();
        let (job, _) = writer::job(move |changes| changes.note_activity(&due));
        // A full queue means that the disk is behind: the next report of these sessions tries again.
        if queue.try_send(job).is_ok() {
            sent.iter().for_each(|(id, at)| activity.sent(*id, *at));
        }
    }

    fn purge(&self, at: Timestamp) -> Answer<'_, Purged> {
        Box::pin(async move {
            let StoreLives { idle, .. } = self.shared.lives;
            let sessions_before = at.before(LEEWAY);
            let events_before = at.before(self.shared.lives.retention());
            lock(&self.shared.activity).forget_before(at.before(idle));
            let mut total = Purged::default();
            loop {
                let step = move |changes: &mut Changes<'_, '_>| {
                    changes.purge(sessions_before, events_before)
                };
                let (Purged { sessions, events }, more) = self.change(step).await?;
                total.sessions += sessions;
                total.events += events;
                if !more {
                    return Ok(total);
                }
            }
        })
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.shared.head.subscribe()
    }

    fn watch_failed(&self) -> watch::Receiver<bool> {
        self.shared.failed.subscribe()
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let shared = Arc::clone(&self.shared);
            let flushed = self
                .change(move |changes| writer::flush_activity(&shared, changes))
                .await;
            lock(&self.queue).take();
            let writer = lock(&self.writer).take();
            let shared = Arc::clone(&self.shared);
            let closed = tokio::task::spawn_blocking(move || {
                if let Some(writer) = writer {
                    // A writer that panicked has nothing left to finish.
                    drop(writer.join());
                }
                shared.close();
            });
            closed.await.map_err(|_| StoreError::Closed)?;
            match flushed {
                Err(StoreError::Closed) => Ok(()),
                other => other,
            }
        })
    }
}

impl Drop for EmbeddedStore {
    /// Lets the writer finish what is queued, so that the file is free when this returns. Blocks for a commit at most.
    fn drop(&mut self) {
        lock(&self.queue).take();
        if let Some(writer) = lock(&self.writer).take() {
            drop(writer.join());
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("lives", &self.shared.lives)
            .finish_non_exhaustive()
    }
}
