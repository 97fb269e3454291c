//! `dev.json`: where everything of a development stack listens, and the files to call it with.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::super::{GatewayRole, RoleError, SidecarRole};
use crate::certs::Layout;

/// What `dev.json` says. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevJson {
    /// `AuthService`.
    pub auth_url: String,
    /// `AdminService`.
    pub admin_url: String,
    /// `ControlService`.
    pub control_url: String,
    /// The sidecar's metrics and health, without the path; none if they are switched off.
    pub sidecar_metrics_url: Option<String>,
    /// Who signed the sidecar's certificate, PEM.
    pub ca: PathBuf,
    /// The certificate of the game's backend, PEM.
    pub backend_certificate: PathBuf,
    /// Its private key, PEM.
    pub backend_key: PathBuf,
    /// An operator's certificate, PEM.
    pub admin_certificate: PathBuf,
    /// Its private key, PEM.
    pub admin_key: PathBuf,
    /// The gateways.
    pub gateways: Vec<DevGateway>,
    /// The stack's process.
    pub pid: u32,
}

/// A gateway of a development stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevGateway {
    /// Its id.
    pub id: String,
    /// Where it listens for clients (UDP).
    pub address: String,
    /// Its metrics and health, without the path; none if they are switched off.
    pub metrics_url: Option<String>,
    /// Whether it plays the demo world for players; the other is there to have tokens of.
    pub demo: bool,
}

impl DevJson {
    /// What the stack that runs with its state in `state_dir` says; none if there is none that runs, or that is not up yet.
    ///
    /// # Errors
    /// [`RoleError::Unreadable`] when a stack runs there and what it says cannot be read.
    pub fn of_running(state_dir: &Path) -> Result<Option<Self>, RoleError> {
        let path = path_in(state_dir);
        let state = |source| RoleError::Unreadable {
            path: path.clone(),
            source,
        };
        // Without the lock nobody runs there: what a killed stack has left behind says nothing.
        match is_locked(state_dir) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(state(error)),
        }
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| state(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(state(error)),
        }
    }

    pub(super) fn of(
        sidecar: &SidecarRole,
        certs: &Layout,
        played: &GatewayRole,
        idle: &GatewayRole,
    ) -> Self {
        let addresses = sidecar.sidecar().addresses();
        let (backend, admin) = (certs.backend(), certs.admin());
        let metrics_url = |address: Option<std::net::SocketAddr>| {
            address.map(|address| format!("http://{address}"))
        };
        let gateway = |role: &GatewayRole, demo| DevGateway {
            id: role.gateway().id().to_string(),
            address: role.gateway().local_addr().to_string(),
            metrics_url: metrics_url(role.metrics()),
            demo,
        };
        Self {
            auth_url: format!("https://{}", addresses.auth),
            admin_url: format!("https://{}", addresses.admin),
            control_url: format!("https://{}", addresses.control),
            sidecar_metrics_url: metrics_url(sidecar.metrics()),
            ca: absolute(certs.ca()),
            backend_certificate: absolute(backend.certificate),
            backend_key: absolute(backend.key),
            admin_certificate: absolute(admin.certificate),
            admin_key: absolute(admin.key),
            gateways: vec![gateway(played, true), gateway(idle, false)],
            pid: std::process::id(),
        }
    }

    /// Writes the file whole or not at all: whoever waits for it reads it at once.
    pub(super) fn write(&self, state_dir: &Path) -> Result<PathBuf, RoleError> {
        let path = path_in(state_dir);
        let state = |source| RoleError::State {
            path: path.clone(),
            source,
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| state(error.into()))?;
        let unfinished = path.with_extension("json.tmp");
        fs::write(&unfinished, text + "\n").map_err(state)?;
        fs::rename(&unfinished, &path).map_err(state)?;
        Ok(path)
    }
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("dev.json")
}

/// `dev.json` is read from other directories too.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Removes what the last stack has said, if it is there.
pub(super) fn remove(state_dir: &Path) -> Result<(), RoleError> {
    let path = path_in(state_dir);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RoleError::State { path, source })
        }
        _ => Ok(()),
    }
}

const LOCK: &str = "dev.lock";

/// Takes the state directory for this stack alone, until the file is dropped or the process is gone.
pub(super) fn lock(state_dir: &Path) -> Result<File, RoleError> {
    let path = state_dir.join(LOCK);
    let state = |source| RoleError::State {
        path: path.clone(),
        source,
    };
    let file = File::create(&path).map_err(state)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RoleError::InUse(state_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(state(source)),
    }
}

/// Whether a stack has the directory. A shared lock, so that two that look at the same moment do not see each other.
fn is_locked(state_dir: &Path) -> io::Result<bool> {
    match File::open(state_dir.join(LOCK))?.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
