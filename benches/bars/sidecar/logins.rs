//! Group commit: 256 callers at once against one after the other.

use std::{
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
    let store = EmbeddedStore::open(&folder.path().join("store.redb"), LIVES).unwrap();
    let bench = Bench {
        store: Arc::new(store),
        logins: Arc::default(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(bench.all_players());
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
}

struct Bench {
    store: Arc<EmbeddedStore>,
    logins: Arc<AtomicU64>,
}

impl Bench {
    /// Has every player log in once.
    async fn all_players(&self) {
        while self.logins.load(Ordering::Relaxed) < PLAYERS {
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
