//! The demo world on real seats, tick by tick.

use std::time::Duration;

use super::{
    protocol::{Input, Snapshot},
    *,
};
use crate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
    seat::{
        ActivitySource, Connection, EndReason, Grant, Handle, Installed, SeatConfig, SeatTable,
        TickReport,
    },
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const REST: Input = Input {
    sequence: 0,
    right: 0,
    up: 0,
};

/// What the world sent.
#[derive(Default)]
struct Sent {
    datagrams: Vec<(Handle, Vec<u8>)>,
    messages: Vec<(Handle, Vec<u8>)>,
}

impl Out for Sent {
    fn datagram(&mut self, to: Handle, payload: &[u8]) -> bool {
        self.datagrams.push((to, payload.to_vec()));
        true
    }

    fn message(&mut self, to: Handle, payload: &[u8]) -> bool {
        self.messages.push((to, payload.to_vec()));
        true
    }
}

impl Sent {
    /// The one snapshot that this seat was sent.
    fn snapshot(&self, seat: Handle) -> Snapshot {
        let mut to_it = self.datagrams.iter().filter(|(to, _)| *to == seat);
        let (_, bytes) = to_it.next().expect("no snapshot");
        assert_eq!(to_it.next(), None);
        Snapshot::decode(bytes).unwrap()
    }
}

/// A world over a seat table.
struct Play {
    seats: SeatTable,
    world: World,
    report: TickReport,
    tick: Tick,
}

impl Play {
    fn new() -> Self {
        Self {
            seats: SeatTable::new(SeatConfig {
                capacity: 64,
                window: 60,
                idle: Duration::from_secs(3_600),
                activity: ActivitySource::Input,
                ..SeatConfig::default()
            }),
            world: World::new(),
            report: TickReport::default(),
            tick: Tick(0),
        }
    }

    fn join(&self, number: u64) -> Handle {
        let grant = Grant {
            session: SessionId(number.into()),
            player: PlayerId(number.into()),
            player_generation: PlayerGeneration(0),
            client: ClientId(number),
            ends_at: NOW.after(Duration::from_secs(86_400)),
            connection: Connection {
                worker: 0,
                id: number,
            },
        };
        match self.seats.install(grant, NOW) {
            Ok(Installed::Fresh(handle) | Installed::Taken { handle, .. }) => handle,
            Err(full) => panic!("{full:?}"),
        }
    }

