//! Other keys for a sidecar that runs.

use std::{fmt, sync::Arc};

use super::{
    Sidecar,
    audit::{self, Event},
    keys::{InvalidKeys, Keys, TokenKeys},
    registry::Registry,
};

/// What the keys are changed with.
pub(super) struct Reloading {
    pub(super) keys: Arc<Keys>,
    pub(super) registry: Arc<Registry>,
}

impl fmt::Debug for Reloading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").finish_non_exhaustive()
    }
}

impl Sidecar {
    /// Seals and opens tokens with these keys from now on; every gateway is told its own of them. A gateway that does not hold the current
    /// transport key yet goes on getting tokens under the one before, and tokens under a key that is none of these any more are refused
    /// as of an unknown key. Whether anything has changed.
    ///
    /// # Errors
    /// [`InvalidKeys`]: then nothing changes.
    pub fn replace_keys(&self, keys: TokenKeys) -> Result<bool, InvalidKeys> {
        let Reloading {
            keys: live,
            registry,
        } = &self.reloading;
        if !live.replace(keys)? {
            return Ok(false);
        }
        audit::record(Event::KeysReplaced);
        // Whoever attaches from here on is answered with the new ones.
        registry.renew_keys();
        for known in live.known() {
            let (purpose, role, key) = (known.purpose.label(), known.role.label(), known.id);
            tracing::info!(purpose, role, %key, epoch = known.epoch, "token key in force");
        }
        Ok(true)
    }
}
