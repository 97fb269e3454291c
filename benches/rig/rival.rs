//! The reference with a crowd in it, asked about everybody.

use std::hint::black_box;

use tickgate::id::SessionId;

use super::Subject;
use crate::reference::{Reference, WallClock};

/// The reference, and the JTIs that its caller keeps, in the order in which it asks. One tick of a game is one pass: the answers and
/// the activity writes that are due are the same calls.
pub(crate) struct Rival {
    reference: Reference,
    /// Made in the order in which they are asked about: the caller's own list is walked front to back, as our handles are.
    jtis: Vec<String>,
    tick: u64,
}

impl Rival {
    /// Logs everybody in, in the order of `sessions`; asks in the order of `asked`.
    pub(crate) fn new(sessions: &[SessionId], asked: &[SessionId]) -> Self {
        let reference = Reference::new(WallClock);
        for session in sessions {
            reference.log_in(session.to_string());
        }
        Self {
            reference,
            jtis: asked.iter().map(SessionId::to_string).collect(),
            tick: 0,
        }
    }
}

impl Subject for Rival {
    fn pass(&mut self) {
        self.tick += 1;
        let mut live = 0_usize;
        for jti in &self.jtis {
            live += usize::from(
                self.reference
                    .is_session_authorized(black_box(jti), Some(self.tick)),
            );
        }
        assert_eq!(black_box(live), self.jtis.len(), "the reference refused");
    }
}
