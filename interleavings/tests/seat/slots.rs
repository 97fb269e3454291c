//! Slots that are used again, and sessions that sit down at once: one seat to each, and no handle for two.

use tickgate_interleavings::{
    id::{PlayerId, SessionId},
    seat::{EndReason, Fault, Grant, Installed, Verdict},
};

use crate::arena::{A, Arena, B, START, explore, grant, try_install};

/// Both slots have had a seat that ended; a tick tells so, and frees them, while the next session comes.
fn a_slot_is_given_away_under_stale_handles() {
    const C: SessionId = SessionId(0xc << 64 | 0xc);
    let mut arena = Arena::new(1);
    let stale = [(A, 1), (B, 2)].map(|(session, connection)| {
        let handle = arena.install(grant(session, connection));
        assert!(arena.table.end(handle, EndReason::Left));
        handle
    });
    assert_eq!(
        try_install(&arena.table, grant(C, 3)),
        None,
        "no slot is free"
    );
    let worker = arena.spawn(|table| try_install(table, grant(C, 3)));
    let player = arena.spawn(move |table| {
        for handle in stale {
            table.touch(handle);
            assert_eq!(table.verify(handle), Verdict::Ended, "stale, and accepted");
        }
    });
    arena.tick();
    let newcomer = worker.join().unwrap();
    let newcomer = newcomer
        .or_else(|| try_install(&arena.table, grant(C, 3)))
        .unwrap();
    player.join().unwrap();
    assert!(stale.iter().any(|handle| handle.slot() == newcomer.slot()));
    for handle in stale {
        assert_eq!(
            arena.table.verify(handle),
            Verdict::Ended,
            "stale, and accepted"
        );
        assert!(!arena.table.end(handle, EndReason::Internal));
    }
    assert_eq!(arena.table.verify(newcomer), Verdict::Live);
    let told = arena.active.clone();
    arena.tick();
    let told = [told, arena.active.clone()].concat();
    assert_eq!(told, [C], "a stale touch is nobody's");
}

/// A touch is held up while its seat ends and the slot gets its next one. It may count as the newcomer's, once, and does nothing else.
fn a_touch_comes_late() {
    let (mut arena, before) = Arena::seated();
    let player = arena.spawn(move |table| table.touch(before));
    assert!(arena.table.end(before, EndReason::Left));
    arena.tick();
    assert_eq!(arena.ends_of(before), [EndReason::Left]);
    let newcomer = arena.install(grant(B, 2));
    assert_eq!(newcomer.slot(), before.slot());
    let mut told = Vec::new();
    arena.tick();
    told.append(&mut arena.active);
    assert_eq!(
        arena.table.verify(before),
        Verdict::Ended,
        "stale, and accepted"
    );
    assert_eq!(arena.table.verify(newcomer), Verdict::Live);
    player.join().unwrap();
    arena.tick();
    told.append(&mut arena.active);
    assert_eq!(arena.table.verify(newcomer), Verdict::Live);
    assert!(told == [B] || told == [B, B], "{told:?}");
    arena.tick();
    assert_eq!(arena.active, []);
}

fn of_two_connections_of_a_session_one_takes_over() {
    let mut arena = Arena::new(2);
    let other = arena.spawn(|table| table.install(grant(A, 2), START).unwrap());
    let one = arena.table.install(grant(A, 1), START).unwrap();
    let other = other.join().unwrap();
    let (fresh, displaced) = match (one, other) {
        (Installed::Fresh(fresh), Installed::Taken { displaced, .. }) => (fresh, displaced),
        (Installed::Taken { displaced, .. }, Installed::Fresh(fresh)) => (fresh, displaced),
        both => panic!("{both:?}"),
    };
    assert_eq!((one.handle(), other.handle()), (fresh, fresh));
    let first = if one == Installed::Fresh(fresh) { 1 } else { 2 };
    assert_eq!(displaced, Some(grant(A, first).connection));
    arena.tick();
    assert_eq!((arena.changes.len(), arena.table.len()), (1, 1));
}

fn of_two_sessions_of_a_player_one_stays() {
    let mut arena = Arena::new(2);
    let of_one_player = |session, connection| Grant {
        player: PlayerId(7),
        ..grant(session, connection)
    };
    let other = arena.spawn(move |table| table.install(of_one_player(B, 2), START).unwrap());
    let one = arena.install(of_one_player(A, 1));
    let other = other.join().unwrap().handle();
    arena.tick();
    let verdicts = [one, other].map(|handle| arena.table.verify(handle).is_live());
    assert!(
        verdicts == [true, false] || verdicts == [false, true],
        "{verdicts:?}"
    );
    let gone = if verdicts[0] { other } else { one };
    assert_eq!(arena.ends_of(gone), [EndReason::Superseded]);
}

#[test]
fn a_stale_handle_is_refused_while_its_slot_is_given_away() {
    explore(None, a_slot_is_given_away_under_stale_handles);
}

#[test]
fn a_touch_that_comes_late_revives_nobody_and_is_told_of_nobody_else() {
    explore(None, a_touch_comes_late);
}

#[test]
fn two_connections_of_one_session_share_one_seat() {
    explore(None, of_two_connections_of_a_session_one_takes_over);
}

#[test]
fn two_sessions_of_one_player_leave_one_seat() {
    explore(None, of_two_sessions_of_a_player_one_stays);
}

#[test]
#[should_panic(expected = "stale, and accepted")]
fn a_slot_that_kept_its_generation_would_be_found() {
    explore(
        Some(Fault::SameGeneration),
        a_slot_is_given_away_under_stale_handles,
    );
}
