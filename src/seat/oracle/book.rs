//! Plain maps of seats, and each call of the table held to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use super::tally::Tally;
use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId, SessionId},
    seat::{
        ActivitySource, Answers, Closing, Connection, EndReason, Grant, Handle, Installed,
        NotSeated, SamePlayer, SeatConfig, SeatTable, TickReport, Verdict, behaviour::START,
    },
};

pub(super) const WORKERS: u16 = 3;

/// Seats that may end between two ticks, each replaced, without anybody being refused for want of a slot. From
/// [`SeatTable::slots`]' documentation.
const SPARE: usize = 256;

/// The latest seat of a slot.
pub(super) struct Seat {
    pub(super) handle: Handle,
    /// The grant that took it.
    pub(super) grant: Grant,
    /// The newest of those that took it over.
    pub(super) generation: PlayerGeneration,
    /// None while it is suspended.
    pub(super) connection: Option<Connection>,
    /// When its grace is over, if it is suspended.
    pub(super) grace_ends: Timestamp,
    /// When it was really active last, here or elsewhere: it is not idle before that and the idle time are over.
    pub(super) active_at: Timestamp,
    /// When it was active last, for all that the table can know. Later than `active_at`: when the activity was written out. A mark that
    /// waits is not known yet.
    pub(super) known_at: Timestamp,
    /// It was active, and that is not written out: since after the pass of this tick.
    pub(super) marked: Option<u64>,
    pub(super) written: Option<u64>,
    pub(super) ended: Option<EndReason>,
    /// As the simulation was told last.
    pub(super) told: Option<Verdict>,
}

impl Seat {
    pub(super) fn is_seated(&self) -> bool {
        self.ended.is_none()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.is_seated() && self.connection.is_none()
    }

    pub(super) fn verdict(&self) -> Verdict {
        match (self.ended, self.connection) {
            (Some(_), _) => Verdict::Ended,
            (None, Some(_)) => Verdict::Live,
            (None, None) => Verdict::Suspended,
        }
    }

    fn touch(&mut self, now: Timestamp, last_tick: u64) {
        self.active_at = self.active_at.max(now);
        self.marked.get_or_insert(last_tick);
    }
}

/// Joins and ends in the order in which they are to be told. Those of one call stand in any.
#[derive(Default)]
pub(super) struct Order {
    /// Numbers of instants, of each seat in order.
    instants: HashMap<Handle, VecDeque<u64>>,
    instant: u64,
    /// What is noted is of the same instant as what was before.
    at_once: bool,
}

impl Order {
    fn note(&mut self, handle: Handle) {
        self.instant += u64::from(!self.at_once);
        self.instants
            .entry(handle)
            .or_default()
            .push_back(self.instant);
    }

    /// Holds what was told to it, and starts afresh.
    pub(super) fn hear(&mut self, told: &[Handle]) {
        let instants: Vec<u64> = told
            .iter()
            .map(|handle| {
                let instant = self.instants.get_mut(handle).and_then(VecDeque::pop_front);
                instant.unwrap_or_else(|| panic!("{handle} neither joined nor ended"))
            })
            .collect();
        assert!(
            instants.is_sorted(),
            "joins and ends out of order: {told:?}"
        );
        self.instants.retain(|_, rest| !rest.is_empty());
        assert!(self.instants.is_empty(), "not told: {:?}", self.instants);
    }
}

/// The table, what is expected of it, and the time.
pub(super) struct Book {
    pub(super) table: SeatTable,
    pub(super) config: SeatConfig,
    pub(super) now: Timestamp,
    pub(super) tick: u64,
    /// The latest seat of each slot that ever had one, told as ended or not.
    pub(super) seats: BTreeMap<u32, Seat>,
    pub(super) by_session: HashMap<SessionId, u32>,
    pub(super) by_player: HashMap<PlayerId, BTreeSet<u32>>,
    /// Every handle that ever was.
    pub(super) given: HashSet<Handle>,
    /// Those whose seat ended.
    pub(super) past: Vec<Handle>,
    /// Joins and ends that the next tick has to tell; those that it finds itself not among them.
    pub(super) order: Order,
    /// The last pass before which ticks were skipped.
    pub(super) skipped: Option<u64>,
    /// Ended, and not told yet.
    pub(super) untold: usize,
    pub(super) suspended: usize,
    closings: Vec<Vec<Closing>>,
    answers: Answers,
    pub(super) report: TickReport,
    pub(super) tally: Tally,
}

