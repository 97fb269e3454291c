//! What the kernel makes of a program: real sockets on loopback.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test file: its helpers may fail as its tests do"
)]

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tickgate_steering::{Instruction, attach};

/// `BPF_LD | BPF_B | BPF_ABS` and `BPF_RET | BPF_A`.
const LOAD_BYTE: u16 = 0x30;
const RETURN_A: u16 = 0x16;

const fn instruction(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jump_true: 0,
        jump_false: 0,
        k,
    }
}

/// The packet's first byte is the index.
const BY_FIRST_BYTE: [Instruction; 2] = [instruction(LOAD_BYTE, 0), instruction(RETURN_A, 0)];

fn bound(address: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.into()
}

fn group(size: usize) -> Vec<UdpSocket> {
    let first = bound("127.0.0.1:0".parse().unwrap());
    let address = first.local_addr().unwrap();
    let rest = (1..size).map(|_| bound(address));
    std::iter::once(first).chain(rest).collect()
}

/// Which socket has got this packet, and no other. Loopback delivers within the sending call.
fn receiver(sockets: &[UdpSocket], packet: &[u8]) -> usize {
    let mut buffer = [0; 64];
    let mut receivers = Vec::new();
    for (index, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true).unwrap();
        match socket.recv(&mut buffer) {
            Ok(len) => {
                assert_eq!(&buffer[..len], packet);
                receivers.push(index);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert_eq!(receivers.len(), 1);
    receivers[0]
}

#[test]
fn the_program_chooses_the_socket_whoever_sends() {
    let sockets = group(3);
    attach(&sockets[0], &BY_FIRST_BYTE).unwrap();
    let to = sockets[0].local_addr().unwrap();
    for round in 0..50_u8 {
        // Another socket each time, so that a hash of the addresses would choose another.
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for index in 0..3_u8 {
            let packet = [index, round];
            sender.send_to(&packet, to).unwrap();
            assert_eq!(receiver(&sockets, &packet), usize::from(index));
        }
        // No socket has this index: one gets it all the same, always the same one for the same sender.
        sender.send_to(&[200, round], to).unwrap();
        let chosen = receiver(&sockets, &[200, round]);
        sender.send_to(&[201, round], to).unwrap();
        assert_eq!(receiver(&sockets, &[201, round]), chosen);
    }
    // An empty packet has no first byte: the load beyond its end makes the answer 0.
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(&[], to).unwrap();
    assert_eq!(receiver(&sockets, &[]), 0);
}

#[test]
fn what_the_kernel_does_not_take_is_an_error() {
    let sockets = group(2);
    // It does not end with a return.
    assert!(attach(&sockets[0], &BY_FIRST_BYTE[..1]).is_err());
    assert!(attach(&sockets[0], &[]).is_err());
    let alone = UdpSocket::bind("127.0.0.1:0").unwrap();
    alone
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    // Bound without SO_REUSEPORT, it is in no group.
    let refused = attach(&alone, &BY_FIRST_BYTE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}
