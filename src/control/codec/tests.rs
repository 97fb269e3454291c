//! What goes over the wire comes back, and what should not be there is refused.

use super::*;

fn seat(n: u128) -> LiveSeat {
    LiveSeat {
        session: SessionId(n),
        player: PlayerId(n << 64),
        player_generation: PlayerGeneration(u32::MAX),
    }
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
        seats: (0..seats).map(|n| seat(u128::MAX - n)).collect(),
    }))
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
        FromGateway::Heartbeat { seats: 12 },
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
                dead: vec![SessionId(6)],
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
    ];
    for message in messages {
        assert_eq!(decode_sidecar(encode_sidecar(message.clone())), Ok(message));
    }
}

#[test]
fn a_full_gateway_fits_into_one_message() {
    let message = encode_gateway(attach(u128::from(MAX_SEATS)));
    assert!(prost::Message::encoded_len(&message) <= crate::control::MAX_MESSAGE_BYTES);
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
        ("attach.seats", |a| a.capacity = 1),
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
    assert!(decode_sidecar(range(0, u64::MAX, MAX_RANGE_EVENTS + 1)).is_err());
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
