//! What a generator did, and whether that can be believed.

use std::{fmt, time::Duration};

/// A generator that is busier than this is measured itself.
const BUSIEST: f64 = 0.85;
/// What may go wrong in a run that counts: one in a thousand.
const LOST: f64 = 0.001;

/// What was asked of a generator and what came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) asked: usize,
    pub(crate) done: usize,
    /// How long it took.
    pub(crate) wall: Duration,
    /// Processor time of the generator meanwhile.
    pub(crate) cpu: Duration,
    /// How late things were begun, p99.
    pub(crate) late: Duration,
    /// How late they may be begun.
    pub(crate) latest: Duration,
}

impl Load {
    pub(crate) fn busy(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64()
    }

    /// Why the run says nothing about the server, if so: the generator was the limit.
    pub(crate) fn limited(&self) -> Option<String> {
        if self.busy() > BUSIEST {
            return Some(format!(
                "the generator was {:.0} % busy",
                100.0 * self.busy()
            ));
        }
        if self.late > self.latest {
            let (late, latest) = (self.late.as_secs_f64(), self.latest.as_secs_f64());
            return Some(format!(
                "the generator was {:.1} ms late, more than {:.1}",
                1e3 * late,
                1e3 * latest
            ));
        }
        None
    }

    /// Why the run does not count, if so: the generator was the limit, or not all was done that was asked.
    pub(crate) fn void(&self) -> Option<String> {
        let lost = self.lost();
        self.limited().or_else(|| {
            (lost as f64 > LOST * self.asked as f64)
                .then(|| format!("{lost} of {} were not done", self.asked))
        })
    }

    pub(crate) const fn lost(&self) -> usize {
        self.asked.saturating_sub(self.done)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "asked {}, done {}, lost {}; generator {:.0} % busy, {:.1} ms late at p99",
            self.asked,
            self.done,
            self.lost(),
            100.0 * self.busy(),
            1e3 * self.late.as_secs_f64(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_at_its_limit_and_work_undone_make_a_run_void() {
        let good = Load {
            asked: 10_000,
            done: 9_995,
            wall: Duration::from_secs(1),
            cpu: Duration::from_millis(800),
            late: Duration::from_millis(2),
            latest: Duration::from_millis(8),
        };
        assert_eq!((good.limited(), good.void()), (None, None));
        let busy = Load {
            cpu: Duration::from_millis(870),
            ..good
        };
        let late = Load {
            late: Duration::from_millis(9),
            ..good
        };
        assert!(busy.limited().is_some() && late.limited().is_some());
        let undone = Load {
            done: 9_980,
            ..good
        };
        assert!(undone.limited().is_none() && undone.void().is_some());
    }
}
