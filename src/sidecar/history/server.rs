//! The sidecar under test: its real sessions over a real store, and what is asked of them without gRPC before it.

use std::sync::Arc;

use crate::{
    clock::Clock,
    control::Revocation,
    id::{PlayerId, Revision, SessionId},
    sidecar::{
        SessionLives, TokenKeys,
        explain::Explain,
        limit::Limit,
        metrics::Counters,
        refresh::Renewed,
        refusal::{BadRefresh, Refusal},
        sessions::{LoggedIn, Sessions},
        tests::in_force,
    },
    store::{EmbeddedStore, EndedBy, Found, Identity, PlayerRevocation, SessionRevocation, Store},
    token::{RefreshKey, Rejection, SessionKey, TransportMasterKey},
};

use super::record::{Answer, Logged, Why};

/// A sidecar that is up. Dropped, its memory is gone.
pub(super) struct Server {
    sessions: Sessions,
    /// None over memory.
    pub(super) embedded: Option<Arc<EmbeddedStore>>,
}

/// The tokens of one generation.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) session: String,
    pub(super) refresh: String,
}

/// A request as it is on its way.
#[derive(Debug, Clone)]
pub(super) enum Request {
    LogIn {
        account: u32,
    },
    Refresh {
        token: String,
    },
    /// With a session token.
    WhoAmI {
        token: String,
    },
    /// By an operator.
    Look {
        session: u128,
    },
    LogOut {
        token: String,
    },
    Revoke {
        session: u128,
    },
    RevokePlayer {
        player: u128,
    },
    ReadLog,
}

/// An answer, and the tokens that come with it.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) answer: Answer,
    pub(super) tokens: Option<Tokens>,
}

impl Served {
    fn bare(answer: Answer) -> Self {
        Self {
            answer,
            tokens: None,
        }
    }
}

impl Server {
    pub(super) fn new(
        store: Arc<dyn Store>,
        embedded: Option<Arc<EmbeddedStore>>,
        lives: SessionLives,
        clock: Clock,
    ) -> Self {
        let started = clock.wall();
        let sessions = Sessions {
            store,
            // The same after every crash.
            keys: in_force(TokenKeys::new(
                SessionKey::from_bytes(&[1; 32]),
                RefreshKey::from_bytes(&[2; 32]),
                TransportMasterKey::from_bytes(&[3; 32]),
            )),
            // Another test's concern.
            refresh_limit: Limit::per_minute(60_000, &clock),
            lives,
            clock,
            explain: Arc::new(Explain::new(started)),
            counters: Arc::new(Counters::new()),
        };
        Self { sessions, embedded }
    }

    /// A gateway reports that these sessions were active.
    pub(super) fn report(&self, session: u128) {
        let now = self.sessions.clock.wall();
        self.sessions
            .store
            .note_activity(&[SessionId(session)], now);
    }

    pub(super) async fn purge(&self) {
        // One that fails changes nothing that anybody was promised.
        drop(self.sessions.store.purge(self.sessions.clock.wall()).await);
    }

    pub(super) async fn serve(&self, request: Request) -> Served {
        let served = match request {
            Request::LogIn { account } => self.log_in(account).await,
            Request::Refresh { token } => self.sessions.refresh(&token).await.map(renewed),
            Request::WhoAmI { token } => self.sessions.of_bearer(&token).await.map(|f| live(&f)),
            Request::Look { session } => {
                let found = self.sessions.live(SessionId(session)).await;
                found.map(|found| live(&found))
            }
            Request::LogOut { token } => self.log_out(&token).await,
            Request::Revoke { session } => self.revoke(SessionId(session)).await,
            Request::RevokePlayer { player } => self.revoke_player(PlayerId(player)).await,
            Request::ReadLog => self.read_log().await,
        };
        served.unwrap_or_else(|refusal| Served::bare(refused(&refusal)))
    }

