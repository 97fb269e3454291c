//! A seat that was ended or suspended: seen by the very next verify, undone by nobody.

use tickgate_interleavings::seat::{Answers, EndReason, Fault, Handle, SeatTable, Verdict};

use crate::arena::{A, Arena, Done, START, explore, grant};

/// Plays on in a seat, touch by touch, and finds it refused as soon as it was said that it is; and for good.
fn play(table: &SeatTable, handle: Handle, done: &Done, refused: Verdict) {
    table.touch(handle);
    if done.is_said() {
        assert_eq!(table.verify(handle), refused, "the very next verify");
        let mut answers = Answers::default();
        table.verify_batch(&[handle], &mut answers);
        assert!(!answers.all_live(), "and the very next batch");
    }
    let (first, second) = (table.verify(handle), table.verify(handle));
    assert!(
        first == Verdict::Live || second == refused,
        "refused once, and live again"
    );
}

fn a_revocation_is_final() {
    let (mut arena, handle) = Arena::seated();
    let done = Done::default();
    let revoker = {
        let done = done.clone();
        arena.spawn(move |table| {
            assert!(table.end_session(A, EndReason::SessionRevoked));
            done.say();
        })
    };
    let player = arena.spawn(move |table| play(table, handle, &done, Verdict::Ended));
    arena.table.touch(handle);
    arena.tick();
    revoker.join().unwrap();
    assert_eq!(
        arena.table.verify(handle),
        Verdict::Ended,
        "revoked, and live"
    );
    player.join().unwrap();
    arena.tick();
    assert_eq!(arena.active, [], "told as active after its end");
    assert_eq!(arena.ends_of(handle), [EndReason::SessionRevoked]);
    assert_eq!(arena.table.verify(handle), Verdict::Ended);
}

fn a_suspension_lasts_until_somebody_comes_back() {
    let (mut arena, handle) = Arena::seated();
    let done = Done::default();
    let worker = {
        let done = done.clone();
        arena.spawn(move |table| {
            assert!(table.suspend(handle, grant(A, 1).connection, START));
            done.say();
        })
    };
    let player = arena.spawn(move |table| play(table, handle, &done, Verdict::Suspended));
    arena.table.touch(handle);
    arena.tick();
    worker.join().unwrap();
    assert_eq!(
        arena.table.verify(handle),
        Verdict::Suspended,
        "suspended, and live"
    );
    player.join().unwrap();
    arena.tick();
    assert_eq!(arena.table.verify(handle), Verdict::Suspended);
    assert_eq!(arena.install(grant(A, 2)), handle);
    assert_eq!(arena.table.verify(handle), Verdict::Live);
    arena.tick();
    assert_eq!(arena.ends_of(handle), []);
}

#[test]
fn a_revocation_is_seen_by_the_next_verify_and_undone_by_nobody() {
    explore(None, a_revocation_is_final);
}

#[test]
fn a_suspension_is_seen_by_the_next_verify_and_undone_by_nobody() {
    explore(None, a_suspension_lasts_until_somebody_comes_back);
}

#[test]
#[should_panic(expected = "live")]
fn an_activity_write_that_undid_a_revocation_would_be_found() {
    explore(Some(Fault::WritesWordBack), a_revocation_is_final);
}

#[test]
#[should_panic(expected = "live")]
fn an_activity_write_that_undid_a_suspension_would_be_found() {
    explore(
        Some(Fault::WritesWordBack),
        a_suspension_lasts_until_somebody_comes_back,
    );
}
