//! The model gateway process: the real seat table, revocation log and clock, a [`Link`], and what its host does between them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::{
    super::{
        CarriedKey, Drain, GatewayDescription, GatewayEvent, GatewayEventKind, LiveSeat,
        Revocation, RevocationRange, SeatReport, link::Link,
    },
    CAPACITY, COPY_RETENTION, EVENTS_KEPT, LEEWAY, PORTIONS, gateway_id,
    keys::process_of,
    store::Store,
};
use crate::{
    clock::{Clock, Timestamp},
    id::{ClientId, Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId, Tick},
    seat::{
        Connection, Coverage, EndReason, Grant, Handle, Installed, RevocationLog, Revoked,
        SamePlayer, SeatChange, SeatConfig, SeatTable, TickReport,
    },
};

/// How long an admission waits for the log to reach its token.
const WAIT_FOR_LOG: Duration = Duration::from_millis(500);

/// A connect token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) seat: LiveSeat,
    /// The process whose key it is sealed with, and which key of it.
    pub(super) incarnation: Incarnation,
    pub(super) epoch: u32,
    /// Head of the log as it was minted.
    pub(super) revision: Revision,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// When it was minted by the time that is everybody's.
    pub(super) minted_at: Instant,
}

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Seated {
        resumed: bool,
    },
    /// The log does not reach it yet.
    Waits,
    Key,
    Time,
    Draining,
    Revoked,
    TooOld,
    NotYet,
    Full,
}

/// What the process was told is revoked, kept by the test and not by the code under test.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) sessions: BTreeSet<SessionId>,
    pub(super) generations: BTreeMap<PlayerId, PlayerGeneration>,
}

impl Told {
    /// Forgets what the store knows nothing of: it went with a restore, and nothing says so any more. What a stream from before the
    /// restore brings late is as much undone as what was told in time.
    pub(super) fn forget_undone(&mut self, store: &Store) {
        self.sessions.retain(|session| store.is_gone(*session));
        for (player, generation) in &mut self.generations {
            *generation = store.generation(*player).min(*generation);
        }
    }

    pub(super) fn ends(&self, seat: &LiveSeat) -> bool {
        self.sessions.contains(&seat.session)
            || self
                .generations
                .get(&seat.player)
                .is_some_and(|least| seat.player_generation < *least)
    }

    pub(super) fn covers(&self, event: &Revocation) -> bool {
        match event {
            Revocation::Session(session) => self.sessions.contains(session),
            Revocation::Player(player, generation) => self
                .generations
                .get(player)
                .is_some_and(|told| told >= generation),
        }
    }
}

pub(super) struct Process {
    pub(super) link: Link,
    pub(super) incarnation: Incarnation,
    /// Its stream.
    pub(super) present: Option<u64>,
    /// Its host is busy, and takes no effects and no messages.
    pub(super) busy_until: Instant,
    /// The network lets no new stream through.
    pub(super) cut_off_until: Instant,
    pub(super) clock: Clock,
    pub(super) log: RevocationLog,
    pub(super) told: Told,
    /// Where its copy of the log starts.
    pub(super) base: Revision,
    pub(super) keys: Vec<(u32, Incarnation)>,
    pub(super) waiting: Vec<(Instant, Token)>,
    pub(super) draining: bool,
    pub(super) certificates: Vec<[u8; 32]>,
    pub(super) idle_moved: BTreeMap<SessionId, Timestamp>,
    /// A sidecar has told it that a newer process has taken its place.
    pub(super) fenced: bool,
    /// There is something to report, and the link has not been told so.
    pub(super) has_news: bool,
    seats: SeatTable,
    /// Seats that have not been reported as ended.
    handles: BTreeMap<Handle, LiveSeat>,
    tick: Tick,
    tick_report: TickReport,
    connections: u64,
    /// Whether changes are collected for a report: from the listing of the seats on.
    collects: bool,
    news: BTreeMap<SessionId, Option<LiveSeat>>,
    active: BTreeSet<SessionId>,
    certificates_changed: bool,
    events: VecDeque<GatewayEvent>,
    events_lost: u64,
    /// Numbers events by their time.
    pub(super) events_made: u64,
}

impl Process {
    pub(super) fn new(now: Instant, clock: Clock, incarnation: Incarnation, seed: u64) -> Self {
        let config = SeatConfig {
            capacity: CAPACITY,
            window: 10,
            grace: Duration::ZERO,
            same_player: SamePlayer::Allow,
            ..SeatConfig::default()
        };
        Self {
            link: Link::with_portions(now, seed, PORTIONS),
            incarnation,
            present: None,
            busy_until: now,
            cut_off_until: now,
            clock,
            log: RevocationLog::new(COPY_RETENTION),
            told: Told::default(),
            base: Revision(0),
            keys: Vec::new(),
            waiting: Vec::new(),
            draining: false,
            certificates: vec![[1; 32]],
            idle_moved: BTreeMap::new(),
            fenced: false,
            has_news: false,
            seats: SeatTable::new(config),
            handles: BTreeMap::new(),
            tick: Tick(0),
            tick_report: TickReport::default(),
            connections: 0,
            collects: false,
            news: BTreeMap::new(),
            active: BTreeSet::new(),
            certificates_changed: false,
            events: VecDeque::new(),
            events_lost: 0,
            events_made: 0,
        }
    }

