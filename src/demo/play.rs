//! The world on its own thread, tick after tick, on the simulation's end of a gateway.

use std::{io, num::NonZeroU32, thread};

use tokio_util::sync::CancellationToken;

use super::{Metronome, Out, Pace, Received, Stats, World};
use crate::{
    clock::Clock,
    gateway::{Channel, Exchange, Outbox, Simulation},
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
#[expect(
    clippy::disallowed_methods,
    reason = "a game loop waits for nothing but the time of its next tick"
)]
pub fn run(
    mut simulation: Simulation,
    rate: NonZeroU32,
    clock: &Clock,
    stop: &CancellationToken,
) -> Summary {
    let mut world = World::new();
    let mut metronome = Metronome::new(clock.now(), rate);
    let mut told = Pace::default();
    while !stop.is_cancelled() {
        thread::sleep(metronome.wait(clock.now()));
        step(&mut world, simulation.tick());
        told = complain(rate, told, metronome.pace());
    }
    let summary = Summary {
        pace: metronome.pace(),
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

/// Says from time to time that ticks were left out, if any were since it was said last; gives what has been told now.
fn complain(rate: NonZeroU32, told: Pace, pace: Pace) -> Pace {
    if pace.ticks - told.ticks < COMPLAIN_EVERY * u64::from(rate.get()) {
        return told;
    }
    let skipped = pace.skipped - told.skipped;
    if skipped > 0 {
        let overruns = pace.overruns - told.overruns;
        tracing::warn!(skipped, overruns, %rate, "the demo world cannot hold its rate");
    }
    pace
}
