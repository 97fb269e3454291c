//! Tickgate: a session gateway for real-time games over QUIC.
//!
//! It answers two questions for a game server: *may this client in?* (once, on the handshake) and *may it stay?* (every tick, for
//! every seat). docs/ARCHITECTURE.md says how the parts hang together.
//!
//! ```text
//! UDP batch ─► worker ─► gateway core: gate ─► admit ───────► rings ─► simulation tick ─► outbox ─► core ─► UDP batch
//!                                       │ open token            │ touch        │ verify(handle)
//!                                       ▼                       ▼              ▼
//!                                  single-use              seat table ◄── tick pass: ends, activity due ──► control ──► sidecar ─► store
//!                                   history                     ▲                                               │
//!                                                               └──────────── revocations, keys ◄───────────────┘
//! ```

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "certs")]
pub mod certs;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "rpc")]
pub mod control;
#[cfg(all(feature = "gateway", feature = "client"))]
pub mod demo;
#[cfg(all(feature = "cli", any(test, feature = "fuzzing")))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod id;
#[cfg(feature = "rpc")]
pub mod proto;
#[cfg(feature = "cli")]
pub mod role;
#[cfg(feature = "rpc")]
pub mod rpc;
pub mod seat;
#[cfg(test)]
mod seeds;
#[cfg(feature = "sidecar")]
pub mod sidecar;
#[cfg(feature = "sidecar")]
pub mod store;
pub mod tls;
pub mod token;
#[cfg(any(feature = "gateway", feature = "client"))]
mod udp;
pub mod wire;

/// The README's example compiles.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
struct Readme;
