//! Sets up logging, once per process: which events, in which form. Always to standard error; standard output is for results.

use std::io::IsTerminal;

use anyhow::Context;
use tickgate::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Checks a filter given on the command line.
pub(super) fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{error}; allowed: a level (error, warn, info, debug, trace) or target=level, separated by commas"
        )),
    }
}

/// The filter of the running process, which can be replaced.
pub(super) struct LogFilter(Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>);

impl LogFilter {
    /// Logs by `filter` from now on.
    pub(super) fn set(&self, filter: &str) {
        let replaced = EnvFilter::try_new(filter)
            .map_err(anyhow::Error::new)
            .and_then(|filter| (self.0)(filter));
        if let Err(error) = replaced {
            tracing::error!(%error, "the log filter could not be replaced");
        }
    }
}

/// Starts logging.
pub(super) fn start(log: &Log) -> anyhow::Result<LogFilter> {
    let filter = EnvFilter::try_new(&log.filter).context("cannot read the log filter")?;
    let lines = tracing_subscriber::fmt()
        // Colours are for terminals; in a file they are noise.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let (started, filter) = match log.format {
        LogFormat::Text => {
            let lines = lines.with_env_filter(filter).with_filter_reloading();
            let handle = lines.reload_handle();
            let set = Box::new(move |filter| Ok(handle.reload(filter)?));
            (lines.try_init(), LogFilter(set))
        }
        LogFormat::Json => {
            let lines = lines.json().with_env_filter(filter).with_filter_reloading();
            let handle = lines.reload_handle();
            let set = Box::new(move |filter| Ok(handle.reload(filter)?));
            (lines.try_init(), LogFilter(set))
        }
    };
    started.map_err(|error| anyhow::anyhow!(error).context("cannot start logging"))?;
    Ok(filter)
}
