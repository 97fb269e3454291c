//! Players on bad networks: real clients, through a relay that loses, delays, reorders and doubles packets, goes dark for seconds and changes
//! their address. Whatever it does, nobody is admitted twice, nobody's seat ends who still plays, and each end is told once.
//!
//! A handful of cases in every run; `scripts/network-matrix` goes through all of them.
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

#[path = "network/case.rs"]
mod case;
mod relay;
mod support;

use std::{sync::Arc, time::Instant};

use case::{Case, Outcome, Trouble, play};
use tokio::task::JoinSet;

/// Cases that run beside each other: their players sleep most of the time.
const AT_ONCE: usize = 8;

/// Of the whole matrix: each kind of trouble, in clear and in foul weather.
fn some() -> Vec<Case> {
    let pick = |name: &str| {
        let case = Case::all().into_iter().find(|case| case.name() == name);
        case.unwrap_or_else(|| panic!("no case {name}"))
    };
    [
        "loss 0 %, reorder 0 %, jitter 0 ms, rebind",
        "loss 1 %, reorder 25 %, jitter 20 ms, none",
        "loss 5 %, reorder 5 %, jitter 20 ms, rebind",
        "loss 10 %, reorder 25 %, jitter 200 ms, none",
        "loss 5 %, reorder 25 %, jitter 20 ms, move",
        "loss 30 %, reorder 25 %, jitter 20 ms, none",
        "loss 10 %, reorder 5 %, jitter 20 ms, dark 1 s",
        "loss 0 %, reorder 5 %, jitter 200 ms, dark 4 s",
    ]
    .map(pick)
    .into()
}

async fn run(cases: Vec<Case>) -> Vec<(Case, Outcome)> {
    let stage = Arc::new(case::Stage::start().await);
    let mut waiting = cases.into_iter();
    let mut running = JoinSet::new();
    let mut outcomes = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(case) = waiting.next()
        {
            let stage = Arc::clone(&stage);
            running.spawn(async move { (case, play(&stage, case).await) });
        }
        match running.join_next().await {
            Some(outcome) => outcomes.push(outcome.unwrap()),
            None => break,
        }
    }
    outcomes.sort_by_key(|(case, _)| case.seed);
    Arc::into_inner(stage).unwrap().stop().await;
    outcomes
}

fn judge(outcomes: &[(Case, Outcome)]) {
    println!("{}", Outcome::HEAD);
    for (case, outcome) in outcomes {
        println!("{}", outcome.row(case));
    }
    let broken: Vec<String> = outcomes
        .iter()
        .filter(|(_, outcome)| !outcome.broken.is_empty())
        .map(|(case, outcome)| format!("{}: {}", case.name(), outcome.broken.join("; ")))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_weather_admits_twice_or_ends_a_seat() {
    let outcomes = run(some()).await;
    judge(&outcomes);
    // The troubles were what they say: they were played through, and who was moved was heard from elsewhere.
    for (case, outcome) in &outcomes {
        assert!(outcome.echoes > 0, "{}", case.name());
        assert_eq!(outcome.joins, case::PLAYERS, "{}", case.name());
        if let Trouble::Rebind | Trouble::Move = case.trouble {
            assert!(outcome.echoes_after > 0, "{}", case.name());
        }
    }
}

/// All of them: some minutes. `scripts/network-matrix` runs it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/network-matrix"]
async fn the_whole_matrix() {
    let start = Instant::now();
    let outcomes = run(Case::all()).await;
    judge(&outcomes);
    println!(
        "{} cases of {} players each in {:.0} s: nobody admitted twice, no seat ended, each end told once",
        outcomes.len(),
        case::PLAYERS,
        start.elapsed().as_secs_f64(),
    );
}
