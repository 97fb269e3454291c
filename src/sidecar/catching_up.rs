//! Tells gateways when sessions that have a seat there were active on other gateways, from the store.
//!
//! What a gateway of this sidecar reports, the others of this sidecar hear of at once, through the registry. What happened while one had
//! no stream, and what gateways of other sidecars report, is asked of the store: at an attach, and now and then.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
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

/// Goes round all gateways that are attached here, once per `granule`, until `stop`.
///
/// Activity is in the store within a granule, a sixtieth of the idle timeout, and here within another: so a seat whose player is active
/// at another sidecar's gateway alone may end as idle that much too early, and no more. It costs a shared store a millisecond for each
/// 1,000 seats, so with a million a sixtieth of its time.
pub(super) async fn run(
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    granule: Duration,
    stop: CancellationToken,
) {
    let mut rounds = tokio::time::interval(granule.max(SHORTEST));
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        let gone_round = tokio::select! {
            () = stop.cancelled() => return,
            gone_round = go_round(&registry, &*store) => gone_round,
        };
        if let Err(error) = gone_round {
            tracing::warn!(label = error.label(), %error, "what was active at other sidecars' gateways is not known: it is asked again");
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
