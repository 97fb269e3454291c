//! The client library against a gateway of a few lines, over real QUIC on loopback.

mod closing;
mod entering;
mod traffic;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{VarInt, crypto::rustls::QuicServerConfig};
use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::{
    clock::Timestamp,
    id::{ClientId, SessionId},
    tls::{self, Identity},
    wire::{
        self, Advice, CloseCode, Frame, FrameError, FrameReader, Hello, MAX_DATAGRAM, MAX_HELLO,
        MAX_MESSAGE, Welcome,
    },
};

pub(super) const WELCOME: Welcome = Welcome {
    version: wire::VERSION,
    client: ClientId(77),
    session: SessionId(5),
    resumed: false,
    max_datagram: 1_150,
    ping_interval_ms: 3_000,
};

/// The gateway's side of one connection.
pub(super) struct Peer {
    pub(super) quic: quinn::Connection,
    pub(super) send: quinn::SendStream,
    pub(super) receive: quinn::RecvStream,
    frames: FrameReader,
}

impl Peer {
    /// Waits for a client, and for its Hello.
    pub(super) async fn accept(endpoint: &quinn::Endpoint) -> (Self, Hello) {
        let quic = endpoint.accept().await.unwrap().await.unwrap();
        let (send, receive) = quic.accept_bi().await.unwrap();
        let mut peer = Self {
            quic,
            send,
            receive,
            frames: FrameReader::new(),
        };
        match peer.next().await {
            Frame::Hello(hello) => (peer, hello),
            other => panic!("{other:?} instead of Hello"),
        }
    }

    /// Waits for a client, and lets it in whatever it says.
    pub(super) async fn admit(endpoint: &quinn::Endpoint) -> Self {
        let (mut peer, _) = Self::accept(endpoint).await;
        peer.write(&Frame::Welcome(WELCOME)).await;
        peer
    }

    pub(super) async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.frames.next(MAX_MESSAGE.max(MAX_HELLO)).unwrap() {
                return frame;
            }
            let chunk = self.receive.read_chunk(1_024, true).await.unwrap();
            self.frames.push(&chunk.unwrap().bytes);
        }
    }

    pub(super) async fn write(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        self.send.write_all(&bytes).await.unwrap();
    }

    pub(super) fn close(&self, code: CloseCode, reason: &[u8]) {
        self.quic.close(number(code), reason);
    }
}

fn number(code: CloseCode) -> VarInt {
    VarInt::from_u64(code.number()).unwrap()
}

/// A gateway's socket, and the ticket to it.
pub(super) fn gateway() -> (quinn::Endpoint, Ticket) {
    let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let identity = Identity {
        chain: vec![made.cert.der().clone()],
        key,
    };
    let tls = tls::quic_server_config(&identity).unwrap();
    let crypto = Arc::new(QuicServerConfig::try_from(tls).unwrap());
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = quinn::ServerConfig::with_crypto(crypto);
    let endpoint = quinn::Endpoint::server(config, local).unwrap();
    let ticket = Ticket {
        token: SecretToken::new("v4.local.token"),
        expires_at: Timestamp(0),
        gateway: "dev-1".parse().unwrap(),
        addresses: vec![endpoint.local_addr().unwrap()],
        server_name: "gateway.test".into(),
        certificate_sha256: vec![identity.fingerprint()],
        session: SessionId(5),
    };
    (endpoint, ticket)
}

pub(super) fn client() -> Endpoint {
    Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// Everything here happens within milliseconds; a test that hangs shall fail.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("a test hangs")
}

/// Only what may be spawned on a runtime of many threads passes.
fn movable<T>(future: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    future
}

/// Connects a client to a gateway that lets it in.
async fn admitted() -> (Peer, Connection) {
    let (endpoint, ticket) = gateway();
    let local = client();
    let both = async { tokio::join!(Peer::admit(&endpoint), local.connect(&ticket)) };
    let (peer, connection) = soon(both).await;
    (peer, connection.unwrap())
}

/// What a client meets at a gateway that reads its Hello and then does this.
async fn met<F: Future<Output = ()>>(then: impl FnOnce(Peer) -> F) -> ConnectError {
    let (endpoint, ticket) = gateway();
    let local = client();
    let gateway = async {
        let (peer, _) = Peer::accept(&endpoint).await;
        then(peer).await;
    };
    let (_, outcome) = soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    outcome.map(|_| ()).unwrap_err()
}
