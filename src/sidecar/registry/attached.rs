//! One attachment: what its gateway has told, and what it is still to be told.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Timestamp,
    control::{AttachmentId, Drain, GatewayDescription, SILENCE_LIMIT, SeatReport},
    id::{Incarnation, Revision, SessionId},
    token::KeyId,
};

use super::seats::Seats;

/// A gateway process while its stream lasts.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) id: AttachmentId,
    pub(super) description: GatewayDescription,
    /// Sessions with a seat there, at most as many as the gateway has seats.
    seats: HashSet<SessionId>,
    /// Seats taken, by its own count.
    pub(super) reported: u32,
    /// Tokens minted since that count: they will be seats soon, so a burst of logins is spread before the next count.
    pub(super) expected: u32,
    pub(super) revision: Revision,
    /// Whether it says that it drains.
    pub(super) draining: bool,
    pub(super) replaced: CancellationToken,
    /// Activity elsewhere that it is still to hear of: for each of its seats' sessions the newest, so never more than seats.
    pub(super) idle_moved: HashMap<SessionId, Timestamp>,
    /// Whether it is to be told its keys anew.
    pub(super) keys_wanted: bool,
    /// The transport keys that it holds, by id.
    pub(super) keys: Arc<[KeyId]>,
    pub(super) orders: Arc<Notify>,
}

impl Attached {
    pub(super) fn new(id: AttachmentId, description: GatewayDescription, keys: &[KeyId]) -> Self {
        Self {
            id,
            description,
            seats: HashSet::new(),
            reported: 0,
            expected: 0,
            revision: Revision(0),
            draining: false,
            replaced: CancellationToken::new(),
            idle_moved: HashMap::new(),
            keys_wanted: false,
            keys: keys.into(),
            orders: Arc::new(Notify::new()),
        }
    }

    pub(super) fn has_seat(&self, session: SessionId) -> bool {
        self.seats.contains(&session)
    }

    /// The sessions of its seats, as far as they are known.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.seats.iter().copied()
    }

    pub(super) fn has_seats(&self) -> bool {
        self.reported > 0 || !self.seats.is_empty()
    }

    /// Takes note of a seat, if it is not known and there is room.
    pub(super) fn open(&mut self, session: SessionId, all: &mut Seats) {
        let capacity = usize::try_from(self.description.capacity).unwrap_or(usize::MAX);
        let has_room = self.seats.len() < capacity && all.room() > 0;
        if has_room && self.seats.insert(session) {
            all.insert(session, self.id);
        }
    }

    /// What a report says beside seats and activity.
    pub(super) fn hear(&mut self, report: &SeatReport) {
        let SeatReport {
            opened,
            closed,
            active,
            seats,
            draining,
            certificate_sha256,
            events,
            // For `explain` alone.
            events_lost: _,
        } = report;
        self.reported = *seats;
        self.draining = *draining;
        if let Some(hashes) = certificate_sha256 {
            self.description.certificate_sha256.clone_from(hashes);
        }
        if opened.is_empty() && closed.is_empty() && active.is_empty() && events.is_empty() {
            // A heartbeat, with a fresh count. What was minted in the last moments is not in it yet; that skew is gone by the next.
            self.expected = 0;
        }
    }

    /// A seat has ended.
    pub(super) fn close(&mut self, session: SessionId, all: &mut Seats) {
        if self.seats.remove(&session) {
            self.idle_moved.remove(&session);
            all.remove(session, self.id);
        }
    }

    /// All seats have ended, as far as is known.
    pub(super) fn close_all(&mut self, all: &mut Seats) {
        for session in self.seats.drain() {
            all.remove(session, self.id);
        }
        self.idle_moved.clear();
    }
}

/// What an operator has ordered of a gateway process, until that process says that it is so: if the stream breaks in between, the
/// next one brings it again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ordered {
    process: Incarnation,
    /// When those still there are closed; none to admit again.
    until: Option<Instant>,
    /// When it was taken to be sent on the present stream.
    sent_at: Option<Instant>,
}

impl Ordered {
    pub(super) fn new(process: Incarnation, drain: Drain, now: Instant) -> Self {
        Self {
            process,
            until: match drain {
                Drain::Within(time) => Some(now + time),
                Drain::Cancel => None,
            },
            sent_at: None,
        }
    }

    pub(super) const fn is_drain(&self) -> bool {
        self.until.is_some()
    }

    /// What to send, if it has not been sent on this stream.
    pub(super) fn take(&mut self, now: Instant) -> Option<Drain> {
        if self.sent_at.is_some() {
            return None;
        }
        self.sent_at = Some(now);
        Some(match self.until {
            Some(until) => Drain::Within(until.saturating_duration_since(now)),
            None => Drain::Cancel,
        })
    }

    /// Whether there is more to do, now that the gateway has said whether it drains.
    ///
    /// A word that was on its way as the order went out confirms nothing: a gateway that drains, and is ordered to drain by another
    /// time, says that it drains before it has heard of that. So one word counts that is heard so long after the order that a stream
    /// on which it were still older would have been given up as silent.
    pub(super) fn is_outstanding(&self, draining: bool, now: Instant) -> bool {
        let is_heard = |sent_at| now.saturating_duration_since(sent_at) >= SILENCE_LIMIT;
        !self.sent_at.is_some_and(is_heard) || self.is_drain() != draining
    }

    /// What is left of it on a new stream: an order is for one process, and its successor was started for a reason.
    pub(super) fn on_attach(self, process: Incarnation) -> Option<Self> {
        (self.process == process).then_some(Self {
            sent_at: None,
            ..self
        })
    }
}

/// How long a gateway that broke off with seats is still waited for: it is back within a second or two, if its network or its sidecar
/// had a moment's trouble, and five are what either end takes to notice silence.
pub(super) const MISSED: Duration = SILENCE_LIMIT;
