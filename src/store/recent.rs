//! The newest events of the log in memory, so that a revocation that many gateways are to hear of is read once.

use std::collections::VecDeque;

use crate::{
    control::{Revocation, RevocationRange},
    id::Revision,
};

/// How many are kept: at 1,000 revocations a second, the last eight seconds. 56 bytes each make 450 KiB.
const CAPACITY: usize = 8_192;

/// A piece of the log without gaps, up to its head as far as it is known here.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The revision before the first.
    before: Revision,
    events: VecDeque<Revocation>,
}

impl Recent {
    /// Nothing is known of what comes up to `head`.
    pub(super) fn after(head: Revision) -> Self {
        Self {
            before: head,
            events: VecDeque::new(),
        }
    }

    /// The revision of the last one.
    pub(super) fn head(&self) -> Revision {
        Revision(self.before.0.saturating_add(self.events.len() as u64))
    }

    /// The last one itself, if it is known.
    #[cfg(feature = "redis")]
    pub(super) fn last(&self) -> Option<Revocation> {
        self.events.back().copied()
    }

    /// Takes the event at `revision`, if it is the next one: one that comes too soon will come again in its turn.
    pub(super) fn push(&mut self, revision: Revision, event: Revocation) {
        if revision.0 != self.head().0.saturating_add(1) {
            return;
        }
        self.events.push_back(event);
        if self.events.len() > CAPACITY {
            self.events.pop_front();
            self.before.0 += 1;
        }
    }

    /// Takes the events up to `head`, and forgets those up to `tail`.
    pub(super) fn append(&mut self, events: &[Revocation], tail: Revision, head: Revision) {
        let first = head.0.saturating_sub(events.len() as u64).saturating_add(1);
        for (revision, event) in (first..).zip(events) {
            self.push(Revision(revision), *event);
        }
        self.forget_to(tail);
    }

    /// Forgets what comes up to `tail`.
    pub(super) fn forget_to(&mut self, tail: Revision) {
        while self.before < tail && self.events.pop_front().is_some() {
            self.before.0 += 1;
        }
    }

    /// Up to `limit` events after `from`; none if they are not all here.
    pub(super) fn range(&self, from: Revision, limit: usize) -> Option<RevocationRange> {
        let skip = from.0.checked_sub(self.before.0)?;
        if from > self.head() {
            return None;
        }
        let skip = usize::try_from(skip).ok()?;
        let events: Vec<_> = self.events.iter().skip(skip).take(limit).copied().collect();
        Some(RevocationRange {
            from,
            to: Revision(from.0.saturating_add(events.len() as u64)),
            events,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    fn event(n: u64) -> Revocation {
        Revocation::Session(SessionId(n.into()))
    }

    #[test]
    fn what_is_here_is_dense() {
        let mut recent = Recent::after(Revision(10));
        assert_eq!(recent.range(Revision(9), 5), None);
        assert_eq!(recent.range(Revision(10), 5).unwrap().events, []);
        for n in [11, 13, 12, 12, 13] {
            recent.push(Revision(n), event(n));
        }
        assert_eq!(
            (recent.head(), recent.last()),
            (Revision(13), Some(event(13)))
        );
        let range = recent.range(Revision(10), 2).unwrap();
        assert_eq!((range.from, range.to), (Revision(10), Revision(12)));
        assert_eq!(range.events, [event(11), event(12)]);
        assert_eq!(recent.range(Revision(12), 9).unwrap().events, [event(13)]);
        assert_eq!(recent.range(Revision(14), 9), None);
        recent.forget_to(Revision(12));
        assert_eq!(recent.range(Revision(11), 9), None);
        assert_eq!(recent.range(Revision(12), 9).unwrap().events, [event(13)]);
        recent.forget_to(Revision(20));
        assert_eq!(recent.head(), Revision(13), "what has not arrived here yet");
    }

    #[test]
    fn memory_is_bounded() {
        let mut recent = Recent::default();
        let all = CAPACITY as u64 + 3;
        for n in 1..=all {
            recent.push(Revision(n), event(n));
        }
        assert_eq!(recent.events.len(), CAPACITY);
        assert_eq!(recent.head(), Revision(all));
        assert_eq!(recent.range(Revision(2), 1), None);
        assert_eq!(recent.range(Revision(3), 1).unwrap().events, [event(4)]);
    }
}
