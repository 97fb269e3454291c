//! What names a seat, and what names the connection that serves it.

use std::fmt;

use super::word;

/// Names a seat: the slot it stands in, and which of the slot's seats it is.
///
/// A slot is used again after its seat has ended and the simulation was told so; the generation then differs, and a handle kept
/// from before is refused for ever. (A slot has 2³⁰ − 1 generations, eight months of a new seat on each tick at 60 Hz; then it is
/// used no more.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    slot: u32,
    /// The slot's word while this seat is live: so that to verify is to compare.
    tag: u32,
}

impl Handle {
    /// The seat of this generation in this slot. At least 1, at most [`word::LAST_GENERATION`].
    #[inline]
    pub(super) const fn new(slot: u32, generation: u32) -> Self {
        Self {
            slot,
            tag: word::live(generation),
        }
    }

    /// The slot: smaller than [`SeatTable::slots`](super::SeatTable::slots), and no two seats that the simulation knows at the same time share one. So it
    /// may index the simulation's own arrays.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// Which of its slot's seats this is; never 0.
    #[inline]
    pub const fn generation(self) -> u32 {
        word::generation(self.tag)
    }

    /// The slot's word while this seat is live.
    #[inline]
    pub(super) const fn tag(self) -> u32 {
        self.tag
    }

    /// A handle without a table, for tests of what only carries handles.
    #[cfg(test)]
    pub(crate) const fn test(slot: u32, generation: u32) -> Self {
        Self::new(slot, generation)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation())
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
