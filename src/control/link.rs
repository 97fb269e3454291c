//! The gateway's end of the control channel: a state machine without I/O, clock or task.
//!
//! Its user feeds it what happened, with the time, then carries out [`Link::poll_effect`] until it is empty, sends what
//! [`Link::poll_transmit`] gives whenever the stream takes a message, and calls [`Link::timer`] at [`Link::poll_timeout`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    ATTACH_TIMEOUT, AttachRefusal, CarriedKey, GatewayDescription, HEARTBEAT_INTERVAL, LiveSeat,
    RevocationRange, SILENCE_LIMIT, SeatReport,
    codec::MAX_REPORTED,
    message::{Attach, Attached, FromGateway, FromSidecar, LogPosition},
};
use crate::{
    clock::Timestamp,
    id::{Lineage, Revision, SessionId},
};

/// At most one report in this time: what happens meanwhile goes together (three ticks at 60 Hz), and a gateway that is all
/// joins and leaves costs its sidecar 20 messages a second.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(50);

/// How long the log may stand still here behind a head that a heartbeat has told, before the stream counts as broken.
pub const BEHIND_LIMIT: Duration = SILENCE_LIMIT;

/// The first wait before attaching again; it doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before attaching again: a tenth of the 30 s for which a gateway admits without its sidecar.
const RETRY_LAST: Duration = Duration::from_secs(3);

/// Why a stream ended, or could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DetachReason {
    /// The sidecar could not be reached, or the connection broke.
    #[error("the sidecar cannot be reached")]
    Unreachable,
    /// The sidecar ended the stream.
    #[error("the sidecar has closed the stream")]
    Closed,
    /// The sidecar would not have this gateway.
    #[error("refused: {0}")]
    Refused(AttachRefusal),
    /// No answer to Attach in time.
    #[error("no answer to the attach")]
    AttachTimeout,
    /// Nothing heard for [`SILENCE_LIMIT`].
    #[error("no heartbeat from the sidecar")]
    Silent,
    /// A range of the log started beyond what is applied: events between are missing.
    #[error("a gap in the revocation log")]
    Gap,
    /// The log's head was told, and the events up to it did not follow within [`BEHIND_LIMIT`].
    #[error("the revocation log does not follow its head")]
    Behind,
    /// The sidecar broke the protocol.
    #[error("the sidecar broke the protocol")]
    Violation,
}

impl DetachReason {
    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Refused(refusal) => refusal.label(),
            Self::AttachTimeout => "attach_timeout",
            Self::Silent => "silent",
            Self::Gap => "gap",
            Self::Behind => "behind",
            Self::Violation => "violation",
        }
    }

    /// Whether trying again soon is pointless: somebody has to change something first.
    const fn lasts(self) -> bool {
        matches!(
            self,
            Self::Refused(AttachRefusal::WrongIdentity | AttachRefusal::Malformed)
        )
    }

    /// Whether trying again would do harm. A sidecar knows only since its own start which process is the newer one: to one that has
    /// just restarted, a process that was fenced off looks new, and the one that players are sent to looks old.
    const fn is_final(self) -> bool {
        matches!(self, Self::Refused(AttachRefusal::Fenced))
    }
}

/// What the user of a [`Link`] has to do, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a stream, then call [`Link::connected`], or [`Link::disconnected`] if that fails.
    Connect,
    /// Drop the stream, if there still is one.
    Disconnect {
        /// Why.
        reason: DetachReason,
        /// Whether the gateway was attached on it: then what is known stays in force from here on without news.
        was_attached: bool,
        /// When a [`Effect::Connect`] will follow; never if this process has been fenced off, which is the link's end.
        retry_in: Option<Duration>,
    },
    /// The keys to open connect tokens with.
    InstallKeys(Vec<CarriedKey>),
    /// The log starts afresh here.
    ResetLog {
        /// Which log.
        lineage: Lineage,
        /// From which revision on it is known.
        revision: Revision,
        /// Sessions with a seat here that have ended.
        dead: Vec<SessionId>,
    },
    /// The channel is up; comes after its keys and a reset of the log.
    Attached {
        /// The sidecar's time.
        time: Timestamp,
        /// Idle timeout of sessions.
        idle_timeout: Duration,
    },
    /// Events to apply. The acknowledgement goes out once this effect has been taken.
    Apply(RevocationRange),
    /// The sidecar's time and the head of its log.
    Heartbeat {
        /// The sidecar's time.
        time: Timestamp,
        /// The head of the log.
        head: Revision,
    },
    /// Take a report of seats and activity, and call [`Link::report`] with it.
    TakeReport,
}

