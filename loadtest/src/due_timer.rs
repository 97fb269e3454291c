//! Sleeping until an instant, to some tens of microseconds.
//!
//! tokio's timers fire on a 1 ms grid and round up, which would put 1 to 2 ms of the generator's own making into every latency. A
//! timerfd in tokio's epoll set wakes the thread when it is due and costs nothing while it waits, where spinning would take the core
//! that the clients' protocol work needs.

use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use rustix::{
    fd::OwnedFd,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tickgate::clock::Clock;
#[cfg(target_os = "linux")]
use tokio::io::{Interest, unix::AsyncFd};

/// A timer for one waiter, usable again and again.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct DueTimer {
    fd: AsyncFd<OwnedFd>,
}

#[cfg(target_os = "linux")]
impl DueTimer {
    /// A timer that belongs to the current tokio runtime.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub(crate) fn new() -> std::io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Self {
            fd: AsyncFd::with_interest(fd, Interest::READABLE)?,
        })
    }

    /// Waits until `due`; returns at once when that has passed.
    ///
    /// # Errors
    /// When the timer cannot be set or read, which no argument causes.
    pub(crate) async fn until(&self, clock: &Clock, due: Instant) -> std::io::Result<()> {
        let wait = due.saturating_duration_since(clock.now());
        if wait.is_zero() {
            return Ok(());
        }
        timerfd_settime(
            self.fd.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec {
                it_interval: timespec(Duration::ZERO),
                it_value: timespec(wait),
            },
        )?;
        loop {
            let mut guard = self.fd.readable().await?;
            let read = guard.try_io(|fd| {
                let mut expirations = [0; 8];
                Ok(rustix::io::read(fd.get_ref(), &mut expirations)?)
            });
            // Not yet expired: readiness left over from an earlier wait that was given up.
            if let Ok(result) = read {
                return result.map(|_| ());
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// A timer for one waiter: tokio's own, which fires on a 1 ms grid. The report's generator lag shows what that costs.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct DueTimer;

#[cfg(not(target_os = "linux"))]
impl DueTimer {
    /// A timer.
    ///
    /// # Errors
    /// None here.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Waits until `due`; returns at once when that has passed.
    ///
    /// # Errors
    /// None here.
    pub(crate) async fn until(&self, _clock: &Clock, due: Instant) -> std::io::Result<()> {
        tokio::time::sleep_until(due.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_when_due_and_not_before() {
        let clock = Clock::system();
        let timer = DueTimer::new().unwrap();
        for micros in [300, 1_500, 0, 5_000] {
            let due = clock.now() + Duration::from_micros(micros);
            timer.until(&clock, due).await.unwrap();
            assert!(clock.now() >= due);
        }
        let past = clock.now();
        timer.until(&clock, past).await.unwrap();
    }
}
