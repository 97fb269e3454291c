//! Players of games behind Tickgate, by the thousands: tickets in, Welcome, datagrams and messages out and in, and what an end means.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    config::{FleetError, Server, Transport},
    driver::Fleet,
    event::{End, Event, Member, NotSent, Stream, What},
};
use crate::{
    client::{
        Closed, ConnectError, Deadlines, HelloOptions, Ticket,
        endpoint::{KEEP_ALIVE, PINNED_CONFIGS},
        keepalive::MOST_OFTEN,
        stream::CLOSE_GRACE,
    },
    id::SessionId,
    tls,
    wire::{
        self, CloseCode, Frame, FrameError, FrameReader, MAX_DATAGRAM, MAX_MESSAGE, MAX_WELCOME,
        Welcome,
    },
};

/// What a quiet player keeps of a buffer for messages that wait to be sent, in bytes.
const KEPT: usize = 2_048;

/// Something that happened to one player.
#[derive(Debug)]
pub struct PlayerEvent {
    /// To whom.
    pub member: Member,
    /// When the packet that brought it was read, or the timer ran: see [`Event::at`].
    pub at: Instant,
    /// What.
    pub news: News,
}

/// What happened to a player.
#[derive(Debug)]
#[non_exhaustive]
pub enum News {
    /// The gateway has let the player in.
    Joined(Welcome),
    /// A datagram of the game's has come. It may overtake [`Joined`](Self::Joined).
    Datagram(Bytes),
    /// A message of the game's has come.
    Message(Bytes),
    /// The player did not get in: the last event of this member, whose name is not used again.
    Refused(ConnectError),
    /// The player was in, and is no more: the last event of this member.
    Closed(Closed),
}

/// Players over a [`Fleet`]: what [`Endpoint`](crate::client::Endpoint) and [`Connection`](crate::client::Connection) are to one of them.
///
/// It is driven as the fleet is, by [`turn`](Self::turn) and [`poll`](Self::poll). Nobody comes back by itself: a caller whose player was
/// refused or closed asks [`ConnectError::advice`] or [`Closed::advice`], and joins anew with a new ticket if that is sensible.
#[derive(Debug)]
pub struct Players {
    fleet: Fleet,
    /// By their members' places.
    players: Vec<Option<Box<Player>>>,
    transport: Transport,
    deadlines: Deadlines,
    /// TLS configurations, one per set of pinned certificates.
    pinned: Vec<(Vec<[u8; 32]>, Server)>,
    /// What is to be looked at when: two entries a player at the most, which are forgotten as they come due.
    calls: BinaryHeap<Reverse<(Instant, Member, Call)>>,
    /// Whose stream has brought bytes that have not been told as frames yet, and when.
    reading: Option<(Member, Instant)>,
}

#[derive(Debug)]
struct Player {
    member: Member,
    stage: Stage,
    stream: Option<Stream>,
    frames: FrameReader,
    /// What the stream did not take yet.
    unsent: Vec<u8>,
    /// The longest datagram that the gateway takes, in bytes.
    longest: usize,
    /// Why this end closed the connection, if it did for a reason.
    fault: Option<Fault>,
}

#[derive(Debug)]
enum Stage {
    /// The QUIC handshake runs; then this is said.
    Handshaking(Box<Opening>),
    /// Hello was said; it is this session that is to be let in, if that is known.
    Greeting(Option<SessionId>),
    In,
}

#[derive(Debug)]
struct Opening {
    ticket: Ticket,
    options: HelloOptions,
}

#[derive(Debug)]
enum Fault {
    Gateway(Closed),
    Hello(FrameError),
    HandshakeTimeout,
    WelcomeTimeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    /// The handshake must be done by now.
    Handshake,
    /// Welcome must be there by now.
    Welcome,
    /// The gateway ended the stream: its close must be there by now.
    Close,
    /// The gateway wants to hear of the player.
    Ping { every: Duration },
}

impl Players {
    /// Nobody yet, over `fleet`, which is to be nobody else's.
    pub fn new(fleet: Fleet) -> Self {
        Self {
            fleet,
            players: Vec::new(),
            transport: Transport::default(),
            deadlines: Deadlines::default(),
            pinned: Vec::new(),
            calls: BinaryHeap::new(),
            reading: None,
        }
    }