impl Book {
    pub(super) fn new(config: SeatConfig) -> Self {
        let mut book = Self {
            table: SeatTable::new(config),
            config,
            now: START,
            tick: 0,
            seats: BTreeMap::new(),
            by_session: HashMap::new(),
            by_player: HashMap::new(),
            given: HashSet::new(),
            past: Vec::new(),
            order: Order::default(),
            skipped: None,
            untold: 0,
            suspended: 0,
            closings: vec![Vec::new(); WORKERS.into()],
            answers: Answers::default(),
            report: TickReport::default(),
            tally: Tally::default(),
        };
        book.pass(0, Duration::ZERO);
        book
    }

    pub(super) fn len(&self) -> usize {
        self.by_session.len()
    }

    /// The seat that a handle names, ended or not, unless its slot went to another.
    pub(super) fn seat(&self, handle: Handle) -> Option<&Seat> {
        let seat = self.seats.get(&handle.slot())?;
        (seat.handle == handle).then_some(seat)
    }

    fn expected(&self, handle: Handle) -> Verdict {
        self.seat(handle).map_or(Verdict::Ended, Seat::verdict)
    }

    pub(super) fn install(&mut self, grant: Grant) {
        let (session, player) = (grant.session, grant.player);
        let has_room = self.table.has_room_for(session, player);
        let got = self.table.install(grant, self.now);
        assert_eq!(has_room, got != Err(NotSeated::Full));
        if let Some(slot) = self.by_session.get(&session) {
            self.take_over(*slot, grant, got);
            return;
        }
        let others: Vec<u32> = self.of_player(player).collect();
        let replaced = match self.config.same_player {
            SamePlayer::OldestWins if !others.is_empty() => {
                assert_eq!(got, Err(NotSeated::PlayerPresent));
                self.tally.player_present += 1;
                return;
            }
            SamePlayer::NewestWins => others,
            SamePlayer::OldestWins | SamePlayer::Allow => Vec::new(),
        };
        if self.len() - replaced.len() >= self.config.capacity as usize {
            assert_eq!(got, Err(NotSeated::Full));
            self.tally.full += 1;
            return;
        }
        match got {
            Ok(Installed::Fresh(handle)) => {
                for other in replaced {
                    self.note_end(other, EndReason::Superseded, true);
                    self.tally.superseded += 1;
                }
                self.seat_afresh(handle, grant);
            }
            Err(NotSeated::Full) => {
                assert!(self.untold >= SPARE, "refused after {} ends", self.untold);
                self.tally.full += 1;
            }
            unexpected => panic!("{unexpected:?}"),
        }
    }

    fn take_over(&mut self, slot: u32, grant: Grant, got: Result<Installed, NotSeated>) {
        let seat = self.seats.get_mut(&slot).unwrap();
        let expected = Installed::Taken {
            handle: seat.handle,
            client: seat.grant.client,
            displaced: seat.connection,
        };
        assert_eq!(got, Ok(expected));
        match seat.connection.replace(grant.connection) {
            Some(displaced) => {
                self.closings[usize::from(displaced.worker)].push((
                    seat.handle,
                    displaced,
                    EndReason::Superseded,
                ));
                self.tally.taken_over_live += 1;
            }
            None => {
                self.suspended -= 1;
                self.tally.resumed += 1;
            }
        }
        seat.generation = seat.generation.max(grant.player_generation);
        seat.touch(self.now, self.tick);
    }

