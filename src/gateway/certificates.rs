//! The QUIC certificate that is served, and the next one: announced at once, served when everybody who connects knows of it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use quinn_proto::ServerConfig;

/// What a connection is served with.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) server: Arc<ServerConfig>,
    /// SHA-256 of the leaf certificate in DER.
    pub(super) leaf_sha256: [u8; 32],
}

/// The certificates of a gateway, for all its workers.
pub(super) struct Certificates {
    state: Mutex<State>,
    /// Counts the changes, so that a worker sees with one load that there is nothing new.
    version: AtomicU64,
}

struct State {
    current: Served,
    next: Option<Next>,
}

#[derive(Clone)]
struct Next {
    served: Served,
    /// From here on it is served, and it alone.
    from: Instant,
}

/// What came of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announced {
    /// It will be served after its lead.
    Anew,
    /// It is the one that is served already; one that was to follow is not to follow any more.
    IsServed,
    /// It was announced before and is served when that said.
    Already,
}

impl Certificates {
    pub(super) fn new(current: Served) -> Self {
        Self {
            state: Mutex::new(State {
                current,
                next: None,
            }),
            version: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a certificate that is to be served from `from` on. One that was announced and is not served yet is replaced.
    pub(super) fn announce(&self, served: Served, from: Instant) -> Announced {
        let mut state = self.state();
        let announced = if state.current.leaf_sha256 == served.leaf_sha256 {
            state.next = None;
            Announced::IsServed
        } else if (state.next.as_ref()).is_some_and(|n| n.served.leaf_sha256 == served.leaf_sha256)
        {
            Announced::Already
        } else {
            state.next = Some(Next { served, from });
            Announced::Anew
        };
        drop(state);
        self.version.fetch_add(1, Ordering::Release);
        announced
    }

    /// What is to be served at `now`, switching to the next if its time has come, and when that will be.
    pub(super) fn serving(&self, now: Instant) -> (Served, Option<Instant>) {
        let mut state = self.state();
        if let Some(next) = state.next.take_if(|next| next.from <= now) {
            state.current = next.served;
        }
        let switch = state.next.as_ref().map(|next| next.from);
        (state.current.clone(), switch)
    }

    /// SHA-256 of what is served, then of what follows.
    pub(super) fn sha256(&self) -> Vec<[u8; 32]> {
        let state = self.state();
        let next = state.next.as_ref().map(|next| next.served.leaf_sha256);
        [state.current.leaf_sha256]
            .into_iter()
            .chain(next)
            .collect()
    }

    /// How often there was something new.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
