//! When to refresh a session's tokens, and what to do when that fails: a state machine without I/O. Time and chance come in, and what is
//! to be done goes out.
//!
//! A refresh token works once. When an answer is lost, nobody on this side knows whether the sidecar made the successor. Asking again
//! with the same token is right for as long as the sidecar's grace lasts, and after it may be taken for a theft, which ends the session.
//! So in doubt the schedule asks again quickly, and if the grace passes without an answer, it stops and asks once more only when the
//! session token is about to expire or nobody can go on without: the player in the match plays on undisturbed until then.

use std::time::{Duration, Instant};

use crate::client::backoff::{Backoff, share};

/// The sidecar's grace for a lost answer (`Refresh` in auth.proto).
const GRACE: Duration = Duration::from_secs(10);
/// How long before the end of the grace the last question in doubt is asked: it has to arrive, too.
const TRANSIT: Duration = Duration::from_secs(2);
/// Pauses after a question that certainly did nothing: a sidecar that restarts is back within seconds.
const UNREACHED: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(10),
};
/// Pauses in doubt: several questions have to fit into the grace.
const IN_DOUBT: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(1),
};
/// When, before the session token expires, a question is dared whose answer may end the session.
const LAST_MOMENT: Duration = Duration::from_secs(15);

/// When a session's tokens are refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// The earliest instant, as a share of the session token's life in percent. Default 60: at 15 min that is after 9 min.
    pub earliest_percent: u8,
    /// The latest one, likewise; which instant between both is drawn at random, so that players who logged in together do not refresh
    /// together. Default 80: at 15 min, 3 min are left to sit out a sidecar's restart.
    pub latest_percent: u8,
    /// The least time between two refreshes, however short the tokens seem to live: on a machine whose clock is wrong they may seem
    /// to be expired when they come. Default 10 s.
    pub floor: Duration,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            earliest_percent: 60,
            latest_percent: 80,
            floor: Duration::from_secs(10),
        }
    }
}

/// What is known of tokens that have just come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fresh {
    /// How long the session token lives.
    pub(super) token_left: Duration,
    /// How long the session lives.
    pub(super) session_left: Duration,
    /// Whether there is a refresh token.
    pub(super) renewable: bool,
}

/// How a refresh failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The refresh token is not accepted: the session is over.
    Refused,
    /// The sidecar was not reached, or did not do it.
    NotRun,
    /// The sidecar may have done it, and its answer was lost.
    Lost,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the sidecar; then say how that went.
    Ask,
    /// Nothing until then, unless somebody is in need.
    WaitUntil(Instant),
    /// Nothing ever again.
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next question is due then. `need` says whether somebody in need may have it asked at once.
    Due {
        at: Instant,
        need: bool,
    },
    Asking {
        since: Instant,
    },
    Over,
}

/// The schedule of one session.
#[derive(Debug)]
pub(super) struct Schedule {
    policy: RefreshPolicy,
    state: State,
    token_expires_at: Instant,
    /// Questions without an answer, in a row.
    failures: u32,
    /// When the first question of the row was asked that may have had its effect.
    doubt: Option<Instant>,
}

impl Schedule {
    pub(super) fn new(policy: RefreshPolicy, fresh: Fresh, now: Instant, random: u32) -> Self {
        let mut schedule = Self {
            policy,
            state: State::Over,
            token_expires_at: now,
            failures: 0,
            doubt: None,
        };
        schedule.renewed(fresh, now, random);
        schedule
    }

    /// What to do now. After [`Step::Ask`] comes [`renewed`](Self::renewed) or [`failed`](Self::failed).
    pub(super) fn step(&mut self, now: Instant) -> Step {
        match self.state {
            State::Due { at, .. } if at <= now => {
                self.state = State::Asking { since: now };
                Step::Ask
            }
            State::Due { at, .. } => Step::WaitUntil(at),
            State::Asking { .. } | State::Over => Step::Rest,
        }
    }

    /// Somebody has no session token that is accepted.
    pub(super) fn needed(&mut self, now: Instant) {
        if let State::Due { at, need: true } = &mut self.state {
            *at = now.min(*at);
        }
    }

    /// New tokens have come.
    pub(super) fn renewed(&mut self, fresh: Fresh, now: Instant, random: u32) {
        let Fresh {
            token_left,
            session_left,
            renewable,
        } = fresh;
        self.token_expires_at = now + token_left;
        self.failures = 0;
        self.doubt = None;
        if !renewable {
            self.state = State::Over;
            return;
        }
        // A token that lives to the session's end has no better successor: the question then is whether the session has ended.
        let life = if token_left >= session_left {
            session_left
        } else {
            let from = f64::from(self.policy.earliest_percent.min(100));
            let to = f64::from(self.policy.latest_percent.min(100)).max(from);
            let percent = (to - from).mul_add(share(random), from);
            token_left.mul_f64(percent / 100.0)
        };
        self.state = State::Due {
            at: now + life.max(self.policy.floor),
            need: true,
        };
    }

