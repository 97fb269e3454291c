//! The attached gateways as operators, metrics and `explain` see them.

use crate::{
    control::GatewayDescription,
    id::{GatewayId, Revision, SessionId},
};

use super::Registry;

/// An attached gateway as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sidecar) struct Listed {
    pub(in crate::sidecar) description: GatewayDescription,
    pub(in crate::sidecar) seats: u32,
    pub(in crate::sidecar) revision: Revision,
    pub(in crate::sidecar) draining: bool,
}

/// Where a revision of the revocation log has arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::sidecar) struct Arrival {
    pub(in crate::sidecar) arrived: Vec<GatewayId>,
    /// Attached gateways that have not acknowledged it.
    pub(in crate::sidecar) outstanding: Vec<GatewayId>,
}

/// All gateways together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sidecar) struct Totals {
    pub(in crate::sidecar) attached: usize,
    pub(in crate::sidecar) draining: usize,
    /// Seats taken, by the gateways' own counts.
    pub(in crate::sidecar) seats: u64,
    /// What the slowest of them has acknowledged; none if there is none.
    pub(in crate::sidecar) acknowledged: Option<Revision>,
}

impl Registry {
    /// The attached gateways, by id.
    pub(in crate::sidecar) fn list(&self) -> Vec<Listed> {
        let state = self.state();
        let gateways = state.gateways.values();
        let mut listed: Vec<_> = gateways
            .filter_map(|gateway| {
                let attached = gateway.attached.as_ref()?;
                Some(Listed {
                    description: attached.description.clone(),
                    seats: attached.reported,
                    revision: attached.revision,
                    draining: gateway.is_draining(),
                })
            })
            .collect();
        listed.sort_by(|a, b| a.description.id.cmp(&b.description.id));
        listed
    }

    /// Whether the gateway is attached, or was not long ago.
    pub(in crate::sidecar) fn knows(&self, gateway: &GatewayId) -> bool {
        self.state().gateways.contains_key(gateway)
    }

    /// The attached gateways on which the session has a seat, by id.
    pub(in crate::sidecar) fn seats_of(&self, session: SessionId) -> Vec<GatewayId> {
        let state = self.state();
        let holders = state.seats.holders(session).iter();
        let mut gateways: Vec<_> = holders
            .filter_map(|id| state.by_attachment.get(id).cloned())
            .collect();
        gateways.sort();
        gateways
    }

    /// Which attached gateways have acknowledged `revision`, and which have not; by id.
    pub(in crate::sidecar) fn arrival(&self, revision: Revision) -> Arrival {
        let state = self.state();
        let attached = state.gateways.values().filter_map(|g| g.attached.as_ref());
        let mut arrival = Arrival::default();
        for attached in attached {
            let list = if attached.revision >= revision {
                &mut arrival.arrived
            } else {
                &mut arrival.outstanding
            };
            list.push(attached.description.id.clone());
        }
        arrival.arrived.sort();
        arrival.outstanding.sort();
        arrival
    }

    /// All gateways together.
    pub(in crate::sidecar) fn totals(&self) -> Totals {
        let state = self.state();
        let mut totals = Totals::default();
        for gateway in state.gateways.values() {
            let Some(attached) = &gateway.attached else {
                continue;
            };
            totals.attached += 1;
            totals.draining += usize::from(gateway.is_draining());
            totals.seats += u64::from(attached.reported);
            let slowest = totals.acknowledged.unwrap_or(attached.revision);
            totals.acknowledged = Some(slowest.min(attached.revision));
        }
        totals
    }
}
