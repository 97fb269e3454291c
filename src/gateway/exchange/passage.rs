//! Packets that came to another worker than the one they are for, on their way to it.
//!
//! The kernel steers packets to their worker ([`steering`](super::super::steering)), but not always: while sockets are still being bound
//! or closed already, and when it has put packets of several connections behind one address together (GRO) and steers them all by the
//! first. Such a packet is not lost, nor taken for one of a connection that is gone, which would be answered with a reset.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::udp::Packet;

/// Packets that may wait: at 1.5 KiB each 1.5 MiB. When more come, the new one is dropped, as the network would.
const MAX_WAITING: usize = 1_024;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Passed {
    /// It waits, alone: its worker is to be woken.
    First,
    /// It waits behind others.
    Behind,
    /// Too many wait already: it is dropped.
    Dropped,
}

/// Packets that wait for one worker.
#[derive(Default)]
pub(super) struct Passage {
    waiting: Mutex<Vec<Packet>>,
    /// So that a worker for which nothing waits, which is nearly always so, takes no lock to find out.
    is_waiting: AtomicBool,
}

impl Passage {
    pub(super) fn pass(&self, packet: Packet) -> Passed {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            return Passed::Dropped;
        }
        waiting.push(packet);
        self.is_waiting.store(true, Ordering::Release);
        if waiting.len() == 1 {
            Passed::First
        } else {
            Passed::Behind
        }
    }

    /// Swaps what waits for `mine`.
    pub(super) fn take(&self, mine: &mut Vec<Packet>) {
        if self.is_waiting.load(Ordering::Acquire) {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.is_waiting.store(false, Ordering::Release);
            std::mem::swap(&mut *waiting, mine);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn packet(n: usize) -> Packet {
        Packet {
            remote: ([127, 0, 0, 1], 5_000).into(),
            local_ip: None,
            ecn: None,
            data: BytesMut::from(&n.to_be_bytes()[..]),
        }
    }

    #[test]
    fn packets_come_out_in_order_and_no_more_than_there_is_room_for() {
        let passage = Passage::default();
        let mut taken = Vec::new();
        passage.take(&mut taken);
        assert!(taken.is_empty());
        for round in 0..3 {
            assert_eq!(passage.pass(packet(0)), Passed::First, "round {round}");
            for n in 1..MAX_WAITING {
                assert_eq!(passage.pass(packet(n)), Passed::Behind);
            }
            assert_eq!(passage.pass(packet(0)), Passed::Dropped);
            taken.clear();
            passage.take(&mut taken);
            let numbers = taken.iter().map(|packet| packet.data.to_vec());
            assert!(numbers.eq((0..MAX_WAITING).map(|n| n.to_be_bytes().to_vec())));
        }
        taken.clear();
        passage.take(&mut taken);
        assert!(taken.is_empty());
    }
}
