//! Who may stay, by slot: one bit for each, as the tick told it. For whoever keeps players by [`Handle::slot`].
//!
//! A slot's bit is set if, and only if, the simulation was told that its seat is live, and the seat is live still:
//!
//! ```text
//!                 tick t                        tick t + 1                      tick t + 2
//! seat 1 of slot  ── live ──┤ end
//! seat 2                                           ├ join ── live ───────────────────────────
//! bit             1 1 1 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 1 1 1 1 1
//! told                                   end of 1                        join of 2
//! ```
//!
//! So it needs no generation. A slot gets its next seat only after the end of the last was told, and that one's bit is set only
//! when its join is told, by a later tick; between two ticks bits are cleared, and never set. Whoever has heard what was told knows whose
//! bit each is. A view of the bits is lent by the report of the last tick, and so cannot outlive it.
//!
//! # Who overlaps whom
//!
//! Whoever ends or suspends a seat stores its word, and then clears its bit. The pass sets the bit of a join that it tells, and then looks
//! at the word, and clears the bit again if that is not the word of the live seat any more. Both are exchanges on the same 64 bits, one of
//! which comes after the other: if that of the pass does, it finds the word that was stored before; if not, the bit is cleared after it was
//! set. So no bit stays set whose seat is not live, and when an end has returned, the very next look on any thread finds none.

use std::ops::Range;

use super::{
    Handle, SeatChange,
    fault::{Fault, is_planted},
    floor::Floor,
    sync::{AtomicU64, Ordering, zeroes},
};

const BITS: u32 = u64::BITS;

/// A bit for each slot.
pub(super) struct LiveBits(Box<[AtomicU64]>);

impl LiveBits {
    /// So many slots, all of them clear.
    pub(super) fn new(slots: usize) -> Self {
        Self(zeroes(slots.div_ceil(BITS as usize)))
    }

    /// In bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// Whether the bits of all these neighbours are set, which are of one and the same 64.
    pub(super) fn are_set(&self, slots: Range<usize>) -> bool {
        let all = u64::MAX >> (BITS as usize - slots.len().clamp(1, BITS as usize));
        let bits = self.0.get(slots.start / BITS as usize);
        bits.is_some_and(|bits| {
            bits.load(Ordering::Acquire) >> (slots.start % BITS as usize) & all == all
        })
    }

    /// After the word of an end or a suspension.
    pub(super) fn clear(&self, slot: u32) {
        if let Some(bits) = self.0.get((slot / BITS) as usize) {
            bits.fetch_and(!(1 << (slot % BITS)), Ordering::AcqRel);
        }
    }

    /// A seat that the simulation was not told of yet.
    pub(super) fn opened(&self, slot: u32) {
        if is_planted(Fault::ShowsUntold) {
            self.set(slot);
        }
    }

    fn set(&self, slot: u32) {
        if let Some(bits) = self.0.get((slot / BITS) as usize) {
            bits.fetch_or(1 << (slot % BITS), Ordering::AcqRel);
        }
    }
}

impl Floor {
    /// What the simulation is told of a seat now. For the pass alone.
    pub(super) fn tell(&self, change: &SeatChange) {
        match *change {
            SeatChange::Joined(joined) => self.tell_live(joined.handle),
            SeatChange::Resumed { handle, .. } => self.tell_live(handle),
            // It may have come back since. Then that is told by a later tick.
            SeatChange::Suspended { handle } => self.live.clear(handle.slot()),
            // Cleared by whoever ended it.
            SeatChange::Ended { .. } => {}
        }
    }

    fn tell_live(&self, handle: Handle) {
        self.live.set(handle.slot());
        if !self.is_live(handle) && !is_planted(Fault::TellsUnchecked) {
            self.live.clear(handle.slot());
        }
    }
}

/// The seats that may stay, by slot: those that the simulation was told to be live, and that are live still.
///
/// For a game that keeps its players in an array by [`Handle::slot`], and has heard all that was told up to this tick: it then knows
/// whose slot each is. A seat that ends or is suspended after the tick is left out at once; one that joined after it is not there
/// before its join is told. Nothing asks about everybody for less; whoever keeps handles, or is not sure to have heard everything, asks by handle
/// ([`SeatTable::verify_batch`](super::SeatTable::verify_batch)), and is answered with its generation.
#[derive(Clone, Copy)]
pub struct LiveSlots<'a>(&'a [AtomicU64]);

