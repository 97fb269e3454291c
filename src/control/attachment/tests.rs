//! The sidecar's end, step by step.

use std::time::Duration;

use super::*;
use crate::{
    control::{Drain, GatewayDescription, GatewayEvent, GatewayEventKind, Revocation},
    id::{Incarnation, Lineage, PlayerGeneration, PlayerId},
};

const LINEAGE: Lineage = Lineage(1);
const TIME: Timestamp = Timestamp(5);

fn seat(n: u128) -> LiveSeat {
    LiveSeat {
        session: SessionId(n),
        player: PlayerId(n),
        player_generation: PlayerGeneration(0),
    }
}

fn attach(position: Option<(Lineage, u64)>) -> FromGateway {
    FromGateway::Attach(Box::new(Attach {
        gateway: GatewayDescription {
            id: "eu-1".parse().unwrap(),
            incarnation: Incarnation(7),
            addresses: Vec::new(),
            server_name: String::new(),
            certificate_sha256: Vec::new(),
            capacity: 10,
        },
        position: position.map(|(lineage, revision)| LogPosition {
            lineage,
            revision: Revision(revision),
        }),
        draining: false,
        seat_count: 1,
        seats: vec![seat(1)],
        more_seats: false,
        keys: Vec::new(),
    }))
}

/// A log that retains (10, 20].
fn registered() -> Registered {
    Registered {
        keys: Vec::new(),
        idle_timeout: Duration::from_secs(60),
        log: LogState {
            lineage: LINEAGE,
            tail: Revision(10),
            head: Revision(20),
        },
    }
}

fn range(from: u64, to: u64) -> RevocationRange {
    RevocationRange {
        from: Revision(from),
        to: Revision(to),
        events: vec![Revocation::Session(SessionId(0)); usize::try_from(to - from).unwrap()],
    }
}

fn new(now: Instant) -> Attachment {
    Attachment::new(now, "eu-1".parse().unwrap())
}

/// An answered stream at the head of the log, with nothing to send.
fn streaming(now: Instant) -> Attachment {
    let mut machine = new(now);
    machine.received(now, attach(Some((LINEAGE, 20))));
    assert_eq!(machine.poll_action(), Some(Action::Register));
    machine.registered(now, registered());
    assert_eq!(machine.poll_action(), Some(Action::TakeOrders));
    machine.ordered(Orders::default());
    assert_eq!(machine.poll_action(), None);
    while machine.poll_transmit(TIME).is_some() {}
    machine
}

fn ended(machine: &mut Attachment) -> EndReason {
    match (machine.poll_action(), machine.poll_action()) {
        (Some(Action::End(reason)), None) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_gateways_certificate_is_refused() {
    let now = crate::clock::Clock::system().now();
    let mut machine = Attachment::new(now, "eu-2".parse().unwrap());
    machine.received(now, attach(None));
    let refused = EndReason::Refused(AttachRefusal::WrongIdentity);
    assert_eq!(ended(&mut machine), refused);
}

#[test]
fn a_stream_that_does_not_start_with_attach_is_refused() {
    let now = crate::clock::Clock::system().now();
    let refused = EndReason::Refused(AttachRefusal::Malformed);
    let mut machine = new(now);
    machine.received(
        now,
        FromGateway::Heartbeat {
            seats: 0,
            draining: false,
        },
    );
    assert_eq!(ended(&mut machine), refused);
    let mut machine = new(now);
    machine.malformed();
    assert_eq!(ended(&mut machine), refused);
    let mut machine = new(now);
    machine.timer(machine.poll_timeout().unwrap());
    assert_eq!(ended(&mut machine), EndReason::AttachTimeout);
}

#[test]
fn a_position_within_the_log_is_continued_and_any_other_gets_a_snapshot() {
    let now = crate::clock::Clock::system().now();
    for revision in [10, 15, 20] {
        let mut machine = new(now);
        machine.received(now, attach(Some((LINEAGE, revision))));
        machine.registered(now, registered());
        let Some(FromSidecar::Attached(attached)) = machine.poll_transmit(TIME) else {
            panic!("Attached goes first");
        };
        assert_eq!((attached.snapshot, attached.time), (None, TIME));
        assert_eq!(machine.poll_action(), Some(Action::Register));
        assert_eq!(machine.poll_action(), Some(Action::TakeOrders));
        let read = (revision < 20).then_some(Action::ReadLog(Revision(revision)));
        assert_eq!(machine.poll_action(), read);
    }
    for position in [
        None,
        Some((Lineage(2), 15)),
        Some((LINEAGE, 9)),
        Some((LINEAGE, 21)),
    ] {
        let mut machine = new(now);
        machine.received(now, attach(position));
        machine.registered(now, registered());
        assert_eq!(machine.poll_action(), Some(Action::Register));
        assert_eq!(machine.poll_action(), Some(Action::FindDead));
        assert!(!machine.wants_transmit());
        assert_eq!(machine.presented().unwrap().seats.len(), 1);
        machine.dead_found(now, vec![SessionId(1)]);
        let Some(FromSidecar::Attached(attached)) = machine.poll_transmit(TIME) else {
            panic!("Attached goes first");
        };
        let snapshot = Snapshot {
            revision: Revision(10),
            dead_count: 1,
            dead: vec![SessionId(1)],
            more_dead: false,
        };
        assert_eq!(attached.snapshot, Some(snapshot));
        assert_eq!(machine.poll_action(), Some(Action::TakeOrders));
        assert_eq!(machine.poll_action(), Some(Action::ReadLog(Revision(10))));
    }
}

#[test]
fn a_slow_gateway_waits_in_the_log_and_not_in_memory() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    machine.head_moved(Revision(30));
    assert_eq!(machine.poll_action(), Some(Action::ReadLog(Revision(20))));
    machine.head_moved(Revision(40));
    assert_eq!(machine.poll_action(), None);
    machine.log_read(range(20, 30));
    // One piece in hand: nothing more is read before it is sent.
    machine.head_moved(Revision(50));
    assert_eq!(machine.poll_action(), None);
    let sent = machine.poll_transmit(TIME);
    assert_eq!(sent, Some(FromSidecar::Revocations(range(20, 30))));
    assert_eq!(machine.poll_action(), Some(Action::ReadLog(Revision(30))));
}

#[test]
fn a_read_that_brings_nothing_is_not_repeated_at_once() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    machine.head_moved(Revision(21));
    machine.poll_action();
    machine.log_read(range(20, 20));
    assert_eq!(machine.poll_action(), None);
    assert!(!machine.wants_transmit());
    machine.timer(now + HEARTBEAT_INTERVAL);
    assert_eq!(machine.poll_action(), Some(Action::ReadLog(Revision(20))));
}

