//! The control streams whose gateway has not been answered yet: one of each gateway.
//!
//! Until it is answered a stream is in nobody's books but holds what its gateway has said of its seats, up to some 50 MB. So a gateway
//! that opens one stream after the other has the last of them heard, and no more memory than one of them takes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::id::GatewayId;

/// Who is being heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Openings(Arc<Mutex<HashMap<GatewayId, Arc<CancellationToken>>>>);

/// One stream's turn; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    openings: Openings,
    gateway: GatewayId,
    replaced: Arc<CancellationToken>,
}

impl Openings {
    /// The turn of a new stream of the gateway, which ends that of an older one.
    pub(super) fn begin(&self, gateway: GatewayId) -> Turn {
        let replaced = Arc::new(CancellationToken::new());
        let older = self.lock().insert(gateway.clone(), Arc::clone(&replaced));
        if let Some(older) = older {
            older.cancel();
        }
        Turn {
            openings: self.clone(),
            gateway,
            replaced,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GatewayId, Arc<CancellationToken>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Resolves when a newer stream of the gateway has begun.
    pub(super) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut openings = self.openings.lock();
        // Not that of a newer stream.
        if openings
            .get(&self.gateway)
            .is_some_and(|current| Arc::ptr_eq(current, &self.replaced))
        {
            openings.remove(&self.gateway);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_stream_of_a_gateway_ends_the_older_ones_turn() {
        let openings = Openings::default();
        let [eu, us] = ["eu", "us"].map(|id| id.parse::<GatewayId>().unwrap());
        let first = openings.begin(eu.clone());
        let other = openings.begin(us);
        let second = openings.begin(eu.clone());
        assert!(first.replaced.is_cancelled());
        assert!(!second.replaced.is_cancelled() && !other.replaced.is_cancelled());
        // The older one's end is not the newer one's.
        drop(first);
        assert_eq!(openings.lock().len(), 2);
        let third = openings.begin(eu);
        assert!(second.replaced.is_cancelled());
        drop((second, third, other));
        assert!(openings.lock().is_empty());
    }
}
