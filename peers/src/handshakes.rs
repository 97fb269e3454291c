//! Handshakes at a steady rate, and admissions: clients that come, and go again as soon as they are in.

use std::time::{Duration, Instant};

use anyhow::Context;
use quinn::VarInt;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    clients::quic::Clients,
    load::Load,
    process::{Server, own_cpu},
    rig::stopwatch::{self, percentile},
};

/// What a client does once its handshake is done.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    /// It goes.
    Leave,
    /// It is admitted with its token, and goes.
    Admission(Vec<String>),
}

/// How long the server has for the last ones' departure.
const AFTERMATH: Duration = Duration::from_millis(400);
/// A handshake that begins later than this, at p99, is another load than the one that was asked for.
const LATEST: Duration = Duration::from_millis(25);

/// So many clients at `rate` a second, evenly spread, and the server's processor time for all of them.
pub(crate) fn run(
    server: &Server,
    count: usize,
    rate: f64,
    then: &Then,
) -> anyhow::Result<(Load, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(paced(server, count, rate, then))
}

async fn paced(
    server: &Server,
    count: usize,
    rate: f64,
    then: &Then,
) -> anyhow::Result<(Load, Duration)> {
    let from = Clients::of(server)?;
    let (cpu, own, began) = (server.cpu()?, own_cpu()?, stopwatch::start());
    let mut clients = JoinSet::new();
    let mut late = Vec::with_capacity(count);
    for number in 0..count {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        if stopwatch::start() < due {
            sleep_until(due.into()).await;
        }
        late.push(since(due));
        let token = match then {
            Then::Leave => None,
            Then::Admission(tokens) => Some(tokens.get(number).context("too few tokens")?.clone()),
        };
        let client = from.come(number, token)?;
        clients.spawn(async move {
            client.await?.connection.close(VarInt::from_u32(0), b"");
            anyhow::Ok(())
        });
    }
    let mut done = 0;
    while let Some(client) = clients.join_next().await {
        done += usize::from(matches!(client, Ok(Ok(()))));
    }
    let load = Load {
        asked: count,
        done,
        wall: began.elapsed(),
        cpu: own_cpu()? - own,
        late: Duration::from_secs_f64(percentile(&late, 0.99)),
        latest: LATEST,
    };
    sleep(AFTERMATH).await;
    Ok((load, server.cpu()? - cpu))
}

fn since(due: Instant) -> f64 {
    stopwatch::start()
        .saturating_duration_since(due)
        .as_secs_f64()
}
