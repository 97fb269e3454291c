//! The model sidecar: its store, and what its process knows beside.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{CarriedKey, Drain, GatewayDescription, LiveSeat, Orders, SeatReport},
    LEEWAY, PATIENCE, SKEW, TOKEN_LIFE,
    keys::{MasterKeys, Step, carried},
    store::Store,
};
use crate::{
    clock::{Clock, ManualTime, Timestamp},
    id::{Incarnation, Revision, SessionId},
    token::KeyId,
};
use std::time::{Duration, Instant};

/// How long an event stays in the log. A token minted just before it lives for its life and the leeway of a clock that lags by what the
/// answer to an attach may take; the seat that it takes may be missing in the list of an attach that takes as long again; and clocks
/// step.
const RETENTION: Duration = Duration::from_secs(
    TOKEN_LIFE.as_secs() + LEEWAY.as_secs() + 2 * PATIENCE.as_secs() + 2 * SKEW.as_secs(),
);

/// How long a restore from a backup takes at least: until tokens of sessions that it loses are dead. Nothing tells of these any more.
pub(super) const RESTORE: Duration = Duration::from_secs(
    TOKEN_LIFE.as_secs() + LEEWAY.as_secs() + PATIENCE.as_secs() + 2 * SKEW.as_secs(),
);

/// The attachment that counts.
pub(super) struct Attached {
    pub(super) stream: u64,
    pub(super) incarnation: Incarnation,
    pub(super) known: BTreeSet<SessionId>,
    pub(super) acknowledged: Revision,
    pub(super) draining: bool,
    pub(super) certificates: Vec<[u8; 32]>,
    keys: bool,
    /// The keys that the gateway has said it holds.
    pub(super) held: Vec<KeyId>,
    idle_moved: BTreeMap<SessionId, Timestamp>,
    drain: bool,
    /// Whether there are orders that the stream has not been told of.
    pub(super) ordered: bool,
}

pub(super) struct Sidecar {
    pub(super) store: Store,
    pub(super) backup: Store,
    /// The machine's time, which steps, and the process's, which does not.
    pub(super) time: ManualTime,
    pub(super) clock: Clock,
    pub(super) masters: MasterKeys,
    /// What operators want of the gateway.
    pub(super) wants_drained: bool,
    pub(super) attached: Option<Attached>,
    pub(super) down_until: Instant,
}

impl Sidecar {
    pub(super) fn new(now: Instant, time: ManualTime) -> Self {
        Self {
            store: Store::new(),
            backup: Store::new(),
            clock: time.clock(),
            time,
            masters: MasterKeys::new(),
            wants_drained: false,
            attached: None,
            down_until: now,
        }
    }

    /// A new process on what the store holds.
    pub(super) fn restart(&mut self, down_until: Instant) {
        self.attached = None;
        self.clock = self.time.clock();
        self.down_until = down_until;
    }

    pub(super) fn purge(&mut self) {
        self.store.purge(self.clock.wall().before(RETENTION));
    }

    pub(super) fn keys_for(&self, incarnation: Incarnation) -> Vec<CarriedKey> {
        let epochs = self.masters.epochs();
        epochs.map(|epoch| carried(epoch, incarnation)).collect()
    }

    /// Registers the stream as the one that counts; the one before, if another was.
    pub(super) fn register(
        &mut self,
        stream: u64,
        gateway: &GatewayDescription,
        seats: &[LiveSeat],
        draining: bool,
        held: &[KeyId],
    ) -> Option<u64> {
        let attached = Attached {
            stream,
            incarnation: gateway.incarnation,
            known: seats.iter().map(|seat| seat.session).collect(),
            acknowledged: Revision(0),
            draining,
            certificates: gateway.certificate_sha256.clone(),
            keys: false,
            held: held.to_vec(),
            idle_moved: BTreeMap::new(),
            drain: draining != self.wants_drained,
            ordered: true,
        };
        let before = self.attached.replace(attached);
        before.map(|before| before.stream)
    }

    pub(super) fn current(&mut self, stream: u64) -> Option<&mut Attached> {
        self.attached.as_mut().filter(|a| a.stream == stream)
    }

    pub(super) fn report(&mut self, stream: u64, report: &SeatReport) {
        if let Some(attached) = self.current(stream) {
            for session in &report.closed {
                attached.known.remove(session);
            }
            for seat in &report.opened {
                attached.known.insert(seat.session);
            }
            attached.draining = report.draining;
            if let Some(certificates) = &report.certificate_sha256 {
                attached.certificates.clone_from(certificates);
            }
        }
    }

    pub(super) fn detach(&mut self, stream: u64) {
        if self.current(stream).is_some() {
            self.attached = None;
        }
    }

    /// A step of a rotation, if its time has come.
    pub(super) fn rotate_keys(&mut self, now: Instant) -> Option<Step> {
        let attached = self.attached.as_ref();
        let attached = attached.map(|a| (a.incarnation, a.held.as_slice()));
        let step = self.masters.step(now, attached);
        if step.is_some() {
            self.renew_keys();
        }
        step
    }

    /// Another key seals at once, whoever holds it.
    pub(super) fn rush_keys(&mut self, now: Instant) {
        self.masters.rush(now);
        self.renew_keys();
    }

    fn renew_keys(&mut self) {
        if let Some(attached) = &mut self.attached {
            attached.keys = true;
            attached.ordered = true;
        }
    }

    pub(super) fn keys_held(&mut self, stream: u64, held: Vec<KeyId>) {
        if let Some(attached) = self.current(stream) {
            attached.held = held;
        }
    }

    pub(super) fn order_drain(&mut self, drained: bool) {
        self.wants_drained = drained;
        if let Some(attached) = &mut self.attached {
            attached.drain = true;
            attached.ordered = true;
        }
    }

    /// A session with a seat on the gateway was active on another one; whether it has.
    pub(super) fn active_elsewhere(&mut self, session: SessionId) -> Option<Timestamp> {
        let at = self.clock.wall();
        let attached = self.attached.as_mut()?;
        attached.known.contains(&session).then(|| {
            attached.idle_moved.insert(session, at);
            attached.ordered = true;
            at
        })
    }

    pub(super) fn take_orders(&mut self, stream: u64) -> Orders {
        let wants_drained = self.wants_drained;
        let incarnation = self.attached.as_ref().map(|a| a.incarnation);
        let keys = incarnation.map(|incarnation| self.keys_for(incarnation));
        let Some(attached) = self.current(stream) else {
            return Orders::default();
        };
        let drain = if wants_drained {
            Drain::Within(Duration::from_secs(30))
        } else {
            Drain::Cancel
        };
        Orders {
            keys: keys.filter(|_| std::mem::take(&mut attached.keys)),
            idle_moved: std::mem::take(&mut attached.idle_moved)
                .into_iter()
                .collect(),
            drain: std::mem::take(&mut attached.drain).then_some(drain),
        }
    }
}
