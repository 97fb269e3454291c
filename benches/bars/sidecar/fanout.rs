//! How long a revocation is on its way to many gateways.

use std::{
    collections::BTreeMap,
    sync::PoisonError,
    time::{Duration, Instant},
};

use tickgate::{client::Wait, id::Revision};
use tokio::task::JoinSet;

use super::{
    claims,
    stage::{CONNECTIONS, Puppet, Stage},
};
use crate::{
    bar::Figure,
    report::{Report, progress},
    rig::stopwatch::{self, percentile},
};

const GATEWAYS: usize = 100;
/// Revocations that are not counted, and that are; one a millisecond.
const WARM_UP: usize = 2_000;
const COUNTED: usize = 10_000;
const EVERY: Duration = Duration::from_millis(1);

pub(super) fn measure(report: &mut Report) {
    let bar = &claims::FANOUT;
    progress(bar.name);
    let ids: Vec<String> = (0..GATEWAYS).map(|n| format!("gateway-{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let stage = Stage::of(&ids, "");
    let sessions = stage.sessions(WARM_UP + COUNTED);
    let backends = stage.backends();
    let attached = stage.attach_all();
    let spent = stage.processor_seconds();
    let started = stopwatch::start();
    // Open loop: a revocation is due when it is due, however long the ones before it take.
    let due: BTreeMap<Revision, (usize, Instant)> = stage.runtime.block_on(async {
        let mut calls = JoinSet::new();
        for (number, session) in sessions.iter().enumerate() {
            let due = started + EVERY * number as u32;
            tokio::time::sleep_until(due.into()).await;
            let (backend, id) = (backends[number % CONNECTIONS].clone(), session.id);
            calls.spawn(async move {
                let revoked = backend.revoke_session(id, Wait::Commit).await.unwrap();
                (revoked.revision, (number, due))
            });
        }
        calls.join_all().await.into_iter().collect()
    });
    let took = started.elapsed();
    let spent = stage.processor_seconds() - spent;
    let (head, _) = due.last_key_value().unwrap();
    let arrived = stage.runtime.block_on(async {
        let deadline = stopwatch::start() + Duration::from_secs(10);
        while stopwatch::start() < deadline {
            if attached
                .iter()
                .all(|one| reached(&one.host, *head).is_some())
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    });
    assert!(arrived, "not every gateway has heard of every revocation");
    let late: Vec<f64> = due
        .iter()
        .filter(|(_, (number, _))| *number >= WARM_UP)
        .map(|(revision, (_, due))| {
            let reached = attached
                .iter()
                .filter_map(|one| reached(&one.host, *revision));
            let last = reached.max().unwrap();
            last.saturating_duration_since(*due).as_secs_f64() * 1_000.0
        })
        .collect();
    let note = format!(
        "p50 {:.1} ms; {:.0} revocations a second for {GATEWAYS} gateways, which take {:.2} cores of the sidecar",
        percentile(&late, 0.5),
        sessions.len() as f64 / took.as_secs_f64(),
        spent / took.as_secs_f64(),
    );
    report.bar(
        bar,
        Figure::spread(percentile(&late, 0.99), &late, "revocations", note),
    );
}

/// When the gateway had applied the log up to the revision.
fn reached(host: &Puppet, revision: Revision) -> Option<Instant> {
    let applied = host.applied.lock().unwrap_or_else(PoisonError::into_inner);
    let first = applied.partition_point(|(_, to)| *to < revision);
    applied.get(first).map(|(at, _)| *at)
}
