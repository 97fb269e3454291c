//! The fleet's core against a server of quinn-proto's, in memory and in simulated time: packets, timers and events without a socket.

mod world;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use quinn_proto::{Dir, VarInt};

use self::world::{World, address};
use super::event::{End, Event, Member, NotSent, What};

const SECOND: Duration = Duration::from_secs(1);

/// Nothing happens.
#[expect(
    clippy::needless_pass_by_value,
    reason = "as whatever takes events does"
)]
fn quiet(_: &mut World, event: Event) {
    panic!("{event:?}");
}

#[test]
fn everybody_connects_plays_and_leaves() {
    let mut world = World::new(4);
    let members = world.connected(50);
    for &member in &members {
        for n in 0..3 {
            world.core.send_datagram(member, &[n; 64]).unwrap();
        }
    }
    let mut echoes: BTreeMap<Member, Vec<Bytes>> = BTreeMap::new();
    let sent_at = world.now;
    world.pass(SECOND, |_, event| {
        let What::Datagram(payload) = event.what else {
            panic!("{event:?}")
        };
        // There and back.
        assert_eq!(event.at - sent_at, Duration::from_millis(10));
        echoes.entry(event.member).or_default().push(payload);
    });
    let three: Vec<Bytes> = (0..3).map(|n| Bytes::from(vec![n; 64])).collect();
    assert!(members.iter().all(|member| echoes[member] == three));
    assert!(
        world.sent.iter().all(|sent| *sent > 0),
        "every socket is used"
    );

    for &member in &members {
        world
            .core
            .close(world.now, member, VarInt::from_u32(7), Bytes::new());
        assert_eq!(
            world.core.send_datagram(member, b"late"),
            Err(NotSent::Gone)
        );
    }
    let mut ends = Vec::new();
    world.pass(10 * SECOND, |_, event| {
        assert_eq!(event.what, What::Closed(End::Local));
        ends.push(event.member);
    });
    ends.sort_unstable();
    assert_eq!(ends, members, "each has one end");
    assert_eq!((world.core.open(), world.core.held()), (0, 0));
    assert!(world.host.peers.is_empty());
}

#[test]
fn places_are_used_again_and_names_are_not() {
    let mut world = World::new(2);
    let mut seen = Vec::new();
    for _ in 0..20 {
        let members = world.connected(5);
        assert!(members.iter().all(|member| member.place() < 5));
        for &member in &members {
            assert!(!seen.contains(&member));
            world
                .core
                .close(world.now, member, VarInt::from_u32(0), Bytes::new());
        }
        world.pass(5 * SECOND, |_, _| {});
        for &member in &members {
            assert!(world.core.link(member).is_none());
        }
        seen.extend(members);
    }
    assert_eq!(world.core.held(), 0);
}

#[test]
fn a_close_is_told_with_its_code() {
    let mut world = World::new(1);
    let members = world.connected(3);
    world.core.send_datagram(members[0], b"in time").unwrap();
    world.pass(Duration::from_millis(7), quiet);
    world.close_server(0x77, b"go");
    let mut told = Vec::new();
    world.pass(SECOND, |_, event| told.push((event.member, event.what)));
    let closed = What::Closed(End::Closed {
        code: 0x77,
        reason: Bytes::from_static(b"go"),
    });
    let mut expected: Vec<_> = members
        .iter()
        .map(|member| (*member, closed.clone()))
        .collect();
    told.sort_by_key(|(member, _)| *member);
    // What came before the close is told before it.
    expected.insert(
        0,
        (members[0], What::Datagram(Bytes::from_static(b"in time"))),
    );
    assert_eq!(told, expected);
}

