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

/// Starts logging.
pub(super) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).context("cannot read the log filter")?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for terminals; in a file they are noise.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!(error).context("cannot start logging"))
}
