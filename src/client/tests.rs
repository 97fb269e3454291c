//! The client library against a gateway of a few lines, over real QUIC on loopback.

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

const WELCOME: Welcome = Welcome {
    version: wire::VERSION,
    client: ClientId(77),
    session: SessionId(5),
    resumed: false,
    max_datagram: 1_150,
    ping_interval_ms: 3_000,
};

/// The gateway's side of one connection.
struct Peer {
    quic: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    frames: FrameReader,
}

impl Peer {
    /// Waits for a client, and for its Hello.
    async fn accept(endpoint: &quinn::Endpoint) -> (Self, Hello) {
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
    async fn admit(endpoint: &quinn::Endpoint) -> Self {
        let (mut peer, _) = Self::accept(endpoint).await;
        peer.write(&Frame::Welcome(WELCOME)).await;
        peer
    }

    async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.frames.next(MAX_MESSAGE.max(MAX_HELLO)).unwrap() {
                return frame;
            }
            let chunk = self.receive.read_chunk(1_024, true).await.unwrap();
            self.frames.push(&chunk.unwrap().bytes);
        }
    }

    async fn write(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        self.send.write_all(&bytes).await.unwrap();
    }

    fn close(&self, code: CloseCode, reason: &[u8]) {
        self.quic.close(number(code), reason);
    }
}

fn number(code: CloseCode) -> VarInt {
    VarInt::from_u64(code.number()).unwrap()
}

/// A gateway's socket, and the ticket to it.
fn gateway() -> (quinn::Endpoint, Ticket) {
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

fn client() -> Endpoint {
    Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// Everything here happens within milliseconds; a test that hangs shall fail.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("a test hangs")
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

#[tokio::test]
async fn hello_presents_the_token_and_welcome_is_read() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let gateway = async {
        let (mut peer, hello) = Peer::accept(&endpoint).await;
        assert_eq!(hello, Hello::new("v4.local.token"));
        peer.write(&Frame::Welcome(WELCOME)).await;
        peer
    };
    let (_peer, connection) = soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    let connection = connection.unwrap();
    assert_eq!(*connection.welcome(), WELCOME);
    assert_eq!(connection.remote_address(), ticket.addresses[0]);
    assert_eq!(connection.close_reason(), None);
}

#[tokio::test]
async fn options_replace_what_hello_says() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let options = HelloOptions {
        token: Some(SecretToken::new("forged")),
        proof: Some([3; 64]),
        ..HelloOptions::default()
    };
    // Dropping the gateway's end refuses the client.
    let gateway = async { Peer::accept(&endpoint).await.1 };
    let connecting = local.connect_with(&ticket, &options);
    let (hello, _) = soon(async { tokio::join!(gateway, connecting) }).await;
    assert_eq!(hello.token, "forged");
    assert_eq!(hello.proof, Some([3; 64]));
}

#[tokio::test]
async fn every_refusal_tells_its_code() {
    for code in CloseCode::ALL {
        let refused = met(|peer| async move { peer.close(*code, b"") }).await;
        let ConnectError::Refused(closed) = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(closed.code(), Some(*code));
        assert_eq!(refused.label(), code.label());
        assert_eq!(refused.advice(), code.advice());
    }
}

#[tokio::test]
async fn a_code_that_is_not_known_is_told_as_such() {
    let refused = met(|peer| async move { peer.quic.close(VarInt::from_u32(0xbeef), b"") }).await;
    assert!(matches!(
        refused,
        ConnectError::Refused(Closed::Unknown(0xbeef))
    ));
}

#[tokio::test]
async fn a_gateway_that_speaks_out_of_turn_is_left() {
    let refused = met(|mut peer| async move {
        peer.write(&Frame::Message(Bytes::from_static(b"early")))
            .await;
        let told = Closed::from(peer.quic.closed().await);
        assert_eq!(told.code(), Some(CloseCode::ProtocolViolation));
    })
    .await;
    let ConnectError::Refused(closed) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(closed, Closed::Violation(FrameError::UnexpectedType));
}

#[tokio::test]
async fn a_reset_stream_does_not_hide_the_close_code() {
    let refused = met(|mut peer| async move {
        peer.send.reset(VarInt::from_u32(1)).unwrap();
        peer.receive.stop(VarInt::from_u32(1)).unwrap();
        peer.close(CloseCode::ServerFull, b"");
    })
    .await;
    assert_eq!(refused.label(), "server_full");
}

#[tokio::test]
async fn the_close_code_is_told_though_the_stream_ended_before() {
    let (mut peer, connection) = admitted().await;
    peer.send.finish().unwrap();
    let gateway = async {
        peer.quic
            .send_datagram(Bytes::from_static(b"seen?"))
            .unwrap();
        peer.quic.read_datagram().await.unwrap();
        peer.close(CloseCode::SessionRevoked, b"");
    };
    // The answer tells the gateway that the end of the stream has arrived: it travelled no later than the datagram.
    let answer = async {
        connection.recv_datagram().await.unwrap();
        connection
            .send_datagram(Bytes::from_static(b"seen"))
            .unwrap();
    };
    let all = async { tokio::join!(gateway, answer, connection.recv_message()) };
    let (_, _, ended) = soon(all).await;
    assert_eq!(ended.unwrap_err().code(), Some(CloseCode::SessionRevoked));
}

