//! Thousands of game clients on one thread.
//!
//! [`Endpoint`](super::Endpoint) gives each client tasks, wakers and locks, which is right for a game and dear for a crowd: who measures a
//! server with it measures the clients. A fleet is a plain loop over quinn-proto, as the gateway's worker is, without any of that: no
//! runtime, no task and no allocation for a client that just plays. It has two layers:
//!
//! - [`Fleet`] speaks QUIC and knows nothing of Tickgate. It connects to any QUIC server.
//! - [`Players`] speaks Tickgate on top of it: tickets, Welcome, messages, and what an end means.
//!
//! # The loop
//!
//! Nothing happens but in [`Fleet::turn`], and nothing is called back: what has happened is polled for. So a caller is a loop that says what
//! is due, takes a turn until the next thing is, and looks what has come.
//!
//! ```no_run
//! use std::time::Duration;
//! use tickgate::client::fleet::{Fleet, FleetConfig, Server, Transport, What};
//!
//! # fn run(tls: rustls::ClientConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::new("127.0.0.1:7777".parse()?, "game.example", tls, &Transport::default())?;
//! let mut fleet = Fleet::new(FleetConfig::default())?;
//! for _ in 0..1_000 {
//!     fleet.connect(&server)?;
//! }
//! let until = fleet.clock().now() + Duration::from_secs(10);
//! while fleet.clock().now() < until && fleet.open() > 0 {
//!     fleet.turn(until)?;
//!     while let Some(event) = fleet.poll() {
//!         match event.what {
//!             What::Connected => fleet.send_datagram(event.member, b"hello")?,
//!             // An echo of the echo, for ten seconds.
//!             What::Datagram(payload) => fleet.send_datagram(event.member, &payload)?,
//!             What::Closed(end) => println!("{}", end.label()),
//!             _ => {}
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - **Sending is queueing.** [`send_datagram`](Fleet::send_datagram) and the others only tell quinn-proto; the packets leave in the next
//!   turn, all together. A turn begins with that, so who sends what is due and takes a turn has sent it.
//! - **A turn ends at its deadline, to a fraction of a millisecond, or earlier when there are events.** So a sender that has a schedule gives
//!   the next due instant.
//! - **[`Event::at`] is when the packet was read** off its socket, whenever the caller takes the event.
//! - **Nothing grows with what a server sends.** Events are not queued: a client's datagrams and stream bytes stay in its connection's bounded
//!   buffers until they are polled for.
//!
//! # Addresses
//!
//! Clients share some sockets ([`FleetConfig::sockets`]), from source addresses of the caller's choice. A client may change its socket while it
//! is connected ([`Fleet::move_to`], [`Fleet::rebind`]), with its knowledge or without, and a socket its port ([`Fleet::renew`]): what QUIC calls
//! migration, and what phones and routers do all day.
//!
//! # What it measures
//!
//! To a server, a client of a fleet looks like one of [`Endpoint`](super::Endpoint)'s: the same transport parameters, one packet of one client at a
//! time. Packets of different clients could leave in one system call; they do not, since a server that receives them so would look
//! cheaper than it is.

mod config;
mod core;
mod driver;
mod event;
mod link;
mod players;
#[cfg(test)]
#[cfg(feature = "certs")]
mod tests;
mod wheel;

pub use self::{
    config::{DEFAULT_SOCKET_BUFFER, DEFAULT_SOCKETS, FleetConfig, FleetError, Server, Transport},
    driver::{Change, Fleet, Traffic},
    event::{End, Event, Member, NotSent, Stream, What},
    players::{News, PlayerEvent, Players},
};
