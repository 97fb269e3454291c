//! The frames on a connection's one stream: Hello, Welcome, Message, byte for byte.
//!
//! A frame is a type (u8), the length of its body (u24) and the body; all numbers are big-endian. The length has a fixed width, and
//! not QUIC's variable one, so that a frame has exactly one encoding, the header is always 4 bytes, and a client in any language
//! reads it in one line. The two bytes it may cost do not matter here: what is frequent travels in datagrams, which have no frame.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use super::CloseCode;
use crate::id::{ClientId, SessionId};

/// The protocol version in Hello and Welcome.
pub const VERSION: u8 = 1;
/// The longest connect token, in bytes. Ours are about 500.
pub const MAX_TOKEN: usize = 1_024;
/// The longest body of a Hello, in bytes: version, token and proof take 1,094 at most; the rest is room for extensions to come.
pub const MAX_HELLO: usize = 1_536;
/// The longest body of a Welcome, in bytes: 30 for the fields, the rest is room for extensions to come.
pub const MAX_WELCOME: usize = 512;
/// The longest Message, in bytes.
pub const MAX_MESSAGE: usize = 16 * 1_024;
/// The longest datagram, in bytes: it fits beside QUIC's own overhead into the 1,200 bytes that every path carries (RFC 9000,
/// section 14).
pub const MAX_DATAGRAM: usize = 1_150;

/// Bytes before a frame's body: type and length.
pub(super) const HEADER: usize = 4;
/// Bytes of a Welcome's body before its extensions.
const WELCOME_FIELDS: usize = 30;
/// Bytes of an extension before its content: type and length.
const EXTENSION_HEADER: usize = 3;
/// Hello extension: the Ed25519 signature that proves possession of the client key.
const PROOF: u8 = 1;
/// Welcome flag: the seat was there before, and keeps its handle and client id.
const RESUMED: u8 = 1;

/// What a frame is: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Welcome = 2,
    Message = 3,
}

impl Kind {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Hello),
            2 => Some(Self::Welcome),
            3 => Some(Self::Message),
            _ => None,
        }
    }

    /// The longest body that any frame of this kind may have.
    pub(super) const fn longest(self) -> usize {
        match self {
            Self::Hello => MAX_HELLO,
            Self::Welcome => MAX_WELCOME,
            Self::Message => MAX_MESSAGE,
        }
    }
}

/// Why bytes are no frame. The close code is what the peer is told; the label is for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum FrameError {
    /// A frame, or the token in it, is longer than allowed.
    #[error("frame or field too long")]
    TooLong,
    /// A body that does not add up: truncated, with bytes left over, an empty token or one that is not text, extensions out of
    /// order or twice, a proof of the wrong length.
    #[error("malformed frame")]
    Malformed,
    /// No frame has this type, or it has no business here.
    #[error("unexpected frame type")]
    UnexpectedType,
    /// Hello or Welcome is of a version other than [`VERSION`].
    #[error("unsupported protocol version")]
    UnsupportedVersion,
}

impl FrameError {
    /// The error as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::UnexpectedType => "unexpected_type",
            Self::UnsupportedVersion => "unsupported_version",
        }
    }

    /// What the connection closes with.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::TooLong | Self::Malformed | Self::UnexpectedType => CloseCode::ProtocolViolation,
            Self::UnsupportedVersion => CloseCode::UnsupportedVersion,
        }
    }
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The client's first frame.
    Hello(Hello),
    /// The gateway's first frame: the client is in.
    Welcome(Welcome),
    /// The game's own bytes, reliable and in order, either way.
    Message(Bytes),
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Errors
    /// As the frame's own `encode`; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Welcome(welcome) => {
                welcome.encode(out);
                Ok(())
            }
            Self::Message(payload) => encode_message(payload, out),
        }
    }

    pub(super) fn decode(kind: Kind, body: &[u8]) -> Result<Self, FrameError> {
        match kind {
            Kind::Hello => Hello::decode(body).map(Self::Hello),
            Kind::Welcome => Welcome::decode(body).map(Self::Welcome),
            Kind::Message => Ok(Self::Message(Bytes::copy_from_slice(body))),
        }
    }
}

