//! gRPC over TLS: listeners and channels whose identity and provider are ours to choose, and who the peer is.

use std::net::SocketAddr;

use crate::id::GatewayId;

/// What a certificate's URI SAN (`tickgate://<role>/<name>`) says its holder is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// A gateway, by id.
    Gateway(GatewayId),
    /// An operator, by name.
    Admin(String),
    /// A game's backend, by name.
    Backend(String),
}

/// The caller of a gRPC request: found in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where the call comes from.
    pub address: SocketAddr,
    /// Who the caller's certificate says it is; none without a verified certificate.
    pub role: Option<Role>,
}

/// Who sent this request, if the listener noted it.
pub fn peer<T>(request: &tonic::Request<T>) -> Option<Peer> {
    request.extensions().get::<Peer>().cloned()
}
