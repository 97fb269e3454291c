//! What other threads do on the table while one is measured.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use super::{
    crowd::Crowd,
    stopwatch::{self, sleep_until},
};

/// Inserts a second, and as many revocations.
pub(crate) const WRITES_PER_SECOND: u64 = 1_000;

/// Who works on the table beside the thread that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// Nobody.
    Alone,
    /// A second thread, which verifies everybody all the time.
    Verifier,
    /// A writer: a thousand inserts and a thousand revocations a second, evenly spread.
    Writer,
}

impl Company {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Verifier => "beside a verifier",
            Self::Writer => "beside a writer",
        }
    }

    /// Does `act` in this company, which has begun before `act` does and ends with it. None if the company fell behind because the
    /// machine had no time for it: what was measured then is of less than was asked for, and must not look like a result.
    pub(crate) fn beside<R>(self, crowd: &Crowd, act: impl FnOnce() -> R) -> Option<R> {
        let stop = AtomicBool::new(false);
        let done = AtomicU64::new(0);
        let fell_behind = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            match self {
                Self::Alone => {}
                Self::Verifier => {
                    scope.spawn(|| verify(crowd, &stop, &done));
                }
                Self::Writer => {
                    scope.spawn(|| {
                        fell_behind.store(!write(crowd, &stop, &done), Ordering::Release)
                    });
                }
            }
            while self != Self::Alone && done.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            // Set when `act` panics too, or the scope would wait for ever.
            let _stop = StopOnDrop(&stop);
            act()
        });
        (!fell_behind.into_inner()).then_some(outcome)
    }

    /// The same, again as long as the company falls behind, three times at most.
    pub(crate) fn beside_on_time<R>(self, crowd: &Crowd, mut act: impl FnMut() -> R) -> Option<R> {
        (0..3).find_map(|_| self.beside(crowd, &mut act))
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn verify(crowd: &Crowd, stop: &AtomicBool, done: &AtomicU64) {
    while !stop.load(Ordering::Acquire) {
        for handle in &crowd.handles {
            let _ = black_box(crowd.table.verify(black_box(*handle)));
        }
        done.fetch_add(1, Ordering::Release);
    }
}

/// Each write has its due instant; whoever wakes late catches up. False if more than a twentieth was still to be done in the end.
fn write(crowd: &Crowd, stop: &AtomicBool, done: &AtomicU64) -> bool {
    let mut guests = crowd.guests();
    let mut closings = Vec::new();
    let started = stopwatch::start();
    let (mut writes, mut refused) = (0_u64, 0_u64);
    while !stop.load(Ordering::Acquire) {
        let due = started.elapsed().as_nanos() as u64 / (1_000_000_000 / WRITES_PER_SECOND) + 1;
        while writes < due {
            refused += u64::from(!guests.replace_one(crowd));
            writes += 1;
        }
        crowd.table.take_closings(0, &mut closings);
        closings.clear();
        done.store(writes, Ordering::Release);
        sleep_until(started + Duration::from_micros(writes * 1_000_000 / WRITES_PER_SECOND));
    }
    assert_eq!(refused, 0, "of {writes} inserts of the writer");
    let due = started.elapsed().as_millis() as u64 * WRITES_PER_SECOND / 1_000;
    // It may have slept through the last milliseconds before it was stopped.
    let kept_up = writes + due / 20 + 5 >= due;
    if !kept_up {
        eprintln!("-- the writer fell behind, {writes} of {due}: this machine is too busy");
    }
    kept_up
}
