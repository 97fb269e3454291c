//! Which gateway a connect token is for.

use std::{net::SocketAddr, sync::Arc};

use crate::{control::GatewayDescription, id::GatewayId, token::KeyId};

use super::{Registry, State, attached::Attached, elsewhere::Remote};

/// Which gateway a connect token shall be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sidecar) enum Target {
    Gateway(GatewayId),
    Address(SocketAddr),
    /// The least loaded.
    Any,
}

/// The gateway that a connect token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sidecar) struct Chosen {
    pub(in crate::sidecar) description: GatewayDescription,
    /// The transport keys that it holds, as far as it has told: none before its first answer.
    pub(in crate::sidecar) keys: Arc<[KeyId]>,
}

/// Why there is no gateway for a connect token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sidecar) enum NotFound {
    /// None is attached at all, to any sidecar over the same store.
    Nothing,
    /// The one asked for was attached, and is not now: it is restarting, cut off, or gone.
    Away,
    /// It is attached and drains; asked for any, every one does.
    Draining,
    /// Not the one asked for.
    NotThat,
}

impl Registry {
    /// The gateway to mint a connect token for, whichever sidecar it is attached to; the token counts towards its load at once.
    pub(in crate::sidecar) fn choose(&self, target: &Target) -> Result<Chosen, NotFound> {
        let mut guard = self.state();
        let state = &mut *guard;
        let is_any_here = state.gateways.values().any(|g| g.attached.is_some());
        if !is_any_here && state.elsewhere.is_empty() {
            return Err(NotFound::Nothing);
        }
        let was_attached = state.knows(target);
        let mut is_draining = false;
        let mut candidates = Vec::new();
        for gateway in state.gateways.values_mut() {
            let draining = gateway.is_draining();
            if let Some(attached) = &mut gateway.attached
                && target.means(&attached.description)
            {
                // It is here, whatever is told of it elsewhere.
                state.elsewhere.remove(&attached.description.id);
                match draining {
                    true => is_draining = true,
                    false => candidates.push(Candidate::of_ours(attached)),
                }
            }
        }
        for remote in state.elsewhere.values_mut() {
            if target.means(&remote.published.description) {
                match remote.published.draining {
                    true => is_draining = true,
                    false => candidates.push(Candidate::of_others(remote)),
                }
            }
        }
        let Some(chosen) = candidates.into_iter().reduce(Candidate::less_loaded) else {
            return Err(match (is_draining, was_attached) {
                (true, _) => NotFound::Draining,
                (false, true) => NotFound::Away,
                (false, false) => NotFound::NotThat,
            });
        };
        *chosen.expected = chosen.expected.saturating_add(1);
        Ok(Chosen {
            description: chosen.description.clone(),
            keys: Arc::clone(chosen.keys),
        })
    }
}

impl Target {
    fn means(&self, gateway: &GatewayDescription) -> bool {
        match self {
            Self::Gateway(id) => gateway.id == *id,
            Self::Address(address) => gateway.addresses.contains(address),
            Self::Any => true,
        }
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

/// A gateway that a token may go to.
struct Candidate<'a> {
    description: &'a GatewayDescription,
    keys: &'a Arc<[KeyId]>,
    /// Seats taken, by its own count.
    reported: u32,
    /// Tokens minted since that count.
    expected: &'a mut u32,
}

impl<'a> Candidate<'a> {
    fn of_ours(attached: &'a mut Attached) -> Self {
        Self {
            description: &attached.description,
            keys: &attached.keys,
            reported: attached.reported,
            expected: &mut attached.expected,
        }
    }

    fn of_others(remote: &'a mut Remote) -> Self {
        Self {
            description: &remote.published.description,
            keys: &remote.published.keys,
            reported: remote.published.seats,
            expected: &mut remote.expected,
        }
    }

    /// Seats taken and about to be.
    fn load(&self) -> u64 {
        u64::from(self.reported) + u64::from(*self.expected)
    }

    /// Less loaded than `other`, in proportion to capacity: a/b < c/d without division.
    fn is_less_loaded_than(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.description.capacity, other.description.capacity);
        self.load().saturating_mul(theirs.into()) < other.load().saturating_mul(ours.into())
    }

    /// Of two the one that a token should go to.
    fn less_loaded(self, other: Self) -> Self {
        let tie = !self.is_less_loaded_than(&other) && !other.is_less_loaded_than(&self);
        // Ties go by id, so that the same state gives the same answer.
        let first =
            self.is_less_loaded_than(&other) || (tie && self.description.id < other.description.id);
        if first { self } else { other }
    }
}
