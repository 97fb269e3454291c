//! The game client library: log in, get a connect token, connect, play, and know why it ended.
//!
//! [`Account`] is a player's own line to the sidecar, [`Backend`] that of a game's backend; either yields a [`Ticket`], and an
//! [`Endpoint`] turns it into a [`Connection`]. [`join`] does the last two steps again and again for as long as that is sensible.
//!
//! ```no_run
//! use tickgate::client::{Account, Endpoint, Patience, Target, join};
//!
//! # async fn play(ca: Vec<rustls::pki_types::CertificateDer<'static>>) -> Result<(), Box<dyn std::error::Error>> {
//! let account = Account::connect("https://127.0.0.1:7443", &ca)?;
//! let session = account.login_dev("ada").await?;
//! let endpoint = Endpoint::bind("0.0.0.0:0".parse()?)?;
//! let ticket = || account.issue_connect_token(&session, Target::Any);
//! let connection = join(&endpoint, Patience::default(), ticket).await?;
//! connection.send_datagram("jump".into())?;
//! match connection.recv_datagram().await {
//!     Ok(datagram) => println!("{} bytes", datagram.len()),
//!     Err(closed) => println!("{closed}: {}", closed.advice().label()),
//! }
//! # Ok(())
//! # }
//! ```

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

pub use account::{Account, Identified, Session};
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
pub use listed::{AttachedGateway, ListedSession};
pub use play::{End, Event, Events, Persistence, Play, PlayOptions, Tickets};
pub use secret::SecretToken;
pub use ticket::{MalformedTicket, Target, Ticket};
