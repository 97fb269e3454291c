//! The development stack: a sidecar, a gateway with the demo world and a second, idle one, in one process on loopback.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{GatewayRole, RoleError, make_private_directory, start_sidecar};
use crate::{
    certs::{DevCerts, Layout},
    clock::Clock,
    config::{Config, SidecarUrl},
    id::GatewayId,
    sidecar::Sidecar,
};

/// How long the gateways may take to attach; on one machine it takes milliseconds.
const ATTACH_DEADLINE: Duration = Duration::from_secs(10);
/// The idle gateway's ticks a second: enough to be a gateway that would admit.
const IDLE_TICK_HZ: u32 = 10;

/// What a development stack is started with.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// Where it keeps certificates, keys, store and `dev.json`.
    pub state_dir: PathBuf,
    /// Whether the system chooses every port; else those of `config`.
    pub ephemeral_ports: bool,
    /// The configuration that lifetimes, limits, ports and the demo world come from; the stack's own addresses and files replace its.
    pub config: Config,
}

impl DevOptions {
    /// The default configuration, with its state in `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            ephemeral_ports: false,
            config: Config::default(),
        }
    }
}

/// What `dev.json` says: where everything listens, and the files to call it with.
#[derive(Debug, Serialize)]
struct DevJson {
    auth_url: String,
    admin_url: String,
    control_url: String,
    ca: PathBuf,
    backend_certificate: PathBuf,
    backend_key: PathBuf,
    admin_certificate: PathBuf,
    admin_key: PathBuf,
    gateways: Vec<DevGateway>,
    pid: u32,
}

#[derive(Debug, Serialize)]
struct DevGateway {
    id: String,
    address: String,
    /// Whether it plays the demo world for players; the other is there to have tokens of.
    demo: bool,
}

/// Runs the stack until `cancel`; writes `dev.json` into the state directory once everything listens and both gateways are
/// attached, and removes it at the end. Needs a multi-threaded tokio runtime.
///
/// # Errors
/// [`RoleError`] when it cannot start.
pub async fn run(options: DevOptions, cancel: CancellationToken) -> Result<(), RoleError> {
    let DevOptions {
        state_dir,
        ephemeral_ports,
        config,
    } = options;
    let written = state_dir.join("dev.json");
    make_private_directory(&state_dir)?;
    // Before anything in there is touched: all of it belongs to the stack that runs.
    let _lock = lock(&state_dir)?;
    // One that a killed stack left behind would lie until this one is up.
    remove(&written)?;

    let mut config = config.into_development(&state_dir, ephemeral_ports);
    let idle_id = idle_gateway_id(&config.gateway.id);
    let certs = Layout::new(state_dir.join("certs"));
    let gateways = [config.gateway.id.clone(), idle_id.clone()];
    if !certs.is_complete(&gateways, Clock::system().wall()) {
        DevCerts::generate(&gateways)?.replace_in(&state_dir.join("certs"))?;
    }

    let sidecar = start_sidecar(&config, Clock::system()).await?;
    config.gateway.control.sidecar = SidecarUrl::loopback(sidecar.addresses().control.port());
    let idle = idle_config(&config, &certs, idle_id);
    let stack = Stack {
        written: &written,
        certs: &certs,
        sidecar: &sidecar,
    };
    let outcome = with_gateways(&config, &idle, &stack, &cancel).await;
    if let Err(error) = sidecar.shutdown().await {
        tracing::error!(%error, "the store did not close well");
    }
    outcome
}

/// What the gateways find there.
struct Stack<'a> {
    written: &'a Path,
    certs: &'a Layout,
    sidecar: &'a Sidecar,
}

/// Runs both gateways until `cancel`, or until one of them cannot start; neither runs any more then.
async fn with_gateways(
    played: &Config,
    idle: &Config,
    stack: &Stack<'_>,
    cancel: &CancellationToken,
) -> Result<(), RoleError> {
    let played = GatewayRole::start(played, Clock::system())?;
    let idle = match GatewayRole::start(idle, Clock::system()) {
        Ok(idle) => idle,
        Err(error) => {
            played.shutdown().await;
            return Err(error);
        }
    };
    let outcome = announce(&played, &idle, stack, cancel).await;
    tokio::join!(played.shutdown(), idle.shutdown());
    outcome
}

/// Waits until both gateways are attached, and says in `dev.json` where everything is until `cancel`.
async fn announce(
    played: &GatewayRole,
    idle: &GatewayRole,
    stack: &Stack<'_>,
    cancel: &CancellationToken,
) -> Result<(), RoleError> {
    for gateway in [played, idle] {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            attached = attached(gateway) => attached?,
        }
    }
    let &Stack {
        written,
        certs,
        sidecar,
    } = stack;
    write_json(written, &describe(sidecar, certs, played, idle))?;
    tracing::info!(dev_json = %written.display(), "the development stack is up");
    cancel.cancelled().await;
    remove(written)
}

