//! renet over netcode: clients come with connect tokens, and at 60 Hz all that was heard is sent back, unreliably.

use std::{
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use renet::{ConnectionConfig, DefaultChannel, RenetServer};
use renet_netcode::{NetcodeServerTransport, ServerAuthentication, ServerConfig};
use tickgate::gateway::Ticker;

use super::{Announced, LISTEN, SHARED_KEY};
use crate::cores;

/// netcode's name for a game and its version.
pub(crate) const PROTOCOL: u64 = 7;
/// The most that renetcode takes; it panics above.
pub(crate) const MOST_CLIENTS: usize = 1_024;
const TICKS: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// netcode's tokens are dated by the system's clock.
#[expect(clippy::disallowed_methods, reason = "netcode asks for it")]
pub(crate) fn since_epoch() -> Duration {
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

pub(super) fn run() -> anyhow::Result<()> {
    let socket = cores::server_socket(LISTEN)?;
    let address = socket.local_addr()?;
    let config = ServerConfig {
        current_time: since_epoch(),
        max_clients: MOST_CLIENTS,
        protocol_id: PROTOCOL,
        public_addresses: vec![address],
        authentication: ServerAuthentication::Secure {
            private_key: SHARED_KEY,
        },
    };
    let mut transport = NetcodeServerTransport::new(config, socket)?;
    let mut server = RenetServer::new(ConnectionConfig::default());
    Announced {
        address,
        certificate: [0; 32],
    }
    .tell()?;
    let mut ticker = Ticker::new(TICKS);
    loop {
        let ticks = ticker.wait() + 1;
        let passed = ticker.period() * u32::try_from(ticks)?;
        server.update(passed);
        transport.update(passed, &mut server)?;
        while server.get_event().is_some() {}
        for client in server.clients_id() {
            while let Some(heard) = server.receive_message(client, DefaultChannel::Unreliable) {
                server.send_message(client, DefaultChannel::Unreliable, heard);
            }
        }
        transport.send_packets(&mut server);
    }
}
