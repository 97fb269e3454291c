//! How late ticks began, as percentiles from an array of fixed size.

use std::time::Duration;

/// How late ticks began, measured from when each was due. A tick that follows an overrun is late too.
///
/// The percentiles are at most a sixteenth too high, the most is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Jitter {
    /// Half of all ticks began no later than this.
    pub p50: Duration,
    /// Of 100 ticks 99 began no later than this.
    pub p99: Duration,
    /// The latest.
    pub max: Duration,
}

/// Steps per power of two: 16.
const STEP_BITS: u32 = 4;
const STEPS: usize = 1 << STEP_BITS;
/// What is longer than 2^36 ns, 69 s, is counted as that; the most is told all the same.
const LONGEST_BITS: u32 = 36;
/// The values up to a step's count one by one, then so many steps per power of two: 4 KiB.
const BUCKETS: usize = STEPS * (LONGEST_BITS - STEP_BITS + 1) as usize;

/// A log-linear histogram of durations, in nanoseconds: to note one costs some shifts and an addition, and no allocation ever.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    max: Duration,
}

impl Histogram {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            total: 0,
            max: Duration::ZERO,
        }
    }

    /// Notes that a tick began so late.
    pub(super) fn note(&mut self, late: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(nanos(late))) {
            *count += 1;
            self.total += 1;
        }
        self.max = self.max.max(late);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.max = Duration::ZERO;
    }

    /// What was noted so far. A pass over the array: for now and then, not for every tick.
    pub(super) fn jitter(&self) -> Jitter {
        Jitter {
            p50: self.percentile(50),
            p99: self.percentile(99),
            max: self.max,
        }
    }

    /// A duration that so many of 100 do not exceed.
    fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let most = reached.map_or(self.max, |bucket| Duration::from_nanos(longest(bucket)));
        most.min(self.max)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a value is counted.
const fn bucket(value: u64) -> usize {
    let value = if value >> LONGEST_BITS == 0 {
        value
    } else {
        (1 << LONGEST_BITS) - 1
    };
    if value < STEPS as u64 {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    let step = (value >> shift) as usize - STEPS;
    STEPS * (shift as usize + 1) + step
}

/// The largest value that is counted there.
const fn longest(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (shift, step) = (bucket / STEPS - 1, bucket % STEPS);
    (((STEPS + step + 1) as u64) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn every_value_is_counted_a_sixteenth_too_high_at_most() {
        let mut last = 0;
        for value in (0..100_000).chain((0..36).flat_map(|bits| {
            let power = 1_u64 << bits;
            [power - 1, power, power + 1]
        })) {
            let told = longest(bucket(value));
            assert!(
                told >= value && told - value <= value / 16,
                "{value}: {told}"
            );
        }
        for bucket in 0..BUCKETS {
            assert_eq!(super::bucket(longest(bucket)), bucket);
            assert!(bucket == 0 || longest(bucket) > last);
            last = longest(bucket);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(last, (1 << LONGEST_BITS) - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.jitter(), Jitter::default());
        // 990 of a thousand are below 100 us, ten are above a millisecond.
        for n in 0..1_000_u64 {
            histogram.note(us(if n % 100 == 99 { 1_000 + n } else { n % 100 }));
        }
        let Jitter { p50, p99, max } = histogram.jitter();
        assert!(p50 >= us(49) && p50 <= us(52), "{p50:?}");
        assert!(p99 >= us(98) && p99 <= us(105), "{p99:?}");
        assert_eq!(max, us(1_999));
        histogram.note(Duration::from_secs(3_600));
        assert_eq!(histogram.jitter().max, Duration::from_secs(3_600));
        histogram.clear();
        histogram.note(us(7));
        let all = Jitter {
            p50: us(7),
            p99: us(7),
            max: us(7),
        };
        assert_eq!(histogram.jitter(), all);
    }
}
