//! How slots are dealt out: in blocks, each for the sessions of one phase of the activity window.

use super::{
    config::SeatConfig,
    sync::{AtomicU32, Ordering, zeroes},
};

/// The most slots of a block: a cache line of marks, four of words.
const LARGEST_BLOCK: u32 = 64;

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
    /// A block is at most a quarter of the seats of a phase, so that all this is little: at 100,000 seats and 60 phases blocks of 64, and
    /// 6 % more slots than seats; at 10,000, blocks of 32, and 30 %; never more than twice as many.
    pub(super) fn new(config: &SeatConfig) -> Self {
        let phases = config.window.max(1);
        let seats = config.capacity;
        let block = prior_power_of_two(seats / phases / 4).min(LARGEST_BLOCK);
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