    fn seat_afresh(&mut self, handle: Handle, grant: Grant) {
        assert!(handle.slot() < self.table.slots());
        assert_ne!(handle.generation(), 0);
        assert!(self.given.insert(handle), "{handle} was given twice");
        let before = self.seats.insert(
            handle.slot(),
            Seat {
                handle,
                grant,
                generation: grant.player_generation,
                connection: Some(grant.connection),
                grace_ends: Timestamp(0),
                active_at: self.now,
                known_at: self.now,
                marked: Some(self.tick),
                written: None,
                ended: None,
                told: None,
            },
        );
        if let Some(before) = before {
            assert_eq!(
                before.told,
                Some(Verdict::Ended),
                "its slot was given before its end was told"
            );
            self.tally.slots_used_again += 1;
            self.tally.slots_used_often += u64::from(handle.generation() > 15);
        }
        self.by_session.insert(grant.session, handle.slot());
        self.by_player
            .entry(grant.player)
            .or_default()
            .insert(handle.slot());
        self.order.note(handle);
        self.tally.seated += 1;
    }

    pub(super) fn of_player(&self, player: PlayerId) -> impl Iterator<Item = u32> {
        self.by_player.get(&player).into_iter().flatten().copied()
    }

    /// Ends a seat here, to be told in its order; true if it had not ended.
    fn note_end(&mut self, slot: u32, reason: EndReason, close: bool) -> bool {
        let ended = self.strike(slot, reason, close);
        if ended {
            self.order.note(self.seats[&slot].handle);
        }
        ended
    }

    /// Ends a seat here; true if it had not ended.
    pub(super) fn strike(&mut self, slot: u32, reason: EndReason, close: bool) -> bool {
        let Some(seat) = self.seats.get_mut(&slot) else {
            return false;
        };
        if !seat.is_seated() {
            return false;
        }
        self.suspended -= usize::from(seat.is_suspended());
        seat.ended = Some(reason);
        let (session, player) = (seat.grant.session, seat.grant.player);
        if let Some(connection) = seat.connection.take()
            && close
        {
            self.closings[usize::from(connection.worker)].push((seat.handle, connection, reason));
        }
        self.past.push(seat.handle);
        self.untold += 1;
        assert_eq!(self.by_session.remove(&session), Some(slot));
        let seats = self.by_player.get_mut(&player).unwrap();
        assert!(seats.remove(&slot));
        if seats.is_empty() {
            self.by_player.remove(&player);
        }
        true
    }

    pub(super) fn touch(&mut self, handle: Handle) {
        self.table.touch(handle);
        self.note_touch(handle);
    }

    fn note_touch(&mut self, handle: Handle) {
        let live = self.expected(handle).is_live();
        if live && let Some(seat) = self.seats.get_mut(&handle.slot()) {
            seat.touch(self.now, self.tick);
            self.tally.touched += 1;
        } else {
            self.tally.touched_in_vain += 1;
        }
    }

    /// Where it is configured so, to be looked at is to be active.
    fn note_verify(&mut self, handle: Handle) {
        if self.config.activity == ActivitySource::Verify {
            self.note_touch(handle);
        }
    }

    pub(super) fn verify(&mut self, handle: Handle) {
        assert_eq!(self.table.verify(handle), self.expected(handle), "{handle}");
        self.note_verify(handle);
    }

    /// A batch answers each handle as verify does.
    pub(super) fn verify_batch(&mut self, handles: &[Handle]) {
        let mut answers = std::mem::take(&mut self.answers);
        self.table.verify_batch(handles, &mut answers);
        let expected: Vec<bool> = handles
            .iter()
            .map(|handle| self.expected(*handle).is_live())
            .collect();
        let live = expected.iter().filter(|live| **live).count();
        assert_eq!((answers.len(), answers.live()), (handles.len(), live));
        assert_eq!(answers.all_live(), live == handles.len());
        let told: Vec<bool> = (0..handles.len())
            .map(|index| answers.is_live(index))
            .collect();
        assert_eq!(told, expected);
        let refused: Vec<usize> = answers.refused().collect();
        let expected: Vec<usize> = (0..handles.len())
            .filter(|index| !expected[*index])
            .collect();
        assert_eq!(refused, expected);
        self.answers = answers;
        for handle in handles {
            self.note_verify(*handle);
        }
        self.tally.batches += 1;
        self.tally.batches_all_live += u64::from(live > 0 && live == handles.len());
        self.tally.handles_refused += refused.len() as u64;
    }

