//! One word per slot: is this seat live or suspended, and was it active? Everything that the hot path asks, in one atomic.
//!
//! ```text
//! 63            32 31        3 2           1        0
//! ┌───────────────┬──────────┬───────────┬────────┬──────┐
//! │  generation   │    0     │ SUSPENDED │ MARKED │ LIVE │
//! └───────────────┴──────────┴───────────┴────────┴──────┘
//! ```
//!
//! A seat is LIVE, or SUSPENDED, or, with neither, ended. Every change but [`Slot::open`] is a compare-and-swap from a word that
//! names the generation and that state. So a mark can neither revive a seat that has ended, nor undo a suspension, nor land on the
//! seat that came after, and an idle end cannot overlook a mark.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Verdict;

const LIVE: u64 = 1;
/// The seat was active since its activity was last written out. Stays until it is written out, through a suspension too.
const MARKED: u64 = 2;
const SUSPENDED: u64 = 4;

/// The state of one slot. Starts ended, with generation 0, which no handle has.
#[derive(Debug, Default)]
pub(super) struct Slot(AtomicU64);

const fn ended(generation: u32) -> u64 {
    (generation as u64) << 32
}

const fn live(generation: u32) -> u64 {
    ended(generation) | LIVE
}

const fn suspended(generation: u32) -> u64 {
    ended(generation) | SUSPENDED
}

impl Slot {
    /// Seats `generation`, marked as active. Only whoever holds the books opens a slot, and only a free one.
    pub(super) fn open(&self, generation: u32) {
        self.0.store(live(generation) | MARKED, Ordering::Release);
    }

    /// What is to be said of `generation`. One load.
    pub(super) fn verdict(&self, generation: u32) -> Verdict {
        let state = self.0.load(Ordering::Acquire) & !MARKED;
        if state == live(generation) {
            Verdict::Live
        } else if state == suspended(generation) {
            Verdict::Suspended
        } else {
            Verdict::Ended
        }
    }

    /// Marks `generation` as active, if it is live. One load, and one exchange for the first touch after a write-out; only one
    /// word is worth exchanging, so there is no loop: whoever changed it marked the seat, suspended it or ended it.
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

    /// Takes the mark off: true if `generation` is live or suspended, and was marked.
    pub(super) fn take_mark(&self, generation: u32) -> bool {
        self.exchange(|word| {
            (word == live(generation) | MARKED || word == suspended(generation) | MARKED)
                .then_some(word & !MARKED)
        })
        .is_some()
    }

    /// Suspends `generation`, if it is live; its mark stays. Says whether it was marked, or `None` if it was not live.
    pub(super) fn suspend(&self, generation: u32) -> Option<bool> {
        let before = self.exchange(|word| {
            (word & !MARKED == live(generation)).then_some(suspended(generation) | word & MARKED)
        })?;
        Some(before & MARKED != 0)
    }

    /// Makes `generation` live again, if it is suspended, and marks it as active.
    pub(super) fn resume(&self, generation: u32) -> bool {
        self.exchange(|word| {
            (word & !MARKED == suspended(generation)).then_some(live(generation) | MARKED)
        })
        .is_some()
    }

    /// Ends `generation`, live or suspended, marked or not: true for the one caller who did it.
    pub(super) fn end(&self, generation: u32) -> bool {
        self.exchange(|word| {
            let state = word & !MARKED;
            (state == live(generation) || state == suspended(generation))
                .then_some(ended(generation))
        })
        .is_some()
    }

    /// Ends `generation` if it is live and not marked: true for the one caller who did it.
    pub(super) fn end_unmarked(&self, generation: u32) -> bool {
        self.exchange(|word| (word == live(generation)).then_some(ended(generation)))
            .is_some()
    }

    /// Exchanges the word for what `next` makes of it, as soon as nobody else does so at the same time; returns the one before.
    fn exchange(&self, next: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_live(slot: &Slot, generation: u32) -> bool {
        slot.verdict(generation).is_live()
    }

    #[test]
    fn a_fresh_slot_is_nobodys() {
        let slot = Slot::default();
        assert_eq!(slot.verdict(0), Verdict::Ended);
        assert_eq!(slot.verdict(1), Verdict::Ended);
        assert!(!slot.end(1) && !slot.resume(1));
        assert_eq!(slot.suspend(1), None);
    }

    #[test]
    fn a_seat_lives_until_it_is_ended_once() {
        let slot = Slot::default();
        slot.open(7);
        assert!(is_live(&slot, 7));
        assert!(!is_live(&slot, 6) && !is_live(&slot, 8));
        assert!(!slot.end(6));
        assert!(slot.end(7));
        assert_eq!(slot.verdict(7), Verdict::Ended);
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
        assert!(is_live(&slot, 1));
        assert!(!slot.end_unmarked(1), "a marked seat is not idle");
        assert!(slot.take_mark(1));
        assert!(slot.end_unmarked(1));
        slot.mark(1);
        assert!(!is_live(&slot, 1) && !slot.take_mark(1));

        slot.open(2);
        assert!(slot.take_mark(2));
        slot.mark(1);
        assert!(!slot.take_mark(2), "a stale touch marks nobody");
    }

    #[test]
    fn a_suspended_seat_takes_no_mark_and_keeps_the_one_it_had() {
        let slot = Slot::default();
        slot.open(1);
        assert_eq!(slot.suspend(2), None);
        assert_eq!(slot.suspend(1), Some(true));
        assert_eq!(slot.suspend(1), None);
        assert_eq!(slot.verdict(1), Verdict::Suspended);
        assert_eq!(slot.verdict(2), Verdict::Ended);
        assert!(slot.take_mark(1));
        slot.mark(1);
        assert!(!slot.take_mark(1), "nobody is there to be active");
        assert_eq!(slot.verdict(1), Verdict::Suspended);

        assert!(!slot.resume(2));
        assert!(slot.resume(1));
        assert!(!slot.resume(1));
        assert!(is_live(&slot, 1));
        assert!(slot.take_mark(1), "to come back counts as active");
        assert_eq!(slot.suspend(1), Some(false));
        assert!(!slot.end_unmarked(1));
        assert!(slot.end(1));
        assert!(!slot.resume(1), "an end is final");
        assert_eq!(slot.verdict(1), Verdict::Ended);
    }
}
