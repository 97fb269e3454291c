//! A UDP socket that is driven by a loop, not awaited: all our system calls for packets, the gateway's and the client fleet's.

use std::{
    array,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
};

use bytes::BytesMut;
use mio::{Interest, Registry, Token};
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
#[cfg(feature = "gateway")]
use tickgate_steering::Instruction;
use tracing::warn;

/// The largest UDP payload, so that a coalesced batch (GRO) of any size fits.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Packets sent in one call at the most: quinn's own bound. All of them together must fit one UDP datagram of 65,507 bytes, or the
/// kernel refuses them all.
const MAX_SEGMENTS: usize = 10;

/// A packet of the network, as the socket gave it.
pub(crate) struct Packet {
    /// Where it came from.
    pub(crate) remote: SocketAddr,
    /// Which of our addresses it was sent to, where the system tells.
    pub(crate) local_ip: Option<IpAddr>,
    /// What routers said about congestion.
    pub(crate) ecn: Option<EcnCodepoint>,
    /// The UDP payload.
    pub(crate) data: BytesMut,
}

/// Where a batch of packets is received. One does for any number of sockets that a thread reads in turn; the system backs as much of its
/// 2 MiB as packets have filled.
pub(crate) struct Buffers(Box<[Vec<u8>; BATCH_SIZE]>);

impl Buffers {
    pub(crate) fn new() -> Self {
        Self(Box::new(array::from_fn(|_| vec![0; RECEIVE_BUFFER])))
    }
}

/// A non-blocking UDP socket that receives and sends in batches.
pub(crate) struct Socket {
    socket: mio::net::UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
    /// Bytes of receive buffer that the kernel gave.
    given: io::Result<usize>,
}

impl Socket {
    /// Binds to `address` with `buffer` bytes of kernel buffer each way, or as much as the kernel gives.
    pub(crate) fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.bind(&address.into())?;
        Self::from_bound(socket, buffer)
    }

    /// Binds to `address` beside others: to one that is bound already and shares its port.
    #[cfg(all(feature = "gateway", target_os = "linux"))]
    fn bind_beside(first: &Self, buffer: usize) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            Domain::for_address(first.address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_reuse_port(true)?;
        socket.bind(&first.address.into())?;
        Self::from_bound(socket, buffer)
    }

    /// Binds several sockets to one address, with `buffer` bytes of kernel buffer each, among which `program` chooses for each packet by
    /// their place here (`SO_REUSEPORT`, `SO_ATTACH_REUSEPORT_CBPF`).
    ///
    /// Nobody else can bind to the address, as with a socket that stands alone: the first is bound alone, which fails if there is
    /// anybody, and only then shares its port. (Linux makes the group when the second one comes, with the first at index 0, and counts
    /// them in the order of binding.)
    #[cfg(all(feature = "gateway", target_os = "linux"))]
    pub(crate) fn bind_group(
        address: SocketAddr,
        buffer: usize,
        size: usize,
        program: &[Instruction],
    ) -> io::Result<Vec<Self>> {
        let first = Self::bind(address, buffer)?;
        if size < 2 {
            return Ok(vec![first]);
        }
        socket2::SockRef::from(&first.socket).set_reuse_port(true)?;
        let others: io::Result<Vec<Self>> = (1..size)
            .map(|_| Self::bind_beside(&first, buffer))
            .collect();
        tickgate_steering::attach(&first.socket, program)?;
        let mut group = vec![first];
        group.extend(others?);
        Ok(group)
    }

    /// The same where no system call steers packets: a group of one, or an error.
    #[cfg(all(feature = "gateway", not(target_os = "linux")))]
    pub(crate) fn bind_group(
        address: SocketAddr,
        buffer: usize,
        size: usize,
        _program: &[Instruction],
    ) -> io::Result<Vec<Self>> {
        if size > 1 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Self::bind(address, buffer).map(|socket| vec![socket])
    }

    fn from_bound(socket: socket2::Socket, buffer: usize) -> io::Result<Self> {
        let given = ask_for_buffers(&socket, buffer);
        let socket: UdpSocket = socket.into();
        // Sets the socket to non-blocking, and asks for ECN and destination addresses.
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            address: socket.local_addr()?,
            socket: mio::net::UdpSocket::from_std(socket),
            state,
            given,
        })
    }

    /// The address bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says so in the log if the kernel gave less receive buffer than the `asked` bytes.
    pub(crate) fn warn_of_small_buffer(&self, asked: usize) {
        match &self.given {
            Ok(given) if *given >= asked => {}
            Ok(given) => warn!(
                asked,
                given,
                "the kernel gave a smaller receive buffer: bursts may be lost; raise net.core.rmem_max"
            ),
            Err(error) => warn!(%error, "the kernel refused a larger receive buffer"),
        }
    }

    /// Where the kernel tells what it drops.
    pub(crate) fn kernel_drops(&self) -> KernelDrops {
        KernelDrops::of(&self.socket)
    }

    /// How many packets of one size may go in one call.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments().min(MAX_SEGMENTS)
    }

    /// Asks to be told when the socket is ready.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(
            &mut self.socket,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Receives what is there, a batch at the most, and hands each packet to `each`. Whether there may be more: a batch that is not full
    /// has emptied the socket, and to ask it once more costs as much as to receive some packets. `WouldBlock` when nothing was there.
    pub(crate) fn receive(
        &self,
        buffers: &mut Buffers,
        mut each: impl FnMut(Packet),
    ) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices = buffers.0.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let count = self
            .state
            .recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)?;
        for (meta, buffer) in metas.iter().zip(buffers.0.iter()).take(count) {
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
        Ok(count == BATCH_SIZE)
    }

    /// Sends a packet, or several of one size. `WouldBlock` when the socket takes no more for now.
    pub(crate) fn send(&self, transmit: &Transmit, contents: &[u8]) -> io::Result<()> {
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
pub(crate) struct KernelDrops {
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
    pub(crate) fn read(&self) -> Option<u64> {
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
fn ask_for_buffers(socket: &socket2::Socket, buffer: usize) -> io::Result<usize> {
    socket.set_recv_buffer_size(buffer)?;
    socket.set_send_buffer_size(buffer)?;
    socket.recv_buffer_size()
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
        let socket = Socket::bind(loopback, 1).unwrap();
        let drops = socket.kernel_drops();
        assert_eq!(drops.read(), Some(0));
        let sender = UdpSocket::bind(loopback).unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 1_000], socket.address()).unwrap();
        }
        assert!(drops.read().unwrap() > 0);
    }
}