#[tokio::test]
async fn a_close_during_play_is_told_to_everybody() {
    let (peer, connection) = admitted().await;
    peer.close(CloseCode::Kicked, &9_u32.to_be_bytes());
    let kicked = soon(connection.closed()).await;
    assert_eq!(kicked.kick_reason(), Some(9));
    assert_eq!(kicked.advice(), Advice::GiveUp);
    assert_eq!(soon(connection.recv_datagram()).await, Err(kicked.clone()));
    assert_eq!(soon(connection.recv_message()).await, Err(kicked.clone()));
    let unsent = soon(connection.send_message(b"late")).await;
    assert_eq!(unsent, Err(SendError::Closed(kicked.clone())));
    let unsent = connection.send_datagram(Bytes::new());
    assert_eq!(unsent, Err(SendError::Closed(kicked.clone())));
    // Closing what is closed does not change why.
    connection.close();
    assert_eq!(connection.close_reason(), Some(kicked));
}

#[tokio::test]
async fn dropping_a_connection_leaves() {
    let (peer, connection) = admitted().await;
    drop(connection);
    let told = Closed::from(soon(peer.quic.closed()).await);
    assert_eq!(told.code(), Some(CloseCode::Left));
}

#[tokio::test]
async fn datagrams_go_both_ways_within_their_limit() {
    let (peer, connection) = admitted().await;
    let longest = Bytes::from(vec![7; MAX_DATAGRAM]);
    connection.send_datagram(longest.clone()).unwrap();
    assert_eq!(soon(peer.quic.read_datagram()).await, Ok(longest));
    let refused = connection.send_datagram(Bytes::from(vec![7; MAX_DATAGRAM + 1]));
    let too_long = SendError::TooLong {
        length: MAX_DATAGRAM + 1,
        limit: MAX_DATAGRAM,
    };
    assert_eq!(refused, Err(too_long));

    assert_eq!(connection.try_recv_datagram(), None);
    for payload in ["one", "two"] {
        peer.quic.send_datagram(payload.into()).unwrap();
    }
    assert_eq!(soon(connection.recv_datagram()).await, Ok("one".into()));
    assert_eq!(soon(connection.recv_datagram()).await, Ok("two".into()));
}

#[tokio::test]
async fn messages_go_both_ways_in_order() {
    let (mut peer, connection) = admitted().await;
    let longest = Bytes::from(vec![1; MAX_MESSAGE]);
    let refused = soon(connection.send_message(&vec![0; MAX_MESSAGE + 1])).await;
    assert_eq!(refused.unwrap_err().label(), "too_long");
    let said = async {
        connection.send_message(b"hello").await.unwrap();
        connection.send_message(&longest).await.unwrap();
        connection.send_message(b"").await.unwrap();
    };
    let heard = async {
        for expected in [Bytes::from_static(b"hello"), longest.clone(), Bytes::new()] {
            assert_eq!(peer.next().await, Frame::Message(expected));
        }
    };
    soon(async { tokio::join!(said, heard) }).await;

    let said = async {
        for payload in [Bytes::from_static(b"one"), longest.clone()] {
            peer.write(&Frame::Message(payload)).await;
        }
        // Byte by byte, as a stream may cut it.
        for byte in [3, 0, 0, 2, b'o', b'k'] {
            peer.send.write_all(&[byte]).await.unwrap();
        }
    };
    let heard = async {
        for expected in [
            Bytes::from_static(b"one"),
            longest.clone(),
            Bytes::from_static(b"ok"),
        ] {
            assert_eq!(connection.recv_message().await, Ok(expected));
        }
    };
    soon(async { tokio::join!(said, heard) }).await;
}

#[tokio::test]
async fn a_cancelled_message_is_sent_whole_or_not_at_all() {
    let (mut peer, connection) = admitted().await;
    // Nobody reads: sooner or later the windows are full, and a message stays where it is, half-way through.
    let longest = vec![1; MAX_MESSAGE];
    let mut sent = 0;
    while tokio::time::timeout(
        Duration::from_millis(300),
        connection.send_message(&longest),
    )
    .await
    .is_ok()
    {
        sent += 1;
    }
    let said = async { connection.send_message(b"last").await.unwrap() };
    let heard = async {
        for _ in 0..=sent {
            assert_eq!(peer.next().await, Frame::Message(longest.clone().into()));
        }
        assert_eq!(
            peer.next().await,
            Frame::Message(Bytes::from_static(b"last"))
        );
    };
    soon(async { tokio::join!(said, heard) }).await;
}

