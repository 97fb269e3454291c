//! The connection that calls go over: one, shared, with a limit on what is under way and a deadline on each call.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError, ScriptInvocation,
    ServerErrorKind, aio::MultiplexedConnection,
};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::reply::DAMAGED;
use crate::store::StoreError;

/// Calls under way at once; more wait their turn within their deadline. As many as the embedded store's queue holds.
const CALLS: usize = 4_096;

/// How long a call waits for a connection and for its turn: a server that was restarted is back by then.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a call waits for its answer: a hundred times what a slow disk takes for the fsync before it.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a new connection may take, with TLS and log-in.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection, and the word that it is of no more use.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    pub(super) broken: CancellationToken,
}

impl Live {
    fn is_whole(&self) -> bool {
        !self.broken.is_cancelled()
    }
}

/// Where calls find the connection of the moment.
pub(super) struct Link {
    client: Client,
    calls: Semaphore,
    /// None while there is none.
    live: watch::Sender<Option<Live>>,
    /// Set when the store is closed.
    pub(super) closed: CancellationToken,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            calls: Semaphore::new(CALLS),
            live: watch::Sender::new(None),
            closed: CancellationToken::new(),
        }
    }

    /// A new connection; `None` as the answer's limit, since every call has its own.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(None);
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        // The log-in is no part of the crate's own limit.
        timeout(CONNECT, connecting).await.unwrap_or_else(|_| {
            Err(RedisError::from((
                ErrorKind::Io,
                "no connection within the time for one",
            )))
        })
    }

    /// From now on calls go over `live`, or wait.
    pub(super) fn put(&self, live: Option<Live>) {
        self.live.send_replace(live);
    }

    /// Watches whether there is a connection.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Live>> {
        self.live.subscribe()
    }

    /// Calls a script.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Storage`]: it did not happen. [`StoreError::Unanswered`]: it may have.
    pub(super) async fn invoke<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let ready = async {
            let turn = self.calls.acquire().await;
            let mut live = self.live.subscribe();
            let found = live
                .wait_for(|live| live.as_ref().is_some_and(Live::is_whole))
                .await;
            let found = found.ok().and_then(|live| live.clone());
            turn.ok().zip(found)
        };
        let ready = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(StoreError::Closed),
            ready = timeout(PATIENCE, ready) => ready.ok().flatten(),
        };
        let Some((_turn, mut live)) = ready else {
            let detail = "no connection to Redis, or too many calls at once";
            return Err(StoreError::Unavailable(detail.to_owned()));
        };
        let answer = timeout(ANSWER, invocation.invoke_async(&mut live.connection)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if breaks(&error) {
                    live.broken.cancel();
                }
                Err(meaning(&error))
            }
            Err(_) => {
                live.broken.cancel();
                Err(StoreError::Unanswered("no answer from Redis".to_owned()))
            }
        }
    }
}

/// Whether the connection is of no more use: it is gone, or leads to a server that is no primary or has lost its data, so that it has
/// to be looked at anew.
fn breaks(error: &RedisError) -> bool {
    let code = error.code().unwrap_or_default();
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(
            code,
            "GONE" | "READONLY" | "MASTERDOWN" | "LOADING" | "NOAUTH"
        )
}

/// What a failed call means to whoever made it. A script that the server refuses has not run; one that breaks off has read only.
fn meaning(error: &RedisError) -> StoreError {
    match error.code() {
        Some("GONE") => StoreError::Unavailable("the data set in Redis is gone".to_owned()),
        Some("DAMAGED") => DAMAGED,
        Some("READONLY" | "MASTERDOWN" | "LOADING" | "NOAUTH" | "BUSY" | "TRYAGAIN") => {
            StoreError::Unavailable(error.to_string())
        }
        // MISCONF: its disk refuses; OOM: it is full; NOPERM, WRONGTYPE and what else there is.
        Some(_) => StoreError::Storage(error.to_string()),
        None => match error.kind() {
            ErrorKind::Server(ServerErrorKind::ResponseError) => {
                StoreError::Storage(error.to_string())
            }
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => DAMAGED,
            _ => StoreError::Unanswered(error.to_string()),
        },
    }
}