fn idle_gateway_id(played: &GatewayId) -> GatewayId {
    // "gateway-2-quic" would share files with it.
    let idle = if played.as_str().starts_with("gateway-2") {
        "gateway-1"
    } else {
        "gateway-2"
    };
    // Both are valid ids; the fallback is never taken.
    idle.parse().unwrap_or_else(|_| played.clone())
}

/// The idle gateway's: another id, its own certificates, the next port.
fn idle_config(config: &Config, certs: &Layout, id: GatewayId) -> Config {
    let mut idle = config.clone();
    let gateway = &mut idle.gateway;
    let (to_sidecar, to_players) = (certs.gateway(&id), certs.gateway_quic(&id));
    gateway.id = id;
    gateway.control.certificate = to_sidecar.certificate;
    gateway.control.key = to_sidecar.key;
    gateway.certificate = to_players.certificate;
    gateway.key = to_players.key;
    let port = gateway.listen.port();
    gateway
        .listen
        .set_port(if port == 0 { 0 } else { port.wrapping_add(1) });
    idle.demo.tick_hz = IDLE_TICK_HZ;
    idle
}

async fn attached(role: &GatewayRole) -> Result<(), RoleError> {
    let mut attached = role.gateway().watch_attached();
    let up = attached.wait_for(|attached| *attached);
    match tokio::time::timeout(ATTACH_DEADLINE, up).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(RoleError::NotAttached(role.gateway().id().clone())),
    }
}

fn describe(
    sidecar: &Sidecar,
    certs: &Layout,
    played: &GatewayRole,
    idle: &GatewayRole,
) -> DevJson {
    let addresses = sidecar.addresses();
    let (backend, admin) = (certs.backend(), certs.admin());
    let gateway = |role: &GatewayRole, demo| DevGateway {
        id: role.gateway().id().to_string(),
        address: role.gateway().local_addr().to_string(),
        demo,
    };
    DevJson {
        auth_url: format!("https://{}", addresses.auth),
        admin_url: format!("https://{}", addresses.admin),
        control_url: format!("https://{}", addresses.control),
        ca: absolute(certs.ca()),
        backend_certificate: absolute(backend.certificate),
        backend_key: absolute(backend.key),
        admin_certificate: absolute(admin.certificate),
        admin_key: absolute(admin.key),
        gateways: vec![gateway(played, true), gateway(idle, false)],
        pid: std::process::id(),
    }
}

/// `dev.json` is read from other directories too.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Takes the state directory for this stack alone, until the file is dropped or the process is gone.
fn lock(state_dir: &Path) -> Result<File, RoleError> {
    let path = state_dir.join("dev.lock");
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

fn remove(path: &Path) -> Result<(), RoleError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RoleError::State {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Writes the file whole or not at all: whoever waits for it reads it at once.
fn write_json(path: &Path, json: &DevJson) -> Result<(), RoleError> {
    let state = |source| RoleError::State {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_string_pretty(json).map_err(|error| state(error.into()))?;
    let unfinished = path.with_extension("json.tmp");
    fs::write(&unfinished, text + "\n").map_err(state)?;
    fs::rename(&unfinished, path).map_err(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack that does not come up lets go of everything: the next one finds its directory, ports and store free.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_stack_that_does_not_come_up_ends_in_good_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = DevOptions::new(directory.path());
        options.ephemeral_ports = true;
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        for id in ["gateway-1", "eu-1", "gateway-1"] {
            options.config.gateway.id = id.parse().unwrap();
            run(options.clone(), cancelled.clone()).await.unwrap();
        }

        // The port after the highest one cannot be had by the idle gateway, when the played one runs already.
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut fixed = options.clone();
        fixed.ephemeral_ports = false;
        let sidecar = &mut fixed.config.sidecar;
        for listen in [
            &mut sidecar.auth_listen,
            &mut sidecar.control_listen,
            &mut sidecar.admin_listen,
        ] {
            listen.set_port(0);
        }
        let before = taken.local_addr().unwrap().port() - 1;
        fixed.config.gateway.listen.set_port(before);
        let refused = run(fixed, CancellationToken::new()).await.unwrap_err();
        assert_eq!(refused.label(), "bind");
        run(options, cancelled).await.unwrap();
        assert!(!directory.path().join("dev.json").exists());
    }
}
