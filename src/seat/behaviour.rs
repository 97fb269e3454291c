//! The promises of the seat table, one by one: activity, ends, slots.

use std::{collections::HashMap, time::Duration};

use super::{
    ActivitySource, Answers, Connection, EndReason, Grant, Handle, Installed, SeatChange,
    SeatConfig, SeatTable, TickReport, phases::phase_of,
};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
};

pub(super) const START: Timestamp = Timestamp(1_700_000_000_000);

/// A table with `count` seats of ULIDs made in the same millisecond, which count up.
fn crowd(count: u32, window: u32, idle: Duration) -> (SeatTable, Vec<Handle>) {
    let table = SeatTable::new(SeatConfig {
        capacity: count,
        window,
        idle,
        activity: ActivitySource::Input,
        ..SeatConfig::default()
    });
    let handles = (0..count)
        .map(|n| {
            let n = u64::from(n);
            let grant = grant(
                (0x0192_5f6a_0000 << 80) + 0x1234_5678_9abc + u128::from(n),
                n,
            );
            table.install(grant, START).unwrap().handle()
        })
        .collect();
    (table, handles)
}

pub(super) fn grant(session: u128, connection: u64) -> Grant {
    Grant {
        session: SessionId(session),
        player: PlayerId(session),
        player_generation: PlayerGeneration(0),
        client: ClientId(connection),
        ends_at: START.after(Duration::from_secs(24 * 3_600)),
        connection: Connection {
            worker: 0,
            id: connection,
        },
    }
}

fn at_tick(tick: u64, hz: u32) -> Timestamp {
    Timestamp(START.0 + tick * 1_000 / u64::from(hz))
}

const RATES: [u32; 4] = [20, 30, 60, 128];
const CROWD: u32 = 10_000;

/// Holds what is written to the promises: at most 1.5 N/window on a tick, nobody twice within the window.
struct Written {
    window: u64,
    last: HashMap<SessionId, u64>,
    count: usize,
}

impl Written {
    fn new(window: u32) -> Self {
        Self {
            window: window.into(),
            last: HashMap::new(),
            count: 0,
        }
    }

    fn note(&mut self, tick: u64, passed: u64, report: &TickReport) {
        let due = u64::from(CROWD) * passed / self.window;
        let most = (due + due / 2).min(CROWD.into());
        let active = report.active.len();
        assert!(
            active as u64 <= most,
            "{active} written on tick {tick}, {due} due"
        );
        for session in &report.active {
            if let Some(last) = self.last.insert(*session, tick) {
                assert!(tick - last >= self.window, "written twice in a window");
            }
        }
        self.count += active;
    }
}

#[test]
fn activity_is_written_evenly_and_once_a_window_at_every_rate() {
    for hz in RATES {
        let (table, handles) = crowd(CROWD, hz, Duration::from_secs(3_600));
        let mut written = Written::new(hz);
        let mut report = TickReport::default();
        let windows = 5;
        for tick in 1..=windows * u64::from(hz) {
            for handle in &handles {
                table.touch(*handle);
            }
            table.tick(Tick(tick), at_tick(tick, hz), &mut report);
            written.note(tick, 1, &report);
        }
        assert_eq!(written.count as u64, windows * u64::from(CROWD));
    }
}

/// A client that sends every k ticks meets its seat's phase seldom, or never: marks stay until it comes.
#[test]
fn clients_in_step_with_the_ticks_never_end_as_idle() {
    for (hz, every) in [(60, 6), (60, 10), (60, 60), (30, 15), (128, 64), (20, 20)] {
        let (table, handles) = crowd(1_000, hz, Duration::from_secs(3));
        let mut report = TickReport::default();
        let mut count = 0;
        for tick in 1..=20 * u64::from(hz) {
            if tick % every == 0 {
                for handle in &handles {
                    table.touch(*handle);
                }
            }
            table.tick(Tick(tick), at_tick(tick, hz), &mut report);
            assert!(
                report
                    .changes
                    .iter()
                    .all(|c| matches!(c, SeatChange::Joined(_))),
                "ended at {hz} Hz, sending every {every} ticks"
            );
            count += report.active.len();
        }
        assert!(count >= 19 * 1_000, "{count} written at {hz} Hz");
    }
}

