//! An authoritative game loop at 60 Hz: who came and went, who may stay, what each player sent, and the answers.
//!
//! ```text
//! cargo run --release --example game_loop       in one terminal: with a sidecar of its own; says how to join
//! cargo run --release --example bot -- PATH     in another, as often as you like
//! ```
#![allow(clippy::print_stdout)] // It is a program for people to look at.

mod stack;

use std::{collections::BTreeMap, num::NonZeroU32};

use tickgate::{
    demo::protocol::{Input, Received, Snapshot},
    gateway::{Channel, Pace, Simulation, Ticker},
    seat::{Answers, Handle, SeatChange},
};
use tokio_util::sync::CancellationToken;

pub(crate) const RATE: NonZeroU32 = NonZeroU32::new(60).unwrap();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = stack::Server::start(".tickgate/game_loop".into(), RATE, play).await?;
    let path = server.dev_json.display();
    println!("join with: cargo run --release --example bot -- {path}");
    tokio::signal::ctrl_c().await?;
    println!("{:#?}", server.stop().await?);
    Ok(())
}

#[derive(Default)]
struct Player {
    position: (i32, i32),
    thrust: (i8, i8),
    received: Option<Received>,
}

/// The whole game, on one thread: it takes no lock, awaits nothing, and waits for nobody but the next tick.
pub(crate) fn play(mut simulation: Simulation, stop: &CancellationToken) -> Pace {
    let mut ticker = Ticker::new(RATE);
    let mut players = BTreeMap::<Handle, Player>::new();
    let (mut seated, mut answers, mut bytes) = (Vec::new(), Answers::default(), Vec::new());
    while !stop.is_cancelled() {
        ticker.wait();
        let mut exchange = simulation.tick();
        for change in exchange.changes {
            match change {
                SeatChange::Joined(it) => _ = players.insert(it.handle, Player::default()),
                SeatChange::Ended { handle, .. } => _ = players.remove(handle),
                SeatChange::Suspended { .. } => {} // Away for a moment: verify says so.
                SeatChange::Resumed { handle, .. } => {
                    let player = players.entry(*handle).or_default();
                    player.received = None; // Back in its seat, it counts its inputs anew.
                }
            }
        }
        // May they stay? Asked of everybody on every tick: it costs some nanoseconds each.
        seated.clear();
        seated.extend(players.keys());
        exchange.seats.verify_batch(&seated, &mut answers);
        let count = seated.len() as u32;
        let live = (0..)
            .zip(&mut players)
            .filter(|(index, _)| answers.is_live(*index));
        for (_, (handle, player)) in live {
            for input in exchange.inputs.of(*handle) {
                match input.channel {
                    Channel::Datagram => steer(player, input.payload),
                    Channel::Message => _ = exchange.out.message(*handle, input.payload),
                }
            }
            player.position.0 += i32::from(player.thrust.0);
            player.position.1 += i32::from(player.thrust.1);
            if let Some(received) = player.received {
                bytes.clear();
                Snapshot::new(exchange.tick, received, player.position, count).encode(&mut bytes);
                exchange.out.datagram(*handle, &bytes);
            }
        }
    }
    ticker.pace()
}

/// The client says where to, and the game moves it: it is never told a position.
fn steer(player: &mut Player, datagram: &[u8]) {
    if let Ok(input) = Input::decode(datagram) {
        let received = player
            .received
            .get_or_insert(Received::first(input.sequence));
        received.note(input.sequence);
        player.thrust = (input.right, input.up);
    }
}
