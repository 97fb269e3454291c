//! Stock quinn as a server that sends datagrams back, in a process of its own: this program again, called otherwise.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use quinn::{TransportConfig, crypto::rustls::QuicServerConfig};
use socket2::{Domain, Protocol, Type};
use tickgate::{certs, tls};

/// The argument that makes this program the server.
pub(crate) const AS_SERVER: &str = "--as-echo-server";

/// Serves until the parent is gone.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let identity = certs::quic_identity("echo").unwrap();
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(
        QuicServerConfig::try_from(tls::quic_server_config(&identity).unwrap()).unwrap(),
    ));
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(quinn::VarInt::from_u32(30_000).into()));
    config.transport_config(Arc::new(transport));
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::new(
            quinn::EndpointConfig::default(),
            Some(config),
            socket(),
            quinn::default_runtime().unwrap(),
        )
        .unwrap();
        let pin: String = identity
            .fingerprint()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut out = std::io::stdout();
        writeln!(out, "{} {pin}", endpoint.local_addr().unwrap()).unwrap();
        out.flush().unwrap();
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else {
                    return;
                };
                while let Ok(payload) = connection.read_datagram().await {
                    let _ = connection.send_datagram(payload);
                }
            });
        }
    });
}

/// With room for what comes while the server has no processor: the system's default holds a few hundred packets.
fn socket() -> UdpSocket {
    let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    let _ = socket.set_recv_buffer_size(4 << 20);
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any_port.into()).unwrap();
    socket.into()
}

/// The server's process; it ends with this.
pub(super) struct EchoServer {
    child: Child,
    pub(super) address: SocketAddr,
    pin: [u8; 32],
}

impl EchoServer {
    pub(super) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(AS_SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (address, hex) = line.trim().split_once(' ').unwrap();
        let mut pin = [0; 32];
        for (n, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
        }
        Self {
            child,
            address: address.parse().unwrap(),
            pin,
        }
    }

    /// What a client believes of it.
    pub(super) fn tls(&self) -> rustls::ClientConfig {
        tls::pinned_quic_client_config(vec![self.pin]).unwrap()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
