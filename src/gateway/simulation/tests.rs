//! The game's side alone, with a worker that the test plays.

use std::time::Duration;

use super::*;
use crate::{
    clock::ManualTime,
    gateway::{Limits, SeatBudget, exchange::Buffers},
    id::{ClientId, PlayerGeneration, SessionId},
    seat::{Connection, Grant, SeatConfig},
};

const START: Timestamp = Timestamp(1_700_000_000_000);
const TICK: Duration = Duration::from_millis(16);

struct Stage {
    time: ManualTime,
    shared: Arc<Shared>,
    worker: Arc<WorkerExchange>,
    /// How often the worker was woken.
    wakes: Arc<AtomicU64>,
    simulation: Simulation,
}

impl Stage {
    fn new() -> Self {
        let time = ManualTime::starting_at(START);
        let seats = SeatTable::new(SeatConfig::default());
        let id = "one".parse().unwrap();
        let interval = Some(Duration::from_millis(10));
        let shared = Shared::new(id, Limits::default(), time.clock(), seats, interval);
        let shared = Arc::new(shared);
        let wakes = Arc::new(AtomicU64::new(0));
        let woken = Arc::clone(&wakes);
        let wake = Box::new(move || {
            woken.fetch_add(1, Ordering::Relaxed);
        });
        let worker = Arc::new(WorkerExchange::new(SeatBudget::default(), wake));
        Self {
            time,
            simulation: Simulation::new(Arc::clone(&shared), Arc::new([Arc::clone(&worker)])),
            shared,
            worker,
            wakes,
        }
    }

    fn seat(&self, number: u64) -> Handle {
        let grant = Grant {
            session: SessionId(number.into()),
            player: PlayerId(number.into()),
            player_generation: PlayerGeneration(0),
            client: ClientId(number),
            ends_at: START.after(Duration::from_secs(3_600)),
            connection: connection(number),
        };
        let installed = self.shared.seats.install(grant, START);
        installed.unwrap().handle()
    }

    fn receives(&self, from: Handle, payload: &[u8]) {
        let mut inbox = self.worker.inbox();
        inbox.push_datagram(&self.worker.budget, from, payload);
    }

    /// How often the worker was woken since this was asked last.
    fn wakes(&self) -> u64 {
        self.wakes.swap(0, Ordering::Relaxed)
    }

    /// Payloads that the worker was handed.
    fn sent(&self) -> usize {
        let mut outgoing = Outgoing::default();
        self.worker.take_outgoing(&mut outgoing);
        outgoing.entries.len()
    }
}

fn connection(id: u64) -> Connection {
    Connection { worker: 0, id }
}

/// An engine with a schedule of its own keeps it as a resource, and its systems run on whichever thread is free.
#[test]
fn an_engine_may_keep_the_simulation_wherever_it_likes() {
    const fn is_anybodys<T: Send + Sync + 'static>() {}
    is_anybodys::<Simulation>();
    is_anybodys::<crate::gateway::Ticker>();
    is_anybodys::<crate::gateway::Verifier>();
}

#[test]
fn what_is_sent_to_a_suspended_seat_goes_nowhere_quietly() {
    let mut stage = Stage::new();
    let handle = stage.seat(1);
    assert!(stage.simulation.tick().out.datagram(handle, b"hello"));
    assert_eq!(stage.sent(), 1);
    let seats = Arc::clone(&stage.shared.seats);
    assert!(seats.suspend(handle, connection(1), START));
    let mut exchange = stage.simulation.tick();
    assert_eq!(exchange.changes, [SeatChange::Suspended { handle }]);
    assert_eq!(exchange.seats.verify(handle), Verdict::Suspended);
    assert!(exchange.out.datagram(handle, b"are you there"));
    assert!(exchange.out.message(handle, b"?"));
    drop(exchange);
    assert_eq!(stage.sent(), 0);
    assert_eq!(stage.seat(1), handle, "it is back");
    assert!(stage.simulation.tick().out.message(handle, b"welcome back"));
    assert_eq!(stage.sent(), 1);
    seats.end(handle, EndReason::Left);
    assert!(!stage.simulation.tick().out.message(handle, b"farewell"));
}

#[test]
fn verifies_ticks_and_overruns_are_counted() {
    let mut stage = Stage::new();
    let handle = stage.seat(1);
    let mut answers = Answers::default();
    for took in [1, 11] {
        let Exchange { seats, out, .. } = stage.simulation.tick();
        for _ in 0..3 {
            assert!(seats.verify(handle).is_live());
        }
        seats.verify_batch(&[handle, handle], &mut answers);
        assert!(answers.all_live() && answers.len() == 2);
        stage.time.advance(Duration::from_millis(took));
        drop((seats, out));
    }
    let verifies = stage.shared.counters.verifies.load(Ordering::Relaxed);
    assert_eq!(verifies, 2 * (3 + 2));
    let (seconds, buckets) = stage.shared.ticks.histogram();
    assert!((seconds - 0.012).abs() < 1e-9);
    assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 2);
    assert_eq!(stage.shared.ticks.overruns(), 1);
}

