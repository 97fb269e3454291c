//! What runs for every seat on every tick allocates nothing in steady state, held to by a counting allocator.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{hint::black_box, time::Duration};

use allocation_counter::measure;
use tickgate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
    seat::{
        ActivitySource, Answers, Connection, EndReason, Grant, Handle, SeatConfig, SeatTable,
        TickReport,
    },
};

const START: Timestamp = Timestamp(1_700_000_000_000);
const SEATS: u32 = 2_000;
const HZ: u64 = 60;

fn grant(session: u32) -> Grant {
    Grant {
        session: SessionId(session.into()),
        player: PlayerId(session.into()),
        player_generation: PlayerGeneration(0),
        client: ClientId(session.into()),
        ends_at: START.after(Duration::from_secs(24 * 3_600)),
        connection: Connection {
            worker: 0,
            id: session.into(),
        },
    }
}

fn empty(activity: ActivitySource) -> SeatTable {
    SeatTable::new(SeatConfig {
        capacity: SEATS,
        window: 60,
        idle: Duration::from_secs(60),
        activity,
        ..SeatConfig::default()
    })
}

fn seated(activity: ActivitySource) -> (SeatTable, Vec<Handle>) {
    let table = empty(activity);
    let handles = (0..SEATS)
        .map(|session| table.install(grant(session), START).unwrap().handle())
        .collect();
    (table, handles)
}

fn at(tick: u64) -> Timestamp {
    START.after(Duration::from_millis(tick * 1_000 / HZ))
}

#[test]
fn verify_and_touch_allocate_nothing() {
    for activity in [ActivitySource::Input, ActivitySource::Verify] {
        let (table, handles) = seated(activity);
        // Every third is suspended.
        for handle in handles.iter().step_by(3) {
            let connection = table.connection(*handle).unwrap();
            assert!(table.suspend(*handle, connection, START));
        }
        let mut answers = Answers::default();
        table.verify_batch(&handles, &mut answers);
        let count = measure(|| {
            for handle in &handles {
                table.touch(*handle);
                let _ = black_box(table.verify(*handle));
            }
            table.verify_batch(&handles, &mut answers);
            for refused in answers.refused() {
                black_box(refused);
            }
        });
        assert_eq!(count.count_total, 0);
        assert_eq!(answers.live(), handles.len() - handles.len().div_ceil(3));
    }
}

#[test]
fn ticks_allocate_nothing_once_warm() {
    let (table, handles) = seated(ActivitySource::Input);
    let mut report = TickReport::default();
    let mut pass = |tick: u64| {
        handles.iter().for_each(|handle| table.touch(*handle));
        table.tick(Tick(tick), at(tick), &mut report);
    };
    (1..=2 * HZ).for_each(&mut pass);
    // Five seconds: five looks for due ends are among them.
    let count = measure(|| (2 * HZ + 1..=7 * HZ).for_each(&mut pass));
    assert_eq!(count.count_total, 0);
}

/// Ends free memory, and may not take any in the tick that brings them about or reports them.
#[test]
fn ticks_that_end_seats_allocate_nothing_once_warm() {
    let table = empty(ActivitySource::Input);
    let (mut report, mut closings) = (TickReport::default(), Vec::new());
    let mut tick = 0;
    let mut round = |measured: bool| {
        for session in 0..SEATS {
            table.install(grant(session), at(tick)).unwrap();
        }
        for session in 0..SEATS / 4 {
            table.end_session(SessionId(session.into()), EndReason::SessionRevoked);
        }
        // Another quarter is lost, and another is lost and comes back.
        for session in SEATS / 4..SEATS / 4 * 3 {
            let handle = table.find(SessionId(session.into())).unwrap();
            let connection = table.connection(handle).unwrap();
            assert!(table.suspend(handle, connection, at(tick)));
        }
        for session in SEATS / 2..SEATS / 4 * 3 {
            table.install(grant(session), at(tick)).unwrap();
        }
        // The ends so far; a window of activity; the end of the grace; and, a minute on, the idle ends of the rest.
        let ticks = (tick..=tick + 60)
            .chain(tick + 15 * HZ - 1..=tick + 15 * HZ + 1)
            .chain([tick + 70 * HZ, tick + 70 * HZ + 1]);
        let count = measure(|| {
            for tick in ticks {
                table.tick(Tick(tick), at(tick), &mut report);
            }
        });
        assert!(!measured || count.count_total == 0, "{count:?}");
        closings.clear();
        table.take_closings(0, &mut closings);
        assert_eq!(closings.len(), (SEATS / 4 * 3) as usize);
        assert!(table.is_empty());
        assert_eq!(table.counts().suspended, 0);
        tick += 100 * HZ;
    };
    // The two halves of the journal grow in turn.
    (0..4).for_each(|_| round(false));
    (0..4).for_each(|_| round(true));
}
