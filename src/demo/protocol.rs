//! The demo world's datagrams, byte for byte; its messages are any bytes. All numbers are big-endian.
//!
//! Input, client to server, 7 bytes; up to the longest datagram may follow as padding, which is ignored:
//!
//! | offset | type | what |
//! |---|---|---|
//! | 0 | u8 | 1 |
//! | 1 | u32 | sequence number: one more than that of the input before; where it starts does not matter |
//! | 5 | i8 | thrust to the right, -127 to 127 (-128 counts as -127) |
//! | 6 | i8 | thrust upwards, likewise |
//!
//! Snapshot, server to client, 30 bytes and 16 for each other player, at most 158:
//!
//! | offset | type | what |
//! |---|---|---|
//! | 0 | u8 | 2 |
//! | 1 | u64 | the tick that it shows |
//! | 9 | u32 | newest sequence number received |
//! | 13 | u32 | those before it: bit i is set when newest - 1 - i was received too |
//! | 17 | i32 | the player's own x, 0 to 1,048,575 |
//! | 21 | i32 | its own y, likewise |
//! | 25 | u32 | players in the world |
//! | 29 | u8 | n: how many of those nearby follow, at most 8 |
//! | 30 + 16 k | u64, i32, i32 | client id, x and y of one of them |
//!
//! So each snapshot acknowledges up to 33 inputs, and a lost one is made good by the next.

use thiserror::Error;

use crate::id::{ClientId, Tick};

/// Bytes of an input, without padding.
pub const INPUT_LENGTH: usize = 7;
/// The longest snapshot, in bytes.
pub const MAX_SNAPSHOT: usize = SNAPSHOT_FIELDS + MAX_OTHERS * OTHER_LENGTH;
/// The most other players that a snapshot shows.
pub const MAX_OTHERS: usize = 8;
/// The side of the square that the world is, in the unit of positions. What leaves it on one side comes back on the other.
pub const WORLD_SIZE: i32 = 1 << 20;

const INPUT: u8 = 1;
const SNAPSHOT: u8 = 2;
/// Bytes of a snapshot before the other players.
const SNAPSHOT_FIELDS: usize = 30;
/// Bytes of one other player.
const OTHER_LENGTH: usize = 16;

/// A datagram that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed {0}")]
pub struct Malformed(&'static str);

impl Malformed {
    /// The error as a fixed label: what the datagram should have been.
    pub const fn label(self) -> &'static str {
        self.0
    }
}

/// Where a player steers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// One more than that of the input before.
    pub sequence: u32,
    /// Thrust to the right, -127 to 127.
    pub right: i8,
    /// Thrust upwards, -127 to 127.
    pub up: i8,
}

impl Input {
    /// The input's bytes.
    pub fn encode(&self) -> [u8; INPUT_LENGTH] {
        let [a, b, c, d] = self.sequence.to_be_bytes();
        let [right] = self.right.to_be_bytes();
        let [up] = self.up.to_be_bytes();
        [INPUT, a, b, c, d, right, up]
    }

    /// Reads an input; what follows it is padding.
    ///
    /// # Errors
    /// [`Malformed`] when it is too short or something else.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        match datagram {
            [INPUT, a, b, c, d, right, up, ..] => Ok(Self {
                sequence: u32::from_be_bytes([*a, *b, *c, *d]),
                right: thrust(*right),
                up: thrust(*up),
            }),
            _ => Err(Malformed("input")),
        }
    }
}

/// As strong to one side as to the other.
fn thrust(byte: u8) -> i8 {
    i8::from_be_bytes([byte]).max(-i8::MAX)
}

/// Which inputs were received: the newest, and which of the 32 before it.
///
/// Sequence numbers may wrap: of two, the newer is the one that is less than half the circle ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The newest sequence number received.
    pub newest: u32,
    /// Bit i is set when `newest - 1 - i` was received too.
    pub before: u32,
}

impl Received {
    /// This one, and none before it.
    pub const fn first(sequence: u32) -> Self {
        Self {
            newest: sequence,
            before: 0,
        }
    }