impl<'a> LiveSlots<'a> {
    pub(super) fn of(bits: &'a LiveBits) -> Self {
        Self(&bits.0)
    }

    /// Of nobody.
    pub(super) const fn none() -> Self {
        Self(&[])
    }

    /// Whether the seat in this slot may stay. One load.
    #[inline]
    pub fn contains(self, slot: u32) -> bool {
        self.0
            .get((slot / BITS) as usize)
            .is_some_and(|bits| bits.load(Ordering::Acquire) >> (slot % BITS) & 1 != 0)
    }

    /// How many may stay.
    pub fn count(self) -> usize {
        let counts = self
            .0
            .iter()
            .map(|bits| bits.load(Ordering::Acquire).count_ones());
        counts.map(|count| count as usize).sum()
    }

    /// Their slots, in order, as ranges of neighbours: each slot in a range may stay, and a range ends at a multiple of 64 at the latest.
    ///
    /// This is the cheapest way through all: seats fill their slots, so that ranges are long. Each 64 slots are looked at when the
    /// iterator comes to them.
    #[inline]
    pub fn runs(self) -> impl Iterator<Item = Range<u32>> + use<'a> {
        let firsts = (0..).step_by(BITS as usize);
        self.0.iter().zip(firsts).flat_map(|(bits, first)| Runs {
            first,
            left: bits.load(Ordering::Acquire),
        })
    }

    /// Their slots, in order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = u32> + use<'a> {
        self.runs().flatten()
    }
}

impl std::fmt::Debug for LiveSlots<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.runs()).finish()
    }
}

/// The runs of ones among 64 bits, the lowest first.
struct Runs {
    /// The slot of the lowest bit.
    first: u32,
    left: u64,
}

impl Iterator for Runs {
    type Item = Range<u32>;

    #[inline]
    fn next(&mut self) -> Option<Range<u32>> {
        if self.left == 0 {
            return None;
        }
        let start = self.left.trailing_zeros();
        // With all below it set, the first zero is the end of the run.
        let filled = self.left | (self.left - 1);
        let end = filled.trailing_ones();
        // Adding one where the run begins carries through it: it is gone, and what lies above stays.
        self.left &= filled.wrapping_add(1);
        Some(self.first + start..self.first + end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_the_bits() {
        let some = [
            0,
            1,
            2,
            3,
            6,
            1 << 63,
            u64::MAX,
            u64::MAX >> 1,
            u64::MAX << 1,
            0x8000_0000_0000_0001,
            0xf0f0_f00f_0000_ffff,
        ];
        for bits in some {
            let runs: Vec<_> = Runs {
                first: 128,
                left: bits,
            }
            .collect();
            let slots: Vec<_> = runs.iter().cloned().flatten().collect();
            let expected: Vec<_> = (0..64)
                .filter(|bit| bits >> bit & 1 != 0)
                .map(|bit| 128 + bit)
                .collect();
            assert_eq!(slots, expected, "{bits:#x}");
            assert!(
                runs.windows(2).all(|two| two[0].end < two[1].start),
                "{runs:?} are as long as they can be"
            );
        }
    }

    #[test]
    fn a_slot_beyond_the_table_is_nobody_s() {
        let bits = LiveBits::new(65);
        bits.set(64);
        bits.set(3);
        bits.set(1_000);
        let live = LiveSlots::of(&bits);
        assert_eq!(live.iter().collect::<Vec<_>>(), [3, 64]);
        assert!(live.contains(3) && live.contains(64) && !live.contains(4));
        assert!(!live.contains(1_000) && !live.contains(u32::MAX));
        assert_eq!(live.count(), 2);
        bits.clear(3);
        bits.clear(1_000);
        assert_eq!(live.iter().collect::<Vec<_>>(), [64], "a view, no copy");
        assert_eq!(LiveSlots::none().count(), 0);
    }
}
