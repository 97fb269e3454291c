//! The gateway's end, step by step.

mod keys;
mod portions;

use super::*;
use crate::{
    control::{
        AttachRefusal, GatewayEvent, GatewayEventKind, Revocation, codec::MAX_EVENTS,
        codec::MAX_REPORTED,
    },
    id::{Incarnation, PlayerGeneration, PlayerId},
};

const LINEAGE: Lineage = Lineage(1);
const SECOND: Duration = Duration::from_secs(1);

fn description() -> GatewayDescription {
    GatewayDescription {
        id: "eu-1".parse().unwrap(),
        incarnation: Incarnation(7),
        addresses: vec!["127.0.0.1:7777".parse().unwrap()],
        server_name: "eu-1.example".into(),
        certificate_sha256: vec![[0; 32]],
        capacity: 100_000,
    }
}

fn seat(n: u128) -> LiveSeat {
    LiveSeat {
        session: SessionId(n),
        player: PlayerId(n),
        player_generation: PlayerGeneration(0),
    }
}

fn attached(snapshot: Option<u64>) -> FromSidecar {
    FromSidecar::Attached(Attached {
        keys: Vec::new(),
        time: Timestamp(1_000),
        idle_timeout: SECOND,
        lineage: LINEAGE,
        snapshot: snapshot.map(|revision| Snapshot {
            revision: Revision(revision),
            dead_count: 1,
            dead: vec![SessionId(66)],
            more_dead: false,
        }),
    })
}

fn range(from: u64, to: u64) -> RevocationRange {
    RevocationRange {
        from: Revision(from),
        to: Revision(to),
        events: (from..to)
            .map(|n| Revocation::Session(SessionId(n.into())))
            .collect(),
    }
}

fn heartbeat(head: u64) -> FromSidecar {
    FromSidecar::Heartbeat {
        time: Timestamp(2_000),
        head: Revision(head),
    }
}

fn effects(link: &mut Link) -> Vec<Effect> {
    std::iter::from_fn(|| link.poll_effect()).collect()
}

fn sent(link: &mut Link) -> Vec<FromGateway> {
    std::iter::from_fn(|| link.poll_transmit()).collect()
}

/// A link whose stream has been answered with a snapshot at revision 10, and whose effects and messages are done.
fn attached_link(now: Instant) -> Link {
    let mut link = Link::new(now, 1);
    link.timer(now);
    assert_eq!(effects(&mut link), [Effect::TakeReport, Effect::Connect]);
    link.connected(description(), vec![seat(1)]);
    sent(&mut link);
    link.received(now, attached(Some(10)));
    effects(&mut link);
    link.report(SeatReport::default());
    sent(&mut link);
    link
}

