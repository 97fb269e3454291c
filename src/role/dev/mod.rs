//! The development stack: a sidecar, a gateway with the demo world and a second, idle one, in one process on loopback.

mod json;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

pub use self::json::{DevGateway, DevJson};
use super::{
    Asked, GatewayRole, Reread, RoleError, SidecarRole, files::Files, make_private_directory,
    run::Changeable, sidecar,
};
use crate::{
    certs::{DevCerts, Layout},
    clock::Clock,
    config::{Config, ConfigError, SidecarUrl},
    id::GatewayId,
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

/// Runs the stack until `cancel`; writes `dev.json` ([`DevJson`]) into the state directory once everything listens and both gateways
/// are attached, and removes it at the end. Needs a multi-threaded tokio runtime.
///
/// # Errors
/// [`RoleError`] when it cannot start.
pub async fn run(options: DevOptions, cancel: CancellationToken) -> Result<(), RoleError> {
    struct Never;
    impl Reread for Never {
        fn read(&self) -> Result<Config, ConfigError> {
            Ok(Config::default())
        }
        fn set_log_filter(&self, _: &str) {}
    }
    // Nobody asks it to read anything again.
    let asked = Asked {
        stop: cancel,
        ..Asked::default()
    };
    run_asked(options, &asked, &Never).await
}

/// Runs the stack as [`run`] does, and heeds what it is asked meanwhile. It ends at once when it is asked to end: whoever plays on a
/// developer's machine can do without a drain.
///
/// # Errors
/// [`RoleError`] when it cannot start.
pub async fn run_asked(
    options: DevOptions,
    asked: &Asked,
    reread: &dyn Reread,
) -> Result<(), RoleError> {
    let DevOptions {
        state_dir,
        ephemeral_ports,
        config,
    } = options;
    make_private_directory(&state_dir)?;
    // Before anything in there is touched: all of it belongs to the stack that runs.
    let _lock = json::lock(&state_dir)?;
    // One that a killed stack left behind would lie until this one is up.
    json::remove(&state_dir)?;

    let mut config = config.into_development(&state_dir, ephemeral_ports);
    let idle_id = idle_gateway_id(&config.gateway.id);
    let certs = Layout::new(state_dir.join("certs"));
    let gateways = [config.gateway.id.clone(), idle_id.clone()];
    if !certs.is_complete(&gateways, Clock::system().wall()) {
        DevCerts::generate(&gateways)?.replace_in(&state_dir.join("certs"))?;
    }

    // Keys that are not there yet are made before the watch begins, and the watch before they are loaded: a change in between counts.
    drop(config.sidecar.load_keys()?);
    let files = Files::watch(sidecar::watched(&config));
    let sidecar = SidecarRole::start(&config, Clock::system()).await?;
    let control = sidecar.sidecar().addresses().control;
    config.gateway.control.sidecar = SidecarUrl::loopback(control.port());
    let idle = idle_config(&config, &state_dir, &certs, idle_id);
    let mut stack = Stack {
        state_dir: &state_dir,
        ephemeral_ports,
        certs: &certs,
        sidecar: &sidecar,
        files,
        config,
    };
    let outcome = stack.with_gateways(&idle, asked, reread).await;
    if let Err(error) = sidecar.shutdown().await {
        tracing::error!(%error, "the store did not close well");
    }
    outcome
}

/// What a development stack changes while it runs: what its roles do.
const CHANGEABLE: Changeable = Changeable {
    of_others: &[],
    keys: &[],
};

/// What the gateways find there.
struct Stack<'a> {
    state_dir: &'a Path,
    ephemeral_ports: bool,
    certs: &'a Layout,
    sidecar: &'a SidecarRole,
    /// The sidecar's, since before it has loaded them.
    files: Files,
    /// In force, with the stack's own addresses and files.
    config: Config,
}

