//! The five faults of the reference algorithm, each shown on the reference, and shown absent here under the same scenario.
//!
//! The reference is the one that the benchmarks have as their baseline, on a clock that these tests move.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

#[path = "../benches/reference/mod.rs"]
mod reference;
mod support;

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use allocation_counter::measure;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reference::{Clock, IDLE_SECONDS, Reference, TOKEN_SECONDS, WINDOW, byte_sum};
use support::{Stack, endpoint, plays};
use tickgate::{
    clock::Timestamp,
    id::{ClientId, PlayerGeneration, PlayerId, SessionId, Tick},
    seat::{
        ActivitySource, Connection, EndReason, Grant, Handle, SeatChange, SeatConfig, SeatTable,
        TickReport,
    },
};

const START: Timestamp = Timestamp(1_700_000_000_000);
const HZ: u64 = 60;
const IDLE: Duration = Duration::from_secs(IDLE_SECONDS.unsigned_abs());
const LIFE: Duration = Duration::from_secs(TOKEN_SECONDS.unsigned_abs());

/// When this tick is.
fn at(tick: u64) -> Timestamp {
    START.after(Duration::from_millis(tick * 1_000 / HZ))
}

fn ticks(of: Duration) -> u64 {
    of.as_secs() * HZ
}

/// What a game server's loop does with whatever keeps its sessions.
trait Keeper {
    /// A session logs in and enters the game.
    fn enter(&mut self, session: SessionId);
    /// The loop looks whether the session may stay.
    fn check(&mut self, session: SessionId, tick: u64) -> bool;
    /// A packet of the client has come, and the loop looks whether it may be played.
    fn packet(&mut self, session: SessionId, tick: u64) -> bool;
    /// All that happens on this tick has happened.
    fn end_tick(&mut self, tick: u64);
}

/// Seconds that a test moves by its ticks.
#[derive(Clone, Default)]
struct TickClock(Rc<Cell<u64>>);

impl Clock for TickClock {
    fn seconds(&self) -> i64 {
        (at(self.0.get()).0 / 1_000) as i64
    }
}

struct Theirs {
    reference: Reference<TickClock>,
    clock: TickClock,
}

impl Theirs {
    fn new() -> Self {
        let clock = TickClock::default();
        Self {
            reference: Reference::new(clock.clone()),
            clock,
        }
    }
}

impl Keeper for Theirs {
    fn enter(&mut self, session: SessionId) {
        self.reference.log_in(session.to_string());
    }

    fn check(&mut self, session: SessionId, tick: u64) -> bool {
        self.clock.0.set(tick);
        self.reference
            .is_session_authorized(&session.to_string(), Some(tick))
    }

    /// To be asked about is what the reference takes for activity.
    fn packet(&mut self, session: SessionId, tick: u64) -> bool {
        self.check(session, tick)
    }

    fn end_tick(&mut self, tick: u64) {
        self.clock.0.set(tick);
    }
}

struct Ours {
    table: SeatTable,
    handles: HashMap<SessionId, Handle>,
    report: TickReport,
    now: Timestamp,
    /// Who ended, why, and on which tick.
    ended: HashMap<SessionId, (EndReason, u64)>,
}

impl Ours {
    fn new(activity: ActivitySource) -> Self {
        Self {
            table: SeatTable::new(SeatConfig {
                capacity: 4_096,
                window: WINDOW as u32,
                idle: IDLE,
                activity,
                ..SeatConfig::default()
            }),
            handles: HashMap::new(),
            report: TickReport::default(),
            now: START,
            ended: HashMap::new(),
        }
    }
}

impl Keeper for Ours {
    fn enter(&mut self, session: SessionId) {
        let grant = Grant {
            session,
            player: PlayerId(session.0),
            player_generation: PlayerGeneration(0),
            client: ClientId(0),
            ends_at: self.now.after(LIFE),
            connection: Connection { worker: 0, id: 0 },
        };
        let handle = self.table.install(grant, self.now).unwrap().handle();
        self.handles.insert(session, handle);
    }

    fn check(&mut self, session: SessionId, _tick: u64) -> bool {
        self.table.verify(self.handles[&session]).is_live()
    }

    fn packet(&mut self, session: SessionId, tick: u64) -> bool {
        self.table.touch(self.handles[&session]);
        self.check(session, tick)
    }

    fn end_tick(&mut self, tick: u64) {
        self.now = at(tick);
        self.table.tick(Tick(tick), self.now, &mut self.report);
        for change in &self.report.changes {
            if let SeatChange::Ended {
                session, reason, ..
            } = change
            {
                self.ended.insert(*session, (*reason, tick));
            }
        }
        let mut closings = Vec::new();
        self.table.take_closings(0, &mut closings);
    }
}