    /// Takes note of one more; says whether it is newer than all before it.
    pub fn note(&mut self, sequence: u32) -> bool {
        let ahead = sequence.wrapping_sub(self.newest);
        if ahead == 0 {
            return false;
        }
        if ahead < 1 << 31 {
            let shifted = self.before.checked_shl(ahead).unwrap_or(0);
            self.before = shifted | bit(ahead);
            self.newest = sequence;
            return true;
        }
        self.before |= bit(self.newest.wrapping_sub(sequence));
        false
    }

    /// Whether this input was received, as far as is remembered.
    pub fn contains(&self, sequence: u32) -> bool {
        let behind = self.newest.wrapping_sub(sequence);
        behind == 0 || self.before & bit(behind) != 0
    }
}

/// The bit that stands for the input this far (1 or more) behind the newest; none beyond 32.
fn bit(behind: u32) -> u32 {
    1_u32.checked_shl(behind.wrapping_sub(1)).unwrap_or(0)
}

/// Another player, as a snapshot shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Other {
    /// Who it is.
    pub client: ClientId,
    /// Where it is.
    pub x: i32,
    /// Where it is.
    pub y: i32,
}

impl Other {
    const NOBODY: Self = Self {
        client: ClientId(0),
        x: 0,
        y: 0,
    };
}

/// What a player sees: an answer to its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// The tick that it shows.
    pub tick: Tick,
    /// The inputs that it acknowledges.
    pub received: Received,
    /// The player's own position, 0 to [`WORLD_SIZE`] - 1.
    pub x: i32,
    /// The player's own position, likewise.
    pub y: i32,
    /// Players in the world.
    pub players: u32,
    others: [Other; MAX_OTHERS],
    shown: usize,
}

impl Snapshot {
    /// A snapshot that shows no others yet.
    pub const fn new(tick: Tick, received: Received, (x, y): (i32, i32), players: u32) -> Self {
        Self {
            tick,
            received,
            x,
            y,
            players,
            others: [Other::NOBODY; MAX_OTHERS],
            shown: 0,
        }
    }

    /// Shows one more player; false when there is no room for it.
    pub fn show(&mut self, other: Other) -> bool {
        match self.others.get_mut(self.shown) {
            Some(place) => {
                *place = other;
                self.shown += 1;
                true
            }
            None => false,
        }
    }

    /// Other players nearby.
    pub fn others(&self) -> &[Other] {
        self.others.get(..self.shown).unwrap_or(&[])
    }

