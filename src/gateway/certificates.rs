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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        certs::quic_identity,
        clock::Clock,
        gateway::{
            Limits,
            transport::{TransportKeys, server_config},
        },
        tls,
    };

    fn served() -> Served {
        let identity = quic_identity("localhost").unwrap();
        let keys = TransportKeys {
            reset: [1; 32],
            connection_id: [2; 32],
            retry: [3; 32],
        };
        let tls = tls::quic_server_config(&identity).unwrap();
        let clock = Clock::system();
        let server = server_config(tls, &keys, &Limits::default(), clock).unwrap();
        Served {
            server: Arc::new(server),
            leaf_sha256: identity.fingerprint(),
        }
    }

    #[test]
    fn the_next_one_is_announced_at_once_and_alone_from_its_time_on() {
        let now = Clock::system().now();
        let later = now + Duration::from_secs(300);
        let (a, b, c) = (served(), served(), served());
        let (first, second, third) = (a.leaf_sha256, b.leaf_sha256, c.leaf_sha256);
        let certificates = Certificates::new(a.clone());
        assert_eq!(certificates.sha256(), [first]);
        let version = certificates.version();

        assert_eq!(certificates.announce(b.clone(), later), Announced::Anew);
        assert_ne!(certificates.version(), version);
        assert_eq!(certificates.sha256(), [first, second]);
        let (serving, switch) = certificates.serving(later - Duration::from_millis(1));
        assert_eq!((serving.leaf_sha256, switch), (first, Some(later)));
        // Said again, it does not wait any longer.
        let much_later = later + Duration::from_secs(300);
        assert_eq!(
            certificates.announce(b.clone(), much_later),
            Announced::Already
        );
        let (serving, switch) = certificates.serving(later);
        assert_eq!((serving.leaf_sha256, switch), (second, None));
        assert_eq!(certificates.sha256(), [second]);

        // Replaced before its time, and then called off.
        assert_eq!(certificates.announce(a, much_later), Announced::Anew);
        assert_eq!(certificates.announce(c, much_later), Announced::Anew);
        assert_eq!(certificates.sha256(), [second, third]);
        assert_eq!(certificates.announce(b, much_later), Announced::IsServed);
        assert_eq!(certificates.sha256(), [second]);
        assert_eq!(certificates.serving(much_later).0.leaf_sha256, second);
    }
}
