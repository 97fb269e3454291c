//! The hold: thousands of players who stay, while some leave and others come, for as long as `scripts/hold` says.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tickgate::client::{Backend, Connection, Endpoint};
use tokio::sync::{Semaphore, oneshot};

use super::stage::{Stage, Tickets};
use crate::{
    bar::{Bar, Bound::AtMost, Figure},
    report::{Group, Report, progress},
};

/// What `scripts/hold` asks for: clients, seconds, and the part of them that leaves and comes in a second.
pub(crate) const ASKED: &str = "TICKGATE_HOLD";

static MEMORY: Bar = Bar {
    name: "hold-memory",
    bound: AtMost(0.02),
    about: "the part by which the gateway's anonymous memory grows at its highest, after the first minute",
};
static UNPLANNED: Bar = Bar {
    name: "hold-disconnects",
    bound: AtMost(0.0),
    about: "players who were disconnected, or not let in, though nobody asked for it",
};

/// No bars of the whole run, which it is too long for.
pub(crate) const GROUP: Group = Group {
    name: "hold",
    about: "thousands of players held for minutes with churn; by scripts/hold alone",
    bars: &[],
    run,
};

/// Sockets that the clients share, each in a network of its own.
const SOCKETS: u8 = 64;
/// Clients who come in at once.
const AT_ONCE: usize = 64;
/// Memory counts from then on.
const FIRST_MINUTE: Duration = Duration::from_secs(60);

fn run(report: &mut Report) {
    let Ok(asked) = std::env::var(ASKED) else {
        progress("left out: scripts/hold runs it");
        return;
    };
    let asked: Vec<f64> = asked.split(' ').map(|n| n.parse().unwrap()).collect();
    let (clients, time, churn) = (
        asked[0] as usize,
        Duration::from_secs_f64(asked[1]),
        asked[2],
    );
    let stage = Stage::with(&format!(
        "capacity = {}\n[demo]\ntick_hz = 20",
        clients + clients / 8 + 64
    ));
    let crowd = Crowd::new(&stage);
    let mut places: Vec<_> = (0..clients).map(|_| crowd.enter(&stage)).collect();
    while crowd.shared.came.load(Ordering::Relaxed) < clients as u64 {
        stage.pause(Duration::from_millis(100));
    }
    progress(&format!("{clients} clients came"));

    // In a run of less than two minutes, its first half stands for the first minute.
    let settled = FIRST_MINUTE.min(time / 2);
    let start = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut base, mut samples, mut due, mut changed) = (0.0, Vec::new(), 0.0, 0_u64);
    while start.elapsed() < time {
        due += clients as f64 * churn;
        while due >= 1.0 {
            due -= 1.0;
            changed += 1;
            let place = rng.random_range(0..places.len());
            // Whoever was there leaves, and somebody else comes.
            places[place] = crowd.enter(&stage);
        }
        stage.pause(Duration::from_secs(1));
        let memory = stage.anonymous_bytes();
        if start.elapsed() < settled {
            base = memory;
        } else {
            samples.push(memory / base - 1.0);
        }
        if start.elapsed().as_secs().is_multiple_of(30) {
            let mib = memory / f64::from(1 << 20);
            let lost = crowd.shared.unplanned.load(Ordering::Relaxed);
            progress(&format!(
                "{:.0} s: {mib:.1} MiB, {changed} changed places, {lost} lost",
                start.elapsed().as_secs_f64()
            ));
        }
    }
    let most = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let note = format!(
        "{:.1} MiB after {:.0} s, for {clients} clients, {:.1} KiB each",
        base / f64::from(1 << 20),
        settled.as_secs_f64(),
        base / 1_024.0 / clients as f64,
    );
    report.bar(&MEMORY, Figure::spread(most, &samples, "seconds", note));
    let unplanned = crowd.shared.unplanned.load(Ordering::Relaxed);
    let live = crowd.shared.live.load(Ordering::Relaxed);
    let note = format!(
        "{clients} clients for {:.0} s, {changed} of whom left for others; {live} are in at the end",
        time.as_secs_f64()
    );
    report.bar(&UNPLANNED, Figure::exact(unplanned as f64, note));
}

struct Crowd {
    endpoints: Vec<Endpoint>,
    shared: Arc<Shared>,
}

struct Shared {
    backend: Backend,
    tickets: Tickets,
    /// Who is coming in.
    door: Semaphore,
    came: AtomicU64,
    live: AtomicU64,
    unplanned: AtomicU64,
}

impl Crowd {
    fn new(stage: &Stage) -> Self {
        let _guard = stage.runtime.enter();
        let bind = |n: u8| Endpoint::bind((Ipv4Addr::new(127, 70, n, 1), 0).into()).unwrap();
        Self {
            endpoints: (0..SOCKETS).map(bind).collect(),
            shared: Arc::new(Shared {
                backend: stage.backend(),
                tickets: stage.tickets(),
                door: Semaphore::new(AT_ONCE),
                came: AtomicU64::new(0),
                live: AtomicU64::new(0),
                unplanned: AtomicU64::new(0),
            }),
        }
    }

    /// A new player comes; he leaves when what is returned is dropped.
    fn enter(&self, stage: &Stage) -> oneshot::Sender<()> {
        let (leave, left) = oneshot::channel();
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let endpoint = self.endpoints[number as usize % self.endpoints.len()].clone();
        let shared = Arc::clone(&self.shared);
        stage.runtime.spawn(async move {
            let connection = shared.admit(&endpoint, number).await;
            shared.came.fetch_add(1, Ordering::Relaxed);
            let Some(connection) = connection else {
                shared.unplanned.fetch_add(1, Ordering::Relaxed);
                return;
            };
            shared.live.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                _ = left => connection.close(),
                closed = connection.closed() => {
                    progress(&format!("player {number} was disconnected: {closed:?}"));
                    shared.unplanned.fetch_add(1, Ordering::Relaxed);
                }
            }
            shared.live.fetch_sub(1, Ordering::Relaxed);
        });
        leave
    }
}

impl Shared {
    async fn admit(&self, endpoint: &Endpoint, number: u64) -> Option<Connection> {
        let _turn = self.door.acquire().await.unwrap();
        let session = self.backend.create_session(&format!("held-{number}")).await;
        let ticket = self.tickets.get(&session.unwrap()).await;
        let connection = endpoint.connect(&ticket).await;
        connection
            .inspect_err(|error| progress(&format!("player {number} was not let in: {error:?}")))
            .ok()
    }
}
