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
#[cfg(all(unix, feature = "redis"))]
#[path = "../src/store/redis/tests/server.rs"]
#[allow(
    clippy::expect_used,
    dead_code,
    reason = "other tests kill it and look into it"
)]
mod redis_server;
#[cfg(unix)]
#[path = "cli/roles.rs"]
mod roles;
#[cfg(unix)]
#[path = "cli/rotation.rs"]
mod rotation;
#[cfg(all(unix, feature = "redis"))]
#[path = "cli/two_sidecars.rs"]
mod two_sidecars;
