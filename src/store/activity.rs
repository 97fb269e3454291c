//! Last activity in memory: exact there, on disk only when it has moved by a granule.

use std::{collections::HashMap, time::Duration};

use crate::{clock::Timestamp, id::SessionId};

/// Sessions whose exact time is kept: 2^18 at about 40 bytes are 10 MiB. Above it, activity of further sessions is written through.
const CAPACITY: usize = 1 << 18;

#[derive(Debug, Clone, Copy)]
struct Moment {
    exact: Timestamp,
    /// What the disk has, or has been sent.
    written: Timestamp,
}

/// The exact last activity of sessions.
#[derive(Debug)]
pub(super) struct Activity {
    moments: HashMap<SessionId, Moment>,
    granule: Duration,
    capacity: usize,
}

impl Activity {
    pub(super) fn new(granule: Duration) -> Self {
        Self {
            moments: HashMap::new(),
            granule,
            capacity: CAPACITY,
        }
    }

    /// Takes note of activity at `at`. Returns whether it is due to be written; when it has been sent, call
    /// [`Self::sent`], else it is due again next time.
    pub(super) fn note(&mut self, session: SessionId, at: Timestamp) -> bool {
        match self.moments.get_mut(&session) {
            Some(moment) => {
                moment.exact = moment.exact.max(at);
                at > moment.written.after(self.granule)
            }
            None => {
                if self.moments.len() < self.capacity {
                    let written = Timestamp(0);
                    self.moments.insert(session, Moment { exact: at, written });
                }
                true
            }
        }
    }

    /// Activity at `at` is on its way to the disk.
    pub(super) fn sent(&mut self, session: SessionId, at: Timestamp) {
        if let Some(moment) = self.moments.get_mut(&session) {
            moment.written = moment.written.max(at);
        }
    }

    /// What was on its way has not arrived: the next activity is due to be written.
    #[cfg(feature = "redis")]
    pub(super) fn unsent(&mut self, session: SessionId) {
        if let Some(moment) = self.moments.get_mut(&session) {
            moment.written = Timestamp(0);
        }
    }

    /// The exact last activity, or what the disk says.
    pub(super) fn exact(&self, session: SessionId, on_disk: Timestamp) -> Timestamp {
        self.moments
            .get(&session)
            .map_or(on_disk, |moment| moment.exact.max(on_disk))
    }

    /// The session has ended, or never was.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.moments.remove(&session);
    }

    /// Forgets what has not moved since `oldest`: what is on disk is within a granule of it.
    pub(super) fn forget_before(&mut self, oldest: Timestamp) {
        self.moments.retain(|_, moment| moment.exact >= oldest);
    }

    /// What memory knows and the disk does not.
    pub(super) fn unwritten(&self) -> Vec<(SessionId, Timestamp)> {
        self.moments
            .iter()
            .filter(|(_, moment)| moment.exact > moment.written)
            .map(|(session, moment)| (*session, moment.exact))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_moved_by_a_granule_is_due() {
        let mut activity = Activity::new(Duration::from_millis(100));
        let session = SessionId(1);
        assert!(activity.note(session, Timestamp(1_000)));
        assert!(activity.note(session, Timestamp(1_010)), "not sent yet");
        activity.sent(session, Timestamp(1_010));
        assert!(!activity.note(session, Timestamp(1_110)));
        assert_eq!(
            activity.unwritten(),
            [(session, Timestamp(1_110))],
            "known, and not on disk"
        );
        assert!(activity.note(session, Timestamp(1_111)));
        assert_eq!(activity.exact(session, Timestamp(5)), Timestamp(1_111));
        assert!(!activity.note(session, Timestamp(900)), "never back");
        assert_eq!(activity.exact(session, Timestamp(5)), Timestamp(1_111));
        assert_eq!(activity.exact(SessionId(2), Timestamp(5)), Timestamp(5));
    }

    #[test]
    fn memory_is_bounded_and_the_rest_is_written_through() {
        let mut activity = Activity::new(Duration::from_secs(60));
        activity.capacity = 2;
        for id in 1..=3 {
            assert!(activity.note(SessionId(id), Timestamp(1)));
            activity.sent(SessionId(id), Timestamp(1));
        }
        assert!(!activity.note(SessionId(1), Timestamp(2)));
        assert!(activity.note(SessionId(3), Timestamp(2)), "has no room");
        assert_eq!(activity.moments.len(), 2);
        activity.forget_before(Timestamp(2));
        assert_eq!(activity.moments.len(), 1);
    }
}