/// Appends a Message frame that carries `payload` to `out`.
///
/// # Errors
/// [`FrameError::TooLong`] above [`MAX_MESSAGE`]; `out` is then unchanged.
pub fn encode_message(payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    if payload.len() > MAX_MESSAGE {
        return Err(FrameError::TooLong);
    }
    put_header(Kind::Message, payload.len(), out);
    out.extend_from_slice(payload);
    Ok(())
}

/// The client's first frame: which protocol it speaks, and the token that lets it in.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The protocol version, [`VERSION`].
    pub version: u8,
    /// The connect token. Secret until it has been used. 1 to [`MAX_TOKEN`] bytes.
    pub token: String,
    /// Proof of possession of the client key: an Ed25519 signature, for tokens that name such a key.
    pub proof: Option<[u8; 64]>,
}

impl Hello {
    /// A Hello of this version with `token` and no proof.
    pub fn new(token: impl Into<String>) -> Self {
        Self {
            version: VERSION,
            token: token.into(),
            proof: None,
        }
    }

    /// Appends the frame to `out`.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when the token is longer than [`MAX_TOKEN`], [`FrameError::Malformed`] when it is empty; `out` is
    /// then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let token = self.token.as_bytes();
        check_token(token)?;
        let proof = self.proof.map_or(0, |p| EXTENSION_HEADER + p.len());
        put_header(Kind::Hello, 1 + 2 + token.len() + proof, out);
        out.push(self.version);
        put_u16(token.len(), out);
        out.extend_from_slice(token);
        if let Some(proof) = &self.proof {
            out.push(PROOF);
            put_u16(proof.len(), out);
            out.extend_from_slice(proof);
        }
        Ok(())
    }

    fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields(body);
        let version = fields.version()?;
        let length = usize::from(fields.u16()?);
        if length > MAX_TOKEN {
            return Err(FrameError::TooLong);
        }
        let token = fields.take(length)?;
        check_token(token)?;
        let token = str::from_utf8(token)
            .map_err(|_| FrameError::Malformed)?
            .to_owned();
        let mut proof = None;
        fields.extensions(|kind, content| {
            if kind == PROOF {
                proof = Some(content.try_into().map_err(|_| FrameError::Malformed)?);
            }
            Ok(())
        })?;
        Ok(Self {
            version,
            token,
            proof,
        })
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            token,
            proof,
        } = self;
        f.debug_struct("Hello")
            .field("version", version)
            .field("token", &format_args!("[redacted, {} bytes]", token.len()))
            .field("proof", &proof.is_some())
            .finish()
    }
}

/// The gateway's first frame: the client is in, and this is what it needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version, [`VERSION`].
    pub version: u8,
    /// The client's id inside the game.
    pub client: ClientId,
    /// The session that was admitted.
    pub session: SessionId,
    /// Whether the session's seat was there before: then it kept its client id, and the game kept its player.
    pub resumed: bool,
    /// The longest datagram that the gateway takes and sends, in bytes.
    pub max_datagram: u16,
    /// How often the client shall let itself be heard (QUIC PING counts), in milliseconds.
    pub ping_interval_ms: u16,
}

impl Welcome {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self {
            version,
            client,
            session,
            resumed,
            max_datagram,
            ping_interval_ms,
        } = *self;
        put_header(Kind::Welcome, WELCOME_FIELDS, out);
        out.push(version);
        out.push(if resumed { RESUMED } else { 0 });
        out.extend_from_slice(&client.0.to_be_bytes());
        out.extend_from_slice(&session.to_bytes());
        out.extend_from_slice(&max_datagram.to_be_bytes());
        out.extend_from_slice(&ping_interval_ms.to_be_bytes());
    }

    fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields(body);
        let version = fields.version()?;
        let flags = fields.u8()?;
        let welcome = Self {
            version,
            client: ClientId(u64::from_be_bytes(fields.array()?)),
            session: SessionId::from_bytes(fields.array()?),
            // The other bits are for versions to come that older clients understand well enough without them.
            resumed: flags & RESUMED != 0,
            max_datagram: fields.u16()?,
            ping_interval_ms: fields.u16()?,
        };
        fields.extensions(|_, _| Ok(()))?;
        Ok(welcome)
    }
}

