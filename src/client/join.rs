//! Getting in, again and again for as long as that is sensible: a ticket, an attempt, and what its failure advises.

use std::{future::Future, time::Duration};

use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::{
    Backoff, CallError, ConnectError, Connection, Endpoint, Ticket,
    backoff::{random, share},
};
use crate::wire::Advice;

/// How long to keep trying, and how fast: by default as docs/PROTOCOL.md, "Coming back", has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// When to give up, counted from the first attempt. Default 30 s: a gateway that restarts is back by then.
    pub total: Duration,
    /// The pauses after a failure that advises a new token; before them is one attempt without a pause. Default 250 ms to 5 s: the
    /// gateway is there, and turns a stale token away at little cost.
    pub new_token: Backoff,
    /// The pauses after a failure that advises to try later. Default 1 s to 30 s: something is full, starting or gone, and hurrying
    /// makes it worse.
    pub retry_later: Backoff,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(30),
            new_token: Backoff {
                first: Duration::from_millis(250),
                longest: Duration::from_secs(5),
            },
            retry_later: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(30),
            },
        }
    }
}

/// Why the client did not get in: the last failure.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No ticket was to be had.
    #[error(transparent)]
    Ticket(#[from] CallError),
    /// The gateway did not let the client in.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Time ran out within the first attempt.
    #[error("no answer in time; try again later")]
    OutOfTime,
}

impl JoinError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ticket(error) => error.label(),
            Self::Connect(error) => error.label(),
            Self::OutOfTime => "out_of_time",
        }
    }

    /// What the client should do now.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Ticket(error) => error.advice(),
            Self::Connect(error) => error.advice(),
            Self::OutOfTime => Advice::RetryLater,
        }
    }

    /// What to do while patience lasts: a sidecar that has just started knows no gateway before it has attached again, so one that
    /// is not found may yet be.
    pub(super) const fn advice_in_between(&self) -> Advice {
        match self {
            Self::Ticket(CallError::NotFound(_)) => Advice::RetryLater,
            other => other.advice(),
        }
    }
}

/// Gets a ticket from `ticket` and connects with it; does both again, backing off, while the failure advises it and patience lasts.
///
/// So a client gets in by itself after a gateway was restarted, which rejects all tokens minted before, or a sidecar, which does not
/// know a gateway ([`CallError::NotFound`]) until it has attached again.
///
/// # Errors
/// The failure that advises against another attempt, or the last one when patience ran out.
pub async fn join<Tickets, Answer>(
    endpoint: &Endpoint,
    patience: Patience,
    mut ticket: Tickets,
) -> Result<Connection, JoinError>
where
    Tickets: FnMut() -> Answer + Send,
    Answer: Future<Output = Result<Ticket, CallError>> + Send,
{
    persist(patience, || {
        let ticket = ticket();
        async move { Ok(endpoint.connect(&ticket.await?).await?) }
    })
    .await
}

async fn persist<T, Attempts, Attempt>(
    patience: Patience,
    mut attempt: Attempts,
) -> Result<T, JoinError>
where
    Attempts: FnMut() -> Attempt,
    Attempt: Future<Output = Result<T, JoinError>>,
{
    let mut last = JoinError::OutOfTime;
    let attempts = async {
        let mut pauses = Pauses::new(patience);
        loop {
            match attempt().await {
                Ok(got) => return Some(got),
                Err(error) => last = error,
            }
            let pause = pauses.after(last.advice_in_between(), random())?;
            tracing::debug!(error = %last, ?pause, "not in; trying again");
            sleep(pause).await;
        }
    };
    match timeout(patience.total, attempts).await {
        Ok(Some(got)) => Ok(got),
        Ok(None) | Err(_) => Err(last),
    }
}

/// The pauses between attempts: doubling, up to the longest, and spread, so that all the clients of a restarted gateway do not come back
/// at the same instant.
#[derive(Debug)]
pub(super) struct Pauses {
    patience: Patience,
    /// Failures so far, all in one row.
    failures: u32,
}

impl Pauses {
    pub(super) fn new(patience: Patience) -> Self {
        let failures = 0;
        Self { patience, failures }
    }

    /// Ends the row: the next failure is the first again.
    pub(super) fn restart(&mut self) {
        self.failures = 0;
    }

    /// The pause after a connection was lost, or a gateway's fault, that nobody gave a code for. All the clients of a gateway that
    /// restarted may lose it in the same instant, so what would be no pause at all is spread over the first one.
    pub(super) fn after_loss(&mut self, random: u32) -> Duration {
        let spread = self.patience.new_token.first.mul_f64(share(random));
        let pause = self.after(Advice::NewToken, random).unwrap_or_default();
        pause.max(spread)
    }

