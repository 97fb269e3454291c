//! Tells gateways when sessions that have a seat there were active on other gateways, from the store.
//!
//! What a gateway of this sidecar reports, the others of this sidecar hear of at once, through the registry. What happened while one had
//! no stream, and what gateways of other sidecars report, is asked of the store: at an attach, and now and then.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    control::AttachmentId,
    id::{GatewayId, SessionId},
    store::{Store, StoreError},
};

use super::registry::Registry;

/// Sessions that the store is asked of at once: as many as one message names, so that others get their turn between two questions
/// about a gateway with a million seats.
pub(super) const ASKED_AT_ONCE: usize = 4_096;

/// The shortest pause between two rounds.
const SHORTEST: Duration = Duration::from_secs(1);

/// How many times as long as a round took the pause after it is at least: so that rounds take no more than a twentieth of the store's time,
/// however many seats there are. A million take some 3 s.
const REST: u32 = 19;

/// Lays up for the gateway when those of its sessions were last active that may have been so on another gateway.
pub(super) async fn catch_up(
    registry: &Registry,
    store: &dyn Store,
    attachment: AttachmentId,
    gateway: &GatewayId,
    sessions: &[SessionId],
) -> Result<(), StoreError> {
    for some in sessions.chunks(ASKED_AT_ONCE) {
        let active = store.active_elsewhere(gateway.clone(), some.to_vec());
        registry.active_elsewhere(attachment, &active.await?);
    }
    Ok(())
}

/// Goes round all gateways that are attached here, once per `granule` or as often as it may, until `stop`.
///
/// Activity is in the store within a granule, a sixtieth of the idle timeout, and here within another: so a seat whose player is active
/// at another sidecar's gateway alone may end as idle that much too early, and no more.
pub(super) async fn run(
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    clock: Clock,
    granule: Duration,
    stop: CancellationToken,
) {
    loop {
        let begun = clock.now();
        let gone_round = tokio::select! {
            () = stop.cancelled() => return,
            gone_round = go_round(&registry, &*store) => gone_round,
        };
        if let Err(error) = gone_round {
            tracing::warn!(label = error.label(), %error, "what was active at other sidecars' gateways is not known: it is asked again");
        }
        let took = clock.now().saturating_duration_since(begun);
        let pause = granule.max(SHORTEST).max(took.saturating_mul(REST));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One round.
pub(super) async fn go_round(registry: &Registry, store: &dyn Store) -> Result<(), StoreError> {
    for (attachment, gateway) in registry.attachments() {
        let sessions = registry.sessions_at(attachment);
        catch_up(registry, store, attachment, &gateway, &sessions).await?;
    }
    Ok(())
}
