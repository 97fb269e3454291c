//! Published gateways in memory, for a store that one sidecar has to itself.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Fencing, Publication, PublishedGateway};
use crate::{
    clock::Timestamp,
    id::{GatewayId, Incarnation},
};

/// What has been published, and until when.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<BTreeMap<GatewayId, (Timestamp, PublishedGateway)>>);

impl Leases {
    /// `fencing` is what is known of the process: one that never attached is no newest one.
    pub(super) fn publish(
        &self,
        fencing: Option<Fencing>,
        gateway: PublishedGateway,
        until: Timestamp,
    ) -> Publication {
        if fencing != Some(Fencing::Newest) {
            return Publication::Fenced;
        }
        let gateway = PublishedGateway {
            elsewhere: false,
            ..gateway
        };
        let id = gateway.description.id.clone();
        self.published().insert(id, (until, gateway));
        Publication::Published
    }

    pub(super) fn withdraw(&self, gateway: &GatewayId, incarnation: Incarnation) {
        let mut published = self.published();
        let is_that = published
            .get(gateway)
            .is_some_and(|(_, known)| known.description.incarnation == incarnation);
        if is_that {
            published.remove(gateway);
        }
    }

    pub(super) fn list(&self, at: Timestamp) -> Vec<PublishedGateway> {
        let mut published = self.published();
        published.retain(|_, (until, _)| at < *until);
        published.values().map(|(_, known)| known.clone()).collect()
    }

    fn published(&self) -> MutexGuard<'_, BTreeMap<GatewayId, (Timestamp, PublishedGateway)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
