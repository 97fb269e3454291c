//! All at once from within: a client that was let in and sends garbage, handshakes that stall, and connections that say nothing.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tickgate::client::{Connection, Endpoint, SecretToken, Session, Ticket};
use tokio::task::JoinSet;

use super::{
    attackers::{Silent, Stalled},
    claims,
    stage::{Stage, Tickets, come, late_ticks},
};
use crate::{
    bar::Figure,
    report::{Report, progress},
};

const HONEST: usize = 100;
const EACH: usize = 1_000;
const GARBAGE_PER_MS: u64 = 20;
const ATTACK: Duration = Duration::from_secs(20);
/// After the attackers are in place, and before it counts.
const SETTLE: Duration = Duration::from_secs(5);
/// Honest players send so often, and who hears nothing for [`DEAF`] counts as dropped.
const EVERY: Duration = Duration::from_millis(100);
const DEAF: Duration = Duration::from_secs(2);

pub(super) fn measure(report: &mut Report) {
    progress("garbage");
    let stage = Stage::new();
    let sessions = stage.sessions(HONEST + 1);
    let (villain, honest) = sessions.split_last().unwrap();
    let known = Ticket {
        token: SecretToken::new("none".to_owned()),
        ..stage.ticket(villain)
    };
    let players = stage.runtime.block_on(async {
        let mut coming = JoinSet::new();
        for (number, session) in honest.iter().enumerate() {
            coming.spawn(come(number, session.clone(), stage.tickets()));
        }
        coming.join_all().await
    });
    let players: Vec<_> = players
        .into_iter()
        .map(|(_, client)| client.unwrap())
        .collect();

    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let guard = stage.runtime.enter();
    let silent = Silent::hold(&known, EACH, &networks(91));
    let stalled = Stalled::hold(&known, EACH, &addresses(92));
    stage.runtime.spawn(garbage(
        villain.clone(),
        stage.tickets(),
        Arc::clone(&stop),
        Arc::clone(&sent),
    ));
    drop(guard);
    let mut playing = JoinSet::new();
    for (endpoint, connection) in players {
        playing.spawn_on(
            play(endpoint, connection, Arc::clone(&stop)),
            stage.runtime.handle(),
        );
    }
    stage.pause(SETTLE);
    let (before, sent_before, memory) = (
        stage.scrape(),
        sent.load(Ordering::Relaxed),
        stage.anonymous_bytes(),
    );
    let start = Instant::now();
    let mut peak = memory;
    while start.elapsed() < ATTACK {
        stage.pause(Duration::from_millis(500));
        peak = peak.max(stage.anonymous_bytes());
    }
    let held = (silent.held(), stalled.held());
    let rate = (sent.load(Ordering::Relaxed) - sent_before) as f64 / start.elapsed().as_secs_f64();
    let after = stage.scrape();
    stop.store(true, Ordering::Relaxed);
    let outcomes = stage.runtime.block_on(playing.join_all());
    stalled.stop();
    stage.runtime.block_on(silent.stop());

    let dropped = outcomes.iter().filter(|deaf| **deaf >= DEAF).count();
    let longest = outcomes.iter().max().copied().unwrap_or_default();
    let note = format!(
        "{rate:.0} garbage datagrams a second; {} silent connections and {} stalled handshakes at the end; longest without an answer {:.2} s",
        held.0,
        held.1,
        longest.as_secs_f64(),
    );
    report.bar(&claims::GARBAGE, Figure::exact(dropped as f64, note));
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let note = format!("{:.0} MiB before", mib(memory));
    report.bar(
        &claims::GARBAGE_MEMORY,
        Figure::exact(mib(peak - memory), note),
    );
    let (ticks, late) = late_ticks(&before, &after);
    report.bar(
        &claims::GARBAGE_TICK,
        Figure::exact(late, format!("of {ticks:.0} ticks")),
    );
}

/// Sixteen networks: with fewer than eight attackers could not fill a room.
fn addresses(network: u8) -> Vec<SocketAddr> {
    let address = |host| SocketAddr::from((Ipv4Addr::new(127, network, host, 1), 0));
    (0..16).map(address).collect()
}

fn networks(network: u8) -> Vec<Endpoint> {
    addresses(network)
        .into_iter()
        .map(|local| Endpoint::bind(local).unwrap())
        .collect()
}

/// Datagrams that the game can make nothing of. Whenever the gateway has enough of it, it comes again.
async fn garbage(session: Session, tickets: Tickets, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut number = 240;
    while !stop.load(Ordering::Relaxed) {
        let (_, client) = come(number, session.clone(), tickets.clone()).await;
        number += 1;
        let Some((_endpoint, connection)) = client else {
            continue;
        };
        let start = Instant::now();
        let mut due = 0;
        while connection.close_reason().is_none() && !stop.load(Ordering::Relaxed) {
            let now = start.elapsed().as_millis() as u64 * GARBAGE_PER_MS;
            while due < now {
                due += 1;
                let mut payload = vec![0; 64];
                rng.fill_bytes(&mut payload);
                if connection.send_datagram(Bytes::from(payload)).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// An honest player; the longest that it heard nothing.
async fn play(_endpoint: Endpoint, connection: Connection, stop: Arc<AtomicBool>) -> Duration {
    let mut heard = Instant::now();
    let mut longest = Duration::ZERO;
    let mut sequence: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        sequence += 1;
        let input = tickgate::demo::protocol::Input {
            sequence,
            right: 1,
            up: 0,
        };
        if connection
            .send_datagram(input.encode().to_vec().into())
            .is_err()
        {
            return Duration::MAX;
        }
        tokio::time::sleep(EVERY).await;
        longest = longest.max(heard.elapsed());
        while connection.try_recv_datagram().is_some() {
            heard = Instant::now();
        }
        if connection.close_reason().is_some() {
            return Duration::MAX;
        }
    }
    longest
}
