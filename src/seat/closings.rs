//! The connections that workers have to close because their seat ended, or went to a newer connection, without their doing.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    Connection, EndReason, Handle,
    sync::{AtomicBool, Mutex, Ordering, lock},
};

/// A connection to close, the seat that it serves no longer, and why.
pub type Closing = (Handle, Connection, EndReason);

/// Wakes a worker. Called on whatever thread ended a seat, with no lock held; it must be quick and must not block.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The closings of each worker.
///
/// Bounded without dropping any: a connection is entered when it loses its seat, which it does once, so that a worker's list is
/// never longer than the connections which it has yet to close.
#[derive(Default)]
pub(super) struct Closings {
    /// One per worker that was ever named, in no order. A handful, so it is searched.
    desks: ArcSwap<Vec<Arc<Desk>>>,
    /// Something was listed at some desk since workers were last woken: a tick that has nothing to ring for looks at no desk.
    due: AtomicBool,
}

struct Desk {
    worker: u16,
    listed: Mutex<Vec<Closing>>,
    /// Something was listed since the worker was last woken.
    due: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Closings {
    /// Lists a closing for the connection's worker. [`ring`](Closings::ring) must follow, once no lock is held.
    pub(super) fn list(&self, handle: Handle, connection: Connection, reason: EndReason) {
        let desk = self.desk(connection.worker);
        lock(&desk.listed).push((handle, connection, reason));
        // Exchanges, so that who rings for the last of several lists finds what all of them have listed.
        desk.due.swap(true, Ordering::AcqRel);
        self.due.swap(true, Ordering::AcqRel);
    }

    /// Wakes the workers for which something was listed.
    pub(super) fn ring(&self) {
        if !self.due.load(Ordering::Relaxed) || !self.due.swap(false, Ordering::AcqRel) {
            return;
        }
        for desk in self.desks.load().iter() {
            if desk.due.load(Ordering::Relaxed) && desk.due.swap(false, Ordering::AcqRel) {
                let waker = lock(&desk.waker).clone();
                if let Some(wake) = waker {
                    wake();
                }
            }
        }
    }

    /// Moves the worker's closings to the end of `into`.
    pub(super) fn take(&self, worker: u16, into: &mut Vec<Closing>) {
        if let Some(desk) = find(&self.desks.load(), worker) {
            into.append(&mut lock(&desk.listed));
        }
    }

    pub(super) fn set_waker(&self, worker: u16, waker: Waker) {
        *lock(&self.desk(worker).waker) = Some(waker);
    }

    fn desk(&self, worker: u16) -> Arc<Desk> {
        if let Some(desk) = find(&self.desks.load(), worker) {
            return Arc::clone(desk);
        }
        let new = Arc::new(Desk {
            worker,
            listed: Mutex::new(Vec::new()),
            due: AtomicBool::new(false),
            waker: Mutex::new(None),
        });
        self.desks.rcu(|desks| match find(desks, worker) {
            Some(_) => Arc::clone(desks),
            None => Arc::new(desks.iter().chain([&new]).cloned().collect()),
        });
        // Another thread may have been first; then its desk counts.
        find(&self.desks.load(), worker).map_or(new, Arc::clone)
    }
}

impl std::fmt::Debug for Closings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closings")
            .field("workers", &self.desks.load().len())
            .finish()
    }
}

fn find(desks: &[Arc<Desk>], worker: u16) -> Option<&Arc<Desk>> {
    desks.iter().find(|desk| desk.worker == worker)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    const HANDLE: Handle = Handle::new(0, 1);

    #[test]
    fn each_worker_gets_its_own_once_and_is_woken() {
        let closings = Closings::default();
        let woken = Arc::new(AtomicU32::new(0));
        closings.set_waker(1, {
            let woken = Arc::clone(&woken);
            Arc::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
            })
        });
        let here = Connection { worker: 1, id: 10 };
        let there = Connection { worker: 2, id: 11 };
        closings.list(HANDLE, here, EndReason::Idle);
        closings.list(HANDLE, there, EndReason::Superseded);
        closings.list(HANDLE, here, EndReason::Expired);
        assert_eq!(woken.load(Ordering::Relaxed), 0, "not under a lock");
        closings.ring();
        closings.ring();
        assert_eq!(woken.load(Ordering::Relaxed), 1);

        let mut taken = Vec::new();
        closings.take(1, &mut taken);
        assert_eq!(
            taken,
            [
                (HANDLE, here, EndReason::Idle),
                (HANDLE, here, EndReason::Expired)
            ]
        );
        taken.clear();
        closings.take(1, &mut taken);
        closings.take(3, &mut taken);
        assert!(taken.is_empty());
        closings.take(2, &mut taken);
        assert_eq!(taken, [(HANDLE, there, EndReason::Superseded)]);
    }
}
