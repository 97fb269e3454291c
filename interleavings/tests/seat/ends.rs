//! Ends that meet each other, a comeback, or a pass: one of them counts, and is told once.

use std::{sync::Arc, time::Duration};

use loom::sync::atomic::{AtomicU32, Ordering};
use tickgate_interleavings::{
    id::Tick,
    seat::{EndReason, Fault, Grant, Installed, SeatChange, TickReport, Verdict},
};

use crate::arena::{A, Arena, B, GRACE, IDLE, START, explore, grant};

/// A session reaches its end, is revoked, and its player is thrown out, all at once.
fn one_end_counts() {
    let (mut arena, handle) = Arena::seated();
    arena.now = grant(A, 1).ends_at;
    let kick = EndReason::Kicked(7);
    let game = arena.spawn(move |table| table.end(handle, kick));
    let sidecar = arena.spawn(|table| table.end_session(A, EndReason::SessionRevoked));
    arena.tick();
    let reason = match (game.join().unwrap(), sidecar.join().unwrap()) {
        (false, false) => EndReason::Expired,
        (true, false) => kick,
        (false, true) => EndReason::SessionRevoked,
        (true, true) => panic!("ended twice"),
    };
    assert_eq!(arena.table.verify(handle), Verdict::Ended);
    arena.tick();
    assert_eq!(arena.ends_of(handle), [reason]);
    assert_eq!(arena.table.end_reason(handle), Some(reason));
    assert_eq!(arena.table.counts().ended_in_all(), 1);
    arena.tick();
    assert_eq!(arena.ends_of(handle).len(), 1, "told once");
}

/// Any thread may tick; what happened goes to one of them.
fn two_ticks_at_once_share_what_happened() {
    let (mut arena, handle) = Arena::seated();
    arena.table.touch(handle);
    assert!(arena.table.end(handle, EndReason::Left));
    let again = arena.install(grant(B, 2));
    let now = arena.now;
    let other = arena.spawn(move |table| {
        let mut report = TickReport::default();
        table.tick(Tick(3), now, &mut report);
        (report.changes, report.active)
    });
    arena.tick();
    let (changes, active) = other.join().unwrap();
    let told = arena.changes.len() - 1 + changes.len();
    assert_eq!(told, 2, "an end and a join");
    assert_eq!(
        arena.active.len() + active.len(),
        1,
        "to be seated is activity, once"
    );
    let ends = changes
        .iter()
        .filter(|change| matches!(change, SeatChange::Ended { .. }));
    assert_eq!(arena.ends_of(handle).len() + ends.count(), 1);
    assert_eq!(arena.table.verify(again), Verdict::Live);
}

/// A seat's idle end has come; its session comes with a new connection.
fn who_comes_again_in_time_stays() {
    let (mut arena, handle) = Arena::seated();
    arena.now = arena.now.after(IDLE);
    comes_again(&mut arena);
    let ends = arena.ends_of(handle);
    let stayed = arena.table.verify(handle) == Verdict::Live;
    assert_eq!(
        ends,
        if stayed {
            vec![]
        } else {
            vec![EndReason::Idle]
        }
    );
}

/// A seat's grace is over; its session comes back.
fn who_comes_back_in_time_stays() {
    let (mut arena, handle) = Arena::seated();
    assert!(
        arena
            .table
            .suspend(handle, grant(A, 1).connection, arena.now)
    );
    // Active meanwhile, elsewhere: only the grace is over.
    arena.now = arena.now.after(GRACE);
    arena.table.extend_idle(A, arena.now);
    comes_again(&mut arena);
    let ends = arena.ends_of(handle);
    let stayed = arena.table.verify(handle) == Verdict::Live;
    assert_eq!(
        ends,
        if stayed {
            vec![]
        } else {
            vec![EndReason::Lost]
        }
    );
}

