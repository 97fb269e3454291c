//! What will happen and when, as a pure function of the settings and a seed: the timetable of sends, who is revoked, which
//! villains come.
//!
//! The generator is *open loop*: send `k` of client `i` is due at `phase(i) + k / hz` after the start, whatever came of the sends
//! before it. A server that stalls therefore finds the sends of the stall waiting, as it would with real players.

use std::time::Duration;

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// What the plan is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How many clients play.
    pub(crate) clients: u32,
    /// How many inputs each client sends in a second.
    pub(crate) hz: u32,
    /// Play before the measured window: sent and answered alike, and kept out of the figures.
    pub(crate) warmup: Duration,
    /// The measured window.
    pub(crate) duration: Duration,
    /// How many of the clients are revoked in the measured window.
    pub(crate) revocations: u32,
    /// How many villains of each kind come in the measured window.
    pub(crate) villains_of_each_kind: u32,
    /// What the random choices follow from.
    pub(crate) seed: u64,
}

/// A way to get in without the right to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum VillainKind {
    /// Presents a connect token that another client has used.
    Replayed,
    /// Presents a connect token after its end and the leeway.
    Expired,
    /// Presents a connect token that the sidecar never sealed.
    Forged,
    /// Presents a genuine connect token of another gateway.
    WrongGateway,
    /// Presents a session token in a connect token's place.
    SessionToken,
    /// Presents a connect token whose session was revoked after it was minted.
    Revoked,
}

impl VillainKind {
    /// Every kind.
    pub(crate) const ALL: [Self; 6] = [
        Self::Replayed,
        Self::Expired,
        Self::Forged,
        Self::WrongGateway,
        Self::SessionToken,
        Self::Revoked,
    ];

    /// Its fixed name in reports.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Expired => "expired",
            Self::Forged => "forged",
            Self::WrongGateway => "wrong_gateway",
            Self::SessionToken => "session_token",
            Self::Revoked => "revoked",
        }
    }
}

/// A revocation: when, after the start of play, and of which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedRevocation {
    /// When RevokeSession is due, after the start of play.
    pub(crate) at: Duration,
    /// The index of the client whose session it ends.
    pub(crate) client: u32,
}

/// A villain: when, after the start of play, and what it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedVillain {
    /// When its connection attempt is due, after the start of play.
    pub(crate) at: Duration,
    /// What it tries.
    pub(crate) kind: VillainKind,
    /// Which of the kind it is: variations go by it.
    pub(crate) number: u32,
    /// What its own random choices follow from.
    pub(crate) seed: u64,
}

/// The whole plan of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What it was made from.
    pub(crate) settings: Settings,
    /// When each client's first send is due after the start, below one send interval; uniform, so that the load is even.
    pub(crate) phases: Vec<Duration>,
    /// Revocations, in order of their time.
    pub(crate) revocations: Vec<PlannedRevocation>,
    /// Villains, in order of their time.
    pub(crate) villains: Vec<PlannedVillain>,
}

impl Plan {
    /// The plan that follows from `settings`: the same settings give the same plan.
    pub(crate) fn new(settings: Settings) -> Self {
        // A stream per purpose, so that more revocations do not move the schedule of sends.
        let stream = |number| {
            let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
            rng.set_stream(number);
            rng
        };
        Self {
            settings,
            phases: phases(&settings, &mut stream(1)),
            revocations: revocations(&settings, &mut stream(2)),
            villains: villains(&settings, &mut stream(3)),
        }
    }

    /// How long play lasts, warm-up included.
    pub(crate) fn play(&self) -> Duration {
        self.settings.warmup + self.settings.duration
    }

    /// The timetable of the clients `members` (indices into `phases`).
    pub(crate) fn timetable(&self, members: impl Iterator<Item = u32>) -> Timetable {
        let mut order: Vec<(Duration, usize)> = members
            .enumerate()
            .filter_map(|(member, client)| Some((*self.phases.get(client as usize)?, member)))
            .collect();
        order.sort_unstable();
        Timetable {
            order,
            hz: self.settings.hz,
            end: self.play(),
            round: 0,
            position: 0,
        }
    }
}

/// The time between two sends of a client.
pub(crate) fn interval(hz: u32) -> Duration {
    after_start(1, hz)
}

