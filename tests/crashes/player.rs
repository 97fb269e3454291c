//! Clients of a sidecar that does not always answer: they give up waiting, ask again, and write down what they hear.

use std::{sync::Arc, time::Duration};

use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tickgate::client::{Account, CallError, Session, Wait};
use tokio::sync::watch;

use super::{
    Journal, Reach,
    record::{Answer, Ask, Why},
};

/// Sessions that a client uses at once.
const MOST_HELD: usize = 3;

/// After a first try so long ago, an honest client does not ask again with the same token: the grace is 10 s.
const PATIENCE: u64 = 8_000;

/// A session in use.
#[derive(Clone)]
pub struct Held {
    session: Session,
    generation: u32,
    tried_at: Option<u64>,
}

pub struct Player {
    account: u32,
    journal: Arc<Journal>,
    /// Ends when the run does.
    reach: watch::Receiver<Vec<Reach>>,
    rng: ChaCha8Rng,
    held: Vec<Held>,
    /// Sessions that are not used any more, for a last look.
    left: Vec<Held>,
}

impl Player {
    pub fn new(
        account: u32,
        journal: Arc<Journal>,
        reach: watch::Receiver<Vec<Reach>>,
        rng: ChaCha8Rng,
    ) -> Self {
        Self {
            account,
            journal,
            reach,
            rng,
            held: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Plays until the run ends; returns every session that it ever had.
    pub async fn play(mut self) -> Vec<Held> {
        loop {
            if self.reach.has_changed().is_err() {
                break;
            }
            let reach = match self.reach.wait_for(|up| !up.is_empty()).await {
                Ok(up) => up.choose(&mut self.rng).cloned(),
                Err(_) => break,
            };
            let Some(reach) = reach else { break };
            self.act(&reach).await;
        }
        self.left.extend(self.held);
        self.left
    }

    async fn act(&mut self, reach: &Reach) {
        let may_log_in = self.held.len() < MOST_HELD;
        if self.held.is_empty() || (may_log_in && self.rng.random_bool(0.15)) {
            return self.log_in(reach).await;
        }
        let index = self.rng.random_range(0..self.held.len());
        let session = self.held[index].session.id;
        match self.rng.random_range(0..100) {
            0..55 => self.refresh(reach, index).await,
            55..80 => {
                let held = self.held[index].clone();
                if looked_at(&reach.account, &self.journal, &held).await {
                    self.leave(index);
                }
            }
            80..88 => {
                let held = self.held[index].clone();
                let call = self.journal.begin(Ask::Revoke { session: session.0 });
                let answer = match reach.account.logout(&held.session).await {
                    Ok(_) => Answer::Revoked { revision: None },
                    Err(error) => failed(&error),
                };
                self.journal.answered(call, answer);
                self.leave(index);
            }
            88..96 => {
                let call = self.journal.begin(Ask::Revoke { session: session.0 });
                let answer = match reach.backend.revoke_session(session, Wait::Commit).await {
                    Ok(revoked) => Answer::Revoked {
                        // That of an event that had ended it before says nothing of this one.
                        revision: (revoked.sessions_ended > 0).then_some(revoked.revision.0),
                    },
                    Err(error) => failed(&error),
                };
                self.journal.answered(call, answer);
            }
            _ => {
                let player = self.held[index].session.player;
                let call = self.journal.begin(Ask::RevokePlayer { player: player.0 });
                let answer = match reach.backend.revoke_player(player, Wait::Commit).await {
                    Ok(revoked) => Answer::PlayerRevoked {
                        generation: None,
                        revision: revoked.revision.0,
                    },
                    Err(error) => failed(&error),
                };
                self.journal.answered(call, answer);
            }
        }
    }

    async fn log_in(&mut self, reach: &Reach) {
        let account = self.account;
        let call = self.journal.begin(Ask::LogIn { account });
        match reach.account.login_dev(&format!("player-{account}")).await {
            Ok(session) => {
                self.journal.answered(
                    call,
                    Answer::LoggedIn {
                        session: session.id.0,
                        player: session.player.0,
                        player_generation: None,
                        ends_at: session.ends_at.0,
                    },
                );
                self.held.push(Held {
                    session,
                    generation: 0,
                    tried_at: None,
                });
            }
            Err(error) => self.journal.answered(call, failed(&error)),
        }
    }

    /// Now and then nobody waits for the answer: then the same token is presented again.
    async fn refresh(&mut self, reach: &Reach, index: usize) {
        let held = self.held[index].clone();
        let now = self.journal.now();
        let first = held.tried_at.unwrap_or(now);
        if now > first + PATIENCE {
            return self.leave(index);
        }
        self.held[index].tried_at = Some(first);
        let call = self.journal.begin(Ask::Refresh {
            session: held.session.id.0,
            generation: held.generation,
        });
        let patience = match self.rng.random_bool(0.2) {
            true => Duration::from_micros(self.rng.random_range(0..8_000)),
            false => Duration::from_secs(5),
        };
        let refresh = reach.account.refresh(&held.session);
        let Ok(answer) = tokio::time::timeout(patience, refresh).await else {
            return;
        };
        match answer {
            Ok(session) => {
                let generation = held.generation + 1;
                let answer = Answer::Renewed {
                    generation,
                    claims: (
                        session.token_expires_at.0,
                        session.role.clone().unwrap_or_default(),
                    ),
                };
                self.journal.answered(call, answer);
                self.held[index] = Held {
                    session,
                    generation,
                    tried_at: None,
                };
            }
            Err(error) => {
                let answer = failed(&error);
                let is_over = matches!(answer, Answer::Over(_));
                self.journal.answered(call, answer);
                if is_over {
                    self.leave(index);
                }
            }
        }
    }

    fn leave(&mut self, index: usize) {
        self.left.push(self.held.swap_remove(index));
    }
}

/// Looks whether the session may be used; returns whether it is over.
pub async fn looked_at(account: &Account, journal: &Journal, held: &Held) -> bool {
    let session = held.session.id;
    let call = journal.begin(Ask::Look { session: session.0 });
    let answer = match account.who_am_i(&held.session.token).await {
        Ok(identified) => {
            assert_eq!(identified.session, session);
            Answer::Live {
                generation: None,
                player_generation: None,
                head: None,
            }
        }
        Err(error) => failed(&error),
    };
    let is_over = matches!(answer, Answer::Over(_));
    journal.answered(call, answer);
    is_over
}

fn failed(error: &CallError) -> Answer {
    match error {
        CallError::Unauthenticated(_) | CallError::Ended(_) => Answer::Over(Why::Untold),
        CallError::NotFound(_) => Answer::Over(Why::Unknown),
        CallError::RateLimited(_) => Answer::Refused,
        CallError::Unreachable(_)
        | CallError::Unavailable(_)
        | CallError::TimedOut
        | CallError::Failed(_) => Answer::Failed,
        other => panic!("{other:?}"),
    }
}
