//! Keeps the connection: makes it, looks at what it leads to, follows the log over a second one, and makes both anew when they break.

use std::{sync::Arc, time::Duration};

use redis::{RedisError, Value, aio::MultiplexedConnection, cmd};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    examine::{RedisOpenError, examine},
    link::Live,
    reply::Reply,
    scripts::SCRIPTS,
};
use crate::{
    clock::Timestamp,
    id::{Lineage, Revision},
    store::{StoreError, draw},
};

/// The layout of keys and records that this program reads and writes.
const LAYOUT: u32 = 2;

/// How long the follower lets the server hold an empty answer back, and so how often it is known to be there.
const BLOCK: Duration = Duration::from_secs(1);

/// How long anything that is asked here may take beyond that.
const ANSWER: Duration = Duration::from_secs(2);

/// How often the server's time and the state of the log are asked for.
const PULSE: Duration = Duration::from_secs(1);

/// Events that are read at once.
const READ: usize = 1_024;

/// The pause before the first and before any later attempt to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Two connections to a server that has been looked at.
pub(super) struct Connected {
    live: Live,
    following: MultiplexedConnection,
}

/// What ends a connection.
enum Ended {
    /// The store is closed.
    Closed,
    Broken(String),
}

/// Connects, and sees that the server is fit and the log the one that is known, or takes the new one for known.
pub(super) async fn connect(shared: &Shared) -> Result<Connected, RedisOpenError> {
    let server = shared.server.as_str();
    let failed = |error: RedisError| RedisOpenError::of(server, &error);
    let mut connection = shared.link.connect().await.map_err(failed)?;
    let prepared = async {
        let run = examine(server, &mut connection).await?;
        for script in SCRIPTS.all() {
            script.load_async(&mut connection).await.map_err(failed)?;
        }
        observe(shared, &mut connection).await.map_err(failed)?;
        adopt(shared, &mut connection, &run).await
    };
    timeout(ANSWER, prepared)
        .await
        .unwrap_or_else(|_| Err(silent(server)))?;
    Ok(Connected {
        live: Live {
            connection,
            broken: CancellationToken::new(),
        },
        following: shared.link.connect().await.map_err(failed)?,
    })
}

fn silent(server: &str) -> RedisOpenError {
    RedisOpenError::Unreachable {
        server: server.to_owned(),
        detail: "it does not answer".to_owned(),
    }
}

async fn adopt(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    run: &str,
) -> Result<(), RedisOpenError> {
    let server = shared.server.as_str();
    let seen = shared.known.seen();
    let drawn = draw::lineage().map_err(|_| RedisOpenError::Randomness)?;
    let known = seen.lineage.map_or_else(String::new, |l| l.to_string());
    let mut call = shared.caller.call(&SCRIPTS.adopt, Timestamp(0));
    call.arg(run)
        .arg(LAYOUT)
        .arg(known)
        .arg(seen.head.0)
        .arg(&seen.event)
        .arg(drawn.to_string());
    let answer: Value = call
        .invoke_async(connection)
        .await
        .map_err(|error| RedisOpenError::of(server, &error))?;
    let (outcome, lineage, head) = adopted(answer).map_err(|found| RedisOpenError::Layout {
        server: server.to_owned(),
        found,
        supported: LAYOUT,
    })?;
    if seen.lineage.is_some_and(|known| known != lineage) {
        tracing::warn!(
            %server, %outcome, %lineage, %head,
            "Redis was restarted or has lost data: the revocation log has a new lineage, and every gateway attaches anew"
        );
    }
    shared.known.adopt(lineage, head);
    Ok(())
}

/// What was found, or the layout that is not understood.
fn adopted(answer: Value) -> Result<(String, Lineage, Revision), String> {
    let damaged = |_: StoreError| "unreadable".to_owned();
    let mut answer = Reply::of(answer).map_err(damaged)?;
    let outcome = answer.text().map_err(damaged)?;
    if outcome == "layout" {
        return Err(answer.text().map_err(damaged)?);
    }
    let lineage = answer.parsed().map_err(damaged)?;
    Ok((outcome, lineage, answer.revision().map_err(damaged)?))
}

