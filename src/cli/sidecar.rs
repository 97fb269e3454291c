//! `tickgate sidecar`: the authority.

use clap::Args;
use tickgate::role::run_sidecar;

use super::{Global, failure::Failure, role};

/// Run the authority: logs players in, mints tokens, revokes
#[derive(Debug, Args)]
#[command(
    long_about = "Runs the sidecar: it logs players in, owns their sessions, mints session and connect tokens, and revokes. It has three \
        listeners: AuthService for game clients (TLS), ControlService for gateways and AdminService for operators and the game's \
        backend (mutual TLS; a certificate's URI SAN says who its holder is).\n\n\
        Sessions and revocations are on disk before they are acknowledged; after a crash or a kill it goes on where it was, and \
        players in play notice nothing.\n\n\
        It reads [session] and [sidecar] of the configuration. It needs a certificate, the CA of its callers, and four secret keys; \
        without them it does not start, and says what is missing. Development conveniences need environment = \"development\" and \
        loopback addresses.",
    after_long_help = "Examples:\n  \
        tickgate sidecar\n  \
        tickgate sidecar --config /etc/tickgate.toml --log info,tickgate::sidecar=debug\n\n\
        Before the first run:\n  \
        tickgate certs\n  \
        tickgate keys generate session --out certs/session.key\n  \
        tickgate keys generate refresh --out certs/refresh.key\n  \
        tickgate keys generate transport --out certs/transport.key\n  \
        tickgate keys generate login --out certs/login.key\n\n\
        Signals: SIGTERM or SIGINT ends it in good order, a second one at once. SIGHUP reads the configuration, the certificates and the keys \
        again: the log filter, the keys and, for new connections, the certificates change at once; what needs a restart is named in a warning. \
        Certificates and keys take effect without it as well, two seconds after their files have changed.\n\n\
        What to do next: start a gateway with `tickgate gateway`, and look at it with `tickgate gateways list`."
)]
pub(super) struct Sidecar {}

impl Sidecar {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let Self {} = self;
        role::run(
            || global.config(),
            async |config, asked, reread| Ok(run_sidecar(config, asked, reread).await?),
        )
    }
}
