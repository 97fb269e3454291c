//! What a connection's events mean: handshake done, Hello, inputs, leaving.

use std::{borrow::Cow, sync::atomic::Ordering, time::Instant};

use bytes::Bytes;
use quinn_proto::{ConnectionError, Dir, Event, StreamEvent};
use tracing::{debug, debug_span, field::Empty};

use super::{
    Core,
    link::{Link, LinkId, Stage},
    parking::Parked,
};
use crate::{
    control::{GatewayEvent, GatewayEventKind},
    gateway::{
        admit::{Admission, Applicant, Denied, Refusal, admit, token_sha256},
        farewell::Farewell,
    },
    id::SessionId,
    seat::{EndReason, Handle, Verdict},
    wire::{CloseCode, Frame, FrameError, Hello, MAX_DATAGRAM, MAX_HELLO, MAX_MESSAGE},
};

/// How much is read off a stream before its frames are looked at.
const READ_AT_ONCE: usize = 2_048;

/// What becomes of a Hello whose token is ahead of the revocation log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It may wait for the log.
    Left,
    /// It has waited.
    Over,
}

/// Whether there may be more to read.
enum Read {
    /// These bytes came.
    Bytes(Bytes),
    /// Nothing more for now.
    Blocked,
    /// The client finished the stream.
    Finished,
    /// The client reset the stream.
    Reset,
}

