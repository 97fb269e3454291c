//! What must hold however the steps of several threads on one seat table fall: every interleaving with three stops in the middle of
//! something, and every value that a load may return by C11's rules, stale ones too.
//!
//! Each check is a few calls on a table of one or two seats. Beside it stand the bugs that it was seen to find: planted in the table, they
//! must break it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test: its helpers may fail as its tests do"
)]

mod activity;
mod arena;
mod ends;
mod revocation;
mod slots;
