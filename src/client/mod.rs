//! The game client library: log in, get a connect token, connect, play, and know why it ended.
//!
//! [`Play`] is all a game needs as a rule: it gets tickets through a [`SessionKeeper`], which keeps the session's tokens fresh, connects
//! over an [`Endpoint`], comes back by itself when the connection is lost, and tells the game what happens ([`Event`]). Games without
//! async have [`blocking::Client`].
//!
//! ```no_run
//! use tickgate::client::{Account, Endpoint, Event, Play, PlayOptions, SessionKeeper, Target};
//!
//! # async fn play(ca: Vec<rustls::pki_types::CertificateDer<'static>>) -> Result<(), Box<dyn std::error::Error>> {
//! let account = Account::connect("https://127.0.0.1:7800", &ca)?;
//! let session = account.login_dev("ada").await?;
//! let keeper = SessionKeeper::new(account, session);
//! let endpoint = Endpoint::bind("0.0.0.0:0".parse()?)?;
//! let (game, mut events) = Play::start(endpoint, keeper, Target::Any, PlayOptions::default());
//! loop {
//!     tokio::select! {
//!         datagram = game.recv_datagram() => println!("{} bytes", datagram?.len()),
//!         event = events.next() => match event {
//!             Some(Event::Joined { .. }) => game.send_datagram("jump".into())?,
//!             Some(event) => println!("{}", event.label()),
//!             None => return Ok(()),
//!         },
//!     }
//! }
//! # }
//! ```
//!
//! Thousands of clients in one process, as load generators and bots need them, are a [`fleet`].
//!
//! Below that, each step can be had alone. [`Account`] is a player's own line to the sidecar, [`Backend`] that of a game's backend,
//! [`Admin`] an operator's; the first two yield a [`Ticket`], and an [`Endpoint`] turns it into a [`Connection`]. [`join`] does the last
//! two steps again and again for as long as that is sensible.

mod account;
mod admin;
mod backend;
mod backoff;
pub mod blocking;
mod call;
mod close;
mod connection;
mod endpoint;
mod explain;
pub mod fleet;
mod handshake;
mod join;
mod keepalive;
mod keeper;
mod key;
mod listed;
mod play;
mod secret;
mod stream;
#[cfg(test)]
mod tests;
mod ticket;

pub use account::{Account, Identified, LoginNonce, OtpRequest, Session};
pub use admin::{Admin, SessionPage, SessionQuery};
pub use backend::{Backend, Revoked, Wait};
pub use backoff::Backoff;
pub use call::CallError;
pub use close::{Closed, TransportFailure};
pub use connection::{Connection, SendError};
pub use endpoint::{ConnectError, Deadlines, Endpoint};
pub use explain::{About, ExplainedEvent, Explanation, RevocationArrival};
pub use handshake::{Handshaken, HelloOptions};
pub use join::{JoinError, Patience, join};
pub use keeper::{Kept, RefreshPolicy, SessionKeeper};
pub use key::{ClientKey, KeyError};
pub use listed::{AttachedGateway, KeyList, ListedKey, ListedSession};
pub use play::{End, Event, Events, Persistence, Play, PlayOptions, Tickets};
pub use secret::SecretToken;
pub use ticket::{MalformedTicket, Target, Ticket};
