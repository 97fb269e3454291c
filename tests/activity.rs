//! Activity as it is written out and as it keeps sessions alive, at the sizes and rates of real games: about N/window writes on each
//! tick, nobody's twice within the window, nobody active ended as idle, nobody idle kept. Through the public API alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers may fail as its tests do"
)]

use std::{collections::HashMap, time::Duration};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tickgate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
    seat::{
        ActivitySource, Connection, EndReason, Grant, Handle, SeatChange, SeatConfig, SeatTable,
        TickReport,
    },
};

const START: Timestamp = Timestamp(1_700_000_000_000);
const FOR_EVER: Duration = Duration::from_secs(1 << 30);
/// The window is one second at each of them.
const RATES: [u32; 4] = [20, 30, 60, 128];
const SIZES: [u32; 2] = [10_000, 50_000];

/// How the sessions' JTIs came about.
#[derive(Debug, Clone, Copy)]
enum Jtis {
    /// ULIDs made over the last hour.
    Random,
    /// ULIDs of one millisecond whose random half counts up, as generators make them that keep their order.
    OneMillisecond,
}

fn jtis(which: Jtis, count: u32) -> Vec<SessionId> {
    let mut rng = ChaCha8Rng::seed_from_u64(count.into());
    let first: u128 = rng.random::<u128>() >> 48;
    (0..count)
        .map(|n| match which {
            Jtis::Random => {
                let made_at = START.0 - rng.random_range(0..3_600_000);
                SessionId(u128::from(made_at) << 80 | rng.random::<u128>() >> 48)
            }
            Jtis::OneMillisecond => SessionId(u128::from(START.0) << 80 | (first + u128::from(n))),
        })
        .collect()
}

/// The time of a tick, to the millisecond.
fn at(tick: u64, hz: u32) -> Timestamp {
    Timestamp(START.0 + tick * 1_000 / u64::from(hz))
}

fn grant(session: SessionId, number: u64) -> Grant {
    Grant {
        session,
        player: PlayerId(session.0),
        player_generation: PlayerGeneration(0),
        client: ClientId(number),
        ends_at: START.after(FOR_EVER),
        connection: Connection {
            worker: 0,
            id: number,
        },
    }
}

/// A table with its seats, ticked at a rate; holds every tick to what is promised of activity.
struct Crowd {
    table: SeatTable,
    hz: u32,
    handles: Vec<Handle>,
    index: HashMap<SessionId, usize>,
    /// When each was written last.
    written: Vec<Option<u64>>,
    /// Who has ended, on which tick.
    ended: Vec<Option<(u64, EndReason)>>,
    tick: u64,
    report: TickReport,
}

impl Crowd {
    fn new(sessions: &[SessionId], hz: u32, idle: Duration) -> Self {
        let table = SeatTable::new(SeatConfig {
            capacity: sessions.len() as u32,
            window: hz,
            idle,
            activity: ActivitySource::Input,
            ..SeatConfig::default()
        });
        let handles = (0..)
            .zip(sessions)
            .map(|(number, session)| table.install(grant(*session, number), START).unwrap())
            .map(|installed| installed.handle())
            .collect();
        Self {
            table,
            hz,
            handles,
            index: sessions.iter().copied().zip(0..).collect(),
            written: vec![None; sessions.len()],
            ended: vec![None; sessions.len()],
            tick: 0,
            report: TickReport::default(),
        }
    }

    fn window(&self) -> u64 {
        self.hz.into()
    }

    fn touch_all(&self) {
        self.handles
            .iter()
            .for_each(|handle| self.table.touch(*handle));
    }

    /// Ticks once, after `passed` ticks of time; returns how many were written.
    fn tick(&mut self, passed: u64) -> usize {
        self.tick += passed;
        let now = at(self.tick, self.hz);
        self.table.tick(Tick(self.tick), now, &mut self.report);
        for session in &self.report.active {
            let last = &mut self.written[self.index[session]];
            if let Some(last) = *last {
                let since = self.tick - last;
                assert!(
                    since >= u64::from(self.hz),
                    "written again after {since} ticks"
                );
            }
            *last = Some(self.tick);
        }
        for change in &self.report.changes {
            if let SeatChange::Ended {
                session, reason, ..
            } = change
            {
                let before = self.ended[self.index[session]].replace((self.tick, *reason));
                assert_eq!(before, None, "an end is told once");
            }
        }
        let active = self.report.active.len();
        let most = 3 * self.handles.len() as u64 * passed;
        // A handful of seats to a phase is as uneven as chance makes it.
        let is_small = self.handles.len() < SIZES[0] as usize;
        assert!(
            is_small || 2 * active as u64 * self.window() <= most,
            "{active} of {} written on tick {}, {passed} after the last, at {} Hz",
            self.handles.len(),
            self.tick,
            self.hz
        );
        active
    }

