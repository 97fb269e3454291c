//! What this sidecar knows of the log: which one it is, and how far it has seen it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::reply::event_text;
use crate::{
    control::{Revocation, RevocationRange},
    id::{Lineage, Revision},
    store::recent::Recent,
};

/// The log as it was last seen.
pub(super) struct Known(Mutex<Log>);

struct Log {
    /// None before the first connection.
    lineage: Option<Lineage>,
    recent: Recent,
    /// Replaced with the lineage: its end tells whoever watches that the log is another one.
    head: watch::Sender<Revision>,
}

/// How far a log has been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) lineage: Option<Lineage>,
    pub(super) head: Revision,
    /// The event there, as the stream holds it; empty if it is not known.
    pub(super) event: String,
}

impl Known {
    pub(super) fn nothing() -> Self {
        Self(Mutex::new(Log {
            lineage: None,
            recent: Recent::default(),
            head: watch::Sender::new(Revision(0)),
        }))
    }

    pub(super) fn seen(&self) -> Seen {
        let log = self.log();
        // What the head was told to be may be ahead of the events that have arrived: the check is of a whole.
        let event = log.recent.last().map(event_text);
        Seen {
            lineage: log.lineage,
            head: log.recent.head(),
            event: event.unwrap_or_default(),
        }
    }

    /// The log is `lineage`, and stands at `head`.
    pub(super) fn adopt(&self, lineage: Lineage, head: Revision) {
        let mut log = self.log();
        if log.lineage == Some(lineage) {
            return;
        }
        *log = Log {
            lineage: Some(lineage),
            recent: Recent::after(head),
            head: watch::Sender::new(head),
        };
    }

    /// An event is on the server's disk.
    pub(super) fn heard(&self, revision: Revision, event: Revocation) {
        let mut log = self.log();
        log.recent.push(revision, event);
        log.head.send_if_modified(|head| {
            let moved = *head < revision;
            *head = revision.max(*head);
            moved
        });
    }

    /// What there was between could not be had any more: what is known begins at `head`.
    pub(super) fn skip_to(&self, head: Revision) {
        let mut log = self.log();
        log.recent = Recent::after(head);
    }

    /// The log begins after `tail`.
    pub(super) fn purged(&self, tail: Revision) {
        self.log().recent.forget_to(tail);
    }

    pub(super) fn watch(&self) -> watch::Receiver<Revision> {
        self.log().head.subscribe()
    }

    pub(super) fn range(&self, from: Revision, limit: usize) -> Option<RevocationRange> {
        self.log().recent.range(from, limit)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn another_lineage_ends_the_watches_of_the_one_before() {
        let known = Known::nothing();
        known.adopt(Lineage(1), Revision(5));
        let mut head = known.watch();
        known.adopt(Lineage(1), Revision(9));
        assert!(!head.has_changed().unwrap(), "the same log");
        known.heard(Revision(6), Revocation::Session(SessionId(7)));
        assert!(head.has_changed().unwrap());
        assert_eq!(*head.borrow_and_update(), Revision(6));
        assert_eq!(known.seen().head, Revision(6));
        known.adopt(Lineage(2), Revision(3));
        assert!(head.has_changed().is_err());
        assert_eq!(*known.watch().borrow(), Revision(3));
        let seen = Seen {
            lineage: Some(Lineage(2)),
            head: Revision(3),
            event: String::new(),
        };
        assert_eq!(known.seen(), seen);
    }
}