    fn step(&mut self, inputs: &[(Handle, Received<'_>)]) -> Sent {
        self.tick.0 += 1;
        self.seats.tick(self.tick, NOW, &mut self.report);
        let mut sent = Sent::default();
        let verify = |handle| self.seats.verify(handle);
        let changes = &self.report.changes;
        let inputs = inputs.iter().copied();
        self.world
            .step(self.tick, changes, inputs, verify, &mut sent);
        sent
    }

    /// A tick in which one seat sends these inputs.
    fn steer(&mut self, seat: Handle, inputs: &[Input]) -> Sent {
        let datagrams: Vec<_> = inputs.iter().map(Input::encode).collect();
        let inputs: Vec<_> = datagrams
            .iter()
            .map(|datagram| (seat, Received::Datagram(datagram)))
            .collect();
        self.step(&inputs)
    }
}

#[test]
fn each_input_is_acknowledged_at_the_next_tick() {
    let mut play = Play::new();
    let seat = play.join(1);
    assert!(play.step(&[]).datagrams.is_empty());
    for sequence in 0..100 {
        let snapshot = play
            .steer(seat, &[Input { sequence, ..REST }])
            .snapshot(seat);
        assert_eq!(snapshot.tick, play.tick);
        assert_eq!(snapshot.received.newest, sequence);
    }
    // Several in one tick, out of order and one of them twice: one answer to all.
    let several = [102, 101, 104, 104].map(|sequence| Input { sequence, ..REST });
    let received = play.steer(seat, &several).snapshot(seat).received;
    let told: Vec<u32> = (98..106).filter(|s| received.contains(*s)).collect();
    assert_eq!(told, [98, 99, 101, 102, 104]);
    assert_eq!(play.world.stats().snapshots, 101);
    assert!(play.step(&[]).datagrams.is_empty());
}

#[test]
fn players_move_where_they_steer() {
    let mut play = Play::new();
    let seat = play.join(1);
    let thrust = Input {
        sequence: 7,
        right: 127,
        up: -127,
    };
    let before = play.steer(seat, &[REST]).snapshot(seat);
    // An input holds until the next.
    play.steer(seat, &[thrust]);
    for _ in 0..10 {
        play.step(&[]);
    }
    let stop = Input {
        sequence: 8,
        ..REST
    };
    let after = play.steer(seat, &[stop]).snapshot(seat);
    let along = |from: i32, to: i32| (to - from).rem_euclid(protocol::WORLD_SIZE);
    let east = along(before.x, after.x);
    assert!(east > 127 * 12, "{east}");
    assert_eq!(along(after.y, before.y), east);
    // An older input that comes late steers no more, and without thrust everything comes to rest.
    play.steer(seat, &[thrust]);
    for _ in 0..1_000 {
        play.step(&[]);
    }
    let rest = play.world.position(seat);
    play.step(&[]);
    assert_eq!(play.world.position(seat), rest);
}

#[test]
fn a_refused_seat_is_out_of_the_world_at_once() {
    let mut play = Play::new();
    let (stays, goes) = (play.join(1), play.join(2));
    play.step(&[]);
    assert_eq!(play.world.stats().players, 2);

    // Revoked after the tick pass: the next verify refuses, before the end itself is told.
    play.tick.0 += 1;
    play.seats.tick(play.tick, NOW, &mut play.report);
    assert!(play.seats.end(goes, EndReason::SessionRevoked));
    let datagram = REST.encode();
    let inputs = [stays, goes].map(|seat| (seat, Received::Datagram(&datagram)));
    let mut sent = Sent::default();
    let verify = |handle| play.seats.verify(handle);
    play.world
        .step(play.tick, &play.report.changes, inputs, verify, &mut sent);
    assert_eq!(sent.snapshot(stays).players, 1);
    assert_eq!(sent.datagrams.len(), 1);
    assert_eq!(play.world.position(goes), None);
    let stats = play.world.stats();
    assert_eq!((stats.refused, stats.strays, stats.players), (1, 1, 1));

    // Its end comes with the next tick, and changes nothing any more.
    play.step(&[]);
    assert_eq!(play.report.changes.len(), 1);
    assert_eq!(play.world.stats().players, 1);
}

#[test]
fn a_slot_used_again_is_another_player() {
    let mut play = Play::new();
    let first = play.join(1);
    play.steer(
        first,
        &[Input {
            sequence: 500,
            ..REST
        }],
    );
    assert!(play.seats.end(first, EndReason::Left));
    play.step(&[]);
    // Among them the one who left, whose new seat is of the same phase, and so in a slot of the same block.
    let seats: Vec<Handle> = (1..40).map(|number| play.join(number)).collect();
    play.step(&[]);
    let second = seats
        .into_iter()
        .find(|s| s.slot() == first.slot())
        .expect("slot unused");
    let sent = play.steer(first, &[REST]);
    assert!(sent.datagrams.is_empty());
    assert_eq!(play.world.stats().strays, 1);
    let received = play
        .steer(
            second,
            &[Input {
                sequence: 3,
                ..REST
            }],
        )
        .snapshot(second)
        .received;
    assert_eq!(received, protocol::Received::first(3));
}

#[test]
fn a_new_connection_of_the_same_seat_counts_its_inputs_afresh() {
    let mut play = Play::new();
    let seat = play.join(1);
    play.steer(
        seat,
        &[Input {
            sequence: 900,
            ..REST
        }],
    );
    assert_eq!(play.join(1), seat);
    let snapshot = play.steer(seat, &[REST]).snapshot(seat);
    assert_eq!(snapshot.received, protocol::Received::first(0));
    assert_eq!(snapshot.players, 1);
}

#[test]
fn a_suspended_player_stands_still_in_sight_and_goes_on_when_resumed() {
    let mut play = Play::new();
    // Client ids that are born at the same place, so that one sees the other.
    let (still, goes) = (play.join(1 << 32), play.join(2 << 32));
    let thrust = Input {
        sequence: 70,
        right: 127,
        up: 0,
    };
    play.steer(goes, &[thrust]);
    play.step(&[]);
    let lost = Connection {
        worker: 0,
        id: 2 << 32,
    };
    assert!(play.seats.suspend(goes, lost, NOW));
    let stood = play.world.position(goes);
    for _ in 0..30 {
        let seen = play.steer(still, &[REST]).snapshot(still);
        assert_eq!((seen.players, seen.others().len()), (2, 1));
        let other = seen.others()[0];
        assert_eq!(
            (other.client, Some((other.x, other.y))),
            (ClientId(2 << 32), stood)
        );
    }
    let stats = play.world.stats();
    assert_eq!((stats.live, stats.suspended, stats.refused), (34, 30, 0));

    // It goes on as it went, before its first input too; and its inputs count afresh.
    assert_eq!(play.join(2 << 32), goes);
    play.step(&[]);
    assert_ne!(play.world.position(goes), stood);
    let received = play.steer(goes, &[REST]).snapshot(goes).received;
    assert_eq!(received, protocol::Received::first(0));

    // And when nobody comes back, it goes with its seat.
    assert!(play.seats.suspend(goes, lost, NOW));
    play.step(&[]);
    assert!(play.seats.end(goes, EndReason::Lost));
    play.step(&[]);
    assert_eq!(play.world.position(goes), None);
    assert_eq!(play.world.stats().players, 1);
}

#[test]
fn messages_come_back_and_malformed_datagrams_are_counted() {
    let mut play = Play::new();
    let seat = play.join(1);
    let sent = play.step(&[
        (seat, Received::Message(b"hello")),
        (seat, Received::Datagram(b"hello")),
        (seat, Received::Message(b"")),
    ]);
    let expected = [(seat, b"hello".to_vec()), (seat, Vec::new())];
    assert_eq!(sent.messages, expected);
    assert!(sent.datagrams.is_empty());
    let stats = play.world.stats();
    assert_eq!((stats.messages, stats.malformed, stats.inputs), (2, 1, 0));
}

#[test]
fn others_nearby_are_seen_and_never_oneself() {
    let mut play = Play::new();
    // Client ids that share their high bits are born at the same place in both directions.
    let seats: Vec<Handle> = (0..12).map(|number| play.join(number << 32)).collect();
    let snapshot = play.steer(seats[3], &[REST]).snapshot(seats[3]);
    assert_eq!(snapshot.players, 12);
    assert_eq!(snapshot.others().len(), protocol::MAX_OTHERS);
    for other in snapshot.others() {
        assert_ne!(other.client, ClientId(3 << 32));
    }
    let far_away = play.join(u64::from(protocol::WORLD_SIZE as u32 - 1));
    let snapshot = play.steer(far_away, &[REST]).snapshot(far_away);
    assert!(snapshot.others().is_empty());
}

#[test]
fn every_seat_is_verified_every_tick() {
    let mut play = Play::new();
    for number in 0..10 {
        play.join(number);
    }
    for _ in 0..60 {
        play.step(&[]);
    }
    assert_eq!(play.world.stats().live, 600);
    assert_eq!(play.world.stats().most_players, 10);
}