    fn nobody_has_ended(&self) {
        let ended = self.ended.iter().position(Option::is_some);
        assert_eq!(
            ended.map(|who| (who, self.ended[who])),
            None,
            "{} Hz",
            self.hz
        );
    }
}

fn crowds(idle: Duration) -> impl Iterator<Item = Crowd> {
    let sizes = SIZES
        .into_iter()
        .flat_map(|size| [Jtis::Random, Jtis::OneMillisecond].map(|which| jtis(which, size)));
    sizes.flat_map(move |sessions| RATES.map(|hz| Crowd::new(&sessions, hz, idle)))
}

#[test]
fn who_always_sends_is_written_once_a_window_and_evenly() {
    for mut crowd in crowds(FOR_EVER) {
        let windows = 4;
        let mut written = 0;
        for _ in 0..windows * crowd.window() {
            crowd.touch_all();
            written += crowd.tick(1);
        }
        // Not more often than once a window, which every tick is held to; so not less often either.
        assert_eq!(written, windows as usize * crowd.handles.len());
        crowd.nobody_has_ended();
    }
}

#[test]
fn after_a_lull_all_may_send_at_once() {
    for mut crowd in crowds(FOR_EVER) {
        let (window, everybody) = (crowd.window(), crowd.handles.len());
        let ticks =
            |crowd: &mut Crowd, count: u64| -> usize { (0..count).map(|_| crowd.tick(1)).sum() };
        assert_eq!(
            ticks(&mut crowd, window),
            everybody,
            "to be seated is activity"
        );
        assert_eq!(
            ticks(&mut crowd, 3 * window + window / 3),
            0,
            "nobody sends"
        );
        crowd.touch_all();
        assert_eq!(ticks(&mut crowd, window), everybody);
        assert_eq!(ticks(&mut crowd, 2 * window), 0, "nobody sent again");
    }
}

/// Each tick after a skip writes at most as much as the skipped ones would have, and what was sent before or in a skip is written.
#[test]
fn skipped_ticks_write_no_more_and_lose_nothing() {
    for mut crowd in crowds(FOR_EVER) {
        let window = crowd.window();
        let mut rng = ChaCha8Rng::seed_from_u64(window);
        while crowd.tick < 12 * window {
            // Mostly none, now and then a few, seldom a long one.
            let passed = match rng.random_range(0..20_u32) {
                0 => rng.random_range(1..=2 * window),
                1..6 => rng.random_range(2..10),
                _ => 1,
            };
            crowd.touch_all();
            crowd.tick(passed);
        }
        // Who was written late is passed over when its turn comes next, less than a window later, and has the turn after that.
        let tick = crowd.tick;
        let oldest = crowd
            .written
            .iter()
            .map(|last| last.unwrap())
            .min()
            .unwrap();
        assert!(
            tick - oldest <= 4 * window,
            "{} ticks ago at {window} Hz",
            tick - oldest
        );
        for _ in 0..2 * window {
            crowd.tick(1);
        }
        assert!(crowd.written.iter().all(|last| last.unwrap() >= oldest));
        assert_eq!(
            (0..window).map(|_| crowd.tick(1)).sum::<usize>(),
            0,
            "all is written"
        );
        crowd.nobody_has_ended();
    }
}

/// Seats that come and go do not bunch up those that are written.
#[test]
fn turnover_keeps_the_writes_even() {
    for hz in RATES {
        let pool = jtis(Jtis::OneMillisecond, 40_000);
        let (seated, waiting) = pool.split_at(10_000);
        let mut crowd = Crowd::new(seated, hz, FOR_EVER);
        crowd
            .index
            .extend(waiting.iter().copied().zip(seated.len()..));
        crowd.written.resize(pool.len(), None);
        crowd.ended.resize(pool.len(), None);
        let mut rng = ChaCha8Rng::seed_from_u64(hz.into());
        let mut waiting = waiting.iter();
        // 250 a tick at most: fewer than the slots that a table has to spare.
        while waiting.len() > 0 {
            for (number, session) in waiting.by_ref().take(200).enumerate() {
                let leaver = rng.random_range(0..crowd.handles.len());
                assert!(crowd.table.end(crowd.handles[leaver], EndReason::Left));
                let number = crowd.tick << 16 | number as u64;
                let installed = crowd
                    .table
                    .install(grant(*session, number), at(crowd.tick, hz));
                crowd.handles[leaver] = installed.unwrap().handle();
            }
            crowd.touch_all();
            crowd.tick(1);
        }
    }
}

