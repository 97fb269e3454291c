//! Runs a role until it ends or is asked to: logging, the asynchronous runtime, signals.

use std::{future::Future, time::Duration};

use anyhow::Context;
use tickgate::config::Log;
use tokio_util::sync::CancellationToken;

use super::{failure::Failure, logging};

/// How long tasks that did not heed the end of their role are waited for.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// Runs `role` on a runtime of its own. Its token is cancelled on the first SIGINT or SIGTERM, for it to end in good order; a second
/// signal ends the process there and then.
pub(super) fn run<F>(log: &Log, role: impl FnOnce(CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    logging::start(log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let signals = Signals::listen().context("cannot listen for signals")?;
        let watcher = tokio::spawn(signals.watch(cancel.clone()));
        let outcome = role(cancel).await;
        watcher.abort();
        outcome
    });
    runtime.shutdown_timeout(STRAGGLERS);
    outcome
}

/// The signals that ask a process to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    #[cfg(not(unix))]
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            // Without signals the process runs until it is killed.
            Err(_) => std::future::pending().await,
        }
    }

    async fn watch(mut self, cancel: CancellationToken) {
        let signal = self.next().await;
        tracing::info!(signal, "ending; a second signal ends at once");
        cancel.cancel();
        let signal = self.next().await;
        tracing::warn!(signal, "ended at once");
        std::process::exit(1);
    }
}
