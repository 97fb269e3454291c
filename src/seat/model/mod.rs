//! A plain list of seats that does what the table does in the most obvious way, and holds the table to it after every step.

mod checks;

use std::time::Duration;

use super::{
    Closing, Connection, EndReason, Grant, Handle, Installed, Joined, NotSeated, SamePlayer,
    SeatChange, SeatConfig, SeatTable, TickReport, Verdict, behaviour::START,
};
use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId, SessionId, Tick},
};

pub(super) use checks::follow;

const CAPACITY: u32 = 6;
/// Few, so that they run out.
const SPARE: u32 = 3;
const WINDOW: u32 = 8;
/// More players than seats, and two sessions for each.
pub(super) const SESSIONS: u8 = 16;
pub(super) const PLAYERS: u8 = 8;
pub(super) const WORKERS: u8 = 3;

/// What the table is told to enforce.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) same_player: SamePlayer,
    pub(super) grace: Duration,
}

/// A seat, ever.
struct Modelled {
    handle: Handle,
    /// The one that took it.
    grant: Grant,
    /// The newest of those that took it over.
    generation: PlayerGeneration,
    /// None while it is suspended.
    connection: Option<Connection>,
    /// When its grace is over, if it is suspended.
    grace_ends: Timestamp,
    /// How many suspensions there were before its last.
    lost: u64,
    active_at: Timestamp,
    marked: bool,
    /// That of its slot.
    phase: u32,
    ended: Option<EndReason>,
    /// The end was told.
    gone: bool,
    /// As the simulation was told of it last; none until it was told at all.
    told: Option<Verdict>,
    /// The worker that served it, each time that this changed since the last tick; none for a suspension.
    served: Vec<Option<u16>>,
}

impl Modelled {
    fn is_seated(&self) -> bool {
        self.ended.is_none()
    }

    fn verdict(&self) -> Verdict {
        match (self.ended, self.connection) {
            (Some(_), _) => Verdict::Ended,
            (None, Some(_)) => Verdict::Live,
            (None, None) => Verdict::Suspended,
        }
    }

    /// What the next tick is to tell of this seat: the table in the documentation of [`SeatChange`].
    fn changes(&self) -> Vec<SeatChange> {
        let (handle, grant) = (self.handle, self.grant);
        let mut changes = Vec::new();
        let mut rest = &self.served[..];
        if self.told != Some(Verdict::Live) {
            // How it became live: by its first connection, or the last that took over from that.
            let first: Vec<u16> = rest.iter().map_while(|worker| *worker).collect();
            rest = &rest[first.len()..];
            changes.extend(first.last().map(|worker| match self.told {
                Some(_) => SeatChange::Resumed {
                    handle,
                    worker: *worker,
                },
                None => SeatChange::Joined(Joined {
                    handle,
                    session: grant.session,
                    player: grant.player,
                    player_generation: grant.player_generation,
                    client: grant.client,
                    worker: *worker,
                }),
            }));
        }
        changes.extend(rest.last().map(|last| match *last {
            Some(worker) => SeatChange::Resumed { handle, worker },
            None => SeatChange::Suspended { handle },
        }));
        changes.extend(self.ended.map(|reason| SeatChange::Ended {
            handle,
            session: grant.session,
            client: grant.client,
            reason,
        }));
        changes
    }
}

pub(super) struct Model {
    rules: Rules,
    table: SeatTable,
    seats: Vec<Modelled>,
    /// Whose joins and ends there were since the last tick, in order.
    order: Vec<Handle>,
    closings: Vec<Vec<Closing>>,
    idle: Duration,
    /// The idle timeout was set since the last tick, which the next enforces.
    is_idle_set: bool,
    last_tick: Option<u64>,
    /// By phase: when it was written out last.
    written: [Option<u64>; WINDOW as usize],
    tick: u64,
    now: Timestamp,
    serial: u64,
    resumed: u64,
    suspensions: u64,
    report: TickReport,
}

