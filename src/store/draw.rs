//! Random ids.

use crate::{
    clock::Timestamp,
    id::{Lineage, PlayerId, SessionId},
};

use super::StoreError;

fn bits() -> Result<u128, StoreError> {
    #[cfg(test)]
    if let Some(bits) = seeded::bits() {
        return Ok(bits);
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Randomness)?;
    Ok(u128::from_be_bytes(bytes))
}

/// A ULID: 48 bits of time, 80 random ones. Sessions made one after the other lie side by side in the store.
pub(super) fn session_id(at: Timestamp) -> Result<SessionId, StoreError> {
    Ok(SessionId(ulid::Ulid::from_parts(at.0, bits()?).0))
}

pub(super) fn player_id() -> Result<PlayerId, StoreError> {
    bits().map(PlayerId)
}

/// Tells a sidecar's store from those of the others.
#[cfg(feature = "redis")]
pub(super) fn sidecar() -> Result<String, StoreError> {
    bits().map(|bits| format!("{bits:032x}"))
}

pub(super) fn lineage() -> Result<Lineage, StoreError> {
    bits().map(Lineage)
}

/// Ids from a seed, for tests that have to do the same twice: each thread draws from its own, and from the system if it has none.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    thread_local! {
        static DRAWS: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
    }

    /// From now on this thread draws from `seed`; none: from the system.
    pub(crate) fn adopt(seed: Option<u64>) {
        DRAWS.set(seed.map(ChaCha8Rng::seed_from_u64));
    }

    /// A seed for another thread, if this one has one.
    pub(crate) fn fork() -> Option<u64> {
        DRAWS.with_borrow_mut(|draws| draws.as_mut().map(Rng::random))
    }

    pub(super) fn bits() -> Option<u128> {
        DRAWS.with_borrow_mut(|draws| draws.as_mut().map(Rng::random))
    }
}
