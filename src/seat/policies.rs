//! The promises about a player who comes twice, and about room, one by one.

use std::time::Duration;

use super::{
    Closing, EndReason, Grant, Installed, NotSeated, SamePlayer, SeatChange, SeatConfig, SeatTable,
    TickReport, Verdict,
    behaviour::{START, grant},
};
use crate::id::{PlayerId, SessionId, Tick};

fn table(capacity: u32, same_player: SamePlayer) -> SeatTable {
    SeatTable::new(SeatConfig {
        capacity,
        same_player,
        ..SeatConfig::default()
    })
}

/// A session of player 1; the connection's number is the session's.
fn of_player(session: u64) -> Grant {
    Grant {
        player: PlayerId(1),
        ..grant(session.into(), session)
    }
}

fn closings(table: &SeatTable) -> Vec<Closing> {
    let mut closings = Vec::new();
    table.take_closings(0, &mut closings);
    closings
}

fn tick(table: &SeatTable) -> Vec<SeatChange> {
    let mut report = TickReport::default();
    table.tick(Tick(1), START, &mut report);
    report.changes
}

#[test]
fn the_newest_session_of_a_player_wins() {
    let table = table(8, SamePlayer::NewestWins);
    let old = table.install(of_player(1), START).unwrap().handle();
    let stranger = table.install(grant(9, 9), START).unwrap().handle();
    tick(&table);

    let new = table.install(of_player(2), START).unwrap().handle();
    assert_eq!(table.verify(old), Verdict::Ended);
    assert_eq!(table.verify(new), Verdict::Live);
    assert_eq!(table.verify(stranger), Verdict::Live);
    let superseded = EndReason::Superseded;
    assert_eq!(
        closings(&table),
        [(old, of_player(1).connection, superseded)]
    );
    assert!(matches!(
        tick(&table)[..],
        [
            SeatChange::Ended { handle, reason: EndReason::Superseded, .. },
            SeatChange::Joined(joined),
        ] if handle == old && joined.handle == new
    ));
    // Back again with the old session: now that is the newest.
    assert!(matches!(
        table.install(of_player(1), START),
        Ok(Installed::Fresh(handle)) if handle != old
    ));
    assert_eq!(table.verify(new), Verdict::Ended);
    assert_eq!(table.len(), 2);
}

#[test]
fn the_oldest_session_of_a_player_wins() {
    let table = table(8, SamePlayer::OldestWins);
    let old = table.install(of_player(1), START).unwrap().handle();
    let refused = Err(NotSeated::PlayerPresent);
    assert_eq!(table.install(of_player(2), START), refused);
    assert!(
        table.has_room_for(SessionId(2), PlayerId(1)),
        "not for want of room"
    );
    // Also while it is away for a moment.
    assert!(table.suspend(old, of_player(1).connection, START));
    assert_eq!(table.install(of_player(2), START), refused);
    assert_eq!(table.verify(old), Verdict::Suspended);
    assert_eq!(table.install(of_player(1), START).unwrap().handle(), old);
    // But no longer than it has its seat.
    assert!(table.end(old, EndReason::Left));
    assert!(table.install(of_player(2), START).is_ok());
    assert_eq!(table.install(of_player(1), START), refused);
    assert_eq!(closings(&table).len(), 1);
    assert_eq!(table.counts().joined, 2);
}

#[test]
fn all_sessions_of_a_player_may_sit_where_that_is_allowed() {
    let table = table(8, SamePlayer::Allow);
    let seats = [1, 2, 3].map(|n| table.install(of_player(n), START).unwrap().handle());
    assert!(seats.iter().all(|seat| table.verify(*seat).is_live()));
    assert!(closings(&table).is_empty());
}

/// The seat that an admission replaces counts as free, though its slot is not.
#[test]
fn a_full_table_takes_the_newer_session_of_one_who_sits() {
    let table = table(3, SamePlayer::NewestWins);
    table.install(of_player(1), START).unwrap();
    for session in 10..12 {
        table
            .install(grant(session.into(), session), START)
            .unwrap();
    }
    assert!(!table.has_room_for(SessionId(12), PlayerId(12)));
    assert_eq!(table.install(grant(12, 12), START), Err(NotSeated::Full));
    // Over and over without a tick, until no slot is left; at no time are there more seats than three.
    let spare = u64::from(table.slots() - table.capacity());
    for session in 0..spare {
        assert!(table.has_room_for(SessionId(100 + u128::from(session)), PlayerId(1)));
        table.install(of_player(100 + session), START).unwrap();
        assert_eq!(table.len(), 3);
    }
    let last = of_player(99 + spare);
    assert!(!table.has_room_for(SessionId(99), PlayerId(1)));
    assert_eq!(table.install(of_player(99), START), Err(NotSeated::Full));
    assert!(table.is_session_authorized(last.session), "nothing changed");
    // One's own seat needs none.
    assert!(table.install(last, START).is_ok());
    tick(&table);
    assert!(table.install(of_player(99), START).is_ok());
    assert_eq!(table.counts().ended_in_all(), spare + 1);
}

#[test]
fn a_seat_that_ends_makes_room_at_once() {
    let table = table(1, SamePlayer::OldestWins);
    let first = table.install(grant(1, 1), START).unwrap().handle();
    assert!(table.suspend(first, grant(1, 1).connection, START));
    assert_eq!(
        table.install(grant(2, 2), START),
        Err(NotSeated::Full),
        "a suspended seat is taken"
    );
    assert!(table.end(first, EndReason::SessionRevoked));
    assert!(table.has_room_for(SessionId(2), PlayerId(2)));
    let second = table.install(grant(2, 2), START).unwrap().handle();
    assert_ne!(first.slot(), second.slot(), "its end was not told yet");
    assert_eq!((table.len(), table.used()), (1, 2));
    tick(&table);
    assert_eq!(table.used(), 1);
}

#[test]
fn an_empty_table_seats_nobody() {
    let table = table(0, SamePlayer::NewestWins);
    assert!(!table.has_room_for(SessionId(1), PlayerId(1)));
    assert_eq!(table.install(grant(1, 1), START), Err(NotSeated::Full));
    assert_eq!(table.end_all(EndReason::Drained), 0);
}

#[test]
fn the_counts_tell_each_end_by_its_reason() {
    let table = table(8, SamePlayer::NewestWins);
    for session in 1..=6 {
        table
            .install(grant(session.into(), session), START)
            .unwrap();
    }
    for session in 1..=2 {
        assert!(table.end_session(SessionId(session), EndReason::SessionRevoked));
    }
    let third = table.find(SessionId(3)).unwrap();
    assert!(table.end(third, EndReason::Kicked(77)));
    let fourth = table.find(SessionId(4)).unwrap();
    assert!(table.suspend(fourth, grant(4, 4).connection, START));
    let mut report = TickReport::default();
    let later = START.after(Duration::from_secs(15));
    table.tick(Tick(1), later, &mut report);
    let fifth = table.find(SessionId(5)).unwrap();
    assert!(table.suspend(fifth, grant(5, 5).connection, later));

    let counts = table.counts();
    assert_eq!((counts.live, counts.suspended), (1, 1));
    assert_eq!(
        (counts.joined, counts.resumed, counts.suspensions),
        (6, 0, 2)
    );
    let ended: Vec<_> = counts.ended.iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(
        ended,
        [&("lost", 1), &("session_revoked", 2), &("kicked", 1)]
    );
    assert_eq!(counts.ended_in_all(), 4);
}
