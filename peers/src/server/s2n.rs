//! s2n-quic as it comes: its own TLS (s2n-tls over aws-lc), a task per connection, datagrams sent back as they come.

use std::future::poll_fn;

use base64::{Engine, prelude::BASE64_STANDARD};
use s2n_quic::{
    Connection, Server,
    provider::{
        datagram::default::{Endpoint as Datagrams, Receiver, Sender},
        io, tls,
    },
};
use tickgate::certs;

use super::{Announced, LISTEN, SERVER_NAME};
use crate::cores;

/// Datagrams that may wait in each direction of a connection: what its own builders take without being told.
const QUEUE: usize = 200;

pub(super) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve())
}

async fn serve() -> anyhow::Result<()> {
    let identity = certs::quic_identity(SERVER_NAME)?;
    let announced = Announced::quic(LISTEN, &identity);
    let leaf = identity.chain.first().map_or(&[][..], AsRef::as_ref);
    let tls = tls::default::Server::builder()
        .with_certificate(
            pem("CERTIFICATE", leaf),
            pem("PRIVATE KEY", identity.key.secret_der()),
        )?
        .build()?;
    let datagrams = Datagrams::builder()
        .with_send_capacity(QUEUE)
        .and_then(|builder| builder.with_recv_capacity(QUEUE))?
        .build()?;
    let io = io::Default::builder()
        .with_rx_socket(cores::server_socket(LISTEN)?)?
        .build()?;
    let mut server = Server::builder()
        .with_tls(tls)?
        .with_datagram(datagrams)?
        .with_io(io)?
        .start()?;
    Announced {
        address: server.local_addr()?,
        ..announced
    }
    .tell()?;
    while let Some(connection) = server.accept().await {
        tokio::spawn(echo(connection));
    }
    Ok(())
}

async fn echo(connection: Connection) {
    let handle = connection.handle();
    loop {
        let received = poll_fn(|cx| {
            match handle.datagram_mut(|receiver: &mut Receiver| receiver.poll_recv_datagram(cx)) {
                Ok(polled) => polled.map(Result::ok),
                Err(_) => std::task::Poll::Ready(None),
            }
        });
        let Some(datagram) = received.await else {
            return;
        };
        let sent = handle.datagram_mut(|sender: &mut Sender| sender.send_datagram_forced(datagram));
        if !matches!(sent, Ok(Ok(_))) {
            return;
        }
    }
}

/// DER as PEM, which s2n-tls insists on.
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let digits = BASE64_STANDARD.encode(der);
    for (at, digit) in digits.chars().enumerate() {
        text.push(digit);
        if at % 64 == 63 {
            text.push('\n');
        }
    }
    text + &format!("\n-----END {label}-----\n")
}
