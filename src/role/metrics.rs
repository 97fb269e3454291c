//! A role's metrics and health over HTTP.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::RoleError;
use crate::admin::{self, Source};

/// Where a role will tell of itself: bound before the role starts, so that a role whose port is taken does not start.
pub(super) struct MetricsPort {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
}

impl MetricsPort {
    /// Binds `address`, if there is one. Needs to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`RoleError::Metrics`].
    pub(super) fn bind(address: Option<SocketAddr>) -> Result<Option<Self>, RoleError> {
        let Some(address) = address else {
            return Ok(None);
        };
        let bound = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Ok(Self { listener, address })
        };
        bound()
            .map(Some)
            .map_err(|source| RoleError::Metrics { address, source })
    }

    /// Tells of `source` from now on.
    pub(super) fn serve(self, source: Arc<dyn Source>) -> MetricsServer {
        let Self { listener, address } = self;
        let stop = CancellationToken::new();
        let task = tokio::spawn(admin::serve(listener, source, stop.clone()));
        MetricsServer {
            address,
            stop: stop.drop_guard(),
            task,
        }
    }
}

/// A server of metrics and health. Dropped, it ends without being waited for.
pub(super) struct MetricsServer {
    address: SocketAddr,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl MetricsServer {
    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub(super) async fn shutdown(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::error!("the server of metrics and health had panicked");
        }
    }
}
