//! The sidecar's end, step by step.

use super::*;
use crate::{
    control::{GatewayDescription, LiveSeat, Revocation},
    id::{Incarnation, Lineage, PlayerGeneration, PlayerId},
};

const LINEAGE: Lineage = Lineage(1);
const TIME: Timestamp = Timestamp(5);

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
        seats: vec![LiveSeat {
            session: SessionId(1),
            player: PlayerId(1),
            player_generation: PlayerGeneration(0),
        }],
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
    machine.received(now, FromGateway::Heartbeat { seats: 0 });
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
        machine.poll_action();
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
            dead: vec![SessionId(1)],
        };
        assert_eq!(attached.snapshot, Some(snapshot));
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
    machine.received(start, FromGateway::Heartbeat { seats: 3 });
    let report = SeatReport {
        seats: 3,
        ..SeatReport::default()
    };
    assert_eq!(machine.poll_action(), Some(Action::Report(report)));
    let late = start + SILENCE_LIMIT;
    machine.reported(late);
    machine.timer(late);
    assert_eq!(machine.poll_action(), None);
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
fn a_fenced_stream_ends_once_and_says_so() {
    let now = crate::clock::Clock::system().now();
    let mut machine = streaming(now);
    machine.received(now, FromGateway::Ack(Revision(20)));
    machine.fenced();
    machine.disconnected();
    let fenced = EndReason::Refused(AttachRefusal::Fenced);
    assert_eq!(ended(&mut machine), fenced);
    machine.received(now, FromGateway::Ack(Revision(20)));
    assert_eq!(machine.poll_action(), None);
}
