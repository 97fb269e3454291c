//! The promises about seats whose connection is lost, one by one.

use std::time::Duration;

use super::{
    ActivitySource, Connection, EndReason, Handle, Installed, SamePlayer, SeatChange, SeatConfig,
    SeatTable, TickReport, Verdict,
    behaviour::{START, grant},
    model::follow,
};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
};

const GRACE: Duration = Duration::from_secs(15);

fn table(config: SeatConfig) -> SeatTable {
    SeatTable::new(SeatConfig {
        capacity: 8,
        ..config
    })
}

fn connection(id: u64) -> Connection {
    Connection { worker: 0, id }
}

/// Ticks, and what they tell.
#[derive(Default)]
struct Ticks {
    tick: Tick,
    report: TickReport,
}

impl Ticks {
    fn next(&mut self, table: &SeatTable, now: Timestamp) -> &[SeatChange] {
        self.tick.0 += 1;
        table.tick(self.tick, now, &mut self.report);
        &self.report.changes
    }
}

fn closings(table: &SeatTable) -> usize {
    let mut closings = Vec::new();
    table.take_closings(0, &mut closings);
    closings.len()
}

fn ended(handle: Handle, session: u128, reason: EndReason) -> SeatChange {
    SeatChange::Ended {
        handle,
        session: SessionId(session),
        client: ClientId(1),
        reason,
    }
}

#[test]
fn a_session_that_comes_back_finds_its_seat() {
    let (table, mut ticks) = (table(SeatConfig::default()), Ticks::default());
    let handle = table.install(grant(7, 1), START).unwrap().handle();
    ticks.next(&table, START);

    assert!(table.suspend(handle, connection(1), START));
    assert_eq!(table.verify(handle), Verdict::Suspended);
    assert_eq!(table.connection(handle), None);
    assert_eq!(table.find(SessionId(7)), Some(handle));
    assert!(!table.is_session_authorized(SessionId(7)));
    let mut seats = 0;
    table.live_seats(|_| seats += 1);
    assert_eq!((seats, table.len()), (1, 1));
    assert_eq!(
        ticks.next(&table, START),
        [SeatChange::Suspended { handle }]
    );
    assert_eq!(ticks.next(&table, START), []);

    let mut again = grant(7, 2);
    again.connection.worker = 3;
    assert_eq!(
        table.install(again, START),
        Ok(Installed::Taken {
            handle,
            client: ClientId(1),
            displaced: None,
        })
    );
    assert_eq!(table.verify(handle), Verdict::Live);
    assert_eq!(table.connection(handle), Some(again.connection));
    assert_eq!(
        ticks.next(&table, START),
        [SeatChange::Resumed { handle, worker: 3 }]
    );
    assert_eq!(closings(&table), 0, "nobody was displaced");
    let counts = table.counts();
    assert_eq!((counts.live, counts.suspended, counts.joined), (1, 0, 1));
    assert_eq!((counts.resumed, counts.suspensions), (1, 1));
}

#[test]
fn only_the_connection_that_serves_a_seat_suspends_it() {
    let table = table(SeatConfig::default());
    let handle = table.install(grant(7, 1), START).unwrap().handle();
    assert!(!table.suspend(handle, connection(2), START));
    table.install(grant(7, 2), START).unwrap();
    assert!(!table.suspend(handle, connection(1), START), "displaced");
    assert_eq!(table.verify(handle), Verdict::Live);
    assert!(table.suspend(handle, connection(2), START));
    assert!(!table.suspend(handle, connection(2), START), "only once");
    let left = EndReason::Left;
    assert!(!table.end_connection(handle, connection(2), left));
    assert!(table.end(handle, left));
    assert!(!table.suspend(handle, connection(2), START));
    assert_eq!(table.counts().suspensions, 1);
}

