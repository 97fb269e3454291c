//! What the control channel asks of the sidecar, answered from registry and store.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, watch};

use crate::{
    clock::{Clock, Timestamp},
    control::{
        AttachRefusal, AttachmentId, CarriedKey, GatewayDescription, GatewayEvent, LiveSeat,
        LogState, Orders, RevocationRange, SeatReport, SidecarHost,
    },
    id::{GatewayId, Incarnation, Revision, SessionId},
    store::{Fencing, Store, StoreError},
    token::KeyId,
};

use super::{
    audit::{self, Event},
    catching_up::{ASKED_AT_ONCE, catch_up},
    explain::Explain,
    keys::Keys,
    metrics::Counters,
    registry::{Registry, Reported},
};

/// The sidecar as the control channel sees it.
pub(super) struct Host {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Arc<Keys>,
    pub(super) explain: Arc<Explain>,
    pub(super) counters: Arc<Counters>,
    pub(super) idle: Duration,
    pub(super) clock: Clock,
    /// Held from the store's word that a process is the newest until the registry knows it: or of two processes that attach at
    /// once, the older could be registered last.
    pub(super) attaching: Mutex<()>,
}

/// A gateway cannot mend a store: it tries again later.
#[allow(
    clippy::needless_pass_by_value,
    reason = "handed to `map_err`, which gives it away"
)]
fn not_ready(error: StoreError) -> AttachRefusal {
    tracing::error!(label = error.label(), %error, "the store failed under the control channel");
    AttachRefusal::NotReady
}

/// An attachment that nobody has been told of yet: dropped, it is detached.
struct Registered<'a> {
    registry: &'a Registry,
    attachment: AttachmentId,
}

impl Registered<'_> {
    /// From here on, whoever asked for it sees to its end.
    fn stays(self) {
        std::mem::forget(self);
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.registry.detach(self.attachment);
    }
}

impl Host {
    /// Which of these sessions were minted to the gateway.
    async fn granted(
        &self,
        gateway: &GatewayId,
        sessions: Vec<SessionId>,
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut granted = Vec::new();
        for some in sessions.chunks(ASKED_AT_ONCE) {
            let some = self.store.granted_among(gateway.clone(), some.to_vec());
            granted.extend(some.await?);
        }
        Ok(granted)
    }

    /// Which of these sessions were not minted to the gateway. If the store cannot say, all: it could not take note of their
    /// activity either.
    async fn foreign(
        &self,
        gateway: &GatewayId,
        mut strangers: HashSet<SessionId>,
    ) -> HashSet<SessionId> {
        if strangers.is_empty() {
            return strangers;
        }
        match self
            .granted(gateway, strangers.iter().copied().collect())
            .await
        {
            Ok(granted) => {
                for session in granted {
                    strangers.remove(&session);
                }
            }
            Err(error) => {
                tracing::error!(%gateway, label = error.label(), %error, "the store failed under a report");
            }
        }
        strangers
    }

    /// Hands what a gateway saw to `explain`. What it says of a session that was never minted to it is nobody's.
    async fn tell(
        &self,
        gateway: &GatewayId,
        mut events: Vec<GatewayEvent>,
        lost: u64,
        foreign: &HashSet<SessionId>,
    ) {
        for event in &mut events {
            event.session = event.session.filter(|session| !foreign.contains(session));
        }
        let unknown: BTreeSet<_> = events
            .iter()
            .filter_map(|event| event.session)
            .filter(|session| self.explain.player_of(*session).is_none())
            .collect();
        for session in unknown {
            // One that the store cannot find stays unknown, and nothing rests on it.
            if let Ok(Some(found)) = self.store.session(session).await {
                self.explain.introduce(session, found.player.id);
            }
        }
        self.explain.gateway_events(gateway, events, lost);
    }
}

#[tonic::async_trait]
impl SidecarHost for Host {
    fn time(&self) -> Timestamp {
        self.clock.wall()
    }

    fn idle_timeout(&self) -> Duration {
        self.idle
    }