/// The reason of the disconnect that must be the only effect.
fn lost(link: &mut Link) -> (DetachReason, Duration) {
    match effects(link).as_slice() {
        &[
            Effect::Disconnect {
                reason,
                was_attached: true,
                retry_in,
            },
        ] => (reason, retry_in.unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_attach_installs_keys_and_starts_the_log_before_it_is_up() {
    let now = crate::clock::Clock::system().now();
    let mut link = Link::new(now, 1);
    assert_eq!(link.poll_timeout(), Some(now));
    link.timer(now);
    assert_eq!(effects(&mut link), [Effect::TakeReport, Effect::Connect]);
    link.connected(description(), vec![seat(1)]);
    let FromGateway::Attach(attach) = &sent(&mut link)[0] else {
        panic!("Attach goes first");
    };
    assert_eq!((attach.position, &*attach.seats), (None, &[seat(1)][..]));
    link.received(now, attached(Some(10)));
    assert_eq!(
        effects(&mut link),
        [
            Effect::InstallKeys(Vec::new()),
            Effect::ResetLog {
                lineage: LINEAGE,
                revision: Revision(10),
                dead: vec![SessionId(66)],
            },
            Effect::Attached {
                time: Timestamp(1_000),
                idle_timeout: SECOND,
            },
            Effect::TakeReport,
        ]
    );
    assert_eq!(sent(&mut link), [FromGateway::Ack(Revision(10))]);
}

#[test]
fn nothing_is_acknowledged_before_it_is_applied() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    link.received(now, FromSidecar::Revocations(range(10, 12)));
    assert!(!link.wants_transmit());
    assert_eq!(link.poll_transmit(), None);
    assert_eq!(effects(&mut link), [Effect::Apply(range(10, 12))]);
    assert_eq!(sent(&mut link), [FromGateway::Ack(Revision(12))]);
}

#[test]
fn overlapping_ranges_are_applied_and_old_ones_only_acknowledged() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    link.received(now, FromSidecar::Revocations(range(10, 14)));
    effects(&mut link);
    link.received(now, FromSidecar::Revocations(range(11, 13)));
    assert_eq!(effects(&mut link), []);
    link.received(now, FromSidecar::Revocations(range(12, 16)));
    assert_eq!(effects(&mut link), [Effect::Apply(range(12, 16))]);
    assert_eq!(sent(&mut link), [FromGateway::Ack(Revision(16))]);
}

#[test]
fn a_gap_drops_the_stream_and_the_next_attach_names_the_position() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    link.received(now, FromSidecar::Revocations(range(11, 13)));
    let (reason, retry_in) = lost(&mut link);
    assert_eq!(reason, DetachReason::Gap);
    assert!(retry_in <= RETRY_FIRST);
    // What is still under way on the dropped stream changes nothing.
    link.received(now, FromSidecar::Revocations(range(10, 13)));
    link.disconnected(now, DetachReason::Unreachable);
    assert_eq!(effects(&mut link), []);

    let now = link.poll_timeout().unwrap();
    link.timer(now);
    assert_eq!(effects(&mut link), [Effect::TakeReport, Effect::Connect]);
    link.connected(description(), Vec::new());
    let Some(FromGateway::Attach(attach)) = link.poll_transmit() else {
        panic!("Attach goes first");
    };
    let position = LogPosition {
        lineage: LINEAGE,
        revision: Revision(10),
    };
    assert_eq!(attach.position, Some(position));
    link.received(now, attached(None));
    effects(&mut link);
    link.received(now, FromSidecar::Revocations(range(10, 13)));
    assert_eq!(effects(&mut link), [Effect::Apply(range(10, 13))]);
}

#[test]
fn a_log_that_cannot_be_followed_must_come_with_a_snapshot() {
    let now = crate::clock::Clock::system().now();
    let mut link = Link::new(now, 1);
    link.timer(now);
    effects(&mut link);
    link.connected(description(), Vec::new());
    sent(&mut link);
    link.received(now, attached(None));
    assert!(matches!(
        effects(&mut link)[..],
        [Effect::Disconnect {
            reason: DetachReason::Violation,
            was_attached: false,
            ..
        }]
    ));
}

#[test]
fn messages_out_of_place_end_the_stream() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    link.received(now, attached(Some(10)));
    assert_eq!(lost(&mut link).0, DetachReason::Violation);

    let mut link = Link::new(now, 1);
    link.timer(now);
    effects(&mut link);
    link.connected(description(), Vec::new());
    link.received(now, heartbeat(3));
    assert!(matches!(
        effects(&mut link)[..],
        [Effect::Disconnect { .. }]
    ));
}

