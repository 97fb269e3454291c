//! One connection as the core keeps it: quinn-proto's state, how far admission has come, and what waits to be written.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Connection, StreamId};

use super::{budget::Spending, parking::Parked};
use crate::{
    gateway::transport::DATAGRAM_SEND_BUFFER,
    id::SessionId,
    seat::{Connection as SeatConnection, Handle},
    wire::{FrameReader, encode_message},
};

/// Names one connection of a worker for as long as the worker lives: quinn-proto uses its indices again, the serial tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkId {
    pub(super) index: usize,
    pub(super) serial: u32,
}

impl LinkId {
    /// The connection as the seat table knows it.
    pub(super) fn connection(self, worker: u16) -> SeatConnection {
        SeatConnection {
            worker,
            id: (u64::from(self.serial) << 32) | (self.index as u64 & 0xffff_ffff),
        }
    }

    /// The inverse of [`connection`](Self::connection).
    pub(super) fn from_connection(connection: SeatConnection) -> Self {
        Self {
            index: (connection.id & 0xffff_ffff) as usize,
            serial: (connection.id >> 32) as u32,
        }
    }
}

/// Bytes of datagrams that may wait unsent as slices of their tick's buffer: a few ticks' worth.
const UNCOPIED: usize = 4 * 1_024;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The TLS handshake runs.
    Handshaking,
    /// The handshake is done, Hello is awaited.
    AwaitingHello,
    /// Hello has come, with a token that is newer than what is known of the revocation log.
    AwaitingLog,
    /// Admitted.
    Seated(Handle),
    /// Closed by either side; quinn-proto drains it.
    Closed,
}

/// The client reads too slowly: its backlog of messages is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BacklogFull;

/// One connection.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) quic: Connection,
    pub(super) stage: Stage,
    /// The handshake has been completed; it stays true when the connection closes.
    pub(super) is_connected: bool,
    /// SHA-256 of the leaf certificate that this connection was accepted with.
    pub(super) leaf_sha256: [u8; 32],
    /// What it said, in [`Stage::AwaitingLog`].
    pub(super) parked: Option<Box<Parked>>,
    /// Whose seat it serves, or served.
    pub(super) session: Option<SessionId>,
    /// The session's stream: the client's first bidirectional one.
    pub(super) stream: Option<StreamId>,
    pub(super) reader: FrameReader,
    /// What the stream did not take yet.
    backlog: VecDeque<Bytes>,
    backlog_bytes: usize,
    /// What it has had of its budgets.
    pub(super) spending: Spending,
    /// When something was last written to the stream.
    wrote: Option<Instant>,
    /// For which time it is queued to be asked for its timers.
    pub(super) queued: Option<Instant>,
    pub(super) dirty: bool,
    pub(super) sending: bool,
    pub(super) resting: bool,
    /// The stream may have something to read.
    pub(super) readable: bool,
    /// The stream is left unread until the simulation has taken its inputs.
    pub(super) unread: bool,
}

impl Link {
    pub(super) fn new(id: LinkId, quic: Connection, leaf_sha256: [u8; 32]) -> Self {
        Self {
            id,
            quic,
            stage: Stage::Handshaking,
            is_connected: false,
            leaf_sha256,
            parked: None,
            session: None,
            stream: None,
            reader: FrameReader::new(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            spending: Spending::default(),
            wrote: None,
            queued: None,
            dirty: false,
            sending: false,
            resting: false,
            readable: false,
            unread: false,
        }
    }

    /// Queues a datagram; the oldest unsent one makes room.
    pub(super) fn send_datagram(&mut self, payload: Bytes) {
        let mut datagrams = self.quic.datagrams();
        // The payload is a slice of the whole tick's. A client that takes nothing would keep many ticks' worth of everybody's alive:
        // what waits behind others is copied.
        let payload = if datagrams.send_buffer_space() < DATAGRAM_SEND_BUFFER - UNCOPIED {
            Bytes::copy_from_slice(&payload)
        } else {
            payload
        };
        // It fails only when the peer shrank its limits or the connection is closing: then there is nobody to tell.
        let _ = datagrams.send(payload, true);
    }

    /// Queues a message of at most [`MAX_MESSAGE`](crate::wire::MAX_MESSAGE) bytes.
    pub(super) fn send_message(
        &mut self,
        now: Instant,
        payload: &[u8],
        limit: usize,
    ) -> Result<(), BacklogFull> {
        let mut frame = Vec::with_capacity(payload.len() + 8);
        match encode_message(payload, &mut frame) {
            Ok(()) => self.write(now, Bytes::from(frame), limit),
            // Too long; the simulation's outbox has refused it before.
            Err(_) => Ok(()),
        }
    }

    /// Writes bytes to the stream; what it does not take waits, up to `limit` bytes.
    pub(super) fn write(
        &mut self,
        now: Instant,
        bytes: Bytes,
        limit: usize,
    ) -> Result<(), BacklogFull> {
        if self.backlog_bytes + bytes.len() > limit {
            return Err(BacklogFull);
        }
        self.backlog_bytes += bytes.len();
        self.backlog.push_back(bytes);
        self.flush(now);
        Ok(())
    }

    /// Writes as much of the backlog as the stream takes.
    ///
    /// It goes on until quinn-proto says that the stream is blocked: that alone makes it tell when there is room again, a write that
    /// was cut short does not.
    pub(super) fn flush(&mut self, now: Instant) {
        let Some(stream) = self.stream else { return };
        while let Some(mut front) = self.backlog.pop_front() {
            let written = self
                .quic
                .send_stream(stream)
                .write_chunks(std::slice::from_mut(&mut front));
            if let Ok(written) = &written {
                self.backlog_bytes -= written.bytes;
                self.wrote = Some(now);
            }
            if !front.is_empty() {
                self.backlog.push_front(front);
            }
            // Blocked: there will be an event when it is not. Stopped or closed: nobody reads it any more.
            if written.is_err() {
                return;
            }
        }
    }

    /// Whether some of what was written to the stream may not have arrived yet: it was written within this time.
    pub(super) fn has_written(&self, now: Instant, within: Duration) -> bool {
        !self.backlog.is_empty() || self.wrote.is_some_and(|at| now < at + within)
    }
}
