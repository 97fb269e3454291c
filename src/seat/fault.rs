//! Bugs to plant in the table, so that its tests can show that they would be found. Other builds have nothing of this: what asks is false,
//! and what meddles does nothing.

#![cfg_attr(
    not(tickgate_loom),
    allow(
        unreachable_pub,
        reason = "public only where another package plants them"
    )
)]

use super::sync::{AtomicU8, AtomicU32, Ordering};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A pass writes a seat's word back as it found it, as an activity write would that shared the word with the seat's state.
    WritesWordBack,
    /// A pass clears marks that it found clear.
    ClearsUnseenMarks,
    /// A pass that finds a group's earliest times anew writes over those of who joined meanwhile.
    ForgetsJoins,
    /// A pass writes out whatever is marked, seat or no seat.
    NoSeatCheck,
    /// A pass ends who was not active for long by what was written out, and does not look at marks.
    OverlooksMarks,
    /// A pass ends what it saw to be due before it had the lock.
    EndsUnchecked,
    /// A word does not publish what was stored before it.
    RelaxedWord,
    /// A slot's next seat has the generation of the last.
    SameGeneration,
    /// A slot is free again before its seat's end was told.
    FreesAtOnce,
    /// Deadlines are rounded down.
    EndsEarly,
    /// A pass passes over slots whose turn it is to be looked at.
    LooksAway,
    /// A phase is written out whenever its turn comes, however lately that was.
    WritesTwice,
}

/// The order of the store that publishes a word.
#[inline]
pub(super) fn publishing() -> Ordering {
    if is_planted(Fault::RelaxedWord) {
        Ordering::Relaxed
    } else {
        Ordering::Release
    }
}

/// What a faulty pass does to a slot before it looks at it.
#[inline]
pub(super) fn meddle(mark: &AtomicU8, word: &AtomicU32) {
    if is_planted(Fault::ClearsUnseenMarks) && mark.load(Ordering::Relaxed) == 0 {
        mark.store(0, Ordering::Relaxed);
    }
    if is_planted(Fault::WritesWordBack) {
        let found = word.load(Ordering::Acquire);
        word.store(found, Ordering::Release);
    }
}

/// What a faulty pass does to a group's earliest times before it lowers them to those it found.
#[inline]
pub(super) fn forget(end: &AtomicU32, active: &AtomicU32) {
    if is_planted(Fault::ForgetsJoins) {
        end.store(u32::MAX, Ordering::Release);
        active.store(u32::MAX, Ordering::Release);
    }
}

/// Whether a bug is planted.
#[cfg(not(any(test, tickgate_loom)))]
pub(super) const fn is_planted(_: Fault) -> bool {
    false
}

#[cfg(any(test, tickgate_loom))]
pub(super) use planted::is_planted;
#[cfg(any(test, tickgate_loom))]
pub use planted::plant;

#[cfg(any(test, tickgate_loom))]
mod planted {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        /// loom runs all threads of a check on one; other tests plant nothing that several threads have to find.
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// A bug is planted, or none, for as long as this is there; then again what was before.
    #[must_use]
    #[derive(Debug)]
    pub struct Planted(Option<Fault>);

    /// Plants a bug into every table of this thread, or none.
    pub fn plant(fault: Option<Fault>) -> Planted {
        Planted(PLANTED.replace(fault))
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(self.0);
        }
    }

    pub(in crate::seat) fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}