impl Model {
    pub(super) fn new(rules: Rules) -> Self {
        let idle = Duration::from_secs(3);
        let config = SeatConfig {
            capacity: CAPACITY,
            window: WINDOW,
            idle,
            grace: rules.grace,
            same_player: rules.same_player,
            ..SeatConfig::default()
        };
        Self {
            rules,
            table: SeatTable::with_spare_slots(config, SPARE),
            seats: Vec::new(),
            order: Vec::new(),
            closings: vec![Vec::new(); WORKERS.into()],
            idle,
            is_idle_set: false,
            last_tick: None,
            written: [None; WINDOW as usize],
            tick: 0,
            now: START,
            serial: 0,
            resumed: 0,
            suspensions: 0,
            report: TickReport::default(),
        }
    }

    /// A number that no connection and no client had before.
    pub(super) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// One of the latest seats, ended or not.
    pub(super) fn pick(&self, pick: usize) -> Option<usize> {
        let recent = self.seats.len().min(2 * CAPACITY as usize);
        (recent > 0).then(|| self.seats.len() - 1 - pick % recent)
    }

    fn seat_of(&self, session: SessionId) -> Option<usize> {
        self.seats
            .iter()
            .rposition(|seat| seat.is_seated() && seat.grant.session == session)
    }

    /// Those that have not ended and that `which` picks, by slot.
    fn seated(&self, which: impl Fn(&Modelled) -> bool) -> Vec<usize> {
        let mut seated: Vec<usize> = (0..self.seats.len())
            .filter(|i| self.seats[*i].is_seated() && which(&self.seats[*i]))
            .collect();
        seated.sort_by_key(|i| self.seats[*i].handle.slot());
        seated
    }

    fn used(&self) -> usize {
        self.seats.iter().filter(|seat| !seat.gone).count()
    }

    pub(super) fn install(&mut self, grant: Grant) {
        let has_room = self.table.has_room_for(grant.session, grant.player);
        let got = self.table.install(grant, self.now);
        assert_eq!(has_room, got != Err(NotSeated::Full));
        if let Some(i) = self.seat_of(grant.session) {
            self.take_over(i, grant, got);
            return;
        }
        let others = self.seated(|seat| seat.grant.player == grant.player);
        let replaced = match self.rules.same_player {
            SamePlayer::OldestWins if !others.is_empty() => {
                assert_eq!(got, Err(NotSeated::PlayerPresent));
                return;
            }
            SamePlayer::NewestWins => others,
            SamePlayer::OldestWins | SamePlayer::Allow => Vec::new(),
        };
        let seats = self.seated(|_| true).len() - replaced.len();
        if seats >= CAPACITY as usize || self.used() >= (CAPACITY + SPARE) as usize {
            assert_eq!(got, Err(NotSeated::Full));
            return;
        }
        for other in replaced {
            self.ended(other, EndReason::Superseded, true);
        }
        let Ok(Installed::Fresh(handle)) = got else {
            panic!("{got:?} where a seat was free");
        };
        self.fresh(handle, grant);
    }

    fn take_over(&mut self, i: usize, grant: Grant, got: Result<Installed, NotSeated>) {
        let seat = &mut self.seats[i];
        let expected = Installed::Taken {
            handle: seat.handle,
            client: seat.grant.client,
            displaced: seat.connection,
        };
        assert_eq!(got, Ok(expected));
        if let Some(displaced) = seat.connection {
            self.closings[usize::from(displaced.worker)].push((
                seat.handle,
                displaced,
                EndReason::Superseded,
            ));
        }
        seat.connection = Some(grant.connection);
        seat.generation = seat.generation.max(grant.player_generation);
        seat.active_at = seat.active_at.max(self.now);
        seat.marked = true;
        seat.served.push(Some(grant.connection.worker));
        self.resumed += 1;
    }

    fn fresh(&mut self, handle: Handle, grant: Grant) {
        assert!(handle.slot() < self.table.slots());
        for seat in &self.seats {
            assert_ne!(seat.handle, handle, "a handle was given twice");
            assert!(
                seat.gone || seat.handle.slot() != handle.slot(),
                "a slot was given before its end was told"
            );
        }
        let phase = self.table.phase(handle.slot()).unwrap();
        self.seats.push(Modelled {
            handle,
            phase,
            grant,
            generation: grant.player_generation,
            connection: Some(grant.connection),
            grace_ends: Timestamp(0),
            lost: 0,
            active_at: self.now,
            marked: true,
            ended: None,
            gone: false,
            told: None,
            served: vec![Some(grant.connection.worker)],
        });
        self.order.push(handle);
    }

