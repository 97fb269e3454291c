//! Random ids.

use crate::{
    clock::Timestamp,
    id::{Lineage, PlayerId, SessionId},
};

use super::StoreError;

fn bits() -> Result<u128, StoreError> {
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
