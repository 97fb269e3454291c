//! What all of a gateway's workers, its simulation and its control channel share.

use std::{
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    config::Limits,
    core::Prefixes,
    events::Events,
    journal::Journal,
    metrics::{Counters, TickTimes},
};
use crate::{
    clock::{Clock, Timestamp},
    id::{GatewayId, Revision},
    seat::{EndReason, RevocationLog, SeatTable, SingleUse},
    token::ConnectKeyring,
};

/// How often a gateway without its sidecar says so.
const STALENESS_TOLD_EVERY: Duration = Duration::from_secs(60);

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
    pub(super) ticks: TickTimes,
    pub(super) journal: Journal,
    pub(super) events: Events,
    pub(super) history: SingleUse,
    /// What the networks of newcomers have had.
    pub(super) prefixes: Prefixes,
    revocations: RwLock<RevocationLog>,
    /// Counts the changes of the log, so that a worker knows when to look again at who waits for it.
    log_changes: AtomicU64,
    keys: RwLock<ConnectKeyring>,
    certificates: RwLock<Vec<[u8; 32]>>,
    /// The sidecar was not told of the certificates yet.
    certificates_changed: AtomicBool,
    attached: AtomicBool,
    /// Wall time of the sidecar's last heartbeat in milliseconds, 0 before the first.
    last_heartbeat: AtomicU64,
    /// Wall time of the last log line about the sidecar's silence in milliseconds.
    staleness_told: AtomicU64,
    /// Wall time of the simulation's last tick in milliseconds, 0 before the first.
    last_tick: AtomicU64,
    /// Wall time in milliseconds at which those still there are closed; 0 when the gateway does not drain.
    drain_deadline: AtomicU64,
    /// A worker has ended without being told to: there is no way back.
    failed: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Shared {
    pub(super) fn new(
        id: GatewayId,
        limits: Limits,
        clock: Clock,
        seats: SeatTable,
        tick_interval: Option<Duration>,
    ) -> Self {
        Self {
            keys: RwLock::new(ConnectKeyring::new(id.clone())),
            history: SingleUse::new(limits.single_use),
            prefixes: Prefixes::new(&limits),
            revocations: RwLock::new(RevocationLog::new(RevocationLog::DEFAULT_RETENTION)),
            log_changes: AtomicU64::new(0),
            journal: Journal::new(seats.capacity() as usize),
            events: Events::default(),
            id,
            limits,
            clock,
            seats: Arc::new(seats),
            counters: Counters::default(),
            ticks: TickTimes::new(tick_interval),
            certificates: RwLock::default(),
            certificates_changed: AtomicBool::new(false),
            attached: AtomicBool::new(false),
            last_heartbeat: AtomicU64::new(0),
            staleness_told: AtomicU64::new(0),
            last_tick: AtomicU64::new(0),
            drain_deadline: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            wake: OnceLock::new(),
        }
    }

    /// Sets what gets all workers out of their wait; the first call counts.
    pub(super) fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.wake.set(wake);
    }

    /// Gets all workers out of their wait, to look at what has changed here.
    pub(super) fn wake_workers(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    pub(super) fn revocations(&self) -> RwLockReadGuard<'_, RevocationLog> {
        self.revocations
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the revocation log, then lets the workers look at who waits for it.
    pub(super) fn change_revocations<R>(&self, change: impl FnOnce(&mut RevocationLog) -> R) -> R {
        let outcome = change(
            &mut self
                .revocations
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.log_changes.fetch_add(1, Ordering::Release);
        self.wake_workers();
        outcome
    }

    /// The sidecar's log has this head: once ours has come so far it needs nothing of the log before, and clears that away. Nobody who
    /// waits for the log is let in by it.
    pub(super) fn note_log_head(&self, head: Revision, now: Timestamp) {
        let mut log = self
            .revocations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        log.caught_up(head);
        log.purge(now);
    }

    /// How often the revocation log has changed.
    pub(super) fn log_changes(&self) -> u64 {
        self.log_changes.load(Ordering::Acquire)
    }

    pub(super) fn keys(&self) -> RwLockReadGuard<'_, ConnectKeyring> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keys_mut(&self) -> RwLockWriteGuard<'_, ConnectKeyring> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// SHA-256 of the QUIC leaf certificate: the one served now, then the next one if it is announced.
    pub(super) fn certificates(&self) -> Vec<[u8; 32]> {
        self.certificates
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Announces the certificates: the one served now, then the next.
    pub(super) fn set_certificates(&self, sha256: Vec<[u8; 32]>) {
        *self
            .certificates
            .write()
            .unwrap_or_else(PoisonError::into_inner) = sha256;
        self.certificates_changed.store(true, Ordering::Release);
        self.journal.ready().notify_one();
    }

    /// The certificates, if the sidecar was not told of them yet; from now on it counts as told.
    pub(super) fn take_changed_certificates(&self) -> Option<Vec<[u8; 32]>> {
        self.certificates_changed
            .swap(false, Ordering::AcqRel)
            .then(|| self.certificates())
    }

    /// The control channel has come up or gone down.
    pub(super) fn set_attached(&self, attached: bool) {
        self.attached.store(attached, Ordering::Relaxed);
    }

    /// Whether the control channel is up.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    /// The sidecar was heard of.
    pub(super) fn heard_of_sidecar(&self, now: Timestamp) {
        self.last_heartbeat.store(now.0, Ordering::Relaxed);
        self.staleness_told.store(now.0, Ordering::Relaxed);
    }

    /// For how long the sidecar has not been heard of; none if it never was.
    pub(super) fn staleness(&self, now: Timestamp) -> Option<Duration> {
        match self.last_heartbeat.load(Ordering::Relaxed) {
            0 => None,
            last => Some(now.since(Timestamp(last))),
        }
    }

    /// Whether the sidecar was heard of recently enough to admit new clients.
    pub(super) fn sidecar_is_fresh(&self, now: Timestamp) -> bool {
        let Limits {
            admit_while_stale,
            max_stale,
            ..
        } = self.limits;
        // Whoever came in beyond `max_stale` would be thrown out at once.
        let most = max_stale.map_or(admit_while_stale, |most| most.min(admit_while_stale));
        self.staleness(now).is_some_and(|stale| stale <= most)
    }

    /// Ends the seats when the sidecar has not been heard of for `max_stale`, and says now and then how long it is away. To be called
    /// about once a second, by whoever comes to it: worker and tick both do.
    pub(super) fn watch_sidecar(&self, now: Timestamp) {
        let Some(stale) = self.staleness(now) else {
            return;
        };
        if self.limits.max_stale.is_some_and(|most| stale > most) {
            let ended = self.seats.end_all(EndReason::Stale);
            if ended > 0 {
                tracing::warn!(
                    gateway = %self.id,
                    stale_s = stale.as_secs(),
                    seats = ended,
                    "the sidecar has been away for longer than max_stale: all seats are ended"
                );
            }
        }
        let told = self.staleness_told.load(Ordering::Relaxed);
        let is_due = now.since(Timestamp(told)) >= STALENESS_TOLD_EVERY;
        let mine = || {
            let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
            self.staleness_told
                .compare_exchange(told, now.0, set, get)
                .is_ok()
        };
        if is_due && mine() {
            tracing::warn!(
                gateway = %self.id,
                stale_s = stale.as_secs(),
                seats = self.seats.len(),
                admitting = self.sidecar_is_fresh(now),
                "the sidecar has not been heard of"
            );
        }
    }

    /// The simulation has ticked; whether that was its first tick in this second.
    pub(super) fn ticked(&self, now: Timestamp) -> bool {
        let last = self.last_tick.swap(now.0, Ordering::Relaxed);
        last / 1_000 != now.0 / 1_000
    }

    /// Whether the simulation ticks.
    pub(super) fn simulation_is_running(&self, now: Timestamp) -> bool {
        let last = self.last_tick.load(Ordering::Relaxed);
        last != 0 && now.since(Timestamp(last)) <= self.limits.tick_stall
    }

    /// Admits nobody any more. Those who are in stay until `deadline`; a later call sets another deadline.
    pub(super) fn start_draining(&self, deadline: Timestamp) {
        // 0 stands for none.
        self.drain_deadline
            .store(deadline.0.max(1), Ordering::Release);
        self.drain_changed();
    }

    /// Admits again, unless the gateway has failed.
    pub(super) fn cancel_draining(&self) {
        self.drain_deadline.store(0, Ordering::Release);
        self.drain_changed();
    }

    fn drain_changed(&self) {
        self.journal.ready().notify_one();
        self.wake_workers();
    }

    /// When those who are still in are closed, if the gateway drains.
    pub(super) fn drain_deadline(&self) -> Option<Timestamp> {
        match self.drain_deadline.load(Ordering::Acquire) {
            0 => None,
            deadline => Some(Timestamp(deadline)),
        }
    }

    /// Whether nobody is admitted because the gateway drains, or has failed.
    pub(super) fn is_draining(&self) -> bool {
        self.drain_deadline().is_some() || self.has_failed()
    }

    /// Admits nobody any more and ends all seats: what served them is gone.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.drain_changed();
        self.seats.end_all(EndReason::Internal);
    }

    /// Whether a worker has ended without being told to.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualTime,
        id::{ClientId, PlayerGeneration, PlayerId, SessionId},
        seat::{Connection, Grant, SeatConfig},
    };

    const START: Timestamp = Timestamp(1_700_000_000_000);

    fn shared(limits: Limits) -> Shared {
        let clock = ManualTime::starting_at(START).clock();
        let seats = SeatTable::new(SeatConfig::default());
        Shared::new("one".parse().unwrap(), limits, clock, seats, None)
    }

    fn at(s: u64) -> Timestamp {
        START.after(Duration::from_secs(s))
    }

    #[test]
    fn seats_end_when_the_sidecar_is_away_for_too_long() {
        let shared = shared(Limits {
            max_stale: Some(Duration::from_secs(20)),
            ..Limits::default()
        });
        let grant = Grant {
            session: SessionId(1),
            player: PlayerId(1),
            player_generation: PlayerGeneration(0),
            client: ClientId(1),
            ends_at: at(3_600),
            connection: Connection { worker: 0, id: 1 },
        };
        shared.seats.install(grant, START).unwrap();
        // It was never heard of: nobody could have been let in.
        shared.watch_sidecar(at(1_000));
        shared.heard_of_sidecar(START);
        shared.watch_sidecar(at(20));
        assert_eq!(shared.seats.len(), 1);
        assert!(shared.sidecar_is_fresh(at(20)));
        // Less than the 30 s of `admit_while_stale`: whoever came in now would be thrown out at once.
        assert!(!shared.sidecar_is_fresh(at(21)));
        shared.watch_sidecar(at(21));
        assert!(shared.seats.is_empty());
        let mut closings = Vec::new();
        shared.seats.take_closings(0, &mut closings);
        assert!(matches!(closings[..], [(_, _, EndReason::Stale)]));
    }

    #[test]
    fn without_a_limit_seats_outlive_the_sidecar() {
        let shared = shared(Limits::default());
        shared.heard_of_sidecar(START);
        shared.watch_sidecar(at(1_000_000));
        assert_eq!(
            shared.staleness(at(1_000_000)).unwrap().as_secs(),
            1_000_000
        );
        assert!(!shared.sidecar_is_fresh(at(1_000_000)));
    }

    #[test]
    fn a_drain_can_be_called_off_and_a_failure_cannot() {
        let shared = shared(Limits::default());
        shared.start_draining(at(30));
        assert_eq!(shared.drain_deadline(), Some(at(30)));
        assert!(shared.is_draining());
        shared.start_draining(at(10));
        assert_eq!(shared.drain_deadline(), Some(at(10)));
        shared.cancel_draining();
        assert!(!shared.is_draining() && shared.drain_deadline().is_none());
        shared.fail();
        shared.cancel_draining();
        assert!(shared.is_draining());
    }

    #[test]
    fn changed_certificates_are_told_once() {
        let shared = shared(Limits::default());
        shared.set_certificates(vec![[1; 32], [2; 32]]);
        assert_eq!(
            shared.take_changed_certificates(),
            Some(vec![[1; 32], [2; 32]])
        );
        assert_eq!(shared.take_changed_certificates(), None);
        assert_eq!(shared.certificates().len(), 2);
    }
}
