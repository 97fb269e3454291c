//! What only a store that many sidecars share, over a network, has to prove.

pub(crate) mod server;

use std::sync::Arc;

use self::server::Server;
use super::*;
use crate::store::{Store, conformance::LIVES};

pub(crate) fn settings(server: &Server) -> RedisSettings {
    RedisSettings::new(server.url().parse().unwrap())
}

/// A store by the callers' time, on a server of its own.
pub(crate) async fn by_callers_time() -> (Arc<dyn Store>, Server) {
    let server = Server::start();
    let store = RedisStore::open_by_callers_time(&settings(&server), LIVES).await;
    (Arc::new(store.unwrap()), server)
}
