//! Real sidecars that are killed again and again under real clients, one over its own file, or two over one Redis server, which is
//! killed too and every other time speaks TLS alone: what was asked and answered is written down, and held to every promise by the checker of the simulated runs
//! (`src/sidecar/history/`).
//!
//! Two runs of each here; `TICKGATE_RUNS=20 cargo test --test crashes`, or `scripts/soak-sidecar`, for more.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
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
#[cfg(feature = "redis")]
#[path = "../src/store/redis/tests/server.rs"]
mod redis_server;
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
use support::{
    process::{Deployment, SidecarProcess},
    soon,
};
#[cfg(feature = "redis")]
use tickgate::certs::Layout;
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

/// Where the sessions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// A file, by one sidecar.
    File,
    /// A Redis server, by two.
    #[cfg(feature = "redis")]
    Redis,
}

/// A sidecar as its callers reach it.
#[derive(Clone)]
struct Reach {
    /// Which of the sidecars.
    number: usize,
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

    /// Every sidecar is gone: what was under way has been dealt with, or never will be.
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

/// What is killed: sidecars, and what they keep their sessions in.
struct Fleet {
    deployment: Deployment,
    sidecars: Vec<Option<SidecarProcess>>,
    #[cfg(feature = "redis")]
    redis: Option<redis_server::Server>,
    journal: Arc<Journal>,
    up: watch::Sender<Vec<Reach>>,
}

impl Fleet {
    fn start(seed: u64, over: Over) -> Self {
        #[cfg_attr(not(feature = "redis"), allow(unused_mut))]
        let mut deployment = Deployment::of(&["one"]);
        let sidecars = match over {
            Over::File => 1,
            #[cfg(feature = "redis")]
            Over::Redis => 2,
        };
        #[cfg(feature = "redis")]
        let redis = (over == Over::Redis).then(|| {
            let certs = Layout::new(deployment.path().join("certs"));
            let files = certs.sidecar();
            if seed.is_multiple_of(2) {
                redis_server::Server::start()
            } else {
                deployment.redis_ca = Some(certs.ca());
                redis_server::Server::over_tls(&files.certificate, &files.key)
            }
        });
        #[cfg(feature = "redis")]
        {
            deployment.redis = redis.as_ref().map(redis_server::Server::url);
        }
        #[cfg(not(feature = "redis"))]
        let _ = seed;
        let mut fleet = Self {
            deployment,
            sidecars: Vec::new(),
            #[cfg(feature = "redis")]
            redis,
            journal: Arc::new(Journal {
                history: Mutex::default(),
                clock: Clock::system(),
            }),
            up: watch::Sender::new(Vec::new()),
        };
        for number in 0..sidecars {
            fleet.sidecars.push(None);
            fleet.start_sidecar(number);
        }
        fleet
    }

    fn start_sidecar(&mut self, number: usize) {
        // No limit is to come between the clients and the store.
        let sidecar = self.deployment.sidecar("refreshes_per_minute = 6000");
        let reach = Reach {
            number,
            account: sidecar.account.clone(),
            backend: sidecar.backend.clone(),
        };
        self.sidecars[number] = Some(sidecar);
        self.up.send_modify(|up| up.push(reach));
    }

    /// SIGKILL, and a new start.
    async fn kill_one(&mut self, rng: &mut ChaCha8Rng) {
        #[cfg(feature = "redis")]
        if let Some(redis) = self.redis.as_mut().filter(|_| rng.random_bool(0.3)) {
            redis.kill();
            let down = rng.random_range(0..300);
            tokio::time::sleep(Duration::from_millis(down)).await;
            return tokio::task::block_in_place(|| redis.restart());
        }
        let number = rng.random_range(0..self.sidecars.len());
        if let Some(mut sidecar) = self.sidecars[number].take() {
            sidecar.process.kill();
        }
        if self.sidecars.iter().all(Option::is_none) {
            self.journal.killed();
        }
        self.up
            .send_modify(|up| up.retain(|reach| reach.number != number));
        tokio::task::block_in_place(|| self.start_sidecar(number));
    }
}

async fn run(seed: u64, over: Over) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut fleet = tokio::task::block_in_place(|| Fleet::start(seed, over));
    let journal = Arc::clone(&fleet.journal);
    let mut players = JoinSet::new();
    for number in 0..PLAYERS {
        let rng = ChaCha8Rng::seed_from_u64(rng.random());
        // Two to an account.
        let player = Player::new(number / 2, Arc::clone(&journal), fleet.up.subscribe(), rng);
        players.spawn(player.play());
    }
    for _ in 0..KILLS {
        let lives = rng.random_range(50..800);
        tokio::time::sleep(Duration::from_millis(lives)).await;
        fleet.kill_one(&mut rng).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let Fleet { up, sidecars, .. } = &mut fleet;
    // Its end is the run's.
    *up = watch::Sender::new(Vec::new());
    let left = soon("the end of the calls", players.join_all()).await;
    let account = &sidecars[0].as_ref().unwrap().account;
    for session in left.into_iter().flatten() {
        let look = looked_at(account, &journal, &session);
        soon("a last look", look).await;
    }
    journal.history.lock().unwrap().clone()
}

async fn runs(over: Over) {
    let runs = std::env::var("TICKGATE_RUNS").map_or(RUNS, |runs| runs.parse().expect("a number"));
    for seed in 0..runs {
        let history = run(seed, over).await;
        if let Err(broken) = check(&history, LIVES) {
            panic!("run {seed}: {broken}");
        }
        let figures = Figures::of(&history);
        println!("run {seed}: {figures:?}");
        assert!(figures.logins > 20 && figures.renewed > 20, "{figures:?}");
        assert!(figures.revoked > 10 && figures.failed > 0, "{figures:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_killed_again_and_again_keeps_every_promise() {
    runs(Over::File).await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread")]
async fn two_sidecars_and_their_redis_that_are_killed_keep_every_promise() {
    runs(Over::Redis).await;
}
