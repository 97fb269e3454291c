//! What is known about each seat beside what the floor has: records by slot, in pieces that never move.

use super::{Connection, EndReason, journal::Entry};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId},
};

/// No slot, where one may stand: slots are fewer.
pub(super) const NONE: u32 = u32::MAX;

/// A slot's seat, or the last one. 64 bytes: a cache line of most machines, of which one admission or end touches one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) player: PlayerId,
    pub(super) client: ClientId,
    pub(super) service: Service,
    pub(super) player_generation: PlayerGeneration,
    pub(super) told: Entry,
    /// Among the suspended seats, those whose grace ends before and after. Of a free slot: the next free one.
    pub(super) links: Links,
    /// Among the player's seats: a ring.
    pub(super) siblings: Links,
}

/// Neighbours in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) prior: u32,
    pub(super) next: u32,
}

impl Links {
    pub(super) const NONE: Self = Self {
        prior: NONE,
        next: NONE,
    };
}

/// Who serves a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// This connection: the seat is live. (Taken apart, so that all this fits into 16 bytes.)
    By { worker: u16, id: u64 },
    /// Nobody: the seat is suspended, and ends at this time.
    NoneUntil(Timestamp),
    /// The seat has ended, for this reason.
    Ended(EndReason),
}

impl Record {
    /// Of a slot that was never used.
    const BLANK: Self = Self {
        player: PlayerId(0),
        client: ClientId(0),
        service: Service::Ended(EndReason::Left),
        player_generation: PlayerGeneration(0),
        told: Entry::NONE,
        links: Links::NONE,
        siblings: Links::NONE,
    };
}

impl Service {
    pub(super) const fn by(Connection { worker, id }: Connection) -> Self {
        Self::By { worker, id }
    }

    /// The connection that serves the seat, if it is live.
    pub(super) const fn connection(self) -> Option<Connection> {
        match self {
            Self::By { worker, id } => Some(Connection { worker, id }),
            Self::NoneUntil(_) | Self::Ended(_) => None,
        }
    }
}

/// How many records are made at once: 16 KiB, some microseconds.
const PIECE: usize = 256;

/// The records of all slots that were ever used.
#[derive(Debug)]
pub(super) struct Records {
    pieces: Vec<Box<[Record]>>,
}

impl Records {
    /// For so many slots, none of them used yet.
    pub(super) fn new(slots: u32) -> Self {
        Self {
            pieces: Vec::with_capacity((slots as usize).div_ceil(PIECE)),
        }
    }

    /// Makes sure that there are so many.
    pub(super) fn grow_to(&mut self, slots: u32) {
        while self.pieces.len() * PIECE < slots as usize {
            self.pieces
                .push(vec![Record::BLANK; PIECE].into_boxed_slice());
        }
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Record> {
        let slot = slot as usize;
        self.pieces.get(slot / PIECE)?.get(slot % PIECE)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Record> {
        let slot = slot as usize;
        self.pieces.get_mut(slot / PIECE)?.get_mut(slot % PIECE)
    }

    pub(super) fn links(&mut self, slot: u32) -> Option<&mut Links> {
        self.get_mut(slot).map(|record| &mut record.links)
    }

    pub(super) fn siblings(&mut self, slot: u32) -> Option<&mut Links> {
        self.get_mut(slot).map(|record| &mut record.siblings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_a_cache_line() {
        assert_eq!(size_of::<Record>(), 64);
    }

    #[test]
    fn records_stay_where_they_are_while_others_are_added() {
        let mut records = Records::new(1_000);
        assert!(records.get(0).is_none());
        records.grow_to(1);
        records.get_mut(255).unwrap().client = ClientId(255);
        let before: *const Record = records.get(255).unwrap();
        assert!(records.get(256).is_none());
        records.grow_to(1_000);
        assert!(std::ptr::eq(before, records.get(255).unwrap()));
        assert_eq!(records.get(255).unwrap().client, ClientId(255));
        assert!(records.get(1_023).is_some() && records.get_mut(1_024).is_none());
    }
}
