//! Which worker a packet is for, from the packet alone: the rule, and the program that has the kernel follow it.
//!
//! Every connection id that a gateway gives out begins with the index of the worker that serves the connection
//! ([`transport`](super::transport)), and each worker has a socket of its own, all on one address (`SO_REUSEPORT`). By itself the kernel
//! would choose among them by a hash of the addresses, and a client whose address changes would reach another worker, which knows nothing
//! of it. So the rule is, by RFC 9000, section 17:
//!
//! - A short header's id is one of ours: its first byte is the worker.
//! - A long header says how long its id is. Of our length, its first byte is the worker as well: that is every packet of a handshake after
//!   our first answer, a Retry included. (Some clients choose their first id as long as ours are. Such a handshake is then steered by that
//!   id, and so to one worker too.)
//! - Whatever else there is, a client's first packet above all, is the hash's: of one address it goes to one worker.
//!
//! The rule needs no table and no key, so that a classic BPF program of eleven instructions can follow it; whether an id is really ours is
//! seen by the worker.

use tickgate_steering::Instruction;

use super::transport::CONNECTION_ID_LEN;

/// The bit of a packet's first byte that tells long headers (RFC 9000, section 17.2).
const LONG_HEADER: u8 = 0x80;
/// Where a short header has its destination's id.
const SHORT_ID: usize = 1;
/// Where a long header has the length of its destination's id (behind the four bytes of the version), and the id.
const LONG_ID_LEN: usize = 5;
const LONG_ID: usize = 6;
/// The shortest packet that is looked at: a long header up to the end of an id of ours. No packet of a connection is as short.
const SHORTEST: usize = LONG_ID + CONNECTION_ID_LEN;

/// The worker that a packet names, of so many; none if it names nobody, and is anybody's.
pub(super) fn worker_of(packet: &[u8], workers: u16) -> Option<u16> {
    if packet.len() < SHORTEST {
        return None;
    }
    let named = if packet.first()? & LONG_HEADER == 0 {
        packet.get(SHORT_ID)?
    } else if usize::from(*packet.get(LONG_ID_LEN)?) == CONNECTION_ID_LEN {
        packet.get(LONG_ID)?
    } else {
        return None;
    };
    Some(u16::from(*named)).filter(|named| *named < workers)
}

/// `BPF_LD | BPF_W | BPF_LEN`: the packet's length.
const LOAD_LENGTH: u16 = 0x80;
/// `BPF_LD | BPF_B | BPF_ABS`: the byte at `k`.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_JGE` and `BPF_JSET`.
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
/// `BPF_RET | BPF_K` and `BPF_RET | BPF_A`.
const RETURN: u16 = 0x06;
const RETURN_LOADED: u16 = 0x16;

/// An index that no worker has: the kernel falls back to its hash.
const NOBODY: u32 = u32::MAX;

