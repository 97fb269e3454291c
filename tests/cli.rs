//! The program as its users meet it: real processes, their output, files and exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy exempts test functions alone, and their helpers fail likewise"
)]

#[path = "cli/files.rs"]
mod files;
#[cfg(unix)]
#[path = "cli/operators.rs"]
mod operators;
#[path = "cli/process.rs"]
mod process;
#[cfg(unix)]
#[path = "cli/roles.rs"]
mod roles;
#[cfg(unix)]
#[path = "cli/rotation.rs"]
mod rotation;
