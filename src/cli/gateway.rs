//! `tickgate gateway`: a gateway with the demo world.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tickgate::{clock::Clock, config::Config, control, gateway::Simulation, rpc};
use tokio_util::sync::CancellationToken;

use super::{Global, failure::Failure, role};

/// Run a QUIC gateway with the demo world
#[derive(Debug, Args)]
#[command(
    long_about = "Runs a gateway: it admits game clients by connect token over QUIC, keeps their seats, verifies every seat on every tick of \
        the demo world, and closes the connection of whoever may not stay. A game of your own embeds the gateway as a library and \
        puts its own loop in the demo world's place.\n\n\
        It is attached to a sidecar over mutual TLS: from there come the keys that open connect tokens, and revocations. While the \
        sidecar is away those in play stay in play.\n\n\
        It reads [gateway], [seat] and [demo] of the configuration. It needs a control certificate that names it \
        (tickgate://gateway/<id>) and a QUIC certificate, which clients pin by its hash and which may therefore be self-made.",
    after_long_help = "Examples:\n  \
        tickgate gateway\n  \
        tickgate gateway --config /etc/tickgate.toml --log info,tickgate::gateway=debug\n\n\
        Before the first run:\n  \
        tickgate certs --gateway gateway-1     certificates for it; copy ca.pem and gateway-gateway-1* to its machine\n\n\
        What to do next: clients fetch a connect token from the sidecar, and with it this gateway's addresses. SIGINT or SIGTERM \
        ends it in good order."
)]
pub(super) struct Gateway {}

impl Gateway {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let Self {} = self;
        let config = global.config()?;
        let log = config.log.clone();
        role::run(&log, |cancel| start(config, cancel))
    }
}

/// Runs the gateway and the demo world until `cancel`.
async fn start(config: Config, cancel: CancellationToken) -> Result<(), Failure> {
    let clock = Clock::system();
    let url = config.gateway.control.sidecar.to_string();
    let channel = rpc::connect(&url, None, Some(config.control_tls()?)).map_err(Failure::usage)?;
    let (gateway, simulation) = tickgate::gateway::Gateway::start(
        config.gateway_role(clock.clone())?,
    )
    .map_err(|error| {
        Failure::runtime(error).advise("check [gateway] listen and who else uses that port")
    })?;
    tracing::info!(address = %gateway.local_addr(), sidecar = url, "the gateway listens");

    let hz = config.demo.tick_hz;
    let ended = cancel.clone();
    let world = tokio::task::spawn_blocking(move || play(simulation, hz, &ended));
    control::gateway::run(channel, gateway.host(), clock, cancel).await;
    world.await.context("the demo world failed")?;
    tokio::task::spawn_blocking(|| gateway.shutdown())
        .await
        .context("the gateway did not end in good order")?;
    Ok(())
}

/// Ticks the simulation `hz` times a second until `cancel`.
fn play(mut simulation: Simulation, hz: u32, cancel: &CancellationToken) {
    let clock = Clock::system();
    let period = Duration::from_secs(1) / hz.max(1);
    let mut due = clock.now();
    while !cancel.is_cancelled() {
        simulation.tick();
        due += period;
        std::thread::sleep(due.saturating_duration_since(clock.now()));
    }
}