#[test]
fn a_log_that_was_purged_under_the_stream_ends_it() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    machine.head_moved(Revision(30));
    machine.poll_action();
    machine.log_read(range(25, 30));
    assert_eq!(ended(&mut machine), EndReason::LogLost);
    assert!(!machine.wants_transmit());
}

#[test]
fn a_heartbeat_a_second_until_five_seconds_of_silence() {
    let start = crate::clock::Clock::system().now();
    let mut machine = streaming(start);
    for second in 1..5 {
        let now = machine.poll_timeout().unwrap();
        assert_eq!(now, start + second * HEARTBEAT_INTERVAL);
        machine.timer(now);
        let head = Revision(20);
        let beat = FromSidecar::Heartbeat { time: TIME, head };
        assert_eq!(machine.poll_transmit(TIME), Some(beat));
    }
    machine.timer(start + SILENCE_LIMIT);
    assert_eq!(ended(&mut machine), EndReason::Silent);
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn a_slow_report_is_no_silence() {
    let start = crate::clock::Clock::system().now();
    let mut machine = streaming(start);
    machine.received(
        start,
        FromGateway::Heartbeat {
            seats: 3,
            draining: false,
        },
    );
    let report = SeatReport {
        seats: 3,
        ..SeatReport::default()
    };
    assert_eq!(machine.poll_action(), Some(Action::Report(report)));
    // Nothing is read while the host takes note, for longer than a silence may last.
    let late = start + 2 * SILENCE_LIMIT;
    while let Some(now) = machine.poll_timeout().filter(|now| *now < late) {
        machine.timer(now);
        assert_eq!(machine.poll_action(), None);
    }
    machine.reported(late);
    machine.timer(late);
    assert_eq!(machine.poll_action(), None);
    // From then on it is.
    assert_eq!(machine.poll_timeout(), Some(late + HEARTBEAT_INTERVAL));
    machine.timer(late + SILENCE_LIMIT);
    assert_eq!(ended(&mut machine), EndReason::Silent);
}

#[test]
fn reports_carry_the_last_count_of_seats() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    machine.received(now, FromGateway::Activity(vec![SessionId(4)]));
    let report = SeatReport {
        active: vec![SessionId(4)],
        seats: 1,
        ..SeatReport::default()
    };
    assert_eq!(machine.poll_action(), Some(Action::Report(report)));
}

#[test]
fn acknowledgements_of_the_future_and_second_attaches_end_the_stream() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    machine.received(now, FromGateway::Ack(Revision(20)));
    let acknowledged = Action::Acknowledged(Revision(20));
    assert_eq!(machine.poll_action(), Some(acknowledged));
    machine.received(now, FromGateway::Ack(Revision(21)));
    assert_eq!(ended(&mut machine), EndReason::Malformed);

    let mut machine = streaming(now);
    machine.received(now, attach(None));
    assert_eq!(ended(&mut machine), EndReason::Malformed);
}

