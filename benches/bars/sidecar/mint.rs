//! What a connect token costs the sidecar in processor time.

use std::{sync::Arc, time::Duration};

use tickgate::client::Target;
use tokio::task::JoinSet;

use super::{
    claims,
    stage::{CALLS_EACH, CONNECTIONS, Stage},
};
use crate::{
    bar::Figure,
    report::{Report, progress},
    rig::stopwatch::{self, median},
};

const ROUNDS: usize = 9;
const SPAN: Duration = Duration::from_millis(1_500);
/// Many, since each may ask for 100 tokens a second at most.
const SESSIONS: usize = 2_048;

pub(super) fn measure(report: &mut Report) {
    let bar = &claims::MINT_PER_CORE;
    progress(bar.name);
    let stage = Stage::of(&["one"], "connect_tokens_per_minute = 6000");
    let _gateway = stage.attach_all();
    let sessions = Arc::new(stage.sessions(SESSIONS));
    let accounts = stage.accounts();
    let (mut rates, mut per_second) = (Vec::new(), Vec::new());
    // One round that is not counted: the first token of each session costs a write.
    for round in 0..=ROUNDS {
        let started = stopwatch::start();
        let before = stage.processor_seconds();
        let minted: usize = stage.runtime.block_on(async {
            let mut callers = JoinSet::new();
            let all = CONNECTIONS * CALLS_EACH;
            for caller in 0..all {
                let account = accounts[caller % CONNECTIONS].clone();
                let sessions = Arc::clone(&sessions);
                callers.spawn(async move {
                    let mut minted = 0;
                    let own = (caller..SESSIONS).step_by(all).cycle();
                    for session in own.map(|index| &sessions[index]) {
                        if started.elapsed() >= SPAN {
                            break;
                        }
                        let ticket = account.issue_connect_token(session, Target::Any);
                        ticket.await.unwrap();
                        minted += 1;
                    }
                    minted
                });
            }
            callers.join_all().await.into_iter().sum()
        });
        let spent = stage.processor_seconds() - before;
        if round > 0 {
            rates.push(minted as f64 / spent);
            per_second.push(minted as f64 / started.elapsed().as_secs_f64());
        }
    }
    let note = format!(
        "{:.0} a second with the clients on the same machine",
        median(&per_second)
    );
    report.bar(bar, Figure::spread(median(&rates), &rates, "rounds", note));
}
