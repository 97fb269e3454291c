//! The gateway inside a server that is there already: a tokio program with a world on a thread of its own, and a line service by
//! which other services ask about players.
//!
//! ```text
//! cargo run --release --example embedded        in one terminal: with a sidecar of its own; says how to join and where to ask
//! cargo run --release --example bot -- PATH     in another: sends a player in, and says its session
//! nc 127.0.0.1 PORT                             and ask:  in SESSION  or  whose TOKEN
//! ```
#![allow(clippy::print_stdout)] // It is a program for people to look at.

mod stack;

use std::{
    collections::BTreeSet, net::SocketAddr, num::NonZeroU32, path::PathBuf, thread, time::Duration,
};

use stack::Stack;
use tickgate::{
    clock::Clock,
    control,
    gateway::{Channel, Exchange, Gateway, SessionVerifier, Simulation},
    seat::{Handle, SeatChange},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

const FRAMES: NonZeroU32 = NonZeroU32::new(30).unwrap();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Server::start(".tickgate/embedded".into()).await?;
    println!(
        "join with: cargo run --release --example bot -- {}",
        server.dev_json.display()
    );
    println!("ask at: {}", server.questions);
    tokio::signal::ctrl_c().await?;
    server.stop().await
}

/// Everything that runs.
pub(crate) struct Server {
    pub(crate) dev_json: PathBuf,
    pub(crate) questions: SocketAddr,
    stack: Stack,
    gateway: Gateway,
    tasks: JoinSet<()>,
    world: thread::JoinHandle<()>,
    stop: CancellationToken,
}

impl Server {
    pub(crate) async fn start(folder: PathBuf) -> anyhow::Result<Self> {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());

        // The gateway has a thread of its own for its socket. The server keeps one end, and the world gets the other.
        let stack = Stack::start(folder, "embedded").await?;
        let config = stack.gateway_config()?.ticking_at(FRAMES);
        let (gateway, simulation) = Gateway::start(config)?;

        // The control channel is a task of the server's runtime.
        let (channel, host) = (stack.channel()?, gateway.host());
        let control = control::gateway::run(channel, host, Clock::system(), stop.clone());
        tasks.spawn(async move { println!("the control channel has ended: {:?}", control.await) });

        // The world runs as it always has, and has one call more in each frame.
        let stopped = stop.clone();
        let world = thread::spawn(move || World::default().run(simulation, &stopped));

        // Whoever else wants to know asks a verifier: cheap to clone, and good on any thread.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let questions = listener.local_addr()?;
        let service = stop
            .clone()
            .run_until_cancelled_owned(serve(listener, gateway.verifier()));
        tasks.spawn(async move {
            let _ = service.await;
        });

        let dev_json = stack.announce(&gateway).await?;
        Ok(Self {
            dev_json,
            questions,
            stack,
            gateway,
            tasks,
            world,
            stop,
        })
    }

    /// First the connections, then everything that served them.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        spawn_blocking(move || self.gateway.shutdown()).await?;
        self.stop.cancel();
        self.tasks.join_all().await;
        let world = spawn_blocking(move || self.world.join()).await?;
        world.map_err(|_| anyhow::anyhow!("the world has panicked"))?;
        self.stack.stop().await
    }
}

/// The server's world: a room in which everybody hears what anybody says.
#[derive(Default)]
struct World {
    present: BTreeSet<Handle>,
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "this loop was there before, with a pace of its own"
    )]
    fn run(mut self, mut simulation: Simulation, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            // Whatever else there is to a frame of this world, and:
            self.exchange(simulation.tick());
            thread::sleep(Duration::from_secs(1) / FRAMES.get());
        }
    }

    /// What Tickgate brings and takes in a frame.
    fn exchange(&mut self, exchange: Exchange<'_>) {
        let Exchange {
            changes,
            inputs,
            seats,
            mut out,
            ..
        } = exchange;
        for change in changes {
            match change {
                SeatChange::Joined(joined) => _ = self.present.insert(joined.handle),
                SeatChange::Ended { handle, .. } => _ = self.present.remove(handle),
                SeatChange::Suspended { .. } | SeatChange::Resumed { .. } => {}
            }
        }
        for said in inputs
            .iter()
            .filter(|input| input.channel == Channel::Message)
        {
            // Who was thrown out a moment ago has nothing more to say, although it was on its way.
            if seats.verify(said.handle).is_live() {
                for listener in &self.present {
                    out.message(*listener, said.payload);
                }
            }
        }
    }
}

/// Answers questions, each connection on whichever thread the runtime has.
async fn serve(listener: TcpListener, verifier: impl SessionVerifier + Clone + 'static) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        connections.spawn(answer(connection, verifier.clone()));
        while connections.try_join_next().is_some() {} // Those who have asked enough.
    }
}

async fn answer(connection: TcpStream, verifier: impl SessionVerifier) -> std::io::Result<()> {
    let (reader, mut writer) = connection.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match line.split_once(' ') {
            Some(("in", jti)) if verifier.is_session_authorized(jti, 0) => "yes".to_owned(),
            Some(("in", _)) => "no".to_owned(),
            Some(("whose", token)) => match verifier.verify_session(token, 0) {
                Ok(verified) => format!("player {}, session {}", verified.player, verified.session),
                Err(error) => error.label().to_owned(),
            },
            _ => "ask: in SESSION, or whose TOKEN".to_owned(),
        };
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}
