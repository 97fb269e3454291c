//! The client for games without async: one thread in the background, and calls that return at once.
//!
//! ```no_run
//! use tickgate::client::{Event, Target, blocking::{Client, Player, Settings}};
//!
//! # fn play(ca: Vec<rustls::pki_types::CertificateDer<'static>>) -> Result<(), Box<dyn std::error::Error>> {
//! let player = Player::Dev("ada".into());
//! let mut client = Client::start(Settings::new("https://127.0.0.1:7800", ca, player, Target::Any))?;
//! let mut playing = true;
//! while playing {                                             // once per frame
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             Event::Joined { client, resumed, .. } => println!("in as {client}, resumed: {resumed}"),
//!             Event::Lost { reason, retry_in } => println!("{reason}; back in {retry_in:?}"),
//!             Event::Ended { reason, advice } => {
//!                 println!("{reason}: {}", advice.label());
//!                 playing = false;
//!             }
//!             _ => {}
//!         }
//!     }
//!     while let Some(snapshot) = client.recv_datagram() {
//!         println!("{} bytes", snapshot.len());
//!     }
//!     if client.is_in() {
//!         client.send_datagram(b"jump")?;
//!     }
//!     // Draw, and wait for the next frame.
//! }
//! client.close();
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    thread::JoinHandle,
};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::{
    runtime::Runtime,
    sync::mpsc::{self, error::TrySendError},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Account, CallError, End, Endpoint, Event, Events, Patience, Play, PlayOptions, SendError,
    Session, SessionKeeper, Target, backoff::random, join::Pauses, play::Queue,
};
use crate::wire::{MAX_MESSAGE, Welcome};

/// Messages that wait on either way: a second of one per frame at 60 Hz, of 16 KiB at most each.
const MESSAGES: usize = 64;

/// Who plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Player {
    /// Whoever has this name, in development only.
    Dev(String),
    /// The player of this session: kept from an earlier run ([`Client::close`]), or given by the game's backend.
    Session(Session),
}

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The sidecar's URL: `https://host:port`.
    pub sidecar: String,
    /// Who has signed the sidecar's certificate.
    pub ca: Vec<CertificateDer<'static>>,
    /// Who plays.
    pub player: Player,
    /// Where.
    pub target: Target,
    /// The local address; by default any IPv4 address and port.
    pub local: SocketAddr,
    /// How.
    pub options: PlayOptions,
}

impl Settings {
    /// Settings with defaults for all the rest.
    pub fn new(
        sidecar: impl Into<String>,
        ca: Vec<CertificateDer<'static>>,
        player: Player,
        target: Target,
    ) -> Self {
        Self {
            sidecar: sidecar.into(),
            ca,
            player,
            target,
            local: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            options: PlayOptions::default(),
        }
    }
}

/// Why a client could not even begin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system gives no thread, timer or socket.
    #[error("the system refuses a thread or a socket: {0}")]
    System(#[from] io::Error),
    /// The sidecar's URL or the certificates cannot be used.
    #[error(transparent)]
    Sidecar(#[from] CallError),
}

impl StartError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::System(_) => "system",
            Self::Sidecar(error) => error.label(),
        }
    }
}

/// A client that logs in, plays, stays in play and keeps its session fresh on a thread of its own. No call waits for the network.
///
/// Dropping it leaves the game and ends the thread, which takes a second at most; [`close`](Self::close) hands back the session too.
#[derive(Debug)]
pub struct Client {
    events: Events,
    seat: Arc<OnceLock<Seat>>,
    outgoing: mpsc::Sender<Bytes>,
    incoming: mpsc::Receiver<Bytes>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    /// Set before the end to have the session's newest tokens waited for.
    keep: Arc<OnceLock<()>>,
}

/// What there is once the player is logged in.
#[derive(Debug)]
struct Seat {
    play: Play,
    keeper: SessionKeeper,
}

