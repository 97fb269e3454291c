//! The reference: the algorithm by which game servers commonly ask whether a session may stay, as a published game-server crate has it.
//!
//! A concurrent map from JTI text to the second of the last activity. A question is a look-up, the wall clock, and, when the tick and
//! a byte sum of the JTI say so, a second look-up that writes. Benchmarks have it as their baseline, and tests show its faults.

#![allow(
    dead_code,
    reason = "each of the targets that share this file uses a part of it"
)]

use dashmap::DashMap;

/// Seconds without activity after which a session is refused.
pub(crate) const IDLE_SECONDS: i64 = 3_600;
/// Seconds from login to the end that a session token claims. Looked at when the token is presented, at login and never again.
pub(crate) const TOKEN_SECONDS: i64 = 24 * 3_600;
/// Activity is written on one tick in so many.
pub(crate) const WINDOW: u64 = 60;

/// Where the reference reads the time. A type parameter, so that the benchmark's system clock costs no indirection.
pub(crate) trait Clock {
    /// Seconds since the Unix epoch.
    fn seconds(&self) -> i64;
}

/// The system's wall clock, which may step: what the reference runs on.
pub(crate) struct WallClock;

impl Clock for WallClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the reference reads the wall clock, and is measured as it is"
    )]
    fn seconds(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
            .cast_signed()
    }
}

/// The sessions of a server.
pub(crate) struct Reference<C = WallClock> {
    /// The second of each session's last activity, by JTI.
    sessions: DashMap<String, i64>,
    clock: C,
}

impl<C: Clock> Reference<C> {
    pub(crate) fn new(clock: C) -> Self {
        Self {
            sessions: DashMap::new(),
            clock,
        }
    }

    /// A session begins. (Its token then claims an end, [`TOKEN_SECONDS`] from now; that is no part of this state.)
    pub(crate) fn log_in(&self, jti: String) {
        self.sessions.insert(jti, self.clock.seconds());
    }

    /// May this session stay? Asked with the tick by the game's loop, and without one when a token is presented.
    pub(crate) fn is_session_authorized(&self, jti: &str, tick: Option<u64>) -> bool {
        let (now, is_due) = {
            let Some(active_at) = self.sessions.get(jti) else {
                return false;
            };
            let now = self.clock.seconds();
            if now - *active_at > IDLE_SECONDS {
                return false;
            }
            let jitter = byte_sum(jti);
            let is_due = tick.is_none_or(|tick| tick.wrapping_add(jitter).is_multiple_of(WINDOW));
            (now, is_due)
        };
        if is_due && let Some(mut active_at) = self.sessions.get_mut(jti) {
            *active_at = now;
        }
        true
    }

    /// Changes a session's token for the next one, which has a JTI of its own. False if the session may not stay.
    pub(crate) fn refresh(&self, jti: &str, next: String) -> bool {
        if !self.is_session_authorized(jti, None) {
            return false;
        }
        self.sessions.remove(jti);
        self.log_in(next);
        true
    }

    /// How many sessions are kept, whether or not they may stay.
    pub(crate) fn kept(&self) -> usize {
        self.sessions.len()
    }
}

/// What spreads the writes over the window.
pub(crate) fn byte_sum(jti: &str) -> u64 {
    jti.bytes()
        .fold(0, |sum: u64, byte| sum.wrapping_add(byte.into()))
}