    /// Appends the snapshot's bytes, at most [`MAX_SNAPSHOT`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(SNAPSHOT);
        out.extend_from_slice(&self.tick.0.to_be_bytes());
        out.extend_from_slice(&self.received.newest.to_be_bytes());
        out.extend_from_slice(&self.received.before.to_be_bytes());
        out.extend_from_slice(&self.x.to_be_bytes());
        out.extend_from_slice(&self.y.to_be_bytes());
        out.extend_from_slice(&self.players.to_be_bytes());
        out.push(u8::try_from(self.shown).unwrap_or(u8::MAX));
        for Other { client, x, y } in self.others() {
            out.extend_from_slice(&client.0.to_be_bytes());
            out.extend_from_slice(&x.to_be_bytes());
            out.extend_from_slice(&y.to_be_bytes());
        }
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`Malformed`] when the length is wrong, or it is something else.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        Self::read(datagram).ok_or(Malformed("snapshot"))
    }

    fn read(datagram: &[u8]) -> Option<Self> {
        let (&kind, rest) = datagram.split_first()?;
        let (tick, rest) = rest.split_first_chunk()?;
        let (newest, rest) = rest.split_first_chunk()?;
        let (before, rest) = rest.split_first_chunk()?;
        let (x, rest) = rest.split_first_chunk()?;
        let (y, rest) = rest.split_first_chunk()?;
        let (players, rest) = rest.split_first_chunk()?;
        let (&shown, others) = rest.split_first()?;
        if kind != SNAPSHOT || others.len() != usize::from(shown) * OTHER_LENGTH {
            return None;
        }
        let received = Received {
            newest: u32::from_be_bytes(*newest),
            before: u32::from_be_bytes(*before),
        };
        let position = (i32::from_be_bytes(*x), i32::from_be_bytes(*y));
        let tick = Tick(u64::from_be_bytes(*tick));
        let mut snapshot = Self::new(tick, received, position, u32::from_be_bytes(*players));
        for other in others.chunks_exact(OTHER_LENGTH) {
            let (client, rest) = other.split_first_chunk()?;
            let (x, rest) = rest.split_first_chunk()?;
            let (y, _) = rest.split_first_chunk()?;
            let other = Other {
                client: ClientId(u64::from_be_bytes(*client)),
                x: i32::from_be_bytes(*x),
                y: i32::from_be_bytes(*y),
            };
            if !snapshot.show(other) {
                return None;
            }
        }
        Some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::MAX_DATAGRAM;

    #[test]
    fn an_input_is_seven_bytes_and_padding() {
        let input = Input {
            sequence: 258,
            right: -1,
            up: 127,
        };
        let bytes = input.encode();
        assert_eq!(bytes, [1, 0, 0, 1, 2, 0xff, 0x7f]);
        assert_eq!(Input::decode(&bytes), Ok(input));
        assert_eq!(Input::decode(&[&bytes[..], &[0; 57]].concat()), Ok(input));
        assert!(Input::decode(&bytes[..6]).is_err());
        assert!(Input::decode(&[2, 0, 0, 0, 0, 0, 0]).is_err());
        assert_eq!(
            Input::decode(&[1, 0, 0, 0, 0, 0x80, 0]).unwrap().right,
            -127
        );
    }

    #[test]
    fn a_snapshot_shows_itself_and_eight_others() {
        let mut snapshot = Snapshot::new(Tick(60), Received::first(9), (3, 4), 100);
        let mut bytes = Vec::new();
        snapshot.encode(&mut bytes);
        assert_eq!(bytes.len(), SNAPSHOT_FIELDS);
        for id in 0..MAX_OTHERS as u64 {
            let client = ClientId(id);
            assert!(snapshot.show(Other {
                client,
                x: 1,
                y: -1
            }));
        }
        assert!(!snapshot.show(Other::NOBODY));
        bytes.clear();
        snapshot.encode(&mut bytes);
        assert_eq!(bytes.len(), MAX_SNAPSHOT);
        assert_eq!(Snapshot::decode(&bytes), Ok(snapshot));
        assert!(Snapshot::decode(&bytes[..MAX_SNAPSHOT - 1]).is_err());
        // One more than there is room for.
        bytes[29] = 9;
        bytes.extend_from_slice(&[0; OTHER_LENGTH]);
        assert!(Snapshot::decode(&bytes).is_err());
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut received = Received::first(u32::MAX);
        assert!(received.note(0));
        assert!(received.contains(u32::MAX));
        assert!(!received.note(u32::MAX - 1));
        assert!(received.contains(u32::MAX - 1));
        assert!(!received.contains(u32::MAX - 2));
    }

    proptest! {
        #[test]
        fn what_was_received_of_the_newest_33_is_told(
            start in any::<u32>(),
            steps in proptest::collection::vec(0..80_u32, 1..60),
        ) {
            let mut received = Received::first(start);
            let mut known = BTreeSet::from([0]);
            let mut newest = 0;
            for step in steps {
                // From 40 behind to 39 ahead of the newest.
                let at = i64::from(step) - 40 + newest;
                let sequence = start.wrapping_add(at as u32);
                prop_assert_eq!(received.note(sequence), at > newest);
                newest = newest.max(at);
                known.insert(at);
                for behind in 0..=32 {
                    let at = newest - behind;
                    let told = received.contains(start.wrapping_add(at as u32));
                    // What came when it was too old to be noted is not told; what was never received never is.
                    prop_assert!(!told || known.contains(&at));
                }
                prop_assert!(step < 8 || received.contains(sequence));
            }
        }

        #[test]
        fn arbitrary_datagrams_never_panic(
            datagram in proptest::collection::vec(any::<u8>(), 0..MAX_DATAGRAM),
        ) {
            let _ = Input::decode(&datagram);
            if let Ok(snapshot) = Snapshot::decode(&datagram) {
                let mut again = Vec::new();
                snapshot.encode(&mut again);
                prop_assert_eq!(again, datagram);
            }
        }
    }
}
