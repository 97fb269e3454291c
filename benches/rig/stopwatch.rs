//! Time for benchmarks: the monotonic clock, and figures made of it.

use std::time::{Duration, Instant};

/// The monotonic clock, read where a measurement starts. Reading it costs 20 to 50 ns.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures time itself"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a paced benchmark sleeps as a game does"
)]
pub(crate) fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(start());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// In nanoseconds.
pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// The value that `part` of the samples do not exceed (nearest rank); NaN without samples.
pub(crate) fn percentile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted
        .get(rank.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// The middle of the samples; NaN without samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 0.5)
}
