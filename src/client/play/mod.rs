//! Staying in the game: one seat for the game to send and receive over, through however many connections it takes.

mod comeback;
mod driver;
mod event;
#[cfg(test)]
mod tests;
mod tickets;

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use comeback::Comeback;
pub use comeback::Persistence;
use driver::{Driver, Watched};
pub(super) use event::Queue;
pub use event::{End, Event, Events};
pub use tickets::Tickets;

use super::{ClientKey, Connection, Endpoint, HelloOptions, SendError, Target};
use crate::{clock::Clock, wire::Welcome};

/// How to play.
#[derive(Debug, Clone, Default)]
pub struct PlayOptions {
    /// How hard to try to come back.
    pub persistence: Persistence,
    /// The key that connect tokens are to be bound to; by default they are good for whoever holds them.
    pub client_key: Option<ClientKey>,
}

/// A client in the game, and on its way back into it whenever it has fallen out.
///
/// It gets a ticket, connects, and when the connection ends does as its close advises: a new ticket and another connection after a
/// pause, to the same gateway first, where the seat waits and is resumed; or the end. What happens is told by [`Events`], for the
/// game to show to its player.
///
/// What is sent while there is no connection fails ([`SendError::Away`]), and is not kept: it would be stale when it arrives. Receiving
/// waits over reconnects, and ends when all has ended. Messages that were under way when a connection was lost may be lost too; after
/// [`Event::Joined`] both sides begin afresh.
///
/// All calls take `&self`, so one task may send while another receives. One task works for it; dropping it leaves the game and ends that
/// task, and [`leave`](Self::leave) does so in good order.
#[derive(Debug)]
pub struct Play {
    seat: watch::Receiver<Seat>,
    leave: CancellationToken,
    _driver: JoinSet<()>,
}

/// Where the client is.
#[derive(Debug, Clone)]
enum Seat {
    /// On its way.
    Away,
    /// In the game.
    Taken(Arc<Connection>),
    /// Out of it for good.
    Over(End),
}

impl Play {
    /// Plays at a gateway that `target` allows, with tickets from `tickets`: a [`SessionKeeper`](super::SessionKeeper), or a
    /// function. Returns at once. Call it inside a tokio runtime, which then drives it.
    pub fn start(
        endpoint: Endpoint,
        tickets: impl Tickets,
        target: Target,
        options: PlayOptions,
    ) -> (Self, Events) {
        let queue = Arc::new(Queue::default());
        let events = Events(Arc::clone(&queue));
        let play = Self::telling(queue, endpoint, tickets, target, options);
        (play, events)
    }

    /// As [`start`](Self::start), into a queue that is there already.
    pub(super) fn telling(
        events: Arc<Queue>,
        endpoint: Endpoint,
        tickets: impl Tickets,
        target: Target,
        options: PlayOptions,
    ) -> Self {
        let (seat_is, seat) = watch::channel(Seat::Away);
        let leave = CancellationToken::new();
        let PlayOptions {
            persistence,
            client_key,
        } = options;
        let driver = Driver {
            endpoint,
            hello: HelloOptions {
                client_key,
                ..HelloOptions::default()
            },
            comeback: Comeback::new(persistence, target),
            clock: Clock::system(),
            seat: seat_is,
            watched: Watched::new(events, leave.clone(), tickets.session()),
            tickets,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        Self {
            seat,
            leave,
            _driver: tasks,
        }
    }

    /// What the gateway said when it let the client in; none while the client is away.
    pub fn welcome(&self) -> Option<Welcome> {
        match &*self.seat.borrow() {
            Seat::Taken(connection) => Some(*connection.welcome()),
            Seat::Away | Seat::Over(_) => None,
        }
    }

    /// Sends a datagram: unreliable, unordered, at once. Never waits.
    ///
    /// # Errors
    /// [`SendError::Away`] while there is no connection, [`SendError::Over`] when there will be none; otherwise as
    /// [`Connection::send_datagram`].
    pub fn send_datagram(&self, payload: Bytes) -> Result<(), SendError> {
        self.connection()?.send_datagram(payload)
    }

    /// The next datagram. Waits over reconnects. Safe to cancel.
    ///
    /// # Errors
    /// How it all ended.
    pub async fn recv_datagram(&self) -> Result<Bytes, End> {
        self.receive(async |connection| connection.recv_datagram().await.ok())
            .await
    }

    /// The next datagram if there is one now; for games that look once per frame.
    pub fn try_recv_datagram(&self) -> Option<Bytes> {
        self.connection().ok()?.try_recv_datagram()
    }

    /// Sends a message: reliable and in order for as long as the connection lives. Waits while the gateway has not taken earlier ones,
    /// and no longer than the connection lives.
    ///
    /// # Errors
    /// [`SendError::Away`] while there is no connection, [`SendError::Over`] when there will be none; otherwise as
    /// [`Connection::send_message`].
    pub async fn send_message(&self, payload: &[u8]) -> Result<(), SendError> {
        let connection = self.connection()?;
        connection.send_message(payload).await
    }

    /// The next message. Waits over reconnects. Safe to cancel.
    ///
    /// # Errors
    /// How it all ended.
    pub async fn recv_message(&self) -> Result<Bytes, End> {
        self.receive(async |connection| connection.recv_message().await.ok())
            .await
    }

    /// Leaves the game: the seat ends at once. Returns when the gateway is being told.
    pub async fn leave(&self) {
        self.leave.cancel();
        let mut seat = self.seat.clone();
        // An error says that the task has ended, which is just as well.
        let _ = seat.wait_for(|seat| matches!(seat, Seat::Over(_))).await;
    }

    /// Waits until all has ended, and says how.
    pub async fn over(&self) -> End {
        let mut seat = self.seat.clone();
        let over = seat.wait_for(|seat| matches!(seat, Seat::Over(_))).await;
        match over.as_deref() {
            Ok(Seat::Over(end)) => end.clone(),
            _ => End::Left,
        }
    }

    /// Whether something could be sent now.
    pub(super) fn reachable(&self) -> Result<(), SendError> {
        self.connection().map(|_| ())
    }

    fn connection(&self) -> Result<Arc<Connection>, SendError> {
        match &*self.seat.borrow() {
            Seat::Taken(connection) => Ok(Arc::clone(connection)),
            Seat::Away => Err(SendError::Away),
            Seat::Over(_) => Err(SendError::Over),
        }
    }

    /// Receives from whatever connection there is; `from` says none when that one has ended.
    async fn receive<T>(&self, from: impl AsyncFn(&Connection) -> Option<T>) -> Result<T, End> {
        let mut seat = self.seat.clone();
        loop {
            let connection = match &*seat.borrow_and_update() {
                Seat::Taken(connection) => Some(Arc::clone(connection)),
                Seat::Away => None,
                Seat::Over(end) => return Err(end.clone()),
            };
            if let Some(connection) = connection
                && let Some(received) = from(&connection).await
            {
                return Ok(received);
            }
            if seat.changed().await.is_err() {
                return Err(End::Left);
            }
        }
    }
}
