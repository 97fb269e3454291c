//! Which seats' activity is due on which tick: N seats written once a window, about N/window of them on each tick.

use super::{
    fault::{Fault, is_planted},
    layout::{Deals, Layout},
    sync::zeroes,
};
use crate::id::{SessionId, Tick};

/// No block: blocks are fewer.
const NONE: u32 = u32::MAX;

/// The blocks of each phase, as the pass knows them: chains through arrays that are as long as they can get to be.
///
/// The phase of a session is a hash of its JTI modulo the window, so that sessions spread evenly over the window whenever they were
/// made and however their clients are timed; and it sits in a block of its phase, so that what is due on a tick lies together.
pub(super) struct Phases {
    chains: Box<[Chain]>,
    /// By block: the next of its phase, and one more; 0 is none.
    next: Box<[u32]>,
    /// How many blocks are in the chains.
    known: u32,
    last_tick: Option<Tick>,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
    /// When the phase was last written out.
    written: Option<Tick>,
}

impl Phases {
    pub(super) fn new(layout: &Layout) -> Self {
        let chain = Chain {
            first: NONE,
            last: NONE,
            written: None,
        };
        Self {
            chains: vec![chain; layout.phases.max(1) as usize].into_boxed_slice(),
            next: zeroes(layout.blocks as usize),
            known: 0,
            last_tick: None,
        }
    }

    fn window(&self) -> u64 {
        self.chains.len() as u64
    }

    /// Adds the blocks that were dealt out since.
    pub(super) fn follow(&mut self, deals: &Deals) {
        let count = deals.count();
        for block in self.known..count {
            let phase = deals.phase(block).unwrap_or(0) as usize;
            let Some(chain) = self.chains.get_mut(phase) else {
                continue;
            };
            match self.next.get_mut(chain.last as usize) {
                Some(next) => *next = block + 1,
                None => chain.first = block,
            }
            chain.last = block;
        }
        self.known = count;
    }

    /// Tells each block of the phases whose time has come since the last pass, but of those that were written out less than a window
    /// ago: their marks stay for the next time. (That happens after skipped ticks, when phases are written out late.)
    pub(super) fn due(&mut self, tick: Tick, mut write_out: impl FnMut(u32)) {
        let window = self.window();
        for phase in due_phases(window, self.last_tick, tick) {
            let Some(chain) = self.chains.get_mut(phase) else {
                continue;
            };
            let passed = chain
                .written
                .and_then(|written| tick.0.checked_sub(written.0));
            if passed.is_some_and(|passed| passed < window) && !is_planted(Fault::WritesTwice) {
                continue;
            }
            chain.written = Some(tick);
            let mut block = chain.first;
            while let Some(next) = self.next.get(block as usize) {
                write_out(block);
                block = next.wrapping_sub(1);
            }
        }
        self.last_tick = Some(tick);
    }
}

/// Skipped ticks lose nothing: their phases are due now. Without a pass before, or after the ticks were counted afresh, only
/// this tick's own phase is; nothing is lost by that either, because marks stay.
fn due_phases(window: u64, last: Option<Tick>, tick: Tick) -> impl Iterator<Item = usize> + use<> {
    let missed = match last {
        Some(last) if last <= tick => (tick.0 - last.0).min(window),
        Some(_) | None => 1,
    };
    // The phases of the ticks (tick - missed, tick], with tick reduced first so that nothing underflows near tick 0.
    let first = tick.0 % window + window + 1 - missed;
    (first..first + missed).map(move |tick| (tick % window) as usize)
}

/// The phase of a session: a hash of all 128 bits, because ULIDs made in the same millisecond share 48 of them and may count up
/// in the others. No secret and no defence: sidecars alone make JTIs.
pub(super) fn phase_of(session: SessionId, window: u32) -> u32 {
    (hash(session.0) % u64::from(window.max(1))) as u32
}

/// A hash of an id.
pub(super) const fn hash(id: u128) -> u64 {
    mix(mix((id >> 64) as u64) ^ id as u64)
}

