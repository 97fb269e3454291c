//! The bot of a game without async: a loop with frames, and calls that return at once.
//!
//! ```text
//! cargo run --release -- dev                                   in one terminal: says where its dev.json is
//! cargo run --release --example blocking_bot -- path/dev.json  in another
//! ```
#![allow(clippy::print_stdout)] // It is a program for people to look at.
#![expect(clippy::disallowed_methods, reason = "a bot lives in real time")]

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tickgate::{
    client::{
        Event, SendError, Target,
        blocking::{Client, Player, Settings},
    },
    demo::protocol::{Input, Snapshot},
    tls,
};

/// Frames per second.
const HZ: u32 = 60;
const PLAYS_FOR: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1);
    let path = path.context("usage: blocking_bot PATH/TO/dev.json (`tickgate dev` writes it)")?;
    let mut client = Client::start(settings(Path::new(&path))?)?;

    let end = Instant::now() + PLAYS_FOR;
    let mut sequence = 0;
    while Instant::now() < end {
        while let Some(event) = client.poll_event() {
            match event {
                Event::Joined { client, .. } => println!("in as client {client}"),
                Event::Lost { reason, .. } => println!("{reason}; trying to come back"),
                Event::Ended { reason, advice } => bail!("{reason} (advice: {})", advice.label()),
                other => println!("{}", other.label()),
            }
        }
        while let Some(datagram) = client.recv_datagram() {
            let snapshot = Snapshot::decode(&datagram)?;
            if sequence % HZ == 0 {
                let (tick, x, y) = (snapshot.tick.0, snapshot.x, snapshot.y);
                println!("tick {tick}: at ({x}, {y}), {} players", snapshot.players);
            }
        }
        let input = Input {
            sequence: sequence + 1,
            right: 100,
            up: 0,
        };
        match client.send_datagram(&input.encode()) {
            Ok(()) => sequence += 1,
            // On its way, in or back: the event says so.
            Err(SendError::Away | SendError::Closed(_) | SendError::Over) => {}
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_secs(1) / HZ);
    }
    client.close();
    Ok(())
}

/// Where to play, from what a development stack says of itself.
fn settings(path: &Path) -> anyhow::Result<Settings> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}: is `tickgate dev` running?", path.display()))?;
    let stack: serde_json::Value = serde_json::from_str(&text)?;
    let url = stack["auth_url"]
        .as_str()
        .context("no auth_url in dev.json")?;
    let ca = stack["ca"].as_str().context("no ca in dev.json")?;
    let gateways = stack["gateways"]
        .as_array()
        .context("no gateways in dev.json")?;
    let demo = gateways.iter().find(|gateway| gateway["demo"] == true);
    let id = demo.and_then(|gateway| gateway["id"].as_str());
    let target = Target::Gateway(id.context("no gateway plays the demo world")?.parse()?);
    let player = Player::Dev(format!("bot-{}", std::process::id()));
    Ok(Settings::new(
        url,
        tls::load_certificates(Path::new(ca))?,
        player,
        target,
    ))
}
