//! Seats: who is in, may it stay, and what the simulation is told about it.
//!
//! ```text
//!             any thread, no lock                                        one tick after the other
//!      verify, verify_batch ─┐     ┌─ touch                     ┌─────────── tick pass ────────────┐
//!                            ▼     ▼                            ▼              ▼                   ▼
//! floor (by slot):   words │ marks │ sessions │ active_at │ ends_at     1 write out: the    2 sweep: 1/42
//!                    4 B   │ 1 B   │ 16 B     │ 4 B       │ 4 B         phase's blocks      of the slots
//!   block 0 (phase 17) ▒▒▒▒│▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒    │                   │ who is due
//!   block 1 (phase 3)  ▒▒▒▒│▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒    ▼                   │ ends
//!   block 2 (phase 17) ░░░░│░░░░░░░│░░░░░░░░░░│░░░░░░░░░░░│░░░░░░░░░    report.active       │
//!      ...        ▲ reserved, backed by memory as it is used                                │    3 hand over
//!                 │ open, suspend, resume, end                                              ▼        │
//!   install ──┐   │                                                   ┌── lock ◄── end what is due   ▼
//!   suspend ──┼─► books (cold): records │ index by session, by player │ graces │ free slots    report.changes
//!   end ──────┘   │                                                                                  ▲
//!                 ├─► journal: changes since the last tick, slots to be free ── its own small lock ──┘
//!                 └─► closings: connections for the workers to close, one desk each
//! ```
//!
//! [`SeatTable`] keeps the seats. What is asked of every seat on every tick stands on the *floor*: flat arrays of atomics by slot,
//! which any thread reads without lock, hash, clock or allocation. Whether a seat may stay is one word of four bytes ([`Handle`] names
//! slot and generation); whoever follows that up finds the layout in `word.rs`, and what may overlap what in `floor.rs`. Everything else
//! about a seat stands in the *books* behind one lock, which admissions and ends take and the hot path never does. Beside the table
//! stand the two memories that admission asks: [`SingleUse`], which connect tokens were used, and [`RevocationLog`], what was revoked.
//!
//! Nothing here reads a clock: the time is passed in, and never steps back.
//!
//! # Why it is laid out so
//!
//! - **Handles, not names.** To look a session up by its JTI is a hash and two cache misses at best; a handle is an index.
//! - **Arrays apart.** Verify reads 4 bytes a slot: the words of 10,000 seats fit into a core's first cache, those of 400,000 into its second.
//! - **Append-only without segments.** An array that is reserved as long as it can get to be, and zeroed, costs address space, and memory
//!   as its pages are first touched. So slots never move, and readers need neither a lock nor a second look-up.
//! - **Blocks by phase.** What is written out on one tick lies together: the pass of 1,000,000 seats reads 16,700 of them in 17 runs.
//! - **No compare-and-swap.** Words are written under the books' lock alone; marks are bytes of their own, which have nothing to
//!   undo. So a touch costs two loads, and a third thing only once a window.
//! - **Deadlines of four bytes, looked through in turn.** A heap or a wheel of deadlines would be moved by every write-out. To look at each
//!   group of 64 every 700 ms costs less, and the same on every tick; of nearly all groups the earliest deadline says that nobody is due.
//! - **Indexes of a fixed size.** A map that grows or cleans up does so under the lock, 100 ms at a million seats.
//!
//! # Locks
//!
//! Taken in this order, never the other way round. Nothing that is done under one blocks, calls out or reads a clock.
//!
//! | lock | who takes it | for how long |
//! |---|---|---|
//! | pass | a tick | the tick: only another tick waits for it |
//! | books | install, suspend, the ends, find, connection, counts, live_seats; a tick only to end what is due by time | a seat, or a portion: 64 due ends, 256 freed slots, 1,024 seats told. `end_all` takes it once for all seats, and a player's seats are ended in one |
//! | journal | whoever enters a change, under the books' lock; the tick, to take the changes; who needs a free slot | a push, or a swap of buffers |
//! | a worker's desk of closings | whoever ends a seat that it serves; the worker | a push, or a move of what is there |
//!
//! Wakers are called after all of them are given back. All atomics and mutexes come from one place (`sync.rs`), so that loom can run the
//! table through every interleaving of them (`--cfg tickgate_loom`).

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
pub use config::{ActivitySource, DEFAULT_ACTIVITY_WINDOW, DEFAULT_WINDOW, SamePlayer, SeatConfig};
pub use counts::SeatCounts;
#[cfg(tickgate_loom)]
pub use fault::Fault;
pub use grant::{Grant, Installed, LiveSeatInfo, NotSeated};
pub use handle::{Connection, Handle};
pub use revocations::{ApplyError, Coverage, RevocationLog, Revoked};
pub use single_use::{Pending, SingleUse, UseRefused};
pub use table::SeatTable;
