//! Logs the players in.

use std::sync::Arc;

use anyhow::Context;
use tickgate::client::{Account, Session};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::progress::{Live, count};

/// How many logins run at once: the sidecar's store commits them in groups.
const AT_ONCE: usize = 64;

/// Logs `clients` players in, whose names begin with `prefix`. Those that cannot be are missing from the answer; so are those whose
/// turn had not come when it was stopped.
///
/// # Errors
/// When nobody can log in.
pub(crate) async fn log_in(
    account: &Account,
    prefix: &str,
    clients: u32,
    live: &Arc<Live>,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<(u32, Session)>> {
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut logins = JoinSet::new();
    for client in 0..clients {
        let permit = at_once.clone().acquire_owned().await?;
        if stop.is_cancelled() {
            break;
        }
        let (account, live) = (account.clone(), live.clone());
        let name = format!("{prefix}-{client}");
        logins.spawn(async move {
            let session = account.login_dev(&name).await;
            drop(permit);
            if session.is_ok() {
                count(&live.logged_in);
            }
            (client, session)
        });
    }
    let mut sessions = Vec::new();
    let mut failure = None;
    for (client, login) in logins.join_all().await {
        match login {
            Ok(session) => sessions.push((client, session)),
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure {
        if sessions.is_empty() {
            return Err(error).context("no player could log in");
        }
        tracing::warn!(%error, "some players could not log in");
    }
    // In the order of the players, and not of the answers: the same run shares them out in the same way.
    sessions.sort_unstable_by_key(|(client, _)| *client);
    Ok(sessions)
}