impl Core {
    /// Handles what quinn-proto has to say about the link. True if that is no more than that datagrams have come, if anything.
    pub(super) fn handle_events(&mut self, link: &mut Link, now: Instant) -> bool {
        let mut lost = None;
        let mut calm = true;
        while let Some(event) = link.quic.poll() {
            calm &= matches!(event, Event::DatagramReceived);
            match event {
                Event::Connected => self.connected(link, now),
                Event::DatagramReceived => self.take_datagrams(link, now),
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    if link.stream.is_none() {
                        link.stream = link.quic.streams().accept(Dir::Bi);
                        link.readable = true;
                    }
                }
                Event::Stream(StreamEvent::Readable { .. }) => link.readable = true,
                Event::Stream(StreamEvent::Writable { .. }) => link.flush(now),
                Event::ConnectionLost { reason } => lost = Some(reason),
                Event::HandshakeDataReady | Event::DatagramsUnblocked | Event::Stream(_) => {}
            }
        }
        if link.readable {
            link.readable = false;
            calm = false;
            self.read(link, now);
        }
        // Last: what a client sent before it left is read first.
        if let Some(reason) = lost {
            self.lost(link, now, &reason);
        }
        calm
    }

    fn connected(&mut self, link: &mut Link, now: Instant) {
        self.await_hello(link, now);
        let most = link.quic.datagrams().max_size();
        if most.is_none_or(|most| most < MAX_DATAGRAM) {
            // A client that does not take datagrams, or only shorter ones than the game may send, cannot play.
            self.refuse_link(link, now, CloseCode::ProtocolViolation, "no_datagrams");
        }
    }

    /// Reads the stream until it is dry, or until the seat has had its share of this tick or its budget of messages.
    fn read(&mut self, link: &mut Link, now: Instant) {
        while !matches!(link.stage, Stage::Closed | Stage::AwaitingLog) {
            if let Stage::Seated(handle) = link.stage
                && !(link.spending.may_read(&self.budgets, now)
                    && self
                        .exchange
                        .inbox()
                        .takes_messages(&self.exchange.budget, handle))
            {
                self.leave_unread(link);
                return;
            }
            match read_some(link) {
                Read::Bytes(bytes) => {
                    link.reader.push(&bytes);
                    self.take_frames(link, now);
                }
                Read::Blocked => return,
                Read::Finished => {
                    // Between frames, a seated client may finish: it will send no more messages.
                    let seated = matches!(link.stage, Stage::Seated(_));
                    if link.reader.finish().is_err() || !seated {
                        self.violated(link, now, FrameError::Malformed);
                    }
                    return;
                }
                Read::Reset => {
                    self.violated(link, now, FrameError::Malformed);
                    return;
                }
            }
        }
    }

    fn leave_unread(&mut self, link: &mut Link) {
        if !link.unread {
            link.unread = true;
            self.unread.push(link.id);
        }
        self.exchange.wait_for_room();
        // The simulation may have made room just before it could know that somebody waits for it.
        if self.exchange.times_taken() != self.seen_taken {
            self.exchange.wake();
        }
    }

    /// Takes the frames that are whole.
    pub(super) fn take_frames(&mut self, link: &mut Link, now: Instant) {
        // A parked client's further frames wait until it is in, and a refused one's are nobody's: it is refused once.
        while !matches!(link.stage, Stage::AwaitingLog | Stage::Closed) {
            let limit = if link.stage == Stage::AwaitingHello {
                MAX_HELLO
            } else {
                MAX_MESSAGE
            };
            let frame = match link.reader.next(limit) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => return self.violated(link, now, error),
            };
            match (link.stage, frame) {
                (Stage::AwaitingHello, Frame::Hello(hello)) => {
                    self.judge(link, now, hello, Patience::Left);
                }
                (Stage::Seated(handle), Frame::Message(payload)) => {
                    link.spending.message(&self.budgets, now, payload.len());
                    self.message(handle, &payload);
                }
                (Stage::Closed, _) => return,
                _ => return self.violated(link, now, FrameError::UnexpectedType),
            }
        }
    }

    fn message(&mut self, handle: Handle, payload: &[u8]) {
        self.shared.seats.touch(handle);
        self.exchange.inbox().push_message(handle, payload);
    }

    /// Lets the client in, has it wait, or refuses it.
    pub(super) fn judge(
        &mut self,
        link: &mut Link,
        now: Instant,
        hello: Hello,
        patience: Patience,
    ) {
        let span = debug_span!(
            "admission",
            gateway = %self.shared.id,
            remote = %link.quic.remote_address(),
            session = Empty,
            player = Empty,
            handle = Empty,
        );
        let _entered = span.enter();
        let wall = self.shared.clock.wall();
        let applicant = Applicant {
            connection: link.id.connection(self.worker),
            leaf_sha256: &link.leaf_sha256,
            hello: &hello,
        };
        match admit(&self.shared, applicant, wall) {
            Ok(admission) => {
                span.record(
                    "session",
                    tracing::field::display(admission.welcome.session),
                );
                span.record("player", tracing::field::display(admission.player));
                span.record("handle", tracing::field::display(admission.handle));
                self.admitted(link, now, &hello, &admission);
            }
            Err(Denied::Behind { revision, session }) if patience == Patience::Left => {
                span.record("session", tracing::field::display(session));
                debug!(%revision, "waits for the revocation log");
                let parked = Parked {
                    hello,
                    revision,
                    session,
                };
                self.park(link, now, parked);
            }
            Err(Denied::Behind { session, .. }) => {
                span.record("session", tracing::field::display(session));
                let token = Some(hello.token.as_str());
                self.refuse_hello(link, now, Refusal::LogBehind, Some(session), token);
            }
            Err(Denied::Refused { refusal, session }) => {
                if let Some(session) = session {
                    span.record("session", tracing::field::display(session));
                }
                let token = Some(hello.token.as_str());
                self.refuse_hello(link, now, refusal, session, token);
            }
        }
    }

    fn admitted(&mut self, link: &mut Link, now: Instant, hello: &Hello, admission: &Admission) {
        let Admission {
            handle,
            player: _,
            welcome,
            superseded,
        } = *admission;
        self.leave_rooms(link);
        link.stage = Stage::Seated(handle);
        link.session = Some(welcome.session);
        self.serve(handle, link.id);
        self.shared
            .counters
            .admitted
            .fetch_add(1, Ordering::Relaxed);
        debug!(resumed = welcome.resumed, "admitted");
        self.shared.events.record(GatewayEvent {
            at: self.shared.clock.wall(),
            kind: if welcome.resumed {
                GatewayEventKind::Resumed { superseded }
            } else {
                GatewayEventKind::Admitted
            },
            session: Some(welcome.session),
            token_sha256: Some(token_sha256(&hello.token)),
            remote: None,
        });
        let mut frame = Vec::new();
        welcome.encode(&mut frame);
        // The first bytes on the stream: they fit the backlog.
        let _ = link.write(now, Bytes::from(frame), self.shared.limits.message_backlog);
    }

    /// Refuses a client that has said Hello with this token.
    pub(super) fn refuse_hello(
        &mut self,
        link: &mut Link,
        now: Instant,
        refusal: Refusal,
        session: Option<SessionId>,
        token: Option<&str>,
    ) {
        let (code, label) = (refusal.close_code(), refusal.label());
        self.close_refused(link, now, code, label, session, token);
        // Who refused players are looked for is asked soon; who floods the door with nonsense can wait for the next heartbeat.
        if session.is_some() {
            self.shared.journal.ready().notify_one();
        }
    }

    fn serve(&mut self, handle: Handle, id: LinkId) {
        let slot = handle.slot() as usize;
        if slot >= self.served.len() {
            // Grows to the highest slot in use, at most the table's capacity.
            self.served.resize(slot + 1, None);
        }
        if let Some(entry) = self.served.get_mut(slot) {
            *entry = Some((handle, id));
        }
    }

    /// The client broke the protocol.
    fn violated(&mut self, link: &mut Link, now: Instant, error: FrameError) {
        match link.stage {
            Stage::Seated(handle) => {
                debug!(%handle, reason = error.label(), "seat ended: the client broke the protocol");
                let connection = link.id.connection(self.worker);
                self.shared
                    .seats
                    .end_connection(handle, connection, EndReason::Misbehaved);
                self.close_link(link, now, error.close_code().into());
            }
            _ => self.refuse_link(link, now, error.close_code(), error.label()),
        }
    }

    /// Closes a connection that has no seat; the label is the true reason, the code is what the client is told.
    fn refuse_link(&mut self, link: &mut Link, now: Instant, code: CloseCode, label: &'static str) {
        self.close_refused(link, now, code, label, None, None);
    }

    fn close_refused(
        &mut self,
        link: &mut Link,
        now: Instant,
        code: CloseCode,
        label: &'static str,
        session: Option<SessionId>,
        token: Option<&str>,
    ) {
        let remote = link.quic.remote_address();
        debug!(gateway = %self.shared.id, %remote, code = code.label(), reason = label, "refused");
        self.shared.counters.refused(code);
        self.shared.events.record(GatewayEvent {
            at: self.shared.clock.wall(),
            kind: GatewayEventKind::Refused {
                reason: Cow::Borrowed(label),
                code: code as u16,
            },
            session,
            token_sha256: token.map(token_sha256),
            remote: Some(remote),
        });
        self.close_link(link, now, code.into());
    }

    /// As [`refuse_link`](Self::refuse_link), by id.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        id: LinkId,
        code: CloseCode,
        label: &'static str,
    ) {
        if let Some(mut link) = self.take(id) {
            self.refuse_link(&mut link, now, code, label);
            self.queue_dirty(&mut link);
            self.put_back(link);
        }
    }

    /// Ends a connection and the seat that it serves, if it does.
    pub(super) fn end(&mut self, now: Instant, id: LinkId, reason: EndReason, told: Farewell) {
        let Some(link) = self.link(id) else { return };
        if let Stage::Seated(handle) = link.stage {
            let connection = id.connection(self.worker);
            self.shared.seats.end_connection(handle, connection, reason);
        }
        self.close(now, id, told);
    }

    /// The client has left: the seat that the link serves ends, if it does serve one.
    fn leave_seat(&mut self, link: &Link) {
        if let Stage::Seated(handle) = link.stage {
            let connection = link.id.connection(self.worker);
            self.shared
                .seats
                .end_connection(handle, connection, EndReason::Left);
            self.serve_no_more(handle, link.id);
        }
    }

    /// The connection is gone without a word: the seat that the link serves, if it does, waits for its session to come back.
    pub(super) fn suspend_seat(&mut self, link: &Link) {
        let Stage::Seated(handle) = link.stage else {
            return;
        };
        let connection = link.id.connection(self.worker);
        let wall = self.shared.clock.wall();
        let seats = &self.shared.seats;
        if seats.suspend(handle, connection, wall) && seats.verify(handle) == Verdict::Suspended {
            let session = link.session.map(tracing::field::display);
            debug!(gateway = %self.shared.id, session, %handle, "suspended");
            self.shared.events.record(GatewayEvent {
                at: wall,
                kind: GatewayEventKind::Suspended,
                session: link.session,
                token_sha256: None,
                remote: None,
            });
        }
        self.serve_no_more(handle, link.id);
    }

    /// Takes the link out of the index of seats, unless another has the seat meanwhile.
    pub(super) fn serve_no_more(&mut self, handle: Handle, id: LinkId) {
        if let Some(entry) = self.served.get_mut(handle.slot() as usize)
            && *entry == Some((handle, id))
        {
            *entry = None;
        }
    }

    /// The connection is gone: closed by the client, timed out, reset, or broken. Only a client that says so has left; any other may
    /// be on its way back.
    fn lost(&mut self, link: &mut Link, now: Instant, reason: &ConnectionError) {
        match reason {
            ConnectionError::ApplicationClosed(close)
                if close.error_code.into_inner() == CloseCode::Left.number() =>
            {
                self.leave_seat(link);
            }
            _ => self.suspend_seat(link),
        }
        self.keep_refused(link, now);
        self.leave_rooms(link);
        link.stage = Stage::Closed;
    }
}

/// Reads the next bytes of the session's stream.
fn read_some(link: &mut Link) -> Read {
    let Some(stream) = link.stream else {
        return Read::Blocked;
    };
    let mut stream = link.quic.recv_stream(stream);
    // Already finished or reset, and told.
    let Ok(mut chunks) = stream.read(true) else {
        return Read::Blocked;
    };
    let read = match chunks.next(READ_AT_ONCE) {
        Ok(Some(chunk)) => Read::Bytes(chunk.bytes),
        Ok(None) => Read::Finished,
        Err(quinn_proto::ReadError::Blocked) => Read::Blocked,
        Err(quinn_proto::ReadError::Reset(_)) => Read::Reset,
    };
    // Flow-control credit goes out with whatever the link sends next: it is queued for sending already.
    let _ = chunks.finalize();
    read
}
