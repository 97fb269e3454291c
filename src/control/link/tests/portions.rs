//! What is long goes in portions, what a sidecar orders is passed on, and events wait for everything else.

use super::*;

fn event(n: u64) -> GatewayEvent {
    GatewayEvent {
        at: Timestamp(n),
        kind: GatewayEventKind::Suspended,
        session: Some(SessionId(1)),
        token_sha256: None,
        remote: None,
    }
}

/// A link with portions of two seats whose attach with five seats is under way, and what went out.
fn presenting(now: Instant) -> (Link, Vec<FromGateway>) {
    let portions = Portions {
        sessions: 2,
        ..Portions::STANDARD
    };
    let mut link = Link::with_portions(now, 1, portions);
    link.timer(now);
    effects(&mut link);
    link.connected(description(), (1..=5).map(seat).collect());
    let messages = sent(&mut link);
    (link, messages)
}

fn snapshot(dead_count: u32, dead: &[u128], more_dead: bool) -> FromSidecar {
    let FromSidecar::Attached(mut answer) = attached(Some(10)) else {
        unreachable!()
    };
    answer.snapshot = Some(Snapshot {
        revision: Revision(10),
        dead_count,
        dead: dead.iter().copied().map(SessionId).collect(),
        more_dead,
    });
    FromSidecar::Attached(answer)
}

fn more(dead: &[u128], more_dead: bool) -> FromSidecar {
    FromSidecar::SnapshotDead {
        dead: dead.iter().copied().map(SessionId).collect(),
        more_dead,
    }
}

#[test]
fn an_attach_with_many_seats_goes_in_portions_with_their_count_ahead() {
    let now = crate::clock::Clock::system().now();
    let (_, messages) = presenting(now);
    let FromGateway::Attach(attach) = &messages[0] else {
        panic!("Attach goes first");
    };
    assert_eq!((attach.seat_count, attach.more_seats), (5, true));
    let mut named = attach.seats.clone();
    for (index, message) in messages.iter().enumerate().skip(1) {
        let FromGateway::AttachSeats { seats, more_seats } = message else {
            panic!("{message:?}");
        };
        assert_eq!(*more_seats, index < 2);
        named.extend(seats);
    }
    named.sort_unstable_by_key(|seat| seat.session);
    assert_eq!(named, (1..=5).map(seat).collect::<Vec<_>>());
}

#[test]
fn an_answer_before_the_last_of_the_seats_is_out_of_place() {
    let now = crate::clock::Clock::system().now();
    let portions = Portions {
        sessions: 2,
        ..Portions::STANDARD
    };
    let mut link = Link::with_portions(now, 1, portions);
    link.timer(now);
    effects(&mut link);
    link.connected(description(), (1..=3).map(seat).collect());
    link.poll_transmit();
    link.received(now, snapshot(0, &[], false));
    assert!(matches!(
        effects(&mut link)[..],
        [Effect::Disconnect {
            reason: DetachReason::Violation,
            ..
        }]
    ));
}

#[test]
fn a_snapshot_in_portions_is_taken_once_it_is_whole() {
    let now = crate::clock::Clock::system().now();
    let (mut link, _) = presenting(now);
    link.received(now, snapshot(3, &[1], true));
    link.received(now, more(&[2], true));
    assert_eq!(effects(&mut link), []);
    assert_eq!((link.position(), link.is_attached()), (None, false));
    assert_eq!(link.poll_timeout(), Some(now + ATTACH_TIMEOUT));
    link.received(now, more(&[3], false));
    let all = effects(&mut link);
    assert!(all.contains(&Effect::ResetLog {
        lineage: LINEAGE,
        revision: Revision(10),
        dead: vec![SessionId(1), SessionId(2), SessionId(3)],
    }));
    assert!(link.is_attached());

    let (mut link, _) = presenting(now);
    link.received(now, snapshot(3, &[1], true));
    link.timer(now + ATTACH_TIMEOUT);
    assert!(matches!(
        effects(&mut link)[..],
        [Effect::Disconnect {
            reason: DetachReason::AttachTimeout,
            ..
        }]
    ));
}

#[test]
fn a_snapshot_whose_portions_do_not_add_up_ends_the_stream() {
    let now = crate::clock::Clock::system().now();
    let wrong: &[&[FromSidecar]] = &[
        // More dead than there are seats; fewer than counted; more than counted.
        &[snapshot(6, &[1], true)],
        &[snapshot(2, &[1], false)],
        &[snapshot(1, &[1, 2], false)],
        &[snapshot(1, &[1], true)],
        // Nothing new, or nothing at all; too few at the end; too many; something else in between.
        &[snapshot(3, &[1], true), more(&[1], true)],
        &[snapshot(3, &[1], true), more(&[], true)],
        &[snapshot(3, &[1], true), more(&[2], false)],
        &[snapshot(3, &[1], true), more(&[2, 3, 4], false)],
        &[snapshot(3, &[1], true), heartbeat(10)],
        &[more(&[1], false)],
    ];
    for messages in wrong {
        let (mut link, _) = presenting(now);
        for message in *messages {
            link.received(now, message.clone());
        }
        let all = effects(&mut link);
        let violated = matches!(
            all[..],
            [Effect::Disconnect {
                reason: DetachReason::Violation,
                ..
            }]
        );
        assert!(violated, "{messages:?}: {all:?}");
    }
}

