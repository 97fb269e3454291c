//! `tickgate check-config`: is the configuration fine, and what is in force?

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use serde_json::json;
use tickgate::config::{Config, ConfigError, Problem};

use super::{Global, failure::Failure};

/// Check a configuration file and show what is in force
#[derive(Debug, Args)]
#[command(
    long_about = "Reads a configuration as every role does, and says either that it is fine or what is wrong: the key, its line, and what is \
        allowed there. Of values that break a rule all are told at once. Nothing is started and no key is read.\n\n\
        For a good configuration it prints every key with the value in force, defaults included. Keys of the sidecar are shown by \
        where they come from, never by value.",
    after_long_help = "Examples:\n  \
        tickgate check-config                      ./config.toml, or the defaults where there is none\n  \
        tickgate check-config /etc/tickgate.toml\n  \
        tickgate check-config --json | jq .config.gateway\n\n\
        Exit codes: 0 fine, 2 not fine. In a deployment script: tickgate check-config new.toml && mv new.toml config.toml\n\n\
        What to do next: `tickgate certs` and `tickgate keys generate` make the files that it notes as missing."
)]
pub(super) struct CheckConfig {
    /// The file to check [default: what --config says, else ./config.toml]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,

    /// Print one JSON object: {"ok", "path", "config", "missing_files"}, or, when it is not fine, {"ok", "path", "error", "problems"}
    #[arg(long)]
    json: bool,
}

impl CheckConfig {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let path = self.path.as_deref().or_else(|| global.config_path());
        let checked = match path {
            Some(path) => Config::load(path),
            None => Ok(Config::default()),
        };
        let name = path.map(|path| path.display().to_string());
        if self.json {
            print_json(name.as_deref(), &checked)?;
        } else if let Ok(config) = &checked {
            print_text(name.as_deref(), config)?;
        }
        checked?;
        Ok(())
    }
}

fn print_json(path: Option<&str>, checked: &Result<Config, ConfigError>) -> Result<(), Failure> {
    let report = match checked {
        Ok(config) => json!({
            "ok": true,
            "path": path,
            "config": config,
            "missing_files": missing(config),
        }),
        Err(error) => json!({
            "ok": false,
            "path": path,
            "error": error.label(),
            "problems": error.problems().iter().map(problem).collect::<Vec<_>>(),
        }),
    };
    writeln!(io::stdout(), "{report:#}")?;
    Ok(())
}

fn problem(problem: &Problem) -> serde_json::Value {
    let Problem {
        key,
        position,
        what,
        allowed,
    } = problem;
    json!({
        "key": key,
        "line": position.map(|at| at.line),
        "column": position.map(|at| at.column),
        "what": what,
        "allowed": allowed,
    })
}

fn print_text(path: Option<&str>, config: &Config) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match path {
        Some(path) => writeln!(out, "# ok: {path}; in force is")?,
        None => writeln!(
            out,
            "# ok: no configuration file, every key has its default; in force is"
        )?,
    }
    writeln!(out, "\n{}", config.to_toml().trim_end())?;
    for path in missing(config) {
        writeln!(io::stderr(), "note: {path} is not there yet")?;
    }
    Ok(())
}

/// The files that a role would need and that are not there. A role names the one it misses; here is the whole list.
fn missing(config: &Config) -> Vec<String> {
    config
        .input_files()
        .filter(|path| !path.exists())
        .map(|path| path.display().to_string())
        .collect()
}