/// The finalizer of splitmix64 (Stafford's Mix13): each bit of the input flips each bit of the output with probability 1/2.
const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(window: u64, last: Option<u64>, tick: u64) -> Vec<usize> {
        due_phases(window, last.map(Tick), Tick(tick)).collect()
    }

    #[test]
    fn each_phase_since_the_last_pass_is_due_once() {
        assert_eq!(due(4, None, 0), [0]);
        assert_eq!(due(4, None, 6), [2]);
        assert!(due(4, Some(0), 0).is_empty());
        assert_eq!(due(4, Some(0), 1), [1]);
        assert_eq!(due(4, Some(0), 3), [1, 2, 3]);
        assert_eq!(due(4, Some(5), 9), [2, 3, 0, 1]);
        assert_eq!(due(4, Some(5), 1_000), [1, 2, 3, 0]);
        assert_eq!(due(4, Some(u64::MAX - 1), u64::MAX), [3]);
        assert_eq!(due(4, Some(9), 2), [2], "counted afresh");
        assert_eq!(due(1, Some(3), 4), [0]);
    }

    fn blocks(phases: &mut Phases, tick: u64) -> Vec<u32> {
        let mut blocks = Vec::new();
        phases.due(Tick(tick), |block| blocks.push(block));
        blocks
    }

    #[test]
    fn each_block_is_due_with_its_phase_as_soon_as_it_was_dealt_out() {
        let layout = Layout::with_slots(4, 8, 8 * 7);
        let (deals, mut phases) = (Deals::new(&layout), Phases::new(&layout));
        let deal = |dealt: &[u32]| {
            for phase in dealt {
                assert!(deals.deal(*phase).is_some());
            }
        };
        assert!(blocks(&mut phases, 0).is_empty());
        deal(&[1, 3, 1]);
        phases.follow(&deals);
        assert_eq!(blocks(&mut phases, 1), [0, 2]);
        deal(&[1, 0]);
        phases.follow(&deals);
        phases.follow(&deals);
        assert_eq!(blocks(&mut phases, 4), [1, 4], "phase 2 has none");
        deal(&[3, 3]);
        assert_eq!(deals.deal(3), None, "there are seven");
        phases.follow(&deals);
        assert_eq!(blocks(&mut phases, 8), [0, 2, 3, 1, 5, 6, 4]);
    }

    #[test]
    fn no_phase_is_written_out_twice_within_a_window() {
        let layout = Layout::with_slots(4, 1, 4);
        let (deals, mut phases) = (Deals::new(&layout), Phases::new(&layout));
        (0..4).for_each(|phase| assert!(deals.deal(phase).is_some()));
        phases.follow(&deals);
        assert_eq!(blocks(&mut phases, 1), [1]);
        assert_eq!(blocks(&mut phases, 4), [2, 3, 0], "late, but for the last");
        assert_eq!(blocks(&mut phases, 7), [1], "the others were just now");
        assert_eq!(blocks(&mut phases, 8), [0]);
        assert!(blocks(&mut phases, 9).is_empty(), "two ticks ago");
        assert_eq!(blocks(&mut phases, 11), [2, 3]);
        assert_eq!(blocks(&mut phases, 2), [2], "counted afresh");
    }

    #[test]
    fn sessions_of_one_millisecond_spread_evenly() {
        for window in [20u32, 30, 60, 128] {
            for step in [1u128, 1 << 16, (1 << 64) + 1, 60, 128] {
                let mut counts = vec![0u32; window as usize];
                for i in 0..10_000 {
                    let session = SessionId((0x0192_5f6a_0000 << 80) + i * step);
                    counts[phase_of(session, window) as usize] += 1;
                }
                let mean = 10_000 / window;
                let most = counts.iter().max().unwrap();
                assert!(
                    *most * 2 <= mean * 3,
                    "window {window} step {step}: {most} of {mean}"
                );
            }
        }
    }
}
