//! The suspended seats in the order in which their graces end: a list through their records.

use super::record::{Links, NONE, Records, Service};
use crate::clock::Timestamp;

/// The ends of the list.
#[derive(Debug)]
pub(super) struct Graces {
    first: u32,
    last: u32,
    len: usize,
}

impl Graces {
    pub(super) const fn new() -> Self {
        Self {
            first: NONE,
            last: NONE,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The end that comes first, and whose.
    pub(super) fn first(&self, records: &Records) -> Option<(Timestamp, u32)> {
        end_of(records, self.first).map(|end| (end, self.first))
    }

    /// Adds a slot whose record says when its grace ends.
    ///
    /// All graces are as long, and time never steps back; so a new one belongs at the end, or before those few that other threads
    /// added in the same milliseconds by a later reading of the clock.
    pub(super) fn insert(&mut self, records: &mut Records, slot: u32) {
        let Some(end) = end_of(records, slot) else {
            return;
        };
        let mut prior = self.last;
        while let Some(other) = end_of(records, prior)
            && other > end
        {
            prior = records.get(prior).map_or(NONE, |it| it.links.prior);
        }
        let next = match records.links(prior) {
            Some(links) => std::mem::replace(&mut links.next, slot),
            None => std::mem::replace(&mut self.first, slot),
        };
        match records.links(next) {
            Some(links) => links.prior = slot,
            None => self.last = slot,
        }
        if let Some(links) = records.links(slot) {
            *links = Links { prior, next };
        }
        self.len += 1;
    }

    /// Takes out a slot that was added.
    pub(super) fn remove(&mut self, records: &mut Records, slot: u32) {
        let Some(links) = records.links(slot) else {
            return;
        };
        let Links { prior, next } = std::mem::replace(links, Links::NONE);
        match records.links(prior) {
            Some(links) => links.next = next,
            None => self.first = next,
        }
        match records.links(next) {
            Some(links) => links.prior = prior,
            None => self.last = prior,
        }
        self.len -= 1;
    }
}

fn end_of(records: &Records, slot: u32) -> Option<Timestamp> {
    match records.get(slot)?.service {
        Service::NoneUntil(end) => Some(end),
        Service::By { .. } | Service::Ended(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_stands_first_whatever_comes_and_goes() {
        let mut records = Records::new(8);
        records.grow_to(8);
        let mut graces = Graces::new();
        let mut add = |graces: &mut Graces, slot: u32, end: u64| {
            records.get_mut(slot).unwrap().service = Service::NoneUntil(Timestamp(end));
            graces.insert(&mut records, slot);
        };
        assert_eq!(graces.len(), 0);
        for (slot, end) in [(3, 30), (1, 10), (4, 40), (2, 20), (5, 30), (0, 10)] {
            add(&mut graces, slot, end);
        }
        graces.remove(&mut records, 2);
        graces.remove(&mut records, 4);
        assert_eq!(graces.len(), 4);
        let mut order = Vec::new();
        while let Some((end, slot)) = graces.first(&records) {
            order.push((end.0, slot));
            graces.remove(&mut records, slot);
        }
        assert_eq!(order, [(10, 1), (10, 0), (30, 3), (30, 5)]);
        assert_eq!((graces.len(), graces.last), (0, NONE));
    }
}
