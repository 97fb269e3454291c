//! One client as the core keeps it: quinn-proto's connection, and what of it the caller has not been told yet.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, Event as Quic, ReadError, SendDatagramError, StreamEvent,
    WriteError,
};

use super::event::{End, Member, NotSent, Stream, What};

/// Bytes of a stream that are told at once, at the most.
const READ_AT_ONCE: usize = 64 * 1_024;
/// Bytes of datagrams that may wait unsent as slices of a buffer that they share with others.
const UNCOPIED: usize = 4 * 1_024;
/// Bytes of a shared buffer: a thousand inputs of a game.
const SHARED: usize = 64 * 1_024;

/// Where payloads are copied to that are sent: one allocation for a thousand of them, used again when all are gone.
#[derive(Debug, Default)]
pub(super) struct Payloads(BytesMut);

impl Payloads {
    fn copy(&mut self, payload: &[u8]) -> Bytes {
        if self.0.capacity() - self.0.len() < payload.len() {
            self.0.reserve(payload.len().max(SHARED));
        }
        self.0.extend_from_slice(payload);
        self.0.split().freeze()
    }
}

/// One client.
pub(super) struct Link {
    pub(super) member: Member,
    pub(super) handle: ConnectionHandle,
    pub(super) quic: Connection,
    /// The socket that it sends from.
    pub(super) socket: usize,
    /// When it last got a packet, or its timer ran.
    pub(super) touched_at: Instant,
    datagrams_out: usize,
    /// It stands in the list of those that something happened to, of those that may have packets to send, of those with something to tell.
    pub(super) dirty: bool,
    pub(super) sending: bool,
    pub(super) ready: bool,
    /// Neither sends nor takes anything any more.
    pub(super) vanished: bool,
    /// quinn-proto is done with it.
    pub(super) drained: bool,
    /// Rare events, in their order.
    notes: VecDeque<Note>,
    /// There may be datagrams to take.
    datagrams: bool,
    /// Streams that may have something to read.
    readable: VecDeque<Stream>,
    end: Option<End>,
    pub(super) end_is_told: bool,
}

enum Note {
    Connected,
    Writable(Stream),
}

impl Link {
    pub(super) fn new(
        member: Member,
        handle: ConnectionHandle,
        quic: Connection,
        socket: usize,
        datagrams_out: usize,
        now: Instant,
    ) -> Self {
        Self {
            member,
            handle,
            quic,
            socket,
            touched_at: now,
            datagrams_out,
            dirty: false,
            sending: false,
            ready: false,
            vanished: false,
            drained: false,
            notes: VecDeque::new(),
            datagrams: false,
            readable: VecDeque::new(),
            end: None,
            end_is_told: false,
        }
    }

