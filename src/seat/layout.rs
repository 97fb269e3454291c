//! How slots are dealt out: in blocks, each for the sessions of one phase of the activity window.

use super::{
    config::SeatConfig,
    sync::{AtomicU32, Ordering, zeroes},
};

/// The most slots of a block. As long as it takes for what the pass reads of it to stream: four pages of sessions, one of words.
const LARGEST_BLOCK: u32 = 1_024;

/// How many slots there are beyond those that seats need.
///
/// A seat that ends makes room for another at once, but its slot only once the simulation was told. So the slots must be more than
/// the seats by those that end between two ticks while the table is full, each replaced: by its player's new session, or by whoever
/// waited. One core completes fewer than 4,000 handshakes a second (at best 250 µs each), 200 in a tick of 20 Hz and 67 in one of
/// 60 Hz. If there are more all the same, or no ticks, the next is refused as on a full table, and may come again.
pub(super) const SPARE_SLOTS: u32 = if cfg!(tickgate_loom) { 0 } else { 256 };

/// The measures of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// How many phases there are: the window in ticks.
    pub(super) phases: u32,
    /// The slots of a block: a power of two.
    pub(super) block: u32,
    /// How many blocks there are at most.
    pub(super) blocks: u32,
}

impl Layout {
    /// Room for all seats, each in a block of its phase.
    ///
    /// The seats of a phase leave the last of its blocks partly empty: up to a block for each phase. And a block stays with its phase,
    /// while the numbers of the phases go up and down by about the root of their mean, √(N/p): that is another √(N·p). If a phase
    /// should want more than there is, its next session gets a free slot of another: the numbers then go up and down less.
    ///
    /// A block is at most an eighth of the seats of a phase, so that all this is little: at 1,000,000 seats and 60 phases blocks of 1,024 and
    /// 7 % more slots than seats; at 100,000, blocks of 128 and 10 %; at 10,000, blocks of 16 and 20 %; never more than twice as many and
    /// the spare ones.
    pub(super) fn new(config: &SeatConfig) -> Self {
        let phases = config.window.max(1);
        let seats = config.capacity;
        let block = prior_power_of_two(seats / phases / 8).min(LARGEST_BLOCK);
        let partly_empty = u64::from(block) * u64::from(phases);
        let uneven = (u64::from(seats) * u64::from(phases)).isqrt();
        let more = u32::try_from(partly_empty + uneven)
            .unwrap_or(seats)
            .min(seats);
        Self::with_slots(
            phases,
            block,
            seats.saturating_add(more).saturating_add(SPARE_SLOTS),
        )
    }

    /// At least so many slots, in whole blocks.
    pub(super) fn with_slots(phases: u32, block: u32, slots: u32) -> Self {
        // A slot is a u32, and one of them stands for none.
        let most = (u32::MAX - 1) / block;
        Self {
            phases,
            block,
            blocks: slots.div_ceil(block).min(most),
        }
    }

    /// The table's slots.
    pub(super) const fn slots(&self) -> u32 {
        self.blocks * self.block
    }

    pub(super) const fn block_of(&self, slot: u32) -> u32 {
        slot / self.block
    }
}

fn prior_power_of_two(number: u32) -> u32 {
    number.checked_ilog2().map_or(1, |log| 1 << log)
}

/// Which blocks were dealt out, and to which phases: appended to by whoever holds the books, and followed by the pass without a lock.
pub(super) struct Deals {
    /// The phase of each block.
    phases: Box<[AtomicU32]>,
    /// How many there are. Stored after the phase, so that whoever counts a block finds it.
    count: AtomicU32,
}

impl Deals {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            phases: zeroes(layout.blocks as usize),
            count: AtomicU32::new(0),
        }
    }

    /// How many blocks were dealt out.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// The phase of a block that was dealt out.
    pub(super) fn phase(&self, block: u32) -> Option<u32> {
        let phase = self.phases.get(block as usize)?;
        (block < self.count()).then(|| phase.load(Ordering::Relaxed))
    }

    /// Deals the next block out; none if there are no more.
    pub(super) fn deal(&self, phase: u32) -> Option<u32> {
        let block = self.count.load(Ordering::Relaxed);
        self.phases
            .get(block as usize)?
            .store(phase, Ordering::Relaxed);
        self.count.store(block + 1, Ordering::Release);
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(capacity: u32, window: u32) -> Layout {
        Layout::new(&SeatConfig {
            capacity,
            window,
            ..SeatConfig::default()
        })
    }

    #[test]
    fn there_are_slots_for_all_and_not_too_many() {
        for capacity in [0, 1, 5, 100, 4_096, 10_000, 100_000, 1 << 20, u32::MAX] {
            for window in [0, 1, 20, 60, 128, 7_680] {
                let layout = layout(capacity, window);
                let (seats, slots) = (u64::from(capacity), u64::from(layout.slots()));
                assert!(slots >= (seats + 1).min(u64::from(u32::MAX - LARGEST_BLOCK)));
                assert!(slots <= 2 * seats + u64::from(SPARE_SLOTS + LARGEST_BLOCK));
                assert!(layout.block.is_power_of_two() && layout.block <= LARGEST_BLOCK);
                assert_eq!(layout.phases, window.max(1));
                assert_eq!(layout.block_of(layout.slots() - 1) + 1, layout.blocks);
            }
        }
        let of = |capacity| (layout(capacity, 60).block, layout(capacity, 60).slots());
        assert_eq!(of(10_000), (16, 12_000));
        assert_eq!(of(100_000), (128, 110_464));
        assert_eq!(of(1_000_000), (1_024, 1_070_080));
    }

    #[test]
    fn a_block_is_counted_with_its_phase() {
        let deals = Deals::new(&Layout::with_slots(3, 2, 3));
        assert_eq!((deals.count(), deals.phase(0)), (0, None));
        assert_eq!(
            [2, 1, 0].map(|phase| deals.deal(phase)),
            [Some(0), Some(1), None]
        );
        assert_eq!(
            [0, 1, 2].map(|block| deals.phase(block)),
            [Some(2), Some(1), None]
        );
    }
}
