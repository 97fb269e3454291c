//! The one holder of a session's tokens: refreshes them before they expire, once at a time, for everybody who uses them.

mod schedule;
#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub use schedule::RefreshPolicy;
use schedule::{Failure, Fresh, Schedule, Step};

use super::{
    Account, CallError, ClientKey, SecretToken, Session, Target, Ticket,
    backoff::random,
    call::{CALL_DEADLINE, REFRESH_DEADLINE, Unanswered},
};
use crate::{clock::Clock, wire::Advice};

/// A session token that expires sooner is not handed out any more: it still has to travel.
const TRAVEL: Duration = Duration::from_secs(2);

/// What a keeper keeps, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The session with its newest tokens.
    pub session: Session,
    /// How often this keeper has refreshed them.
    pub refreshes: u64,
    /// Why the session is over, once the sidecar has said so; the player has to log in again.
    pub over: Option<String>,
}

/// Keeps one session's tokens fresh, for as long as the session lives: refreshes them before they expire, at an instant of its own
/// between 60 and 80 % of their life, and asks again when an answer was lost, in time for the sidecar to take it for the same question.
/// A sidecar that is away for a while is waited for, and nobody in play notices.
///
/// Cheap to clone; clones are the same keeper, and however many use the token at once, one refresh at a time is under way. One task
/// works for it, which ends when the last clone is dropped. The tokens must not be refreshed by anybody else: a refresh token that is
/// used twice ends its session. So a program that wants to keep the session beyond its own end calls [`stop`](Self::stop), which
/// waits for a refresh under way, and stores what it returns.
///
/// It goes by the machine's wall clock, but does not depend on it: a token that a service refuses is renewed whatever the clock says.
#[derive(Debug, Clone)]
pub struct SessionKeeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    account: Account,
    clock: Clock,
    kept: watch::Receiver<Kept>,
    /// Which refresh has brought the tokens that somebody cannot use; how they are told apart.
    needed: watch::Sender<Option<u64>>,
    stop: CancellationToken,
    _driver: JoinSet<()>,
}

/// What refreshes: an [`Account`], or a test.
trait Renew: Send + Sync + 'static {
    fn renew(&self, session: &Session) -> impl Future<Output = Result<Session, Unanswered>> + Send;
}

impl Renew for Account {
    async fn renew(&self, session: &Session) -> Result<Session, Unanswered> {
        self.try_refresh(session).await
    }
}

impl SessionKeeper {
    /// Keeps `session` from now on. Call it inside a tokio runtime, which then drives the keeper.
    pub fn new(account: Account, session: Session) -> Self {
        Self::with(account, session, RefreshPolicy::default(), Clock::system())
    }

    /// As [`new`](Self::new), with a say in when to refresh, and by which clock.
    pub fn with(account: Account, session: Session, policy: RefreshPolicy, clock: Clock) -> Self {
        let renew = account.clone();
        Self::start(account, session, policy, clock, renew)
    }

    fn start(
        account: Account,
        session: Session,
        policy: RefreshPolicy,
        clock: Clock,
        renew: impl Renew,
    ) -> Self {
        let kept = Kept {
            session,
            refreshes: 0,
            over: None,
        };
        let (tell, kept) = watch::channel(kept);
        let (needed, asked) = watch::channel(None);
        let stop = CancellationToken::new();
        let driver = Driver {
            renew,
            policy,
            clock: clock.clone(),
            tell,
            needed: asked,
            stop: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        Self(Arc::new(Inner {
            account,
            clock,
            kept,
            needed,
            stop,
            _driver: tasks,
        }))
    }

    /// The session with its newest tokens.
    pub fn session(&self) -> Session {
        self.0.kept.borrow().session.clone()
    }

    /// What is kept, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<Kept> {
        self.0.kept.clone()
    }

    /// A session token that has not expired; waits for a new one if it has. There is no deadline: the wait is for the sidecar.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when the session is over: log in again.
    pub async fn token(&self) -> Result<SecretToken, CallError> {
        let Kept {
            session,
            refreshes,
            over,
        } = self.0.kept.borrow().clone();
        if let Some(why) = over {
            return Err(CallError::Unauthenticated(why));
        }
        let left = session.token_expires_at.since(self.0.clock.wall());
        if left > TRAVEL || session.refresh_token.is_none() {
            return Ok(session.token);
        }
        // Whatever comes is handed out: if it seems to have expired as well, this machine's clock is wrong.
        self.newer_than(refreshes).await
    }

    /// A newer session token than `refused`, which the sidecar has not accepted although it should be good: waits for a refresh, unless
    /// there has been one meanwhile.
    ///
    /// # Errors
    /// [`CallError::Unauthenticated`] when the session is over: log in again.
    pub async fn renewed(&self, refused: &SecretToken) -> Result<SecretToken, CallError> {
        let Kept {
            session, refreshes, ..
        } = self.0.kept.borrow().clone();
        if session.token != *refused {
            return self.token().await;
        }
        self.newer_than(refreshes).await
    }

