//! What all of a gateway's workers, its simulation and its control channel share.

use std::sync::{
    Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{config::Limits, journal::Journal};
use crate::{
    clock::{Clock, Timestamp},
    id::GatewayId,
    seat::{EndReason, RevocationLog, SeatTable, SingleUse},
    token::ConnectKeyring,
    wire::CloseCode,
};

/// The state of one gateway process.
///
/// The hot path (verify, touch, tick pass) uses the seat table alone. The locks here are taken once per admission or per control
/// message, never per packet or tick.
pub(super) struct Shared {
    pub(super) id: GatewayId,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) seats: Arc<SeatTable>,
    pub(super) counters: Counters,
    pub(super) journal: Journal,
    pub(super) history: SingleUse,
    revocations: RwLock<RevocationLog>,
    keys: RwLock<ConnectKeyring>,
    /// Wall time of the sidecar's last heartbeat in milliseconds, 0 before the first.
    last_heartbeat: AtomicU64,
    /// Wall time of the simulation's last tick in milliseconds, 0 before the first.
    last_tick: AtomicU64,
    draining: AtomicBool,
}

impl Shared {
    pub(super) fn new(id: GatewayId, limits: Limits, clock: Clock, seats: SeatTable) -> Self {
        Self {
            keys: RwLock::new(ConnectKeyring::new(id.clone())),
            history: SingleUse::new(limits.single_use),
            revocations: RwLock::new(RevocationLog::new(RevocationLog::DEFAULT_RETENTION)),
            journal: Journal::new(seats.capacity() as usize),
            id,
            limits,
            clock,
            seats: Arc::new(seats),
            counters: Counters::default(),
            last_heartbeat: AtomicU64::new(0),
            last_tick: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        }
    }

    pub(super) fn revocations(&self) -> RwLockReadGuard<'_, RevocationLog> {
        self.revocations
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn revocations_mut(&self) -> RwLockWriteGuard<'_, RevocationLog> {
        self.revocations
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keys(&self) -> RwLockReadGuard<'_, ConnectKeyring> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keys_mut(&self) -> RwLockWriteGuard<'_, ConnectKeyring> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sidecar was heard of.
    pub(super) fn heard_of_sidecar(&self, now: Timestamp) {
        self.last_heartbeat.store(now.0, Ordering::Relaxed);
    }

    /// Whether the sidecar was heard of recently enough to admit new clients.
    pub(super) fn sidecar_is_fresh(&self, now: Timestamp) -> bool {
        let last = self.last_heartbeat.load(Ordering::Relaxed);
        last != 0 && now.since(Timestamp(last)) <= self.limits.admit_while_stale
    }

    /// The simulation has ticked.
    pub(super) fn ticked(&self, now: Timestamp) {
        self.last_tick.store(now.0, Ordering::Relaxed);
    }

    /// Whether the simulation ticks.
    pub(super) fn simulation_is_running(&self, now: Timestamp) -> bool {
        let last = self.last_tick.load(Ordering::Relaxed);
        last != 0 && now.since(Timestamp(last)) <= self.limits.tick_stall
    }

    pub(super) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Admits nobody any more and ends all seats: what served them is gone.
    pub(super) fn fail(&self) {
        self.start_draining();
        let mut sessions = Vec::with_capacity(self.seats.len());
        self.seats.live_seats(|seat| sessions.push(seat.session));
        for session in sessions {
            self.seats.end_session(session, EndReason::Internal);
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// Counts since the process's start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) admitted: AtomicU64,
    refused: [AtomicU64; CloseCode::ALL.len()],
    pub(super) handshakes_dropped: AtomicU64,
    pub(super) inputs_dropped: AtomicU64,
}

impl Counters {
    /// A client was refused, or a connection closed before it had a seat, with this code.
    pub(super) fn refused(&self, code: CloseCode) {
        if let Some(counter) = Self::index(code).and_then(|i| self.refused.get(i)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn index(code: CloseCode) -> Option<usize> {
        CloseCode::ALL.iter().position(|known| *known == code)
    }

    /// Refusals by close code, those that occurred.
    pub(super) fn refusals(&self) -> Vec<(CloseCode, u64)> {
        CloseCode::ALL
            .iter()
            .zip(&self.refused)
            .map(|(code, count)| (*code, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
