//! What the examples of a game server stand on: a sidecar on loopback with certificates made on the spot, and a `dev.json` by which
//! the examples of a client find their way in. In a deployment `tickgate sidecar` runs elsewhere, and `tickgate certs` or a
//! certificate authority of your own makes the files.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each example uses its part of this"
)]

use std::{fs, num::NonZeroU32, path::PathBuf, thread};

use tickgate::{
    certs::{DEV_SERVER_NAME, DevCerts, Layout},
    clock::Clock,
    config::Config,
    control,
    gateway::{Gateway, GatewayConfig, Simulation},
    id::GatewayId,
    role::{
        SidecarRole,
        dev::{DevGateway, DevJson},
    },
    rpc::{self, Channel},
    tls,
};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

/// A running sidecar, and the files of one gateway that it knows.
pub struct Stack {
    sidecar: SidecarRole,
    folder: PathBuf,
    files: Layout,
    id: GatewayId,
}

impl Stack {
    /// Starts a sidecar that keeps everything in `folder`, and makes the certificates of gateway `id`.
    pub async fn start(folder: PathBuf, id: &str) -> anyhow::Result<Self> {
        let (id, files) = (id.parse()?, Layout::new(folder.join("certs")));
        fs::create_dir_all(&folder)?;
        DevCerts::generate(std::slice::from_ref(&id))?.replace_in(&folder.join("certs"))?;
        let config = Config::default().into_development(&folder, true);
        let sidecar = SidecarRole::start(&config, Clock::system()).await?;
        Ok(Self {
            sidecar,
            folder,
            files,
            id,
        })
    }

    /// The gateway on a port of the system's choice.
    pub fn gateway_config(&self) -> anyhow::Result<GatewayConfig> {
        let identity = self.files.gateway_quic(&self.id).load()?;
        let mut config = GatewayConfig::new(self.id.clone(), ([127, 0, 0, 1], 0).into(), identity);
        config.server_name = DEV_SERVER_NAME.to_owned();
        Ok(config)
    }

    /// The way to the sidecar, with the gateway's certificate.
    pub fn channel(&self) -> anyhow::Result<Channel> {
        let ca = tls::load_certificates(&self.files.ca())?;
        let tls = tls::rpc_client_config(&ca, Some(&self.files.gateway(&self.id).load()?))?;
        let sidecar = self.sidecar.sidecar().addresses().control;
        Ok(rpc::connect(
            &format!("https://{sidecar}"),
            None,
            Some(tls),
        )?)
    }

    /// Waits until the gateway is attached, and writes where everything is: give the path to the example `bot`.
    pub async fn announce(&self, gateway: &Gateway) -> anyhow::Result<PathBuf> {
        gateway
            .watch_attached()
            .wait_for(|is_attached| *is_attached)
            .await?;
        let addresses = self.sidecar.sidecar().addresses();
        let (backend, admin) = (self.files.backend(), self.files.admin());
        let told = DevJson {
            auth_url: format!("https://{}", addresses.auth),
            admin_url: format!("https://{}", addresses.admin),
            control_url: format!("https://{}", addresses.control),
            sidecar_metrics_url: self
                .sidecar
                .metrics()
                .map(|address| format!("http://{address}")),
            ca: std::path::absolute(self.files.ca())?,
            backend_certificate: std::path::absolute(backend.certificate)?,
            backend_key: std::path::absolute(backend.key)?,
            admin_certificate: std::path::absolute(admin.certificate)?,
            admin_key: std::path::absolute(admin.key)?,
            gateways: vec![DevGateway {
                id: self.id.to_string(),
                address: gateway.local_addr().to_string(),
                metrics_url: None,
                demo: true,
            }],
            pid: std::process::id(),
        };
        let path = self.folder.join("dev.json");
        fs::write(&path, serde_json::to_string_pretty(&told)?)?;
        Ok(path)
    }

    /// Closes the store.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.sidecar.shutdown().await?)
    }
}

/// A game server: a gateway on a stack of its own, and a game on a thread of its own, which gives a `T` when it is over.
pub struct Server<T> {
    /// For the example `bot`.
    pub dev_json: PathBuf,
    stack: Stack,
    gateway: Gateway,
    control: JoinHandle<control::gateway::Ended>,
    game: thread::JoinHandle<T>,
    stop: CancellationToken,
}

impl<T: Send + 'static> Server<T> {
    /// Starts everything, in `folder`; `game` ticks at `rate` until it is told to stop. Players may come when this returns.
    pub async fn start(
        folder: PathBuf,
        rate: NonZeroU32,
        game: impl FnOnce(Simulation, &CancellationToken) -> T + Send + 'static,
    ) -> anyhow::Result<Self> {
        let stack = Stack::start(folder, "game").await?;
        let (gateway, simulation) = Gateway::start(stack.gateway_config()?.ticking_at(rate))?;
        let stop = CancellationToken::new();
        let control = control::gateway::run(
            stack.channel()?,
            gateway.host(),
            Clock::system(),
            stop.clone(),
        );
        let control = tokio::spawn(control);
        let stopped = stop.clone();
        let game = thread::spawn(move || game(simulation, &stopped));
        let dev_json = stack.announce(&gateway).await?;
        Ok(Self {
            dev_json,
            stack,
            gateway,
            control,
            game,
            stop,
        })
    }

    /// Closes all connections, ends the game, and returns what it gives.
    pub async fn stop(self) -> anyhow::Result<T> {
        spawn_blocking(move || self.gateway.shutdown()).await?;
        self.stop.cancel();
        let _ = self.control.await?;
        let outcome = spawn_blocking(move || self.game.join()).await?;
        self.stack.stop().await?;
        outcome.map_err(|_| anyhow::anyhow!("the game has panicked"))
    }
}
