//! Handshakes at a steady rate, and admissions: clients that come, and go again as soon as they are in.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use quinn::{ClientConfig, Connection, Endpoint, VarInt, crypto::rustls::QuicClientConfig};
use tickgate::wire::{Frame, FrameReader, Hello, MAX_WELCOME};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    load::Load,
    process::{Server, own_cpu},
    rig::stopwatch::{self, percentile},
    server::SERVER_NAME,
    tls,
};

/// What a client does once its handshake is done.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    /// It goes.
    Leave,
    /// It is admitted with its token, and goes.
    Admission(Vec<String>),
}

/// Sockets of the generator.
const SOCKETS: usize = 16;
/// A client that is not done by then has failed.
const PATIENCE: Duration = Duration::from_secs(5);
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
    let tls = tls::client_config(server.kind, &server.announced)?;
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let endpoints: Vec<Endpoint> = (0..SOCKETS)
        .map(|_| {
            let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
            endpoint.set_default_client_config(config.clone());
            Ok(endpoint)
        })
        .collect::<anyhow::Result<_>>()?;
    let address = server.announced.address;
    let (cpu, own, began) = (server.cpu()?, own_cpu()?, stopwatch::start());
    let mut clients = JoinSet::new();
    let mut late = Vec::with_capacity(count);
    for number in 0..count {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        if stopwatch::start() < due {
            sleep_until(due.into()).await;
        }
        late.push(since(due));
        let endpoint = endpoints.get(number % SOCKETS).context("a socket")?.clone();
        let token = match then {
            Then::Leave => None,
            Then::Admission(tokens) => Some(tokens.get(number).context("too few tokens")?.clone()),
        };
        clients.spawn(async move {
            let connecting = endpoint.connect(address, SERVER_NAME)?;
            let connection = timeout(PATIENCE, connecting).await??;
            if let Some(token) = token {
                timeout(PATIENCE, admit(&connection, token)).await??;
            }
            connection.close(VarInt::from_u32(0), b"");
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

/// Hello, and then Welcome.
async fn admit(connection: &Connection, token: String) -> anyhow::Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut hello = Vec::new();
    Frame::Hello(Hello::new(token)).encode(&mut hello)?;
    send.write_all(&hello).await?;
    let mut reader = FrameReader::new();
    let mut bytes = [0; 1_024];
    loop {
        if let Some(frame) = reader.next(MAX_WELCOME)? {
            let Frame::Welcome(_) = frame else {
                bail!("no Welcome");
            };
            return Ok(());
        }
        let read = receive.read(&mut bytes).await?.context("no Welcome")?;
        reader.push(bytes.get(..read).unwrap_or_default());
    }
}
