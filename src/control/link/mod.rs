//! The gateway's end of the control channel: a state machine without I/O, clock or task.
//!
//! Its user feeds it what happened, with the time, then carries out [`Link::poll_effect`] until it is empty, sends what
//! [`Link::poll_transmit`] gives whenever the stream takes a message, and calls [`Link::timer`] at [`Link::poll_timeout`].

mod outgoing;
mod reason;

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use self::outgoing::Outgoing;
pub use self::reason::DetachReason;
use super::{
    ATTACH_TIMEOUT, CarriedKey, Drain, GatewayDescription, HEARTBEAT_INTERVAL, LiveSeat,
    RevocationRange, SILENCE_LIMIT, SeatReport,
    message::{Attached, FromGateway, FromSidecar, LogPosition, Portions, Snapshot},
};
use crate::{
    clock::Timestamp,
    id::{Lineage, Revision, SessionId},
    token::{KeyId, TransportKey},
};

/// At most one report in this time: what happens meanwhile goes together (three ticks at 60 Hz), and a gateway that is all
/// joins and leaves costs its sidecar 20 messages a second.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(50);

/// How long the log may stand still here behind a head that a heartbeat has told, before the stream counts as broken.
pub const BEHIND_LIMIT: Duration = SILENCE_LIMIT;

/// For how long a channel may be down for the activity of that time still to be told once it is up. The sidecar takes note of it as of
/// then: for longer, that would make sessions look alive for as much longer than they were. Those who play on are active again within a
/// second.
pub const ACTIVITY_KEPT: Duration = Duration::from_secs(60);

/// The first wait before attaching again; it doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before attaching again: a tenth of the 30 s for which a gateway admits without its sidecar.
const RETRY_LAST: Duration = Duration::from_secs(3);

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
    /// These sessions were active on another gateway, at these times.
    IdleMoved(Vec<(SessionId, Timestamp)>),
    /// Admit nobody any more, or again.
    Drain(Drain),
    /// Take a report, and call [`Link::report`] with it.
    TakeReport,
}

#[derive(Debug)]
enum State {
    /// Until it is time to try again.
    Waiting { retry_at: Instant },
    /// A stream is being opened, or the gateway presents itself, or that awaits its answer.
    Connecting { give_up_at: Instant },
    /// The sidecar has answered with a snapshot, of which a part is to come.
    Gathering {
        give_up_at: Instant,
        answer: Box<Attached>,
        named: HashSet<SessionId>,
    },
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

/// A bug to plant, so that the model test can show that it would be found.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Ranges are applied whether or not they continue the log.
    NoGapCheck,
    /// Messages go out while effects still wait.
    EarlyAck,
    /// A snapshot moves the position and does not reset the log.
    NoReset,
}

/// The gateway's end of the control channel.
#[derive(Debug)]
pub struct Link {
    state: State,
    /// How far the log is applied; survives streams.
    position: Option<LogPosition>,
    /// The keys that are held, by id; survive streams, too.
    keys: Vec<KeyId>,
    /// Attaches failed in a row.
    failures: u32,
    /// Since when the channel is down, if it was up before.
    down_since: Option<Instant>,
    jitter: Jitter,
    /// At most a handful: each input adds a fixed number, and the user empties it before the next.
    effects: VecDeque<Effect>,
    outgoing: Outgoing,
    /// Seats named on the present stream's attach: more than these cannot be dead.
    named: u32,
    report_wanted: bool,
    report_at: Instant,
    #[cfg(test)]
    pub(super) fault: Option<Fault>,
}

impl Link {
    /// A link that connects at the first [`timer`](Self::timer). `seed` spreads the retries of many gateways that lose one sidecar.
    pub fn new(now: Instant, seed: u64) -> Self {
        Self::with_portions(now, seed, Portions::STANDARD)
    }

