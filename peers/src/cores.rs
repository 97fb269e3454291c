//! Which processor runs what: the server has one to itself, and who measures it another.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::OnceLock,
};

use anyhow::{Context, bail};
use rustix::{
    io::Errno,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use socket2::{Domain, Socket, Type};

/// The processors of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) generator: usize,
}

impl Cores {
    /// The first and the last that this program was given when it began.
    pub(crate) fn of_this_program() -> anyhow::Result<Self> {
        static GIVEN: OnceLock<Result<CpuSet, Errno>> = OnceLock::new();
        let allowed = *GIVEN.get_or_init(|| sched_getaffinity(None));
        let allowed = allowed.context("cannot tell the processors")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let server = cores.next().context("no processor")?;
        let Some(generator) = cores.next_back() else {
            bail!("one processor alone: server and generator need one each");
        };
        Ok(Self { server, generator })
    }
}

/// Keeps this thread, and all threads that it starts from now on, on one processor.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).context("cannot keep to one processor")
}

/// Bytes that the kernel may hold for a server: the same for all of them, and what the gateway asks for by itself.
const SOCKET_BUFFER: usize = tickgate::gateway::DEFAULT_SOCKET_BUFFER;

/// A server's socket. With the kernel's default buffer, which holds under 100 packets, every peer would lose some at once.
pub(crate) fn server_socket(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