#[test]
fn a_heartbeat_a_second_until_five_seconds_of_silence() {
    let start = crate::clock::Clock::system().now();
    let mut link = attached_link(start);
    let mut beats = 0;
    loop {
        let now = link.poll_timeout().unwrap();
        assert!(now > start);
        link.timer(now);
        match effects(&mut link).as_slice() {
            [] => {}
            [Effect::TakeReport] => link.report(SeatReport {
                seats: 3,
                ..SeatReport::default()
            }),
            [Effect::Disconnect { reason, .. }] => {
                assert_eq!(*reason, DetachReason::Silent);
                assert_eq!(now, start + SILENCE_LIMIT);
                break;
            }
            other => panic!("{other:?}"),
        }
        beats += sent(&mut link)
            .iter()
            .filter(|message| {
                **message
                    == FromGateway::Heartbeat {
                        seats: 3,
                        draining: false,
                    }
            })
            .count();
    }
    assert_eq!(beats, 4);
}

#[test]
fn a_head_that_the_log_does_not_reach_ends_the_stream() {
    let start = crate::clock::Clock::system().now();
    let mut link = attached_link(start);
    let mut now = start;
    // The head moves on with every heartbeat; what counts is that the first of them is never reached.
    for beat in 0..5 {
        link.received(now, heartbeat(11 + beat));
        effects(&mut link);
        now += SECOND;
    }
    link.timer(now);
    assert_eq!(lost(&mut link).0, DetachReason::Behind);

    let mut link = attached_link(start);
    link.received(start, heartbeat(11));
    link.received(start + SECOND, FromSidecar::Revocations(range(10, 11)));
    effects(&mut link);
    link.received(start + 4 * SECOND, heartbeat(11));
    effects(&mut link);
    link.timer(start + BEHIND_LIMIT);
    assert!(
        !effects(&mut link)
            .iter()
            .any(|effect| matches!(effect, Effect::Disconnect { .. }))
    );
}

#[test]
fn retries_back_off_with_jitter_and_a_proven_stream_starts_afresh() {
    let mut now = crate::clock::Clock::system().now();
    let mut link = Link::new(now, 9);
    let mut waits = Vec::new();
    for _ in 0..8 {
        link.timer(now);
        effects(&mut link);
        link.disconnected(now, DetachReason::Unreachable);
        let Some(Effect::Disconnect { retry_in, .. }) = effects(&mut link).pop() else {
            panic!("one disconnect");
        };
        let retry_in = retry_in.unwrap();
        waits.push(retry_in);
        now += retry_in;
    }
    for (doublings, wait) in waits.iter().enumerate() {
        let full = RETRY_LAST.min(RETRY_FIRST * (1 << doublings));
        assert!((full / 2..=full).contains(wait), "{waits:?}");
    }

    // An answer alone proves nothing, a second of life does.
    for (alive_for, least) in [(Duration::ZERO, RETRY_LAST / 2), (SECOND, Duration::ZERO)] {
        link.timer(now);
        effects(&mut link);
        link.connected(description(), vec![seat(66)]);
        sent(&mut link);
        link.received(now, attached(Some(10)));
        now += alive_for;
        link.received(now, heartbeat(10));
        effects(&mut link);
        link.disconnected(now, DetachReason::Closed);
        let (_, retry_in) = lost(&mut link);
        assert!(retry_in >= least);
        assert_eq!(retry_in <= RETRY_FIRST, least.is_zero());
        now += retry_in;
    }
}

#[test]
fn a_fenced_gateway_never_comes_back() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    let fenced = DetachReason::Refused(AttachRefusal::Fenced);
    link.disconnected(now, fenced);
    let expected = Effect::Disconnect {
        reason: fenced,
        was_attached: true,
        retry_in: None,
    };
    assert_eq!(effects(&mut link)[..], [expected]);
    // A sidecar that restarts forgets who is fenced off, so this end has to know.
    assert_eq!(link.poll_timeout(), None);
    link.timer(now + Duration::from_secs(3_600));
    link.report_ready(now);
    link.disconnected(now, DetachReason::Unreachable);
    assert!(effects(&mut link).is_empty());
    assert!(!link.wants_transmit() && !link.is_attached());
}

