//! A QUIC connection with its one stream: frames out and in, safe to cancel, and the one answer to why it ended.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use super::Closed;
use crate::wire::{CloseCode, Frame, FrameError, FrameReader};

/// How long the close that explains an ended stream may lag behind it: both were sent together, but QUIC does not keep their order.
pub(super) const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// How much is taken off the stream at once, in bytes; it bounds, beside one frame, what the frame reader holds.
const READ_AT_ONCE: usize = 4_096;

/// A QUIC connection that closes as *left* when it is dropped, and remembers why this end closed it if it had to.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) quic: quinn::Connection,
    /// Set once this end has closed the connection for a fault of the gateway's; QUIC itself would only say "locally closed".
    fault: OnceLock<Closed>,
}

impl Link {
    pub(super) fn new(quic: quinn::Connection) -> Self {
        Self {
            quic,
            fault: OnceLock::new(),
        }
    }

    /// Closes the connection unless it is closed: QUIC would forget the gateway's own code for ours.
    pub(super) fn close(&self, code: CloseCode) {
        if self.quic.close_reason().is_none() {
            let number = quinn::VarInt::from_u32(code as u32);
            self.quic.close(number, &[]);
        }
    }

    pub(super) fn close_reason(&self) -> Option<Closed> {
        Some(self.told(self.quic.close_reason()?))
    }

    pub(super) async fn closed(&self) -> Closed {
        self.told(self.quic.closed().await)
    }

    fn told(&self, error: quinn::ConnectionError) -> Closed {
        match self.fault.get() {
            Some(fault) => fault.clone(),
            None => error.into(),
        }
    }

    /// Why the connection ended, or ends hereby, given how its stream failed. The gateway's close code wins whenever there is one,
    /// also when the failure of the stream is seen first.
    pub(super) async fn settle(&self, failure: StreamFailure) -> Closed {
        match failure {
            StreamFailure::Connection(error) => self.told(error),
            // It is no fault of the gateway's that docs/PROTOCOL.md has a code for: the client just leaves.
            StreamFailure::Ended => match timeout(CLOSE_GRACE, self.closed()).await {
                Ok(closed) => closed,
                Err(_) => self.fail(Closed::StreamEnded, CloseCode::Left),
            },
            StreamFailure::Frame(error) => match self.close_reason() {
                Some(closed) => closed,
                None => self.fail(Closed::Violation(error), error.close_code()),
            },
        }
    }

    /// Closes the connection for a fault of the gateway's, and remembers which: the first one, if there was one before.
    pub(super) fn fail(&self, fault: Closed, code: CloseCode) -> Closed {
        let fault = self.fault.get_or_init(|| fault).clone();
        self.close(code);
        fault
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close(CloseCode::Left);
    }
}

/// How the stream failed, which is not yet why the connection ended.
#[derive(Debug)]
pub(super) enum StreamFailure {
    /// The connection is closed.
    Connection(quinn::ConnectionError),
    /// The gateway finished, reset or stopped the stream.
    Ended,
    /// What came is no frame, or none that may come here.
    Frame(FrameError),
}

impl From<quinn::WriteError> for StreamFailure {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::Ended,
        }
    }
}

impl From<quinn::ReadError> for StreamFailure {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::Ended,
        }
    }
}

/// The stream's sending half.
///
/// A write that is cancelled half-way would leave half a frame on the stream and everything behind it unreadable. So what is
/// being written stands in a buffer of ours, and the next call writes its rest first. It never holds more than what one call was given.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: quinn::SendStream,
    unsent: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    pub(super) fn new(stream: quinn::SendStream) -> Self {
        Self {
            stream,
            unsent: Vec::new(),
            sent: 0,
        }
    }

    /// Writes the rest of what an earlier, cancelled call began, and then what `encode` appends.
    pub(super) async fn send<E>(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Result<(), E>, StreamFailure> {
        self.flush().await?;
        if let Err(refused) = encode(&mut self.unsent) {
            return Ok(Err(refused));
        }
        self.flush().await?;
        Ok(Ok(()))
    }

    async fn flush(&mut self) -> Result<(), StreamFailure> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            // Cancelled here, nothing was written.
            self.sent += self.stream.write(rest).await?;
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }

    /// Ends this direction of the stream.
    pub(super) fn finish(&mut self) {
        // It fails only when the stream has ended already.
        let _ = self.stream.finish();
    }
}

/// The stream's receiving half. Safe to cancel: what was read stays in the frame reader.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: quinn::RecvStream,
    frames: FrameReader,
}

impl Incoming {
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self {
            stream,
            frames: FrameReader::new(),
        }
    }

    /// The next frame, of a body of `limit` bytes at most.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Frame, StreamFailure> {
        loop {
            if let Some(frame) = self.frames.next(limit).map_err(StreamFailure::Frame)? {
                return Ok(frame);
            }
            match self.stream.read_chunk(READ_AT_ONCE, true).await? {
                Some(chunk) => self.frames.push(&chunk.bytes),
                None => return Err(StreamFailure::Ended),
            }
        }
    }

    /// The next frame, which must be a message.
    pub(super) async fn message(&mut self, limit: usize) -> Result<Bytes, StreamFailure> {
        match self.next(limit).await? {
            Frame::Message(payload) => Ok(payload),
            Frame::Hello(_) | Frame::Welcome(_) => {
                Err(StreamFailure::Frame(FrameError::UnexpectedType))
            }
        }
    }
}