fn check_token(token: &[u8]) -> Result<(), FrameError> {
    match token.len() {
        0 => Err(FrameError::Malformed),
        1..=MAX_TOKEN => Ok(()),
        _ => Err(FrameError::TooLong),
    }
}

/// Callers have checked that `length` fits: the longest body is 16 KiB.
fn put_header(kind: Kind, length: usize, out: &mut Vec<u8>) {
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[kind as u8, high, middle, low]);
}

/// Callers have checked that `length` fits: the longest field is a token.
fn put_u16(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (field, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(FrameError::Malformed)?;
        self.0 = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(FrameError::Malformed)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_be_bytes)
    }

    /// The version comes first, and nothing behind it is looked at unless we speak it: a later version may mean other things by it.
    fn version(&mut self) -> Result<u8, FrameError> {
        match self.u8()? {
            VERSION => Ok(VERSION),
            _ => Err(FrameError::UnsupportedVersion),
        }
    }

    /// Hands every extension up to the end of the body to `each`, by ascending type: so none can stand there twice.
    fn extensions(
        mut self,
        mut each: impl FnMut(u8, &'a [u8]) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        let mut last = None;
        while !self.0.is_empty() {
            let kind = self.u8()?;
            if last.is_some_and(|last| kind <= last) {
                return Err(FrameError::Malformed);
            }
            last = Some(kind);
            let length = usize::from(self.u16()?);
            each(kind, self.take(length)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body_of(frame: &Frame) -> (Kind, Vec<u8>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        let length = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]);
        assert_eq!(bytes.len(), HEADER + length as usize);
        (Kind::from_byte(bytes[0]).unwrap(), bytes.split_off(HEADER))
    }

    fn hello_with(extensions: &[u8]) -> Result<Hello, FrameError> {
        Hello::decode(&[&[VERSION, 0, 1, b't'], extensions].concat())
    }

    #[test]
    fn extensions_ascend_and_unknown_ones_are_skipped() {
        assert_eq!(hello_with(&[]), Ok(Hello::new("t")));
        assert_eq!(hello_with(&[2, 0, 0, 9, 0, 1, 7]), Ok(Hello::new("t")));
        let twice = [9, 0, 0, 9, 0, 0];
        assert_eq!(hello_with(&twice), Err(FrameError::Malformed));
        let descending = [9, 0, 0, 2, 0, 0];
        assert_eq!(hello_with(&descending), Err(FrameError::Malformed));
        let cut_off = [9, 0, 2, 7];
        assert_eq!(hello_with(&cut_off), Err(FrameError::Malformed));
        let short_proof = [PROOF, 0, 1, 7];
        assert_eq!(hello_with(&short_proof), Err(FrameError::Malformed));
    }

    #[test]
    fn nothing_behind_an_unknown_version_is_looked_at() {
        assert_eq!(
            Hello::decode(&[2, 0xff]),
            Err(FrameError::UnsupportedVersion)
        );
        assert_eq!(Hello::decode(&[]), Err(FrameError::Malformed));
    }

    #[test]
    fn a_token_is_text_of_bounded_length() {
        let mut out = Vec::new();
        let longest = Hello::new("x".repeat(MAX_TOKEN));
        longest.encode(&mut out).unwrap();
        assert_eq!(Hello::decode(&out[HEADER..]), Ok(longest));

        let mut out = Vec::new();
        let too_long = Hello::new("x".repeat(MAX_TOKEN + 1));
        assert_eq!(too_long.encode(&mut out), Err(FrameError::TooLong));
        assert_eq!(Hello::new("").encode(&mut out), Err(FrameError::Malformed));
        assert!(out.is_empty());

        // Refused for what it declares: the bytes need not even be there.
        assert_eq!(
            Hello::decode(&[VERSION, 4, 1, b'x']),
            Err(FrameError::TooLong)
        );
        assert_eq!(
            Hello::decode(&[VERSION, 0, 1, 0xff]),
            Err(FrameError::Malformed)
        );
        assert_eq!(Hello::decode(&[VERSION, 0, 0]), Err(FrameError::Malformed));
    }

    #[test]
    fn a_hello_fits_its_bound_and_hides_its_token() {
        let hello = Hello {
            proof: Some([7; 64]),
            ..Hello::new("x".repeat(MAX_TOKEN))
        };
        let (_, body) = body_of(&Frame::Hello(hello.clone()));
        assert!(body.len() <= MAX_HELLO);
        assert!(!format!("{hello:?}").contains("xx"));
    }

    #[test]
    fn unknown_flags_of_a_welcome_are_ignored() {
        let welcome = Welcome {
            version: VERSION,
            client: ClientId(9),
            session: SessionId(8),
            resumed: true,
            max_datagram: 1_150,
            ping_interval_ms: 3_000,
        };
        let (_, mut body) = body_of(&Frame::Welcome(welcome));
        body[1] |= 0xf0;
        assert_eq!(Welcome::decode(&body), Ok(welcome));
        assert_eq!(Welcome::decode(&body[..29]), Err(FrameError::Malformed));
        body.push(0);
        assert_eq!(Welcome::decode(&body), Err(FrameError::Malformed));
    }

    proptest! {
        #[test]
        fn frames_survive_their_bytes(frame in any_frame()) {
            let (kind, body) = body_of(&frame);
            prop_assert_eq!(Frame::decode(kind, &body), Ok(frame));
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in any_body()) {
            for kind in [Kind::Hello, Kind::Welcome, Kind::Message] {
                // What decodes has exactly one encoding, apart from extensions and flags that we do not know.
                if let Ok(frame) = Frame::decode(kind, &body) {
                    let (again, encoded) = body_of(&frame);
                    prop_assert_eq!(Frame::decode(again, &encoded), Ok(frame));
                }
            }
        }
    }

    /// Noise, and noise of small numbers, which gets past version and lengths more often.
    fn any_body() -> impl Strategy<Value = Vec<u8>> {
        let noise = proptest::collection::vec(any::<u8>(), 0..2_000);
        let small = proptest::collection::vec(0..4_u8, 0..80).prop_map(|mut body| {
            if let Some(length) = body.get_mut(1) {
                *length = 0;
            }
            body
        });
        prop_oneof![noise, small]
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let hello =
            ("[ -~]{1,1024}", proptest::option::of(any::<[u8; 32]>())).prop_map(|(token, half)| {
                let proof = half.map(|half| {
                    let mut proof = [0; 64];
                    proof[..32].copy_from_slice(&half);
                    proof[32..].copy_from_slice(&half);
                    proof
                });
                Frame::Hello(Hello {
                    proof,
                    ..Hello::new(token)
                })
            });
        let welcome = (
            any::<u64>(),
            any::<u128>(),
            any::<bool>(),
            any::<u16>(),
            any::<u16>(),
        )
            .prop_map(
                |(client, session, resumed, max_datagram, ping_interval_ms)| {
                    Frame::Welcome(Welcome {
                        version: VERSION,
                        client: ClientId(client),
                        session: SessionId(session),
                        resumed,
                        max_datagram,
                        ping_interval_ms,
                    })
                },
            );
        let message = proptest::collection::vec(any::<u8>(), 0..=MAX_MESSAGE)
            .prop_map(|payload| Frame::Message(payload.into()));
        prop_oneof![hello, welcome, message]
    }
}
