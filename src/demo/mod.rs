//! The demo world that `tickgate dev` and the load generator play: a plane on which players steer, 60 times a second.
//!
//! Each input datagram is answered at the next tick with a snapshot that acknowledges it, a message is sent back as it came, and
//! every seat is verified every tick. [`protocol`] has the bytes, [`World`] the rules (no I/O, no clock, no allocation in steady state),
//! [`Metronome`] the ticks, and [`spawn`] puts them together on a thread of their own. It is also an example of how a game uses the gateway.

mod metronome;
mod neighbours;
mod play;
pub mod protocol;
#[cfg(test)]
mod tests;
mod world;

pub use metronome::{Metronome, Pace};
pub use play::{RATE, Summary, run, spawn, step};
pub use world::{Out, Received, Stats, World};