/// It has a seat then, its own or a fresh one, and keeps it.
fn comes_again(arena: &mut Arena) {
    let now = arena.now;
    let client = arena.spawn(move |table| {
        let installed = table.install(grant(A, 2), now).unwrap();
        let handle = installed.handle();
        assert_eq!(
            table.verify(handle),
            Verdict::Live,
            "seated, and ended: {installed:?}"
        );
        installed
    });
    arena.tick();
    let installed = client.join().unwrap();
    arena.tick();
    let handle = installed.handle();
    assert_eq!(
        arena.table.verify(handle),
        Verdict::Live,
        "seated, and ended: {installed:?}"
    );
    let fresh = matches!(installed, Installed::Fresh(_));
    assert_eq!(arena.table.counts().joined, 1 + u64::from(fresh));
    assert_eq!(arena.table.connection(handle), Some(grant(A, 2).connection));
}

/// A pass looks for seats whose time has come, which are gone already, and another session joins among them.
fn who_joins_during_a_look_ends_in_time() {
    let life = Duration::from_secs(5);
    let mut arena = Arena::new(1);
    // In each slot, since where one was never used every pass looks; and once more, for a time that is to come.
    let slots = u64::from(arena.table.slots());
    for (session, connection) in [A, B].into_iter().cycle().zip(0..=slots) {
        if connection == slots {
            arena.tick();
        }
        let seat = arena.install(Grant {
            ends_at: START.after(life),
            ..grant(session, connection)
        });
        assert!(arena.table.end(seat, EndReason::Left));
    }
    arena.tick();
    arena.now = START.after(life);
    let (now, then) = (arena.now, arena.now.after(life));
    let worker = arena.spawn(move |table| {
        let grant = Grant {
            ends_at: then,
            ..grant(B, slots + 1)
        };
        table.install(grant, now).unwrap().handle()
    });
    arena.tick();
    let seat = worker.join().unwrap();
    assert_eq!(arena.table.verify(seat), Verdict::Live);
    // Active to the last: it is the absolute end that is looked for.
    arena.table.extend_idle(B, then);
    arena.now = then;
    arena.tick();
    assert_eq!(arena.ends_of(seat), [EndReason::Expired], "not looked for");
}

/// Two seats of one worker end at once: it is woken after the last of them was listed.
fn a_worker_is_woken_for_what_it_has_to_close() {
    let arena = Arena::new(2);
    let taken = Arc::new(AtomicU32::new(0));
    arena.table.set_waker(0, {
        let (table, taken) = (Arc::downgrade(&arena.table), Arc::clone(&taken));
        Arc::new(move || {
            let mut closings = Vec::new();
            table.upgrade().unwrap().take_closings(0, &mut closings);
            taken.fetch_add(u32::try_from(closings.len()).unwrap(), Ordering::Relaxed);
        })
    });
    let [one, other] = [(A, 1), (B, 2)].map(|(session, id)| arena.install(grant(session, id)));
    let worker = arena.spawn(move |table| table.end(one, EndReason::Idle));
    assert!(arena.table.end(other, EndReason::Idle));
    assert!(worker.join().unwrap());
    assert_eq!(
        taken.load(Ordering::Relaxed),
        2,
        "a closing waits, and nobody was woken"
    );
}

#[test]
fn of_several_ends_one_counts_and_is_told_once() {
    explore(None, one_end_counts);
}

#[test]
fn two_ticks_at_once_tell_everything_once() {
    explore(None, two_ticks_at_once_share_what_happened);
}

#[test]
fn who_comes_again_as_its_idle_end_is_due_keeps_a_seat() {
    explore(None, who_comes_again_in_time_stays);
}

#[test]
fn who_comes_back_as_its_grace_ends_keeps_a_seat() {
    explore(None, who_comes_back_in_time_stays);
}

#[test]
fn who_joins_as_a_pass_looks_for_what_is_due_is_not_forgotten() {
    explore(None, who_joins_during_a_look_ends_in_time);
}

#[test]
#[should_panic(expected = "not looked for")]
fn a_pass_that_forgot_who_joined_meanwhile_would_be_found() {
    explore(
        Some(Fault::ForgetsJoins),
        who_joins_during_a_look_ends_in_time,
    );
}

#[test]
fn closings_wake_their_worker() {
    explore(None, a_worker_is_woken_for_what_it_has_to_close);
}

#[test]
#[should_panic(expected = "seated, and ended")]
fn a_pass_that_ended_what_it_saw_before_it_had_the_lock_would_be_found() {
    explore(Some(Fault::EndsUnchecked), who_comes_again_in_time_stays);
}
