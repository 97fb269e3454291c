//! What a game can show its player: a bounded queue in which what is newest is never lost.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    client::{CallError, Closed, JoinError},
    clock::Timestamp,
    id::{ClientId, GatewayId},
    wire::Advice,
};

/// Events that wait to be taken. There are some three for each reconnect, so 64 are what a game that has not looked for minutes finds.
const WAITING: usize = 64;

/// What happens to a client that plays, for the game to show.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The player is being logged in. Only [`blocking::Client`](crate::client::blocking::Client) does that by itself.
    LoggingIn,
    /// An attempt to get in begins: a ticket, then a connection.
    Connecting {
        /// Which one since the client was last in, or began: 1 for the first.
        attempt: u32,
    },
    /// The client is in.
    Joined {
        /// Its id inside the game.
        client: ClientId,
        /// The gateway that it is on.
        gateway: GatewayId,
        /// Whether it has the seat again that it had before: then the game has kept its player. Otherwise it is a new player to the
        /// game, and whatever the client knew of its state is void.
        resumed: bool,
    },
    /// The connection was lost or closed, and another one will be made.
    Lost {
        /// How it ended.
        reason: Closed,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// An attempt failed, and another one will be made.
    Waiting {
        /// Why it failed.
        reason: Arc<JoinError>,
        /// How long until the next one.
        retry_in: Duration,
    },
    /// The session's tokens were refreshed. Nothing to do, and nobody in play notices.
    SessionRefreshed {
        /// When the new session token expires, by the sidecar's clock.
        expires_at: Timestamp,
    },
    /// It is over: no further attempt will be made, and no further event comes.
    Ended {
        /// How.
        reason: End,
        /// What to do now, if the player wants to play on: log in again, try later, or give up.
        advice: Advice,
    },
}

impl Event {
    /// The event as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::LoggingIn => "logging_in",
            Self::Connecting { .. } => "connecting",
            Self::Joined { .. } => "joined",
            Self::Lost { .. } => "lost",
            Self::Waiting { .. } => "waiting",
            Self::SessionRefreshed { .. } => "session_refreshed",
            Self::Ended { .. } => "ended",
        }
    }
}

/// How playing ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum End {
    /// The client left.
    Left,
    /// The connection was closed, finally.
    Closed(Closed),
    /// The client did not get in, finally or for longer than it wanted to wait.
    Failed(Arc<JoinError>),
    /// The player could not be logged in.
    LogIn(Arc<CallError>),
}

impl End {
    /// The end as a fixed label: the close code's own name if there was one.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Closed(closed) => closed.label(),
            Self::Failed(error) => error.label(),
            Self::LogIn(error) => error.label(),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("left"),
            Self::Closed(closed) => closed.fmt(f),
            Self::Failed(error) => error.fmt(f),
            Self::LogIn(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for End {}

/// The events of one client, in order. A game that does not take them loses the oldest: beyond 64 that wait, each new one pushes out the
/// oldest, and [`missed`](Self::missed) counts it. So the newest state is always there, and [`Event::Ended`] is never lost.
#[derive(Debug)]
pub struct Events(pub(in crate::client) Arc<Queue>);

impl Events {
    /// The next event; none after [`Event::Ended`]. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let told = self.0.told.notified();
            match self.0.take() {
                Taken::Event(event) => return Some(event),
                Taken::Over => return None,
                Taken::Nothing => told.await,
            }
        }
    }

    /// The next event if there is one now; for games that look once per frame.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.0.take() {
            Taken::Event(event) => Some(event),
            Taken::Over | Taken::Nothing => None,
        }
    }

    /// How many events were lost since nobody took them.
    pub fn missed(&self) -> u64 {
        self.0.ring().missed
    }
}

/// Between who tells and who takes.
#[derive(Debug, Default)]
pub(in crate::client) struct Queue {
    ring: Mutex<Ring>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    missed: u64,
    over: bool,
}

enum Taken {
    Event(Event),
    Nothing,
    Over,
}

impl Queue {
    /// Nothing comes after the end.
    pub(in crate::client) fn tell(&self, event: Event) {
        let mut ring = self.ring();
        if ring.over {
            return;
        }
        ring.over = matches!(event, Event::Ended { .. });
        if ring.events.len() == WAITING {
            ring.events.pop_front();
            ring.missed += 1;
        }
        ring.events.push_back(event);
        drop(ring);
        self.told.notify_one();
    }

    fn take(&self) -> Taken {
        let mut ring = self.ring();
        match ring.events.pop_front() {
            Some(event) => Taken::Event(event),
            None if ring.over => Taken::Over,
            None => Taken::Nothing,
        }
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Event {
        Event::Ended {
            reason: End::Left,
            advice: Advice::Nothing,
        }
    }

    #[tokio::test]
    async fn what_is_newest_is_never_lost() {
        let queue = Arc::new(Queue::default());
        let mut events = Events(Arc::clone(&queue));
        assert!(events.try_next().is_none());
        for attempt in 1..=100 {
            queue.tell(Event::Connecting { attempt });
        }
        queue.tell(ended());
        // What is told after the end is nothing.
        queue.tell(Event::Connecting { attempt: 0 });
        assert_eq!(events.missed(), 37);
        let mut attempts = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Connecting { attempt } => attempts.push(attempt),
                other => assert_eq!(other.label(), "ended"),
            }
        }
        assert_eq!(attempts, (38..=100).collect::<Vec<_>>());
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let queue = Arc::new(Queue::default());
        let mut events = Events(Arc::clone(&queue));
        let (event, ()) = tokio::join!(events.next(), async { queue.tell(ended()) });
        assert_eq!(event.unwrap().label(), "ended");
    }
}
