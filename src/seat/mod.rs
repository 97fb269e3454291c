//! Seats: who is in, may it stay, and what the simulation is told about it.
//!
//! ```text
//! install ─┐                                                   ┌─ verify(handle), touch(handle): one atomic word per slot
//! end ─────┼─► books (one lock, cold) ─► slot words (atomics) ◄─┤
//! tick ────┘        │                                          └─ the simulation and the workers, any thread
//!                   └─► journal (changes for the simulation), closings (connections for the workers to close)
//! ```
//!
//! [`SeatTable`] keeps the seats. Whether a seat is live is one word per slot ([`Handle`] names slot and generation), which any
//! thread reads without lock, hash, clock or allocation. Everything else about a seat stands in books behind one lock, which
//! admissions, ends and the tick pass take and the hot path never does. Beside it stand the two memories that admission asks:
//! [`SingleUse`], which connect tokens were used, and [`RevocationLog`], what was revoked.
//!
//! Nothing here reads a clock: the time is passed in, and never steps back.

mod answers;
#[cfg(test)]
mod behaviour;
mod books;
mod change;
mod closings;
mod config;
mod counts;
mod era;
#[cfg(not(tickgate_loom))]
mod fault;
#[cfg(tickgate_loom)]
pub mod fault;
mod floor;
mod graces;
mod grant;
mod hall;
mod handle;
mod index;
mod journal;
mod layout;
#[cfg(test)]
mod model;
#[cfg(test)]
mod oracle;
mod pass;
mod phases;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod properties;
mod record;
mod revocations;
mod seating;
mod single_use;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod suspending;
mod sync;
mod table;
#[cfg(test)]
mod threads;
mod vacancies;
mod word;

pub use answers::Answers;
pub use change::{EndReason, Joined, SeatChange, TickReport, Verdict};
pub use closings::{Closing, Waker};
pub use config::{ActivitySource, DEFAULT_WINDOW, SamePlayer, SeatConfig};
pub use counts::SeatCounts;
#[cfg(tickgate_loom)]
pub use fault::Fault;
pub use grant::{Grant, Installed, LiveSeatInfo, NotSeated};
pub use handle::{Connection, Handle};
pub use revocations::{ApplyError, Coverage, RevocationLog, Revoked};
pub use single_use::{Pending, SingleUse, UseRefused};
pub use table::SeatTable;
