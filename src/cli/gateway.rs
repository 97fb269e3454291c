//! `tickgate gateway`: a gateway with the demo world.

use clap::Args;
use tickgate::{clock::Clock, config::Config, role::GatewayRole};
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
    let gateway = GatewayRole::start(&config, Clock::system())?;
    cancel.cancelled().await;
    gateway.shutdown().await;
    Ok(())
}
