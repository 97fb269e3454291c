//! What it costs to ask about every seat on every tick, against the algorithm that game servers commonly use for it.
//!
//! The reference, as it stands in a published game-server crate: a concurrent map from JTI text to the time of the last activity;
//! per question a look-up, the wall clock, and, when the tick and a byte sum of the JTI say so, a second look-up that writes.
//! All in random order, back to back, one thread. The last lines are ratios of the medians of this very run.

#![expect(clippy::print_stdout, reason = "the ratios are what it is for")]
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures time itself, and the reference reads the wall clock"
)]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use dashmap::DashMap;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tickgate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
    seat::{
        ActivitySource, Connection, DEFAULT_WINDOW, Grant, Handle, SeatConfig, SeatTable,
        TickReport,
    },
};

const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
const IDLE: Duration = Duration::from_secs(3_600);
const START: Timestamp = Timestamp(1_700_000_000_000);

/// Nanoseconds per seat, a sample each, by what was measured.
#[derive(Default)]
struct Samples(RefCell<BTreeMap<(&'static str, u32), Vec<f64>>>);

impl Samples {
    fn median(&self, what: &'static str, size: u32) -> Option<f64> {
        let mut samples = self.0.borrow().get(&(what, size))?.clone();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied()
    }
}

/// Measures one pass over `size` seats, and keeps the samples.
fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    samples: &Samples,
    what: &'static str,
    size: u32,
    mut pass: impl FnMut(),
) {
    group.throughput(Throughput::Elements(size.into()));
    group.bench_function(BenchmarkId::new(what, size), |bencher| {
        bencher.iter_custom(|passes| {
            let start = Instant::now();
            for _ in 0..passes {
                pass();
            }
            let took = start.elapsed();
            let each = took.as_nanos() as f64 / passes as f64 / f64::from(size);
            samples
                .0
                .borrow_mut()
                .entry((what, size))
                .or_default()
                .push(each);
            took
        });
    });
}

/// The reference algorithm.
struct Reference {
    sessions: DashMap<String, i64>,
}

impl Reference {
    fn is_session_authorized(&self, jti: &str, tick: u64) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs() as i64;
        let Some(last) = self.sessions.get(jti).map(|entry| *entry) else {
            return false;
        };
        if now - last > IDLE.as_secs() as i64 {
            return false;
        }
        let jitter = jti
            .bytes()
            .fold(0_u64, |sum, byte| sum.wrapping_add(byte.into()));
        if (tick + jitter).is_multiple_of(60)
            && let Some(mut entry) = self.sessions.get_mut(jti)
        {
            *entry = now;
        }
        true
    }
}

/// The same sessions for both: ULIDs of random bits, asked about in random order.
fn sessions(size: u32) -> Vec<SessionId> {
    use rand::Rng;
    let mut rng = ChaCha8Rng::seed_from_u64(size.into());
    (0..size).map(|_| SessionId(rng.random())).collect()
}

fn seated(sessions: &[SessionId]) -> (SeatTable, Vec<Handle>) {
    let table = SeatTable::new(SeatConfig {
        capacity: sessions.len() as u32,
        window: DEFAULT_WINDOW,
        idle: IDLE,
        activity: ActivitySource::Input,
        ..SeatConfig::default()
    });
    let mut handles: Vec<_> = (0..)
        .zip(sessions)
        .filter_map(|(id, session)| {
            let grant = Grant {
                session: *session,
                player: PlayerId(session.0),
                player_generation: PlayerGeneration(0),
                client: ClientId(id),
                ends_at: START.after(Duration::from_secs(24 * 3_600)),
                connection: Connection { worker: 0, id },
            };
            Some(table.install(grant, START).ok()?.handle())
        })
        .collect();
    handles.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    (table, handles)
}

fn measure(criterion: &mut Criterion, samples: &Samples) {
    let mut group = criterion.benchmark_group("session_table");
    for size in SIZES {
        let sessions = sessions(size);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs() as i64;
        let reference = Reference {
            sessions: sessions.iter().map(|jti| (jti.to_string(), now)).collect(),
        };
        let mut jtis: Vec<_> = sessions.iter().map(SessionId::to_string).collect();
        jtis.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
        let mut tick = 0;
        bench(&mut group, samples, "reference", size, || {
            tick += 1;
            for jti in &jtis {
                black_box(reference.is_session_authorized(black_box(jti), tick));
            }
        });
        drop((reference, jtis));

        let (table, handles) = seated(&sessions);
        bench(&mut group, samples, "verify", size, || {
            for handle in &handles {
                let _ = black_box(table.verify(black_box(*handle)));
            }
        });
        // Everybody sends on every tick; time goes on at 60 Hz, so that one pass in sixty looks for due ends.
        let (mut tick, mut report) = (0, TickReport::default());
        let mut pass = |touch: bool| {
            tick += 1;
            if touch {
                handles.iter().for_each(|handle| table.touch(*handle));
            }
            let now = START.after(Duration::from_millis(tick * 1_000 / 60 % 1_000_000));
            table.tick(Tick(tick), now, &mut report);
            black_box(&report);
        };
        bench(&mut group, samples, "tick", size, || pass(false));
        bench(&mut group, samples, "touch+tick", size, || pass(true));
        // The same question of seats whose connection is lost, everybody's at once.
        for handle in &handles {
            if let Some(connection) = table.connection(*handle) {
                table.suspend(*handle, connection, START);
            }
        }
        bench(&mut group, samples, "suspended", size, || {
            for handle in &handles {
                let _ = black_box(table.verify(black_box(*handle)));
            }
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let samples = Samples::default();
    measure(&mut criterion, &samples);
    criterion.final_summary();

    println!(
        "{:>8}  {:<11} {:>12}  {:>12}",
        "seats", "", "ns per seat", "reference /"
    );
    for size in SIZES {
        let reference = samples.median("reference", size);
        for what in ["reference", "verify", "suspended", "tick", "touch+tick"] {
            if let (Some(reference), Some(ns)) = (reference, samples.median(what, size)) {
                println!("{size:>8}  {what:<11} {ns:>12.2}  {:>12.1}", reference / ns);
            }
        }
    }
}