/// [`worker_of`] as a program for the kernel. What it returns is a socket's index, in the order of binding; an index beyond the last
/// worker's means nobody's, which is how it knows nothing of their number.
pub(super) fn program() -> [Instruction; 11] {
    const fn of(code: u16, k: usize) -> Instruction {
        jump(code, k, 0, 0)
    }
    const fn jump(code: u16, k: usize, jump_true: u8, jump_false: u8) -> Instruction {
        Instruction {
            code,
            jump_true,
            jump_false,
            k: k as u32,
        }
    }
    [
        of(LOAD_LENGTH, 0),
        jump(JUMP_IF_AT_LEAST, SHORTEST, 0, 8),
        of(LOAD_BYTE, 0),
        jump(JUMP_IF_ANY_BIT, LONG_HEADER as usize, 0, 4),
        of(LOAD_BYTE, LONG_ID_LEN),
        jump(JUMP_IF_EQUAL, CONNECTION_ID_LEN, 0, 4),
        of(LOAD_BYTE, LONG_ID),
        of(RETURN_LOADED, 0),
        of(LOAD_BYTE, SHORT_ID),
        of(RETURN_LOADED, 0),
        of(RETURN, NOBODY as usize),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use proptest::prelude::*;

    use super::*;

    /// What the kernel makes of a program (Documentation/networking/filter.rst), as far as ours goes.
    fn interpret(program: &[Instruction], packet: &[u8]) -> u32 {
        let (mut next, mut loaded) = (0, 0_u32);
        for _ in 0..program.len() {
            let Instruction {
                code,
                jump_true,
                jump_false,
                k,
            } = program[next];
            next += 1;
            let mut jump = |holds: bool| {
                next += usize::from(if holds { jump_true } else { jump_false });
            };
            match code {
                LOAD_LENGTH => loaded = packet.len() as u32,
                LOAD_BYTE => match packet.get(k as usize) {
                    Some(byte) => loaded = u32::from(*byte),
                    // A load beyond the end ends the program with 0.
                    None => return 0,
                },
                JUMP_IF_EQUAL => jump(loaded == k),
                JUMP_IF_AT_LEAST => jump(loaded >= k),
                JUMP_IF_ANY_BIT => jump(loaded & k != 0),
                RETURN => return k,
                RETURN_LOADED => return loaded,
                _ => panic!("no instruction of ours: {code:#x}"),
            }
        }
        panic!("the program did not end")
    }

    fn short(worker: u8) -> Vec<u8> {
        let mut packet = vec![0x55; 40];
        packet[0] = 0x40;
        packet[1] = worker;
        packet
    }

    fn long(id: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xc0, 0, 0, 0, 1, id.len() as u8];
        packet.extend_from_slice(id);
        packet.resize(1_200, 0);
        packet
    }

    #[test]
    fn ids_of_ours_name_their_worker_and_others_name_nobody() {
        assert_eq!(worker_of(&short(1), 2), Some(1));
        assert_eq!(worker_of(&short(2), 2), None, "there is no third worker");
        assert_eq!(worker_of(&short(254), 255), Some(254));
        assert_eq!(worker_of(&long(&[1, 9, 9, 9, 9, 9, 9, 9]), 2), Some(1));
        // A client's first packet: it has drawn the id itself, as long as it liked (8 to 20 bytes, RFC 9000, section 7.2).
        assert_eq!(worker_of(&long(&[1; 20]), 2), None);
        assert_eq!(worker_of(&long(&[1; 7]), 2), None);
        assert_eq!(worker_of(&short(1)[..SHORTEST - 1], 2), None);
        assert_eq!(worker_of(&[], 2), None);
    }

    proptest! {
        /// On whatever comes, the program says what the rule says.
        #[test]
        fn the_program_is_the_rule(
            mut packet in proptest::collection::vec(any::<u8>(), 0..40),
            id_len in proptest::option::of(7_u8..10),
            workers in 1_u16..256,
        ) {
            if let (Some(id_len), Some(place)) = (id_len, packet.get_mut(LONG_ID_LEN)) {
                *place = id_len;
            }
            let returned = interpret(&program(), &packet);
            let named = u16::try_from(returned).ok().filter(|index| *index < workers);
            prop_assert_eq!(worker_of(&packet, workers), named);
        }
    }

    /// The kernel follows the rule, whoever sends, once the last of a group's sockets is bound.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_steers_by_it() {
        use crate::{gateway::crew, udp::Buffers};

        const WORKERS: u8 = 3;
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sockets = crew::bind(loopback, WORKERS.try_into().unwrap(), 64 * 1_024).unwrap();
        let to = sockets[0].address();
        let mut buffers = Buffers::new();
        let mut receiver = |packet: &[u8]| {
            let mut receivers = Vec::new();
            for (index, socket) in (0_u16..).zip(&sockets) {
                let _ = socket.receive(&mut buffers, |received| {
                    assert_eq!(received.data, packet);
                    receivers.push(index);
                });
            }
            assert_eq!(receivers.len(), 1);
            receivers[0]
        };
        for _ in 0..100 {
            // Each from an address of its own, as of a client that moves.
            let client = UdpSocket::bind(loopback).unwrap();
            for worker in 0..WORKERS {
                for packet in [short(worker), long(&[worker; 8])] {
                    client.send_to(&packet, to).unwrap();
                    assert_eq!(receiver(&packet), u16::from(worker));
                }
            }
            client.send_to(&long(&[1; 20]), to).unwrap();
            let by_hash = receiver(&long(&[1; 20]));
            client.send_to(&short(77), to).unwrap();
            assert_eq!(receiver(&short(77)), by_hash);
        }
        // The address is nobody else's, though its sockets share it: not another gateway's, be it of one worker or of more.
        for workers in [1, 2] {
            let other = crew::bind(to, workers.try_into().unwrap(), 64 * 1_024);
            assert!(other.is_err_and(|error| error.label() == "bind"));
        }
    }
}
