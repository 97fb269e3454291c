//! One word per slot: is this seat live, and was it active? Everything that the hot path asks, in one atomic.
//!
//! ```text
//! 63            32 31        2 1      0
//! ┌───────────────┬──────────┬────────┬──────┐
//! │  generation   │    0     │ MARKED │ LIVE │
//! └───────────────┴──────────┴────────┴──────┘
//! ```
//!
//! Every change but [`Slot::open`] is a compare-and-swap from a word that names the generation. So a mark can neither revive a
//! seat that has ended nor land on the seat that came after, and an idle end cannot overlook a mark.

use std::sync::atomic::{AtomicU64, Ordering};

const LIVE: u64 = 1;
/// The seat was active since its activity was last written out. Stays until it is written out.
const MARKED: u64 = 2;

/// The state of one slot. Starts dead, with generation 0, which no handle has.
#[derive(Debug, Default)]
pub(super) struct Slot(AtomicU64);

const fn dead(generation: u32) -> u64 {
    (generation as u64) << 32
}

const fn live(generation: u32) -> u64 {
    dead(generation) | LIVE
}

impl Slot {
    /// Seats `generation`, marked as active. Only whoever holds the books opens a slot, and only a free one.
    pub(super) fn open(&self, generation: u32) {
        self.0.store(live(generation) | MARKED, Ordering::Release);
    }

    /// Whether `generation` is seated here and has not ended. One load.
    pub(super) fn is_live(&self, generation: u32) -> bool {
        self.0.load(Ordering::Acquire) & !MARKED == live(generation)
    }

    /// Marks `generation` as active, if it is live. One load, and one exchange for the first touch after a write-out; only one
    /// word is worth exchanging, so there is no loop: whoever changed it either marked the seat or ended it.
    pub(super) fn mark(&self, generation: u32) {
        let unmarked = live(generation);
        if self.0.load(Ordering::Relaxed) == unmarked {
            let _ = self.0.compare_exchange(
                unmarked,
                unmarked | MARKED,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }

    /// Takes the mark off: true if `generation` is live and was marked.
    pub(super) fn take_mark(&self, generation: u32) -> bool {
        let unmarked = live(generation);
        self.0
            .compare_exchange(
                unmarked | MARKED,
                unmarked,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Ends `generation`, marked or not: true for the one caller who did it.
    pub(super) fn end(&self, generation: u32) -> bool {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                (word & !MARKED == live(generation)).then_some(dead(generation))
            })
            .is_ok()
    }

    /// Ends `generation` unless it is marked: true for the one caller who did it.
    pub(super) fn end_unmarked(&self, generation: u32) -> bool {
        self.0
            .compare_exchange(
                live(generation),
                dead(generation),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_slot_is_dead() {
        let slot = Slot::default();
        assert!(!slot.is_live(0));
        assert!(!slot.is_live(1));
        assert!(!slot.end(1));
    }

    #[test]
    fn a_seat_lives_until_it_is_ended_once() {
        let slot = Slot::default();
        slot.open(7);
        assert!(slot.is_live(7));
        assert!(!slot.is_live(6) && !slot.is_live(8));
        assert!(!slot.end(6));
        assert!(slot.end(7));
        assert!(!slot.is_live(7));
        assert!(!slot.end(7));
    }

    #[test]
    fn marks_stick_and_neither_revive_nor_cross_generations() {
        let slot = Slot::default();
        slot.open(1);
        assert!(slot.take_mark(1), "seated counts as active");
        assert!(!slot.take_mark(1));
        slot.mark(1);
        slot.mark(1);
        assert!(slot.is_live(1));
        assert!(!slot.end_unmarked(1), "a marked seat is not idle");
        assert!(slot.take_mark(1));
        assert!(slot.end_unmarked(1));
        slot.mark(1);
        assert!(!slot.is_live(1) && !slot.take_mark(1));

        slot.open(2);
        assert!(slot.take_mark(2));
        slot.mark(1);
        assert!(!slot.take_mark(2), "a stale touch marks nobody");
    }
}