impl Stack<'_> {
    /// Runs both gateways until it is asked to end, or until one of them cannot start; neither runs any more then.
    async fn with_gateways(
        &mut self,
        idle: &Config,
        asked: &Asked,
        reread: &dyn Reread,
    ) -> Result<(), RoleError> {
        let played = GatewayRole::start(&self.config, Clock::system())?;
        let idle = match GatewayRole::start(idle, Clock::system()) {
            Ok(idle) => idle,
            Err(error) => {
                played.shutdown().await;
                return Err(error);
            }
        };
        let outcome = self.announce(&played, &idle, asked, reread).await;
        tokio::join!(played.shutdown(), idle.shutdown());
        outcome
    }

    /// Waits until both gateways are attached, and says in `dev.json` where everything is until it is asked to end.
    async fn announce(
        &mut self,
        played: &GatewayRole,
        idle: &GatewayRole,
        asked: &Asked,
        reread: &dyn Reread,
    ) -> Result<(), RoleError> {
        for gateway in [played, idle] {
            tokio::select! {
                biased;
                () = asked.stop.cancelled() => return Ok(()),
                attached = attached(gateway) => attached?,
            }
        }
        let told = DevJson::of(self.sidecar, self.certs, played, idle);
        let written = told.write(self.state_dir)?;
        tracing::info!(dev_json = %written.display(), "the development stack is up");
        loop {
            tokio::select! {
                biased;
                () = asked.stop.cancelled() => break,
                () = asked.reload.notified() => self.reload(played, reread),
                changed = self.files.changed() => {
                    self.sidecar.reload_changed(changed, &self.config);
                }
            }
        }
        json::remove(self.state_dir)
    }

    /// Its certificates are where they always are: what is in these files now is what counts.
    fn reload(&mut self, played: &GatewayRole, reread: &dyn Reread) {
        let development = Development {
            reread,
            state_dir: self.state_dir,
            ephemeral_ports: self.ephemeral_ports,
            control: self.config.gateway.control.sidecar.clone(),
        };
        let sidecar = self.sidecar;
        CHANGEABLE.reload(&mut self.config, &development, |new| {
            sidecar.reload(new)?;
            played.reload(new)
        });
    }
}

/// A configuration that is read again, as a development stack runs it.
struct Development<'a> {
    reread: &'a dyn Reread,
    state_dir: &'a Path,
    ephemeral_ports: bool,
    /// Where the sidecar's control listener is, which no configuration knows.
    control: SidecarUrl,
}

impl Reread for Development<'_> {
    fn read(&self) -> Result<Config, ConfigError> {
        let config = self.reread.read()?;
        let mut config = config.into_development(self.state_dir, self.ephemeral_ports);
        config.gateway.control.sidecar = self.control.clone();
        Ok(config)
    }

    fn set_log_filter(&self, filter: &str) {
        self.reread.set_log_filter(filter);
    }
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
fn idle_config(config: &Config, state_dir: &Path, certs: &Layout, id: GatewayId) -> Config {
    let mut idle = config.clone();
    let gateway = &mut idle.gateway;
    let (to_sidecar, to_players) = (certs.gateway(&id), certs.gateway_quic(&id));
    gateway.state = Some(state_dir.join(format!("{id}.state")));
    gateway.id = id;
    gateway.control.certificate = to_sidecar.certificate;
    gateway.control.key = to_sidecar.key;
    gateway.certificate = to_players.certificate;
    gateway.key = to_players.key;
    for address in [Some(&mut gateway.listen), gateway.metrics_listen.as_mut()]
        .into_iter()
        .flatten()
    {
        let port = address.port();
        address.set_port(if port == 0 { 0 } else { port.wrapping_add(1) });
    }
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
        sidecar.metrics_listen = None;
        fixed.config.gateway.metrics_listen = None;
        let before = taken.local_addr().unwrap().port() - 1;
        fixed.config.gateway.listen.set_port(before);
        let refused = run(fixed, CancellationToken::new()).await.unwrap_err();
        assert_eq!(refused.label(), "bind");
        run(options, cancelled).await.unwrap();
        assert!(!directory.path().join("dev.json").exists());
    }
}
