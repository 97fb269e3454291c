//! `tickgate gateway`: a gateway with the demo world.

use clap::Args;
use tickgate::role::run_gateway;

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
        Signals: SIGTERM or SIGINT drains it: nobody is admitted any more, those in play may stay for [gateway] drain, and it ends \
        when all have left; a second one ends it at once. SIGHUP reads the configuration and the certificates again: the log filter \
        and [gateway] drain change at once, a new certificate is announced at once and served 5 min later; what needs a restart is \
        named in a warning. Certificates are taken without it as well, two seconds after their files have changed.\n\n\
        Exit codes: 0 it was asked to end, 1 it failed, 2 wrong arguments or configuration, 3 fenced off: another process of this \
        gateway's id has attached to the sidecar, and this one must not run beside it.\n\n\
        What to do next: clients fetch a connect token from the sidecar, and with it this gateway's addresses. `tickgate gateways \
        list` shows it."
)]
pub(super) struct Gateway {}

impl Gateway {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let Self {} = self;
        role::run(
            || global.config(),
            async |config, asked, reread| Ok(run_gateway(config, asked, reread).await?),
        )
    }
}
