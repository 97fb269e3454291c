//! The world on its own thread, tick after tick, on the simulation's end of a gateway.

use std::{io, num::NonZeroU32, thread};

use tokio_util::sync::CancellationToken;

use super::{Out, Received, Stats, World};
use crate::{
    clock::Clock,
    gateway::{Channel, Exchange, Outbox, Pace, Simulation, Ticker},
    seat::Handle,
};

/// The demo world's rate, in ticks per second.
pub const RATE: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// How often the loop says that it cannot hold its rate, in seconds, if it cannot.
const COMPLAIN_EVERY: u64 = 10;

/// What a world's loop looks back on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// How well the rate was held.
    pub pace: Pace,
    /// What the world has seen.
    pub world: Stats,
}

/// Starts a thread that plays the demo world until `stop` is cancelled; join it for what it looks back on.
///
/// # Errors
/// When the operating system gives no thread.
pub fn spawn(
    simulation: Simulation,
    rate: NonZeroU32,
    clock: Clock,
    stop: CancellationToken,
) -> io::Result<thread::JoinHandle<Summary>> {
    thread::Builder::new()
        .name("demo-world".into())
        .spawn(move || run(simulation, rate, &clock, &stop))
}

/// Plays the demo world on this thread until `stop` is cancelled, which it notices within a tick.
///
/// `rate` is in ticks per second. `clock` paces the loop, which sleeps in real time: pass the system's, whatever clock the gateway
/// has.
pub fn run(
    mut simulation: Simulation,
    rate: NonZeroU32,
    clock: &Clock,
    stop: &CancellationToken,
) -> Summary {
    let mut world = World::new();
    let mut ticker = Ticker::with_clock(rate, clock.clone());
    let lap = COMPLAIN_EVERY * u64::from(rate.get());
    while !stop.is_cancelled() {
        ticker.wait();
        let exchange = simulation.tick();
        let is_lap = exchange.tick.0.is_multiple_of(lap);
        step(&mut world, exchange);
        if is_lap {
            complain(rate, &ticker.lap());
        }
    }
    let summary = Summary {
        pace: ticker.pace(),
        world: world.stats(),
    };
    tracing::info!(?summary, "the demo world has stopped");
    summary
}

/// One tick of the world on what the gateway brought.
pub fn step(world: &mut World, exchange: Exchange<'_>) {
    let Exchange {
        tick,
        changes,
        inputs,
        seats,
        mut out,
        ..
    } = exchange;
    let inputs = inputs.iter().map(|input| {
        let received = match input.channel {
            Channel::Datagram => Received::Datagram(input.payload),
            Channel::Message => Received::Message(input.payload),
        };
        (input.handle, received)
    });
    let verify = |handle| seats.verify(handle);
    world.step(tick, changes, inputs, verify, &mut out);
}

impl Out for Outbox<'_> {
    fn datagram(&mut self, to: Handle, payload: &[u8]) -> bool {
        Outbox::datagram(self, to, payload)
    }

    fn message(&mut self, to: Handle, payload: &[u8]) -> bool {
        Outbox::message(self, to, payload)
    }
}

/// Says that ticks were left out, if any were.
fn complain(rate: NonZeroU32, pace: &Pace) {
    let Pace {
        ticks: _,
        overruns,
        skipped,
        jitter,
    } = *pace;
    if skipped > 0 {
        let (p99, max) = (jitter.p99, jitter.max);
        tracing::warn!(skipped, overruns, late_p99 = ?p99, late_max = ?max, %rate, "the demo world cannot hold its rate");
    }
}
