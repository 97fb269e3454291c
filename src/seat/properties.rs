//! The seat table against a plain list that does the same in the most obvious way.

use std::time::Duration;

use proptest::{prelude::*, test_runner::RngSeed};

use super::{
    ActivitySource, Closing, Connection, EndReason, Grant, Handle, Installed, Joined, SeatChange,
    SeatConfig, SeatTable, TickReport, behaviour::START, phases::phase_of,
};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
};

const CAPACITY: u32 = 6;
const WINDOW: u32 = 8;
const SESSIONS: u8 = 10;
const PLAYERS: u8 = 4;
const WORKERS: u8 = 3;

#[derive(Debug, Clone, Copy)]
enum Step {
    Install {
        session: u8,
        generation: u8,
        worker: u8,
        life_ms: u64,
    },
    Touch(usize),
    End(usize, u32),
    EndConnection {
        seat: usize,
        stale: bool,
    },
    EndSession(u8),
    EndPlayer(u8, u8),
    ExtendIdle(u8, u64),
    SetIdle(u64),
    Tick {
        skip: u64,
        ms: u64,
    },
    TakeClosings(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let tick = |ticks: std::ops::Range<u64>, ms: std::ops::Range<u64>| {
        (ticks, ms).prop_map(|(skip, ms)| Step::Tick { skip, ms })
    };
    prop_oneof![
        8 => (0..SESSIONS, 0..3_u8, 0..WORKERS, 0..20_000_u64).prop_map(
            |(session, generation, worker, life_ms)| Step::Install { session, generation, worker, life_ms }),
        8 => any::<usize>().prop_map(Step::Touch),
        1 => (any::<usize>(), any::<u32>()).prop_map(|(seat, code)| Step::End(seat, code)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(seat, stale)| Step::EndConnection { seat, stale }),
        1 => (0..SESSIONS).prop_map(Step::EndSession),
        1 => (0..PLAYERS, 0..4_u8).prop_map(|(player, generation)| Step::EndPlayer(player, generation)),
        1 => (0..SESSIONS, 0..2_000_u64).prop_map(|(session, ms)| Step::ExtendIdle(session, ms)),
        1 => (1_000..6_000_u64).prop_map(Step::SetIdle),
        8 => tick(1..2, 0..300),
        2 => tick(0..5, 0..3_000),
        1 => tick(0..40, 0..300),
        1 => (0..WORKERS).prop_map(Step::TakeClosings),
    ]
}

/// A seat, ever.
struct Modelled {
    handle: Handle,
    session: SessionId,
    player: PlayerId,
    generation: PlayerGeneration,
    client: ClientId,
    ends_at: Timestamp,
    connection: Connection,
    active_at: Timestamp,
    marked: bool,
    written: Option<u64>,
    live: bool,
    reported: bool,
}

struct Model {
    table: SeatTable,
    seats: Vec<Modelled>,
    changes: Vec<SeatChange>,
    closings: Vec<Vec<Closing>>,
    idle: Duration,
    swept: Option<u64>,
    last_tick: Option<u64>,
    tick: u64,
    now: Timestamp,
    serial: u64,
    report: TickReport,
}

impl Model {
    fn new() -> Self {
        let idle = Duration::from_secs(3);
        Self {
            table: SeatTable::new(SeatConfig {
                capacity: CAPACITY,
                window: WINDOW,
                idle,
                activity: ActivitySource::Input,
                ..SeatConfig::default()
            }),
            seats: Vec::new(),
            changes: Vec::new(),
            closings: vec![Vec::new(); WORKERS.into()],
            idle,
            swept: None,
            last_tick: None,
            tick: 0,
            now: START,
            serial: 0,
            report: TickReport::default(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Install {
                session,
                generation,
                worker,
                life_ms,
            } => self.install(session, generation, worker, life_ms),
            Step::Touch(pick) => {
                if let Some(i) = self.pick(pick) {
                    self.table.touch(self.seats[i].handle);
                    self.seats[i].marked |= self.seats[i].live;
                }
            }
            Step::End(pick, code) => {
                if let Some(i) = self.pick(pick) {
                    let reason = EndReason::Kicked(code);
                    let ended = self.table.end(self.seats[i].handle, reason);
                    assert_eq!(ended, self.end(i, reason, true));
                }
            }
            Step::EndConnection { seat, stale } => {
                if let Some(i) = self.pick(seat) {
                    let mut connection = self.seats[i].connection;
                    connection.id += u64::from(stale) << 32;
                    let ended = self.table.end_connection(
                        self.seats[i].handle,
                        connection,
                        EndReason::Left,
                    );
                    assert_eq!(ended, !stale && self.end(i, EndReason::Left, false));
                }
            }
            Step::EndSession(session) => {
                let session = SessionId(session.into());
                let reason = EndReason::SessionRevoked;
                let ended = self.table.end_session(session, reason);
                let seat = self.live_seat(session);
                assert_eq!(ended, seat.is_some_and(|i| self.end(i, reason, true)));
            }
            Step::EndPlayer(player, generation) => self.end_player(player, generation),
            Step::ExtendIdle(session, ms) => {
                let session = SessionId(session.into());
                let active_at = self.now.before(Duration::from_millis(ms));
                self.table.extend_idle(session, active_at);
                if let Some(i) = self.live_seat(session) {
                    self.seats[i].active_at = self.seats[i].active_at.max(active_at);
                }
            }
            Step::SetIdle(ms) => {
                self.idle = Duration::from_millis(ms);
                self.swept = None;
                self.table.set_idle(self.idle);
            }
            Step::Tick { skip, ms } => {
                self.tick += skip;
                self.now = self.now.after(Duration::from_millis(ms));
                self.tick();
            }
            Step::TakeClosings(worker) => {
                let mut taken = Vec::new();
                self.table.take_closings(worker.into(), &mut taken);
                assert_eq!(
                    taken,
                    std::mem::take(&mut self.closings[usize::from(worker)])
                );
            }
        }
        self.compare();
    }

    /// One of the latest seats, ended or not.
    fn pick(&self, pick: usize) -> Option<usize> {
        let recent = self.seats.len().min(2 * CAPACITY as usize);
        (recent > 0).then(|| self.seats.len() - 1 - pick % recent)
    }

    fn live_seat(&self, session: SessionId) -> Option<usize> {
        self.seats
            .iter()
            .rposition(|seat| seat.live && seat.session == session)
    }

    fn unreported(&self) -> usize {
        self.seats.iter().filter(|seat| !seat.reported).count()
    }

    fn install(&mut self, session: u8, generation: u8, worker: u8, life_ms: u64) {
        self.serial += 1;
        let grant = Grant {
            session: SessionId(session.into()),
            player: PlayerId((session % PLAYERS).into()),
            player_generation: PlayerGeneration(generation.into()),
            client: ClientId(self.serial),
            ends_at: self.now.after(Duration::from_millis(life_ms)),
            connection: Connection {
                worker: worker.into(),
                id: self.serial,
            },
        };
        let room = self.unreported() < CAPACITY as usize;
        let got = self.table.install(grant, self.now);
        if let Some(i) = self.live_seat(grant.session) {
            let seat = &mut self.seats[i];
            let expected = Installed::Taken {
                handle: seat.handle,
                client: seat.client,
                displaced: seat.connection,
            };
            assert_eq!(got, Ok(expected));
            self.closings[usize::from(seat.connection.worker)].push((
                seat.handle,
                seat.connection,
                EndReason::Superseded,
            ));
            seat.connection = grant.connection;
            seat.generation = seat.generation.max(grant.player_generation);
            seat.active_at = seat.active_at.max(self.now);
            seat.marked = true;
            self.moved(i);
        } else if room {
            let Ok(Installed::Fresh(handle)) = got else {
                panic!("{got:?} where a seat was free");
            };
            self.seated(handle, grant);
        } else {
            assert!(got.is_err(), "{got:?} where no seat was free");
        }
    }

    fn seated(&mut self, handle: Handle, grant: Grant) {
        assert!(handle.slot() < CAPACITY && handle.generation() != 0);
        for seat in &self.seats {
            assert_ne!(seat.handle, handle, "given twice");
            assert!(
                seat.reported || seat.handle.slot() != handle.slot(),
                "slot used again too early"
            );
        }
        self.changes.push(SeatChange::Joined(Joined {
            handle,
            session: grant.session,
            player: grant.player,
            player_generation: grant.player_generation,
            client: grant.client,
            worker: grant.connection.worker,
        }));
        self.seats.push(Modelled {
            handle,
            session: grant.session,
            player: grant.player,
            generation: grant.player_generation,
            client: grant.client,
            ends_at: grant.ends_at,
            connection: grant.connection,
            active_at: self.now,
            marked: true,
            written: None,
            live: true,
            reported: false,
        });
    }

    fn moved(&mut self, i: usize) {
        let (handle, worker) = (self.seats[i].handle, self.seats[i].connection.worker);
        match self
            .changes
            .iter_mut()
            .find(|change| change.handle() == handle)
        {
            Some(SeatChange::Joined(joined)) => joined.worker = worker,
            Some(SeatChange::Resumed { worker: served, .. }) => *served = worker,
            Some(SeatChange::Suspended { .. }) => panic!("nobody is suspended here"),
            Some(SeatChange::Ended { .. }) => panic!("moved after its end"),
            None => self.changes.push(SeatChange::Resumed { handle, worker }),
        }
    }

    fn end(&mut self, i: usize, reason: EndReason, close: bool) -> bool {
        let seat = &mut self.seats[i];
        if !seat.live {
            return false;
        }
        seat.live = false;
        self.changes.push(SeatChange::Ended {
            handle: seat.handle,
            session: seat.session,
            client: seat.client,
            reason,
        });
        if close {
            self.closings[usize::from(seat.connection.worker)].push((
                seat.handle,
                seat.connection,
                reason,
            ));
        }
        true
    }

    fn end_player(&mut self, player: u8, generation: u8) {
        let (player, generation) = (PlayerId(player.into()), PlayerGeneration(generation.into()));
        let reason = EndReason::SessionRevoked;
        let ended = self.table.end_player_before(player, generation, reason);
        let mut due: Vec<usize> = (0..self.seats.len())
            .filter(|i| {
                let seat = &self.seats[*i];
                seat.live && seat.player == player && seat.generation < generation
            })
            .collect();
        due.sort_by_key(|i| self.seats[*i].handle.slot());
        assert_eq!(ended, due.len());
        for i in due {
            self.end(i, reason, true);
        }
    }

    fn tick(&mut self) {
        let first = match self.last_tick {
            Some(last) if last <= self.tick => last + 1,
            Some(_) | None => self.tick,
        };
        let mut active = Vec::new();
        for i in 0..self.seats.len() {
            let phase = phase_of(self.seats[i].session, WINDOW.into()) as u64;
            if (first..=self.tick).any(|tick| tick % u64::from(WINDOW) == phase) {
                self.write_out(i, &mut active);
            }
        }
        self.last_tick = Some(self.tick);
        if self.swept != Some(self.now.0 / 1_000) {
            self.swept = Some(self.now.0 / 1_000);
            self.sweep(&mut active);
        }

        let mut report = std::mem::take(&mut self.report);
        self.table.tick(Tick(self.tick), self.now, &mut report);
        report.active.sort();
        active.sort();
        assert_eq!(report.active, active);
        assert_eq!(report.changes, std::mem::take(&mut self.changes));
        self.report = report;
        for seat in &mut self.seats {
            seat.reported |= !seat.live;
        }
    }

    fn sweep(&mut self, active: &mut Vec<SessionId>) {
        let mut order: Vec<usize> = (0..self.seats.len())
            .filter(|i| self.seats[*i].live)
            .collect();
        order.sort_by_key(|i| self.seats[*i].handle.slot());
        for i in order {
            let seat = &mut self.seats[i];
            if self.now >= seat.ends_at {
                self.end(i, EndReason::Expired, true);
            } else if self.now >= seat.active_at.after(self.idle) {
                if seat.marked {
                    seat.active_at = self.now;
                    self.write_out(i, active);
                } else {
                    self.end(i, EndReason::Idle, true);
                }
            }
        }
    }

    fn write_out(&mut self, i: usize, active: &mut Vec<SessionId>) {
        let seat = &mut self.seats[i];
        let lately = seat
            .written
            .is_some_and(|written| self.tick - written < u64::from(WINDOW));
        if seat.live && seat.marked && !lately {
            seat.marked = false;
            seat.written = Some(self.tick);
            seat.active_at = self.now;
            active.push(seat.session);
        }
    }

    fn compare(&self) {
        let live = self.seats.iter().filter(|seat| seat.live);
        assert_eq!(self.table.len(), live.clone().count());
        assert_eq!(self.table.used(), self.unreported());
        for seat in self.seats.iter().rev().take(64).chain(live) {
            assert_eq!(self.table.verify(seat.handle).is_live(), seat.live);
            assert_eq!(
                self.table.connection(seat.handle),
                seat.live.then_some(seat.connection)
            );
        }
        for session in 0..SESSIONS {
            let session = SessionId(session.into());
            let seat = self.live_seat(session);
            assert_eq!(self.table.is_session_authorized(session), seat.is_some());
            assert_eq!(self.table.find(session), seat.map(|i| self.seats[i].handle));
        }
        let mut told = Vec::new();
        self.table
            .live_seats(|seat| told.push((seat.session, seat.player, seat.player_generation)));
        told.sort();
        let mut expected: Vec<_> = self
            .seats
            .iter()
            .filter(|seat| seat.live)
            .map(|seat| (seat.session, seat.player, seat.generation))
            .collect();
        expected.sort();
        assert_eq!(told, expected);
    }
}

fn agrees(steps: Vec<Step>) {
    let mut model = Model::new();
    for step in steps {
        model.step(step);
    }
}

fn seeded(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(0x7469_636b),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded(400))]

    /// Short runs, which shrink to something to look at: some 30,000 steps.
    #[test]
    fn agrees_with_a_plain_list(steps in prop::collection::vec(step(), 1..150)) {
        agrees(steps);
    }
}

proptest! {
    #![proptest_config(seeded(20))]

    /// Long runs, in which slots go through many generations: some 40,000 steps.
    #[test]
    fn agrees_with_a_plain_list_for_long(steps in prop::collection::vec(step(), 1_900..2_100)) {
        agrees(steps);
    }
}
