//! Runs a role until it ends or is asked to: logging, the asynchronous runtime, signals.

use std::time::Duration;

use anyhow::Context;
use tickgate::{
    config::{Config, ConfigError},
    role::{Asked, Reread},
};

use super::{
    failure::Failure,
    logging::{self, LogFilter},
};

/// How long tasks that did not heed the end of their role are waited for.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// How long a role that was asked to end at once may take for it.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Where a role's configuration came from, and comes from again on SIGHUP.
pub(super) struct FromFile<F> {
    read: F,
    filter: LogFilter,
}

impl<F: Fn() -> Result<Config, ConfigError> + Sync> Reread for FromFile<F> {
    fn read(&self) -> Result<Config, ConfigError> {
        (self.read)()
    }

    fn set_log_filter(&self, filter: &str) {
        self.filter.set(filter);
    }
}

/// Runs `role` with the configuration that `read` gives, on a runtime of its own. What signals ask of it stands in its [`Asked`]: the
/// first SIGINT or SIGTERM to end in good order, a second one to end at once (and soon after the process ends whatever the role
/// does), SIGHUP to read the configuration again.
pub(super) fn run<R>(
    read: R,
    role: impl AsyncFnOnce(Config, &Asked, &dyn Reread) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    R: Fn() -> Result<Config, ConfigError> + Sync,
{
    let config = read()?;
    let filter = logging::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        let asked = Asked::default();
        let signals = Signals::listen().context("cannot listen for signals")?;
        let watcher = tokio::spawn(signals.watch(asked.clone()));
        let outcome = role(config, &asked, &FromFile { read, filter }).await;
        watcher.abort();
        outcome
    });
    runtime.shutdown_timeout(STRAGGLERS);
    outcome
}

/// What a signal asks for.
enum Signal {
    End(&'static str),
    Reload,
}

/// The signals that a role heeds.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    #[cfg(not(unix))]
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::End("Ctrl-C"),
            // Without signals the process runs until it is killed.
            Err(_) => std::future::pending().await,
        }
    }

    /// The next signal to end; reloads are passed on meanwhile.
    async fn next_end(&mut self, asked: &Asked) -> &'static str {
        loop {
            match self.next().await {
                Signal::End(signal) => return signal,
                Signal::Reload => asked.reload.notify_one(),
            }
        }
    }

    async fn watch(mut self, asked: Asked) {
        let signal = self.next_end(&asked).await;
        tracing::info!(signal, "ending; a second signal ends at once");
        asked.stop.cancel();
        let signal = self.next_end(&asked).await;
        tracing::warn!(signal, "ending at once");
        asked.stop_now.cancel();
        let _ = tokio::time::timeout(AT_ONCE, self.next_end(&asked)).await;
        std::process::exit(1);
    }
}
