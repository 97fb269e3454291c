//! Group commit: 256 callers at once against one after the other.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tickgate::{
    clock::Timestamp,
    store::{EmbeddedStore, Identity, NewSession, Store, StoreLives},
};
use tokio::task::JoinSet;

use super::claims;
use crate::{
    bar::Figure,
    report::{Report, progress},
    rig::stopwatch::{self, median},
};

const PAIRS: usize = 9;
const SPAN: Duration = Duration::from_millis(800);
const CALLERS: usize = 256;
/// Players who log in again and again; each login is a session of its own.
const PLAYERS: u64 = 20_000;
/// What a store is opened with.
const SESSIONS: u64 = 1_000_000;
const OPENINGS: usize = 3;

const START: Timestamp = Timestamp(1_700_000_000_000);
const LIVES: StoreLives = StoreLives {
    idle: Duration::from_secs(60 * 60),
    longest: Duration::from_secs(24 * 60 * 60),
};

pub(super) fn measure(report: &mut Report) {
    let bar = &claims::LOGIN;
    progress(bar.name);
    // Not in /tmp, which may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store.redb");
    let store = EmbeddedStore::open(&path, LIVES).unwrap();
    let bench = Bench {
        store: Arc::new(store),
        logins: Arc::default(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(bench.logins_to(PLAYERS));
    let (mut alone, mut together, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // One pair that is not counted.
    for pair in 0..=PAIRS {
        let one = runtime.block_on(bench.rate(1));
        let many = runtime.block_on(bench.rate(CALLERS));
        if pair > 0 {
            alone.push(one);
            together.push(many);
            ratios.push(many / one);
        }
    }
    let (alone, together) = (median(&alone), median(&together));
    let note = format!("{alone:.0} logins a second one by one, {together:.0} by {CALLERS} callers");
    report.bar(bar, Figure::of_pairs(&ratios, note));
    runtime.block_on(bench.logins_to(SESSIONS));
    let sessions = bench.logins.load(Ordering::Relaxed);
    drop(bench);
    report.info("open-redb-ms", openings(&path, sessions));
}

/// How long a sidecar takes to open its store: to check the file, and to go through all sessions for the index of each player's.
fn openings(path: &Path, sessions: u64) -> Figure {
    let took: Vec<f64> = (0..OPENINGS)
        .map(|_| {
            let started = stopwatch::start();
            let store = EmbeddedStore::open(path, LIVES).unwrap();
            let took = started.elapsed();
            drop(store);
            took.as_secs_f64() * 1_000.0
        })
        .collect();
    let mebibytes = path.metadata().unwrap().len() >> 20;
    let note = format!("{sessions} sessions, a file of {mebibytes} MiB in the page cache");
    Figure::spread(median(&took), &took, "openings", note)
}

struct Bench {
    store: Arc<EmbeddedStore>,
    logins: Arc<AtomicU64>,
}

impl Bench {
    /// Has players log in until so many logins were made: by then each has, [`PLAYERS`] being many fewer or as many.
    async fn logins_to(&self, wanted: u64) {
        while self.logins.load(Ordering::Relaxed) < wanted {
            self.rate(CALLERS).await;
        }
    }

    /// Logins a second.
    async fn rate(&self, callers: usize) -> f64 {
        let started = stopwatch::start();
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (store, number) = (Arc::clone(&self.store), Arc::clone(&self.logins));
            tasks.spawn(async move {
                let mut logins = 0_u64;
                while started.elapsed() < SPAN {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    store.start_session(login(number)).await.unwrap();
                    logins += 1;
                }
                logins
            });
        }
        let logins: u64 = tasks.join_all().await.into_iter().sum();
        logins as f64 / started.elapsed().as_secs_f64()
    }
}

fn login(number: u64) -> NewSession {
    let at = START.after(Duration::from_millis(number));
    NewSession {
        identity: Identity {
            provider: "bench".to_owned(),
            // In no order, as players come.
            subject: format!("account-{}", number.wrapping_mul(7_919) % PLAYERS),
        },
        method: "backend".to_owned(),
        at,
        ends_at: at.after(LIVES.longest),
    }
}
