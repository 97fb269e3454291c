//! The command line: one subcommand a file.

mod certs;
mod check_config;
mod dev;
mod explain;
mod failure;
mod gateway;
mod gateways;
mod keys;
mod line;
mod logging;
mod role;
mod rotation;
mod sessions;
mod sidecar;
mod table;
mod token;
mod when;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use tickgate::config::{Config, ConfigError, DEFAULT_PATH};

/// A session gateway for real-time games over QUIC.
#[derive(Debug, Parser)]
#[command(
    name = "tickgate",
    version,
    long_about = "A session gateway for real-time games over QUIC.\n\n\
        It answers two questions for a game server: may this client in (once, on the handshake), and may it stay (every tick, \
        for every player). Players log in at the sidecar, which hands out single-use connect tokens; with one of those a client \
        connects to a gateway, and sits there until it leaves or its session ends.",
    after_long_help = "Start here:\n  \
        tickgate dev                     the whole stack on this machine, nothing to set up\n\n\
        A deployment, step by step:\n  \
        tickgate certs                   development certificates into certs/\n  \
        tickgate keys generate session --out certs/session.key\n  \
        tickgate keys generate refresh --out certs/refresh.key\n  \
        tickgate keys generate transport --out certs/transport.key\n  \
        tickgate keys generate login --out certs/login.key\n  \
        tickgate check-config            is config.toml fine?\n  \
        tickgate sidecar                 the authority\n  \
        tickgate gateway                 a gateway, on each game machine\n\n\
        Operating it:\n  \
        tickgate gateways list           who is attached, how full; `drain` empties one\n  \
        tickgate sessions list           who is logged in, and where they play; `revoke` ends a session\n  \
        tickgate explain PLAYER          why a player was refused, was removed, or is in\n  \
        tickgate token inspect -         what a token is and claims\n  \
        tickgate keys rotate transport   a new key while everything runs; `retire` drops the old one, `list` shows both\n\n\
        The operators' commands find the sidecar by one rule: what you name counts (--admin URL with --ca, --cert and --key, or \
        --state-dir, or --config); if you name nothing, the development stack that runs in ./.tickgate, or else ./config.toml.\n\n\
        Exit codes: 0 all went well, 1 it failed while running, 2 wrong arguments or configuration, 3 the gateway was fenced off, \
        4 no such session, player or gateway, 5 revoked or published but not acknowledged by everybody in time, 6 too early to retire a key."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Sidecar(sidecar::Sidecar),
    Gateway(gateway::Gateway),
    Certs(certs::Certs),
    Keys(keys::Keys),
    Token(token::Token),
    Sessions(sessions::Sessions),
    Gateways(gateways::Gateways),
    Explain(explain::Explain),
    CheckConfig(check_config::CheckConfig),
}

/// What every subcommand understands.
#[derive(Debug, Args)]
struct Global {
    /// The configuration file [default: ./config.toml if it is there, else every key has its default]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,

    /// What is logged to standard error, in place of the configuration's [log] filter; such as "debug" or
    /// "info,tickgate::gateway=trace"
    #[arg(long, global = true, value_name = "FILTER", value_parser = logging::filter)]
    log: Option<String>,
}

impl Global {
    /// Which file the configuration comes from; none where the defaults do.
    fn config_path(&self) -> Option<&Path> {
        let default = Path::new(DEFAULT_PATH);
        self.config
            .as_deref()
            .or_else(|| default.exists().then_some(default))
    }

    /// The configuration, with what the command line puts in its place.
    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = match self.config_path() {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        if let Some(filter) = &self.log {
            config.log.filter.clone_from(filter);
        }
        Ok(config)
    }
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let outcome = match command {
        Command::Dev(dev) => dev.run(&global),
        Command::Sidecar(sidecar) => sidecar.run(&global),
        Command::Gateway(gateway) => gateway.run(&global),
        Command::Certs(certs) => certs.run(),
        Command::Keys(keys) => keys.run(&global),
        Command::Token(token) => token.run(&global),
        Command::Sessions(sessions) => sessions.run(&global),
        Command::Gateways(gateways) => gateways.run(&global),
        Command::Explain(explain) => explain.run(&global),
        Command::CheckConfig(check) => check.run(&global),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_reader_gone() => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
