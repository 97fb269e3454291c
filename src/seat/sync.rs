//! Where the seat table's atomics and mutexes come from, all of them: the standard library, or loom, which runs a test through every
//! interleaving of them.
//!
//! `--cfg tickgate_loom` chooses loom. Nothing else of the table differs then: a table of a few seats is small enough for loom as it is.

use std::sync::PoisonError;

#[cfg(not(tickgate_loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(tickgate_loom)]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
};

/// What can be made of zeroes.
#[cfg(not(tickgate_loom))]
pub(super) use bytemuck::Zeroable as Zero;

/// What is zero by default: loom's atomics are more than their bits.
#[cfg(tickgate_loom)]
pub(super) use std::default::Default as Zero;

/// So many zeroes, in one piece that never moves.
///
/// The memory is reserved, and not written: what is a few pages and more comes from the operating system, which zeroes each page
/// when it is first touched. So an array may be as long as it can ever get to be, and takes the memory of the part that is used.
pub(super) fn zeroes<T: Zero>(count: usize) -> Box<[T]> {
    #[cfg(not(tickgate_loom))]
    return bytemuck::zeroed_slice_box(count);
    #[cfg(tickgate_loom)]
    return (0..count).map(|_| T::default()).collect();
}

/// A lock that outlives whoever panicked under it. Nothing that is done under the table's locks can panic; if it did, its words
/// would still tell the truth.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On cache lines of its own, so that writing it takes none from a core that reads what lies beside it. Two lines, because
/// processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

impl<T> std::ops::Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
