//! The sidecar over real gRPC and real TLS on loopback: what it answers, whom it refuses, and what a restart keeps.
#![cfg(feature = "sidecar")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers may fail as its tests do"
)]

#[path = "sidecar/admin.rs"]
mod admin;
#[cfg(unix)]
#[path = "sidecar/api.rs"]
mod api;
#[cfg(feature = "cli")]
#[path = "sidecar/audit.rs"]
mod audit;
#[path = "sidecar/auth.rs"]
mod auth;
#[path = "sidecar/fixture.rs"]
mod fixture;
#[path = "sidecar/issuer.rs"]
mod issuer;
#[path = "sidecar/links.rs"]
mod links;
#[path = "sidecar/login.rs"]
mod login;
#[path = "sidecar/manners.rs"]
mod manners;
#[path = "sidecar/oidc.rs"]
mod oidc;
#[cfg(feature = "redis")]
#[path = "sidecar/races.rs"]
mod races;
#[cfg(feature = "redis")]
#[path = "../src/store/redis/tests/server.rs"]
#[allow(dead_code, reason = "the store's own tests use all of it")]
mod redis_server;
#[path = "sidecar/refresh.rs"]
mod refresh;
#[path = "sidecar/relay.rs"]
mod relay;
#[path = "sidecar/running.rs"]
mod running;
#[cfg(feature = "redis")]
#[path = "sidecar/shared.rs"]
mod shared;
#[path = "sidecar/ways.rs"]
mod ways;
