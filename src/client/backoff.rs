//! Pauses that double.

use std::time::Duration;

/// Pauses that double, and are spread: all the clients of a restarted gateway lose it in the same instant, and shall not come back in
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause; it doubles with each failure in a row.
    pub first: Duration,
    /// What it doubles up to.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after so many doublings, times half to one and a half as `random` has it.
    pub(super) fn pause(self, doublings: u32, random: u32) -> Duration {
        let due = self
            .first
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(self.longest);
        due.mul_f64(0.5 + share(random))
    }
}

/// A random number as a share, 0 to 1.
pub(super) fn share(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

/// A random number that need not be a secret: without one, pauses are merely not spread.
pub(super) fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}
