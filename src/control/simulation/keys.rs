//! The model of the sidecar's master keys: their way through a rotation, and which of them seals for a gateway.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{super::CarriedKey, LEEWAY, TOKEN_LIFE};
use crate::{
    id::Incarnation,
    token::{KeyId, TransportKey},
};

/// How long after its last token a key is kept: until no clock takes one for good any more.
const KEPT: Duration = Duration::from_secs(TOKEN_LIFE.as_secs() + LEEWAY.as_secs());

pub(super) struct MasterKeys {
    pub(super) next: Option<u32>,
    pub(super) current: u32,
    pub(super) previous: Option<u32>,
    /// When each was last sealed with, or stopped being the current one.
    needed: BTreeMap<u32, Instant>,
}

/// What an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Published,
    Promoted,
    Retired,
}

impl MasterKeys {
    pub(super) fn new() -> Self {
        Self {
            next: None,
            current: 1,
            previous: None,
            needed: BTreeMap::new(),
        }
    }

    /// In the order in which a sidecar tells them.
    pub(super) fn epochs(&self) -> impl Iterator<Item = u32> {
        [Some(self.current), self.previous, self.next]
            .into_iter()
            .flatten()
    }

    /// The next step of a rotation, if its time has come; `held` are the keys of the gateway that is attached, if one is.
    pub(super) fn step(
        &mut self,
        now: Instant,
        attached: Option<(Incarnation, &[KeyId])>,
    ) -> Option<Step> {
        let holds = |epoch: u32| {
            attached.is_none_or(|(incarnation, held)| held.contains(&key_id(epoch, incarnation)))
        };
        match (self.next, self.previous) {
            (_, Some(previous)) => {
                let since = *self.needed.get(&previous)?;
                if now < since + KEPT || !holds(self.current) {
                    return None;
                }
                self.previous = None;
                Some(Step::Retired)
            }
            (Some(next), None) => holds(next).then(|| {
                self.promote(now, next);
                Step::Promoted
            }),
            (None, None) => {
                self.next = Some(self.current + 1);
                Some(Step::Published)
            }
        }
    }

    fn promote(&mut self, now: Instant, next: u32) {
        self.needed.insert(self.current, now);
        self.previous = Some(self.current);
        self.current = next;
        self.next = None;
    }

    /// What an operator does who waits for nobody.
    pub(super) fn rush(&mut self, now: Instant) {
        self.promote(now, self.current + 1);
    }

    /// Which key seals for a process that holds `held`.
    pub(super) fn sealing(
        &mut self,
        now: Instant,
        incarnation: Incarnation,
        held: &[KeyId],
    ) -> Option<u32> {
        let is_held = |epoch: &u32| held.is_empty() || held.contains(&key_id(*epoch, incarnation));
        let epoch = [Some(self.current), self.previous]
            .into_iter()
            .flatten()
            .find(is_held)?;
        self.needed.insert(epoch, now);
        Some(epoch)
    }
}

/// The key of a process: what is derived is of no meaning here, as long as no two are the same.
pub(super) fn carried(epoch: u32, incarnation: Incarnation) -> CarriedKey {
    CarriedKey {
        epoch,
        key: bytes(epoch, incarnation).to_vec().into(),
    }
}

/// Whose key it is, and of which epoch.
pub(super) fn process_of(carried: &CarriedKey) -> Option<(u32, Incarnation)> {
    let incarnation = *carried.key.first_chunk::<16>()?;
    Some((carried.epoch, Incarnation::from_bytes(incarnation)))
}

pub(super) fn key_id(epoch: u32, incarnation: Incarnation) -> KeyId {
    TransportKey::from_bytes(&bytes(epoch, incarnation)).id()
}

fn bytes(epoch: u32, incarnation: Incarnation) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&incarnation.to_bytes());
    bytes[28..].copy_from_slice(&epoch.to_be_bytes());
    bytes
}