    pub(super) fn describe(&self) -> GatewayDescription {
        GatewayDescription {
            id: gateway_id(),
            incarnation: self.incarnation,
            addresses: Vec::new(),
            server_name: String::new(),
            certificate_sha256: self.certificates.clone(),
            capacity: CAPACITY,
        }
    }

    /// The live seats, for an attach.
    pub(super) fn list(&mut self) -> Vec<LiveSeat> {
        self.collects = true;
        self.certificates_changed = false;
        self.live()
    }

    pub(super) fn live(&self) -> Vec<LiveSeat> {
        let mut seats = Vec::new();
        self.seats.live_seats(|seat| {
            seats.push(LiveSeat {
                session: seat.session,
                player: seat.player,
                player_generation: seat.player_generation,
            });
        });
        // The table's order is that of a hash map, and not the seed's.
        seats.sort_unstable_by_key(|seat| seat.session);
        seats
    }

    /// Judges a token in the order of the real admission, and seats its session.
    pub(super) fn admit(&mut self, now: Instant, token: &Token) -> Admission {
        let admission = self.judge(token);
        match admission {
            Admission::Waits => self.waiting.push((now + WAIT_FOR_LOG, *token)),
            Admission::Seated { .. } => self.note(Some(token.seat.session), None),
            refused => self.note(None, Some(refused)),
        }
        self.has_news = true;
        admission
    }

    /// Judges those that wait for the log once more.
    pub(super) fn admit_waiting(&mut self, now: Instant) -> Vec<(Token, Admission)> {
        let mut judged = Vec::new();
        for (until, token) in std::mem::take(&mut self.waiting) {
            match self.judge(&token) {
                Admission::Waits if now < until => self.waiting.push((until, token)),
                Admission::Waits => judged.push((token, Admission::NotYet)),
                admission => judged.push((token, admission)),
            }
        }
        judged
    }

    fn judge(&mut self, token: &Token) -> Admission {
        let wall = self.clock.wall();
        let seat = token.seat;
        let revoked =
            |log: &RevocationLog| log.check(seat.session, seat.player, seat.player_generation);
        if self.draining {
            return Admission::Draining;
        }
        if !self.keys.contains(&(token.epoch, token.incarnation)) {
            return Admission::Key;
        }
        if token.issued_at > wall.after(LEEWAY) || wall > token.expires_at.after(LEEWAY) {
            return Admission::Time;
        }
        if revoked(&self.log) {
            return Admission::Revoked;
        }
        match self.log.covers(token.revision) {
            Coverage::Covered => {}
            Coverage::TooOld => return Admission::TooOld,
            Coverage::NotYet => return Admission::Waits,
        }
        self.connections += 1;
        let installed = self.seats.install(
            Grant {
                session: seat.session,
                player: seat.player,
                player_generation: seat.player_generation,
                client: ClientId(self.connections),
                ends_at: Timestamp(u64::MAX),
                connection: Connection {
                    worker: 0,
                    id: self.connections,
                },
            },
            wall,
        );
        let Ok(installed) = installed else {
            return Admission::Full;
        };
        if revoked(&self.log) {
            self.seats
                .end_session(seat.session, EndReason::SessionRevoked);
            return Admission::Revoked;
        }
        self.handles.insert(installed.handle(), seat);
        Admission::Seated {
            resumed: matches!(installed, Installed::Taken { .. }),
        }
    }

    pub(super) fn leave(&mut self, session: SessionId) {
        if let Some(handle) = self.seats.find(session) {
            self.seats.end(handle, EndReason::Left);
        }
    }

    pub(super) fn touch(&mut self, session: SessionId) {
        if let Some(handle) = self.seats.find(session) {
            self.seats.touch(handle);
        }
    }

    pub(super) fn change_certificates(&mut self, next: u8) {
        self.certificates = vec![[next; 32], [next.wrapping_add(1); 32]];
        self.certificates_changed = true;
    }

