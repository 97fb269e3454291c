//! The free slots of each phase, first in, first out, so that generations grow evenly: lists through their records.

use super::{
    floor::Floor,
    layout::{Deals, Layout},
    record::{NONE, Records},
};

/// The free slots.
#[derive(Debug)]
pub(super) struct Vacancies {
    lists: Box<[List]>,
    layout: Layout,
}

#[derive(Debug, Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

impl Vacancies {
    pub(super) fn new(layout: &Layout) -> Self {
        let list = List {
            first: NONE,
            last: NONE,
        };
        Self {
            lists: vec![list; layout.phases.max(1) as usize].into_boxed_slice(),
            layout: *layout,
        }
    }

    /// Takes a free slot for a session of `phase`: one of that phase, or of a new block for it, or, when no block is left, one of the
    /// next phase that has any.
    pub(super) fn take(
        &mut self,
        phase: u32,
        records: &mut Records,
        deals: &Deals,
        floor: &Floor,
    ) -> Option<u32> {
        if let Some(slot) = self.pop(phase, records) {
            return Some(slot);
        }
        if let Some(block) = deals.deal(phase) {
            let slots = block * self.layout.block..(block + 1) * self.layout.block;
            records.grow_to(slots.end);
            floor.furnish(slots.clone());
            for slot in slots {
                self.push(phase, slot, records);
            }
            return self.pop(phase, records);
        }
        let mut others = (phase + 1..self.layout.phases).chain(0..phase);
        others.find_map(|phase| self.pop(phase, records))
    }

    /// Adds a slot that is free again.
    pub(super) fn give_back(&mut self, slot: u32, records: &mut Records, deals: &Deals) {
        if let Some(phase) = deals.phase(self.layout.block_of(slot)) {
            self.push(phase, slot, records);
        }
    }

    fn push(&mut self, phase: u32, slot: u32, records: &mut Records) {
        let (Some(list), Some(links)) = (self.lists.get_mut(phase as usize), records.links(slot))
        else {
            return;
        };
        links.next = NONE;
        match records.links(std::mem::replace(&mut list.last, slot)) {
            Some(links) => links.next = slot,
            None => list.first = slot,
        }
    }

    fn pop(&mut self, phase: u32, records: &mut Records) -> Option<u32> {
        let list = self.lists.get_mut(phase as usize)?;
        let slot = list.first;
        list.first = std::mem::replace(&mut records.links(slot)?.next, NONE);
        if list.first == NONE {
            list.last = NONE;
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_takes_its_own_then_new_ones_then_others() {
        let layout = Layout::with_slots(3, 2, 6);
        let (deals, floor) = (Deals::new(&layout), Floor::new(layout.slots()));
        let (mut free, mut records) = (Vacancies::new(&layout), Records::new(6));
        let mut take =
            |free: &mut Vacancies, phase: u32| free.take(phase, &mut records, &deals, &floor);
        assert_eq!(take(&mut free, 1), Some(0));
        assert_eq!(take(&mut free, 2), Some(2), "a block of its own");
        assert_eq!(take(&mut free, 1), Some(1));
        assert_eq!(take(&mut free, 1), Some(4), "and another one");
        assert_eq!(take(&mut free, 0), Some(5), "another's: no block is left");
        assert_eq!(take(&mut free, 0), Some(3));
        assert_eq!(take(&mut free, 0), None);
        // First in, first out, each to the phase of its block.
        let mut records_again = Records::new(6);
        records_again.grow_to(6);
        for slot in [4, 0, 3] {
            free.give_back(slot, &mut records_again, &deals);
        }
        let mut take = |phase: u32| free.take(phase, &mut records_again, &deals, &floor);
        assert_eq!(
            [1, 1, 1, 1].map(&mut take),
            [Some(4), Some(0), Some(3), None]
        );
    }
}