    async fn attach(
        &self,
        gateway: &GatewayDescription,
        seats: &[LiveSeat],
        keys: &[KeyId],
    ) -> Result<AttachmentId, AttachRefusal> {
        let sessions = seats.iter().map(|seat| seat.session).collect();
        let granted = self
            .granted(&gateway.id, sessions)
            .await
            .map_err(not_ready)?;
        let attaching = self.attaching.lock().await;
        let fencing = self
            .store
            .attach_gateway(gateway.id.clone(), gateway.incarnation);
        if fencing.await.map_err(not_ready)? == Fencing::Fenced {
            audit::record(Event::GatewayFenced {
                gateway: &gateway.id,
            });
            tracing::warn!(
                gateway = %gateway.id,
                incarnation = %gateway.incarnation,
                "attach refused: a newer process of this gateway has attached"
            );
            return Err(AttachRefusal::Fenced);
        }
        let attachment = self.registry.attach_holding(gateway, &granted, keys)?;
        drop(attaching);
        // Asked now and not before: what is told from here on, the registry passes on to this attachment too.
        let registered = Registered {
            registry: &self.registry,
            attachment,
        };
        catch_up(
            &self.registry,
            &*self.store,
            attachment,
            &gateway.id,
            &granted,
        )
        .await
        .map_err(not_ready)?;
        registered.stays();
        let rejected = seats.len() - granted.len();
        if rejected > 0 {
            self.counters.seats_rejected.add(rejected);
            tracing::warn!(gateway = %gateway.id, rejected, "seats of sessions that were not minted to this gateway");
        }
        audit::record(Event::GatewayAttached {
            gateway: &gateway.id,
            seats: u32::try_from(granted.len()).unwrap_or(u32::MAX),
        });
        tracing::info!(
            gateway = %gateway.id,
            incarnation = %gateway.incarnation,
            capacity = gateway.capacity,
            seats = seats.len(),
            "gateway attached"
        );
        Ok(attachment)
    }

    fn keys_for(&self, gateway: &GatewayId, incarnation: Incarnation) -> Vec<CarriedKey> {
        let keys = self.keys.for_process(gateway, incarnation);
        keys.into_iter()
            .map(|(epoch, key)| CarriedKey {
                epoch,
                key: Bytes::copy_from_slice(key.expose()),
            })
            .collect()
    }

    async fn log_state(&self) -> Result<LogState, AttachRefusal> {
        self.store.log_state().await.map_err(not_ready)
    }

    /// If the log has been purged beyond `from`, the range starts where the log does: its reader sees the gap.
    async fn log_after(
        &self,
        from: Revision,
        limit: usize,
    ) -> Result<RevocationRange, AttachRefusal> {
        if let Some(range) = self.store.log_after(from, limit).await.map_err(not_ready)? {
            return Ok(range);
        }
        let LogState { tail, .. } = self.log_state().await?;
        Ok(RevocationRange {
            from: tail,
            to: tail,
            events: Vec::new(),
        })
    }

    async fn dead_among(&self, seats: &[LiveSeat]) -> Result<Vec<SessionId>, AttachRefusal> {
        let sessions = seats.iter().map(|seat| seat.session).collect();
        let dead = self.store.dead_among(sessions, self.clock.wall());
        dead.await.map_err(not_ready)
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.store.watch_head()
    }

    async fn report(&self, attachment: AttachmentId, mut report: SeatReport) {
        let Some((gateway, strangers)) = self.registry.strangers(attachment, &report) else {
            return;
        };
        // Most reports name only seats that are known, and cost no question to the store.
        let foreign = self.foreign(&gateway, strangers).await;
        let now = self.clock.wall();
        let Reported {
            active,
            active_rejected,
            seats_rejected,
        } = self.registry.report(attachment, &report, &foreign, now);
        if !active.is_empty() {
            self.store.note_activity(&active, now);
        }
        if active_rejected + seats_rejected > 0 {
            self.counters.activity_rejected.add(active_rejected);
            self.counters.seats_rejected.add(seats_rejected);
            tracing::warn!(
                %gateway,
                active_rejected,
                seats_rejected,
                "a report names sessions that were not minted to this gateway"
            );
        }
        if !report.events.is_empty() || report.events_lost > 0 {
            let events = std::mem::take(&mut report.events);
            self.tell(&gateway, events, report.events_lost, &foreign)
                .await;
        }
    }

    fn acknowledged(&self, attachment: AttachmentId, revision: Revision) {
        self.registry.acknowledged(attachment, revision);
    }

    fn keys_held(&self, attachment: AttachmentId, keys: Vec<KeyId>) {
        self.registry.keys_held(attachment, keys);
    }

    fn detach(&self, attachment: AttachmentId) {
        self.registry.detach(attachment);
    }

    async fn fenced(&self, attachment: AttachmentId) {
        self.registry.fenced(attachment).await;
    }

    fn orders_ready(&self, attachment: AttachmentId) -> Arc<Notify> {
        self.registry.orders_ready(attachment)
    }

    fn take_orders(&self, attachment: AttachmentId) -> Orders {
        let process = self.registry.take_key_order(attachment);
        Orders {
            keys: process.map(|(gateway, incarnation)| self.keys_for(&gateway, incarnation)),
            ..self.registry.take_orders(attachment)
        }
    }
}

#[cfg(test)]
mod tests;