    async fn log_in(&self, account: u32) -> Result<Served, Refusal> {
        let identity = Identity {
            provider: "test".to_owned(),
            subject: account.to_string(),
        };
        let LoggedIn {
            found,
            token,
            refresh_token,
            ..
        } = self.sessions.log_in(identity, "dev", false).await?;
        Ok(Served {
            answer: Answer::LoggedIn {
                session: found.session.id.0,
                player: found.player.id.0,
                player_generation: Some(u64::from(found.session.player_generation.0)),
                ends_at: found.session.ends_at.0,
            },
            tokens: Some(Tokens {
                session: token,
                refresh: refresh_token,
            }),
        })
    }

    async fn log_out(&self, token: &str) -> Result<Served, Refusal> {
        let now = self.sessions.clock.wall();
        let found = self.sessions.known_of_refresh(token, now).await?;
        self.sessions.log_out(&found, now).await?;
        Ok(Served::bare(Answer::Revoked { revision: None }))
    }

    async fn revoke(&self, session: SessionId) -> Result<Served, Refusal> {
        let now = self.sessions.clock.wall();
        Ok(
            match self.sessions.store.revoke_session(session, now).await? {
                SessionRevocation::Ended(revision) => Served {
                    answer: Answer::Revoked {
                        revision: Some(revision.0),
                    },
                    tokens: None,
                },
                SessionRevocation::AlreadyEnded(_) => {
                    Served::bare(Answer::Revoked { revision: None })
                }
                SessionRevocation::Unknown => Served::bare(Answer::Over(Why::Unknown)),
            },
        )
    }

    async fn revoke_player(&self, player: PlayerId) -> Result<Served, Refusal> {
        let now = self.sessions.clock.wall();
        Ok(
            match self.sessions.store.revoke_player(player, now).await? {
                PlayerRevocation::Ended {
                    generation,
                    revision,
                    ..
                } => Served {
                    answer: Answer::PlayerRevoked {
                        generation: Some(u64::from(generation.0)),
                        revision: revision.0,
                    },
                    tokens: None,
                },
                PlayerRevocation::Unknown => Served::bare(Answer::Refused),
            },
        )
    }

    async fn read_log(&self) -> Result<Served, Refusal> {
        let store = &self.sessions.store;
        let tail = store.log_state().await?.tail;
        let range = store.log_after(Revision(tail.0), usize::MAX).await?;
        let events = range.map(|range| range.events).unwrap_or_default();
        let logged = |event| match event {
            Revocation::Session(id) => Logged::Session(id.0),
            Revocation::Player(id, generation) => {
                Logged::Player(id.0, Some(u64::from(generation.0)))
            }
        };
        Ok(Served::bare(Answer::Log {
            tail: tail.0,
            events: events.into_iter().map(logged).collect(),
        }))
    }
}

fn renewed(renewed: Renewed) -> Served {
    let Renewed {
        found,
        role,
        token,
        expires_at,
        refresh_token,
    } = renewed;
    Served {
        answer: Answer::Renewed {
            generation: found.session.generation,
            // The life of a session token is fixed, so this tells its `iat`.
            claims: (expires_at.0, role),
        },
        tokens: Some(Tokens {
            session: token,
            refresh: refresh_token,
        }),
    }
}

fn live(found: &Found) -> Served {
    Served::bare(Answer::Live {
        generation: Some(found.session.generation),
        player_generation: Some(u64::from(found.player.generation.0)),
        head: Some(found.head.0),
    })
}

fn refused(refusal: &Refusal) -> Answer {
    let ended = |by: &EndedBy| match by {
        EndedBy::Revocation => Why::Revoked,
        EndedBy::AbsoluteEnd => Why::Expired,
        EndedBy::Idleness => Why::Idle,
    };
    match refusal {
        Refusal::Store(_) => Answer::Failed,
        // The session may well go on.
        Refusal::BearerExpired => Answer::Refused,
        Refusal::BearerEnded(by) | Refusal::SessionEnded(by) => Answer::Over(ended(by)),
        Refusal::Refresh(BadRefresh::Reused) => Answer::Over(Why::Reused),
        Refusal::Refresh(BadRefresh::Ended(Some(by))) => Answer::Over(ended(by)),
        // A refresh token lives as long as its session may.
        Refusal::Refresh(BadRefresh::Rejected(Rejection::Expired)) => Answer::Over(Why::Expired),
        // Nothing else is expected: the checker finds no cause for it.
        _ => Answer::Over(Why::Unknown),
    }
}
