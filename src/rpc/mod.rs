//! gRPC over TLS: listeners and channels whose identity and provider are ours to choose, and who the peer is.
//!
//! tonic's own TLS takes the process-wide provider and one identity for ever. Here a listener accepts with tokio-rustls and hands
//! its connections to `serve_with_incoming`, so that its certificate can be replaced while it runs ([`listen`]); a channel dials
//! through a connector of ours ([`connect`]). Who a caller is says its certificate ([`peer`]).

mod connect;
mod explained;
mod listen;
mod shares;

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;

pub use connect::{RpcError, connect, connect_with};
pub use explained::{AWAY, explained, whole_seconds};
pub use listen::{RpcStream, listen, listen_sharing};
pub use shares::{Exempt, network_of};
/// What [`connect`] gives and the callers of services take.
pub use tonic::transport::Channel;

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

impl Role {
    /// The role as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Admin(_) => "admin",
            Self::Backend(_) => "backend",
        }
    }

    /// The role that a certificate names, which must have been verified before. None if it names none, or more than one.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut ours = certificate
            .valid_uri_names()
            .filter(|name| name.starts_with(ROLE_SCHEME));
        let role = Self::from_uri(ours.next()?);
        // Which of two it should be is not for us to guess.
        if ours.next().is_some() { None } else { role }
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let (role, name) = uri.strip_prefix(ROLE_SCHEME)?.split_once('/')?;
        match role {
            "gateway" => Some(Self::Gateway(name.parse().ok()?)),
            "admin" => Some(Self::Admin(plain_name(name)?)),
            "backend" => Some(Self::Backend(plain_name(name)?)),
            _ => None,
        }
    }
}

/// What role URIs start with. Compared byte by byte: certificates are made by tools, which need no second spelling.
const ROLE_SCHEME: &str = "tickgate://";

/// Names of operators and backends stand in logs and metrics: 1 to 63 letters, digits, '-', '.', '_'.
fn plain_name(name: &str) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    ((1..=63).contains(&name.len()) && name.bytes().all(allowed)).then(|| name.into())
}

/// The caller of a gRPC request: found in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where the call comes from.
    pub address: SocketAddr,
    /// Who the caller's certificate says it is; none without a verified certificate.
    pub role: Option<Role>,
}

/// Who sent `request`. None if it did not come through [`listen`].
pub fn peer<T>(request: &tonic::Request<T>) -> Option<Peer> {
    request.extensions().get().cloned()
}

#[cfg(test)]
#[cfg(feature = "certs")]
mod tests;
