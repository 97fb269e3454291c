//! Frames off a hostile stream.

use super::{Frame, FrameError, FrameReader, MAX_MESSAGE, frame::HEADER};

/// Bytes of the input that say how the rest arrives: the limit, and how long the pieces are.
const PREFACE: usize = 3;

/// Reads the rest of the input as a stream, in one piece and in small ones.
///
/// # Panics
/// If both do not give the same frames and the same error, if a reader holds more than its bound, or if a frame does not survive its
/// own encoding.
pub fn wire_frames(input: &[u8]) {
    let Some(([high, low, piece], stream)) = input.split_first_chunk::<PREFACE>() else {
        return;
    };
    let limit = usize::from(u16::from_be_bytes([*high, *low])).min(MAX_MESSAGE);
    let piece = usize::from(*piece).max(1);
    let (whole, end) = read(std::iter::once(stream), limit);
    let (pieced, pieced_end) = read(stream.chunks(piece), limit);
    assert_eq!(whole, pieced, "frames depend on how they arrive");
    assert_eq!(end, pieced_end, "errors depend on how they arrive");
    for frame in &whole {
        survives(frame);
    }
}

fn read<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    limit: usize,
) -> (Vec<Frame>, Result<(), FrameError>) {
    let (mut reader, mut frames) = (FrameReader::new(), Vec::new());
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next(limit) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next(limit), Err(error), "an error is final");
                    assert_eq!(reader.finish(), Err(error), "an error is final");
                    assert_eq!(reader.held(), 0, "nothing is held behind an error");
                    return (frames, Err(error));
                }
            }
        }
        assert!(
            reader.held() < HEADER + limit.max(1),
            "a reader has a bound"
        );
    }
    (frames, reader.finish())
}

fn survives(frame: &Frame) {
    let mut bytes = Vec::new();
    let encoded = frame.encode(&mut bytes);
    assert_eq!(encoded, Ok(()), "what was read can be written");
    let mut reader = FrameReader::new();
    reader.push(&bytes);
    // A Hello or Welcome may have had extensions that nobody knows: what is written has none, and reads as the same.
    let again = reader.next(MAX_MESSAGE);
    assert_eq!(again.as_ref(), Ok(&Some(frame.clone())));
    assert_eq!(reader.finish(), Ok(()));
}