    pub(super) fn touch(&mut self, i: usize) {
        let seat = &mut self.seats[i];
        self.table.touch(seat.handle);
        seat.marked |= seat.verdict().is_live();
    }

    /// A connection of the seat is lost: the one that serves it, or one that does not, or the last that did.
    pub(super) fn suspend(&mut self, i: usize, stale: bool) {
        let (now, grace) = (self.now, self.rules.grace);
        let connection = self.connection(i, stale);
        let seat = &mut self.seats[i];
        let suspended = self.table.suspend(seat.handle, connection, now);
        assert_eq!(suspended, seat.connection == Some(connection));
        if !suspended {
            return;
        }
        if grace.is_zero() {
            self.ended(i, EndReason::Lost, false);
            return;
        }
        if seat.marked {
            seat.active_at = seat.active_at.max(now);
        }
        seat.connection = None;
        seat.grace_ends = now.after(grace);
        seat.lost = self.suspensions;
        seat.served.push(None);
        self.suspensions += 1;
    }

    fn connection(&self, i: usize, stale: bool) -> Connection {
        let seat = &self.seats[i];
        let mut connection = seat.connection.unwrap_or(seat.grant.connection);
        connection.id += u64::from(stale) << 32;
        connection
    }

    pub(super) fn end(&mut self, i: usize, reason: EndReason) {
        let ended = self.table.end(self.seats[i].handle, reason);
        assert_eq!(ended, self.ended(i, reason, true));
    }

    pub(super) fn end_connection(&mut self, i: usize, stale: bool) {
        let connection = self.connection(i, stale);
        let seat = &self.seats[i];
        let ended = self
            .table
            .end_connection(seat.handle, connection, EndReason::Left);
        assert_eq!(ended, seat.connection == Some(connection));
        if ended {
            self.ended(i, EndReason::Left, false);
        }
    }

    pub(super) fn end_session(&mut self, session: SessionId) {
        let reason = EndReason::SessionRevoked;
        let ended = self.table.end_session(session, reason);
        let seat = self.seat_of(session);
        assert_eq!(ended, seat.is_some_and(|i| self.ended(i, reason, true)));
    }

    pub(super) fn end_player(&mut self, player: PlayerId, generation: PlayerGeneration) {
        let reason = EndReason::SessionRevoked;
        let ended = self.table.end_player_before(player, generation, reason);
        let mut due =
            self.seated(|seat| seat.grant.player == player && seat.generation < generation);
        // The latest first.
        due.sort_by(|a, b| b.cmp(a));
        assert_eq!(ended, due.len());
        for i in due {
            self.ended(i, reason, true);
        }
    }

    pub(super) fn end_all(&mut self) {
        let ended = self.table.end_all(EndReason::Drained);
        let due = self.seated(|_| true);
        assert_eq!(ended, due.len());
        for i in due {
            self.ended(i, EndReason::Drained, true);
        }
    }

    /// Ends a seat here; true if it had not ended.
    fn ended(&mut self, i: usize, reason: EndReason, close: bool) -> bool {
        let seat = &mut self.seats[i];
        if !seat.is_seated() {
            return false;
        }
        seat.ended = Some(reason);
        self.order.push(seat.handle);
        if let Some(connection) = seat.connection.take()
            && close
        {
            self.closings[usize::from(connection.worker)].push((seat.handle, connection, reason));
        }
        true
    }

    pub(super) fn extend_idle(&mut self, session: SessionId, active_at: Timestamp) {
        self.table.extend_idle(session, active_at);
        if let Some(i) = self.seat_of(session) {
            self.seats[i].active_at = self.seats[i].active_at.max(active_at);
        }
    }

    pub(super) fn set_idle(&mut self, idle: Duration) {
        self.idle = idle;
        self.is_idle_set = true;
        self.table.set_idle(idle);
    }

