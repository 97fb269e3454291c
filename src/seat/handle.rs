//! What names a seat, and what names the connection that serves it.

use std::fmt;

/// Names a seat: the slot it stands in, and which of the slot's seats it is.
///
/// A slot is used again after its seat has ended and the simulation was told so; the generation then differs, and a handle kept
/// from before is refused for ever (or for 2³² further seats of that one slot: two years at one seat per tick at 60 Hz).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    pub(super) slot: u32,
    /// Never 0.
    pub(super) generation: u32,
}

impl Handle {
    /// The slot: smaller than [`SeatTable::slots`](super::SeatTable::slots), and no two seats that the simulation knows at the same time share one. So it
    /// may index the simulation's own arrays.
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// Which of its slot's seats this is; never 0.
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// A handle without a table, for tests of what only carries handles.
    #[cfg(test)]
    pub(crate) const fn test(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The connection that serves a seat: an identity, so that a connection that lost its seat to a newer one cannot end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// The worker that drives it.
    pub worker: u16,
    /// Told apart by its worker; never used again while the process lives.
    pub id: u64,
}
