//! Latencies and counts: what the run records, in fixed memory however long it lasts.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

/// Latencies in microseconds, to three significant digits, up to a minute; what is longer counts as a minute.
///
/// A histogram per thread, merged at the end: recording takes no lock, and 100 million samples take the memory of one.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

impl Latencies {
    /// No sample yet.
    ///
    /// # Errors
    /// None in practice: only bounds that make no histogram fail, and these are constants.
    pub(crate) fn new() -> Result<Self, CreationError> {
        Histogram::new_with_bounds(1, LONGEST_US, 3).map(Self)
    }

    /// Records one latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.clamp(1, LONGEST_US));
    }

    /// Adds all samples of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Forgets all samples.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The figures that reports show.
    pub(crate) fn summary(&self) -> Summary {
        let at = |quantile| self.0.value_at_quantile(quantile).min(self.0.max());
        Summary {
            count: self.0.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max(),
        }
    }
}

/// Percentiles of one kind of latency, in microseconds, to three significant digits; all 0 without samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Summary {
    /// How many samples.
    pub(crate) count: u64,
    /// Half of the samples are at most this.
    pub(crate) p50: u64,
    /// 99 in 100 are at most this.
    pub(crate) p99: u64,
    /// 999 in 1,000 are at most this.
    pub(crate) p999: u64,
    /// The largest.
    pub(crate) max: u64,
}

/// Counts of inputs over one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct InputCounts {
    /// Inputs that were due of clients that should be playing.
    pub(crate) planned: u64,
    /// Of these, how many were sent, late ones included.
    pub(crate) sent: u64,
    /// Of these, how many the server acknowledged.
    pub(crate) acked: u64,
    /// Of those sent, how many stayed without an answer though their client played on.
    pub(crate) lost: u64,
    /// Of those sent, how many were without an answer when their client's connection was closed (the revoked).
    pub(crate) cut_off: u64,
}

impl InputCounts {
    fn add(&mut self, other: &Self) {
        self.planned += other.planned;
        self.sent += other.sent;
        self.acked += other.acked;
        self.lost += other.lost;
        self.cut_off += other.cut_off;
    }
}

/// All that one thread of the fleet records while its clients play.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    /// From the call to connect until Welcome.
    pub(crate) admission: Latencies,
    /// From the instant an input was due to the snapshot that acknowledges it.
    pub(crate) intended: Latencies,
    /// From the instant an input was sent to the snapshot that acknowledges it.
    pub(crate) sent: Latencies,
    /// From the instant an input was due to the instant it was sent: the generator's own trouble.
    pub(crate) lag: Latencies,
    /// The longest that each snapshot may have waited unread inside the generator: an upper bound, by snapshot.
    pub(crate) unread: Latencies,
    /// The latest that any input was sent, or any snapshot may have been read; warm-up and given up inputs included.
    pub(crate) largest_lag: Duration,
    /// Inputs of the measured window.
    pub(crate) measured: InputCounts,
    /// Inputs of the warm-up.
    pub(crate) warmup: InputCounts,
    /// Snapshots that acknowledged nothing new: duplicated, overtaken by a later one, or come too late.
    pub(crate) stale_snapshots: u64,
}

impl Recorder {
    /// Nothing recorded yet.
    ///
    /// # Errors
    /// As [`Latencies::new`].
    pub(crate) fn new() -> Result<Self, CreationError> {
        Ok(Self {
            admission: Latencies::new()?,
            intended: Latencies::new()?,
            sent: Latencies::new()?,
            lag: Latencies::new()?,
            unread: Latencies::new()?,
            largest_lag: Duration::ZERO,
            measured: InputCounts::default(),
            warmup: InputCounts::default(),
            stale_snapshots: 0,
        })
    }

    /// Adds all that `other` recorded.
    pub(crate) fn merge(&mut self, other: &Self) {
        let Self {
            admission,
            intended,
            sent,
            lag,
            unread,
            largest_lag,
            measured,
            warmup,
            stale_snapshots,
        } = other;
        self.admission.merge(admission);
        self.intended.merge(intended);
        self.sent.merge(sent);
        self.lag.merge(lag);
        self.unread.merge(unread);
        self.largest_lag = self.largest_lag.max(*largest_lag);
        self.measured.add(measured);
        self.warmup.add(warmup);
        self.stale_snapshots += stale_snapshots;
    }

    /// The counts that an input belongs to.
    pub(crate) fn counts(&mut self, measured: bool) -> &mut InputCounts {
        if measured {
            &mut self.measured
        } else {
            &mut self.warmup
        }
    }

    /// An input came to be sent `lag` after it was due.
    pub(crate) fn lagged(&mut self, measured: bool, lag: Duration) {
        self.largest_lag = self.largest_lag.max(lag);
        if measured {
            self.lag.record(lag);
        }
    }

    /// A snapshot was read that may have waited here for as long as `unread_for`.
    pub(crate) fn read(&mut self, measured: bool, unread_for: Duration) {
        self.largest_lag = self.largest_lag.max(unread_for);
        if measured {
            self.unread.record(unread_for);
        }
    }

    /// An input of age `since_due`, sent `since_sent` ago, was acknowledged.
    pub(crate) fn acknowledged(
        &mut self,
        measured: bool,
        since_due: Duration,
        since_sent: Duration,
    ) {
        self.counts(measured).acked += 1;
        if measured {
            self.intended.record(since_due);
            self.sent.record(since_sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut latencies = Latencies::new().unwrap();
        for micros in 1..=10_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 10_000);
        let near = |value: u64, exact: u64| value.abs_diff(exact) * 1_000 <= exact;
        assert!(near(summary.p50, 5_000), "{summary:?}");
        assert!(near(summary.p99, 9_900), "{summary:?}");
        assert!(near(summary.p999, 9_990), "{summary:?}");
        assert!(near(summary.max, 10_000), "{summary:?}");
    }

    #[test]
    fn no_sample_is_all_zero_and_an_endless_one_a_minute() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.summary(), Summary::default());
        latencies.record(Duration::from_secs(3_600));
        assert!(latencies.summary().max.abs_diff(LONGEST_US) <= LONGEST_US / 1_000);
    }

    #[test]
    fn merging_adds_up() {
        let mut a = Recorder::new().unwrap();
        let mut b = Recorder::new().unwrap();
        a.acknowledged(true, Duration::from_millis(5), Duration::from_millis(4));
        b.acknowledged(true, Duration::from_millis(9), Duration::from_millis(8));
        b.acknowledged(false, Duration::from_secs(1), Duration::from_secs(1));
        a.merge(&b);
        assert_eq!(a.measured.acked, 2);
        assert_eq!(a.warmup.acked, 1);
        assert_eq!(a.intended.summary().count, 2);
        assert!(a.sent.summary().max < 9_000);
    }
}