#[test]
fn an_attach_without_an_answer_is_given_up() {
    let now = crate::clock::Clock::system().now();
    let mut link = Link::new(now, 1);
    link.timer(now);
    effects(&mut link);
    link.connected(description(), Vec::new());
    assert_eq!(link.poll_timeout(), Some(now + ATTACH_TIMEOUT));
    link.timer(now + ATTACH_TIMEOUT);
    assert!(matches!(
        effects(&mut link)[..],
        [Effect::Disconnect {
            reason: DetachReason::AttachTimeout,
            ..
        }]
    ));
    assert_eq!(link.poll_transmit(), None);
}

#[test]
fn reports_are_coalesced_and_cut_into_messages() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    // One was taken at the attach: the next waits for its interval, however often it is asked for.
    for _ in 0..3 {
        link.report_ready(now);
        assert_eq!(effects(&mut link), []);
    }
    let now = link.poll_timeout().unwrap();
    link.timer(now);
    assert_eq!(effects(&mut link), [Effect::TakeReport]);
    let sessions: Vec<_> = (0..2 * MAX_REPORTED as u128 + 1).map(SessionId).collect();
    link.report(SeatReport {
        opened: vec![seat(1)],
        closed: vec![SessionId(2)],
        active: sessions.clone(),
        seats: 5,
        ..SeatReport::default()
    });
    // No further report is taken before this one is out.
    link.report_ready(now + SECOND / 2);
    assert_eq!(effects(&mut link), []);
    let mut active = Vec::new();
    for message in sent(&mut link) {
        match message {
            FromGateway::Seats { opened, closed } => {
                assert_eq!((opened, closed), (vec![seat(1)], vec![SessionId(2)]));
            }
            FromGateway::Activity(part) => {
                assert!((1..=MAX_REPORTED).contains(&part.len()));
                active.extend(part);
            }
            other => panic!("{other:?}"),
        }
    }
    active.sort_unstable();
    assert_eq!(active, sessions);
    link.timer(now + SECOND / 2);
    assert_eq!(effects(&mut link), [Effect::TakeReport]);
}

#[test]
fn an_attach_outdates_unsent_seat_changes_but_not_activity() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    link.report(SeatReport {
        opened: vec![seat(1)],
        closed: vec![SessionId(2)],
        active: vec![SessionId(3)],
        seats: 1,
        ..SeatReport::default()
    });
    link.disconnected(now, DetachReason::Unreachable);
    let now = link.poll_timeout().unwrap();
    link.timer(now);
    effects(&mut link);
    link.connected(description(), vec![seat(2)]);
    sent(&mut link);
    link.received(now, attached(None));
    effects(&mut link);
    assert_eq!(
        sent(&mut link),
        [
            FromGateway::Ack(Revision(10)),
            FromGateway::Activity(vec![SessionId(3)])
        ]
    );
}

/// The sidecar took note of it as of when it heard it: sessions looked alive that had been left hours ago.
#[test]
fn activity_of_a_long_outage_is_forgotten() {
    for (outage, is_told) in [(ACTIVITY_KEPT, true), (ACTIVITY_KEPT + SECOND, false)] {
        let start = crate::clock::Clock::system().now();
        let mut link = attached_link(start);
        link.disconnected(start, DetachReason::Unreachable);
        // An attempt fails, and does not make the outage any younger.
        let first = link.poll_timeout().unwrap();
        link.timer(first);
        link.report(SeatReport {
            active: vec![SessionId(3)],
            ..SeatReport::default()
        });
        link.connected(description(), vec![seat(2)]);
        link.disconnected(first, DetachReason::Unreachable);
        let now = start + outage;
        link.timer(now);
        effects(&mut link);
        link.connected(description(), vec![seat(2)]);
        sent(&mut link);
        link.received(now, attached(None));
        effects(&mut link);
        let told = FromGateway::Activity(vec![SessionId(3)]);
        assert_eq!(sent(&mut link).contains(&told), is_told, "{outage:?}");
    }
}
