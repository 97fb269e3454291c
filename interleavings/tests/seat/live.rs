//! The live slots that a tick lends: a seat that was ended or suspended leaves them for good, and nobody is there before its join is told.

use tickgate_interleavings::seat::{EndReason, Fault, SeatChange};

use crate::arena::{A, Arena, B, Done, START, explore, grant, try_install};

/// Who it was that the simulation was told to sit in the only slot, if anybody.
fn told(arena: &Arena) -> Option<u32> {
    arena
        .changes
        .iter()
        .fold(None, |sits, change| match change {
            SeatChange::Joined(joined) => Some(joined.handle.generation()),
            SeatChange::Ended { .. } => None,
            SeatChange::Suspended { .. } | SeatChange::Resumed { .. } => sits,
        })
}

/// A join is told while the seat is ended.
fn an_end_overlaps_the_telling_of_the_join() {
    let mut arena = Arena::new(1);
    let handle = arena.install(grant(A, 1));
    let done = Done::default();
    let revoker = {
        let done = done.clone();
        arena.spawn(move |table| {
            assert!(table.end_session(A, EndReason::SessionRevoked));
            done.say();
        })
    };
    arena.tick();
    if done.is_said() {
        assert!(!arena.live().contains(handle.slot()), "ended, and shown");
    }
    revoker.join().unwrap();
    assert!(!arena.live().contains(handle.slot()), "ended, and shown");
    arena.tick();
    assert!(!arena.live().contains(handle.slot()), "ended, and shown");
}

/// A comeback is told while the seat is suspended again.
fn a_suspension_overlaps_the_telling_of_the_comeback() {
    let (mut arena, handle) = Arena::seated();
    assert!(arena.live().contains(handle.slot()));
    assert!(arena.table.suspend(handle, grant(A, 1).connection, START));
    assert!(!arena.live().contains(handle.slot()), "away, and shown");
    assert_eq!(arena.install(grant(A, 2)), handle);
    assert!(!arena.live().contains(handle.slot()), "back, and not told");
    let worker = arena.spawn(move |table| {
        assert!(table.suspend(handle, grant(A, 2).connection, START));
    });
    arena.tick();
    worker.join().unwrap();
    assert!(!arena.live().contains(handle.slot()), "away, and shown");
    arena.tick();
    assert!(!arena.live().contains(handle.slot()), "away, and shown");
    assert_eq!(arena.install(grant(A, 3)), handle);
    arena.tick();
    assert!(arena.live().contains(handle.slot()), "back, and told");
}

/// A seat ends, and its slot goes to a stranger, while the simulation ticks. Whom it was told of is the one it is shown, or nobody.
fn a_stranger_comes() {
    let (mut arena, handle) = Arena::seated();
    let worker = arena.spawn(move |table| {
        assert!(table.end(handle, EndReason::Left));
        try_install(table, grant(B, 2))
    });
    for _ in 0..2 {
        arena.tick();
        if arena.live().contains(handle.slot()) {
            assert!(told(&arena).is_some(), "a stranger, not told of, and shown");
        }
    }
    let newcomer = worker.join().unwrap();
    let newcomer = newcomer
        .or_else(|| try_install(&arena.table, grant(B, 2)))
        .map(|stranger| (stranger.slot(), stranger.generation()));
    arena.tick();
    match newcomer {
        Some((slot, generation)) => {
            assert_eq!(told(&arena), Some(generation));
            assert!(arena.live().contains(slot));
        }
        None => assert_eq!(arena.live().count(), 0),
    }
}

#[test]
fn who_ends_while_told_is_not_shown() {
    explore(None, an_end_overlaps_the_telling_of_the_join);
}

#[test]
fn who_is_suspended_while_told_is_not_shown() {
    explore(None, a_suspension_overlaps_the_telling_of_the_comeback);
}

#[test]
fn who_was_not_told_of_is_not_shown() {
    explore(None, a_stranger_comes);
}

#[test]
#[should_panic(expected = "shown")]
fn a_bit_left_behind_would_be_found() {
    explore(
        Some(Fault::TellsUnchecked),
        an_end_overlaps_the_telling_of_the_join,
    );
}

#[test]
#[should_panic(expected = "a stranger, not told of, and shown")]
fn a_stranger_that_is_shown_would_be_found() {
    explore(Some(Fault::ShowsUntold), a_stranger_comes);
}