    /// The same with messages of another size.
    pub(super) fn with_portions(now: Instant, seed: u64, portions: Portions) -> Self {
        Self {
            state: State::Waiting { retry_at: now },
            position: None,
            keys: Vec::new(),
            failures: 0,
            down_since: None,
            jitter: Jitter(seed),
            effects: VecDeque::new(),
            outgoing: Outgoing::new(portions),
            named: 0,
            report_wanted: false,
            report_at: now,
            #[cfg(test)]
            fault: None,
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

    /// A stream is there (or on its way): Attach goes out first, with as many AttachSeats as it takes.
    ///
    /// `seats` must be read after any report that was handed over before, since what is left of that report is now out of date.
    pub fn connected(&mut self, gateway: GatewayDescription, seats: Vec<LiveSeat>) {
        if matches!(self.state, State::Connecting { .. }) {
            let keys = self.keys.clone();
            self.named = self.outgoing.attach(gateway, self.position, keys, seats);
        }
    }

    /// The stream has ended, or could not be opened.
    pub fn disconnected(&mut self, now: Instant, reason: DetachReason) {
        let was_attached = match self.state {
            State::Waiting { .. } | State::Over => return,
            State::Connecting { .. } | State::Gathering { .. } => false,
            State::Attached(_) => true,
        };
        if was_attached {
            self.down_since = Some(now);
        }
        self.failures = self.failures.saturating_add(1);
        let retry_in = (!reason.is_final()).then(|| self.retry_delay(reason));
        self.state = match retry_in {
            Some(wait) => State::Waiting {
                retry_at: now + wait,
            },
            None => State::Over,
        };
        self.outgoing.detach();
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
            (&mut State::Connecting { give_up_at }, FromSidecar::Attached(attached))
                if !self.outgoing.is_attaching() =>
            {
                self.answered(now, give_up_at, attached);
            }
            (State::Gathering { .. }, FromSidecar::SnapshotDead { dead, more_dead }) => {
                self.gather(now, dead, more_dead);
            }
            (State::Attached(liveness), message) => {
                liveness.silent_at = now + SILENCE_LIMIT;
                if now >= liveness.proven_at {
                    self.failures = 0;
                }
                self.follow(now, message);
            }
            (State::Connecting { .. } | State::Gathering { .. }, _) => {
                self.disconnected(now, DetachReason::Violation);
            }
        }
    }

    /// Something is to be reported.
    pub fn report_ready(&mut self, now: Instant) {
        self.report_wanted = true;
        self.ask_for_report(now);
    }

    /// What was taken at [`Effect::TakeReport`].
    ///
    /// Seats, activity and certificates are told before the next report is taken. Events go last and wait longer: of more than 4,096
    /// the oldest are dropped and counted, and those that were on their way when a stream broke are lost uncounted.
    pub fn report(&mut self, report: SeatReport) {
        self.outgoing.report(report);
    }

    /// Time has come to [`poll_timeout`](Self::poll_timeout), or passed it.
    pub fn timer(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { retry_at } => {
                if now >= *retry_at {
                    self.state = State::Connecting {
                        give_up_at: now + ATTACH_TIMEOUT,
                    };
                    // Attach says whether the gateway drains now, and not as of some report before.
                    self.effects.push_back(Effect::TakeReport);
                    self.effects.push_back(Effect::Connect);
                }
            }
            State::Connecting { give_up_at } | State::Gathering { give_up_at, .. } => {
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
                    self.outgoing.heartbeat_due();
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
            State::Connecting { give_up_at } | State::Gathering { give_up_at, .. } => *give_up_at,
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
        let held_back = !self.effects.is_empty();
        #[cfg(test)]
        let held_back = held_back && self.fault != Some(Fault::EarlyAck);
        match self.state {
            _ if held_back => false,
            State::Waiting { .. } | State::Gathering { .. } | State::Over => false,
            State::Connecting { .. } => self.outgoing.is_attaching(),
            State::Attached(_) => self.outgoing.has_news(),
        }
    }

    /// The next message to send on the present stream; none while effects are waiting, so that nothing is acknowledged before it is
    /// applied.
    pub fn poll_transmit(&mut self) -> Option<FromGateway> {
        match self.state {
            _ if !self.wants_transmit() => None,
            State::Attached(_) => self.outgoing.next_of_news(),
            _ => self.outgoing.next_of_attach(),
        }
    }

    /// What waits to be sent, in list entries and in events: what a test holds against their bounds.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        self.outgoing.waiting()
    }

    fn answered(&mut self, now: Instant, give_up_at: Instant, attached: Attached) {
        let follows = self.position.is_some_and(|p| p.lineage == attached.lineage);
        match &attached.snapshot {
            Some(snapshot) if snapshot.dead_count > self.named || !is_sound(snapshot) => {
                self.disconnected(now, DetachReason::Violation);
            }
            None if !follows => self.disconnected(now, DetachReason::Violation),
            Some(snapshot) if snapshot.more_dead => {
                self.state = State::Gathering {
                    give_up_at,
                    named: snapshot.dead.iter().copied().collect(),
                    answer: Box::new(attached),
                };
            }
            Some(_) | None => self.begin(now, attached),
        }
    }

    /// Adds a portion of the snapshot's dead seats, and begins once it is whole. A seat that is named twice stands for one that is
    /// not named.
    fn gather(&mut self, now: Instant, dead: Vec<SessionId>, more_dead: bool) {
        let State::Gathering { answer, named, .. } = &mut self.state else {
            return;
        };
        let news = !dead.is_empty() && dead.iter().all(|session| named.insert(*session));
        let Some(snapshot) = answer.snapshot.as_mut().filter(|_| news) else {
            return self.disconnected(now, DetachReason::Violation);
        };
        snapshot.dead.extend(dead);
        snapshot.more_dead = more_dead;
        if !is_sound(snapshot) {
            return self.disconnected(now, DetachReason::Violation);
        }
        if !more_dead {
            let attached = Attached {
                keys: std::mem::take(&mut answer.keys),
                snapshot: answer.snapshot.take(),
                ..**answer
            };
            self.begin(now, attached);
        }
    }

    fn begin(&mut self, now: Instant, attached: Attached) {
        let Attached {
            keys,
            time,
            idle_timeout,
            lineage,
            snapshot,
        } = attached;
        self.hold(keys);
        if let Some(Snapshot { revision, dead, .. }) = snapshot {
            self.position = Some(LogPosition { lineage, revision });
            #[cfg(test)]
            let planted = self.fault == Some(Fault::NoReset);
            #[cfg(not(test))]
            let planted = false;
            if !planted {
                self.effects.push_back(Effect::ResetLog {
                    lineage,
                    revision,
                    dead,
                });
            }
        }
        let down_since = self.down_since.take();
        if down_since.is_some_and(|since| now.saturating_duration_since(since) > ACTIVITY_KEPT) {
            self.outgoing.forget_activity();
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
            FromSidecar::Attached(_) | FromSidecar::SnapshotDead { .. } => {
                self.disconnected(now, DetachReason::Violation);
            }
            FromSidecar::Keys(keys) => self.hold(keys),
            FromSidecar::Revocations(range) => self.apply(now, range),
            FromSidecar::Heartbeat { time, head } => {
                self.note_head(now, head);
                self.effects.push_back(Effect::Heartbeat { time, head });
            }
            FromSidecar::IdleMoved(sessions) => {
                self.effects.push_back(Effect::IdleMoved(sessions));
            }
            FromSidecar::Drain(drain) => self.effects.push_back(Effect::Drain(drain)),
        }
    }

    /// Holds these keys from now on. The sidecar, which seals with what is held alone, hears of it once they are installed, unless it
    /// knows already: by Attach, or from before.
    fn hold(&mut self, keys: Vec<CarriedKey>) {
        let held: Vec<_> = keys
            .iter()
            .filter_map(|carried| <[u8; 32]>::try_from(&*carried.key).ok())
            .map(|bytes| TransportKey::from_bytes(&bytes).id())
            .collect();
        if held != self.keys {
            self.outgoing.keys_held(held.clone());
            self.keys = held;
        }
        self.effects.push_back(Effect::InstallKeys(keys));
    }

    /// Applies a range that continues the log. One that overlaps what is applied does so too: events are idempotent, and order
    /// among them does not matter.
    fn apply(&mut self, now: Instant, range: RevocationRange) {
        let Some(position) = &mut self.position else {
            return self.disconnected(now, DetachReason::Violation);
        };
        let gap = range.from > position.revision;
        #[cfg(test)]
        let gap = gap && self.fault != Some(Fault::NoGapCheck);
        if gap {
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
        self.report_wanted && self.is_attached() && !self.outgoing.has_report()
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

/// Whether no more dead seats have come than were counted, and, at the end, all of them.
fn is_sound(snapshot: &Snapshot) -> bool {
    let come = u32::try_from(snapshot.dead.len()).unwrap_or(u32::MAX);
    if snapshot.more_dead {
        come < snapshot.dead_count
    } else {
        come == snapshot.dead_count
    }
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
