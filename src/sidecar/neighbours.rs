//! Sidecars over one store tell each other of their gateways, so that each can mint for all of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    control::AttachmentId,
    id::{GatewayId, Incarnation},
    store::{Publication, Store, StoreError},
};

use super::{registry::Registry, serve::Health};

/// How long what is told of a gateway counts: so long tokens may be minted for the gateways of a sidecar that was killed. Five
/// times the pause between two renewals.
const LEASE: Duration = Duration::from_secs(5);

/// How often it is told again, and others are asked.
const RENEWAL: Duration = Duration::from_secs(1);

/// How long changes are gathered before they are told: a gateway that has just attached is known elsewhere within this.
const GATHERED: Duration = Duration::from_millis(50);

/// Tells and asks until `stop`, and says by the health service whether the store could be reached for it: newcomers are better served by
/// a sidecar that reaches it.
pub(super) async fn run(
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    clock: Clock,
    health: Health,
    stop: CancellationToken,
) {
    let mut changes = registry.changes();
    let mut neighbours = Neighbours {
        registry,
        store,
        clock,
        told: HashMap::new(),
    };
    let mut is_reached = true;
    loop {
        changes.borrow_and_update();
        let exchanged = tokio::select! {
            () = stop.cancelled() => break,
            exchanged = neighbours.exchange() => exchanged,
        };
        match exchanged {
            Ok(()) => is_reached = true,
            Err(error) => {
                if std::mem::take(&mut is_reached) {
                    tracing::error!(label = error.label(), %error, "the store is out of reach, and so are other sidecars' gateways");
                }
            }
        }
        health.serving(is_reached).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RENEWAL) => {}
            Ok(()) = changes.changed() => tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(GATHERED) => {}
            },
        }
    }
    neighbours.withdraw().await;
}

struct Neighbours {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    clock: Clock,
    /// What the others know of, as it was told last.
    told: HashMap<GatewayId, (AttachmentId, Incarnation)>,
}

impl Neighbours {
    async fn exchange(&mut self) -> Result<(), StoreError> {
        let here = self.registry.to_publish();
        let mut gone = self.told.clone();
        for (attachment, gateway) in here {
            let id = gateway.description.id.clone();
            let process = gateway.description.incarnation;
            let told = gone.remove(&id);
            let has_attached = told.is_none_or(|(earlier, _)| earlier != attachment);
            let at = self.clock.wall();
            let publishing = self.store.publish_gateway(gateway, LEASE, has_attached, at);
            match publishing.await? {
                Publication::Published => {
                    self.told.insert(id, (attachment, process));
                }
                why @ (Publication::Elsewhere | Publication::Fenced) => {
                    tracing::info!(gateway = %id, ?why, "a gateway's stream is an old one: it has attached elsewhere");
                    self.told.remove(&id);
                    self.registry.evict(attachment);
                }
            }
        }
        for (id, (_, process)) in gone {
            self.store.withdraw_gateway(id.clone(), process).await?;
            self.told.remove(&id);
        }
        let published = self.store.gateways(self.clock.wall()).await?;
        self.registry.hear_of(published);
        Ok(())
    }

    /// The sidecar stops: nobody need wait for the leases to run out.
    async fn withdraw(self) {
        for (id, (_, process)) in self.told {
            if self.store.withdraw_gateway(id, process).await.is_err() {
                return;
            }
        }
    }
}
