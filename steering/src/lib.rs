//! Lets a classic-BPF program choose which of several UDP sockets on one port gets a packet (Linux: `SO_ATTACH_REUSEPORT_CBPF`,
//! socket(7)).
//!
//! A crate of its own because the system call needs `unsafe`, which the gateway forbids itself, and because no crate that the gateway
//! has wraps it: here is that one call and nothing else. What a program says is its owner's business; the kernel checks every program
//! before it takes it, so that no program can harm more than the choice of the socket.

use std::io;

/// One instruction of classic BPF (linux/filter.h: `struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What it does: class, size and mode, or class and operation, in one number.
    pub code: u16,
    /// For a conditional jump: how many instructions are left out when the condition holds.
    pub jump_true: u8,
    /// The same when it does not hold.
    pub jump_false: u8,
    /// The operand.
    pub k: u32,
}

/// Whether this platform has groups of sockets that can be steered. Where it does not, [`attach`] fails.
pub const IS_SUPPORTED: bool = cfg!(target_os = "linux");

/// Has `program` choose the socket for every packet that comes for the group which `socket` is in, from now on; it takes the place of
/// one that was attached before.
///
/// The group are the sockets with `SO_REUSEPORT` on one address and port, in the order in which they were bound. The program sees a
/// packet's UDP payload from offset 0, and what it returns is an index into the group; an index that no socket has leaves the choice to
/// the kernel's hash of the addresses. A load beyond the packet's end ends the program with 0, which is the first socket.
///
/// # Errors
/// What the kernel says: `EINVAL` for a program that it does not accept, or for a socket that is bound and in no group.
/// [`io::ErrorKind::Unsupported`] where there is no such thing.
#[cfg(target_os = "linux")]
pub fn attach(socket: &impl std::os::fd::AsFd, program: &[Instruction]) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|instruction| libc::sock_filter {
            code: instruction.code,
            jt: instruction.jump_true,
            jf: instruction.jump_false,
            k: instruction.k,
        })
        .collect();
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(too_long)?,
        filter: filter.as_mut_ptr(),
    };
    let size = libc::socklen_t::try_from(size_of_val(&program)).map_err(too_long)?;
    #[expect(unsafe_code, reason = "the call that this crate is for")]
    // SAFETY: `AsFd` lends a file descriptor that stays open for as long as `socket` is borrowed. The option's value is a `sock_fprog` of
    // `size` bytes, which lives until the call returns; its pointer is to `len` initialised instructions in `filter`, which is neither
    // moved nor dropped before that. The kernel copies both during the call, writes to neither, and keeps no pointer to them.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Fails: this platform steers no sockets.
///
/// # Errors
/// Always [`io::ErrorKind::Unsupported`].
#[cfg(not(target_os = "linux"))]
pub fn attach<S>(_socket: &S, _program: &[Instruction]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