#[test]
fn orders_are_passed_on() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    let moved = vec![(SessionId(1), Timestamp(7))];
    link.received(now, FromSidecar::IdleMoved(moved.clone()));
    link.received(now, FromSidecar::Drain(Drain::Within(SECOND)));
    link.received(now, FromSidecar::Keys(Vec::new()));
    assert_eq!(
        effects(&mut link),
        [
            Effect::IdleMoved(moved),
            Effect::Drain(Drain::Within(SECOND)),
            Effect::InstallKeys(Vec::new()),
        ]
    );
}

#[test]
fn draining_is_told_at_once_and_on_attach() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    let draining = || SeatReport {
        seats: 2,
        draining: true,
        certificate_sha256: Some(vec![[1; 32], [2; 32]]),
        ..SeatReport::default()
    };
    link.report(draining());
    assert_eq!(
        sent(&mut link),
        [
            FromGateway::Heartbeat {
                seats: 2,
                draining: true
            },
            FromGateway::Certificates(vec![[1; 32], [2; 32]])
        ]
    );
    link.report(draining());
    link.disconnected(now, DetachReason::Unreachable);
    link.timer(link.poll_timeout().unwrap());
    effects(&mut link);
    link.connected(description(), Vec::new());
    let messages = sent(&mut link);
    let [FromGateway::Attach(attach)] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert!(attach.draining);
    link.received(now, attached(None));
    effects(&mut link);
    // Attach has told the certificates.
    assert_eq!(sent(&mut link), [FromGateway::Ack(Revision(10))]);
}

/// Once, an attach told what an older report had said, because a newer one was not taken while something of that was left.
#[test]
fn an_attach_tells_whether_the_gateway_drains_now() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    link.report(SeatReport {
        active: vec![SessionId(1), SessionId(2)],
        ..SeatReport::default()
    });
    link.disconnected(now, DetachReason::Unreachable);
    effects(&mut link);
    link.timer(link.poll_timeout().unwrap());
    assert_eq!(effects(&mut link), [Effect::TakeReport, Effect::Connect]);
    link.report(SeatReport {
        active: vec![SessionId(2), SessionId(3)],
        draining: true,
        ..SeatReport::default()
    });
    link.connected(description(), Vec::new());
    let messages = sent(&mut link);
    assert!(matches!(&messages[..], [FromGateway::Attach(attach)] if attach.draining));
    link.received(now, attached(None));
    effects(&mut link);
    let active = [1, 2, 3].map(SessionId).to_vec();
    assert_eq!(
        sent(&mut link),
        [
            FromGateway::Ack(Revision(10)),
            FromGateway::Activity(active)
        ]
    );
}

#[test]
fn events_wait_for_everything_else_and_the_oldest_are_dropped_and_counted() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    let held = Portions::STANDARD.events_held;
    let all = held as u64 + 3;
    link.report(SeatReport {
        active: vec![SessionId(1)],
        events: (0..all / 2).map(event).collect(),
        events_lost: 2,
        ..SeatReport::default()
    });
    // Events that wait hold up no report.
    sent_one_of_activity(&mut link);
    link.report_ready(now + SECOND / 2);
    assert_eq!(effects(&mut link), [Effect::TakeReport]);
    link.report(SeatReport {
        events: (all / 2..all).map(event).collect(),
        ..SeatReport::default()
    });
    assert_eq!(link.waiting(), (0, held));
    // They outlive a stream.
    link.disconnected(now, DetachReason::Unreachable);
    link.timer(link.poll_timeout().unwrap());
    effects(&mut link);
    link.connected(description(), Vec::new());
    sent(&mut link);
    link.received(now, attached(None));
    effects(&mut link);
    let mut told = Vec::new();
    let mut all_lost = Vec::new();
    for message in sent(&mut link) {
        match message {
            FromGateway::Events { events, lost } => {
                assert!(events.len() <= MAX_EVENTS);
                told.extend(events);
                all_lost.push(lost);
            }
            other => assert_eq!(other, FromGateway::Ack(Revision(10))),
        }
    }
    assert_eq!(told, (3..all).map(event).collect::<Vec<_>>());
    assert_eq!((all_lost.remove(0), all_lost.iter().sum::<u64>()), (5, 0));
}

fn sent_one_of_activity(link: &mut Link) {
    let message = link.poll_transmit();
    assert_eq!(message, Some(FromGateway::Activity(vec![SessionId(1)])));
}