/// Whatever its rhythm against the ticks, a client that sends within the idle time stays, and is written out each time.
#[test]
fn no_rhythm_makes_an_active_client_idle() {
    const SLOWEST: u64 = 120;
    for hz in RATES {
        // A rhythm of each length, at each of eight places in it, for sessions of all phases.
        let sessions = jtis(Jtis::Random, SLOWEST as u32 * 16);
        let every = |who: usize| 1 + who as u64 % SLOWEST;
        let offset = |who: usize| (who as u64 / SLOWEST) * 7;
        // Just long enough for the slowest, in whole seconds.
        let idle = Duration::from_secs(SLOWEST.div_ceil(hz.into()));
        let mut crowd = Crowd::new(&sessions, hz, idle);
        let mut sent = vec![0_u64; sessions.len()];
        for tick in 1..=10 * SLOWEST {
            for (who, handle) in crowd.handles.iter().enumerate() {
                if (tick + offset(who)).is_multiple_of(every(who)) {
                    crowd.table.touch(*handle);
                    sent[who] = tick;
                }
            }
            crowd.tick(1);
            for (written, sent) in crowd.written.iter().zip(&sent) {
                let late = sent + u64::from(hz) <= tick;
                assert!(!late || written.is_some_and(|written| written >= *sent));
            }
            crowd.nobody_has_ended();
        }
    }
}

/// Once in an idle time is enough, to the tick, also when ticks are skipped around it.
#[test]
fn once_in_an_idle_time_is_enough() {
    for hz in RATES {
        for (secs, skip) in [(1, 1), (3, 1), (3, 7), (10, 1)] {
            let idle = Duration::from_secs(secs);
            let sessions = jtis(Jtis::OneMillisecond, 1_000);
            let mut crowd = Crowd::new(&sessions, hz, idle);
            let period = secs * u64::from(hz);
            let mut sent = vec![0_u64; sessions.len()];
            while crowd.tick < 6 * period {
                let next = crowd.tick + skip;
                for (who, handle) in crowd.handles.iter().enumerate() {
                    // As late as it may.
                    if next + skip > sent[who] + period {
                        crowd.table.touch(*handle);
                        sent[who] = next;
                    }
                }
                crowd.tick(skip);
                crowd.nobody_has_ended();
            }
        }
    }
}

/// Who falls silent ends an idle time after its activity was written out, which is a window at most after it sent: within a second of
/// that, and never before an idle time since it sent.
#[test]
fn who_falls_silent_is_gone_within_a_second() {
    for hz in RATES {
        for secs in [1, 2, 5] {
            let sessions = jtis(Jtis::Random, 2_000);
            let mut crowd = Crowd::new(&sessions, hz, Duration::from_secs(secs));
            // Each falls silent on a tick of its own choice.
            let mut rng = ChaCha8Rng::seed_from_u64(secs);
            let silent: Vec<u64> = sessions
                .iter()
                .map(|_| rng.random_range(1..4 * u64::from(hz)))
                .collect();
            for tick in 1..=(4 + 1 + secs + 1) * u64::from(hz) {
                for (handle, silent) in crowd.handles.iter().zip(&silent) {
                    if tick <= *silent {
                        crowd.table.touch(*handle);
                    }
                }
                crowd.tick(1);
            }
            let (second, idle) = (u64::from(hz), secs * u64::from(hz));
            for ((ended, silent), written) in crowd.ended.iter().zip(&silent).zip(&crowd.written) {
                let ((tick, reason), written) = (ended.unwrap(), written.unwrap());
                assert_eq!(reason, EndReason::Idle);
                assert!((*silent..*silent + second).contains(&written));
                assert!(
                    tick >= silent + idle
                        && (written + idle..=written + idle + second).contains(&tick),
                    "sent on tick {silent}, written on {written}, ended on {tick}, at {hz} Hz with {secs} s of idle time"
                );
            }
        }
    }
}