#[test]
fn a_seat_whose_grace_is_over_is_lost_by_the_tick() {
    let (table, mut ticks) = (table(SeatConfig::default()), Ticks::default());
    let lost_at = START.after(Duration::from_millis(123));
    let handles = [1, 2, 3].map(|n| table.install(grant(n.into(), n), START).unwrap().handle());
    assert!(table.suspend(handles[0], connection(1), lost_at));
    let later = lost_at.after(Duration::from_millis(10));
    assert!(table.suspend(handles[1], connection(2), later));
    ticks.next(&table, lost_at);

    let over = lost_at.after(GRACE);
    assert_eq!(ticks.next(&table, Timestamp(over.0 - 1)), []);
    assert_eq!(table.verify(handles[0]), Verdict::Suspended);
    assert_eq!(
        ticks.next(&table, over),
        [ended(handles[0], 1, EndReason::Lost)]
    );
    assert_eq!(table.verify(handles[0]), Verdict::Ended);
    assert_eq!(table.verify(handles[1]), Verdict::Suspended);
    assert_eq!(closings(&table), 0, "there is nothing to close");

    // Who comes back after that sits down afresh; who came back before stays, whatever the first grace was.
    assert!(matches!(
        table.install(grant(1, 11), over),
        Ok(Installed::Fresh(handle)) if handle != handles[0]
    ));
    table.install(grant(2, 12), over).unwrap();
    assert!(table.suspend(handles[1], connection(12), over));
    ticks.next(&table, over.after(GRACE / 2));
    assert_eq!(table.verify(handles[1]), Verdict::Suspended);
    assert_eq!(table.verify(handles[2]), Verdict::Live);
}

/// No tick, no end: the session may come back even so, since nobody was told that it is gone.
#[test]
fn a_grace_that_no_tick_has_ended_goes_on() {
    let table = table(SeatConfig::default());
    let handle = table.install(grant(7, 1), START).unwrap().handle();
    assert!(table.suspend(handle, connection(1), START));
    let late = START.after(2 * GRACE);
    assert_eq!(table.install(grant(7, 2), late).unwrap().handle(), handle);
    let mut ticks = Ticks::default();
    assert_eq!(ticks.next(&table, late).len(), 2, "joined and resumed");
    assert_eq!(table.verify(handle), Verdict::Live);
}

#[test]
fn without_a_grace_a_lost_connection_ends_its_seat_at_once() {
    let table = table(SeatConfig {
        grace: Duration::ZERO,
        ..SeatConfig::default()
    });
    let handle = table.install(grant(7, 1), START).unwrap().handle();
    let mut ticks = Ticks::default();
    ticks.next(&table, START);
    assert!(table.suspend(handle, connection(1), START));
    assert_eq!(table.verify(handle), Verdict::Ended);
    assert_eq!(
        ticks.next(&table, START),
        [ended(handle, 7, EndReason::Lost)]
    );
    assert_eq!(table.counts().suspensions, 0);
    assert_eq!(closings(&table), 0);
}

#[test]
fn whatever_ends_a_live_seat_ends_a_suspended_one() {
    type End = fn(&SeatTable, Handle);
    let later = |secs| START.after(Duration::from_secs(secs));
    let ends: [(EndReason, End); 6] = [
        (EndReason::Kicked(9), |table, handle| {
            assert!(table.end(handle, EndReason::Kicked(9)));
        }),
        (EndReason::SessionRevoked, |table, _| {
            assert!(table.end_session(SessionId(7), EndReason::SessionRevoked));
        }),
        (EndReason::SessionRevoked, |table, _| {
            let (player, generation) = (PlayerId(7), PlayerGeneration(1));
            let reason = EndReason::SessionRevoked;
            assert_eq!(table.end_player_before(player, generation, reason), 1);
        }),
        (EndReason::Drained, |table, _| {
            assert_eq!(table.end_all(EndReason::Drained), 1);
            assert_eq!(table.end_all(EndReason::Drained), 0);
        }),
        (EndReason::Idle, |table, _| {
            table.set_idle(Duration::from_secs(2));
        }),
        (EndReason::Superseded, |table, _| {
            let mut other = grant(8, 2);
            other.player = PlayerId(7);
            assert!(matches!(
                table.install(other, START),
                Ok(Installed::Fresh(_))
            ));
        }),
    ];
    for (reason, end) in ends {
        let (table, mut ticks) = (table(SeatConfig::default()), Ticks::default());
        let handle = table.install(grant(7, 1), START).unwrap().handle();
        assert!(table.suspend(handle, connection(1), START));
        ticks.next(&table, START);
        end(&table, handle);
        let told = ticks.next(&table, later(3)).to_vec();
        assert_eq!(told.first(), Some(&ended(handle, 7, reason)));
        assert_eq!(table.verify(handle), Verdict::Ended);
        assert!(!table.end(handle, EndReason::Lost));
        assert!(
            ticks
                .next(&table, later(20))
                .iter()
                .all(|change| change.handle() != handle),
            "told once"
        );
        assert_eq!(closings(&table), 0);
        assert_eq!(table.counts().suspended, 0);
    }
}