#[test]
fn a_server_that_is_gone_times_out_and_one_that_forgot_resets() {
    let mut world = World::new(2);
    world.connected(4);
    let forgot = world.now;
    world.restart_server();
    let mut resets = 0;
    // Their next word is a keep-alive, at the latest after three seconds.
    world.pass(4 * SECOND, |world, event| {
        assert_eq!(event.what, What::Closed(End::Reset));
        assert!(world.now - forgot <= 3 * SECOND + Duration::from_millis(20));
        resets += 1;
    });
    assert_eq!(resets, 4);

    let mut world = World::new(1);
    let server = world.server.at(([10, 0, 0, 9], 1).into());
    let member = world.core.connect(world.now, &server, 0).unwrap();
    let mut end = None;
    world.pass(11 * SECOND, |world, event| {
        end = Some((event.member, event.what, world.now - world.start));
    });
    let (who, what, after) = end.unwrap();
    assert_eq!((who, what), (member, What::Closed(End::TimedOut)));
    assert!(after >= 10 * SECOND && after <= 10 * SECOND + Duration::from_millis(1));
}

#[test]
fn who_changes_its_address_goes_on_playing() {
    for knows in [false, true] {
        let mut world = World::new(3);
        let member = world.connected(1)[0];
        for socket in [1, 2, 0, 2] {
            world.core.move_to(member, socket, knows);
            let mut heard = false;
            if !knows {
                world.core.send_datagram(member, b"from here").unwrap();
            }
            world.pass(SECOND, |_, event| {
                heard |= matches!(event.what, What::Datagram(_))
            });
            assert_eq!(heard, !knows);
            let peer = world.only_peer();
            assert_eq!(peer.quic.remote_address(), address(socket), "{knows}");
        }
        world.core.send_datagram(member, b"still here").unwrap();
        let mut heard = false;
        world.pass(SECOND, |_, event| {
            heard |= matches!(event.what, What::Datagram(_))
        });
        assert!(heard);
    }
}

#[test]
fn who_moves_while_it_waits_to_send_sends_from_where_it_is() {
    let mut world = World::new(2);
    let member = world.connected(1)[0];
    let before = world.sent.clone();
    world.core.send_datagram(member, b"queued").unwrap();
    world.core.move_to(member, 1, false);
    world.pass(SECOND, |_, _| {});
    assert_eq!(world.sent[0], before[0]);
    assert!(world.sent[1] > before[1]);
}

#[test]
fn who_vanishes_says_nothing_more() {
    let mut world = World::new(1);
    let members = world.connected(2);
    let sent = world.sent[0];
    world.core.send_datagram(members[0], b"never").unwrap();
    for &member in &members {
        world.core.vanish(world.now, member);
    }
    let mut ends = 0;
    // The server pings and waits for 30 s, quinn's default, or the fleet's 10 s.
    world.pass(12 * SECOND, |_, event| {
        assert_eq!(event.what, What::Closed(End::Local));
        ends += 1;
    });
    assert_eq!((ends, world.sent[0]), (2, sent));
    assert_eq!(world.core.held(), 0);
    assert!(world.host.peers.is_empty(), "its connections timed out");
    // Their handles serve others.
    world.connected(2);
}

/// Sends `size` bytes on a stream of each of `count` clients, and reads the echo; how often somebody had to wait.
fn transfer(world: &mut World, count: usize, size: usize) -> usize {
    let mut streams = BTreeMap::new();
    let payload: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let mut waits = 0;
    for member in world.connect(count) {
        streams.insert(member, (None, 0, Vec::new(), false));
    }
    let core_write = |world: &mut World, member, stream, from: usize| {
        let written = world.core.write(member, stream, &payload[from..]).unwrap();
        if from + written == size {
            world.core.finish(member, stream).unwrap();
        }
        from + written
    };
    world.pass(120 * SECOND, |world, event| {
        let member = event.member;
        let (stream, sent, received, ended) = streams.get_mut(&member).unwrap();
        match event.what {
            What::Connected => {
                let opened = world.core.open_stream(member, Dir::Bi).unwrap().unwrap();
                *stream = Some(opened);
                *sent = core_write(world, member, opened, 0);
            }
            What::Writable(on) => {
                assert_eq!(Some(on), *stream);
                waits += 1;
                *sent = core_write(world, member, on, *sent);
            }
            What::Bytes { stream: on, bytes } => {
                assert_eq!(Some(on), *stream);
                received.extend_from_slice(&bytes);
            }
            What::Ended { stream: on, reset } => {
                assert_eq!((Some(on), reset), (*stream, None));
                *ended = true;
            }
            other => panic!("{other:?}"),
        }
    });
    for (_, _, received, ended) in streams.values() {
        assert!(
            *ended && *received == payload,
            "{} of {size}",
            received.len()
        );
    }
    waits
}

