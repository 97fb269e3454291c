//! Touches and the pass that writes them out: none is lost, none is another's.

use tickgate_interleavings::{
    id::SessionId,
    seat::{EndReason, Fault, Verdict},
};

use crate::arena::{A, Arena, B, Done, IDLE, explore, grant, soundly, try_install};

fn a_touch_is_written_out_once() {
    let (mut arena, handle) = Arena::seated();
    let done = Done::default();
    let player = {
        let done = done.clone();
        arena.spawn(move |table| {
            table.touch(handle);
            done.say();
        })
    };
    let was_before = done.is_said();
    arena.tick();
    let first = arena.active.clone();
    assert!(!was_before || first == [A], "a touch before the pass waits");
    player.join().unwrap();
    arena.tick();
    let written = [first, arena.active.clone()].concat();
    assert_eq!(written, [A], "one touch, written out once");
    arena.tick();
    assert_eq!(arena.active, []);
}

fn of_two_touches_one_at_least_is_written_out() {
    let (mut arena, handle) = Arena::seated();
    let players = [(), ()].map(|()| arena.spawn(move |table| table.touch(handle)));
    arena.tick();
    let first = arena.active.len();
    players
        .into_iter()
        .for_each(|player| player.join().unwrap());
    arena.tick();
    let second = arena.active.len();
    assert!((1..=2).contains(&(first + second)), "{first} and {second}");
    arena.tick();
    assert_eq!(arena.active, []);
}

/// A pass comes over a slot while it gets its next seat; the last one left its mark there.
fn a_newcomer_is_told_and_nobody_else() {
    let (mut arena, before) = soundly(|| {
        let (mut arena, before) = Arena::seated();
        arena.table.touch(before);
        assert!(arena.table.end(before, EndReason::Left));
        arena.tick();
        assert_eq!(arena.active, []);
        (arena, before)
    });
    let worker = arena.spawn(|table| try_install(table, grant(B, 2)).unwrap());
    arena.tick();
    let first = arena.active.clone();
    let handle = worker.join().unwrap();
    assert_eq!(handle.slot(), before.slot());
    arena.tick();
    let written = [first, arena.active.clone()].concat();
    let others: Vec<&SessionId> = written.iter().filter(|session| **session != B).collect();
    assert!(others.is_empty(), "{others:?} told as active");
    assert!(
        written.contains(&B),
        "to be seated is activity, and was lost"
    );
}

/// A session goes and another comes while a pass is under way.
fn whoever_is_told_is_somebody() {
    let (mut arena, handle) = Arena::seated();
    arena.table.touch(handle);
    let worker = arena.spawn(move |table| {
        assert!(table.end(handle, EndReason::Left));
        try_install(table, grant(B, 2)).unwrap()
    });
    arena.tick();
    let told = arena.active.clone();
    assert!(
        told.iter().all(|session| [A, B].contains(session)),
        "{told:?} is nobody"
    );
    let newcomer = worker.join().unwrap();
    assert_eq!(arena.table.verify(newcomer), Verdict::Live);
}

/// A seat's idle end has come, its turn to be written out has not, and its client sends at last.
fn who_sent_before_the_pass_is_not_idle() {
    let (mut arena, handle) = Arena::seated_out_of_turn();
    arena.now = arena.now.after(IDLE);
    let done = Done::default();
    let player = {
        let done = done.clone();
        arena.spawn(move |table| {
            table.touch(handle);
            done.say();
        })
    };
    let was_before = done.is_said();
    arena.tick();
    assert_eq!(arena.active, [], "out of turn");
    let verdict = arena.table.verify(handle);
    assert!(
        !was_before || verdict == Verdict::Live,
        "it sent before the pass, and is {verdict:?}"
    );
    player.join().unwrap();
    assert_eq!(arena.table.verify(handle), verdict, "only a pass ends it");
    assert_eq!(arena.ends_of(handle).is_empty(), verdict == Verdict::Live);
    arena.tick();
    let written = if verdict == Verdict::Live {
        vec![A]
    } else {
        vec![]
    };
    assert_eq!(arena.active, written);
    assert_eq!(arena.table.verify(handle), verdict);
}

#[test]
fn a_touch_is_written_by_the_pass_that_overlaps_it_or_by_the_next() {
    explore(None, a_touch_is_written_out_once);
}

#[test]
fn touches_that_overlap_are_not_lost() {
    explore(None, of_two_touches_one_at_least_is_written_out);
}

#[test]
fn a_pass_over_a_slot_that_is_given_away_tells_the_newcomer_alone() {
    explore(None, a_newcomer_is_told_and_nobody_else);
}

#[test]
fn a_pass_never_tells_a_session_that_never_was() {
    explore(None, whoever_is_told_is_somebody);
}

#[test]
fn a_touch_before_the_pass_keeps_a_seat_from_ending_idle() {
    explore(None, who_sent_before_the_pass_is_not_idle);
}

#[test]
#[should_panic(expected = "written out once")]
fn a_pass_that_cleared_marks_it_had_not_seen_would_be_found() {
    explore(Some(Fault::ClearsUnseenMarks), a_touch_is_written_out_once);
}

#[test]
#[should_panic(expected = "told as active")]
fn a_pass_that_wrote_out_empty_slots_would_be_found() {
    explore(Some(Fault::NoSeatCheck), a_newcomer_is_told_and_nobody_else);
}

#[test]
#[should_panic(expected = "told as active")]
fn a_word_that_did_not_publish_its_session_would_be_found() {
    explore(Some(Fault::RelaxedWord), a_newcomer_is_told_and_nobody_else);
}

#[test]
#[should_panic(expected = "is nobody")]
fn a_slot_that_was_given_away_at_once_would_be_found() {
    explore(Some(Fault::FreesAtOnce), whoever_is_told_is_somebody);
}

#[test]
#[should_panic(expected = "it sent before the pass")]
fn an_idle_end_that_overlooked_a_touch_would_be_found() {
    explore(
        Some(Fault::OverlooksMarks),
        who_sent_before_the_pass_is_not_idle,
    );
}