/// Idle and absolute end count on through a suspension, whatever comes to the seat meanwhile.
#[test]
fn a_suspended_seat_is_nobodys_activity() {
    let (idle, life) = (Duration::from_secs(5), Duration::from_secs(8));
    let table = table(SeatConfig {
        idle,
        activity: ActivitySource::Verify,
        grace: Duration::from_secs(60),
        ..SeatConfig::default()
    });
    let handle = table.install(grant(7, 1), START).unwrap().handle();
    let mut short = grant(8, 2);
    short.ends_at = START.after(life);
    let short = table.install(short, START).unwrap().handle();
    let mut ticks = Ticks::default();
    let lost_at = START.after(Duration::from_secs(3));
    let mut told = Vec::new();
    let mut written = Vec::new();
    for tick in 0..60 * 10 {
        let now = Timestamp(START.0 + tick * 1_000 / 60);
        if now == lost_at {
            // Active until then, and that was not written out yet.
            let _ = table.verify(handle);
            assert!(table.suspend(handle, connection(1), now));
            assert!(table.suspend(short, connection(2), now));
        }
        if now < lost_at {
            let _ = table.verify(handle);
        } else {
            table.touch(handle);
            let _ = table.verify(handle);
            table.touch(short);
        }
        table.extend_idle(SessionId(8), now);
        for change in ticks.next(&table, now) {
            if let SeatChange::Ended { handle, reason, .. } = change {
                told.push((*handle, *reason, now));
            }
        }
        if now >= lost_at {
            written.extend_from_slice(&ticks.report.active);
        }
    }
    let [(first, idle_end, idle_at), (second, absolute_end, _)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((first, idle_end), (handle, EndReason::Idle));
    assert_eq!((second, absolute_end), (short, EndReason::Expired));
    let due = lost_at.after(idle);
    assert!(idle_at >= due && idle_at < due.after(Duration::from_secs(1)));
    // What it did before it was lost was written out all the same, once.
    let of_first = written.iter().filter(|session| session.0 == 7);
    assert_eq!(of_first.count(), 1);
}

#[test]
fn to_come_back_is_activity() {
    let table = table(SeatConfig {
        idle: Duration::from_secs(5),
        ..SeatConfig::default()
    });
    let handle = table.install(grant(7, 1), START).unwrap().handle();
    let mut ticks = Ticks::default();
    ticks.next(&table, START);
    assert!(table.suspend(handle, connection(1), START));
    let back = START.after(Duration::from_millis(4_500));
    table.install(grant(7, 2), back).unwrap();
    ticks.next(&table, START.after(Duration::from_secs(8)));
    assert_eq!(table.verify(handle), Verdict::Live);
}

/// What is done to a seat between two ticks: 's' suspends it, any other letter takes it over on the worker of that number.
fn change(table: &SeatTable, handle: Handle, what: char, id: &mut u64) {
    if let Some(worker) = what.to_digit(10) {
        *id += 1;
        let mut grant = grant(7, *id);
        grant.connection.worker = worker as u16;
        table.install(grant, START).unwrap();
    } else {
        let served = table.connection(handle).unwrap();
        assert!(table.suspend(handle, served, START));
    }
}

/// The table in the documentation of [`SeatChange`], row by row.
#[test]
fn what_is_told_leads_from_what_was_told_to_how_it_is() {
    let rows = [
        // Live before.
        ("1", "2", "2"),
        ("1", "234", "4"),
        ("1", "s", "s"),
        ("1", "s2", "2"),
        ("1", "s2s3s4", "4"),
        ("1", "2s", "s"),
        ("1", "s2s", "s"),
        // Suspended before.
        ("1s", "2", "2"),
        ("1s", "23", "3"),
        ("1s", "2s", "2s"),
        ("1s", "2s3s", "2s"),
        ("1s", "23s4s5", "35"),
        // Not told of before.
        ("", "1", "j1"),
        ("", "12", "j2"),
        ("", "12s", "j2s"),
        ("", "1s2", "j12"),
        ("", "1s2s3s", "j1s"),
        ("", "1s2s3", "j13"),
    ];
    for (before, since, expected) in rows {
        let (table, mut ticks, mut id) = (table(SeatConfig::default()), Ticks::default(), 0);
        let mut handle = None;
        let mut act = |what: char, table: &SeatTable| {
            let handle = *handle.get_or_insert_with(|| {
                let mut grant = grant(7, 0);
                grant.connection.worker = what.to_digit(10).unwrap() as u16;
                table.install(grant, START).unwrap().handle()
            });
            change(table, handle, what, &mut id);
        };
        for what in before.chars() {
            act(what, &table);
            ticks.next(&table, START);
        }
        since.chars().for_each(|what| act(what, &table));
        let mut told = String::new();
        for change in ticks.next(&table, START) {
            told += &match change {
                SeatChange::Joined(joined) => format!("j{}", joined.worker),
                SeatChange::Resumed { worker, .. } => worker.to_string(),
                SeatChange::Suspended { .. } => "s".to_owned(),
                SeatChange::Ended { .. } => "e".to_owned(),
            };
        }
        assert_eq!(told, expected, "{before:?}, then {since:?}");
    }
}

/// A simulation that stands still costs no memory, however often its clients lose their connections and come back.
#[test]
fn a_thousand_comings_and_goings_are_told_in_three() {
    let (table, mut ticks) = (table(SeatConfig::default()), Ticks::default());
    for before in [false, true] {
        let (mut id, mut told) = (0, None);
        let handle = table.install(grant(7, 0), START).unwrap().handle();
        if before {
            change(&table, handle, 's', &mut id);
            for change in ticks.next(&table, START) {
                told = Some(follow(told, change));
            }
            change(&table, handle, '1', &mut id);
        }
        for _ in 0..1_000 {
            change(&table, handle, 's', &mut id);
            change(&table, handle, '2', &mut id);
        }
        change(&table, handle, 's', &mut id);
        assert!(table.end(handle, EndReason::SessionRevoked));
        let changes = ticks.next(&table, START);
        assert_eq!(changes.len(), 3);
        for change in changes {
            told = Some(follow(told, change));
        }
        assert_eq!(told, Some(Verdict::Ended));
    }
}

/// Policies other than the default leave a session's way back to its own seat alone.
#[test]
fn ones_own_seat_is_no_others() {
    for same_player in [
        SamePlayer::NewestWins,
        SamePlayer::OldestWins,
        SamePlayer::Allow,
    ] {
        let table = SeatTable::new(SeatConfig {
            capacity: 1,
            same_player,
            ..SeatConfig::default()
        });
        let handle = table.install(grant(7, 1), START).unwrap().handle();
        for id in 2..5 {
            assert!(table.has_room_for(SessionId(7), PlayerId(7)));
            assert_eq!(table.install(grant(7, id), START).unwrap().handle(), handle);
            assert!(table.suspend(handle, connection(id), START));
        }
        assert!(table.has_room_for(SessionId(7), PlayerId(7)));
        assert_eq!(table.install(grant(7, 9), START).unwrap().handle(), handle);
        assert_eq!(table.counts().joined, 1);
    }
}