#[test]
fn each_seats_inputs_are_told_alone_and_what_it_lost() {
    let mut stage = Stage::new();
    let (ann, bob) = (stage.seat(1), stage.seat(2));
    let ring = u64::from(stage.worker.budget.datagrams);
    for n in 0..ring + 3 {
        stage.receives(ann, &[n as u8]);
        stage.worker.inbox().push_message(bob, b"hello");
    }
    let Exchange {
        inputs,
        inputs_dropped,
        ..
    } = stage.simulation.tick();
    let of_ann: Vec<_> = inputs.of(ann).map(|input| input.payload[0]).collect();
    assert_eq!(of_ann, (3..ring as u8 + 3).collect::<Vec<_>>());
    assert!(inputs.of(bob).all(|input| input.payload == b"hello"));
    assert_eq!(inputs.of(bob).count() as u64, ring + 3);
    assert_eq!((inputs.dropped_of(ann), inputs.dropped_of(bob)), (3, 0));
    assert_eq!(inputs_dropped, 3);
    assert_eq!(inputs.iter().count() as u64, 2 * ring + 3);

    // A tick later it has sent nothing; and once its end was told, nothing is told of it.
    assert_eq!(stage.simulation.tick().inputs.of(ann).count(), 0);
    stage.receives(ann, b"last");
    stage.shared.seats.end(ann, EndReason::Left);
    let inputs = stage.simulation.tick().inputs;
    assert_eq!((inputs.of(ann).count(), inputs.iter().count()), (0, 0));
}

#[test]
fn a_worker_is_woken_once_a_tick_and_for_nothing_never() {
    let mut stage = Stage::new();
    let handle = stage.seat(1);
    drop(stage.simulation.tick());
    assert_eq!(stage.wakes(), 0, "nothing was sent");
    let mut exchange = stage.simulation.tick();
    for _ in 0..100 {
        assert!(exchange.out.datagram(handle, b"datagram"));
        assert!(exchange.out.message(handle, b"message"));
    }
    assert_eq!(stage.wakes.load(Ordering::Relaxed), 0, "not before the end");
    drop(exchange);
    assert_eq!(stage.wakes(), 1);

    // A stream was left unread for want of room: the next tick makes some.
    stage.worker.wait_for_room();
    drop(stage.simulation.tick());
    assert_eq!(stage.wakes(), 1);
    stage.worker.wait_for_room();
    assert!(stage.simulation.tick().out.datagram(handle, b"datagram"));
    assert_eq!(stage.wakes(), 1, "both are one wake");
    // Left unread in the middle of a tick, which has taken its inputs before: no room is made until the next.
    let exchange = stage.simulation.tick();
    stage.worker.wait_for_room();
    drop(exchange);
    assert_eq!(stage.wakes(), 0);
    drop(stage.simulation.tick());
    assert_eq!(stage.wakes(), 1);
}

/// A whole tick, both sides of it: inputs in, each seat's looked at, every seat verified, alone and in a batch, each answered, and the answers sliced for
/// the connections.
#[test]
fn an_exchange_allocates_nothing_once_warm() {
    const SEATS: u64 = 500;
    let mut stage = Stage::new();
    let handles: Vec<_> = (0..SEATS).map(|number| stage.seat(number)).collect();
    let worker = Arc::clone(&stage.worker);
    let (seats, time) = (Arc::clone(&stage.shared.seats), stage.time.clone());
    let (mut outgoing, mut buffers) = (Outgoing::default(), Buffers::default());
    let mut answers = Answers::default();
    let mut round = |number: usize| {
        // 30 inputs a second at 60 Hz: now these seats have something to say, now those, and now and then a message.
        for (n, handle) in handles
            .iter()
            .enumerate()
            .filter(|(n, _)| (n + number).is_multiple_of(2))
        {
            seats.touch(*handle);
            let mut inbox = worker.inbox();
            inbox.push_datagram(&worker.budget, *handle, &[n as u8; 24]);
            if (n + number).is_multiple_of(16) && inbox.takes_messages(&worker.budget, *handle) {
                inbox.push_message(*handle, &[n as u8; 100]);
            }
        }
        time.advance(TICK);
        let Exchange {
            inputs,
            seats,
            mut out,
            ..
        } = stage.simulation.tick();
        let mut heard = 0;
        seats.verify_batch(&handles, &mut answers);
        assert!(answers.all_live());
        for handle in &handles {
            assert!(seats.verify(*handle).is_live());
            for input in inputs.of(*handle) {
                heard += 1;
                assert!(match input.channel {
                    Channel::Datagram => out.datagram(input.handle, input.payload),
                    Channel::Message => out.message(input.handle, input.payload),
                });
            }
            assert_eq!(inputs.dropped_of(*handle), 0);
        }
        assert_eq!(inputs.iter().count(), heard);
        drop(out);

        worker.take_outgoing(&mut outgoing);
        let mut bytes = buffers.freeze(&mut outgoing.bytes);
        assert_eq!(outgoing.entries.len(), heard);
        for entry in outgoing.entries.drain(..) {
            drop(bytes.split_to(entry.len));
        }
    };
    (0..200).for_each(&mut round);
    let count = allocation_counter::measure(|| (200..500).for_each(&mut round));
    assert_eq!(count.count_total, 0, "{count:?}");
}
