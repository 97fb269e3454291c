//! The sidecar's end of one control stream: a state machine without I/O, clock or task.
//!
//! Its user feeds it what happened, with the time, then carries out [`Attachment::poll_action`] until it is empty, sends what
//! [`Attachment::poll_transmit`] gives whenever the stream takes a message, and calls [`Attachment::timer`] at
//! [`Attachment::poll_timeout`]. It ends with [`Action::End`], once.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    ATTACH_TIMEOUT, AttachRefusal, CarriedKey, HEARTBEAT_INTERVAL, LogState, RevocationRange,
    SILENCE_LIMIT, SeatReport,
    message::{Attach, Attached, FromGateway, FromSidecar, LogPosition, Snapshot},
};
use crate::{
    clock::Timestamp,
    id::{GatewayId, Revision, SessionId},
};

/// How many events one range carries: 512 of at most 30 bytes are 15 KB, and a log of 100,000 events is read in 200 steps, between
/// which heartbeats and other work get their turn.
pub const RANGE_EVENTS: usize = 512;

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EndReason {
    /// The gateway closed it, or the connection broke.
    #[error("the gateway has left")]
    Left,
    /// The attach was refused, or the stream was fenced off, or the store failed.
    #[error("{0}")]
    Refused(AttachRefusal),
    /// No Attach in time.
    #[error("no attach in time")]
    AttachTimeout,
    /// Nothing heard for [`SILENCE_LIMIT`].
    #[error("no heartbeat from the gateway")]
    Silent,
    /// A message that does not parse, or that does not belong there.
    #[error("malformed message")]
    Malformed,
    /// The log no longer holds what the gateway needs next; attaching again brings a snapshot.
    #[error("the log no longer holds this position")]
    LogLost,
    /// The sidecar is shutting down.
    #[error("the sidecar is shutting down")]
    ShuttingDown,
}

impl EndReason {
    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Refused(refusal) => refusal.label(),
            Self::AttachTimeout => "attach_timeout",
            Self::Silent => "silent",
            Self::Malformed => "malformed",
            Self::LogLost => "log_lost",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// What the user of an [`Attachment`] has to do, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Register the gateway of [`Attachment::presented`], then read where the log stands, and call [`Attachment::registered`].
    Register,
    /// Find which of the seats of [`Attachment::presented`] are dead, and call [`Attachment::dead_found`].
    FindDead,
    /// Read at most [`RANGE_EVENTS`] events after this revision, and call [`Attachment::log_read`]. One at a time.
    ReadLog(Revision),
    /// Take note of a report, and call [`Attachment::reported`]. Read no further message before that.
    Report(SeatReport),
    /// The gateway has applied the log up to here.
    Acknowledged(Revision),
    /// End the stream. The last action.
    End(EndReason),
}

/// What the sidecar tells a gateway that it has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The keys of this gateway process.
    pub keys: Vec<CarriedKey>,
    /// Idle timeout of sessions.
    pub idle_timeout: Duration,
    /// Where the log stands.
    pub log: LogState,
}

#[derive(Debug)]
enum State {
    AwaitingAttach {
        give_up_at: Instant,
    },
    Registering(Box<Attach>),
    FindingDead(Box<Attach>, Registered),
    Streaming {
        silent_at: Instant,
        heartbeat_at: Instant,
    },
    Ended,
}

/// The sidecar's end of one control stream.
#[derive(Debug)]
pub struct Attachment {
    /// Whose certificate the gateway showed.
    certificate: GatewayId,
    state: State,
    /// At most a handful: each input adds a fixed number, and the user empties it before the next.
    actions: VecDeque<Action>,
    /// Seats taken, by the gateway's last word.
    seats: u32,
    /// The newest revision of the log that is known.
    head: Revision,
    /// Everything up to here has been read for this stream.
    position: Revision,
    reading: Reading,
    attached: Option<Unsent>,
    range: Option<RevocationRange>,
    heartbeat: bool,
}

/// The log as this stream reads it: one piece at a time.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    Idle,
    Asked,
    /// The last read brought nothing although the head was further: not again before the head moves or a heartbeat is due.
    Resting,
}

/// The answer to Attach, but for the time, which is read when it goes out.
#[derive(Debug)]
struct Unsent {
    registered: Registered,
    snapshot: Option<Snapshot>,
}