#[derive(Debug)]
enum State {
    /// Until it is time to try again.
    Waiting { retry_at: Instant },
    /// A stream is being opened, or Attach awaits its answer.
    Connecting { give_up_at: Instant },
    /// The sidecar has answered.
    Attached(Liveness),
    /// Another process of this gateway has taken its place.
    Over,
}

#[derive(Debug)]
struct Liveness {
    silent_at: Instant,
    heartbeat_at: Instant,
    /// From when on a message proves the stream a success: one that breaks at once, each time, must not be tried without waiting.
    proven_at: Instant,
    /// A head that was told and is not reached, and when that counts as broken.
    behind: Option<(Revision, Instant)>,
}

/// The gateway's end of the control channel.
#[derive(Debug)]
pub struct Link {
    state: State,
    /// How far the log is applied; survives streams.
    position: Option<LogPosition>,
    /// Attaches failed in a row.
    failures: u32,
    jitter: Jitter,
    /// At most a handful: each input adds a fixed number, and the user empties it before the next.
    effects: VecDeque<Effect>,
    outgoing: Outgoing,
    report_wanted: bool,
    report_at: Instant,
    seats: u32,
}

/// What is to be sent, as state: whatever is newer replaces what has not gone out yet.
#[derive(Debug, Default)]
struct Outgoing {
    attach: Option<Box<Attach>>,
    heartbeat: bool,
    ack: Option<Revision>,
    report: SeatReport,
}

impl Link {
    /// A link that connects at the first [`timer`](Self::timer). `seed` spreads the retries of many gateways that lose one sidecar.
    pub fn new(now: Instant, seed: u64) -> Self {
        Self {
            state: State::Waiting { retry_at: now },
            position: None,
            failures: 0,
            jitter: Jitter(seed),
            effects: VecDeque::new(),
            outgoing: Outgoing::default(),
            report_wanted: false,
            report_at: now,
            seats: 0,
        }
    }

    /// How far the log is applied; none before the first attach.
    pub fn position(&self) -> Option<LogPosition> {
        self.position
    }

