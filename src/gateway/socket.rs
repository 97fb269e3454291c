//! The worker's UDP socket: all of the gateway's system calls for packets.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
};

use bytes::BytesMut;
use mio::{Interest, Registry, Token};
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::core::Packet;

/// The largest UDP payload, so that a coalesced batch (GRO) of any size fits.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Packets sent in one call at the most: quinn's own bound. All of them together must fit one UDP datagram of 65,507 bytes, or the
/// kernel refuses them all.
const MAX_SEGMENTS: usize = 10;

/// A non-blocking UDP socket that receives and sends in batches.
pub(super) struct GameSocket {
    socket: mio::net::UdpSocket,
    state: UdpSocketState,
    buffers: Vec<Vec<u8>>,
    address: SocketAddr,
}

impl GameSocket {
    /// Binds to `address` with `buffer` bytes of kernel buffer each way, or as much as the kernel gives.
    pub(super) fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.bind(&address.into())?;
        ask_for_buffers(&socket, buffer);
        let socket: UdpSocket = socket.into();
        // Sets the socket to non-blocking, and asks for ECN and destination addresses.
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            address: socket.local_addr()?,
            socket: mio::net::UdpSocket::from_std(socket),
            state,
            buffers: vec![vec![0; RECEIVE_BUFFER]; BATCH_SIZE],
        })
    }

    /// The address bound.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the kernel tells what it drops.
    pub(super) fn kernel_drops(&self) -> KernelDrops {
        KernelDrops::of(&self.socket)
    }

    /// How many packets of one size may go in one call.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments().min(MAX_SEGMENTS)
    }

    /// Asks to be told when the socket is ready.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(
            &mut self.socket,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Receives what is there, a batch at the most, and hands each packet to `each`. `WouldBlock` when nothing was there.
    pub(super) fn receive(&mut self, mut each: impl FnMut(Packet)) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: Vec<IoSliceMut<'_>> = self
            .buffers
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer))
            .collect();
        let count = self
            .state
            .recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)?;
        for (meta, buffer) in metas.iter().zip(&self.buffers).take(count) {
            let received = buffer.get(..meta.len).unwrap_or_default();
            for packet in received.chunks(meta.stride.max(1)) {
                each(Packet {
                    remote: meta.addr,
                    local_ip: meta.dst_ip,
                    ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                    data: BytesMut::from(packet),
                });
            }
        }
        Ok(())
    }

    /// Sends a packet, or several of one size. `WouldBlock` when the socket takes no more for now.
    pub(super) fn send(&self, transmit: &Transmit, contents: &[u8]) -> io::Result<()> {
        self.state.send(
            UdpSockRef::from(&self.socket),
            &quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit
                    .ecn
                    .and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents,
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            },
        )
    }
}

/// Where the kernel tells how many packets it dropped because a socket's buffer was full: `/proc/net/udp` and `udp6`, by the socket's
/// inode. (SO_RXQ_OVFL tells it too, but only as a control message of a packet that did come.)
#[derive(Debug, Clone, Default)]
pub(super) struct KernelDrops {
    inode: Option<String>,
}

impl KernelDrops {
    #[cfg(target_os = "linux")]
    fn of(socket: &mio::net::UdpSocket) -> Self {
        use std::os::fd::AsRawFd;
        // The link says `socket:[12345]`.
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()));
        let inode = link.ok().and_then(|link| {
            let text = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(text.to_owned())
        });
        Self { inode }
    }

    #[cfg(not(target_os = "linux"))]
    fn of(_: &mio::net::UdpSocket) -> Self {
        Self { inode: None }
    }

    /// Packets dropped since the socket was made; none if the system does not tell.
    pub(super) fn read(&self) -> Option<u64> {
        let inode = self.inode.as_deref()?;
        ["/proc/net/udp", "/proc/net/udp6"]
            .iter()
            .filter_map(|table| std::fs::read_to_string(table).ok())
            .find_map(|table| drops_of(&table, inode))
    }
}

/// The last column of the line whose tenth is this inode.
fn drops_of(table: &str, inode: &str) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(9);
        (columns.next()? == inode).then(|| columns.last()?.parse().ok())?
    })
}

/// The kernel caps what it gives (Linux: `net.core.rmem_max`), so what was given is read back.
fn ask_for_buffers(socket: &Socket, buffer: usize) {
    let asked = socket
        .set_recv_buffer_size(buffer)
        .and_then(|()| socket.set_send_buffer_size(buffer))
        .and_then(|()| socket.recv_buffer_size());
    match asked {
        Ok(given) if given >= buffer => {}
        Ok(given) => warn!(
            asked = buffer,
            given,
            "the kernel gave a smaller receive buffer: bursts may be lost; raise net.core.rmem_max"
        ),
        Err(error) => warn!(%error, "the kernel refused a larger receive buffer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  121: 0100007F:1E61 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 72281 2 0000000000000000 0
 2094: 00000000:A0C6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 7228 2 0000000000000000 4711
";

    #[test]
    fn a_sockets_line_is_found_by_its_inode() {
        assert_eq!(drops_of(TABLE, "7228"), Some(4_711));
        assert_eq!(drops_of(TABLE, "72281"), Some(0));
        assert_eq!(drops_of(TABLE, "722"), None);
        assert_eq!(drops_of("", "7228"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_kernel_drops_is_told() {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        // The smallest buffer that there is: some packets of a kilobyte, and no more.
        let socket = GameSocket::bind(loopback, 1).unwrap();
        let drops = socket.kernel_drops();
        assert_eq!(drops.read(), Some(0));
        let sender = UdpSocket::bind(loopback).unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 1_000], socket.address()).unwrap();
        }
        assert!(drops.read().unwrap() > 0);
    }
}
