//! One word per slot: which of its seats this is, and how that is. Everything that verify asks.
//!
//! ```text
//! 31                              2 1       0
//! ┌────────────────────────────────┬─────────┐
//! │           generation           │  state  │   0 ended, 1 live, 2 suspended
//! └────────────────────────────────┴─────────┘
//! ```
//!
//! A handle carries the word of its seat while that is live, so that the answer is one exclusive or: 0 is live, live ^ suspended is
//! suspended, and whatever else there may be is an end, whether of this seat or of one long before the seat that is there now.
//! A word that was never written is 0: ended, of generation 0, which no handle has.

use super::Verdict;

const LIVE: u32 = 1;
const SUSPENDED: u32 = 2;
const STATE: u32 = 3;

/// The last generation of a slot: after it the slot is given to nobody any more, rather than begin again and let a handle of long
/// ago pass for a new one.
pub(super) const LAST_GENERATION: u32 = u32::MAX >> 2;

/// The word of a live seat, and its handle's tag.
#[inline]
pub(super) const fn live(generation: u32) -> u32 {
    generation << 2 | LIVE
}

#[inline]
pub(super) const fn suspended(generation: u32) -> u32 {
    generation << 2 | SUSPENDED
}

#[inline]
pub(super) const fn ended(generation: u32) -> u32 {
    generation << 2
}

#[inline]
pub(super) const fn generation(word: u32) -> u32 {
    word >> 2
}

/// Whether there is a seat, live or suspended.
#[inline]
pub(super) const fn is_seat(word: u32) -> bool {
    word & STATE != 0
}

#[inline]
pub(super) const fn is_live(word: u32) -> bool {
    word & STATE == LIVE
}

#[inline]
pub(super) const fn is_suspended(word: u32) -> bool {
    word & STATE == SUSPENDED
}

/// What a word says to a handle.
#[inline]
pub(super) const fn verdict(word: u32, tag: u32) -> Verdict {
    match word ^ tag {
        0 => Verdict::Live,
        STATE => Verdict::Suspended,
        _ => Verdict::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_answers_its_own_generation_alone() {
        for generation in [1, 2, 77, LAST_GENERATION - 1, LAST_GENERATION] {
            let tag = live(generation);
            assert_eq!(verdict(live(generation), tag), Verdict::Live);
            assert_eq!(verdict(suspended(generation), tag), Verdict::Suspended);
            assert_eq!(verdict(ended(generation), tag), Verdict::Ended);
            assert_eq!(super::generation(tag), generation);
            assert_eq!(verdict(0, tag), Verdict::Ended, "never used");
            for other in [1, 3, generation - 1, LAST_GENERATION / 2] {
                if other != generation {
                    for word in [live(other), suspended(other), ended(other)] {
                        assert_eq!(verdict(word, tag), Verdict::Ended);
                    }
                }
            }
        }
    }

    #[test]
    fn a_word_tells_its_state() {
        let words = [live(5), suspended(5), ended(5), 0];
        assert_eq!(words.map(is_seat), [true, true, false, false]);
        assert_eq!(words.map(is_live), [true, false, false, false]);
        assert_eq!(words.map(is_suspended), [false, true, false, false]);
    }
}