#[test]
fn a_replaced_stream_ends_once_and_says_so() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    machine.received(now, FromGateway::Ack(Revision(20)));
    machine.replaced();
    machine.disconnected();
    assert_eq!(ended(&mut machine), EndReason::Replaced);
    machine.received(now, FromGateway::Ack(Revision(20)));
    assert_eq!(machine.poll_action(), None);
}

/// An attach that names these seats and counts so many, and whether more are to come.
fn presents(seats: &[u128], seat_count: u32, more_seats: bool) -> FromGateway {
    let FromGateway::Attach(mut attach) = attach(None) else {
        unreachable!()
    };
    attach.seats = seats.iter().copied().map(seat).collect();
    attach.seat_count = seat_count;
    attach.more_seats = more_seats;
    FromGateway::Attach(attach)
}

fn more(seats: &[u128], more_seats: bool) -> FromGateway {
    FromGateway::AttachSeats {
        seats: seats.iter().copied().map(seat).collect(),
        more_seats,
    }
}

#[test]
fn a_gateway_is_registered_once_all_its_seats_have_come() {
    let now = crate::clock::Clock::system().now();
    let mut machine = new(now);
    machine.received(now, presents(&[1, 2], 5, true));
    machine.received(now, more(&[3], true));
    assert_eq!(machine.poll_action(), None);
    assert!(machine.presented().is_none());
    assert_eq!(machine.poll_timeout(), Some(now + ATTACH_TIMEOUT));
    machine.received(now, more(&[4, 5], false));
    assert_eq!(machine.poll_action(), Some(Action::Register));
    let seats: Vec<_> = (1..=5).map(seat).collect();
    assert_eq!(machine.presented().unwrap().seats, seats);

    let mut machine = new(now);
    machine.received(now, presents(&[1, 2], 5, true));
    machine.received(now + ATTACH_TIMEOUT / 2, more(&[3], true));
    machine.timer(now + ATTACH_TIMEOUT);
    assert_eq!(ended(&mut machine), EndReason::AttachTimeout);
}

#[test]
fn a_store_that_hangs_is_not_waited_for_beyond_the_attach_timeout() {
    let now = crate::clock::Clock::system().now();
    let begun = |position| {
        let mut machine = new(now);
        machine.received(now + ATTACH_TIMEOUT / 2, attach(position));
        assert_eq!(machine.poll_action(), Some(Action::Register));
        machine
    };
    let registering = begun(None);
    let mut finding_dead = begun(None);
    finding_dead.registered(now + ATTACH_TIMEOUT / 2, registered());
    assert_eq!(finding_dead.poll_action(), Some(Action::FindDead));
    for mut machine in [registering, finding_dead] {
        assert_eq!(machine.poll_timeout(), Some(now + ATTACH_TIMEOUT));
        machine.timer(now + ATTACH_TIMEOUT - Duration::from_millis(1));
        assert_eq!(machine.poll_action(), None);
        machine.timer(now + ATTACH_TIMEOUT);
        assert_eq!(ended(&mut machine), EndReason::AttachTimeout);
        // An answer that comes after all is nobody's.
        machine.registered(now + ATTACH_TIMEOUT, registered());
        machine.dead_found(now + ATTACH_TIMEOUT, Vec::new());
        assert!(!machine.is_streaming());
    }
}

#[test]
fn seats_that_do_not_add_up_are_refused() {
    let now = crate::clock::Clock::system().now();
    let wrong: &[&[FromGateway]] = &[
        // More than the capacity of 10; fewer than counted; more than counted; more to come than counted.
        &[presents(&[1], 11, true)],
        &[presents(&[1], 2, false)],
        &[presents(&[1, 2], 1, false)],
        &[presents(&[1], 1, true)],
        // One twice, within a message and across two; nothing; too few at the end; too many.
        &[presents(&[1, 1], 2, false)],
        &[presents(&[1, 2], 3, true), more(&[2], false)],
        &[presents(&[1, 2], 3, true), more(&[], true)],
        &[presents(&[1, 2], 4, true), more(&[3], false)],
        &[presents(&[1, 2], 4, true), more(&[3, 4, 5], false)],
        // Out of place.
        &[more(&[1], false)],
        &[presents(&[1, 2], 4, true), presents(&[3, 4], 2, false)],
        &[presents(&[1, 2], 4, true), FromGateway::Ack(Revision(0))],
    ];
    for messages in wrong {
        let mut machine = new(now);
        for message in *messages {
            machine.received(now, message.clone());
        }
        let refused = EndReason::Refused(AttachRefusal::Malformed);
        assert_eq!(ended(&mut machine), refused, "{messages:?}");
    }
    // After the answer as well.
    let mut machine = streaming(now);
    machine.received(now, more(&[3], false));
    assert_eq!(ended(&mut machine), EndReason::Malformed);
}