    /// A connection of the seat is lost: the one that serves it, or (`stale`) one that does not.
    pub(super) fn suspend(&mut self, handle: Handle, stale: bool) {
        let (now, grace) = (self.now, self.config.grace);
        let connection = self.connection(handle, stale);
        let expected = self.serves(handle, connection);
        assert_eq!(self.table.suspend(handle, connection, now), expected);
        if !expected {
            return;
        }
        if grace.is_zero() {
            self.note_end(handle.slot(), EndReason::Lost, false);
            self.tally.lost_at_once += 1;
            return;
        }
        let seat = self.seats.get_mut(&handle.slot()).unwrap();
        seat.connection = None;
        seat.grace_ends = now.after(grace);
        if seat.marked.is_some() {
            seat.known_at = seat.known_at.max(now);
        }
        self.suspended += 1;
        self.tally.suspended += 1;
    }

    /// The connection that serves the seat, or did at first; another one that never did if it is to be stale.
    fn connection(&self, handle: Handle, stale: bool) -> Connection {
        let seat = self.seat(handle);
        let mut connection = seat.map_or(Connection { worker: 0, id: 0 }, |seat| {
            seat.connection.unwrap_or(seat.grant.connection)
        });
        connection.id += u64::from(stale) << 32;
        connection
    }

    fn serves(&self, handle: Handle, connection: Connection) -> bool {
        self.seat(handle)
            .is_some_and(|seat| seat.connection == Some(connection))
    }

    pub(super) fn end(&mut self, handle: Handle, reason: EndReason) {
        let expected = self.seat(handle).is_some_and(Seat::is_seated);
        assert_eq!(self.table.end(handle, reason), expected);
        if expected {
            self.note_end(handle.slot(), reason, true);
            self.tally.kicked += 1;
        }
    }

    pub(super) fn end_connection(&mut self, handle: Handle, stale: bool) {
        let connection = self.connection(handle, stale);
        let expected = self.serves(handle, connection);
        let left = EndReason::Left;
        assert_eq!(
            self.table.end_connection(handle, connection, left),
            expected
        );
        if expected {
            self.note_end(handle.slot(), left, false);
            self.tally.left += 1;
        }
    }

    pub(super) fn end_session(&mut self, session: SessionId) {
        let revoked = EndReason::SessionRevoked;
        let slot = self.by_session.get(&session).copied();
        assert_eq!(self.table.end_session(session, revoked), slot.is_some());
        if let Some(slot) = slot {
            self.note_end(slot, revoked, true);
            self.tally.session_revoked += 1;
        }
    }

    pub(super) fn end_player(&mut self, player: PlayerId, generation: PlayerGeneration) {
        let revoked = EndReason::SessionRevoked;
        let (due, spared): (Vec<u32>, Vec<u32>) = self
            .of_player(player)
            .partition(|slot| self.seats[slot].generation < generation);
        let ended = self.table.end_player_before(player, generation, revoked);
        assert_eq!(ended, due.len());
        self.note_ends(due, revoked);
        self.tally.player_revoked += ended as u64;
        self.tally.player_spared += spared.len() as u64;
    }

    pub(super) fn end_all(&mut self) {
        let due: Vec<u32> = self.by_session.values().copied().collect();
        assert_eq!(self.table.end_all(EndReason::Drained), due.len());
        self.tally.drained += due.len() as u64;
        self.note_ends(due, EndReason::Drained);
    }

    fn note_ends(&mut self, slots: Vec<u32>, reason: EndReason) {
        self.order.instant += 1;
        self.order.at_once = true;
        for slot in slots {
            self.note_end(slot, reason, true);
        }
        self.order.at_once = false;
    }

    pub(super) fn extend_idle(&mut self, session: SessionId, active_at: Timestamp) {
        self.table.extend_idle(session, active_at);
        if let Some(slot) = self.by_session.get(&session) {
            let seat = self.seats.get_mut(slot).unwrap();
            seat.active_at = seat.active_at.max(active_at);
            seat.known_at = seat.known_at.max(active_at);
            self.tally.extended += 1;
        }
    }

