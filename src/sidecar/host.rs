//! What the control channel asks of the sidecar, answered from registry and store.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::{
    clock::{Clock, Timestamp},
    control::{
        AttachRefusal, AttachmentId, CarriedKey, GatewayDescription, LiveSeat, LogState, Orders,
        RevocationRange, SeatReport, SidecarHost,
    },
    id::{GatewayId, Incarnation, Revision, SessionId},
    store::{Store, StoreError},
};

use super::{mint::MasterKeys, registry::Registry};

/// The sidecar as the control channel sees it.
pub(super) struct Host {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Arc<MasterKeys>,
    pub(super) idle: Duration,
    pub(super) clock: Clock,
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
    ) -> Result<AttachmentId, AttachRefusal> {
        let attachment = self.registry.attach(gateway, seats)?;
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
        keys.map(|(epoch, key)| CarriedKey {
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

    async fn report(&self, attachment: AttachmentId, report: SeatReport) {
        let active = self.registry.report(attachment, report);
        if !active.is_empty() {
            self.store.note_activity(&active, self.clock.wall());
        }
    }

    fn acknowledged(&self, attachment: AttachmentId, revision: Revision) {
        self.registry.acknowledged(attachment, revision);
    }

    fn detach(&self, attachment: AttachmentId) {
        self.registry.detach(attachment);
    }

    async fn fenced(&self, attachment: AttachmentId) {
        self.registry.fenced(attachment).await;
    }

    fn orders_ready(&self, _attachment: AttachmentId) -> Arc<Notify> {
        Arc::default()
    }

    fn take_orders(&self, _attachment: AttachmentId) -> Orders {
        Orders::default()
    }
}