fn sessions(count: usize, seed: u64) -> Vec<SessionId> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| SessionId(rng.random())).collect()
}

/// A server that looks once a minute whether its sessions may stay. Nobody sends anything for two hours. Who is still in?
fn two_hours_of_silence(keeper: &mut impl Keeper, sessions: &[SessionId]) -> HashSet<SessionId> {
    sessions.iter().for_each(|session| keeper.enter(*session));
    let minute = ticks(Duration::from_secs(60));
    let mut staying = HashSet::new();
    for tick in (1..=120).map(|minutes| minutes * minute) {
        staying = sessions
            .iter()
            .filter(|session| keeper.check(**session, tick))
            .copied()
            .collect();
        keeper.end_tick(tick);
    }
    staying
}

#[test]
fn fault_1_a_periodic_check_keeps_some_sessions_alive_for_ever() {
    let sessions = sessions(1_000, 1);
    let staying = two_hours_of_silence(&mut Theirs::new(), &sessions);
    let lucky = |session: &&SessionId| byte_sum(&session.to_string()).is_multiple_of(WINDOW);
    let expected: HashSet<_> = sessions.iter().filter(lucky).copied().collect();
    assert_eq!(
        staying, expected,
        "whose byte sum is 0 modulo 60, and nobody else"
    );
    assert!((5..50).contains(&staying.len()), "about 1.7 %");

    let mut ours = Ours::new(ActivitySource::Input);
    assert_eq!(two_hours_of_silence(&mut ours, &sessions), HashSet::new());
    assert_eq!(ours.ended.len(), sessions.len());
    for (reason, tick) in ours.ended.values() {
        assert_eq!(*reason, EndReason::Idle);
        // Seen as seated on the first tick, a minute on; the ticks are a minute apart.
        assert!((ticks(IDLE)..=ticks(IDLE + Duration::from_secs(120))).contains(tick));
    }
    // And where a check is meant to be activity, it is everybody's.
    let mut ours = Ours::new(ActivitySource::Verify);
    let staying = two_hours_of_silence(&mut ours, &sessions);
    assert_eq!(staying.len(), sessions.len());
}

