//! Frames off a stream, in whatever pieces it comes, within bounds.

use bytes::{Buf, BytesMut};

use super::frame::{Frame, FrameError, HEADER, Kind};

/// What an empty reader keeps of its buffer, in bytes: enough for ordinary messages, so that they cost no allocation each, and
/// little enough that 10,000 quiet connections hold 20 MB and not 160.
const KEPT_CAPACITY: usize = 2_048;

/// Reads frames off one direction of a stream.
///
/// Push what arrived, then take frames until there are none. What a frame's header declares is judged as soon as the header is
/// there: a frame of unknown type or beyond its limit is refused before any of its body is waited for. So between calls, once
/// [`next`](Self::next) has answered `None`, a reader holds less than one header and one body of the limit, whatever the peer sends;
/// within a call it holds, besides, what a single push brought.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
    failed: Option<FrameError>,
}

impl FrameReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they came off the stream. After an error they are dropped: the stream has lost its frames for good.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame; `None` until more bytes have come. `limit` bounds the frame's body in bytes; the bounds of its own
    /// type hold as well.
    ///
    /// # Errors
    /// [`FrameError`] for bytes that are no frame, or one beyond its limit. It is final: every later call answers the same.
    pub fn next(&mut self, limit: usize) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.read(limit).inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    /// Whether the stream may end here, between two frames.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] inside a frame; the error that [`next`](Self::next) gave, if it gave one.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.buffer.is_empty() => Ok(()),
            None => Err(FrameError::Malformed),
        }
    }

    /// How many bytes wait for the rest of their frame.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held(&self) -> usize {
        self.buffer.len()
    }

    fn read(&mut self, limit: usize) -> Result<Option<Frame>, FrameError> {
        let Some(&kind) = self.buffer.first() else {
            return Ok(None);
        };
        let kind = Kind::from_byte(kind).ok_or(FrameError::UnexpectedType)?;
        let Some(&[_, high, middle, low]) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([0, high, middle, low]))
            .map_err(|_| FrameError::TooLong)?;
        if length > limit.min(kind.longest()) {
            return Err(FrameError::TooLong);
        }
        let Some(body) = self.buffer.get(HEADER..HEADER + length) else {
            return Ok(None);
        };
        let frame = Frame::decode(kind, body)?;
        self.buffer.advance(HEADER + length);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Hello, MAX_HELLO, MAX_MESSAGE, encode_message};

    fn drain(reader: &mut FrameReader, limit: usize, frames: &mut Vec<Frame>) {
        while let Some(frame) = reader.next(limit).unwrap() {
            frames.push(frame);
        }
    }

    #[test]
    fn a_frame_is_judged_by_its_header() {
        let mut reader = FrameReader::new();
        reader.push(&[3, 0, 0x40]);
        assert_eq!(reader.next(MAX_MESSAGE), Ok(None));
        reader.push(&[1]);
        assert_eq!(reader.next(MAX_MESSAGE), Err(FrameError::TooLong));

        let mut reader = FrameReader::new();
        reader.push(&[3, 0, 0, 9]);
        assert_eq!(reader.next(8), Err(FrameError::TooLong));

        let mut reader = FrameReader::new();
        reader.push(&[0x16]);
        assert_eq!(reader.next(MAX_MESSAGE), Err(FrameError::UnexpectedType));
    }

    #[test]
    fn a_type_has_its_own_bound_whatever_the_limit() {
        let mut reader = FrameReader::new();
        let length = u32::try_from(MAX_HELLO + 1).unwrap().to_be_bytes();
        reader.push(&[1, length[1], length[2], length[3]]);
        assert_eq!(reader.next(usize::MAX), Err(FrameError::TooLong));
    }

    #[test]
    fn an_error_is_final_and_holds_nothing() {
        let mut reader = FrameReader::new();
        reader.push(&[0; 100]);
        assert_eq!(reader.next(MAX_MESSAGE), Err(FrameError::UnexpectedType));
        reader.push(&[3, 0, 0, 0]);
        assert_eq!(reader.next(MAX_MESSAGE), Err(FrameError::UnexpectedType));
        assert_eq!(reader.finish(), Err(FrameError::UnexpectedType));
        assert!(reader.buffer.is_empty());
    }

    #[test]
    fn a_stream_may_end_only_between_frames() {
        let mut bytes = Vec::new();
        Hello::new("token").encode(&mut bytes).unwrap();
        let (last, most) = bytes.split_last().unwrap();
        let mut reader = FrameReader::new();
        assert_eq!(reader.finish(), Ok(()));
        reader.push(most);
        assert_eq!(reader.next(MAX_HELLO), Ok(None));
        assert_eq!(reader.finish(), Err(FrameError::Malformed));
        reader.push(&[*last]);
        let frame = reader.next(MAX_HELLO).unwrap();
        assert_eq!(frame, Some(Frame::Hello(Hello::new("token"))));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_large_message_does_not_keep_its_memory() {
        let mut bytes = Vec::new();
        encode_message(&[7; MAX_MESSAGE], &mut bytes).unwrap();
        let mut reader = FrameReader::new();
        reader.push(&bytes);
        assert!(reader.next(MAX_MESSAGE).unwrap().is_some());
        assert!(reader.buffer.capacity() <= KEPT_CAPACITY);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..12),
            cuts in proptest::collection::vec(1..400_usize, 1..40),
        ) {
            let mut sent = vec![Frame::Hello(Hello::new("v4.local.token"))];
            sent.extend(payloads.into_iter().map(|payload| Frame::Message(payload.into())));
            let mut bytes = Vec::new();
            for frame in &sent {
                frame.encode(&mut bytes).unwrap();
            }
            let (mut reader, mut received) = (FrameReader::new(), Vec::new());
            let mut rest = bytes.as_slice();
            for cut in cuts.into_iter().cycle() {
                let (chunk, behind) = rest.split_at(cut.min(rest.len()));
                reader.push(chunk);
                drain(&mut reader, 300, &mut received);
                prop_assert!(reader.buffer.len() < HEADER + 300);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn arbitrary_bytes_never_panic_nor_pile_up(
            chunks in proptest::collection::vec(proptest::collection::vec(0..8_u8, 0..64), 0..64),
            limit in 0..600_usize,
        ) {
            let mut reader = FrameReader::new();
            for chunk in &chunks {
                reader.push(chunk);
                while let Ok(Some(_)) = reader.next(limit) {}
                prop_assert!(reader.buffer.len() < HEADER + limit);
            }
        }
    }
}