    /// Whether its connection has ended, told or not.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some() || self.end_is_told
    }

    /// Notes how it ended, unless it had.
    pub(super) fn end(&mut self, end: End) {
        if !self.has_ended() {
            self.end = Some(end);
        }
    }

    /// Notes what quinn-proto says has happened.
    pub(super) fn collect(&mut self) {
        while let Some(event) = self.quic.poll() {
            match event {
                Quic::Connected => self.notes.push_back(Note::Connected),
                Quic::DatagramReceived => self.datagrams = true,
                Quic::ConnectionLost { reason } => self.end(reason.into()),
                Quic::Stream(StreamEvent::Opened { dir }) => {
                    while let Some(id) = self.quic.streams().accept(dir) {
                        self.note_readable(Stream(id));
                    }
                }
                Quic::Stream(StreamEvent::Readable { id }) => self.note_readable(Stream(id)),
                Quic::Stream(StreamEvent::Writable { id } | StreamEvent::Stopped { id, .. }) => {
                    self.notes.push_back(Note::Writable(Stream(id)))
                }
                Quic::Stream(StreamEvent::Finished { .. } | StreamEvent::Available { .. })
                | Quic::HandshakeDataReady
                | Quic::DatagramsUnblocked => {}
            }
        }
    }

    fn note_readable(&mut self, stream: Stream) {
        if !self.readable.contains(&stream) {
            self.readable.push_back(stream);
        }
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        let news = self.datagrams
            || !self.notes.is_empty()
            || !self.readable.is_empty()
            || self.end.is_some();
        news && !self.end_is_told
    }

    /// What is to be told next; its end last. The second: whether the server is to be told that there is room again.
    pub(super) fn tell(&mut self) -> (Option<What>, bool) {
        if self.end_is_told {
            return (None, false);
        }
        if let Some(note) = self.notes.pop_front() {
            let what = match note {
                Note::Connected => What::Connected,
                Note::Writable(stream) => What::Writable(stream),
            };
            return (Some(what), false);
        }
        if self.datagrams {
            if let Some(payload) = self.quic.datagrams().recv() {
                return (Some(What::Datagram(payload)), false);
            }
            self.datagrams = false;
        }
        let mut room = false;
        while let Some(stream) = self.readable.front().copied() {
            let (told, more_room) = self.read(stream);
            room |= more_room;
            if !matches!(told, Some(What::Bytes { .. })) {
                self.readable.pop_front();
            }
            if told.is_some() {
                return (told, room);
            }
        }
        match self.end.take() {
            Some(end) => {
                self.end_is_told = true;
                (Some(What::Closed(end)), room)
            }
            None => (None, room),
        }
    }

    fn read(&mut self, stream: Stream) -> (Option<What>, bool) {
        let mut receive = self.quic.recv_stream(stream.0);
        let Ok(mut chunks) = receive.read(true) else {
            // Its end was told.
            return (None, false);
        };
        let told = match chunks.next(READ_AT_ONCE) {
            Ok(Some(chunk)) => Some(What::Bytes {
                stream,
                bytes: chunk.bytes,
            }),
            Ok(None) => Some(What::Ended {
                stream,
                reset: None,
            }),
            Err(ReadError::Reset(code)) => Some(What::Ended {
                stream,
                reset: Some(code.into_inner()),
            }),
            Err(ReadError::Blocked) => None,
        };
        (told, chunks.finalize().should_transmit())
    }

    /// Queues a datagram; the oldest unsent ones make room.
    pub(super) fn send_datagram(
        &mut self,
        payload: &[u8],
        payloads: &mut Payloads,
    ) -> Result<(), NotSent> {
        let length = payload.len();
        let mut datagrams = self.quic.datagrams();
        // A client that cannot send would keep the shared buffer of everybody's alive: what waits behind others is copied by itself.
        let waits = self.datagrams_out - datagrams.send_buffer_space().min(self.datagrams_out);
        let payload = if waits > UNCOPIED {
            Bytes::copy_from_slice(payload)
        } else {
            payloads.copy(payload)
        };
        datagrams.send(payload, true).map_err(|error| match error {
            SendDatagramError::TooLarge => NotSent::TooLong {
                length,
                limit: datagrams.max_size().unwrap_or(0),
            },
            SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled
            | SendDatagramError::Blocked(_) => NotSent::Unsupported,
        })
    }

    /// Writes as much of `bytes` as the stream takes; how many those are.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<usize, NotSent> {
        if !stream.is_writable() {
            return Err(NotSent::StreamClosed);
        }
        let mut send = self.quic.send_stream(stream.0);
        let mut written = 0;
        // Until it takes nothing: that alone makes it tell when there is room again, a write that was cut short does not.
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match send.write(rest) {
                Ok(count) => written += count,
                Err(WriteError::Blocked) => break,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    return Err(NotSent::StreamClosed);
                }
            }
        }
        Ok(written)
    }

    /// quinn-proto's estimate of the round-trip time.
    pub(super) fn round_trip_time(&self) -> Duration {
        self.quic.rtt()
    }
}