/// Clients that send a packet every `every` ticks, each at a phase of its own, for an hour and a minute. Who was refused meanwhile?
fn an_hour_of_play(
    keeper: &mut impl Keeper,
    sessions: &[SessionId],
    every: u64,
) -> HashSet<SessionId> {
    sessions.iter().for_each(|session| keeper.enter(*session));
    let mut refused = HashSet::new();
    for tick in 1..=ticks(IDLE + Duration::from_secs(60)) {
        for (session, phase) in sessions.iter().zip((0..every).cycle()) {
            if tick % every == phase && !keeper.packet(*session, tick) {
                refused.insert(*session);
            }
        }
        keeper.end_tick(tick);
    }
    refused
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[test]
fn fault_2_clients_in_step_with_the_ticks_idle_out_while_they_play() {
    for every in [6, 7, 60] {
        let sessions = sessions(60, every);
        let refused = an_hour_of_play(&mut Theirs::new(), &sessions, every);
        let divisor = greatest_common_divisor(every, WINDOW);
        // Some packet's tick and the byte sum must add up to a multiple of 60.
        let unlucky = |(session, phase): &(&SessionId, u64)| {
            !(byte_sum(&session.to_string()) + phase).is_multiple_of(divisor)
        };
        let expected: HashSet<_> = sessions
            .iter()
            .zip((0..every).cycle())
            .filter(unlucky)
            .map(|(session, _)| *session)
            .collect();
        assert_eq!(refused, expected, "every {every} ticks");
        let kept = sessions.len() - refused.len();
        match divisor {
            1 => assert_eq!(kept, sessions.len()),
            _ => assert!(kept < sessions.len() / 3, "about one in {divisor}: {kept}"),
        }

        let mut ours = Ours::new(ActivitySource::Input);
        let refused = an_hour_of_play(&mut ours, &sessions, every);
        assert_eq!(refused, HashSet::new(), "every {every} ticks");
        assert_eq!(ours.ended, HashMap::new());
    }
}

/// One player, who sends all the time, for 25 hours. The tick of the first packet that was refused.
fn a_day_and_an_hour_of_play(keeper: &mut impl Keeper, session: SessionId) -> Option<u64> {
    keeper.enter(session);
    let mut refused = None;
    // Every seventh tick: in step with no window.
    for tick in (1..=ticks(LIFE + Duration::from_secs(3_600))).step_by(7) {
        if !keeper.packet(session, tick) {
            refused.get_or_insert(tick);
        }
        keeper.end_tick(tick);
    }
    refused
}

#[test]
fn fault_3_the_end_of_a_session_is_never_looked_at_again() {
    let session = sessions(1, 3)[0];
    let refused = a_day_and_an_hour_of_play(&mut Theirs::new(), session);
    assert_eq!(refused, None, "an hour past the end that its token claims");

    let mut ours = Ours::new(ActivitySource::Input);
    let refused = a_day_and_an_hour_of_play(&mut ours, session).unwrap();
    let (reason, ended) = ours.ended[&session];
    assert_eq!(reason, EndReason::Expired);
    // Within a second of its end and never before; the next packet, seven ticks later, is refused.
    assert!(
        at(ended) >= START.after(LIFE) && at(ended) <= START.after(LIFE + Duration::from_secs(1))
    );
    assert_eq!(refused, ended + 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_4_a_refresh_kicks_the_player_who_did_it() {
    let mut theirs = Theirs::new();
    let [session, next] = sessions(2, 4)[..] else {
        panic!("two were asked for")
    };
    theirs.enter(session);
    assert!(theirs.packet(session, 1));
    assert!(
        theirs
            .reference
            .refresh(&session.to_string(), next.to_string())
    );
    // The loop knows the player by the JTI with which it came in.
    assert!(
        !theirs.packet(session, 2),
        "in play, and refreshed a tick ago"
    );

    // The same with a real sidecar, gateway and client.
    let stack = Stack::start().await;
    let gateway = stack.plain_gateway("one").await;
    let (session, connection) = stack.join("ann", "one", &endpoint()).await;
    plays(&connection).await;
    let handle = gateway.seats.find(session.id).unwrap();
    let refreshed = stack.account.refresh(&session).await.unwrap();
    assert_ne!(refreshed.token, session.token);
    assert_eq!(
        refreshed.id, session.id,
        "the JTI is the session's, not the token's"
    );
    plays(&connection).await;
    assert!(gateway.seats.verify(handle).is_live());
    assert!(gateway.seats.is_session_authorized(session.id));
    gateway.stop().await;
}

/// A wave of players who log in, play for a second and are gone without a word; then the time after which they have idled out.
fn wave(keeper: &mut impl Keeper, sessions: &[SessionId], start: u64) {
    sessions.iter().for_each(|session| keeper.enter(*session));
    for tick in start + 1..=start + HZ {
        for session in sessions {
            assert!(keeper.packet(*session, tick));
        }
        keeper.end_tick(tick);
    }
    // The game goes on without them: their last packets are written out, and an hour later what is due is found, and told.
    let later = start + ticks(IDLE + Duration::from_secs(10));
    for tick in (start + HZ + 1..=start + 3 * HZ).chain(later..later + 2 * HZ) {
        keeper.end_tick(tick);
    }
    for session in sessions {
        assert!(!keeper.check(*session, later + 2 * HZ), "idled out");
    }
}

#[test]
fn fault_5_the_maps_are_never_purged() {
    const WAVES: u64 = 6;
    const PLAYERS: usize = 1_000;
    let start = |wave: u64| wave * ticks(IDLE + Duration::from_secs(60));

    let mut theirs = Theirs::new();
    let mut bytes = Vec::new();
    for number in 0..WAVES {
        let players = sessions(PLAYERS, 50 + number);
        let counted = measure(|| wave(&mut theirs, &players, start(number)));
        bytes.push(counted.bytes_current);
    }
    assert_eq!(theirs.reference.kept(), WAVES as usize * PLAYERS);
    // Each wave leaves at least its JTIs behind.
    assert!(
        bytes.iter().all(|bytes| *bytes >= 26 * PLAYERS as i64),
        "{bytes:?}"
    );

    let mut ours = Ours::new(ActivitySource::Input);
    let mut bytes = Vec::new();
    for number in 0..WAVES {
        let players = sessions(PLAYERS, 50 + number);
        let counted = measure(|| {
            wave(&mut ours, &players, start(number));
            // What the test itself has noted is not the table's.
            (ours.handles, ours.ended) = (HashMap::new(), HashMap::new());
        });
        bytes.push(counted.bytes_current);
        assert!(ours.table.is_empty());
        assert_eq!(ours.table.used(), 0);
        assert!(
            players
                .iter()
                .all(|player| ours.table.find(*player).is_none())
        );
    }
    // The first waves grow what is used again and again; the last ones leave nothing behind.
    assert!(bytes[0] > 0);
    let last: i64 = bytes[WAVES as usize / 2..].iter().sum();
    assert!(last <= 0, "{bytes:?}");
}
