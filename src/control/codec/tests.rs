//! What goes over the wire comes back, and what should not be there is refused.

use std::time::Duration;

use bytes::Bytes;

use super::{lists::encode_seat, sidecar::encode_event, *};
use crate::{
    clock::Timestamp,
    control::{
        CarriedKey, Drain, GatewayDescription, GatewayEvent, GatewayEventKind, LiveSeat, MAX_SEATS,
        Revocation, RevocationRange,
        message::{Attach, Attached, FromGateway, FromSidecar, LogPosition, Snapshot},
    },
    id::{Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
    proto::{self, gateway_message, sidecar_message},
    token::{KeyId, TransportKey},
};

fn seat(n: u128) -> LiveSeat {
    LiveSeat {
        session: SessionId(n),
        player: PlayerId(n << 64),
        player_generation: PlayerGeneration(u32::MAX),
    }
}

fn key_id(n: u8) -> KeyId {
    TransportKey::from_bytes(&[n; 32]).id()
}

fn attach(seats: u128) -> FromGateway {
    FromGateway::Attach(Box::new(Attach {
        gateway: GatewayDescription {
            id: "eu-1".parse().unwrap(),
            incarnation: Incarnation(9),
            addresses: vec!["[2001:db8::1]:7777".parse().unwrap()],
            server_name: "gateway.example".into(),
            certificate_sha256: vec![[1; 32], [2; 32]],
            capacity: MAX_SEATS,
        },
        position: Some(LogPosition {
            lineage: Lineage(3),
            revision: Revision(u64::MAX),
        }),
        draining: true,
        seat_count: MAX_SEATS,
        seats: (0..seats).map(|n| seat(u128::MAX - n)).collect(),
        more_seats: true,
        keys: (0..MAX_KEYS).map(|n| key_id(n as u8)).collect(),
    }))
}

/// One of each kind.
fn events() -> Vec<GatewayEvent> {
    let reason = || "token_expired".into();
    let kinds = [
        GatewayEventKind::Admitted,
        GatewayEventKind::Resumed { superseded: false },
        GatewayEventKind::Refused {
            reason: reason(),
            code: u16::MAX,
        },
        GatewayEventKind::Suspended,
        GatewayEventKind::Ended {
            reason: reason(),
            code: 0,
        },
        GatewayEventKind::Resumed { superseded: true },
    ];
    let event = |kind| GatewayEvent {
        at: Timestamp(u64::MAX),
        kind,
        session: Some(SessionId(3)),
        token_sha256: Some([4; 32]),
        remote: Some("[2001:db8::1]:50000".parse().unwrap()),
    };
    let mut events = kinds.map(event).to_vec();
    events.push(GatewayEvent {
        session: None,
        token_sha256: None,
        remote: None,
        ..events[2].clone()
    });
    events
}

#[test]
fn gateway_messages_survive_the_wire() {
    let messages = [
        attach(3),
        FromGateway::Activity(vec![SessionId(1), SessionId(2)]),
        FromGateway::Seats {
            opened: vec![seat(1)],
            closed: vec![SessionId(4)],
        },
        FromGateway::Ack(Revision(7)),
        FromGateway::Heartbeat {
            seats: 12,
            draining: true,
        },
        FromGateway::AttachSeats {
            seats: vec![seat(5)],
            more_seats: true,
        },
        FromGateway::Certificates(vec![[7; 32], [8; 32]]),
        FromGateway::KeysHeld(vec![key_id(1), key_id(2)]),
        FromGateway::Events {
            events: events(),
            lost: 9,
        },
    ];
    for message in messages {
        assert_eq!(decode_gateway(encode_gateway(message.clone())), Ok(message));
    }
}

#[test]
fn sidecar_messages_survive_the_wire() {
    let keys = vec![CarriedKey {
        epoch: 2,
        key: Bytes::from_static(&[5; 32]),
    }];
    let messages = [
        FromSidecar::Attached(Attached {
            keys: keys.clone(),
            time: Timestamp(1),
            idle_timeout: Duration::from_secs(3_600),
            lineage: Lineage(8),
            snapshot: Some(Snapshot {
                revision: Revision(4),
                dead_count: 3,
                dead: vec![SessionId(6)],
                more_dead: true,
            }),
        }),
        FromSidecar::Keys(keys),
        FromSidecar::Revocations(RevocationRange {
            from: Revision(4),
            to: Revision(6),
            events: vec![
                Revocation::Session(SessionId(1)),
                Revocation::Player(PlayerId(2), PlayerGeneration(3)),
            ],
        }),
        FromSidecar::Heartbeat {
            time: Timestamp(5),
            head: Revision(6),
        },
        FromSidecar::SnapshotDead {
            dead: vec![SessionId(6), SessionId(7)],
            more_dead: true,
        },
        FromSidecar::IdleMoved(vec![(SessionId(6), Timestamp(u64::MAX))]),
        FromSidecar::Drain(Drain::Within(Duration::from_secs(30))),
        FromSidecar::Drain(Drain::Cancel),
    ];
    for message in messages {
        assert_eq!(decode_sidecar(encode_sidecar(message.clone())), Ok(message));
    }
}

/// Each message with as much in it as the protocol allows, and each of that as long as it gets.
#[test]
fn full_messages_are_as_long_as_they_may_be() {
    let most = MAX_REPORTED as u128;
    let seats = || (0..most).map(|n| seat(u128::MAX - n)).collect::<Vec<_>>();
    let ids = || seats().iter().map(|seat| seat.session).collect::<Vec<_>>();
    let FromGateway::Attach(mut attach) = attach(most) else {
        unreachable!()
    };
    let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535";
    attach.gateway.addresses = vec![longest.parse().unwrap(); MAX_ADDRESSES];
    attach.gateway.server_name = "a".repeat(MAX_SERVER_NAME_BYTES);
    let mut event = events().remove(2);
    event.kind = GatewayEventKind::Refused {
        reason: "r".repeat(MAX_REASON_BYTES).into(),
        code: u16::MAX,
    };
    event.remote = Some(longest.parse().unwrap());
    let from_gateway = [
        FromGateway::Attach(attach),
        FromGateway::AttachSeats {
            seats: seats(),
            more_seats: true,
        },
        FromGateway::Seats {
            opened: seats(),
            closed: ids(),
        },
        FromGateway::Events {
            events: vec![event; MAX_EVENTS],
            lost: u64::MAX,
        },
    ];
    let from_sidecar = [
        FromSidecar::SnapshotDead {
            dead: ids(),
            more_dead: true,
        },
        FromSidecar::IdleMoved(
            ids()
                .into_iter()
                .map(|id| (id, Timestamp(u64::MAX)))
                .collect(),
        ),
        FromSidecar::Revocations(RevocationRange {
            from: Revision(u64::MAX - MAX_RANGE_EVENTS as u64),
            to: Revision(u64::MAX),
            events: vec![
                Revocation::Player(PlayerId(u128::MAX), PlayerGeneration(u32::MAX));
                MAX_RANGE_EVENTS
            ],
        }),
    ];
    let mut longest = 0;
    for message in from_gateway {
        let encoded = encode_gateway(message);
        longest = longest.max(prost::Message::encoded_len(&encoded));
        assert!(decode_gateway(encoded).is_ok());
    }
    for message in from_sidecar {
        let encoded = encode_sidecar(message);
        longest = longest.max(prost::Message::encoded_len(&encoded));
        assert!(decode_sidecar(encoded).is_ok());
    }
    // The arithmetic at MAX_MESSAGE_BYTES: a report of as many seats opened and closed, and its frame.
    assert!((245_760..246_000).contains(&longest), "{longest}");
    assert!(4 * longest < crate::control::MAX_MESSAGE_BYTES);
}

/// What a broken or hostile gateway may put into Attach, each with the field that is blamed.
#[test]
fn malformed_attach_is_refused() {
    type Spoil = fn(&mut proto::Attach);
    let cases: [(&str, Spoil); 12] = [
        ("attach.gateway_id", |a| a.gateway_id = "NO".into()),
        ("attach.incarnation", |a| {
            a.incarnation = Bytes::from_static(&[0; 15]);
        }),
        ("attach.addresses", |a| a.addresses.clear()),
        ("attach.addresses", |a| {
            a.addresses = vec![String::new(); 17]
        }),
        ("attach.addresses", |a| a.addresses = vec!["x".repeat(81)]),
        ("attach.addresses", |a| {
            a.addresses = vec!["example:80".into()];
        }),
        ("attach.server_name", |a| a.server_name = "a".repeat(254)),
        ("attach.certificate_sha256", |a| {
            a.certificate_sha256 = vec![Bytes::new()];
        }),
        ("attach.capacity", |a| a.capacity = MAX_SEATS + 1),
        ("attach.lineage", |a| a.lineage = Bytes::from_static(&[0])),
        ("attach.seats", |a| {
            a.seats = vec![a.seats[0].clone(); MAX_REPORTED + 1];
        }),
        ("attach.seats", |a| {
            a.seats[0].session_id = Bytes::from_static(&[0; 17]);
        }),
    ];
    for (field, spoil) in cases {
        let mut message = encode_gateway(attach(2));
        let Some(gateway_message::Message::Attach(attach)) = &mut message.message else {
            unreachable!()
        };
        spoil(attach);
        assert_eq!(decode_gateway(message), Err(Malformed(field)));
    }
}

#[test]
fn malformed_lists_and_ranges_are_refused() {
    let empty = proto::GatewayMessage { message: None };
    assert_eq!(decode_gateway(empty), Err(Malformed("message")));
    let activity = |length| proto::GatewayMessage {
        message: Some(gateway_message::Message::Activity(proto::ActivityBatch {
            session_ids: vec![0; length].into(),
        })),
    };
    assert!(decode_gateway(activity(MAX_REPORTED * ID_BYTES)).is_ok());
    for length in [1, 17, (MAX_REPORTED + 1) * ID_BYTES] {
        assert!(decode_gateway(activity(length)).is_err(), "{length}");
    }
    let range = |from, to, count| proto::SidecarMessage {
        message: Some(sidecar_message::Message::Revocations(proto::Revocations {
            from,
            to,
            events: vec![encode_event(Revocation::Session(SessionId(1))); count],
        })),
    };
    assert!(decode_sidecar(range(3, 5, 2)).is_ok());
    assert!(decode_sidecar(range(3, 2, 0)).is_err());
    assert!(decode_sidecar(range(3, 4, 2)).is_err());
    assert!(decode_sidecar(range(3, 5, 1)).is_err());
    assert!(decode_sidecar(range(0, u64::MAX, MAX_RANGE_EVENTS + 1)).is_err());
}

#[test]
fn malformed_events_are_refused() {
    type Spoil = fn(&mut proto::GatewayEvent);
    let cases: [(&str, Spoil); 10] = [
        ("events.kind", |e| e.kind = 0),
        ("events.kind", |e| e.kind = 99),
        ("events.session_id", |e| {
            e.session_id = Bytes::from_static(&[0; 15]);
        }),
        // A seat is somebody's.
        ("events.session_id", |e| {
            e.kind = proto::gateway_event::Kind::Ended.into();
            e.session_id = Bytes::new();
        }),
        ("events.token_sha256", |e| {
            e.token_sha256 = Bytes::from_static(&[0; 31]);
        }),
        ("events.reason", |e| e.reason = String::new()),
        ("events.reason", |e| e.reason = "r".repeat(65)),
        ("events.reason", |e| e.reason = "two\nlines".into()),
        ("events.close_code", |e| e.close_code = 65_536),
        ("events.remote", |e| e.remote = "nowhere".into()),
    ];
    let message = |events| proto::GatewayMessage {
        message: Some(gateway_message::Message::Events(proto::GatewayEvents {
            events,
            lost: 0,
        })),
    };
    let encoded = || match encode_gateway(FromGateway::Events {
        events: events(),
        lost: 0,
    })
    .message
    {
        Some(gateway_message::Message::Events(encoded)) => encoded.events,
        other => panic!("{other:?}"),
    };
    assert!(decode_gateway(message(encoded())).is_ok());
    for (field, spoil) in cases {
        let mut events = encoded();
        spoil(&mut events[2]);
        assert_eq!(decode_gateway(message(events)), Err(Malformed(field)));
    }
    let many = vec![encoded()[2].clone(); MAX_EVENTS + 1];
    assert_eq!(
        decode_gateway(message(many)),
        Err(Malformed("events.events"))
    );
}

#[test]
fn the_new_lists_are_bounded() {
    let portion = |length| proto::GatewayMessage {
        message: Some(gateway_message::Message::AttachSeats(proto::AttachSeats {
            seats: vec![encode_seat(seat(1)); length],
            more_seats: false,
        })),
    };
    assert!(decode_gateway(portion(MAX_REPORTED)).is_ok());
    assert!(decode_gateway(portion(MAX_REPORTED + 1)).is_err());
    let certificates = |length| proto::GatewayMessage {
        message: Some(gateway_message::Message::Certificates(
            proto::Certificates {
                sha256: vec![Bytes::from_static(&[0; 32]); length],
            },
        )),
    };
    for length in [0, 3] {
        assert!(decode_gateway(certificates(length)).is_err());
    }
    let dead = |length| proto::SidecarMessage {
        message: Some(sidecar_message::Message::SnapshotDead(
            proto::SnapshotDead {
                session_ids: vec![0; length].into(),
                more_dead: false,
            },
        )),
    };
    for length in [15, (MAX_REPORTED + 1) * ID_BYTES] {
        assert!(decode_sidecar(dead(length)).is_err());
    }
    let moved = |length| proto::SidecarMessage {
        message: Some(sidecar_message::Message::IdleMoved(proto::IdleMoved {
            sessions: vec![
                proto::SessionActivity {
                    session_id: Bytes::from_static(&[0; ID_BYTES]),
                    active_at_ms: 0,
                };
                length
            ],
        })),
    };
    assert!(decode_sidecar(moved(MAX_REPORTED)).is_ok());
    assert!(decode_sidecar(moved(MAX_REPORTED + 1)).is_err());
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        use prost::Message;
        if let Ok(message) = proto::GatewayMessage::decode(&*bytes) {
            let _ = decode_gateway(message);
        }
        if let Ok(message) = proto::SidecarMessage::decode(&*bytes) {
            let _ = decode_sidecar(message);
        }
    }
}