    pub(super) fn take_closings(&mut self, worker: u8) {
        let mut taken = Vec::new();
        self.table.take_closings(worker.into(), &mut taken);
        let expected = std::mem::take(&mut self.closings[usize::from(worker)]);
        assert_eq!(taken, expected);
    }

    pub(super) fn tick(&mut self, skip: u64, passed: Duration) {
        self.tick += skip;
        let last_time = self.now;
        self.now = self.now.after(passed);
        let active = self.write_out();

        let mut report = std::mem::take(&mut self.report);
        self.table.tick(Tick(self.tick), self.now, &mut report);
        report.active.sort();
        assert_eq!(report.active, active);
        self.sweep(&report.changes, last_time);
        self.end_lost();
        self.hear(&report.changes);
        self.report = report;
    }

    /// What is written out on this tick.
    fn write_out(&mut self) -> Vec<SessionId> {
        let window = u64::from(WINDOW);
        let first = match self.last_tick {
            Some(last) if last <= self.tick => last + 1,
            Some(_) | None => self.tick,
        };
        self.last_tick = Some(self.tick);
        let mut active = Vec::new();
        for phase in 0..WINDOW {
            let has_come = (first..=self.tick).any(|tick| tick % window == u64::from(phase));
            let written = &mut self.written[phase as usize];
            if !has_come || written.is_some_and(|written| self.tick - written < window) {
                continue;
            }
            *written = Some(self.tick);
            for seat in &mut self.seats {
                if seat.phase == phase && seat.is_seated() && seat.marked {
                    seat.marked = false;
                    if seat.verdict().is_live() {
                        seat.active_at = self.now;
                    }
                    active.push(seat.grant.session);
                }
            }
        }
        active.sort();
        active
    }

    /// Which seats end by time on this tick, within the second that it has for them, is for the table to say: each that it names must
    /// be due, and none may be left whose time is up.
    fn sweep(&mut self, changes: &[SeatChange], last_time: Timestamp) {
        for change in changes {
            if let SeatChange::Ended {
                handle,
                reason: reason @ (EndReason::Idle | EndReason::Expired),
                ..
            } = *change
            {
                let due = |seat: &Modelled| seat.handle == handle && seat.is_seated();
                let i = self.seats.iter().position(due).unwrap();
                let [expired, idle] = self.due(i);
                match reason {
                    EndReason::Expired => assert!(expired.is_some()),
                    // Not yet expired, as the table sees it: by a tenth of a second at most.
                    _ => assert!(
                        idle.is_some()
                            && expired.is_none_or(|at| self.now.since(at).as_millis() < 100)
                    ),
                }
                self.ended(i, reason, true);
            }
        }
        // Deadlines are rounded up to a tenth of a second, and their turn comes once in seven tenths; ticks that are further apart than
        // two look at all of them.
        let is_idle_set = std::mem::take(&mut self.is_idle_set);
        let looks_at_all = is_idle_set || self.now.since(last_time) >= Duration::from_millis(200);
        let waited = match looks_at_all {
            true => Duration::from_millis(99),
            false => Duration::from_millis(999),
        };
        for i in self.seated(|_| true) {
            let due = self.due(i);
            let left = due.iter().flatten().any(|at| at.after(waited) <= self.now);
            assert!(!left, "{:?} was due", self.seats[i].handle);
        }
    }

    /// Since when the absolute end and the idle end of a seat have been due, as it is now.
    fn due(&self, i: usize) -> [Option<Timestamp>; 2] {
        let seat = &self.seats[i];
        let is_active = seat.marked && seat.verdict().is_live();
        let idle_at = seat.active_at.after(self.idle);
        [
            Some(seat.grant.ends_at).filter(|at| *at <= self.now),
            Some(idle_at).filter(|at| *at <= self.now && !is_active),
        ]
    }

    fn end_lost(&mut self) {
        let mut lost = self.seated(|seat| seat.connection.is_none());
        lost.retain(|i| self.seats[*i].grace_ends <= self.now);
        lost.sort_by_key(|i| (self.seats[*i].grace_ends, self.seats[*i].lost));
        for i in lost {
            self.ended(i, EndReason::Lost, true);
        }
    }
}