    /// Whether the sidecar has answered on the present stream.
    pub fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached(_))
    }

    /// A stream is there (or on its way): Attach goes out first.
    ///
    /// `seats` must be read after any report that was handed over before, since what is left of that report is now out of date.
    pub fn connected(&mut self, gateway: GatewayDescription, seats: Vec<LiveSeat>) {
        if !matches!(self.state, State::Connecting { .. }) {
            return;
        }
        self.seats = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        self.outgoing.report.opened.clear();
        self.outgoing.report.closed.clear();
        self.outgoing.attach = Some(Box::new(Attach {
            gateway,
            position: self.position,
            seats,
        }));
    }

    /// The stream has ended, or could not be opened.
    pub fn disconnected(&mut self, now: Instant, reason: DetachReason) {
        let was_attached = match self.state {
            State::Waiting { .. } | State::Over => return,
            State::Connecting { .. } => false,
            State::Attached(_) => true,
        };
        self.failures = self.failures.saturating_add(1);
        let retry_in = (!reason.is_final()).then(|| self.retry_delay(reason));
        self.state = match retry_in {
            Some(wait) => State::Waiting {
                retry_at: now + wait,
            },
            None => State::Over,
        };
        self.outgoing.attach = None;
        self.outgoing.ack = None;
        self.outgoing.heartbeat = false;
        self.effects.push_back(Effect::Disconnect {
            reason,
            was_attached,
            retry_in,
        });
    }

    /// A message has arrived on the present stream.
    pub fn received(&mut self, now: Instant, message: FromSidecar) {
        match (&mut self.state, message) {
            (State::Waiting { .. } | State::Over, _) => {}
            (State::Connecting { .. }, FromSidecar::Attached(attached)) => {
                self.answered(now, attached);
            }
            (State::Connecting { .. }, _) | (State::Attached(_), FromSidecar::Attached(_)) => {
                self.disconnected(now, DetachReason::Violation);
            }
            (State::Attached(liveness), message) => {
                liveness.silent_at = now + SILENCE_LIMIT;
                if now >= liveness.proven_at {
                    self.failures = 0;
                }
                self.follow(now, message);
            }
        }
    }

    /// Something is to be reported.
    pub fn report_ready(&mut self, now: Instant) {
        self.report_wanted = true;
        self.ask_for_report(now);
    }

    /// What was taken at [`Effect::TakeReport`].
    pub fn report(&mut self, report: SeatReport) {
        self.seats = report.seats;
        self.outgoing.report = report;
    }

    /// Time has come to [`poll_timeout`](Self::poll_timeout), or passed it.
    pub fn timer(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { retry_at } => {
                if now >= *retry_at {
                    self.state = State::Connecting {
                        give_up_at: now + ATTACH_TIMEOUT,
                    };
                    self.effects.push_back(Effect::Connect);
                }
            }
            State::Connecting { give_up_at } => {
                if now >= *give_up_at {
                    self.disconnected(now, DetachReason::AttachTimeout);
                }
            }
            State::Attached(liveness) => {
                let behind = liveness.behind.is_some_and(|(_, since)| now >= since);
                if now >= liveness.silent_at {
                    return self.disconnected(now, DetachReason::Silent);
                }
                if behind {
                    return self.disconnected(now, DetachReason::Behind);
                }
                if now >= liveness.heartbeat_at {
                    // From now on and not from when it was due: a gateway that slept does not owe the beats it slept through.
                    liveness.heartbeat_at = now + HEARTBEAT_INTERVAL;
                    self.outgoing.heartbeat = true;
                    self.report_wanted = true;
                }
                self.ask_for_report(now);
            }
            State::Over => {}
        }
    }

    /// When [`timer`](Self::timer) is to be called next; never when the link is at its end.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(match &self.state {
            State::Waiting { retry_at } => *retry_at,
            State::Connecting { give_up_at } => *give_up_at,
            State::Over => return None,
            State::Attached(liveness) => {
                let behind = liveness.behind.map(|(_, broken_at)| broken_at);
                let report = self.can_take_report().then_some(self.report_at);
                [Some(liveness.heartbeat_at), behind, report]
                    .into_iter()
                    .flatten()
                    .fold(liveness.silent_at, Instant::min)
            }
        })
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something.
    pub fn wants_transmit(&self) -> bool {
        let Outgoing {
            attach,
            heartbeat,
            ack,
            report,
        } = &self.outgoing;
        match self.state {
            _ if !self.effects.is_empty() => false,
            State::Waiting { .. } | State::Over => false,
            State::Connecting { .. } => attach.is_some(),
            State::Attached(_) => *heartbeat || ack.is_some() || !is_empty(report),
        }
    }

    /// The next message to send on the present stream; none while effects are waiting, so that nothing is acknowledged before it is
    /// applied.
    pub fn poll_transmit(&mut self) -> Option<FromGateway> {
        if !self.wants_transmit() {
            return None;
        }
        let Outgoing {
            attach,
            heartbeat,
            ack,
            report,
        } = &mut self.outgoing;
        if let Some(attach) = attach.take() {
            return Some(FromGateway::Attach(attach));
        }
        if std::mem::take(heartbeat) {
            return Some(FromGateway::Heartbeat { seats: self.seats });
        }
        if let Some(revision) = ack.take() {
            return Some(FromGateway::Ack(revision));
        }
        let opened = split_last(&mut report.opened);
        let closed = split_last(&mut report.closed);
        if !opened.is_empty() || !closed.is_empty() {
            return Some(FromGateway::Seats { opened, closed });
        }
        Some(FromGateway::Activity(split_last(&mut report.active)))
    }

    fn answered(&mut self, now: Instant, attached: Attached) {
        let Attached {
            keys,
            time,
            idle_timeout,
            lineage,
            snapshot,
        } = attached;
        let follows = self.position.is_some_and(|p| p.lineage == lineage);
        if snapshot.is_none() && !follows {
            return self.disconnected(now, DetachReason::Violation);
        }
        self.effects.push_back(Effect::InstallKeys(keys));
        if let Some(snapshot) = snapshot {
            self.position = Some(LogPosition {
                lineage,
                revision: snapshot.revision,
            });
            self.effects.push_back(Effect::ResetLog {
                lineage,
                revision: snapshot.revision,
                dead: snapshot.dead,
            });
        }
        // Also when nothing is new: the last acknowledgement may have been lost with its stream, and somebody may be waiting for it.
        self.outgoing.ack = self.position.map(|p| p.revision);
        self.effects
            .push_back(Effect::Attached { time, idle_timeout });
        self.state = State::Attached(Liveness {
            silent_at: now + SILENCE_LIMIT,
            heartbeat_at: now + HEARTBEAT_INTERVAL,
            proven_at: now + HEARTBEAT_INTERVAL,
            behind: None,
        });
        self.report_ready(now);
    }

    fn follow(&mut self, now: Instant, message: FromSidecar) {
        match message {
            // Its own arm in `received`.
            FromSidecar::Attached(_) => {}
            FromSidecar::Keys(keys) => self.effects.push_back(Effect::InstallKeys(keys)),
            FromSidecar::Revocations(range) => self.apply(now, range),
            FromSidecar::Heartbeat { time, head } => {
                self.note_head(now, head);
                self.effects.push_back(Effect::Heartbeat { time, head });
            }
        }
    }

    /// Applies a range that continues the log. One that overlaps what is applied does so too: events are idempotent, and order
    /// among them does not matter.
    fn apply(&mut self, now: Instant, range: RevocationRange) {
        let Some(position) = &mut self.position else {
            return self.disconnected(now, DetachReason::Violation);
        };
        if range.from > position.revision {
            return self.disconnected(now, DetachReason::Gap);
        }
        if range.to > position.revision {
            position.revision = range.to;
            self.effects.push_back(Effect::Apply(range));
        }
        self.outgoing.ack = Some(position.revision);
        let reached = position.revision;
        if let State::Attached(liveness) = &mut self.state {
            liveness.behind = liveness.behind.filter(|(head, _)| *head > reached);
        }
    }

    /// A head beyond the position is normal for a moment, since heartbeats overtake the reading of the log; not for long.
    fn note_head(&mut self, now: Instant, head: Revision) {
        let applied = self.position.map(|p| p.revision);
        if let State::Attached(liveness) = &mut self.state
            && liveness.behind.is_none()
            && Some(head) > applied
        {
            liveness.behind = Some((head, now + BEHIND_LIMIT));
        }
    }

    fn can_take_report(&self) -> bool {
        self.report_wanted && self.is_attached() && is_empty(&self.outgoing.report)
    }

    fn ask_for_report(&mut self, now: Instant) {
        if self.can_take_report() && now >= self.report_at {
            self.report_wanted = false;
            self.report_at = now + REPORT_INTERVAL;
            self.effects.push_back(Effect::TakeReport);
        }
    }

    fn retry_delay(&mut self, reason: DetachReason) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(8);
        let delay = if reason.lasts() {
            RETRY_LAST
        } else {
            RETRY_LAST.min(RETRY_FIRST.saturating_mul(1 << doublings))
        };
        self.jitter.upper_half(delay)
    }
}

fn is_empty(report: &SeatReport) -> bool {
    report.opened.is_empty() && report.closed.is_empty() && report.active.is_empty()
}

/// Takes as much as one message carries from the end of `list`; order does not matter, since a session stands in it once.
fn split_last<T>(list: &mut Vec<T>) -> Vec<T> {
    list.split_off(list.len().saturating_sub(MAX_REPORTED))
}

/// SplitMix64 (Steele, Lea and Flood 2014): enough to spread retries, and the same for the same seed.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    /// A time between half of `delay` and all of it.
    fn upper_half(&mut self, delay: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let half = delay / 2;
        let thousandths = u32::try_from(z % 1_001).unwrap_or_default();
        half + half * thousandths / 1_000
    }
}

#[cfg(test)]
mod tests;