#[tokio::test]
async fn a_gateway_with_another_certificate_is_told_no_token() {
    let (endpoint, mut ticket) = gateway();
    ticket.certificate_sha256 = vec![[0; 32]];
    let local = client();
    let gateway = async { endpoint.accept().await.unwrap().await.map(|_| ()) };
    let (handshake, outcome) = soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    assert!(handshake.is_err());
    let refused = outcome.unwrap_err();
    assert_eq!(refused.label(), "transport");
    assert_eq!(refused.advice(), Advice::NewToken);
}

#[tokio::test]
async fn a_silent_address_is_passed_over_for_the_next() {
    let (endpoint, mut ticket) = gateway();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = client().with_deadlines(Deadlines {
        handshake: Duration::from_millis(500),
        ..Deadlines::default()
    });
    let other_family = "[::1]:9".parse().unwrap();
    ticket.addresses = vec![other_family, silent.local_addr().unwrap()];
    let unanswered = soon(local.connect(&ticket)).await.unwrap_err();
    assert_eq!(unanswered.label(), "handshake_timeout");

    ticket.addresses.push(endpoint.local_addr().unwrap());
    let both = async { tokio::join!(Peer::admit(&endpoint), local.connect(&ticket)) };
    let (_peer, connection) = soon(both).await;
    assert_eq!(connection.unwrap().remote_address(), ticket.addresses[2]);

    ticket.addresses = vec![other_family];
    let unusable = soon(local.connect(&ticket)).await.unwrap_err();
    assert_eq!(unusable.label(), "ticket");
}

#[tokio::test]
async fn a_gateway_that_never_answers_is_given_up() {
    let (endpoint, ticket) = gateway();
    let local = client().with_deadlines(Deadlines {
        welcome: Duration::from_millis(100),
        ..Deadlines::default()
    });
    let gateway = async {
        let (peer, _) = Peer::accept(&endpoint).await;
        Closed::from(peer.quic.closed().await)
    };
    let (told, outcome) = soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    assert_eq!(outcome.unwrap_err().label(), "welcome_timeout");
    assert_eq!(told.code(), Some(CloseCode::Left));
}

#[tokio::test]
async fn a_villain_writes_what_it_likes() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let villain = async {
        let mut handshaken = local.handshake(&ticket).await.unwrap();
        handshaken
            .send_datagram(Bytes::from_static(b"too early"))
            .unwrap();
        for byte in [1, 0, 0, 4, wire::VERSION, 0, 1, b't'] {
            handshaken.send_hello_bytes(&[byte]).await.unwrap();
        }
        handshaken.finish_hello();
        handshaken.welcome().await
    };
    let both = async { tokio::join!(Peer::admit(&endpoint), villain) };
    let (_peer, connection) = soon(both).await;
    assert!(connection.is_ok());
}

#[tokio::test]
async fn a_token_that_fits_no_hello_is_not_sent() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let options = HelloOptions {
        token: Some(SecretToken::new("")),
        ..HelloOptions::default()
    };
    let gateway = async { endpoint.accept().await.unwrap().await };
    let both = async { tokio::join!(gateway, local.connect_with(&ticket, &options)) };
    let (_quic, outcome) = soon(both).await;
    assert!(matches!(
        outcome,
        Err(ConnectError::Hello(FrameError::Malformed))
    ));
}

#[tokio::test]
async fn a_rejected_client_comes_back_with_a_new_token() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let gateway = async {
        let (peer, first) = Peer::accept(&endpoint).await;
        peer.close(CloseCode::TokenRejected, b"");
        let (mut peer, second) = Peer::accept(&endpoint).await;
        peer.write(&Frame::Welcome(WELCOME)).await;
        (peer, first.token, second.token)
    };
    let mut issued = 0;
    let fresh = || {
        issued += 1;
        let token = SecretToken::new(format!("token-{issued}"));
        let ticket = Ticket {
            token,
            ..ticket.clone()
        };
        async { Ok(ticket) }
    };
    let joining = join(&local, Patience::default(), fresh);
    let ((_peer, first, second), joined) = soon(async { tokio::join!(gateway, joining) }).await;
    assert!(joined.is_ok());
    assert_eq!((first.as_str(), second.as_str()), ("token-1", "token-2"));
}

#[tokio::test]
async fn shutting_an_endpoint_down_leaves_everywhere() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let both = async { tokio::join!(Peer::admit(&endpoint), local.connect(&ticket)) };
    let (peer, connection) = soon(both).await;
    let connection = connection.unwrap();
    soon(local.shutdown()).await;
    let told = Closed::from(soon(peer.quic.closed()).await);
    assert_eq!(told.code(), Some(CloseCode::Left));
    assert_eq!(connection.close_reason(), Some(Closed::Local));
    let refused = soon(local.connect(&ticket)).await.unwrap_err();
    assert_eq!(refused.label(), "endpoint_closed");
}
