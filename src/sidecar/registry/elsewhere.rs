//! The gateways that are attached to other sidecars over the same store, as those tell of them; and what they are told of ours.

use std::sync::Arc;

use crate::{
    control::AttachmentId,
    id::{GatewayId, Revision, SessionId},
    store::PublishedGateway,
};

use super::Registry;

/// A gateway of another sidecar.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) published: PublishedGateway,
    /// Tokens minted here since that was told.
    pub(super) expected: u32,
}

impl Registry {
    /// What other sidecars are to know of the gateways attached here, with their attachments.
    pub(in crate::sidecar) fn to_publish(&self) -> Vec<(AttachmentId, PublishedGateway)> {
        let state = self.state();
        let of = |gateway: &super::Gateway| {
            let attached = gateway.attached.as_ref()?;
            let published = PublishedGateway {
                description: attached.description.clone(),
                seats: attached.reported,
                draining: gateway.is_draining(),
                acknowledged: attached.revision,
                keys: Arc::clone(&attached.keys),
                elsewhere: false,
            };
            Some((attached.id, published))
        };
        state.gateways.values().filter_map(of).collect()
    }

    /// Takes what is published for what is known of other sidecars' gateways.
    pub(in crate::sidecar) fn hear_of(&self, published: Vec<PublishedGateway>) {
        let remote = |published: PublishedGateway| {
            let id = published.description.id.clone();
            let expected = 0;
            let remote = Remote {
                published,
                expected,
            };
            (id, remote)
        };
        let others = published.into_iter().filter(|gateway| gateway.elsewhere);
        self.state().elsewhere = others.map(remote).collect();
        self.heard.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// What is attached here, each with its gateway.
    pub(in crate::sidecar) fn attachments(&self) -> Vec<(AttachmentId, GatewayId)> {
        let state = self.state();
        let all = state.by_attachment.iter();
        all.map(|(id, gateway)| (*id, gateway.clone())).collect()
    }

    /// The sessions that have a seat there; none any more if the attachment has ended.
    pub(in crate::sidecar) fn sessions_at(&self, id: AttachmentId) -> Vec<SessionId> {
        let mut state = self.state();
        let attached = state.attached(id);
        attached.map_or_else(Vec::new, |attached| attached.sessions().collect())
    }

    /// Its process has attached elsewhere since, or a newer one has: the stream here is to end.
    pub(in crate::sidecar) fn evict(&self, id: AttachmentId) {
        let mut state = self.state();
        if let Some(gateway) = state.by_attachment.get(&id).cloned() {
            state.detach_current(&gateway);
        }
        drop(state);
        self.changed();
    }
}

impl super::State {
    /// The gateways of other sidecars that are not attached here as well.
    pub(super) fn remote_ids(&self) -> impl Iterator<Item = &GatewayId> {
        let is_here = |id: &GatewayId| self.gateways.get(id).is_some_and(|g| g.attached.is_some());
        self.elsewhere.keys().filter(move |id| !is_here(id))
    }

    /// Whether another sidecar has told that the gateway has applied the log up to `revision`.
    pub(super) fn has_acknowledged_elsewhere(
        &self,
        gateway: &GatewayId,
        revision: Revision,
    ) -> bool {
        self.elsewhere
            .get(gateway)
            .is_some_and(|remote| remote.published.acknowledged >= revision)
    }
}