impl Attachment {
    /// The machine of a stream whose peer has shown the certificate of `certificate`.
    pub fn new(now: Instant, certificate: GatewayId) -> Self {
        Self {
            certificate,
            state: State::AwaitingAttach {
                give_up_at: now + ATTACH_TIMEOUT,
            },
            actions: VecDeque::new(),
            seats: 0,
            head: Revision::default(),
            position: Revision::default(),
            reading: Reading::Idle,
            attached: None,
            range: None,
            heartbeat: false,
        }
    }

    /// The gateway as it presented itself, while that is needed: at [`Action::Register`] and [`Action::FindDead`].
    pub fn presented(&self) -> Option<&Attach> {
        match &self.state {
            State::Registering(attach) | State::FindingDead(attach, _) => Some(attach),
            State::AwaitingAttach { .. } | State::Streaming { .. } | State::Ended => None,
        }
    }

    /// Whether the gateway has been answered.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// A message has arrived.
    pub fn received(&mut self, now: Instant, message: FromGateway) {
        match (&mut self.state, message) {
            (State::Ended, _) => {}
            (State::AwaitingAttach { .. }, FromGateway::Attach(attach)) => self.presents(attach),
            (
                State::Streaming { silent_at, .. },
                message @ (FromGateway::Activity(_)
                | FromGateway::Seats { .. }
                | FromGateway::Ack(_)
                | FromGateway::Heartbeat { .. }),
            ) => {
                *silent_at = now + SILENCE_LIMIT;
                self.hears(message);
            }
            _ => self.malformed(),
        }
    }

    /// What has arrived is no message.
    pub fn malformed(&mut self) {
        match self.state {
            State::AwaitingAttach { .. } => self.refused(AttachRefusal::Malformed),
            _ => self.end(EndReason::Malformed),
        }
    }

    /// Answers [`Action::Register`]: the gateway is registered.
    ///
    /// The log's state must have been read before the dead seats are, so that whatever ends a session in between is in the log.
    pub fn registered(&mut self, now: Instant, registered: Registered) {
        let attach = match std::mem::replace(&mut self.state, State::Ended) {
            State::Registering(attach) => attach,
            other => {
                self.state = other;
                return;
            }
        };
        let LogState {
            lineage,
            tail,
            head,
        } = registered.log;
        self.head = self.head.max(head);
        let continued = attach
            .position
            .filter(|p| p.lineage == lineage && (tail..=head).contains(&p.revision));
        match continued {
            Some(LogPosition { revision, .. }) => {
                self.position = revision;
                self.start(now, registered, None);
            }
            None => {
                self.position = tail;
                self.state = State::FindingDead(attach, registered);
                self.actions.push_back(Action::FindDead);
            }
        }
    }

