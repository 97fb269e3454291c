//! A player for a development stack: logs in, flies in circles for ten seconds, and tells what it sees. It stays in the game: restart
//! the stack's gateway under it, or let its session be refreshed, and it plays on.
//!
//! ```text
//! cargo run --release -- dev                          in one terminal: says where its dev.json is
//! cargo run --release --example bot -- path/dev.json  in another, as often as you like
//! ```
#![allow(clippy::print_stdout)] // It is a program for people to look at.
#![expect(clippy::disallowed_methods, reason = "a bot lives in real time")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::Deserialize;
use tickgate::{
    client::{
        Account, Endpoint, Event, Events, Play, PlayOptions, SendError, SessionKeeper, Target,
    },
    demo::protocol::{Input, Snapshot, WORLD_SIZE},
    id::GatewayId,
    tls,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Inputs per second.
const HZ: u64 = 30;
const PLAYS_FOR: Duration = Duration::from_secs(10);

/// What this program needs of dev.json.
#[derive(Deserialize)]
struct Stack {
    auth_url: String,
    ca: PathBuf,
    gateways: Vec<Gateway>,
}

#[derive(Deserialize)]
struct Gateway {
    id: String,
    #[serde(default)]
    demo: bool,
}

impl Stack {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            let path = path.display();
            format!("cannot read {path}: is `tickgate dev` running, and is this its dev.json?")
        })?;
        let mut stack: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no dev.json", path.display()))?;
        // A relative path counts from the file that names it.
        if let Some(directory) = path.parent() {
            stack.ca = directory.join(&stack.ca);
        }
        Ok(stack)
    }

    /// The gateway that plays the demo world; the other one of a development stack admits nobody.
    fn demo_gateway(&self) -> anyhow::Result<GatewayId> {
        let demo = self.gateways.iter().find(|gateway| gateway.demo);
        let demo = demo.context("no gateway of this stack plays the demo world")?;
        Ok(demo.id.parse()?)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1);
    let path = path.context("usage: bot PATH/TO/dev.json (`tickgate dev` writes it)")?;
    let stack = Stack::read(Path::new(&path))?;
    let target = Target::Gateway(stack.demo_gateway()?);

    let account = Account::connect(&stack.auth_url, &tls::load_certificates(&stack.ca)?)?;
    let session = account
        .login_dev(&format!("bot-{}", std::process::id()))
        .await?;
    println!(
        "logged in as player {}, session {}",
        session.player, session.id
    );

    let endpoint = Endpoint::bind(([0, 0, 0, 0], 0).into())?;
    let keeper = SessionKeeper::new(account, session);
    let (game, events) = Play::start(endpoint.clone(), keeper, target, PlayOptions::default());
    let outcome = play(&game, events).await;
    game.leave().await;
    endpoint.shutdown().await;
    outcome
}

/// Steers, and tells what happens, and once a second what it sees.
async fn play(game: &Play, mut events: Events) -> anyhow::Result<()> {
    let end = sleep_until(Instant::now() + PLAYS_FOR);
    tokio::pin!(end);
    let mut inputs = interval(Duration::from_millis(1_000 / HZ));
    inputs.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sequence = 0;
    let mut snapshots = 0;
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            Some(event) = events.next() => {
                show(&event);
                match event {
                    Event::Joined { resumed: false, .. } => greet(game).await?,
                    Event::Ended { reason, .. } => return Err(reason.into()),
                    _ => {}
                }
            }
            _ = inputs.tick() => {
                let (right, up) = heading(sequence + 1);
                let input = Input { sequence: sequence + 1, right, up }.encode();
                match game.send_datagram(input.to_vec().into()) {
                    Ok(()) => sequence += 1,
                    // On its way, in or back: the event says so.
                    Err(SendError::Away | SendError::Closed(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            datagram = game.recv_datagram() => {
                snapshots += 1;
                let snapshot = Snapshot::decode(&datagram?)?;
                if snapshots % HZ == 0 {
                    tell(&snapshot, sequence);
                }
            }
        }
    }
}

/// What a game would show to its player.
fn show(event: &Event) {
    match event {
        Event::Connecting { attempt } => println!("connecting (attempt {attempt})"),
        Event::Joined {
            client,
            gateway,
            resumed,
        } => {
            let how = if *resumed { "back in" } else { "in" };
            println!("{how} at {gateway} as client {client}");
        }
        Event::Lost { reason, retry_in } => println!("{reason}; again in {retry_in:.1?}"),
        Event::Waiting { reason, retry_in } => {
            println!("not in: {reason}; again in {retry_in:.1?}")
        }
        Event::Ended { reason, advice } => println!("over: {reason} (advice: {})", advice.label()),
        other => println!("{}", other.label()),
    }
}

/// The world sends messages back as they are.
async fn greet(game: &Play) -> anyhow::Result<()> {
    game.send_message(b"hello, world").await?;
    let echo = game.recv_message().await?;
    println!("the world says: {}", String::from_utf8_lossy(&echo));
    Ok(())
}

/// Once around in three seconds.
fn heading(sequence: u32) -> (i8, i8) {
    let turns = f64::from(sequence) / (3.0 * HZ as f64);
    let (up, right) = (turns * std::f64::consts::TAU).sin_cos();
    ((right * 127.0) as i8, (up * 127.0) as i8)
}

fn tell(snapshot: &Snapshot, sequence: u32) {
    let per_mille = |position: i32| i64::from(position) * 1_000 / i64::from(WORLD_SIZE);
    println!(
        "tick {}: at ({}, {}) of 1000, {} players in the world, {} nearby, {} inputs unanswered",
        snapshot.tick.0,
        per_mille(snapshot.x),
        per_mille(snapshot.y),
        snapshot.players,
        snapshot.others().len(),
        sequence.wrapping_sub(snapshot.received.newest),
    );
}
