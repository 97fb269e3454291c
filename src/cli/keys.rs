//! `tickgate keys`: makes the sidecar's secret keys.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use tickgate::{
    config::write_key_file,
    token::{KeyId, LoginKey, RefreshKey, SessionKey, TransportMasterKey},
};
use zeroize::Zeroizing;

use super::{
    Global,
    failure::Failure,
    rotation::{List, Retire, Rotate},
};

/// Make, rotate and retire the secret keys that tokens are sealed with
#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(Generate),
    Rotate(Rotate),
    Retire(Retire),
    List(List),
}

/// Make a new key
#[derive(Debug, Args)]
#[command(
    long_about = "Makes a new key of 32 random bytes and writes it as PASERK text (k4.local.…): to standard output, or to a file that \
        its owner alone can read (mode 0600). An existing file is never overwritten. The key's id (k4.lid.…), which is no secret \
        and stands in every token, goes to standard error.\n\n\
        A sidecar needs four keys, and refuses to start when two are the same. The session key seals session tokens, the refresh \
        key refresh tokens; the transport key is the master from which every gateway process is given a key of its own for connect \
        tokens; under the login key the store knows codes and links that were mailed, and nothing that opens anything. Gateways need \
        none of them in a file.",
    after_long_help = "Examples:\n  \
        tickgate keys generate session --out certs/session.key\n  \
        tickgate keys generate refresh --out certs/refresh.key\n  \
        tickgate keys generate transport --out certs/transport.key\n  \
        tickgate keys generate login --out certs/login.key\n  \
        export SESSION_KEY=$(tickgate keys generate session)\n\n\
        What to do next: name the file or the environment variable in config.toml, [sidecar] session_key, refresh_key, \
        transport_key and login_key. `tickgate keys rotate` changes one for a new one while everything runs. `tickgate dev` needs none of this: it makes its own."
)]
struct Generate {
    /// What the key is for
    #[arg(value_enum, default_value_t = For::Session)]
    purpose: For,

    /// Write the key to this new file, not to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum For {
    /// Seals session tokens
    Session,
    /// Seals refresh tokens
    Refresh,
    /// Master of the keys for connect tokens
    Transport,
    /// Hashes the codes and links that the store knows
    Login,
}

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::Refresh => "refresh",
            Self::Transport => "transport",
            Self::Login => "login",
        })
    }
}

impl For {
    fn generate(self) -> (Zeroizing<String>, KeyId) {
        match self {
            Self::Session => {
                let key = SessionKey::generate();
                (key.to_paserk(), key.id())
            }
            Self::Refresh => {
                let key = RefreshKey::generate();
                (key.to_paserk(), key.id())
            }
            Self::Transport => {
                let key = TransportMasterKey::generate();
                (key.to_paserk(), key.id())
            }
            Self::Login => {
                let key = LoginKey::generate();
                (key.to_paserk(), key.id())
            }
        }
    }
}

impl Keys {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        match self.command {
            Command::Generate(generate) => generate.run(),
            Command::Rotate(rotate) => rotate.run(global),
            Command::Retire(retire) => retire.run(global),
            Command::List(list) => list.run(global),
        }
    }
}

impl Generate {
    fn run(self) -> Result<(), Failure> {
        let Self { purpose, out } = self;
        let (paserk, id) = purpose.generate();
        match &out {
            Some(path) => {
                write_key_file(path, &paserk).map_err(|error| not_written(path, error))?;
                writeln!(
                    io::stderr(),
                    "{purpose} key {id} written to {}",
                    path.display()
                )?;
            }
            None => {
                writeln!(io::stdout(), "{}", *paserk)?;
                writeln!(io::stderr(), "{purpose} key {id}")?;
            }
        }
        Ok(())
    }
}

fn not_written(path: &Path, error: io::Error) -> Failure {
    let exists = error.kind() == io::ErrorKind::AlreadyExists;
    let error =
        anyhow::Error::new(error).context(format!("no key was written to {}", path.display()));
    if exists {
        Failure::usage(error).advise(
            "choose another file, or move the old key away first: every token under it dies with it",
        )
    } else {
        Failure::runtime(error).advise("check the path and who may write there")
    }
}
