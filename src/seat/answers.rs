//! The answers to a batch of "may it stay?".

/// One bit per handle of a batch, in the batch's order: is its seat live? Keep it between batches: its memory is used again.
#[derive(Debug, Default, Clone)]
pub struct Answers {
    /// 64 answers each, the first in the lowest bit. Those beyond the length are 0.
    bits: Vec<u64>,
    len: usize,
    live: usize,
}

impl Answers {
    /// How many handles were asked about.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody was asked about.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the seat at this place in the batch is live; false beyond its end.
    #[inline]
    pub fn is_live(&self, index: usize) -> bool {
        self.bits
            .get(index / 64)
            .is_some_and(|bits| bits >> (index % 64) & 1 != 0)
    }

    /// How many of them are live.
    pub const fn live(&self) -> usize {
        self.live
    }

    /// Whether all of them are live.
    pub const fn all_live(&self) -> bool {
        self.live == self.len
    }

    /// The places in the batch, in order, of those that are not live. Of each, [`SeatTable::verify`](super::SeatTable::verify) says
    /// whether it is suspended or has ended, and [`SeatTable::end_reason`](super::SeatTable::end_reason) why.
    #[inline]
    pub fn refused(&self) -> impl Iterator<Item = usize> + '_ {
        // Each is the lowest of what is left of its word.
        (0..)
            .step_by(64)
            .zip(&self.bits)
            .flat_map(move |(first, bits)| {
                let beyond = match self.len - first {
                    asked @ 0..64 => u64::MAX << asked,
                    _ => 0,
                };
                let refused = !(bits | beyond);
                std::iter::successors(Some(refused), |left| Some(left & left.wrapping_sub(1)))
                    .take_while(|left| *left != 0)
                    .map(move |left| first + left.trailing_zeros() as usize)
            })
    }

    /// Forgets the last batch, and makes room for one of `len`.
    #[inline]
    pub(super) fn begin(&mut self, len: usize) {
        self.bits.clear();
        self.bits.reserve(len.div_ceil(64));
        (self.len, self.live) = (len, 0);
    }

    /// The answers to the next 64, or to the last, with no bit set beyond them.
    #[inline]
    pub(super) fn push(&mut self, bits: u64) {
        self.live += bits.count_ones() as usize;
        self.bits.push(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(live: impl Fn(usize) -> bool, len: usize) -> Answers {
        let mut answers = Answers::default();
        // Nothing of the batch before may show.
        answers.begin(64);
        answers.push(0x5555_5555_5555_5555);
        answers.begin(len);
        for first in (0..len).step_by(64) {
            let asked = first..len.min(first + 64);
            answers.push(asked.fold(0, |bits, i| bits | u64::from(live(i)) << (i - first)));
        }
        answers
    }

    #[test]
    fn each_answer_stands_in_its_place() {
        for len in [0, 1, 63, 64, 65, 127, 128, 200] {
            for every in [1, 2, 3, 64, 1_000] {
                let is_live = |i: usize| !i.is_multiple_of(every);
                let answers = answers(is_live, len);
                let refused: Vec<_> = (0..len).filter(|i| !is_live(*i)).collect();
                assert_eq!(answers.refused().collect::<Vec<_>>(), refused);
                assert_eq!(answers.live(), len - refused.len());
                assert_eq!(answers.all_live(), refused.is_empty());
                assert_eq!((answers.len(), answers.is_empty()), (len, len == 0));
                assert!((0..len).all(|i| answers.is_live(i) == is_live(i)));
                assert!(!answers.is_live(len) && !answers.is_live(len + 1_000));
            }
        }
    }
}