    /// A tick of the simulation: what it is told goes into the next report.
    pub(super) fn tick(&mut self) {
        self.tick.0 += 1;
        let mut report = std::mem::take(&mut self.tick_report);
        report.changes.clear();
        report.active.clear();
        self.seats.tick(self.tick, self.clock.wall(), &mut report);
        for change in &report.changes {
            match *change {
                SeatChange::Joined(joined) => {
                    let seat = LiveSeat {
                        session: joined.session,
                        player: joined.player,
                        player_generation: joined.player_generation,
                    };
                    self.news.insert(joined.session, Some(seat));
                }
                SeatChange::Ended {
                    handle, session, ..
                } => {
                    self.handles.remove(&handle);
                    self.news.insert(session, None);
                }
                SeatChange::Resumed { .. } | SeatChange::Suspended { .. } => {}
            }
        }
        self.active.extend(report.active.iter().copied());
        if !self.collects {
            self.news.clear();
            self.active.clear();
        } else if !(report.changes.is_empty() && report.active.is_empty()) {
            self.has_news = true;
        }
        self.tick_report = report;
    }

    pub(super) fn detached(&mut self) {
        self.collects = false;
        self.news.clear();
        self.active.clear();
    }

    pub(super) fn install_keys(&mut self, keys: &[CarriedKey]) -> Result<(), String> {
        self.keys.clear();
        for key in keys {
            self.keys.push(process_of(key).ok_or("no incarnation")?);
        }
        Ok(())
    }

    pub(super) fn reset_log(&mut self, lineage: Lineage, revision: Revision, dead: &[SessionId]) {
        let wall = self.clock.wall();
        self.log.reset(lineage, revision);
        self.base = revision;
        for session in dead {
            self.log.apply_session(*session, wall);
            self.seats.end_session(*session, EndReason::SessionRevoked);
            self.told.sessions.insert(*session);
        }
    }

    /// Applies a range as the real host does; how many seats that ends.
    pub(super) fn apply(&mut self, range: &RevocationRange) -> Result<usize, String> {
        let wall = self.clock.wall();
        let events = range.events.iter().map(|event| match *event {
            Revocation::Session(session) => Revoked::Session(session),
            Revocation::Player(player, generation) => Revoked::Player(player, generation),
        });
        let applied = self.log.apply(range.from, range.to, events, wall);
        applied.map_err(|error| format!("the log does not take {range:?}: {error}"))?;
        let mut ended = 0;
        for event in &range.events {
            match *event {
                Revocation::Session(session) => {
                    let end = self.seats.end_session(session, EndReason::SessionRevoked);
                    ended += usize::from(end);
                    self.told.sessions.insert(session);
                }
                Revocation::Player(player, generation) => {
                    ended +=
                        self.seats
                            .end_player_before(player, generation, EndReason::SessionRevoked);
                    let told = self.told.generations.entry(player).or_default();
                    *told = generation.max(*told);
                }
            }
        }
        Ok(ended)
    }

    pub(super) fn heartbeat(&mut self, time: Timestamp, head: Revision) {
        self.clock.observe(time);
        self.log.caught_up(head);
        self.log.purge(self.clock.wall());
    }

    pub(super) fn idle_moved(&mut self, sessions: &[(SessionId, Timestamp)]) {
        for (session, at) in sessions {
            self.seats.extend_idle(*session, *at);
            self.idle_moved.insert(*session, *at);
        }
    }

    pub(super) fn drain(&mut self, drain: Drain) {
        self.draining = matches!(drain, Drain::Within(_));
    }

    pub(super) fn take_report(&mut self) -> SeatReport {
        let mut report = SeatReport {
            active: std::mem::take(&mut self.active).into_iter().collect(),
            seats: u32::try_from(self.seats.len()).unwrap(),
            draining: self.draining,
            certificate_sha256: std::mem::take(&mut self.certificates_changed)
                .then(|| self.certificates.clone()),
            events: std::mem::take(&mut self.events).into(),
            events_lost: std::mem::take(&mut self.events_lost),
            ..SeatReport::default()
        };
        for (session, seat) in std::mem::take(&mut self.news) {
            match seat {
                Some(seat) => report.opened.push(seat),
                None => report.closed.push(session),
            }
        }
        report
    }

    /// A live seat that it was told is revoked.
    pub(super) fn seated_though_revoked(&self) -> Option<LiveSeat> {
        let seats = self.handles.iter();
        let mut ended = seats.filter(|(_, seat)| self.told.ends(seat));
        ended
            .find(|(handle, _)| self.seats.verify(**handle).is_live())
            .map(|(_, seat)| *seat)
    }

    pub(super) fn events_kept(&self) -> usize {
        self.events.len()
    }

    fn note(&mut self, session: Option<SessionId>, refused: Option<Admission>) {
        if self.events.len() >= EVENTS_KEPT {
            self.events.pop_front();
            self.events_lost += 1;
        }
        self.events_made += 1;
        self.events.push_back(GatewayEvent {
            at: Timestamp(self.events_made),
            kind: match refused {
                None => GatewayEventKind::Admitted,
                Some(refused) => GatewayEventKind::Refused {
                    reason: format!("{refused:?}").into(),
                    code: 1,
                },
            },
            session,
            token_sha256: None,
            remote: None,
        });
    }
}