#[test]
fn skipped_ticks_lose_nothing() {
    for hz in RATES {
        let (table, handles) = crowd(CROWD, hz, Duration::from_secs(3_600));
        let mut written = Written::new(hz);
        let mut report = TickReport::default();
        let (mut tick, mut skips) = (0, [1, 2, 1, 5, 1, 1, 9].iter().cycle());
        while tick < 40 * u64::from(hz) {
            let passed = *skips.next().unwrap();
            tick += passed;
            for handle in &handles {
                table.touch(*handle);
            }
            table.tick(Tick(tick), at_tick(tick, hz), &mut report);
            // The ticks skipped before count as well: who was written late is passed over once.
            written.note(tick, passed + 9, &report);
        }
        assert_eq!(written.last.len(), handles.len());
        let oldest = written.last.values().min().unwrap();
        assert!(
            tick - oldest < 2 * u64::from(hz) + 18,
            "somebody was left out"
        );
    }
}

#[test]
fn a_long_skip_and_a_lull_cover_everybody_once() {
    for hz in RATES {
        let window = u64::from(hz);
        let (table, handles) = crowd(CROWD, hz, Duration::from_secs(3_600));
        let mut report = TickReport::default();
        // To be seated is activity: written within the first window, evenly.
        let mut written = Written::new(hz);
        for tick in 1..=window {
            table.tick(Tick(tick), at_tick(tick, hz), &mut report);
            written.note(tick, 1, &report);
        }
        assert_eq!(written.count, handles.len());
        // Nobody sends for ten windows; then all do, at once.
        for tick in window + 1..=11 * window {
            table.tick(Tick(tick), at_tick(tick, hz), &mut report);
            assert_eq!(report.active, []);
        }
        handles.iter().for_each(|handle| table.touch(*handle));
        for tick in 11 * window + 1..=12 * window {
            table.tick(Tick(tick), at_tick(tick, hz), &mut report);
            written.note(tick, 1, &report);
        }
        assert_eq!(written.count, 2 * handles.len());
        // The simulation stands still for three windows and a half, in which all sent.
        handles.iter().for_each(|handle| table.touch(*handle));
        let tick = 15 * window + window / 2;
        table.tick(Tick(tick), at_tick(tick, hz), &mut report);
        assert_eq!(report.active.len(), handles.len());
        table.tick(Tick(tick + 1), at_tick(tick + 1, hz), &mut report);
        assert_eq!(report.active, []);
    }
}

#[test]
fn idle_and_absolute_ends_come_within_a_second() {
    let (hz, idle) = (60, Duration::from_secs(10));
    let (table, handles) = crowd(100, hz, idle);
    let mut early = grant(1 << 100, 1_000);
    early.ends_at = START.after(Duration::from_millis(4_321));
    table.end(handles[0], EndReason::Left);
    let mut report = TickReport::default();
    table.tick(Tick(0), START, &mut report);
    let short = table.install(early, START).unwrap().handle();

    let mut ended = HashMap::new();
    for tick in 1..=20 * u64::from(hz) {
        table.touch(short);
        table.touch(handles[1]);
        table.tick(Tick(tick), at_tick(tick, hz), &mut report);
        for change in &report.changes {
            if let SeatChange::Ended { handle, reason, .. } = change {
                ended.insert(*handle, (at_tick(tick, hz), *reason));
            }
        }
    }
    let (at, reason) = ended[&short];
    assert_eq!(reason, EndReason::Expired, "touched, and past its end");
    assert!(at >= early.ends_at && at < early.ends_at.after(Duration::from_secs(1)));
    assert!(!ended.contains_key(&handles[1]), "touched, and in");
    for handle in &handles[2..] {
        let (at, reason) = ended[handle];
        assert_eq!(reason, EndReason::Idle);
        // To be seated counts, and was written out within the first window.
        assert!(at >= START.after(idle) && at < START.after(idle + Duration::from_secs(2)));
    }
    let mut closings = Vec::new();
    table.take_closings(0, &mut closings);
    assert_eq!(closings.len(), 100);
}

