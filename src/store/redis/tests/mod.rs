//! What only a store that many sidecars share, over a network, has to prove.

mod breaking;
mod fitness;
mod lineages;
mod logins;
pub(crate) mod server;
mod sharing;
mod tls;

use std::{future::Future, sync::Arc, time::Duration};

use self::server::Server;
use super::*;
use crate::{
    clock::{SystemTimeSource, TimeSource},
    id::SessionId,
    store::{
        Identity, NewSession, Store,
        conformance::{LIVES, Open, Sidecars, log_in},
    },
};

const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn settings(server: &Server) -> RedisSettings {
    RedisSettings::new(server.url().parse().unwrap())
}

/// A store by the callers' time, on a server of its own.
pub(crate) async fn by_callers_time() -> (Arc<dyn Store>, Server) {
    let server = Server::start();
    let store = RedisStore::open_by_callers_time(&settings(&server), LIVES).await;
    (Arc::new(store.unwrap()), server)
}

/// Opens the store of that seed on the server, by the callers' time, as often as it is called.
pub(crate) fn open_again(server: &Server, seed: u64) -> Open {
    let settings = settings(server).prefix(&format!("{seed}:"));
    Box::new(move || {
        let settings = settings.clone();
        Box::pin(async move {
            let store = RedisStore::open_by_callers_time(&settings, LIVES).await;
            let store: Arc<dyn Store> = Arc::new(store.unwrap());
            store
        })
    })
}

/// Two sidecars on a server of their own, by its clock. The second one's system clock is an hour ahead.
pub(crate) async fn two_sidecars() -> (Sidecars, Server) {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let sidecars = Sidecars {
        stores: [a, b],
        now: Clock::system().wall(),
    };
    (sidecars, server)
}

async fn two(server: &Server) -> [Arc<RedisStore>; 2] {
    let skewed = Clock::new(Ahead(HOUR));
    [
        open(server, &Clock::system()).await,
        open(server, &skewed).await,
    ]
}

/// A sidecar's store: by the server's clock, which `clock` follows.
async fn open(server: &Server, clock: &Clock) -> Arc<RedisStore> {
    let store = RedisStore::open(&settings(server), LIVES, clock.clone()).await;
    Arc::new(store.unwrap())
}

/// A login that lives for `life`, at a time that the sidecar's clock never showed.
fn living(subject: &str, life: Duration) -> NewSession {
    let at = Timestamp(1_000);
    NewSession {
        identity: Identity {
            provider: "dev".to_owned(),
            subject: subject.to_owned(),
        },
        method: "dev".to_owned(),
        at,
        ends_at: at.after(life),
    }
}

async fn new_session(store: &RedisStore, subject: &str) -> SessionId {
    log_in(store, subject).await.session.id
}

/// Asks until the answer is there.
async fn soon<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(20), asking).await;
    asked.expect("not within 20 s")
}

/// A system clock that is off.
struct Ahead(Duration);

impl TimeSource for Ahead {
    fn monotonic(&self) -> std::time::Instant {
        SystemTimeSource.monotonic()
    }

    fn wall(&self) -> Timestamp {
        SystemTimeSource.wall().after(self.0)
    }
}
