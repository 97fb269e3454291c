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
