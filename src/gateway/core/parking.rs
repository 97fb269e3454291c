//! Clients whose token is newer than what is known here of the revocation log: they wait a moment for the rest of it.
//!
//! A token and the log come to the gateway by different ways, so the token is sometimes first; and after the log has got a new
//! lineage, what is known of it is old at first. To let such a client in would be to let in who was revoked in between.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    Core,
    link::{Link, LinkId, Stage},
    session::Patience,
};
use crate::{
    gateway::admit::Refusal,
    id::{Revision, SessionId},
    seat::Coverage,
    wire::Hello,
};

/// How long a client waits for the log: ten times what a revocation takes from one end of the control channel to the other when that
/// goes badly, and well within the patience of whoever looks at a loading screen.
const LOG_WAIT: Duration = Duration::from_millis(500);

/// What a parked client said, to be judged again.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) hello: Hello,
    pub(super) revision: Revision,
    pub(super) session: SessionId,
}

/// The parked links, oldest first.
///
/// They count as awaiting Hello, and so are bounded by the same limit; to leave from the middle is a search through as many.
#[derive(Debug, Default)]
pub(super) struct Parking(VecDeque<(LinkId, Instant)>);

impl Parking {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Since when the oldest has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.0.front().map(|(_, since)| *since)
    }

    /// When the oldest has waited for long enough.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.oldest().map(|since| since + LOG_WAIT)
    }

    pub(super) fn leave(&mut self, id: LinkId) {
        if let Some(place) = self.0.iter().position(|(parked, _)| *parked == id) {
            self.0.remove(place);
        }
    }

    fn enter(&mut self, id: LinkId, now: Instant) {
        self.0.push_back((id, now));
    }
}

impl Core {
    /// Lets a client wait for the log.
    pub(super) fn park(&mut self, link: &mut Link, now: Instant, parked: Parked) {
        self.leave_rooms(link);
        link.stage = Stage::AwaitingLog;
        link.parked = Some(Box::new(parked));
        self.parking.enter(link.id, now);
    }

    /// Judges the parked clients again that the log has caught up with, if it has changed.
    pub(super) fn look_at_parked(&mut self, now: Instant) {
        let changes = self.shared.log_changes();
        if std::mem::replace(&mut self.seen_log, changes) == changes {
            return;
        }
        let ids: Vec<LinkId> = self.parking.0.iter().map(|(id, _)| *id).collect();
        for id in ids {
            let Some(mut link) = self.take(id) else {
                continue;
            };
            if self.is_caught_up(&link)
                && let Some(parked) = link.parked.take()
            {
                self.judge(&mut link, now, parked.hello, Patience::Over);
                // What came behind its Hello was left where it was.
                self.take_frames(&mut link, now);
                link.readable = true;
                self.queue_dirty(&mut link);
            }
            self.put_back(link);
        }
    }

    /// Refuses those who have waited for long enough.
    pub(super) fn turn_parked_away(&mut self, now: Instant) {
        while self.parking.next_timeout().is_some_and(|due| due <= now) {
            self.refuse_oldest_parked(now);
        }
    }

    /// Refuses the one who has waited longest.
    pub(super) fn refuse_oldest_parked(&mut self, now: Instant) {
        let Some((id, _)) = self.parking.0.pop_front() else {
            return;
        };
        if let Some(mut link) = self.take(id) {
            let parked = link.parked.take();
            self.refuse_hello(
                &mut link,
                now,
                Refusal::LogBehind,
                parked.as_ref().map(|parked| parked.session),
                parked.as_ref().map(|parked| parked.hello.token.as_str()),
            );
            self.queue_dirty(&mut link);
            self.put_back(link);
        }
    }

    fn is_caught_up(&self, link: &Link) -> bool {
        link.parked.as_ref().is_some_and(|parked| {
            self.shared.revocations().covers(parked.revision) != Coverage::NotYet
        })
    }
}