    /// Answers [`Action::FindDead`]: these of the seats presented are dead.
    pub fn dead_found(&mut self, now: Instant, dead: Vec<SessionId>) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::FindingDead(_, registered) => {
                let revision = self.position;
                self.start(now, registered, Some(Snapshot { revision, dead }));
            }
            other => self.state = other,
        }
    }

    /// Answers [`Action::Register`], [`Action::FindDead`] or [`Action::ReadLog`]: it could not be done.
    pub fn refused(&mut self, refusal: AttachRefusal) {
        self.end(EndReason::Refused(refusal));
    }

    /// Answers [`Action::ReadLog`].
    pub fn log_read(&mut self, range: RevocationRange) {
        if range.from > self.position {
            return self.end(EndReason::LogLost);
        }
        if range.to > self.position {
            self.position = range.to;
            self.head = self.head.max(range.to);
            self.range = Some(range);
            self.reading = Reading::Idle;
        } else {
            self.reading = Reading::Resting;
        }
        self.read_on();
    }

    /// Answers [`Action::Report`]. Taking note of it may have been slow, which is no silence of the gateway's.
    pub fn reported(&mut self, now: Instant) {
        if let State::Streaming { silent_at, .. } = &mut self.state {
            *silent_at = now + SILENCE_LIMIT;
        }
    }

    /// The head of the log has moved.
    pub fn head_moved(&mut self, head: Revision) {
        self.head = self.head.max(head);
        self.end_rest();
        self.read_on();
    }

    /// A newer process of this gateway, or a newer stream of this one, has attached.
    pub fn fenced(&mut self) {
        self.end(EndReason::Refused(AttachRefusal::Fenced));
    }

    /// The gateway has closed the stream, or the connection broke.
    pub fn disconnected(&mut self) {
        self.end(EndReason::Left);
    }

    /// The sidecar is shutting down.
    pub fn shut_down(&mut self) {
        self.end(EndReason::ShuttingDown);
    }

    /// Time has come to [`poll_timeout`](Self::poll_timeout), or passed it.
    pub fn timer(&mut self, now: Instant) {
        match &mut self.state {
            State::AwaitingAttach { give_up_at } => {
                if now >= *give_up_at {
                    self.end(EndReason::AttachTimeout);
                }
            }
            State::Streaming {
                silent_at,
                heartbeat_at,
            } => {
                if now >= *silent_at {
                    return self.end(EndReason::Silent);
                }
                if now >= *heartbeat_at {
                    *heartbeat_at = now + HEARTBEAT_INTERVAL;
                    self.heartbeat = true;
                    self.end_rest();
                    self.read_on();
                }
            }
            State::Registering(_) | State::FindingDead(..) | State::Ended => {}
        }
    }

    /// When [`timer`](Self::timer) is to be called next, if ever: what the host is asked meanwhile has its own limits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitingAttach { give_up_at } => Some(*give_up_at),
            State::Streaming {
                silent_at,
                heartbeat_at,
            } => Some(*silent_at.min(heartbeat_at)),
            State::Registering(_) | State::FindingDead(..) | State::Ended => None,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something.
    pub fn wants_transmit(&self) -> bool {
        self.is_streaming() && (self.attached.is_some() || self.heartbeat || self.range.is_some())
    }

    /// The next message to send; `time` is the sidecar's.
    pub fn poll_transmit(&mut self, time: Timestamp) -> Option<FromSidecar> {
        if !self.is_streaming() {
            return None;
        }
        if let Some(Unsent {
            registered,
            snapshot,
        }) = self.attached.take()
        {
            return Some(FromSidecar::Attached(Attached {
                keys: registered.keys,
                time,
                idle_timeout: registered.idle_timeout,
                lineage: registered.log.lineage,
                snapshot,
            }));
        }
        if std::mem::take(&mut self.heartbeat) {
            return Some(FromSidecar::Heartbeat {
                time,
                head: self.head,
            });
        }
        let range = self.range.take()?;
        self.read_on();
        Some(FromSidecar::Revocations(range))
    }

    fn presents(&mut self, attach: Box<Attach>) {
        if attach.gateway.id != self.certificate {
            return self.refused(AttachRefusal::WrongIdentity);
        }
        self.seats = u32::try_from(attach.seats.len()).unwrap_or(u32::MAX);
        self.state = State::Registering(attach);
        self.actions.push_back(Action::Register);
    }

    fn hears(&mut self, message: FromGateway) {
        let mut report = SeatReport {
            seats: self.seats,
            ..SeatReport::default()
        };
        match message {
            // Its own arm in `received`.
            FromGateway::Attach(_) => return,
            FromGateway::Activity(active) => report.active = active,
            FromGateway::Seats { opened, closed } => {
                report.opened = opened;
                report.closed = closed;
            }
            FromGateway::Heartbeat { seats } => {
                self.seats = seats;
                report.seats = seats;
            }
            FromGateway::Ack(revision) if revision > self.position => {
                return self.end(EndReason::Malformed);
            }
            FromGateway::Ack(revision) => {
                return self.actions.push_back(Action::Acknowledged(revision));
            }
        }
        self.actions.push_back(Action::Report(report));
    }

    fn start(&mut self, now: Instant, registered: Registered, snapshot: Option<Snapshot>) {
        self.attached = Some(Unsent {
            registered,
            snapshot,
        });
        // The first heartbeat follows at once, so that the gateway knows from the start how far behind it is.
        self.heartbeat = true;
        self.state = State::Streaming {
            silent_at: now + SILENCE_LIMIT,
            heartbeat_at: now + HEARTBEAT_INTERVAL,
        };
        self.read_on();
    }

    /// Reads the next piece of the log once the last one is on its way: that, and not a queue, is what a slow gateway waits in.
    fn read_on(&mut self) {
        let due = self.is_streaming()
            && self.reading == Reading::Idle
            && self.range.is_none()
            && self.position < self.head;
        if due {
            self.reading = Reading::Asked;
            self.actions.push_back(Action::ReadLog(self.position));
        }
    }

    fn end_rest(&mut self) {
        if self.reading == Reading::Resting {
            self.reading = Reading::Idle;
        }
    }

    fn end(&mut self, reason: EndReason) {
        if !matches!(self.state, State::Ended) {
            self.state = State::Ended;
            self.actions.clear();
            self.actions.push_back(Action::End(reason));
        }
    }
}

#[cfg(test)]
mod tests;
