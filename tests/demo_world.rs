//! The demo world on a real gateway, played by the client library over loopback; only the sidecar is played by the test.
// Clippy takes only #[test] functions for tests; this whole file is one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use tickgate::{
    certs,
    client::{Closed, Connection, Endpoint, SecretToken, Ticket},
    clock::Clock,
    control::CarriedKey,
    demo::{self, protocol},
    gateway::{Gateway, GatewayConfig},
    id::{ClientId, GatewayId, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
    wire::CloseCode,
};
use tokio_util::sync::CancellationToken;

/// A gateway that plays the demo world.
struct Stage {
    gateway: Gateway,
    world: std::thread::JoinHandle<demo::Summary>,
    stop: CancellationToken,
    id: GatewayId,
    key: TransportKey,
    certificate: [u8; 32],
}

impl Stage {
    fn open() -> Self {
        let id: GatewayId = "stage".parse().unwrap();
        let identity = certs::quic_identity("stage.test").unwrap();
        let certificate = identity.fingerprint();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = GatewayConfig::new(id.clone(), listen, identity);
        let (gateway, mut simulation) = Gateway::start(config).unwrap();
        let key = TransportKey::generate();
        gateway.host().install_keys(&[CarriedKey {
            epoch: 0,
            key: Bytes::copy_from_slice(key.expose()),
        }]);
        gateway.host().reset_log(Lineage(1), Revision(0), &[]);
        let hour = Duration::from_secs(3_600);
        gateway.host().attached(Clock::system().wall(), hour);
        // Nobody is admitted before the first tick; so it is done before anybody comes.
        drop(simulation.tick());
        let stop = CancellationToken::new();
        let clock = Clock::system();
        let world = demo::spawn(simulation, demo::RATE, clock, stop.clone()).unwrap();
        Self {
            gateway,
            world,
            stop,
            id,
            key,
            certificate,
        }
    }

    /// A ticket for a player of this number.
    fn ticket(&self, number: u64) -> Ticket {
        let now = Clock::system().wall();
        let claims = ConnectClaims {
            player: PlayerId(number.into()),
            session: SessionId(number.into()),
            player_generation: PlayerGeneration(0),
            client: ClientId(number),
            nonce: Nonce::random(),
            gateway: self.id.clone(),
            revision: Revision(0),
            session_ends_at: now.after(Duration::from_secs(3_600)),
            client_key: None,
            issued_at: now,
            expires_at: now.after(Duration::from_secs(30)),
        };
        Ticket {
            token: SecretToken::new(seal_connect(&self.key, &claims)),
            expires_at: claims.expires_at,
            gateway: self.id.clone(),
            addresses: vec![self.gateway.local_addr()],
            server_name: "stage.test".to_owned(),
            certificate_sha256: vec![self.certificate],
            session: claims.session,
        }
    }

    fn close(self) -> demo::Summary {
        self.stop.cancel();
        self.world.join().unwrap()
    }
}

/// Everything here takes a few ticks; a test that hangs shall fail.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(20);
    tokio::time::timeout(deadline, future)
        .await
        .expect("a test hangs")
}

fn endpoint() -> Endpoint {
    Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// Sends inputs, each once those before it are acknowledged, and gives the last snapshot.
async fn play(connection: &Connection, sequences: std::ops::Range<u32>) -> protocol::Snapshot {
    let mut last = None;
    for sequence in sequences {
        let input = protocol::Input {
            sequence,
            right: 100,
            up: 0,
        };
        connection
            .send_datagram(input.encode().to_vec().into())
            .unwrap();
        let datagram = connection.recv_datagram().await.unwrap();
        let snapshot = protocol::Snapshot::decode(&datagram).unwrap();
        assert!(snapshot.received.contains(sequence));
        last = Some(snapshot);
    }
    last.unwrap()
}

#[tokio::test]
async fn players_are_answered_see_each_other_and_leave() {
    let stage = Stage::open();
    let local = endpoint();
    let mut connections = Vec::new();
    for number in 0..4 {
        // Born at the same place: only the lowest bits differ.
        let connection = soon(local.connect(&stage.ticket(number))).await.unwrap();
        assert_eq!(connection.welcome().client, ClientId(number));
        connections.push(connection);
    }
    for connection in &connections {
        let snapshot = soon(play(connection, 0..10)).await;
        assert_eq!(snapshot.players, 4);
        soon(connection.send_message(b"hello")).await.unwrap();
        assert_eq!(soon(connection.recv_message()).await.unwrap(), "hello");
    }
    let stays = connections.remove(0);
    let gone: BTreeSet<u64> = connections.iter().map(|c| c.welcome().client.0).collect();
    assert_eq!(gone, BTreeSet::from([1, 2, 3]));
    drop(connections);
    // They close at once, and the world hears of it within a tick or two.
    let mut sequence = 10;
    soon(async {
        while play(&stays, sequence..sequence + 1).await.players > 1 {
            sequence += 1;
        }
    })
    .await;
    let summary = stage.close();
    assert_eq!(summary.world.most_players, 4);
    assert_eq!((summary.world.malformed, summary.world.unsent), (0, 0));
    assert!(summary.world.live >= summary.world.snapshots);
}

#[tokio::test]
async fn a_token_admits_once_and_the_newest_connection_keeps_the_seat() {
    let stage = Stage::open();
    let local = endpoint();
    let ticket = stage.ticket(7);
    let first = soon(local.connect(&ticket)).await.unwrap();
    let again = soon(local.connect(&ticket)).await.unwrap_err();
    assert_eq!(again.label(), CloseCode::TokenUsed.label());

    soon(play(&first, 500..503)).await;
    let second = soon(local.connect(&stage.ticket(7))).await.unwrap();
    assert!(second.welcome().resumed);
    let closed: Closed = soon(first.closed()).await;
    assert_eq!(closed.code(), Some(CloseCode::Superseded));
    let snapshot = soon(play(&second, 0..3)).await;
    assert_eq!(snapshot.players, 1);
    stage.close();
}
