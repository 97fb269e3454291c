//! The demo world that `tickgate dev` and the load generator play: a plane on which players steer, 60 times a second.
//!
//! Each input datagram is answered at the next tick with a snapshot that acknowledges it, a message is sent back as it came, and
//! every seat is verified every tick. [`protocol`] has the bytes, [`World`] the rules (no I/O, no clock, no allocation in steady state),
//! and [`spawn`] plays it on a thread of its own. It is also an example of how a game uses the gateway.

mod neighbours;
mod play;
pub mod protocol;
#[cfg(test)]
mod tests;
mod world;

pub use play::{RATE, Summary, run, spawn, step};
pub use world::{Out, Received, Stats, World};
