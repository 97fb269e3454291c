//! How the program fails: an exit code, the chain of causes, and what to do.

use std::{fmt, io, process::ExitCode};

use tickgate::{
    config::{ConfigError, KeyError},
    gateway,
    role::RoleError,
    sidecar,
};

/// The exit codes that some failures have to themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// The gateway was fenced off.
    Fenced = 3,
    /// The sidecar knows nothing of that name.
    NotFound = 4,
    /// Revoked, or published, but not every gateway or sidecar has acknowledged it in time.
    NotAcknowledged = 5,
    /// A key is to be retired under which there still may be tokens.
    TooEarly = 6,
}

/// Why a subcommand failed, as it is told on standard error.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    error: anyhow::Error,
    advice: Option<String>,
}

impl Failure {
    /// It failed while running: exit code 1.
    pub(super) fn runtime(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: 1,
            error: error.into(),
            advice: None,
        }
    }

    /// What was asked for cannot be done: exit code 2.
    pub(super) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: 2,
            ..Self::runtime(error)
        }
    }

    /// It failed in a way that a script may want to tell apart: one of the exit codes above 2.
    pub(super) fn with_code(self, code: Exit) -> Self {
        Self {
            code: code as u8,
            ..self
        }
    }

    /// Says what to do about it.
    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    /// Whether the reader of our output has gone, as `head` does: nothing that anybody needs to be told.
    pub(super) fn is_reader_gone(&self) -> bool {
        let error = self.error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        self.code.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.error.to_string();
        write!(f, "error: {told}")?;
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            // Some errors tell their cause in their own words already.
            if !told.contains(&cause) {
                write!(f, "\n  because: {cause}")?;
                told = cause;
            }
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n  what to do: {advice}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::runtime(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::runtime(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let advice = match &error {
            ConfigError::Unreadable { .. } => {
                "say where the configuration is with --config PATH, or leave it out to run with the defaults"
            }
            _ => "mend the lines named above; `tickgate check-config` says when all is well",
        };
        Self::usage(error).advise(advice)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let advice = match &error {
            KeyError::Missing { purpose, place } => match place.file() {
                Some(path) => format!(
                    "make it with `tickgate keys generate {purpose} --out {}`, or copy it from the other sidecars",
                    path.display()
                ),
                None => format!(
                    "set the variable to a key as `tickgate keys generate {purpose}` prints it"
                ),
            },
            KeyError::Invalid { purpose, .. } => format!(
                "put a key there as `tickgate keys generate {purpose}` prints it: one line that starts with k4.local."
            ),
            KeyError::Unreadable { .. }
            | KeyError::NotWritten { .. }
            | KeyError::Password { .. } => {
                "check the path and who may read and write there".to_owned()
            }
            _ => "make another key with `tickgate keys generate` for one of them".to_owned(),
        };
        Self::usage(error).advise(advice)
    }
}

impl From<RoleError> for Failure {
    fn from(error: RoleError) -> Self {
        match error {
            RoleError::Config(error) => error.into(),
            RoleError::Key(error) => error.into(),
            RoleError::Sidecar(error) => error.into(),
            RoleError::Gateway(error) => error.into(),
            RoleError::Tls(_) => Self::usage(error).advise(CERTIFICATES),
            RoleError::OtherGateway { .. } => Self::usage(error).advise(
                "name that gateway's certificate in [gateway.control] certificate and key, or set [gateway] id to what it says; \
                `tickgate certs --gateway ID` makes one for development",
            ),
            RoleError::Rpc(_) | RoleError::Advertise(_) => {
                Self::usage(error).advise("mend [gateway] advertise and [gateway.control] sidecar")
            }
            RoleError::State { .. } | RoleError::Certs(_) => Self::runtime(error)
                .advise(
                    "check who may write there, or choose another directory: [sidecar] store for a sidecar, --state-dir for `tickgate dev`",
                ),
            RoleError::Metrics { .. } => Self::runtime(error).advise(TAKEN),
            RoleError::Fenced(_) => Self::runtime(error).with_code(Exit::Fenced).advise(
                "nothing, if that one is meant to run; else give every gateway an id and a control certificate of its own",
            ),
            RoleError::InUse(_) => Self::runtime(error)
                .advise("use that one (dev.json in there says where it listens), end it, or choose another --state-dir"),
            RoleError::NotAttached(_) => Self::runtime(error).advise(
                "look for the lines of tickgate::control in the log; --log debug says more",
            ),
            _ => Self::runtime(error),
        }
    }
}

const CERTIFICATES: &str = "name the right files in the configuration; `tickgate check-config` says which are missing, and \
    `tickgate certs` makes them for development";
const TAKEN: &str = "another process has that address, or it is none of this machine's: end the other one, or choose another address in the configuration";

impl From<sidecar::StartError> for Failure {
    fn from(error: sidecar::StartError) -> Self {
        use sidecar::StartError;
        match error {
            StartError::Tls(_) => Self::usage(error).advise(CERTIFICATES),
            StartError::Bind { .. } => Self::runtime(error).advise(TAKEN),
            StartError::Store(_) => Self::runtime(error)
                .advise("check the path in [sidecar] store, who may write there, and that no other sidecar has it open"),
            _ => Self::usage(error).advise("mend [session] and [sidecar] of the configuration"),
        }
    }
}

impl From<gateway::StartError> for Failure {
    fn from(error: gateway::StartError) -> Self {
        use gateway::StartError;
        match error {
            StartError::Tls(_) => Self::usage(error).advise(CERTIFICATES),
            StartError::Bind { .. } => Self::runtime(error).advise(TAKEN),
            _ => Self::runtime(error),
        }
    }
}
