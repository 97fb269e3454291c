//! Which gateway a connect token is for.

use std::net::SocketAddr;

use crate::{control::GatewayDescription, id::GatewayId};

use super::{Registry, State, attached::Attached};

/// Which gateway a connect token shall be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sidecar) enum Target {
    Gateway(GatewayId),
    Address(SocketAddr),
    /// The least loaded.
    Any,
}

/// Why there is no gateway for a connect token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sidecar) enum NotFound {
    /// None is attached at all.
    Nothing,
    /// The one asked for was attached, and is not now: it is restarting, cut off, or gone.
    Away,
    /// It is attached and drains; asked for any, every one does.
    Draining,
    /// Not the one asked for.
    NotThat,
}

impl Registry {
    /// The gateway to mint a connect token for; the token counts towards its load at once.
    pub(in crate::sidecar) fn choose(
        &self,
        target: &Target,
    ) -> Result<GatewayDescription, NotFound> {
        let mut state = self.state();
        if state.gateways.values().all(|g| g.attached.is_none()) {
            return Err(NotFound::Nothing);
        }
        let was_attached = state.knows(target);
        let mut is_draining = false;
        let admitting = state.gateways.values_mut().filter_map(|gateway| {
            let draining = gateway.is_draining();
            let attached = gateway.attached.as_mut()?;
            let is_meant = match target {
                Target::Gateway(id) => attached.description.id == *id,
                Target::Address(address) => attached.description.addresses.contains(address),
                Target::Any => true,
            };
            is_draining |= is_meant && draining;
            (is_meant && !draining).then_some(attached)
        });
        let Some(chosen) = admitting.reduce(less_loaded) else {
            return Err(match (is_draining, was_attached) {
                (true, _) => NotFound::Draining,
                (false, true) => NotFound::Away,
                (false, false) => NotFound::NotThat,
            });
        };
        chosen.expected = chosen.expected.saturating_add(1);
        Ok(chosen.description.clone())
    }
}

impl State {
    /// Whether the gateway that `target` names is known, attached or not.
    fn knows(&self, target: &Target) -> bool {
        match target {
            Target::Gateway(id) => self.gateways.contains_key(id),
            Target::Address(address) => self
                .gateways
                .values()
                .any(|g| g.addresses.contains(address)),
            Target::Any => false,
        }
    }
}

impl Attached {
    /// Seats taken and about to be.
    fn load(&self) -> u64 {
        u64::from(self.reported) + u64::from(self.expected)
    }

    /// Less loaded than `other`, in proportion to capacity: a/b < c/d without division.
    fn is_less_loaded_than(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.description.capacity, other.description.capacity);
        self.load().saturating_mul(theirs.into()) < other.load().saturating_mul(ours.into())
    }
}

/// Of two attachments the one that a token should go to.
fn less_loaded<'a>(a: &'a mut Attached, b: &'a mut Attached) -> &'a mut Attached {
    let tie = !a.is_less_loaded_than(b) && !b.is_less_loaded_than(a);
    // Ties go by id, so that the same state gives the same answer.
    let first = a.is_less_loaded_than(b) || (tie && a.description.id < b.description.id);
    if first { a } else { b }
}
