//! `tickgate dev`: the whole stack on one machine.

use std::path::PathBuf;

use clap::Args;
use tickgate::{
    control::MAX_SEATS,
    role::dev::{self, DevOptions},
};

use super::{Global, failure::Failure, role};

/// Run the whole stack on this machine: sidecar, gateway and demo world
#[derive(Debug, Args)]
#[command(
    long_about = "Runs sidecar, gateway and the demo world in one process, on loopback addresses, with certificates, keys and a store made \
        on the spot. Players log in by name alone. A second, idle gateway is attached as well, for tokens of another gateway.\n\n\
        Everything is kept in the state directory, so that a second run knows the sessions of the first; delete the directory to \
        start afresh. When everything listens, dev.json in there says where: addresses, metrics and certificate paths. The commands \
        for operators (sessions, gateways, explain, token, and keys rotate, retire and list) find it there by themselves.\n\n\
        The configuration's lifetimes, limits and ports count here too; its addresses, files and environment do not.",
    after_long_help = "Examples:\n  \
        tickgate dev                            the ports of the configuration (7777, 7778 UDP; 7778, 7779, 7800 to 7803 TCP)\n  \
        tickgate dev --ephemeral-ports          whatever ports are free; dev.json says which\n  \
        tickgate dev --tick-hz 20 --capacity 100\n  \
        tickgate dev --log debug\n\n\
        What to do next: `tickgate gateways list` and `tickgate sessions list` in another terminal; `cargo run --release -p loadtest` for a thousand players, or write a client with tickgate::client."
)]
pub(super) struct Dev {
    /// Where certificates, keys, store and dev.json are kept
    #[arg(long, value_name = "DIR", default_value = ".tickgate")]
    state_dir: PathBuf,

    /// Let the system choose every port
    #[arg(long)]
    ephemeral_ports: bool,

    /// How many seats the gateway has, in place of the configuration's
    #[arg(long, value_name = "SEATS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SEATS)))]
    capacity: Option<u32>,

    /// Ticks a second of the demo world, in place of the configuration's
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    tick_hz: Option<u32>,
}

impl Dev {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let Self {
            state_dir,
            ephemeral_ports,
            capacity,
            tick_hz,
        } = self;
        let read = || {
            let mut config = global.config()?;
            config.gateway.capacity = capacity.unwrap_or(config.gateway.capacity);
            config.demo.tick_hz = tick_hz.unwrap_or(config.demo.tick_hz);
            Ok(config)
        };
        role::run(read, async |config, asked, reread| {
            let options = DevOptions {
                state_dir,
                ephemeral_ports,
                config,
            };
            Ok(dev::run_asked(options, asked, reread).await?)
        })
    }
}