#[test]
fn to_be_verified_is_activity_only_where_configured() {
    for (activity, lives) in [
        (ActivitySource::Input, false),
        (ActivitySource::Verify, true),
    ] {
        let table = SeatTable::new(SeatConfig {
            capacity: 1,
            window: 60,
            idle: Duration::from_secs(5),
            activity,
            ..SeatConfig::default()
        });
        let handle = table.install(grant(7, 0), START).unwrap().handle();
        let mut report = TickReport::default();
        for tick in 1..=600 {
            let _ = table.verify(handle);
            table.tick(Tick(tick), at_tick(tick, 60), &mut report);
        }
        assert_eq!(table.verify(handle).is_live(), lives);
    }
}

#[test]
fn a_batch_answers_and_touches_as_one_by_one() {
    for activity in [ActivitySource::Input, ActivitySource::Verify] {
        let table = SeatTable::new(SeatConfig {
            capacity: 200,
            idle: Duration::from_secs(5),
            activity,
            ..SeatConfig::default()
        });
        let seat = |n: u64| table.install(grant(n.into(), n), START).unwrap().handle();
        let handles: Vec<_> = (0..200).map(seat).collect();
        assert!(table.suspend(handles[70], Connection { worker: 0, id: 70 }, START));
        assert!(table.end(handles[199], EndReason::Left));
        let (mut answers, mut report) = (Answers::default(), TickReport::default());
        for tick in 1..=600 {
            // One half in a batch on each tick, the other never.
            table.verify_batch(&handles[100..], &mut answers);
            table.tick(Tick(tick), at_tick(tick, 60), &mut report);
        }
        let lives = activity == ActivitySource::Verify;
        table.verify_batch(&handles, &mut answers);
        for (i, handle) in handles.iter().enumerate() {
            let expected = lives && i >= 100 && i != 199;
            assert_eq!(answers.is_live(i), expected);
            assert_eq!(table.verify(*handle).is_live(), expected);
        }
        assert_eq!(answers.refused().count(), if lives { 101 } else { 200 });
        assert_eq!(table.end_reason(handles[199]), Some(EndReason::Left));
        assert_eq!(table.end_reason(handles[0]), Some(EndReason::Idle));
        assert_eq!(table.end_reason(handles[150]).is_none(), lives);
    }
}

/// However sessions come and go, each is written out on the phase of its JTI as long as blocks are left.
#[test]
fn a_session_sits_in_a_block_of_its_phase() {
    let (table, mut handles) = crowd(1_000, 60, Duration::from_secs(3_600));
    let mut report = TickReport::default();
    for n in 0..300_u64 {
        let handle = handles.swap_remove(n as usize % handles.len());
        assert!(table.end(handle, EndReason::Left));
        table.tick(Tick(n), START, &mut report);
        let session = SessionId(u128::from(n) << 64 | 99);
        let handle = table.install(grant(session.0, n), START).unwrap().handle();
        assert_eq!(table.phase(handle.slot()), Some(phase_of(session, 60)));
        handles.push(handle);
    }
    table.live_seats(|seat| {
        // No lock is held.
        let slot = table.find(seat.session).unwrap().slot();
        assert_eq!(table.phase(slot), Some(phase_of(seat.session, 60)));
    });
}

/// A slot whose generations are used up is given to nobody any more.
#[test]
fn a_slot_that_is_worn_out_is_retired() {
    let config = SeatConfig {
        capacity: 1,
        ..SeatConfig::default()
    };
    let table = SeatTable::with_spare_slots(config, 1);
    let mut report = TickReport::default();
    table.wear_out(0);
    let last = table.install(grant(7, 1), START).unwrap().handle();
    assert_eq!((last.slot(), last.generation()), (0, u32::MAX >> 2));
    assert!(table.verify(last).is_live());
    assert!(table.end(last, EndReason::Left));
    table.tick(Tick(1), START, &mut report);
    for tick in 2..10 {
        let next = table.install(grant(7, 1), START).unwrap().handle();
        assert_eq!(next.slot(), 1);
        assert!(table.verify(last).is_ended());
        assert!(table.end(next, EndReason::Left));
        assert!(!table.has_room_for(SessionId(7), PlayerId(7)));
        assert!(table.install(grant(7, 1), START).is_err());
        table.tick(Tick(tick), START, &mut report);
    }
    assert_eq!(table.used(), 0);
}

