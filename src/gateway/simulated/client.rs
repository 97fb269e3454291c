//! A simulated client: quinn-proto without I/O, and what the client is up to.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    Event, IdleTimeout, StreamEvent, StreamId, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};

use ring::signature::Ed25519KeyPair;

use super::game::KICK;
use crate::{
    gateway::{
        admit::token_sha256,
        transport::{Entropy, TransportKeys, endpoint_config},
    },
    id::SessionId,
    tls::pinned_quic_client_config,
    wire::{CloseCode, Frame, FrameReader, Hello, MAX_MESSAGE, Welcome, proof_message},
};

/// Datagrams that a client which floods sends each 10 ms: 2,000 a second.
const FLOOD: usize = 20;

/// What a client says once connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opening {
    /// Presents this token of this session.
    Token(String, SessionId, Proof),
    /// Says nothing.
    Silence,
    /// Sends bytes that are no Hello.
    Garbage(Vec<u8>),
}

/// How a client proves that it holds its session's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Absent,
    Right,
    /// Signed with another session's key, over another token, or over another gateway's certificate.
    OtherKey,
    OtherToken,
    OtherLeaf,
}

impl Proof {
    pub(super) const WRONG: [Self; 4] = [
        Self::Absent,
        Self::OtherKey,
        Self::OtherToken,
        Self::OtherLeaf,
    ];

    fn sign(self, session: SessionId, token: &str, leaf: [u8; 32]) -> Option<[u8; 64]> {
        let (key, token, leaf) = match self {
            Self::Absent => return None,
            Self::Right => (client_key(session), token, leaf),
            Self::OtherKey => (client_key(SessionId(0)), token, leaf),
            Self::OtherToken => (client_key(session), "another", leaf),
            Self::OtherLeaf => (client_key(session), token, [0; 32]),
        };
        let message = proof_message(&token_sha256(token), &leaf);
        Some(key.sign(&message).as_ref().try_into().unwrap())
    }
}

/// The key that a session's client holds.
pub(super) fn client_key(session: SessionId) -> Ed25519KeyPair {
    let mut seed = [7; 32];
    seed[..16].copy_from_slice(&session.to_bytes());
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

/// How a client's connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The gateway closed it.
    Closed(CloseCode),
    /// The client left.
    Left,
    /// Nothing was heard for too long, or the client vanished.
    Lost,
}

pub(super) struct Client {
    /// Where the gateway sees it: a NAT may show it from elsewhere at any time, and the client does not know.
    pub(super) address: SocketAddr,
    number: u32,
    /// Which of the script's tokens it has.
    pub(super) token: Option<usize>,
    /// SHA-256 of the certificate that it expects of the gateway.
    pin: [u8; 32],
    endpoint: Endpoint,
    handle: ConnectionHandle,
    quic: Connection,
    opening: Option<Opening>,
    stream: Option<StreamId>,
    reader: FrameReader,
    pub(super) welcome: Option<Welcome>,
    pub(super) end: Option<End>,
    /// A client that has vanished neither sends nor receives.
    pub(super) vanished: bool,
    /// It sends without a pause once it is in.
    pub(super) floods: bool,
    /// How often its address has changed while it played, and what it had received then.
    pub(super) moved: u64,
    /// How many networks it has left.
    networks: u8,
    /// It listens, and pings.
    pub(super) says_nothing: bool,
    pub(super) datagrams_received: u64,
    pub(super) messages_received: Vec<Bytes>,
    next_input: Option<Instant>,
    inputs_sent: u32,
}

fn client_config(pin: [u8; 32]) -> ClientConfig {
    let tls = pinned_quic_client_config(vec![pin]).unwrap();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(10_000))))
        .keep_alive_interval(Some(Duration::from_millis(500)))
        .mtu_discovery_config(None);
    config.transport_config(Arc::new(transport));
    config
}

impl Client {
    pub(super) fn connect(
        now: Instant,
        seed: [u8; 32],
        entropy: Entropy,
        address: SocketAddr,
        gateway: SocketAddr,
        pin: [u8; 32],
        opening: Opening,
    ) -> Self {
        let keys = TransportKeys {
            reset: [1; 32],
            connection_id: [3; 32],
            retry: [2; 32],
        };
        let config = endpoint_config(0, &keys, Arc::clone(&entropy), Some(seed));
        let mut endpoint = Endpoint::new(Arc::new(config), None, false, None);
        let mut config = client_config(pin);
        config.initial_dst_cid_provider(Arc::new(move || {
            let mut id = [0; 20];
            entropy(&mut id);
            quinn_proto::ConnectionId::new(&id)
        }));
        let (handle, quic) = endpoint
            .connect(now, config, gateway, "gateway.test")
            .unwrap();
        let number = match address.ip() {
            std::net::IpAddr::V4(ip) => u32::from(ip),
            std::net::IpAddr::V6(_) => 0,
        };
        Self {
            address,
            number,
            token: None,
            pin,
            endpoint,
            handle,
            quic,
            opening: Some(opening),
            stream: None,
            reader: FrameReader::new(),
            welcome: None,
            end: None,
            vanished: false,
            floods: false,
            moved: 0,
            networks: 0,
            says_nothing: false,
            datagrams_received: 0,
            messages_received: Vec::new(),
            next_input: None,
            inputs_sent: 0,
        }
    }

