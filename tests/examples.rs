//! The examples of a game server, each run for a moment with a real client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::duplicate_mod,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

#[path = "../examples/embedded.rs"]
mod embedded;
#[path = "../examples/game_loop.rs"]
mod game_loop;
#[path = "../examples/stack/mod.rs"]
mod stack;
mod support;

use std::{fs, path::Path};

use support::{connect, endpoint, soon};
use tickgate::{
    client::{Account, Closed, Connection, Endpoint, Session, Target, Ticket},
    demo::protocol::{Input, Snapshot},
    role::dev::DevJson,
    tls,
    wire::CloseCode,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A player who finds the game as the example `bot` does.
struct Player {
    account: Account,
    session: Session,
    game: Target,
}

impl Player {
    async fn of(dev_json: &Path, name: &str) -> Self {
        let told: DevJson = serde_json::from_str(&fs::read_to_string(dev_json).unwrap()).unwrap();
        let ca = tls::load_certificates(&told.ca).unwrap();
        let account = Account::connect(&told.auth_url, &ca).unwrap();
        let session = soon("login", account.login_dev(name)).await.unwrap();
        let game = Target::Gateway(told.gateways[0].id.parse().unwrap());
        Self {
            account,
            session,
            game,
        }
    }

    async fn ticket(&self) -> Ticket {
        let ticket = self
            .account
            .issue_connect_token(&self.session, self.game.clone());
        soon("ticket", ticket).await.unwrap()
    }

    async fn join(&self, endpoint: &Endpoint) -> Connection {
        connect(endpoint, &self.ticket().await).await.unwrap()
    }
}

/// Steers to the right until a snapshot has acknowledged so many inputs.
async fn steers(connection: &Connection, inputs: u32) -> Snapshot {
    let steering = async {
        let mut sequence = 0;
        loop {
            sequence += 1;
            let input = Input {
                sequence,
                right: 100,
                up: 0,
            };
            let input = input.encode().to_vec().into();
            connection.send_datagram(input).unwrap();
            let datagram = connection.recv_datagram().await.unwrap();
            let snapshot = Snapshot::decode(&datagram).unwrap();
            if snapshot.received.newest >= inputs {
                return snapshot;
            }
        }
    };
    soon("snapshots", steering).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_game_loop_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let start = stack::Server::start(path, game_loop::RATE, game_loop::play);
    let server = soon("start", start).await.unwrap();
    let endpoint = endpoint();
    let ann = Player::of(&server.dev_json, "ann")
        .await
        .join(&endpoint)
        .await;
    let bob = Player::of(&server.dev_json, "bob")
        .await
        .join(&endpoint)
        .await;
    soon("message", ann.send_message(b"hello")).await.unwrap();
    assert_eq!(soon("answer", ann.recv_message()).await.unwrap(), "hello");
    for connection in [&ann, &bob] {
        let snapshot = steers(connection, 30).await;
        assert_eq!(snapshot.players, 2);
        assert!(snapshot.x > 0 && snapshot.y == 0, "{snapshot:?}");
    }
    // One leaves, and the other is told.
    bob.close();
    soon("leaving", async {
        while steers(&ann, 1).await.players > 1 {}
    })
    .await;

    let pace = soon("stop", server.stop()).await.unwrap();
    assert!(pace.ticks >= 60, "{pace:?}");
    match soon("close", ann.closed()).await {
        Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::Drained),
        other => panic!("{other:?}"),
    }
}

/// A service that asks the server about players.
struct Asking {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Asking {
    async fn at(address: std::net::SocketAddr) -> Self {
        let (reader, writer) = TcpStream::connect(address).await.unwrap().into_split();
        Self {
            lines: BufReader::new(reader).lines(),
            writer,
        }
    }

    async fn ask(&mut self, question: &str) -> String {
        let question = format!("{question}\n");
        self.writer.write_all(question.as_bytes()).await.unwrap();
        let answer = soon("an answer", self.lines.next_line()).await;
        answer.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_gateway_is_played_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    let start = embedded::Server::start(folder.path().to_owned());
    let server = soon("start", start).await.unwrap();
    let (ann, bob) = (
        Player::of(&server.dev_json, "ann").await,
        Player::of(&server.dev_json, "bob").await,
    );
    let mut service = Asking::at(server.questions).await;
    let session = ann.session.id;
    assert_eq!(service.ask(&format!("in {session}")).await, "no");

    // Asked about, a token is not used up.
    let ticket = ann.ticket().await;
    let whose = format!("whose {}", ticket.token.expose());
    let hers = format!("player {}, session {session}", ann.session.player);
    assert_eq!(service.ask(&whose).await, hers);
    assert_eq!(service.ask(&whose).await, hers);
    let endpoint = endpoint();
    let anns = connect(&endpoint, &ticket).await.unwrap();
    let bobs = bob.join(&endpoint).await;
    assert_eq!(service.ask(&format!("in {session}")).await, "yes");
    assert_eq!(service.ask("in nobody").await, "no");
    assert_eq!(service.ask("whose nonsense").await, "malformed");

    // Bob's first word may come in the frame before the one that seats Ann: he says it until she hears it.
    soon("a word", async {
        bobs.send_message(b"hello").await.unwrap();
        assert_eq!(anns.recv_message().await.unwrap(), "hello");
        assert_eq!(bobs.recv_message().await.unwrap(), "hello");
    })
    .await;

    anns.close();
    soon("her end", async {
        while service.ask(&format!("in {session}")).await == "yes" {}
    })
    .await;
    soon("stop", server.stop()).await.unwrap();
    assert!(bobs.closed().await.code() == Some(CloseCode::Drained));
}