/// The reference keeps the 1.7 % of sessions whose phase is 0 for ever when it is called on each 60th tick alone.
#[test]
fn a_check_each_window_keeps_nobody_alive() {
    let (table, handles) = crowd(CROWD, 60, Duration::from_secs(5));
    let mut report = TickReport::default();
    for second in 1..=10 {
        for handle in &handles {
            let _ = table.verify(*handle);
        }
        table.tick(Tick(second * 60), at_tick(second * 60, 60), &mut report);
    }
    assert!(table.is_empty());
}

#[test]
fn activity_elsewhere_moves_the_idle_end_and_not_the_absolute_one() {
    let idle = Duration::from_secs(5);
    let (table, handles) = crowd(2, 60, idle);
    let mut report = TickReport::default();
    let mut first = None;
    table.live_seats(|seat| {
        if table.find(seat.session) == Some(handles[0]) {
            first = Some(seat.session);
        }
    });
    for second in 1..=24 * 3_600 {
        let now = START.after(Duration::from_secs(second));
        table.extend_idle(first.unwrap(), now);
        table.tick(Tick(second * 60), now, &mut report);
        let absolute = second == 24 * 3_600;
        assert_eq!(table.verify(handles[0]).is_live(), !absolute);
    }
    assert!(!table.verify(handles[1]).is_live());
}

#[test]
fn a_join_and_an_end_between_two_ticks_are_both_told() {
    let (table, handles) = crowd(1, 60, Duration::from_secs(5));
    assert!(table.end(handles[0], EndReason::Kicked(3)));
    assert!(!table.end(handles[0], EndReason::Left));
    let other = table.install(grant(2, 2), START).unwrap().handle();
    assert_ne!(other.slot(), handles[0].slot(), "in use until told");
    assert!(table.end(other, EndReason::Left));
    let mut report = TickReport::default();
    table.tick(Tick(1), START, &mut report);
    assert!(matches!(
        report.changes[..],
        [
            SeatChange::Joined(_),
            SeatChange::Ended {
                reason: EndReason::Kicked(3),
                ..
            },
            SeatChange::Joined(_),
            SeatChange::Ended { .. },
        ]
    ));
    // The first session again, so that it is of the same phase.
    let first = (0x0192_5f6a_0000 << 80) + 0x1234_5678_9abc;
    let next = table.install(grant(first, 1), START).unwrap().handle();
    assert_eq!(next.slot(), handles[0].slot());
    assert_ne!(next, handles[0]);
    assert!(!table.verify(handles[0]).is_live());
    table.tick(Tick(1), START, &mut report);
    assert_eq!(report.changes.len(), 1);
}

#[test]
fn a_full_table_still_lets_a_session_take_its_own_seat_over() {
    let (table, handles) = crowd(3, 60, Duration::from_secs(5));
    let first = (0x0192_5f6a_0000 << 80) + 0x1234_5678_9abc;
    assert!(table.install(grant(1, 90), START).is_err());
    let mut again = grant(first, 91);
    again.client = ClientId(12_345);
    assert_eq!(
        table.install(again, START),
        Ok(Installed::Taken {
            handle: handles[0],
            client: ClientId(0),
            displaced: Some(Connection { worker: 0, id: 0 }),
        })
    );
    let left = EndReason::Left;
    let displaced = Connection { worker: 0, id: 0 };
    assert!(!table.end_connection(handles[0], displaced, left));
    assert!(table.end_connection(handles[0], again.connection, left));
    assert!(!table.end_connection(handles[0], again.connection, left));
}