impl Client {
    /// Starts the thread, which logs the player in and goes to play. What comes of it is told by [`poll_event`](Self::poll_event).
    ///
    /// # Errors
    /// [`StartError`], before anything has been sent.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let Settings {
            sidecar,
            ca,
            player,
            target,
            local,
            options,
        } = settings;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (account, endpoint) = {
            let _inside = runtime.enter();
            (Account::connect(&sidecar, &ca)?, Endpoint::bind(local)?)
        };
        let queue = Arc::new(Queue::default());
        let (outgoing, to_send) = mpsc::channel(MESSAGES);
        let (received, incoming) = mpsc::channel(MESSAGES);
        let seat = Arc::new(OnceLock::new());
        let stop = CancellationToken::new();
        let keep = Arc::new(OnceLock::new());
        let background = Background {
            account,
            endpoint,
            target,
            options,
            events: Arc::clone(&queue),
            seat: Arc::clone(&seat),
            to_send,
            received,
            stop: stop.clone(),
            keep: Arc::clone(&keep),
        };
        let thread = std::thread::Builder::new()
            .name("tickgate-client".into())
            .spawn(move || background.run(&runtime, player))?;
        Ok(Self {
            events: Events(queue),
            seat,
            outgoing,
            incoming,
            stop,
            thread: Some(thread),
            keep,
        })
    }

    /// The next thing that happened, if any. After [`Event::Ended`] there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.try_next()
    }

    /// How many events were lost because nobody took them: the oldest of more than 64 that wait.
    pub fn missed_events(&self) -> u64 {
        self.events.missed()
    }

    /// Whether the client is in the game now.
    pub fn is_in(&self) -> bool {
        self.welcome().is_some()
    }

    /// What the gateway said when it let the client in; none while the client is away.
    pub fn welcome(&self) -> Option<Welcome> {
        self.seat.get()?.play.welcome()
    }

    /// Sends a datagram, as [`Play::send_datagram`].
    ///
    /// # Errors
    /// [`SendError::Away`] while the client is not in, [`SendError::Over`] when it will not be any more; [`SendError::TooLong`].
    pub fn send_datagram(&self, payload: &[u8]) -> Result<(), SendError> {
        let seat = self.seat()?;
        seat.play.send_datagram(Bytes::copy_from_slice(payload))
    }

    /// The next datagram, if there is one now.
    pub fn recv_datagram(&self) -> Option<Bytes> {
        self.seat.get()?.play.try_recv_datagram()
    }

    /// Hands over a message to be sent: reliable and in order for as long as the connection lives. Those that wait when a connection is
    /// lost are lost with it.
    ///
    /// # Errors
    /// [`SendError::Full`] while 64 wait; otherwise as [`send_datagram`](Self::send_datagram).
    pub fn send_message(&self, payload: &[u8]) -> Result<(), SendError> {
        let seat = self.seat()?;
        if payload.len() > MAX_MESSAGE {
            return Err(SendError::TooLong {
                length: payload.len(),
                limit: MAX_MESSAGE,
            });
        }
        seat.play.reachable()?;
        match self.outgoing.try_send(Bytes::copy_from_slice(payload)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(SendError::Full),
            Err(TrySendError::Closed(_)) => Err(SendError::Over),
        }
    }

    /// The next message, if there is one now. While 64 wait, and some 32 KiB more, the gateway cannot send any.
    pub fn recv_message(&mut self) -> Option<Bytes> {
        self.incoming.try_recv().ok()
    }

    /// The session with its newest tokens; none before the log-in. While the client runs they are its own: no one else may refresh them.
    pub fn session(&self) -> Option<Session> {
        Some(self.seat.get()?.keeper.session())
    }

    /// Leaves the game, tells the gateway, and returns the session for another time; none if there was no log-in. Waits for that: a
    /// second, and 3 s more if a refresh of the tokens is under way.
    pub fn close(mut self) -> Option<Session> {
        let _ = self.keep.set(());
        self.stop();
        self.session()
    }

    fn seat(&self) -> Result<&Seat, SendError> {
        match self.seat.get() {
            Some(seat) => Ok(seat),
            // The thread has ended without a log-in.
            None if self.outgoing.is_closed() => Err(SendError::Over),
            None => Err(SendError::Away),
        }
    }

    fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there would be nothing to be done here.
            let _ = thread.join();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread does.
struct Background {
    account: Account,
    endpoint: Endpoint,
    target: Target,
    options: PlayOptions,
    events: Arc<Queue>,
    seat: Arc<OnceLock<Seat>>,
    to_send: mpsc::Receiver<Bytes>,
    received: mpsc::Sender<Bytes>,
    stop: CancellationToken,
    keep: Arc<OnceLock<()>>,
}

impl Background {
    fn run(mut self, runtime: &Runtime, player: Player) {
        runtime.block_on(async {
            let stop = self.stop.clone();
            let logged_in = tokio::select! {
                () = stop.cancelled() => None,
                session = self.log_in(player) => session,
            };
            let Some(session) = logged_in else { return };
            let keeper = SessionKeeper::new(self.account.clone(), session);
            let play = Play::telling(
                Arc::clone(&self.events),
                self.endpoint.clone(),
                keeper.clone(),
                self.target.clone(),
                self.options.clone(),
            );
            let seat = self.seat.get_or_init(|| Seat { play, keeper });
            tokio::select! {
                () = stop.cancelled() => {}
                _ = seat.play.over() => {}
                () = send(&seat.play, &mut self.to_send) => {}
                () = receive(&seat.play, &self.received) => {}
            }
            seat.play.leave().await;
            // What has come is still there to be taken, and the tokens are kept fresh: until the game lets go.
            stop.cancelled().await;
            let keep = async {
                if self.keep.get().is_some() {
                    seat.keeper.stop().await;
                }
            };
            tokio::join!(self.endpoint.shutdown(), keep);
        });
    }

    /// Logs the player in; waits for the sidecar if it is away.
    async fn log_in(&self, player: Player) -> Option<Session> {
        let name = match player {
            Player::Session(session) => return Some(session),
            Player::Dev(name) => name,
        };
        let patience: Patience = self.options.persistence.patience;
        let mut pauses = Pauses::new(patience);
        loop {
            self.events.tell(Event::LoggingIn);
            let error = match self.account.login_dev(&name).await {
                Ok(session) => return Some(session),
                Err(error) => error,
            };
            let advice = error.advice();
            match pauses.after(advice, random()) {
                Some(retry_in) => {
                    let reason = Arc::new(error.into());
                    self.events.tell(Event::Waiting { reason, retry_in });
                    sleep(retry_in).await;
                }
                None => {
                    let reason = End::LogIn(Arc::new(error));
                    self.events.tell(Event::Ended { reason, advice });
                    return None;
                }
            }
        }
    }
}

/// Sends what the game hands over, as fast as the gateway takes it.
async fn send(play: &Play, to_send: &mut mpsc::Receiver<Bytes>) {
    while let Some(message) = to_send.recv().await {
        if let Err(error) = play.send_message(&message).await {
            // What waits behind it was meant for the same connection.
            let mut lost = 1;
            while to_send.try_recv().is_ok() {
                lost += 1;
            }
            tracing::debug!(%error, lost, "messages lost with their connection");
        }
    }
}

/// Takes what comes, as fast as the game takes it.
async fn receive(play: &Play, received: &mpsc::Sender<Bytes>) {
    while let Ok(message) = play.recv_message().await {
        if received.send(message).await.is_err() {
            return;
        }
    }
}
