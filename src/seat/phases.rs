//! Which seats' activity is due on which tick: N seats written once a window, about N/window of them on each tick.

use crate::id::{SessionId, Tick};

/// The seats of each phase. The phase of a session is a hash of its JTI modulo the window, so that sessions spread evenly over
/// the window whenever they were made and however their clients are timed.
#[derive(Debug)]
pub(super) struct Phases {
    /// The slots of each phase; as many phases as the window has ticks.
    members: Vec<Vec<u32>>,
}

/// Where a slot stands among the members of its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    phase: usize,
    index: usize,
}

impl Phases {
    /// Phases of a window of `window` ticks, at least 1.
    pub(super) fn new(window: u32) -> Self {
        let mut members = Vec::new();
        members.resize_with(window.max(1) as usize, Vec::new);
        Self { members }
    }

    fn window(&self) -> u64 {
        self.members.len() as u64
    }

    pub(super) fn enter(&mut self, session: SessionId, slot: u32) -> Place {
        let phase = phase_of(session, self.window());
        let Some(members) = self.members.get_mut(phase) else {
            // Unreachable: a remainder is smaller than its divisor. Nobody would be written out, and idle ends still hold.
            return Place { phase, index: 0 };
        };
        members.push(slot);
        Place {
            phase,
            index: members.len() - 1,
        }
    }

    /// Takes out the slot at `place`; returns the slot that now stands there, if another had to take its place.
    pub(super) fn leave(&mut self, place: Place) -> Option<u32> {
        let members = self.members.get_mut(place.phase)?;
        if place.index < members.len() {
            members.swap_remove(place.index);
        }
        members.get(place.index).copied()
    }

    /// The slots whose phase came up after the pass at `last`, up to the pass at `tick`; none twice.
    pub(super) fn due(&self, last: Option<Tick>, tick: Tick) -> impl Iterator<Item = u32> {
        self.due_phases(last, tick)
            .filter_map(|phase| self.members.get(phase))
            .flatten()
            .copied()
    }

    /// Skipped ticks lose nothing: their phases are due now. Without a pass before, or after the ticks were counted afresh, only
    /// this tick's own phase is; nothing is lost by that either, because marks stay.
    fn due_phases(&self, last: Option<Tick>, tick: Tick) -> impl Iterator<Item = usize> + use<> {
        let window = self.window();
        let missed = match last {
            Some(last) if last <= tick => (tick.0 - last.0).min(window),
            Some(_) | None => 1,
        };
        // The phases of the ticks (tick - missed, tick], with tick reduced first so that nothing underflows near tick 0.
        let first = tick.0 % window + window + 1 - missed;
        (first..first + missed).map(move |tick| (tick % window) as usize)
    }
}

/// The phase of a session: a hash of all 128 bits, because ULIDs made in the same millisecond share 48 of them and may count up
/// in the others. No secret and no defence: sidecars alone make JTIs.
pub(super) fn phase_of(session: SessionId, window: u64) -> usize {
    let (high, low) = ((session.0 >> 64) as u64, session.0 as u64);
    (mix(mix(high) ^ low) % window.max(1)) as usize
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

    fn due(phases: &Phases, last: Option<u64>, tick: u64) -> Vec<usize> {
        phases.due_phases(last.map(Tick), Tick(tick)).collect()
    }

    #[test]
    fn each_phase_since_the_last_pass_is_due_once() {
        let phases = Phases::new(4);
        assert_eq!(due(&phases, None, 0), [0]);
        assert_eq!(due(&phases, None, 6), [2]);
        assert!(due(&phases, Some(0), 0).is_empty());
        assert_eq!(due(&phases, Some(0), 1), [1]);
        assert_eq!(due(&phases, Some(0), 3), [1, 2, 3]);
        assert_eq!(due(&phases, Some(5), 9), [2, 3, 0, 1]);
        assert_eq!(due(&phases, Some(5), 1_000), [1, 2, 3, 0]);
        assert_eq!(due(&phases, Some(u64::MAX - 1), u64::MAX), [3]);
        assert_eq!(due(&phases, Some(9), 2), [2], "counted afresh");
    }

    #[test]
    fn a_window_of_nothing_is_a_window_of_one_tick() {
        let phases = Phases::new(0);
        assert_eq!(due(&phases, Some(3), 4), [0]);
    }

    #[test]
    fn leaving_keeps_the_others_in_place() {
        let mut phases = Phases::new(1);
        let a = phases.enter(SessionId(1), 10);
        let b = phases.enter(SessionId(2), 11);
        let c = phases.enter(SessionId(3), 12);
        assert_eq!(phases.leave(a), Some(12), "the last takes its place");
        assert_eq!(phases.leave(a), Some(11), "12 stood there");
        assert_eq!(phases.leave(a), None);
        assert_eq!((b.index, c.index), (1, 2));
        assert_eq!(phases.leave(a), None, "an empty phase stays empty");
    }

    #[test]
    fn sessions_of_one_millisecond_spread_evenly() {
        for window in [20u64, 30, 60, 128] {
            for step in [1u128, 1 << 16, (1 << 64) + 1, 60, 128] {
                let mut counts = vec![0u32; window as usize];
                for i in 0..10_000 {
                    let session = SessionId((0x0192_5f6a_0000 << 80) + i * step);
                    counts[phase_of(session, window)] += 1;
                }
                let mean = 10_000 / window as u32;
                let most = counts.iter().max().unwrap();
                assert!(
                    *most * 2 <= mean * 3,
                    "window {window} step {step}: {most} of {mean}"
                );
            }
        }
    }
}