    /// The question brought no new tokens.
    pub(super) fn failed(&mut self, failure: Failure, now: Instant, random: u32) {
        let State::Asking { since } = self.state else {
            return;
        };
        match failure {
            Failure::Refused => {
                self.state = State::Over;
                return;
            }
            Failure::NotRun => {}
            Failure::Lost => {
                self.doubt.get_or_insert(since);
            }
        }
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        self.state = match self.doubt {
            // Whoever is in need waits as well: the sidecar is no nearer for being asked more often.
            None => State::Due {
                at: now + UNREACHED.pause(failures, random),
                need: false,
            },
            Some(doubt) => {
                let at = now + IN_DOUBT.pause(failures, random);
                if at + TRANSIT <= doubt + GRACE {
                    State::Due { at, need: false }
                } else {
                    let pause = UNREACHED.pause(failures, random);
                    let last = self.token_expires_at.checked_sub(LAST_MOMENT);
                    State::Due {
                        at: last.map_or(now, |last| last.max(now)) + pause,
                        need: true,
                    }
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    const MINUTE: Duration = Duration::from_secs(60);
    const FRESH: Fresh = Fresh {
        token_left: Duration::from_secs(900),
        session_left: Duration::from_secs(86_400),
        renewable: true,
    };

    fn now() -> Instant {
        ManualTime::starting_at(Timestamp(0)).clock().now()
    }

    fn schedule(now: Instant) -> Schedule {
        Schedule::new(RefreshPolicy::default(), FRESH, now, u32::MAX / 2)
    }

    fn wait(step: Step) -> Instant {
        match step {
            Step::WaitUntil(at) => at,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the next question, and asks it.
    fn ask(schedule: &mut Schedule, now: Instant) -> Instant {
        match schedule.step(now) {
            Step::Ask => now,
            Step::WaitUntil(at) => {
                assert_eq!(schedule.step(at), Step::Ask);
                at
            }
            Step::Rest => panic!("rests"),
        }
    }

    #[test]
    fn it_asks_well_before_the_token_expires_and_not_with_everybody() {
        let now = now();
        for (random, minutes) in [(0, 9), (u32::MAX, 12)] {
            let mut schedule = Schedule::new(RefreshPolicy::default(), FRESH, now, random);
            let due = wait(schedule.step(now)) - now;
            let off = due.abs_diff(minutes * MINUTE);
            assert!(off < Duration::from_millis(1), "{due:?}");
        }
    }

    #[test]
    fn it_asks_once_at_a_time() {
        let now = now();
        let mut schedule = schedule(now);
        schedule.needed(now);
        assert_eq!(schedule.step(now), Step::Ask);
        schedule.needed(now);
        assert_eq!(schedule.step(now), Step::Rest);
        schedule.renewed(FRESH, now, 0);
        assert!(wait(schedule.step(now)) >= now + 9 * MINUTE);
    }

    #[test]
    fn tokens_that_seem_expired_do_not_make_it_hurry() {
        let now = now();
        let late = Fresh {
            token_left: Duration::ZERO,
            ..FRESH
        };
        let mut schedule = Schedule::new(RefreshPolicy::default(), late, now, 0);
        assert_eq!(wait(schedule.step(now)), now + Duration::from_secs(10));
    }

    #[test]
    fn a_token_that_lives_as_long_as_its_session_is_not_renewed() {
        let now = now();
        let last = Fresh {
            token_left: 5 * MINUTE,
            session_left: 5 * MINUTE,
            ..FRESH
        };
        let mut schedule = Schedule::new(RefreshPolicy::default(), last, now, 0);
        let end = now + 5 * MINUTE;
        assert_eq!(wait(schedule.step(now)), end);
        assert_eq!(schedule.step(end), Step::Ask);
        schedule.failed(Failure::Refused, end, 0);
        assert_eq!(schedule.step(end), Step::Rest);
    }

    #[test]
    fn without_a_refresh_token_there_is_nothing_to_do() {
        let now = now();
        let bare = Fresh {
            renewable: false,
            ..FRESH
        };
        let mut schedule = Schedule::new(RefreshPolicy::default(), bare, now, 0);
        schedule.needed(now);
        assert_eq!(schedule.step(now + 60 * MINUTE), Step::Rest);
    }

    #[test]
    fn an_outage_is_sat_out() {
        let mut at = now();
        let mut schedule = schedule(at);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let asked = ask(&mut schedule, at);
            pauses.push(asked - at);
            at = asked;
            schedule.failed(Failure::NotRun, at, u32::MAX);
            // Need does not shorten the pauses.
            schedule.needed(at);
        }
        assert!(pauses[1..].is_sorted());
        assert!(pauses[11] <= Duration::from_secs(15));
        let asked = ask(&mut schedule, at);
        schedule.renewed(FRESH, asked, 0);
        assert!(wait(schedule.step(asked)) >= asked + 9 * MINUTE);
    }

    #[test]
    fn a_lost_answer_is_asked_for_again_within_the_grace_and_then_no_more() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for _ in 0..200 {
            let start = now();
            let mut schedule = schedule(start);
            let first = ask(&mut schedule, start);
            let mut at = first;
            let mut within = 0;
            loop {
                // An answer is given up after up to 3 s.
                at += Duration::from_millis(random.random_range(0..=3_000));
                let failure = if random.random_bool(0.8) || within == 0 {
                    Failure::Lost
                } else {
                    Failure::NotRun
                };
                schedule.failed(failure, at, random.random());
                at = ask(&mut schedule, at);
                if at - first > GRACE {
                    break;
                }
                assert!(
                    at - first + TRANSIT <= GRACE,
                    "asks when the grace may be over"
                );
                within += 1;
            }
            assert!(within >= 2, "asked again {within} times");
            // Not until the token is about to expire, 15 min after it came.
            assert!(at - start >= 15 * MINUTE - LAST_MOMENT, "{:?}", at - start);
        }
    }

    #[test]
    fn in_doubt_need_decides() {
        let start = now();
        let mut schedule = schedule(start);
        let asked = ask(&mut schedule, start);
        let late = asked + Duration::from_secs(9);
        schedule.failed(Failure::Lost, late, 0);
        assert!(wait(schedule.step(late)) > late + MINUTE);
        schedule.needed(late + MINUTE);
        assert_eq!(schedule.step(late + MINUTE), Step::Ask);
        schedule.failed(Failure::Refused, late + MINUTE, 0);
        assert_eq!(schedule.step(late + 60 * MINUTE), Step::Rest);
    }
}
