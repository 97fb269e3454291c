//! Bugs to plant in the table, so that its tests can show that they would be found. Other builds have none of this.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A pass writes the word back which it found beside a mark, as an activity write on the same word would.
    WritesWordBack,
    /// A pass clears marks that it found clear.
    ClearsUnseenMarks,
    /// A pass clears a mark, and then looks whether there is a seat.
    ClearsMarkFirst,
    /// A pass writes out whatever is marked, seat or no seat.
    NoSeatCheck,
    /// A word does not publish what was stored before it.
    RelaxedWord,
    /// A slot's next seat has the generation of the last.
    SameGeneration,
    /// A slot is free again before its seat's end was told.
    FreesAtOnce,
    /// A pass ends what it saw to be due before it had the lock.
    EndsUnchecked,
    /// Deadlines are rounded down.
    EndsEarly,
    /// A pass passes over slots whose turn it is to be looked at.
    LooksAway,
    /// A phase is written out whenever its turn comes, however lately that was.
    WritesTwice,
}

/// Whether a bug is planted: never, but in a check that has to find it.
#[cfg(not(any(test, tickgate_loom)))]
pub(super) const fn is_planted(_: Fault) -> bool {
    false
}

#[cfg(any(test, tickgate_loom))]
pub(super) use planted::is_planted;
#[cfg(any(test, tickgate_loom))]
pub use planted::{Planted, plant};

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
