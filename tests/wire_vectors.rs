//! Holds three things to each other: the code, docs/protocol-vectors.json, and docs/PROTOCOL.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers may fail as its tests do"
)]

use std::collections::BTreeMap;

use ring::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::Deserialize;
use tickgate::{
    demo::protocol::{Input, Other, Received, Snapshot},
    id::{ClientId, Tick},
    wire::{
        CloseCode, Frame, FrameError, FrameReader, Hello, MAX_DATAGRAM, MAX_HELLO, MAX_MESSAGE,
        MAX_TOKEN, MAX_WELCOME, PROOF_LABEL, Welcome, proof_message,
    },
};

const PROTOCOL: &str = include_str!("../docs/PROTOCOL.md");
const VECTORS: &str = include_str!("../docs/protocol-vectors.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    protocol: String,
    limits: Limits,
    frames: Vec<FrameVector>,
    streams: Vec<StreamVector>,
    incomplete: Vec<IncompleteVector>,
    invalid: Vec<InvalidVector>,
    proofs: Vec<ProofVector>,
    close_codes: Vec<CloseCodeRow>,
    closes: Vec<CloseVector>,
    demo: Vec<DemoVector>,
    demo_invalid: Vec<InvalidDemoVector>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    token: usize,
    hello: usize,
    welcome: usize,
    message: usize,
    datagram: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameVector {
    name: String,
    hex: String,
    frame: Fields,
    canonical: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Fields {
    Hello {
        version: u8,
        token: String,
        proof: Option<String>,
    },
    Welcome {
        version: u8,
        client: String,
        session: String,
        resumed: bool,
        max_datagram: u16,
        ping_interval_ms: u16,
    },
    Message {
        payload: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamVector {
    name: String,
    hex: String,
    frames: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IncompleteVector {
    name: String,
    hex: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidVector {
    name: String,
    hex: String,
    error: String,
    close_code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofVector {
    name: String,
    token: String,
    token_sha256: String,
    leaf_sha256: String,
    message: String,
    secret_key: String,
    public_key: String,
    proof: String,
    hello: String,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseCodeRow {
    number: u64,
    name: String,
    advice: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseVector {
    name: String,
    code: String,
    hex: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DemoVector {
    name: String,
    hex: String,
    datagram: DemoFields,
    canonical: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum DemoFields {
    Input {
        sequence: u32,
        right: i8,
        up: i8,
    },
    Snapshot {
        tick: String,
        newest: u32,
        before: u32,
        x: i32,
        y: i32,
        players: u32,
        others: Vec<OtherFields>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherFields {
    client: String,
    x: i32,
    y: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidDemoVector {
    name: String,
    hex: String,
    not: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "odd number of digits: {hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

impl Fields {
    fn to_frame(&self) -> Frame {
        match self {
            Self::Hello {
                version,
                token,
                proof,
            } => Frame::Hello(Hello {
                version: *version,
                token: token.clone(),
                proof: proof.as_ref().map(|proof| unhex(proof).try_into().unwrap()),
            }),
            Self::Welcome {
                version,
                client,
                session,
                resumed,
                max_datagram,
                ping_interval_ms,
            } => Frame::Welcome(Welcome {
                version: *version,
                client: ClientId(client.parse().unwrap()),
                session: session.parse().unwrap(),
                resumed: *resumed,
                max_datagram: *max_datagram,
                ping_interval_ms: *ping_interval_ms,
            }),
            Self::Message { payload } => Frame::Message(unhex(payload).into()),
        }
    }
}

/// The frames in `bytes`, pushed in pieces of `piece` bytes; what is left over must be nothing.
fn read_all(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
    let (mut reader, mut frames) = (FrameReader::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        while let Some(frame) = reader.next(MAX_MESSAGE)? {
            frames.push(frame);
        }
    }
    reader.finish()?;
    Ok(frames)
}

#[test]
fn frames_decode_to_their_fields_and_back() {
    for vector in vectors().frames {
        let (bytes, frame) = (unhex(&vector.hex), vector.frame.to_frame());
        for piece in [1, 7, bytes.len()] {
            let read = read_all(&bytes, piece);
            assert_eq!(read, Ok(vec![frame.clone()]), "{}", vector.name);
        }
        let mut encoded = Vec::new();
        frame.encode(&mut encoded).unwrap();
        assert_eq!(encoded == bytes, vector.canonical, "{}", vector.name);
    }
}

#[test]
fn streams_hold_their_frames_however_they_are_cut() {
    let vectors = vectors();
    let frames: BTreeMap<_, _> = vectors
        .frames
        .iter()
        .map(|vector| (vector.name.as_str(), vector.frame.to_frame()))
        .collect();
    for stream in &vectors.streams {
        let bytes = unhex(&stream.hex);
        let names = stream.frames.iter();
        let expected: Vec<_> = names.map(|name| frames[name.as_str()].clone()).collect();
        for piece in 1..=bytes.len() {
            let read = read_all(&bytes, piece);
            assert_eq!(read.as_ref(), Ok(&expected), "{}", stream.name);
        }
    }
}

#[test]
fn incomplete_frames_wait_for_more() {
    for vector in vectors().incomplete {
        let mut reader = FrameReader::new();
        reader.push(&unhex(&vector.hex));
        assert_eq!(reader.next(MAX_MESSAGE), Ok(None), "{}", vector.name);
    }
}

#[test]
fn invalid_frames_give_their_error() {
    for vector in vectors().invalid {
        let mut reader = FrameReader::new();
        reader.push(&unhex(&vector.hex));
        let error = reader.next(MAX_MESSAGE).expect_err(&vector.name);
        assert_eq!(error.label(), vector.error, "{}", vector.name);
        let code = error.close_code().label();
        assert_eq!(code, vector.close_code, "{}", vector.name);
    }
}

#[test]
fn every_error_has_a_vector_and_a_row() {
    let invalid = vectors().invalid;
    for error in [
        FrameError::TooLong,
        FrameError::Malformed,
        FrameError::UnexpectedType,
        FrameError::UnsupportedVersion,
    ] {
        let label = error.label();
        assert!(invalid.iter().any(|vector| vector.error == label));
        assert!(PROTOCOL.contains(&format!("| `{label}` |")));
    }
}

#[test]
fn the_limits_are_the_same_everywhere() {
    let Vectors {
        protocol, limits, ..
    } = vectors();
    assert_eq!(protocol, "tickgate/1");
    let ours = Limits {
        token: MAX_TOKEN,
        hello: MAX_HELLO,
        welcome: MAX_WELCOME,
        message: MAX_MESSAGE,
        datagram: MAX_DATAGRAM,
    };
    assert_eq!(limits, ours);
    let (_, table) = PROTOCOL.split_once("\n## Limits\n").unwrap();
    for row in [
        "| connect token | 1 to 1,024 bytes, UTF-8 |",
        "| Hello, body | 1,536 bytes |",
        "| Welcome, body | 512 bytes |",
        "| Message, body | 16,384 bytes |",
        "| datagram | 1,150 bytes |",
    ] {
        assert!(table.contains(row), "{row}");
    }
}

#[test]
fn proofs_sign_the_token_and_the_certificate() {
    let vectors = vectors();
    for vector in &vectors.proofs {
        let name = &vector.name;
        let token_sha256 = digest(&SHA256, vector.token.as_bytes());
        assert_eq!(token_sha256.as_ref(), unhex(&vector.token_sha256), "{name}");
        let token_sha256 = token_sha256.as_ref().try_into().unwrap();
        let leaf_sha256 = unhex(&vector.leaf_sha256).try_into().unwrap();
        let message = proof_message(token_sha256, &leaf_sha256);
        assert_eq!(message.as_slice(), unhex(&vector.message), "{name}");
        let key = Ed25519KeyPair::from_seed_unchecked(&unhex(&vector.secret_key)).unwrap();
        assert_eq!(
            key.public_key().as_ref(),
            unhex(&vector.public_key),
            "{name}"
        );
        assert_eq!(key.sign(&message).as_ref(), unhex(&vector.proof), "{name}");
        let hello = vectors.frames.iter().find(|v| v.name == vector.hello);
        let Frame::Hello(hello) = hello.unwrap().frame.to_frame() else {
            panic!("{name}: no Hello");
        };
        assert_eq!(hello.token, vector.token, "{name}");
        assert_eq!(
            hello.proof.unwrap().as_slice(),
            unhex(&vector.proof),
            "{name}"
        );
    }
    assert!(PROTOCOL.contains(std::str::from_utf8(PROOF_LABEL).unwrap()));
}

/// CONNECTION_CLOSE of an application (RFC 9000, section 19.19), as far as our codes and reasons go.
fn connection_close(code: CloseCode, reason: &[u8]) -> Vec<u8> {
    let number = u8::try_from(code.number()).unwrap();
    let mut bytes = vec![0x1d];
    // A variable-length integer (section 16): up to 63 in one byte, else two with 0b01 in front.
    bytes.extend_from_slice(if number < 64 { &[] } else { &[0x40] });
    bytes.extend_from_slice(&[number, u8::try_from(reason.len()).unwrap()]);
    bytes.extend_from_slice(reason);
    bytes
}

#[test]
fn closes_carry_code_and_reason() {
    for vector in vectors().closes {
        let mut codes = CloseCode::ALL.iter();
        let code = codes.find(|code| code.label() == vector.code).unwrap();
        let bytes = connection_close(*code, &unhex(&vector.reason));
        assert_eq!(bytes, unhex(&vector.hex), "{}", vector.name);
    }
}

/// The table in PROTOCOL.md's section on close codes.
fn documented_close_codes() -> Vec<CloseCodeRow> {
    let (_, section) = PROTOCOL.split_once("\n## Close codes\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| 0x"));
    rows.map(|row| {
        let cells: Vec<_> = row.split(" | ").collect();
        CloseCodeRow {
            number: u64::from_str_radix(cells[0], 16).unwrap(),
            name: cells[1].to_owned(),
            advice: cells[2].to_owned(),
        }
    })
    .collect()
}

#[test]
fn the_close_codes_are_the_same_everywhere() {
    let codes = CloseCode::ALL.iter();
    let ours: Vec<_> = codes
        .map(|code| CloseCodeRow {
            number: code.number(),
            name: code.label().to_owned(),
            advice: code.advice().label().to_owned(),
        })
        .collect();
    assert_eq!(vectors().close_codes, ours, "protocol-vectors.json");
    assert_eq!(documented_close_codes(), ours, "PROTOCOL.md");
    let (_, rules) = PROTOCOL.split_once("\n## Coming back: backoff\n").unwrap();
    for CloseCodeRow { advice, .. } in &ours {
        assert!(rules.contains(&format!("| `{advice}` |")), "{advice}");
    }
}

#[test]
fn demo_datagrams_decode_to_their_fields_and_back() {
    for vector in vectors().demo {
        let bytes = unhex(&vector.hex);
        let mut encoded = Vec::new();
        match vector.datagram {
            DemoFields::Input {
                sequence,
                right,
                up,
            } => {
                let input = Input {
                    sequence,
                    right,
                    up,
                };
                assert_eq!(Input::decode(&bytes), Ok(input), "{}", vector.name);
                encoded.extend_from_slice(&input.encode());
            }
            DemoFields::Snapshot {
                tick,
                newest,
                before,
                x,
                y,
                players,
                others,
            } => {
                let received = Received { newest, before };
                let tick = Tick(tick.parse().unwrap());
                let mut snapshot = Snapshot::new(tick, received, (x, y), players);
                for OtherFields { client, x, y } in others {
                    let client = ClientId(client.parse().unwrap());
                    assert!(snapshot.show(Other { client, x, y }));
                }
                assert_eq!(Snapshot::decode(&bytes), Ok(snapshot), "{}", vector.name);
                snapshot.encode(&mut encoded);
            }
        }
        assert_eq!(encoded == bytes, vector.canonical, "{}", vector.name);
    }
}

#[test]
fn invalid_demo_datagrams_are_refused() {
    for vector in vectors().demo_invalid {
        let bytes = unhex(&vector.hex);
        match vector.not.as_str() {
            "input" => assert!(Input::decode(&bytes).is_err(), "{}", vector.name),
            "snapshot" => assert!(Snapshot::decode(&bytes).is_err(), "{}", vector.name),
            other => panic!("{}: no datagram is called {other}", vector.name),
        }
    }
}

/// PROTOCOL.md's examples: the name behind "```hex", and the bytes without what stands behind ";" on each line.
fn worked_examples() -> Vec<(&'static str, String)> {
    let examples = PROTOCOL.split("```hex ").skip(1);
    examples
        .map(|example| {
            let (name, rest) = example.split_once('\n').unwrap();
            let (lines, _) = rest.split_once("```").unwrap();
            let bytes = lines
                .lines()
                .flat_map(|line| line.split(';').next().unwrap().split_whitespace())
                .inspect(|byte| assert_eq!(byte.len(), 2, "{name}: {byte}"))
                .collect();
            (name, bytes)
        })
        .collect()
}

#[test]
fn worked_examples_are_vectors() {
    let vectors = vectors();
    let frames = vectors.frames.iter().map(|v| (v.name.as_str(), &v.hex));
    let streams = vectors.streams.iter().map(|v| (v.name.as_str(), &v.hex));
    let proofs = vectors.proofs.iter();
    let proofs = proofs.map(|v| (v.name.as_str(), &v.message));
    let closes = vectors.closes.iter().map(|v| (v.name.as_str(), &v.hex));
    let demo = vectors.demo.iter().map(|v| (v.name.as_str(), &v.hex));
    let known: BTreeMap<_, _> = frames
        .chain(streams)
        .chain(proofs)
        .chain(closes)
        .chain(demo)
        .collect();
    let examples: BTreeMap<_, _> = worked_examples().into_iter().collect();
    for wanted in [
        "hello",
        "hello_proven",
        "proof",
        "welcome",
        "message",
        "kicked_for_reason_7",
        "demo_input",
        "demo_snapshot",
    ] {
        assert!(examples.contains_key(wanted), "no example of {wanted}");
    }
    for (name, hex) in &examples {
        assert_eq!(Some(&hex), known.get(name), "{name}");
    }
}

#[test]
fn names_of_vectors_are_unique() {
    let vectors = vectors();
    let mut names: Vec<_> = vectors.frames.iter().map(|v| &v.name).collect();
    names.extend(vectors.streams.iter().map(|v| &v.name));
    names.extend(vectors.incomplete.iter().map(|v| &v.name));
    names.extend(vectors.invalid.iter().map(|v| &v.name));
    names.extend(vectors.proofs.iter().map(|v| &v.name));
    names.extend(vectors.closes.iter().map(|v| &v.name));
    names.extend(vectors.demo.iter().map(|v| &v.name));
    names.extend(vectors.demo_invalid.iter().map(|v| &v.name));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
