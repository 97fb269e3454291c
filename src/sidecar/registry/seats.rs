//! Who has a seat where, as far as gateways have told and the store has confirmed.

use std::collections::{HashMap, hash_map::Entry};

use crate::{control::AttachmentId, id::SessionId};

/// Seats known in all. Activity of a session whose seat is not known is checked with the store each time, so beyond it that is
/// slower, and what another gateway must know of its activity is not pushed.
///
/// A seat is a place of 17 bytes with its gateway and one of 33 bytes here, at worst half of them in use: 100 bytes, 100 MiB for a
/// million seats.
pub(super) const KNOWN_SEATS: usize = 1 << 20;

/// The attachments at which a session has a seat. Nearly always it is one.
#[derive(Debug)]
enum Holders {
    One(AttachmentId),
    #[allow(
        clippy::box_collection,
        reason = "few sessions have several seats, and every session's place is a third smaller for it"
    )]
    Several(Box<Vec<AttachmentId>>),
}

impl Holders {
    fn as_slice(&self) -> &[AttachmentId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(ids) => ids,
        }
    }

    fn insert(&mut self, id: AttachmentId) {
        match self {
            Self::One(first) => *self = Self::Several(Box::new(vec![*first, id])),
            Self::Several(ids) => ids.push(id),
        }
    }
}

/// Seats by session. The other direction, the sessions of an attachment, is the attachment's own.
#[derive(Debug, Default)]
pub(super) struct Seats {
    by_session: HashMap<SessionId, Holders>,
    known: usize,
}

impl Seats {
    /// How many more may be remembered.
    pub(super) fn room(&self) -> usize {
        KNOWN_SEATS.saturating_sub(self.known)
    }

    /// The attachments at which the session has a seat.
    pub(super) fn holders(&self, session: SessionId) -> &[AttachmentId] {
        self.by_session.get(&session).map_or(&[], Holders::as_slice)
    }

    /// A seat that was not known. There must be [room](Self::room).
    pub(super) fn insert(&mut self, session: SessionId, id: AttachmentId) {
        self.known += 1;
        match self.by_session.entry(session) {
            Entry::Vacant(place) => {
                place.insert(Holders::One(id));
            }
            Entry::Occupied(mut place) => place.get_mut().insert(id),
        }
    }

    /// A seat that was known.
    pub(super) fn remove(&mut self, session: SessionId, id: AttachmentId) {
        let Entry::Occupied(mut place) = self.by_session.entry(session) else {
            return;
        };
        let left = match place.get_mut() {
            Holders::One(only) => usize::from(*only != id),
            Holders::Several(ids) => {
                ids.retain(|holder| *holder != id);
                ids.len()
            }
        };
        if left == 0 {
            place.remove();
        }
        self.known -= 1;
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        let counted = self
            .by_session
            .values()
            .map(|holders| holders.as_slice().len());
        assert_eq!(counted.sum::<usize>(), self.known);
        self.known
    }
}
