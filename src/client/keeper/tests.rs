//! The keeper against a sidecar of a few lines.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::{
    clock::{ManualTime, Timestamp},
    id::{PlayerId, SessionId},
};

const START: Timestamp = Timestamp(1_700_000_000_000);
const LIFE: Duration = Duration::from_secs(900);

/// Refreshes as it is told, and counts.
#[derive(Clone)]
struct Sidecar(Arc<State>);

struct State {
    time: ManualTime,
    asked: AtomicU32,
    /// Answers to give before the good ones.
    failures: Mutex<Vec<Unanswered>>,
    /// Lets questions through.
    gate: Semaphore,
    arrived: Notify,
}

impl Sidecar {
    fn new(failures: Vec<Unanswered>) -> Self {
        Self(Arc::new(State {
            time: ManualTime::starting_at(START),
            asked: AtomicU32::new(0),
            failures: Mutex::new(failures),
            gate: Semaphore::new(1_000),
            arrived: Notify::new(),
        }))
    }

    fn session(&self, generation: u32) -> Session {
        let now = self.0.time.clock().wall();
        Session {
            token: SecretToken::new(format!("session-{generation}")),
            token_expires_at: now.after(LIFE),
            refresh_token: Some(SecretToken::new(format!("refresh-{generation}"))),
            id: SessionId(5),
            player: PlayerId(6),
            is_new_player: false,
            ends_at: START.after(LIFE * 100),
            role: None,
        }
    }

    fn keeper(&self) -> SessionKeeper {
        let account = Account::connect("http://127.0.0.1:9", &[]).unwrap();
        let policy = RefreshPolicy::default();
        let clock = self.0.time.clock();
        SessionKeeper::start(account, self.session(0), policy, clock, self.clone())
    }

    fn asked(&self) -> u32 {
        self.0.asked.load(Ordering::SeqCst)
    }
}

impl Renew for Sidecar {
    async fn renew(&self, session: &Session) -> Result<Session, Unanswered> {
        let asked = self.0.asked.fetch_add(1, Ordering::SeqCst);
        let expected = session.refresh_token.as_ref().unwrap().expose();
        self.0.arrived.notify_one();
        self.0.gate.acquire().await.unwrap().forget();
        if let Some(failure) = self.0.failures.lock().unwrap().pop() {
            assert_eq!(
                expected, "refresh-0",
                "the same token again: the answer was lost"
            );
            return Err(failure);
        }
        Ok(self.session(asked + 1))
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future)
        .await
        .expect("a test hangs")
}

#[tokio::test]
async fn a_good_token_is_handed_out_without_asking() {
    let sidecar = Sidecar::new(Vec::new());
    let keeper = sidecar.keeper();
    let token = soon(keeper.token()).await.unwrap();
    assert_eq!(token.expose(), "session-0");
    assert_eq!(sidecar.asked(), 0);
}

#[tokio::test]
async fn however_many_need_a_token_one_refresh_is_under_way() {
    let sidecar = Sidecar::new(Vec::new());
    let keeper = sidecar.keeper();
    sidecar.0.time.advance(LIFE);
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let keeper = keeper.clone();
            tokio::spawn(async move { keeper.token().await.unwrap() })
        })
        .collect();
    for caller in callers {
        assert_eq!(soon(caller).await.unwrap().expose(), "session-1");
    }
    assert_eq!(sidecar.asked(), 1);
}

#[tokio::test]
async fn a_refused_token_is_renewed_whatever_the_clock_says() {
    let sidecar = Sidecar::new(Vec::new());
    let keeper = sidecar.keeper();
    let refused = keeper.session().token;
    let renewed = soon(keeper.renewed(&refused)).await.unwrap();
    assert_eq!(renewed.expose(), "session-1");
    // Who comes with the same one later gets what there is.
    let again = soon(keeper.renewed(&refused)).await.unwrap();
    assert_eq!(again.expose(), "session-1");
    assert_eq!(sidecar.asked(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_token() {
    let lost = CallError::TimedOut.into();
    let sidecar = Sidecar::new(vec![lost]);
    let keeper = sidecar.keeper();
    let refused = keeper.session().token;
    // The pause is slept for real, and told by the keeper's clock: it moves along.
    let time = sidecar.0.time.clone();
    let moved = async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            time.advance(Duration::from_millis(10));
        }
    };
    let renewed = async { keeper.renewed(&refused).await.unwrap() };
    let renewed = soon(async {
        tokio::select! {
            token = renewed => token,
            () = moved => unreachable!(),
        }
    })
    .await;
    assert_eq!(renewed.expose(), "session-2");
    assert_eq!(sidecar.asked(), 2);
}

#[tokio::test]
async fn a_session_that_is_over_is_told_to_everybody() {
    let refused = CallError::Unauthenticated("revoked".into()).into();
    let sidecar = Sidecar::new(vec![refused]);
    let keeper = sidecar.keeper();
    sidecar.0.time.advance(LIFE);
    let (token, over) = soon(async { tokio::join!(keeper.token(), keeper.over()) }).await;
    assert_eq!(token.unwrap_err().advice(), Advice::LogIn);
    assert!(over.contains("revoked"), "{over}");
    assert!(soon(keeper.token()).await.is_err());
    assert_eq!(sidecar.asked(), 1);
}

#[tokio::test]
async fn stopping_waits_for_the_refresh_under_way() {
    let sidecar = Sidecar::new(Vec::new());
    sidecar.0.gate.forget_permits(1_000);
    let keeper = sidecar.keeper();
    sidecar.0.time.advance(LIFE);
    let needy = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.token().await }
    });
    soon(sidecar.0.arrived.notified()).await;
    let stopped = async {
        let (session, ()) = tokio::join!(keeper.stop(), async {
            sidecar.0.gate.add_permits(1);
        });
        session
    };
    assert_eq!(soon(stopped).await.token.expose(), "session-1");
    assert_eq!(soon(needy).await.unwrap().unwrap().expose(), "session-1");
}

#[tokio::test]
async fn no_task_outlives_the_keeper() {
    let sidecar = Sidecar::new(Vec::new());
    sidecar.0.gate.forget_permits(1_000);
    let keeper = sidecar.keeper();
    sidecar.0.time.advance(LIFE);
    let needed = async { timeout(Duration::from_millis(50), keeper.token()).await };
    assert!(soon(needed).await.is_err());
    drop(keeper);
    // The task held the other end of this.
    let state = Arc::downgrade(&sidecar.0);
    drop(sidecar);
    let gone = async {
        while state.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(gone).await;
}
