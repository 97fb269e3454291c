//! quinn as its examples have it: all defaults, a task per connection, datagrams sent back as they come.

use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime};
use tickgate::certs;

use super::{Announced, LISTEN, SERVER_NAME};
use crate::cores;

pub(super) fn run() -> anyhow::Result<()> {
    // One core: a scheduler for many would only cost.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve())
}

async fn serve() -> anyhow::Result<()> {
    let identity = certs::quic_identity(SERVER_NAME)?;
    let announced = Announced::quic(LISTEN, &identity);
    #[expect(
        clippy::disallowed_methods,
        reason = "stock is as stock is: its defaults are what is measured"
    )]
    let config = ServerConfig::with_single_cert(identity.chain, identity.key)?;
    let socket = cores::server_socket(LISTEN)?;
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        Some(config),
        socket,
        Arc::new(TokioRuntime),
    )?;
    Announced {
        address: endpoint.local_addr()?,
        ..announced
    }
    .tell()?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(echo(incoming));
    }
    Ok(())
}

async fn echo(incoming: Incoming) {
    let Ok(connection) = incoming.await else {
        return;
    };
    while let Ok(datagram) = connection.read_datagram().await {
        if connection.send_datagram(datagram).is_err() {
            return;
        }
    }
}
