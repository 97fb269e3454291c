//! A real sidecar that is killed again and again under real clients: what was asked and answered is written down, and held to every
//! promise by the checker of the simulated runs (`src/sidecar/history/`).
//!
//! Two runs here; `TICKGATE_RUNS=20 cargo test --test crashes`, or `scripts/soak-sidecar`, for more.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

#[path = "../src/sidecar/history/check.rs"]
mod check;
#[path = "crashes/player.rs"]
mod player;
#[path = "../src/sidecar/history/record.rs"]
mod record;
mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use check::{Lives, check};
use player::{Player, looked_at};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use record::{Answer, Ask, History, Millis, Span};
use support::{process::Deployment, soon};
use tickgate::{
    client::{Account, Backend},
    clock::Clock,
};
use tokio::{sync::watch, task::JoinSet};

const RUNS: u64 = 2;
/// Clients at once, and how often their sidecar is killed in a run.
const PLAYERS: u32 = 12;
const KILLS: usize = 3;

/// As the sidecar has them by default. No session comes near its end in a run.
const LIVES: Lives = Lives {
    grace: 10_000,
    idle: 60 * 60 * 1_000,
    granule: 60_000,
    kept: 60_000,
};

/// The sidecar that is up, as its callers reach it; none between two.
#[derive(Clone)]
struct Reach {
    account: Account,
    backend: Backend,
}

/// Where all callers write what they ask and hear.
struct Journal {
    history: Mutex<History>,
    clock: Clock,
}

impl Journal {
    fn now(&self) -> Millis {
        self.clock.wall().0
    }

    /// A call sets out now: whenever the sidecar deals with it, it is later.
    fn begin(&self, ask: Ask) -> usize {
        let from = self.now();
        let mut history = self.history.lock().unwrap();
        let call = history.begin(ask);
        let to = Millis::MAX;
        history.present(call, Span { from, to });
        call
    }

    fn answered(&self, call: usize, answer: Answer) {
        let mut history = self.history.lock().unwrap();
        // After a failure it may still be under way.
        if answer != Answer::Failed {
            history.calls[call].presented[0].to = self.now();
        }
        history.answered(call, answer);
    }

    /// What was under way at a kill was dealt with before it, or never will be.
    fn killed(&self) {
        let now = self.now();
        let mut history = self.history.lock().unwrap();
        let presented = history
            .calls
            .iter_mut()
            .flat_map(|call| &mut call.presented);
        for span in { presented }.filter(|span| span.to == Millis::MAX) {
            span.to = now;
        }
    }
}

/// What a run came to.
#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    answered: usize,
    failed: usize,
    logins: usize,
    renewed: usize,
    revoked: usize,
    found_live: usize,
    found_over: usize,
}

impl Figures {
    fn of(history: &History) -> Self {
        let mut figures = Self {
            calls: history.calls.len(),
            ..Self::default()
        };
        for (_, answer) in history.calls.iter().filter_map(|call| call.answer.as_ref()) {
            let figure = match answer {
                Answer::LoggedIn { .. } => &mut figures.logins,
                Answer::Renewed { .. } => &mut figures.renewed,
                Answer::Revoked { .. } | Answer::PlayerRevoked { .. } => &mut figures.revoked,
                Answer::Live { .. } => &mut figures.found_live,
                Answer::Over(_) => &mut figures.found_over,
                _ => &mut figures.failed,
            };
            *figure += 1;
            figures.answered += usize::from(!matches!(answer, Answer::Failed));
        }
        figures
    }
}

async fn run(seed: u64) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let deployment = Deployment::of(&["one"]);
    // No limit is to come between the clients and the store.
    let start = || deployment.sidecar("refreshes_per_minute = 6000");
    let journal = Arc::new(Journal {
        history: Mutex::default(),
        clock: Clock::system(),
    });
    let mut sidecar = start();
    let reach = |sidecar: &support::process::SidecarProcess| {
        Some(Reach {
            account: sidecar.account.clone(),
            backend: sidecar.backend.clone(),
        })
    };
    let (up, is_up) = watch::channel(reach(&sidecar));
    let mut players = JoinSet::new();
    for number in 0..PLAYERS {
        let rng = ChaCha8Rng::seed_from_u64(rng.random());
        // Two to an account.
        let player = Player::new(number / 2, Arc::clone(&journal), is_up.clone(), rng);
        players.spawn(player.play());
    }
    for _ in 0..KILLS {
        let lives = rng.random_range(50..800);
        tokio::time::sleep(Duration::from_millis(lives)).await;
        sidecar.process.kill();
        journal.killed();
        up.send_replace(None);
        sidecar = tokio::task::block_in_place(start);
        up.send_replace(reach(&sidecar));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(up);
    let left = soon("the end of the calls", players.join_all()).await;
    for session in left.into_iter().flatten() {
        let look = looked_at(&sidecar.account, &journal, &session);
        soon("a last look", look).await;
    }
    let history = journal.history.lock().unwrap().clone();
    history
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_killed_again_and_again_keeps_every_promise() {
    let runs = std::env::var("TICKGATE_RUNS").map_or(RUNS, |runs| runs.parse().expect("a number"));
    for seed in 0..runs {
        let history = run(seed).await;
        if let Err(broken) = check(&history, LIVES) {
            panic!("run {seed}: {broken}");
        }
        let figures = Figures::of(&history);
        println!("run {seed}: {figures:?}");
        assert!(
            figures.logins > 50 && figures.renewed > 50 && figures.revoked > 20,
            "{figures:?}"
        );
        assert!(figures.found_live > 20 && figures.failed > 0, "{figures:?}");
    }
}