    pub(super) fn set_idle(&mut self, idle: Duration) {
        self.config.idle = idle;
        self.table.set_idle(idle);
        self.tally.idle_time_changed += 1;
    }

    pub(super) fn take_closings(&mut self, worker: u16) {
        let mut taken = Vec::new();
        self.table.take_closings(worker, &mut taken);
        let mut expected = std::mem::take(&mut self.closings[usize::from(worker)]);
        self.tally.closings += taken.len() as u64;
        // What one tick ended stands in any order.
        let key = |closing: &Closing| (closing.1, closing.0);
        taken.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(taken, expected);
    }

    /// Why a seat ended is known while its slot was not given to another.
    pub(super) fn ask_reason(&mut self, handle: Handle) {
        let expected = self.seat(handle).and_then(|seat| seat.ended);
        assert_eq!(self.table.end_reason(handle), expected, "{handle}");
        self.tally.reasons_told += u64::from(expected.is_some());
    }

    /// What can be asked of one session.
    pub(super) fn ask_session(&mut self, session: SessionId) {
        let seat = self.by_session.get(&session).map(|slot| &self.seats[slot]);
        let handle = seat.map(|seat| seat.handle);
        let (verdict, connection) = seat.map_or((Verdict::Ended, None), |seat| {
            (seat.verdict(), seat.connection)
        });
        assert_eq!(self.table.find(session), handle);
        assert_eq!(self.table.is_session_authorized(session), verdict.is_live());
        if let Some(handle) = handle {
            assert_eq!(self.table.connection(handle), connection);
            self.note_verify(handle);
        }
    }

    /// What can be asked of the table as a whole.
    pub(super) fn compare(&mut self) {
        assert_eq!(self.table.len(), self.len());
        assert_eq!(self.table.is_empty(), self.len() == 0);
        assert_eq!(self.table.used(), self.len() + self.untold);
        let counts = self.table.counts();
        assert_eq!(
            counts.joined,
            counts.live + counts.suspended + counts.ended_in_all()
        );
        assert_eq!(counts.suspended, self.suspended as u64);
        assert_eq!(counts.live, (self.len() - self.suspended) as u64);
        let Tally {
            seated,
            superseded,
            taken_over_live,
            resumed,
            suspended,
            lost_at_once,
            left,
            kicked,
            session_revoked,
            player_revoked,
            drained,
            idle,
            expired,
            lost,
            ..
        } = self.tally;
        assert_eq!((counts.joined, counts.suspensions), (seated, suspended));
        assert_eq!(counts.resumed, resumed + taken_over_live);
        for (label, count) in counts.ended {
            let expected = match label {
                "left" => left,
                "lost" => lost + lost_at_once,
                "session_revoked" => session_revoked + player_revoked,
                "session_idle" => idle,
                "session_expired" => expired,
                "superseded" => superseded,
                "control_stale" => 0,
                "drained" => drained,
                "kicked" => kicked,
                _ => 0,
            };
            assert_eq!(count, expected, "{label}");
        }
    }

    /// Every seat, and every handle that ever was.
    pub(super) fn compare_all(&mut self) {
        self.compare();
        let mut told = Vec::new();
        self.table
            .live_seats(|seat| told.push((seat.session, seat.player, seat.player_generation)));
        told.sort_unstable();
        let seated = self.seats.values().filter(|seat| seat.is_seated());
        let mut expected: Vec<_> = seated
            .map(|seat| (seat.grant.session, seat.grant.player, seat.generation))
            .collect();
        expected.sort_unstable();
        assert_eq!(told, expected);
        if self.config.same_player != SamePlayer::Allow {
            assert!(self.by_player.values().all(|seats| seats.len() == 1));
        }
        let sessions: Vec<SessionId> = told.into_iter().map(|(session, ..)| session).collect();
        sessions
            .into_iter()
            .for_each(|session| self.ask_session(session));
        let all: Vec<Handle> = self.given.iter().copied().collect();
        self.verify_batch(&all);
        all.into_iter().for_each(|handle| {
            self.verify(handle);
            self.ask_reason(handle);
        });
    }
}