/// `k / hz` seconds. Computed from `k` each time and not added up, so that nothing drifts.
fn after_start(k: u64, hz: u32) -> Duration {
    let nanos = u128::from(k) * 1_000_000_000 / u128::from(hz.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn phases(settings: &Settings, rng: &mut ChaCha8Rng) -> Vec<Duration> {
    let interval = u64::try_from(interval(settings.hz).as_nanos()).unwrap_or(u64::MAX);
    (0..settings.clients)
        .map(|_| Duration::from_nanos(rng.random_range(0..interval.max(1))))
        .collect()
}

/// Where in the measured window things are done to the game: not at its very start, where they would meet the last joins, and not
/// so late that their effect would be cut off.
const BUSY_PART: (f64, f64) = (0.05, 0.85);

/// The instants of `count` events spread evenly over the busy part of the measured window.
fn spread(settings: &Settings, count: u32) -> impl Iterator<Item = Duration> + use<> {
    let (from, to) = BUSY_PART;
    let (warmup, duration) = (settings.warmup, settings.duration);
    (0..count).map(move |i| {
        let share = from + (to - from) * (f64::from(i) + 0.5) / f64::from(count);
        warmup + duration.mul_f64(share)
    })
}

fn revocations(settings: &Settings, rng: &mut ChaCha8Rng) -> Vec<PlannedRevocation> {
    let mut clients: Vec<u32> = (0..settings.clients).collect();
    clients.shuffle(rng);
    spread(settings, settings.revocations)
        .zip(clients)
        .map(|(at, client)| PlannedRevocation { at, client })
        .collect()
}

fn villains(settings: &Settings, rng: &mut ChaCha8Rng) -> Vec<PlannedVillain> {
    let each = settings.villains_of_each_kind;
    let mut all: Vec<(VillainKind, u32)> = VillainKind::ALL
        .into_iter()
        .flat_map(|kind| (0..each).map(move |number| (kind, number)))
        .collect();
    all.shuffle(rng);
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    spread(settings, count)
        .zip(all)
        .map(|(at, (kind, number))| PlannedVillain {
            at,
            kind,
            number,
            seed: rng.random(),
        })
        .collect()
}

/// One send that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Who sends: the position among the members that the timetable was made for.
    pub(crate) member: usize,
    /// Which of its sends it is, counted from 0.
    pub(crate) number: u64,
    /// When it is due, after the start of play.
    pub(crate) at: Duration,
}

/// All sends of some clients in the order in which they are due.
///
/// Every client has the same rate, so the order of a round is the order of the phases, and the timetable needs no heap: the next
/// send is always the next client in that order.
#[derive(Debug, Clone)]
pub(crate) struct Timetable {
    order: Vec<(Duration, usize)>,
    hz: u32,
    end: Duration,
    round: u64,
    position: usize,
}

impl Timetable {
    fn peek(&self) -> Option<Due> {
        let &(phase, member) = self.order.get(self.position)?;
        let at = phase.saturating_add(after_start(self.round, self.hz));
        (at < self.end).then_some(Due {
            member,
            number: self.round,
            at,
        })
    }
}

impl Iterator for Timetable {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let due = self.peek()?;
        self.position += 1;
        if self.position == self.order.len() {
            self.position = 0;
            self.round += 1;
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        clients: 50,
        hz: 30,
        warmup: Duration::from_secs(1),
        duration: Duration::from_secs(3),
        revocations: 10,
        villains_of_each_kind: 4,
        seed: 7,
    };

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_seed_another() {
        let plan = Plan::new(SETTINGS);
        assert_eq!(plan, Plan::new(SETTINGS));
        let other = Plan::new(Settings {
            seed: 8,
            ..SETTINGS
        });
        assert_ne!(plan.phases, other.phases);
        assert_ne!(plan.revocations, other.revocations);
    }

    #[test]
    fn more_revocations_do_not_move_the_schedule() {
        let plan = Plan::new(Settings {
            revocations: 20,
            ..SETTINGS
        });
        assert_eq!(plan.phases, Plan::new(SETTINGS).phases);
        assert_eq!(plan.villains, Plan::new(SETTINGS).villains);
    }

    #[test]
    fn every_client_sends_hz_times_a_second_at_its_phase_and_never_drifts() {
        let plan = Plan::new(SETTINGS);
        let mut sends = vec![0_u64; 50];
        let mut last = Duration::ZERO;
        for due in plan.timetable(0..50) {
            assert!(due.at >= last, "out of order");
            last = due.at;
            let count = &mut sends[due.member];
            assert_eq!(due.number, *count);
            let exact = plan.phases[due.member].as_secs_f64() + *count as f64 / 30.0;
            assert!((due.at.as_secs_f64() - exact).abs() < 1e-8);
            *count += 1;
        }
        // 4 s of play, warm-up included, at 30 Hz.
        assert!(sends.iter().all(|count| *count == 120));
    }

    #[test]
    fn parts_of_a_timetable_make_up_the_whole() {
        let plan = Plan::new(SETTINGS);
        let even = plan.timetable((0..50).step_by(2)).map(|due| Due {
            member: due.member * 2,
            ..due
        });
        let odd = plan.timetable((1..50).step_by(2)).map(|due| Due {
            member: due.member * 2 + 1,
            ..due
        });
        let mut parts: Vec<Due> = even.chain(odd).collect();
        parts.sort_unstable_by_key(|due| (due.at, due.member));
        let whole: Vec<Due> = plan.timetable(0..50).collect();
        assert_eq!(parts, whole);
    }

    #[test]
    fn an_empty_timetable_ends_at_once() {
        assert_eq!(Plan::new(SETTINGS).timetable(0..0).next(), None);
    }

    #[test]
    fn the_revoked_are_different_clients_inside_the_measured_window() {
        let plan = Plan::new(SETTINGS);
        let mut clients: Vec<u32> = plan.revocations.iter().map(|r| r.client).collect();
        clients.sort_unstable();
        clients.dedup();
        assert_eq!(clients.len(), 10);
        assert!(plan.revocations.is_sorted_by_key(|r| r.at));
        for revocation in &plan.revocations {
            assert!(revocation.at > SETTINGS.warmup && revocation.at < plan.play());
        }
    }

    #[test]
    fn as_many_villains_of_each_kind_as_asked() {
        let plan = Plan::new(SETTINGS);
        for kind in VillainKind::ALL {
            let count = plan.villains.iter().filter(|v| v.kind == kind).count();
            assert_eq!(count, 4);
        }
    }
}