    pub(super) fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if self.vanished {
            return;
        }
        let mut response = Vec::new();
        let event =
            self.endpoint
                .handle(now, from, None, None, BytesMut::from(bytes), &mut response);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.quic.handle_event(event);
        }
    }

    /// A NAT on its way gives it another port. It knows nothing of that.
    pub(super) fn moves(&mut self) {
        self.address.set_port(self.address.port() + 1);
        self.moved += u64::from(self.welcome.is_some() && self.end.is_none());
    }

    /// It is in another network: 10.0.1.n at first, then 10.1.1.n and so on.
    pub(super) fn roams(&mut self) {
        self.networks += 1;
        let address = self.number + (u32::from(self.networks) << 16);
        self.address
            .set_ip(std::net::Ipv4Addr::from_bits(address).into());
        self.moves();
    }

    pub(super) fn leave(&mut self, now: Instant) {
        if self.end.is_none() {
            self.quic.close(now, VarInt::from_u32(0), Bytes::new());
            self.end = Some(End::Left);
            self.next_input = None;
        }
    }

    /// Breaks the connection off, as a client that finds something wrong would.
    pub(super) fn break_off(&mut self, now: Instant) {
        if self.end.is_none() {
            let code = VarInt::from_u64(CloseCode::InternalError.number()).unwrap();
            self.quic.close(now, code, Bytes::new());
            self.end = Some(End::Lost);
            self.next_input = None;
        }
    }

    pub(super) fn next_wakeup(&mut self) -> Option<Instant> {
        if self.vanished {
            return None;
        }
        match (self.quic.poll_timeout(), self.next_input) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Does what is due, and hands packets to `send`.
    pub(super) fn drive(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        if self.vanished {
            return;
        }
        if self
            .quic
            .poll_timeout()
            .is_some_and(|timeout| timeout <= now)
        {
            self.quic.handle_timeout(now);
        }
        loop {
            while let Some(event) = self.quic.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                    self.quic.handle_event(event);
                }
            }
            let Some(event) = self.quic.poll() else { break };
            self.event(now, event);
        }
        self.play(now);
        let mut buffer = Vec::new();
        while let Some(transmit) = self.quic.poll_transmit(now, 1, &mut buffer) {
            send(&buffer[..transmit.size]);
            buffer.clear();
        }
    }

    fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected => self.open(),
            Event::Stream(StreamEvent::Readable { id }) => self.read(now, id),
            Event::DatagramReceived => {
                while self.quic.datagrams().recv().is_some() {
                    self.datagrams_received += 1;
                }
            }
            Event::ConnectionLost { reason } if self.end.is_none() => {
                self.next_input = None;
                self.end = Some(match reason {
                    ConnectionError::ApplicationClosed(close) => {
                        let code = CloseCode::from_number(close.error_code.into_inner())
                            .expect("a known code");
                        let phrase: &[u8] = if code == CloseCode::Kicked {
                            &KICK.to_be_bytes()
                        } else {
                            &[]
                        };
                        assert_eq!(close.reason, phrase);
                        End::Closed(code)
                    }
                    _ => End::Lost,
                });
            }
            _ => {}
        }
    }

    fn open(&mut self) {
        let bytes = match self.opening.take() {
            Some(Opening::Token(token, session, proof)) => {
                let mut frame = Vec::new();
                let proof = proof.sign(session, &token, self.pin);
                let hello = Hello {
                    proof,
                    ..Hello::new(token)
                };
                hello.encode(&mut frame).unwrap();
                frame
            }
            Some(Opening::Garbage(bytes)) => bytes,
            Some(Opening::Silence) | None => return,
        };
        let stream = self
            .quic
            .streams()
            .open(Dir::Bi)
            .expect("one stream is allowed");
        self.quic.send_stream(stream).write(&bytes).unwrap();
        self.stream = Some(stream);
    }

    fn read(&mut self, now: Instant, id: StreamId) {
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return;
        };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.reader.push(&chunk.bytes);
        }
        let _ = chunks.finalize();
        while let Some(frame) = self
            .reader
            .next(MAX_MESSAGE)
            .expect("the gateway's frames are well formed")
        {
            match frame {
                Frame::Welcome(welcome) => {
                    assert!(self.welcome.is_none(), "welcomed twice");
                    self.welcome = Some(welcome);
                    self.next_input = (!self.says_nothing).then_some(now);
                }
                Frame::Message(payload) => self.messages_received.push(payload),
                Frame::Hello(_) => panic!("a gateway never says Hello"),
            }
        }
    }

    /// Tells clients apart: where it was at first, as a number.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// An admitted client sends an input every 50 ms, and every tenth as a message.
    fn play(&mut self, now: Instant) {
        let due = self.next_input.is_some_and(|at| at <= now) && self.end.is_none();
        let (true, Some(stream)) = (due, self.stream) else {
            return;
        };
        self.inputs_sent += 1;
        // Its number tells a client's echoes from those of the connection whose seat it took over.
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&self.number().to_be_bytes());
        payload[4..].copy_from_slice(&self.inputs_sent.to_be_bytes());
        if self.inputs_sent.is_multiple_of(10) {
            let mut frame = Vec::new();
            crate::wire::encode_message(&payload, &mut frame).unwrap();
            let _ = self.quic.send_stream(stream).write(&frame);
        } else {
            let _ = self
                .quic
                .datagrams()
                .send(Bytes::copy_from_slice(&payload), true);
        }
        if self.floods {
            for _ in 0..FLOOD {
                let _ = self
                    .quic
                    .datagrams()
                    .send(Bytes::copy_from_slice(&payload), true);
            }
        }
        let pause = if self.floods { 10 } else { 50 };
        self.next_input = Some(now + Duration::from_millis(pause));
    }
}
