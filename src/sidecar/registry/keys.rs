//! Which transport keys the gateways hold, and who is to be told of others.

use std::sync::Arc;

use crate::{
    control::AttachmentId,
    id::{GatewayId, Incarnation},
    token::KeyId,
};

use super::Registry;

/// A gateway process and the transport keys that it has said it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sidecar) struct Holder {
    pub(in crate::sidecar) gateway: GatewayId,
    pub(in crate::sidecar) incarnation: Incarnation,
    pub(in crate::sidecar) keys: Arc<[KeyId]>,
}

impl Registry {
    /// A gateway holds these keys now, and no others.
    pub(in crate::sidecar) fn keys_held(&self, id: AttachmentId, keys: Vec<KeyId>) {
        if let Some(attached) = self.state().attached(id) {
            attached.keys = keys.into();
        }
        self.changed();
    }

    /// The keys have changed: every gateway that is attached here is to be told its own anew.
    pub(in crate::sidecar) fn renew_keys(&self) {
        let mut state = self.state();
        for attached in state
            .gateways
            .values_mut()
            .filter_map(|g| g.attached.as_mut())
        {
            attached.keys_wanted = true;
            attached.orders.notify_one();
        }
    }

    /// The process whose keys the attachment is to be told, once.
    pub(in crate::sidecar) fn take_key_order(
        &self,
        id: AttachmentId,
    ) -> Option<(GatewayId, Incarnation)> {
        let mut state = self.state();
        let attached = state.attached(id)?;
        let description = &attached.description;
        std::mem::take(&mut attached.keys_wanted)
            .then(|| (description.id.clone(), description.incarnation))
    }

    /// Every gateway that is attached, to whichever sidecar, with the keys that it holds; by id.
    pub(in crate::sidecar) fn key_holders(&self) -> Vec<Holder> {
        let state = self.state();
        let here = state.gateways.values().filter_map(|gateway| {
            let attached = gateway.attached.as_ref()?;
            Some((&attached.description, &attached.keys))
        });
        let elsewhere = state.remote_ids().filter_map(|id| {
            let remote = state.elsewhere.get(id)?;
            Some((&remote.published.description, &remote.published.keys))
        });
        let holders = here.chain(elsewhere).map(|(description, keys)| Holder {
            gateway: description.id.clone(),
            incarnation: description.incarnation,
            keys: Arc::clone(keys),
        });
        let mut holders: Vec<_> = holders.collect();
        holders.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        holders
    }
}
