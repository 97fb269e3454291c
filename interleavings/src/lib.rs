//! The seat table on loom's atomics and locks: the very files that the gateway is built from, with another `seat/sync.rs` beneath them.
//! `tests/` runs them through their interleavings.

// Its own tests need the standard library's atomics: the package tickgate runs them.
#![cfg(not(test))]
#![allow(
    dead_code,
    reason = "of the clock and of ids the seat table uses a part; the package tickgate holds the rest to use"
)]

#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/id.rs"]
pub mod id;
#[path = "../../src/seat/mod.rs"]
pub mod seat;