#[test]
fn a_long_list_of_the_dead_goes_in_portions_before_anything_else() {
    let now = crate::clock::Clock::system().now();
    let portions = Portions {
        sessions: 2,
        ..Portions::STANDARD
    };
    let mut machine = Attachment::with_portions(now, "eu-1".parse().unwrap(), portions);
    machine.received(now, presents(&[1, 2, 3, 4, 5], 5, false));
    machine.registered(now, registered());
    machine.dead_found(now, (1..=5).map(SessionId).collect());
    let Some(FromSidecar::Attached(attached)) = machine.poll_transmit(TIME) else {
        panic!("Attached goes first");
    };
    let first = attached.snapshot.unwrap();
    assert_eq!((first.dead_count, first.more_dead), (5, true));
    let mut dead = first.dead;
    for more in [true, false] {
        match machine.poll_transmit(TIME) {
            Some(FromSidecar::SnapshotDead {
                dead: part,
                more_dead,
            }) => {
                assert_eq!(more_dead, more);
                dead.extend(part);
            }
            other => panic!("{other:?}"),
        }
    }
    dead.sort_unstable();
    assert_eq!(dead, (1..=5).map(SessionId).collect::<Vec<_>>());
    assert!(matches!(
        machine.poll_transmit(TIME),
        Some(FromSidecar::Heartbeat { .. })
    ));
    // A gateway that waits for the rest has nothing to say meanwhile.
    machine.timer(now + SILENCE_LIMIT);
    assert!(machine.is_streaming());
}

#[test]
fn orders_are_taken_when_nothing_of_the_last_is_left() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    machine.orders_ready();
    assert_eq!(machine.poll_action(), Some(Action::TakeOrders));
    let moved = |n| (SessionId(n), Timestamp(1));
    machine.ordered(Orders {
        keys: Some(Vec::new()),
        idle_moved: vec![moved(1)],
        drain: Some(Drain::Cancel),
    });
    // The host keeps what is newer for as long as the stream does not take this.
    machine.orders_ready();
    machine.orders_ready();
    assert_eq!(machine.poll_action(), None);
    let mut told = Vec::new();
    while let Some(message) = machine.poll_transmit(TIME) {
        told.push(message);
    }
    assert_eq!(
        told,
        [
            FromSidecar::Keys(Vec::new()),
            FromSidecar::Drain(Drain::Cancel),
            FromSidecar::IdleMoved(vec![moved(1)]),
        ]
    );
    assert_eq!(machine.poll_action(), Some(Action::TakeOrders));
    assert_eq!(machine.poll_action(), None);
}

#[test]
fn certificates_events_and_draining_are_reported() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    let event = GatewayEvent {
        at: TIME,
        kind: GatewayEventKind::Admitted,
        session: Some(SessionId(1)),
        token_sha256: None,
        remote: None,
    };
    let messages = [
        FromGateway::Heartbeat {
            seats: 4,
            draining: true,
        },
        FromGateway::Certificates(vec![[1; 32]]),
        FromGateway::Events {
            events: vec![event.clone()],
            lost: 2,
        },
    ];
    let said = SeatReport {
        seats: 4,
        draining: true,
        ..SeatReport::default()
    };
    let reports = [
        said.clone(),
        SeatReport {
            certificate_sha256: Some(vec![[1; 32]]),
            ..said.clone()
        },
        SeatReport {
            events: vec![event],
            events_lost: 2,
            ..said
        },
    ];
    for (message, report) in messages.into_iter().zip(reports) {
        machine.received(now, message);
        assert_eq!(machine.poll_action(), Some(Action::Report(report)));
        machine.reported(now);
    }
}

#[test]
fn a_gateway_that_drains_as_it_attaches_is_reported_as_such() {
    let now = crate::clock::Clock::system().now();
    let FromGateway::Attach(mut attach) = attach(Some((LINEAGE, 20))) else {
        unreachable!()
    };
    attach.draining = true;
    let mut machine = new(now);
    machine.received(now, FromGateway::Attach(attach));
    machine.registered(now, registered());
    assert_eq!(machine.poll_action(), Some(Action::Register));
    let report = SeatReport {
        seats: 1,
        draining: true,
        ..SeatReport::default()
    };
    assert_eq!(machine.poll_action(), Some(Action::Report(report)));
}
