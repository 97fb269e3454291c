//! One role from its configuration: what stands between a checked [`Config`](crate::config::Config) and a running sidecar, gateway
//! or development stack.

pub mod dev;
mod files;
mod gateway;
mod metrics;
mod run;
mod sidecar;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use self::{
    gateway::{GatewayRole, run_gateway},
    run::{Asked, Reread},
    sidecar::{SidecarRole, run_sidecar},
};
use crate::{
    certs::CertsError,
    config::{ConfigError, KeyError},
    gateway as gw,
    id::GatewayId,
    rpc::RpcError,
    sidecar as sc,
    store::StoreError,
    tls::TlsError,
};

/// Why a role did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RoleError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The sidecar did not start.
    #[error(transparent)]
    Sidecar(#[from] sc::StartError),
    /// The gateway did not start.
    #[error(transparent)]
    Gateway(#[from] gw::StartError),
    /// A certificate or key file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token keys cannot be used together.
    #[error(transparent)]
    Keys(#[from] sc::InvalidKeys),
    /// Development certificates cannot be made.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// The sidecar's URL cannot be used.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The demo world's thread cannot be made.
    #[error("cannot start the demo world's thread")]
    World(#[source] io::Error),
    /// The gateway's control certificate is not this gateway's: the sidecar would take it for who the certificate names.
    #[error("{} says that its holder is {names}, and gateway.id is {id}", .certificate.display())]
    OtherGateway {
        /// The certificate's file.
        certificate: PathBuf,
        /// Whom it names.
        names: String,
        /// The gateway's id.
        id: GatewayId,
    },
    /// This machine's address on the way to the sidecar is not to be found.
    #[error("cannot find the address to advertise; set gateway.advertise")]
    Advertise(#[source] io::Error),
    /// The address for metrics and health cannot be had.
    #[error("cannot listen on {address} for metrics and health")]
    Metrics {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another process of this gateway has attached to the sidecar, and takes the players from now on.
    #[error("another process of gateway {0} has attached to the sidecar and taken its place")]
    Fenced(GatewayId),
    /// The sidecar's store could not write down the last activity as it closed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was told to end at once.
    #[error("ended at once, with work under way")]
    Cut,
    /// A file or directory that the role keeps its state in cannot be written.
    #[error("cannot write {}", .path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the role's state cannot be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another development stack has the state directory.
    #[error("another development stack runs in {}", .0.display())]
    InUse(PathBuf),
    /// A gateway of the development stack was not attached in time.
    #[error("gateway {0} was not attached to the sidecar within 10 s; the log says why")]
    NotAttached(GatewayId),
}

impl RoleError {
    /// The error as a fixed label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Config(error) => error.label(),
            Self::Sidecar(error) => error.label(),
            Self::Gateway(error) => error.label(),
            Self::Tls(error) => error.label(),
            Self::Key(error) => error.label(),
            Self::Keys(error) => error.label(),
            Self::Certs(error) => error.label(),
            Self::Rpc(error) => error.label(),
            Self::OtherGateway { .. } => "other_gateway",
            Self::World(_) => "world",
            Self::Advertise(_) => "advertise",
            Self::Metrics { .. } => "metrics",
            Self::Fenced(_) => "fenced",
            Self::Store(error) => error.label(),
            Self::Cut => "cut",
            Self::State { .. } => "state",
            Self::Unreadable { .. } => "unreadable",
            Self::InUse(_) => "in_use",
            Self::NotAttached(_) => "not_attached",
        }
    }
}

/// Makes the directory that the file is to stand in, for its owner alone.
fn make_parent_directory(file: &Path) -> Result<(), RoleError> {
    // A file in the working directory has the parent "", which is there.
    match file.parent() {
        Some(parent) if parent != Path::new("") => make_private_directory(parent),
        _ => Ok(()),
    }
}

/// Makes the directory, with those above it, for its owner alone (mode 0700). One that is there stays as it is.
fn make_private_directory(path: &Path) -> Result<(), RoleError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| RoleError::State {
        path: path.to_owned(),
        source,
    })
}