    /// The pause before the next attempt, half to one and a half of what is due; none when there is to be no attempt.
    pub(super) fn after(&mut self, advice: Advice, random: u32) -> Option<Duration> {
        let (backoff, free) = match advice {
            Advice::Nothing | Advice::LogIn | Advice::GiveUp => return None,
            // The first new token is taken at once, as it advises.
            Advice::NewToken => (self.patience.new_token, 1),
            Advice::RetryLater => (self.patience.retry_later, 0),
        };
        let before = self.failures;
        self.failures = before.saturating_add(1);
        let Some(doublings) = before.checked_sub(free) else {
            return Some(Duration::ZERO);
        };
        Some(backoff.pause(doublings, random))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn unavailable<T>() -> Result<T, JoinError> {
        Err(CallError::Unavailable("down".into()).into())
    }

    /// The random number that makes a pause exactly what is due.
    const EVEN: u32 = u32::MAX / 2;

    #[test]
    fn pauses_are_those_of_the_protocol_page() {
        let row = |advice| {
            let mut pauses = Pauses::new(Patience::default());
            [(); 9].map(|()| {
                let pause = pauses.after(advice, EVEN).unwrap();
                pause.as_secs_f64().mul_add(100.0, 0.5).floor() / 100.0
            })
        };
        let new_token = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0];
        assert_eq!(row(Advice::NewToken), new_token);
        let retry_later = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0];
        assert_eq!(row(Advice::RetryLater), retry_later);
    }

    #[test]
    fn a_row_goes_on_when_the_advice_changes() {
        let mut pauses = Pauses::new(Patience::default());
        let ms = |pause: Option<Duration>| pause.unwrap().as_millis();
        assert_eq!(ms(pauses.after(Advice::RetryLater, 0)), 500);
        assert_eq!(ms(pauses.after(Advice::RetryLater, u32::MAX)), 3_000);
        assert_eq!(ms(pauses.after(Advice::NewToken, 0)), 250);
        for final_advice in [Advice::Nothing, Advice::LogIn, Advice::GiveUp] {
            assert_eq!(pauses.after(final_advice, 0), None);
        }
        for _ in 0..100 {
            let pause = pauses.after(Advice::RetryLater, 0).unwrap();
            assert!(pause <= Duration::from_secs(15));
        }
    }

    const NO_PAUSES: Backoff = Backoff {
        first: Duration::ZERO,
        longest: Duration::ZERO,
    };

    /// No pauses between attempts.
    const HASTE: Patience = Patience {
        total: Duration::from_secs(30),
        new_token: NO_PAUSES,
        retry_later: NO_PAUSES,
    };

    #[tokio::test]
    async fn it_tries_until_it_is_in() {
        let attempts = Cell::new(0);
        let outcome = persist(HASTE, || {
            attempts.set(attempts.get() + 1);
            let attempt = attempts.get();
            async move {
                if attempt < 4 {
                    unavailable()
                } else {
                    Ok(attempt)
                }
            }
        });
        assert_eq!(outcome.await.unwrap(), 4);
    }

    #[tokio::test]
    async fn patience_ends_and_tells_the_last_failure() {
        let patience = Patience {
            total: Duration::from_millis(20),
            ..Patience::default()
        };
        let outcome: Result<(), _> = persist(patience, || async { unavailable() }).await;
        assert_eq!(outcome.unwrap_err().label(), "unavailable");
        let outcome: Result<(), _> = persist(patience, std::future::pending).await;
        assert_eq!(outcome.unwrap_err().label(), "out_of_time");
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_found_may_come_back() {
        let attempts = Cell::new(0);
        let outcome = persist(HASTE, || {
            attempts.set(attempts.get() + 1);
            let back = attempts.get() == 3;
            async move {
                if back {
                    Ok(())
                } else {
                    Err(CallError::NotFound("gateway eu".into()).into())
                }
            }
        });
        outcome.await.unwrap();
    }

    #[tokio::test]
    async fn a_final_failure_is_final() {
        let attempts = Cell::new(0);
        let outcome: Result<(), _> = persist(HASTE, || {
            attempts.set(attempts.get() + 1);
            async { Err(CallError::Ended("revoked".into()).into()) }
        })
        .await;
        assert_eq!(outcome.unwrap_err().advice(), Advice::LogIn);
        assert_eq!(attempts.get(), 1);
    }
}