/// Puts the sidecar's clock on the server's time.
async fn observe(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisError> {
    let Some(clock) = &shared.clock else {
        return Ok(());
    };
    let before = clock.now();
    let (seconds, micros): (u64, u64) = cmd("TIME").query_async(connection).await?;
    let took = clock.now().saturating_duration_since(before);
    // Half of the round trip is the error at most; after a long one it is better not to know. The first one counts whatever it took: it
    // sets the clock, which must not happen later.
    let is_first = shared.known.seen().lineage.is_none();
    if is_first || took <= BLOCK / 4 {
        let told = Timestamp(seconds.saturating_mul(1_000).saturating_add(micros / 1_000));
        clock.observe(told.after(took / 2));
    }
    Ok(())
}

/// Until the store is closed.
pub(super) async fn keep(shared: Arc<Shared>, first: Connected) {
    let mut connected = Some(first);
    let mut pause = FIRST_PAUSE;
    let closed = &shared.link.closed;
    loop {
        if let Some(Connected { live, following }) = connected.take() {
            shared.link.put(Some(live.clone()));
            let ended = tokio::select! {
                () = closed.cancelled() => Ended::Closed,
                () = live.broken.cancelled() => Ended::Broken("a call failed".to_owned()),
                why = follow(&shared, following) => Ended::Broken(why),
                why = pulse(&shared, live.connection.clone()) => Ended::Broken(why),
            };
            shared.link.put(None);
            match ended {
                Ended::Closed => return,
                Ended::Broken(why) => {
                    let server = &shared.server;
                    tracing::warn!(%server, why, "the connection to Redis is broken");
                }
            }
        }
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        match connect(&shared).await {
            Ok(again) => {
                tracing::info!(server = %shared.server, "connected to Redis again");
                connected = Some(again);
                pause = FIRST_PAUSE;
            }
            Err(error) => {
                if pause == FIRST_PAUSE {
                    tracing::error!(label = error.label(), %error, "Redis cannot be used now");
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Reads what is appended to the log as soon as it is; why it cannot any more.
async fn follow(shared: &Shared, mut connection: MultiplexedConnection) -> String {
    let stream = format!("{}log", shared.caller.prefix);
    loop {
        let after = shared.known.seen().head;
        let mut read = cmd("XREAD");
        read.arg("COUNT")
            .arg(READ)
            .arg("BLOCK")
            .arg(BLOCK.as_millis().to_string())
            .arg("STREAMS")
            .arg(&stream)
            .arg(format!("{after}-0"));
        let asked = timeout(BLOCK + ANSWER, read.query_async(&mut connection));
        let answer: Value = match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it does not answer".to_owned(),
        };
        if answer == Value::Nil {
            continue;
        }
        let entries = match read_entries(answer) {
            Ok(entries) => entries,
            Err(error) => return error.to_string(),
        };
        // Purged before it was read: whoever waits for it finds the log's tail beyond.
        if let Some((first, _)) = entries.first()
            && first.0 > after.0.saturating_add(1)
        {
            shared.known.skip_to(Revision(first.0 - 1));
        }
        for (revision, event) in entries {
            shared.known.heard(revision, event);
        }
    }
}

/// The entries of the one stream that was read.
fn read_entries(answer: Value) -> Result<Vec<(Revision, crate::control::Revocation)>, StoreError> {
    let mut stream = Reply::of(answer)?.list()?;
    stream.bytes()?;
    stream.list()?.entries()
}

/// Asks now and then for the time and for the state of the log; why it cannot any more, or what is wrong with the log.
async fn pulse(shared: &Shared, mut connection: MultiplexedConnection) -> String {
    loop {
        tokio::time::sleep(PULSE).await;
        let asked = async {
            observe(shared, &mut connection).await?;
            let seen = shared.known.seen();
            let mut call = shared.caller.call(&SCRIPTS.log, Timestamp(0));
            call.arg(0).arg(0);
            let answer: Value = call.invoke_async(&mut connection).await?;
            Ok::<_, RedisError>((seen, answer))
        };
        let (seen, answer) = match timeout(ANSWER, asked).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it does not answer".to_owned(),
        };
        match super::log_state_of(answer) {
            Ok(state) if Some(state.lineage) == seen.lineage && state.head >= seen.head => {}
            Ok(_) => return "the log is another one".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}