    /// Sets how players to come speak QUIC.
    #[must_use]
    pub fn with_transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self.pinned.clear();
        self
    }

    /// Sets how long the steps of joining may take.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Begins to join the ticket's gateway at the first of its addresses that the fleet has sockets for, saying what `options` say.
    /// [`News::Joined`] or [`News::Refused`] tells how it went.
    ///
    /// # Errors
    /// [`ConnectError::Ticket`] and [`ConnectError::Tls`]: the ticket cannot be used from here.
    pub fn join(&mut self, ticket: Ticket, options: HelloOptions) -> Result<Member, ConnectError> {
        let server = self.server_for(&ticket.certificate_sha256)?;
        let mut begun = Err(FleetError::NoSocket);
        for address in &ticket.addresses {
            begun = self
                .fleet
                .connect(&server.named(*address, &ticket.server_name));
            if !matches!(begun, Err(FleetError::NoSocket)) {
                break;
            }
        }
        let member = begun.map_err(|error| match error {
            FleetError::NoSocket => ConnectError::Ticket("no address of the fleet's family"),
            FleetError::Server(what) => ConnectError::Ticket(what),
            _ => ConnectError::EndpointClosed,
        })?;
        let player = Player {
            member,
            stage: Stage::Handshaking(Box::new(Opening { ticket, options })),
            stream: None,
            frames: FrameReader::new(),
            unsent: Vec::new(),
            longest: MAX_DATAGRAM,
            fault: None,
        };
        if self.players.len() <= member.place() {
            self.players.resize_with(member.place() + 1, || None);
        }
        if let Some(place) = self.players.get_mut(member.place()) {
            *place = Some(Box::new(player));
        }
        self.call(member, Call::Handshake, self.deadlines.handshake);
        Ok(member)
    }

    /// The server that holds one of these certificates, wherever it is.
    fn server_for(&mut self, certificates: &[[u8; 32]]) -> Result<Server, ConnectError> {
        if let Some((_, known)) = self.pinned.iter().find(|(pins, _)| pins == certificates) {
            return Ok(known.clone());
        }
        let tls = tls::pinned_quic_client_config(certificates.to_vec())?;
        let nowhere = ([0, 0, 0, 0], 0).into();
        let server = Server::new(nowhere, "", tls, &self.transport)
            .map_err(|_| ConnectError::Ticket("no cipher suite for QUIC"))?;
        if self.pinned.len() == PINNED_CONFIGS {
            self.pinned.remove(0);
        }
        self.pinned.push((certificates.to_vec(), server.clone()));
        Ok(server)
    }

    fn call(&mut self, member: Member, call: Call, after: Duration) {
        let at = self.fleet.clock().now() + after;
        self.calls.push(Reverse((at, member, call)));
    }

    /// Sends what there is to send, and waits until `until` or until something has happened: see [`Fleet::turn`].
    ///
    /// # Errors
    /// As [`Fleet::turn`].
    pub fn turn(&mut self, until: Instant) -> io::Result<()> {
        loop {
            let now = self.fleet.clock().now();
            self.answer_calls(now);
            if self.reading.is_some() {
                return self.fleet.turn(now);
            }
            let next = self.calls.peek().map_or(until, |Reverse((at, ..))| *at);
            self.fleet.turn(next.min(until))?;
            if self.fleet.has_events() || self.fleet.clock().now() >= until {
                return Ok(());
            }
        }
    }

    fn answer_calls(&mut self, now: Instant) {
        while let Some(&Reverse((at, member, call))) = self.calls.peek()
            && at <= now
        {
            self.calls.pop();
            let Some(player) = player(&mut self.players, member) else {
                continue;
            };
            match (call, &player.stage) {
                (Call::Handshake, Stage::Handshaking(_)) => {
                    self.fail(member, Fault::HandshakeTimeout, CloseCode::Left);
                }
                (Call::Welcome, Stage::Greeting(_)) => {
                    self.fail(member, Fault::WelcomeTimeout, CloseCode::Left);
                }
                (Call::Close, _) => {
                    self.fail(member, Fault::Gateway(Closed::StreamEnded), CloseCode::Left);
                }
                (Call::Ping { every }, _) => {
                    self.fleet.ping(member);
                    self.calls.push(Reverse((now + every, member, call)));
                }
                (Call::Handshake | Call::Welcome, _) => {}
            }
        }
    }

    /// The next event. Take all of them before the next [`turn`](Self::turn).
    pub fn poll(&mut self) -> Option<PlayerEvent> {
        loop {
            if let Some((member, at)) = self.reading {
                match self.read_frame(member) {
                    Some(news) => return Some(PlayerEvent { member, at, news }),
                    None => self.reading = None,
                }
            }
            let Event { member, at, what } = self.fleet.poll()?;
            if let Some(news) = self.take(member, at, what) {
                return Some(PlayerEvent { member, at, news });
            }
        }
    }

    fn take(&mut self, member: Member, at: Instant, what: What) -> Option<News> {
        let player = player(&mut self.players, member)?;
        match what {
            What::Connected => self.greet(member),
            What::Datagram(payload) => return Some(News::Datagram(payload)),
            What::Bytes { stream, bytes } if player.stream == Some(stream) => {
                player.frames.push(&bytes);
                self.reading = Some((member, at));
            }
            What::Writable(stream) if player.stream == Some(stream) => self.flush(member),
            What::Ended { stream, .. } if player.stream == Some(stream) => {
                self.call(member, Call::Close, CLOSE_GRACE);
            }
            What::Closed(end) => {
                let player = self.players.get_mut(member.place())?.take()?;
                return Some(ended(*player, end));
            }
            // No other stream is allowed, and none is opened.
            What::Bytes { .. } | What::Writable(_) | What::Ended { .. } => {}
        }
        None
    }

    /// Presents the token.
    fn greet(&mut self, member: Member) {
        // QUIC hands over the chain that TLS has verified; a handshake without one does not get this far.
        let leaf = self.fleet.leaf_sha256(member).unwrap_or_default();
        let Some(player) = player(&mut self.players, member) else {
            return;
        };
        let Stage::Handshaking(opening) = &player.stage else {
            return;
        };
        let Opening { ticket, options } = &**opening;
        let hello = options.hello(ticket, &leaf).encode(&mut player.unsent);
        // Whoever presents another token than the ticket's has another session.
        let session = options.token.is_none().then_some(ticket.session);
        player.stage = Stage::Greeting(session);
        if let Err(error) = hello {
            return self.fail(member, Fault::Hello(error), CloseCode::Left);
        }
        // A gateway that allows no stream lets nobody in: the deadline finds out.
        player.stream = self.fleet.open_bidirectional(member).ok().flatten();
        self.flush(member);
        self.call(member, Call::Welcome, self.deadlines.welcome);
    }

    /// Writes what waits.
    fn flush(&mut self, member: Member) {
        let Some(player) = player(&mut self.players, member) else {
            return;
        };
        let Some(stream) = player.stream else { return };
        match self.fleet.write(member, stream, &player.unsent) {
            Ok(written) => {
                player.unsent.drain(..written);
                if player.unsent.is_empty() {
                    player.unsent.shrink_to(KEPT);
                }
            }
            Err(NotSent::StreamClosed) => self.call(member, Call::Close, CLOSE_GRACE),
            // Its end is to be told.
            Err(_) => {}
        }
    }

    fn read_frame(&mut self, member: Member) -> Option<News> {
        let player = player(&mut self.players, member)?;
        if player.fault.is_some() {
            return None;
        }
        let limit = match player.stage {
            Stage::In => MAX_MESSAGE,
            Stage::Handshaking(_) | Stage::Greeting(_) => MAX_WELCOME,
        };
        let frame = player.frames.next(limit);
        match (frame, &player.stage) {
            (Ok(None), _) => None,
            (Ok(Some(Frame::Message(payload))), Stage::In) => Some(News::Message(payload)),
            (Ok(Some(Frame::Welcome(welcome))), Stage::Greeting(session)) => {
                if session.is_some_and(|session| session != welcome.session) {
                    let fault = Fault::Gateway(Closed::OtherSession);
                    self.fail(member, fault, CloseCode::ProtocolViolation);
                    return None;
                }
                player.stage = Stage::In;
                player.longest = usize::from(welcome.max_datagram).min(MAX_DATAGRAM);
                self.keep_heard(member, welcome.ping_interval_ms);
                Some(News::Joined(welcome))
            }
            (Ok(Some(_)), _) => self.violation(member, FrameError::UnexpectedType),
            (Err(error), _) => self.violation(member, error),
        }
    }

    fn violation(&mut self, member: Member, error: FrameError) -> Option<News> {
        let fault = Fault::Gateway(Closed::Violation(error));
        self.fail(member, fault, error.close_code());
        None
    }

    /// QUIC's own keep-alive is set before the gateway says how often it wants to hear of a player; a gateway that asks for more gets it from
    /// here.
    fn keep_heard(&mut self, member: Member, interval_ms: u16) {
        let every = Duration::from_millis(interval_ms.into());
        if every < KEEP_ALIVE {
            let every = every.max(MOST_OFTEN);
            self.call(member, Call::Ping { every }, every);
        }
    }

    /// Closes the connection for a reason: the first one, and only if the gateway has not given one of its own.
    fn fail(&mut self, member: Member, fault: Fault, code: CloseCode) {
        if let Some(player) = player(&mut self.players, member) {
            player.fault.get_or_insert(fault);
            self.fleet.close(member, code.number(), &[]);
        }
    }

    /// Sends a datagram: unreliable, unordered. See [`Fleet::send_datagram`].
    ///
    /// # Errors
    /// [`NotSent::TooLong`] above 1,150 bytes or the gateway's own limit, [`NotSent::NotIn`], [`NotSent::Gone`].
    pub fn send_datagram(&mut self, member: Member, payload: &[u8]) -> Result<(), NotSent> {
        let player = player(&mut self.players, member).ok_or(NotSent::Gone)?;
        let (length, limit) = (payload.len(), player.longest);
        if !matches!(player.stage, Stage::In) {
            return Err(NotSent::NotIn);
        }
        if length > limit {
            return Err(NotSent::TooLong { length, limit });
        }
        self.fleet.send_datagram(member, payload)
    }

    /// Sends a message: reliable and in order. One message at the most waits while the gateway has not taken earlier ones.
    ///
    /// # Errors
    /// [`NotSent::TooLong`] above 16 KiB, [`NotSent::Full`], [`NotSent::NotIn`], [`NotSent::Gone`].
    pub fn send_message(&mut self, member: Member, payload: &[u8]) -> Result<(), NotSent> {
        let player = player(&mut self.players, member).ok_or(NotSent::Gone)?;
        if !matches!(player.stage, Stage::In) {
            return Err(NotSent::NotIn);
        }
        if !player.unsent.is_empty() {
            return Err(NotSent::Full);
        }
        wire::encode_message(payload, &mut player.unsent).map_err(|_| NotSent::TooLong {
            length: payload.len(),
            limit: MAX_MESSAGE,
        })?;
        self.flush(member);
        Ok(())
    }

    /// Leaves: the seat ends at once. [`News::Closed`] or [`News::Refused`] follows all the same.
    pub fn leave(&mut self, member: Member) {
        self.fleet.close(member, CloseCode::Left.number(), &[]);
    }

    /// Everybody leaves. They are told in the next turns.
    pub fn leave_all(&mut self) {
        self.fleet.close_all(CloseCode::Left.number());
    }

    /// The fleet: addresses, traffic, the clock.
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The fleet, to change addresses, or to let players vanish. What it tells of clients that did not join here is dropped.
    pub const fn fleet_mut(&mut self) -> &mut Fleet {
        &mut self.fleet
    }
}

fn player(players: &mut [Option<Box<Player>>], member: Member) -> Option<&mut Player> {
    let player = players.get_mut(member.place())?.as_deref_mut();
    player.filter(|player| player.member == member)
}

/// What a player is told last.
fn ended(player: Player, end: End) -> News {
    let closed = match (end, player.fault) {
        // We closed it, and know why. The gateway's own word goes before ours.
        (End::Local, Some(fault)) => match fault {
            Fault::Gateway(closed) => closed,
            Fault::Hello(error) => return News::Refused(ConnectError::Hello(error)),
            Fault::HandshakeTimeout => return News::Refused(ConnectError::HandshakeTimeout),
            Fault::WelcomeTimeout => return News::Refused(ConnectError::WelcomeTimeout),
        },
        (End::TimedOut, _) if matches!(player.stage, Stage::Handshaking(_)) => {
            return News::Refused(ConnectError::HandshakeTimeout);
        }
        (end, _) => end.into(),
    };
    match player.stage {
        Stage::In => News::Closed(closed),
        Stage::Handshaking(_) | Stage::Greeting(_) => News::Refused(ConnectError::Refused(closed)),
    }
}