    async fn newer_than(&self, refreshes: u64) -> Result<SecretToken, CallError> {
        let mut kept = self.0.kept.clone();
        if kept.borrow().session.refresh_token.is_none() {
            let none = "the session has no refresh token".to_owned();
            return Err(CallError::Unauthenticated(none));
        }
        self.0.needed.send_replace(Some(refreshes));
        let newer = kept.wait_for(|kept| kept.over.is_some() || kept.refreshes > refreshes);
        match newer.await.as_deref() {
            Ok(Kept {
                over: Some(why), ..
            }) => Err(CallError::Unauthenticated(why.clone())),
            Ok(kept) => Ok(kept.session.token.clone()),
            Err(_) => Err(CallError::Unavailable("the keeper was stopped".into())),
        }
    }

    /// Gets a single-use connect token for a gateway, bound to `key` if there is one. A session token that is not accepted is renewed
    /// first. Takes 10 s at most.
    ///
    /// # Errors
    /// As [`Account::issue_connect_token`].
    pub async fn issue_connect_token(
        &self,
        target: Target,
        key: Option<&ClientKey>,
    ) -> Result<Ticket, CallError> {
        let issue = async {
            let token = self.token().await?;
            let account = &self.0.account;
            match account.issue(&token, target.clone(), key).await {
                Err(refused) if refused.advice() == Advice::LogIn => {
                    let token = self.renewed(&token).await?;
                    account.issue(&token, target, key).await
                }
                outcome => outcome,
            }
        };
        timeout(CALL_DEADLINE, issue)
            .await
            .map_err(|_| CallError::TimedOut)?
    }

    /// Waits until the session is over, and says why; the player has to log in again. Never, if the keeper was stopped before.
    pub async fn over(&self) -> String {
        let mut kept = self.0.kept.clone();
        let over = kept.wait_for(|kept| kept.over.is_some()).await;
        match over.ok().and_then(|kept| kept.over.clone()) {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Ends the session, as [`Account::logout`] does, and stops keeping it.
    ///
    /// # Errors
    /// As [`Account::logout`].
    pub async fn logout(&self) -> Result<bool, CallError> {
        let session = self.stop().await;
        self.0.account.logout(&session).await
    }

    /// Stops refreshing, for all clones, waits for a refresh that is under way (3 s at most), and returns the session with its newest
    /// tokens.
    pub async fn stop(&self) -> Session {
        self.0.stop.cancel();
        let mut kept = self.0.kept.clone();
        while kept.changed().await.is_ok() {}
        self.session()
    }
}

/// What the keeper's task does.
struct Driver<R> {
    renew: R,
    policy: RefreshPolicy,
    clock: Clock,
    tell: watch::Sender<Kept>,
    needed: watch::Receiver<Option<u64>>,
    stop: CancellationToken,
}

impl<R: Renew> Driver<R> {
    async fn run(mut self) {
        let fresh = self.fresh();
        let mut schedule = Schedule::new(self.policy, fresh, self.clock.now(), random());
        while !self.stop.is_cancelled() {
            match schedule.step(self.clock.now()) {
                Step::Ask => self.ask(&mut schedule).await,
                Step::WaitUntil(at) => {
                    let pause = at.saturating_duration_since(self.clock.now());
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.stop.cancelled() => {}
                        Ok(()) = self.needed.changed() => {
                            let unusable = *self.needed.borrow_and_update();
                            // Who came late has got what it needs.
                            if unusable == Some(self.tell.borrow().refreshes) {
                                schedule.needed(self.clock.now());
                            }
                        }
                    }
                }
                Step::Rest => self.stop.cancelled().await,
            }
        }
    }

    async fn ask(&self, schedule: &mut Schedule) {
        let session = self.tell.borrow().session.clone();
        let asked = timeout(REFRESH_DEADLINE, self.renew.renew(&session)).await;
        let outcome = asked.unwrap_or_else(|_| Err(CallError::TimedOut.into()));
        let now = self.clock.now();
        match outcome {
            Ok(session) => {
                tracing::debug!(session = %session.id, "session refreshed");
                self.tell.send_modify(|kept| {
                    kept.session = session;
                    kept.refreshes += 1;
                });
                schedule.renewed(self.fresh(), now, random());
            }
            Err(Unanswered {
                error,
                may_have_run,
            }) => {
                let failure = match error.advice() {
                    Advice::LogIn => Failure::Refused,
                    _ if may_have_run => Failure::Lost,
                    _ => Failure::NotRun,
                };
                tracing::debug!(session = %session.id, %error, ?failure, "session not refreshed");
                schedule.failed(failure, now, random());
                if failure == Failure::Refused {
                    self.tell
                        .send_modify(|kept| kept.over = Some(error.to_string()));
                }
            }
        }
    }

    fn fresh(&self) -> Fresh {
        let now = self.clock.wall();
        let session = &self.tell.borrow().session;
        Fresh {
            token_left: session.token_expires_at.since(now),
            session_left: session.ends_at.since(now),
            renewable: session.refresh_token.is_some(),
        }
    }
}