#[test]
fn streams_wait_for_room_and_bring_everything() {
    let waits = transfer(&mut World::new(2), 3, 200_000);
    assert!(waits > 3, "the server's window is 8 KiB");
}

#[test]
fn a_network_that_loses_packets_loses_no_stream() {
    for seed in 0..10 {
        transfer(&mut World::with(3, 10, seed), 8, 20_000);
    }
}

#[test]
fn a_stream_is_written_and_given_up_as_it_allows() {
    let mut world = World::new(1);
    let member = world.connected(1)[0];
    let stream = world.core.open_stream(member, Dir::Bi).unwrap().unwrap();
    world.core.finish(member, stream).unwrap();
    assert_eq!(
        world.core.write(member, stream, b"x"),
        Err(NotSent::StreamClosed)
    );
    assert_eq!(
        world.core.finish(member, stream),
        Err(NotSent::StreamClosed)
    );
    // Streams of the server's: one to read alone, one for both.
    let at_server = world.only_peer();
    let uni = at_server.quic.streams().open(Dir::Uni).unwrap();
    at_server.quic.send_stream(uni).write(b"one way").unwrap();
    at_server
        .quic
        .send_stream(uni)
        .reset(VarInt::from_u32(9))
        .unwrap();
    let uni = at_server.quic.streams().open(Dir::Uni).unwrap();
    at_server.quic.send_stream(uni).write(b"one way").unwrap();
    at_server.quic.send_stream(uni).finish().unwrap();
    let mut told = Vec::new();
    world.pass(SECOND, |world, event| {
        if let What::Bytes { stream, .. } = event.what {
            assert!(!stream.is_ours() && !stream.is_bidirectional());
            assert_eq!(
                world.core.write(member, stream, b"x"),
                Err(NotSent::StreamClosed)
            );
            assert_eq!(
                world.core.finish(member, stream),
                Err(NotSent::StreamClosed)
            );
            world
                .core
                .reset(member, stream, VarInt::from_u32(1))
                .unwrap();
        }
        told.push(event.what);
    });
    let resets: Vec<_> = told
        .iter()
        .filter_map(|what| match what {
            What::Ended { reset, .. } => Some(*reset),
            _ => None,
        })
        .collect();
    // Our own stream comes back finished, one of the server's was reset, and the other given up by us.
    assert!(
        resets.contains(&None) && resets.contains(&Some(9)),
        "{told:?}"
    );
    // Three are open at the most: four allowed, one of them used.
    let opened = (0..10).map_while(|_| world.core.open_stream(member, Dir::Bi).unwrap());
    assert_eq!(opened.count(), 4);
}

#[test]
fn datagrams_are_refused_before_the_handshake_and_when_too_long() {
    let mut world = World::new(1);
    let member = world.connect(1)[0];
    assert_eq!(
        world.core.send_datagram(member, b"early"),
        Err(NotSent::Unsupported)
    );
    world.pass(SECOND, |_, _| {});
    let refused = world.core.send_datagram(member, &[0; 1_300]);
    let Err(NotSent::TooLong {
        length: 1_300,
        limit,
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert!(limit >= 1_150);
    // Of more than may wait, the newest are sent.
    for n in 0..100_u8 {
        world.core.send_datagram(member, &[n; 1_000]).unwrap();
    }
    let mut heard = Vec::new();
    world.pass(5 * SECOND, |_, event| {
        if let What::Datagram(payload) = event.what {
            heard.push(payload[0]);
        }
    });
    assert!(heard.len() < 40 && heard.last() == Some(&99), "{heard:?}");
}

#[test]
fn telling_allocates_nothing() {
    let mut world = World::new(1);
    let members = world.connected(20);
    for &member in &members {
        world.core.send_datagram(member, &[1; 64]).unwrap();
    }
    let until = world.now + SECOND;
    let mut told = 0;
    while told < 20 {
        world.step_until_told(until);
        let counted = allocation_counter::measure(|| {
            while world.core.poll().is_some() {
                told += 1;
            }
        });
        assert_eq!(counted.count_total, 0);
    }
}
