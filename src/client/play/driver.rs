//! The one task of a client that plays: attempts, pauses, and what to tell of them.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    End, Event, Queue, Seat, Tickets,
    comeback::{Comeback, Next},
};
use crate::{
    client::{
        Closed, Connection, Endpoint, HelloOptions, JoinError, Kept, Target, backoff::random,
    },
    clock::Clock,
    id::GatewayId,
    wire::Advice,
};

pub(super) struct Driver<T> {
    pub(super) endpoint: Endpoint,
    pub(super) tickets: T,
    /// What every Hello says beside its ticket.
    pub(super) hello: HelloOptions,
    pub(super) comeback: Comeback,
    pub(super) clock: Clock,
    pub(super) seat: watch::Sender<Seat>,
    pub(super) watched: Watched,
}

/// What goes on meanwhile, whatever the client is about.
pub(super) struct Watched {
    events: Arc<Queue>,
    leave: CancellationToken,
    session: Option<watch::Receiver<Kept>>,
    refreshes: u64,
}

/// The client has left, or its seat is over otherwise.
struct Over {
    end: End,
    advice: Advice,
}

const LEFT: Over = Over {
    end: End::Left,
    advice: Advice::Nothing,
};

impl<T: Tickets> Driver<T> {
    pub(super) async fn run(mut self) {
        let Over { end, advice } = match self.play().await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        tracing::debug!(%end, advice = advice.label(), "playing ended");
        self.seat.send_replace(Seat::Over(end.clone()));
        self.watched.events.tell(Event::Ended {
            reason: end,
            advice,
        });
    }

    async fn play(&mut self) -> Result<Infallible, Over> {
        let mut attempt = 0_u32;
        loop {
            attempt = attempt.saturating_add(1);
            self.watched.events.tell(Event::Connecting { attempt });
            let target = self.comeback.target(self.clock.now());
            let trying = enter(&self.endpoint, &self.tickets, &self.hello, target);
            let pause = match self.watched.meanwhile(trying).await? {
                Ok((gateway, connection)) => {
                    attempt = 0;
                    let closed = self.stay(gateway, Arc::new(connection)).await?;
                    self.lost(closed)?
                }
                Err(failure) => self.failed(failure)?,
            };
            self.watched.meanwhile(sleep(pause)).await?;
        }
    }

    /// Is in the game until the connection ends.
    async fn stay(
        &mut self,
        gateway: GatewayId,
        connection: Arc<Connection>,
    ) -> Result<Closed, Over> {
        self.comeback.joined(gateway.clone(), self.clock.now());
        let welcome = *connection.welcome();
        self.seat.send_replace(Seat::Taken(Arc::clone(&connection)));
        self.watched.events.tell(Event::Joined {
            client: welcome.client,
            gateway,
            resumed: welcome.resumed,
        });
        let closed = self.watched.meanwhile(connection.closed()).await;
        if closed.is_err() {
            connection.close();
        }
        self.seat.send_replace(Seat::Away);
        closed
    }

    fn lost(&mut self, reason: Closed) -> Result<Duration, Over> {
        match self.comeback.closed(&reason, self.clock.now(), random()) {
            Next::Again(retry_in) => {
                tracing::debug!(%reason, ?retry_in, "connection lost; trying again");
                self.watched.events.tell(Event::Lost { reason, retry_in });
                Ok(retry_in)
            }
            // "Closed by this end" with nobody having left: the endpoint was shut down.
            Next::Over(advice) => Err(Over {
                end: End::Closed(reason),
                advice,
            }),
        }
    }

    fn failed(&mut self, failure: JoinError) -> Result<Duration, Over> {
        let next = self.comeback.failed(&failure, self.clock.now(), random());
        let reason = Arc::new(failure);
        match next {
            Next::Again(retry_in) => {
                tracing::debug!(error = %reason, ?retry_in, "not in; trying again");
                self.watched
                    .events
                    .tell(Event::Waiting { reason, retry_in });
                Ok(retry_in)
            }
            Next::Over(advice) => Err(Over {
                end: End::Failed(reason),
                advice,
            }),
        }
    }
}

/// One attempt: a ticket, and a connection with it.
async fn enter(
    endpoint: &Endpoint,
    tickets: &impl Tickets,
    hello: &HelloOptions,
    target: Target,
) -> Result<(GatewayId, Connection), JoinError> {
    let ticket = tickets.ticket(target, hello.client_key.as_ref()).await?;
    let connection = endpoint.connect_with(&ticket, hello).await?;
    Ok((ticket.gateway, connection))
}

impl Watched {
    pub(super) fn new(
        events: Arc<Queue>,
        leave: CancellationToken,
        session: Option<watch::Receiver<Kept>>,
    ) -> Self {
        let refreshes = session.as_ref().map_or(0, |kept| kept.borrow().refreshes);
        Self {
            events,
            leave,
            session,
            refreshes,
        }
    }

    /// Awaits `work` unless the client leaves, and tells of refreshes meanwhile.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Over> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.leave.cancelled() => return Err(LEFT),
                () = next_refresh(&mut self.session, &mut self.refreshes, &self.events) => {}
                done = &mut work => return Ok(done),
            }
        }
    }
}

/// Waits for the session to be refreshed, and tells of it; for ever if there is no session to be told of.
async fn next_refresh(
    session: &mut Option<watch::Receiver<Kept>>,
    refreshes: &mut u64,
    events: &Queue,
) {
    let Some(kept) = session else {
        return std::future::pending().await;
    };
    let seen = *refreshes;
    let newer = kept.wait_for(|kept| kept.refreshes > seen).await;
    let newer = newer.map(|kept| (kept.refreshes, kept.session.token_expires_at));
    match newer {
        Ok((now, expires_at)) => {
            *refreshes = now;
            events.tell(Event::SessionRefreshed { expires_at });
        }
        // The keeper was stopped.
        Err(_) => std::future::pending().await,
    }
}
