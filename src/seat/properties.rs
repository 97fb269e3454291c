//! The seat table against a plain list that does the same in the most obvious way: whatever comes, in whatever order.

use std::time::Duration;

use proptest::{prelude::*, test_runner::RngSeed};

use super::{
    Connection, EndReason, Grant, SamePlayer,
    model::{Model, PLAYERS, Rules, SESSIONS, WORKERS},
};
use crate::id::{ClientId, PlayerGeneration, PlayerId, SessionId};

#[derive(Debug, Clone, Copy)]
enum Step {
    Install {
        session: u8,
        generation: u8,
        worker: u8,
        life_ms: u64,
    },
    Touch(usize),
    Suspend {
        seat: usize,
        stale: bool,
    },
    End(usize, u32),
    EndConnection {
        seat: usize,
        stale: bool,
    },
    EndSession(u8),
    EndPlayer(u8, u8),
    EndAll,
    ExtendIdle(u8, u64),
    SetIdle(u64),
    Tick {
        skip: u64,
        ms: u64,
    },
    TakeClosings(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let tick = |ticks: std::ops::Range<u64>, ms: std::ops::Range<u64>| {
        (ticks, ms).prop_map(|(skip, ms)| Step::Tick { skip, ms })
    };
    // Most losses are of the connection that serves the seat.
    let stale = || prop::bool::weighted(0.2);
    prop_oneof![
        16 => (0..SESSIONS, 0..3_u8, 0..WORKERS, 0..20_000_u64).prop_map(
            |(session, generation, worker, life_ms)| Step::Install { session, generation, worker, life_ms }),
        16 => any::<usize>().prop_map(Step::Touch),
        12 => (any::<usize>(), stale()).prop_map(|(seat, stale)| Step::Suspend { seat, stale }),
        2 => (any::<usize>(), any::<u32>()).prop_map(|(seat, code)| Step::End(seat, code)),
        4 => (any::<usize>(), stale()).prop_map(|(seat, stale)| Step::EndConnection { seat, stale }),
        2 => (0..SESSIONS).prop_map(Step::EndSession),
        2 => (0..PLAYERS, 0..4_u8).prop_map(|(player, generation)| Step::EndPlayer(player, generation)),
        1 => Just(Step::EndAll),
        2 => (0..SESSIONS, 0..2_000_u64).prop_map(|(session, ms)| Step::ExtendIdle(session, ms)),
        2 => (1_000..6_000_u64).prop_map(Step::SetIdle),
        16 => tick(1..2, 0..300),
        4 => tick(0..5, 0..3_000),
        2 => tick(0..40, 0..300),
        2 => (0..WORKERS).prop_map(Step::TakeClosings),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let same_player = prop::sample::select(vec![
        SamePlayer::NewestWins,
        SamePlayer::OldestWins,
        SamePlayer::Allow,
    ]);
    let grace = prop::sample::select(vec![0, 200, 1_500, 5_000]);
    (same_player, grace).prop_map(|(same_player, ms)| Rules {
        same_player,
        grace: Duration::from_millis(ms),
    })
}

fn take(model: &mut Model, step: Step) {
    match step {
        Step::Install {
            session,
            generation,
            worker,
            life_ms,
        } => {
            let id = model.serial();
            model.install(Grant {
                session: SessionId(session.into()),
                player: PlayerId((session % PLAYERS).into()),
                player_generation: PlayerGeneration(generation.into()),
                client: ClientId(id),
                ends_at: model.now().after(Duration::from_millis(life_ms)),
                connection: Connection {
                    worker: worker.into(),
                    id,
                },
            });
        }
        Step::Touch(seat) => with(model, seat, |model, i| model.touch(i)),
        Step::Suspend { seat, stale } => with(model, seat, |model, i| model.suspend(i, stale)),
        Step::End(seat, code) => {
            with(model, seat, |model, i| {
                model.end(i, EndReason::Kicked(code))
            });
        }
        Step::EndConnection { seat, stale } => {
            with(model, seat, |model, i| model.end_connection(i, stale));
        }
        Step::EndSession(session) => model.end_session(SessionId(session.into())),
        Step::EndPlayer(player, generation) => {
            model.end_player(PlayerId(player.into()), PlayerGeneration(generation.into()));
        }
        Step::EndAll => model.end_all(),
        Step::ExtendIdle(session, ms) => {
            let active_at = model.now().before(Duration::from_millis(ms));
            model.extend_idle(SessionId(session.into()), active_at);
        }
        Step::SetIdle(ms) => model.set_idle(Duration::from_millis(ms)),
        Step::Tick { skip, ms } => model.tick(skip, Duration::from_millis(ms)),
        Step::TakeClosings(worker) => model.take_closings(worker),
    }
    model.compare();
}

fn with(model: &mut Model, seat: usize, act: impl FnOnce(&mut Model, usize)) {
    if let Some(i) = model.pick(seat) {
        act(model, i);
    }
}

fn agrees(rules: Rules, steps: Vec<Step>) {
    let mut model = Model::new(rules);
    for step in steps {
        take(&mut model, step);
    }
}

fn seeded(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(0x7469_636b),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded(600))]

    /// Short runs, which shrink to something to look at: some 45,000 steps.
    #[test]
    fn agrees_with_a_plain_list(rules in rules(), steps in prop::collection::vec(step(), 1..150)) {
        agrees(rules, steps);
    }
}

proptest! {
    #![proptest_config(seeded(24))]

    /// Long runs, in which slots go through many generations: some 48,000 steps.
    #[test]
    fn agrees_with_a_plain_list_for_long(
        rules in rules(),
        steps in prop::collection::vec(step(), 1_900..2_100),
    ) {
        agrees(rules, steps);
    }
}
