//! Where connections are charged for what they send, and what becomes of those who send too much.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Instant};

use quinn_proto::ConnectionEvent;
use tracing::debug;

use super::{
    Core,
    budget::{Budgets, Excess, Verdict},
    link::{Link, LinkId, Stage},
};
use crate::{
    seat::{EndReason, Handle},
    wire::{CloseCode, MAX_DATAGRAM},
};

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charged {
    /// QUIC has had it.
    Within,
    /// It was dropped, for this.
    Dropped(Excess),
    /// So much of this has come for so long that the connection is to be closed.
    TooLong(Excess),
}

impl Link {
    /// Hands a packet to QUIC, if that is within the budgets.
    pub(super) fn handle_packet(
        &mut self,
        budgets: &Budgets,
        now: Instant,
        remote: SocketAddr,
        packet: ConnectionEvent,
    ) -> Charged {
        let before = self.quic.remote_address();
        match self.spending.packet(budgets, now, remote != before) {
            None => {}
            Some((excess, Verdict::TooLong))
                if self.spending.is_the_peers(&self.quic.stats().frame_rx) =>
            {
                return Charged::TooLong(excess);
            }
            Some((excess, _)) => return Charged::Dropped(excess),
        }
        self.quic.handle_event(packet);
        // It moves with the packet or not at all.
        if self.quic.remote_address() != before
            && self.spending.moved(budgets, now) == Verdict::TooLong
        {
            return Charged::TooLong(Excess::Moves);
        }
        Charged::Within
    }
}

impl Core {
    /// Counts what was dropped, and closes a connection that has sent too much for too long. An unfinished handshake is not told: its
    /// room is small and its time is short.
    pub(super) fn overspent(&mut self, now: Instant, id: LinkId, charged: Charged) {
        let (excess, is_too_long) = match charged {
            Charged::Within => return,
            Charged::Dropped(excess) => (excess, false),
            Charged::TooLong(excess) => (excess, true),
        };
        let counters = &self.shared.counters.over_budget;
        let counter = match excess {
            Excess::Packets => &counters.packets,
            Excess::Moves => &counters.moves,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let Some(link) = self.link(id).filter(|_| is_too_long) else {
            return;
        };
        match link.stage {
            Stage::Seated(handle) => {
                debug!(%handle, ?excess, "seat ended: the client sent too much for too long");
                let reason = EndReason::OverBudget;
                self.end(now, id, reason, reason.into());
            }
            Stage::AwaitingHello | Stage::AwaitingLog => {
                self.refuse(now, id, CloseCode::RateLimited, "over_budget");
            }
            Stage::Handshaking | Stage::Closed => {}
        }
    }

    /// Hands the client's datagrams to the simulation; before Welcome they are dropped.
    pub(super) fn take_datagrams(&mut self, link: &mut Link, now: Instant) {
        let Stage::Seated(handle) = link.stage else {
            while link.quic.datagrams().recv().is_some() {}
            return;
        };
        self.shared.seats.touch(handle);
        let mut verdict = Verdict::Within;
        let mut over = 0;
        {
            let mut inbox = self.exchange.inbox();
            while verdict != Verdict::TooLong
                && let Some(payload) = link.quic.datagrams().recv()
            {
                verdict = link.spending.datagram(&self.budgets, now, payload.len());
                if verdict != Verdict::Within {
                    over += 1;
                } else if payload.len() <= MAX_DATAGRAM {
                    // What a larger path lets through is dropped all the same: a game is never handed more than it was promised.
                    inbox.push_datagram(&self.exchange.budget, handle, &payload);
                }
            }
        }
        if over > 0 {
            let counters = &self.shared.counters.over_budget;
            counters.datagrams.fetch_add(over, Ordering::Relaxed);
        }
        if verdict == Verdict::TooLong {
            self.end_of_patience(link, now, handle);
        }
    }

    fn end_of_patience(&mut self, link: &mut Link, now: Instant, handle: Handle) {
        debug!(%handle, "seat ended: the client sent too many datagrams for too long");
        let (connection, reason) = (link.id.connection(self.worker), EndReason::OverBudget);
        self.shared.seats.end_connection(handle, connection, reason);
        self.close_link(link, now, reason.into());
    }
}
