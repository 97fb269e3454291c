//! From the configuration to what a role starts with: files are read here, once.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
};

use thiserror::Error;

use super::{Activity, Config, SidecarUrl};
use crate::{
    clock::Clock,
    gateway::{GatewayConfig, Limits},
    seat::{ActivitySource, SeatConfig},
    tls::{self, Identity, TlsError},
};

/// Why a role cannot start with this configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RoleError {
    /// A certificate or key that a key of the configuration names cannot be used.
    #[error("{key} cannot be used")]
    Tls {
        /// The key, with its sections; for a pair of files, that of the certificate.
        key: &'static str,
        /// Why.
        source: Box<TlsError>,
    },
    /// The machine's own address on the way to the sidecar is not to be found out.
    #[error(
        "gateway.advertise is empty, and no address of this machine leads to the sidecar at {sidecar}"
    )]
    NoAddress {
        /// The sidecar.
        sidecar: SidecarUrl,
        /// What the system says.
        source: io::Error,
    },
}

impl RoleError {
    /// A fixed name of the kind of error.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tls { .. } => "role_tls",
            Self::NoAddress { .. } => "role_no_address",
        }
    }
}

fn of(key: &'static str) -> impl Fn(TlsError) -> RoleError {
    move |source| RoleError::Tls {
        key,
        source: Box::new(source),
    }
}

impl Config {
    /// What the gateway starts with. Reads its QUIC certificate and key.
    ///
    /// # Errors
    /// [`RoleError`].
    pub fn gateway_role(&self, clock: Clock) -> Result<GatewayConfig, RoleError> {
        let Self {
            session,
            gateway,
            seat,
            demo,
            ..
        } = self;
        let identity = Identity::load(&gateway.certificate, &gateway.key)
            .map_err(of("gateway.certificate"))?;
        let advertise = gateway
            .advertised()
            .map_err(|source| RoleError::NoAddress {
                sidecar: gateway.control.sidecar.clone(),
                source,
            })?;
        let seats = SeatConfig {
            capacity: gateway.capacity,
            window: seat.window_ticks(demo.tick_hz),
            // Until the sidecar says which idle timeout is in force.
            idle: session.idle,
            activity: seat.activity.into(),
        };
        let limits = Limits {
            handshakes: size(gateway.max_handshakes),
            awaiting_hello: size(gateway.max_awaiting_hello),
            hello_timeout: gateway.hello_timeout,
            idle_timeout: gateway.idle_timeout,
            single_use: size(gateway.single_use_capacity),
            admit_while_stale: gateway.control.admit_while_stale,
            message_backlog: gateway.message_backlog.bytes(),
            ..Limits::default()
        };
        Ok(GatewayConfig {
            id: gateway.id.clone(),
            listen: gateway.listen,
            advertise,
            server_name: gateway.server_name.clone(),
            identity,
            seats,
            limits,
            socket_buffer: gateway.socket_buffer.bytes(),
            clock,
        })
    }

    /// How the gateway speaks TLS to the sidecar: whom it believes, and as whom. Reads those certificates and the key.
    ///
    /// # Errors
    /// [`RoleError::Tls`].
    pub fn control_tls(&self) -> Result<rustls::ClientConfig, RoleError> {
        let control = &self.gateway.control;
        let ca = tls::load_certificates(&control.ca).map_err(of("gateway.control.ca"))?;
        let identity = Identity::load(&control.certificate, &control.key)
            .map_err(of("gateway.control.certificate"))?;
        tls::rpc_client_config(&ca, Some(&identity)).map_err(of("gateway.control.certificate"))
    }
}

impl From<Activity> for ActivitySource {
    fn from(activity: Activity) -> Self {
        match activity {
            Activity::Input => Self::Input,
            Activity::Verify => Self::Verify,
        }
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl super::Gateway {
    /// The addresses that clients are told: those configured, or this machine's address on the way to the sidecar where the gateway
    /// listens on every address. Empty when the address bound will do.
    ///
    /// # Errors
    /// What the system says when no way leads to the sidecar, or its name does not resolve. Nothing is sent there.
    pub fn advertised(&self) -> io::Result<Vec<SocketAddr>> {
        if !self.advertise.is_empty() || !self.listen.ip().is_unspecified() {
            return Ok(self.advertise.clone());
        }
        let sidecar = &self.control.sidecar;
        let mut nowhere = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for target in format!("{}:{}", sidecar.host(), sidecar.port()).to_socket_addrs()? {
            match address_towards(target) {
                Ok(ip) => return Ok(vec![SocketAddr::new(ip, self.listen.port())]),
                Err(error) => nowhere = error,
            }
        }
        Err(nowhere)
    }
}

/// This machine's address on the way to `target`. Connecting a UDP socket looks up the route and sends nothing.
fn address_towards(target: SocketAddr) -> io::Result<std::net::IpAddr> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{certs::DevCerts, gateway::DEFAULT_SOCKET_BUFFER};

    #[test]
    fn the_defaults_are_the_gateways_own() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::default().into_development(directory.path(), false);
        let certs = DevCerts::generate(std::slice::from_ref(&config.gateway.id)).unwrap();
        certs.write_to(&directory.path().join("certs")).unwrap();
        let role = config.gateway_role(Clock::system()).unwrap();
        let own = GatewayConfig::new(role.id.clone(), role.listen, role.identity.clone());
        assert_eq!(role.limits, Limits::default());
        assert_eq!(role.seats, SeatConfig::default());
        assert_eq!(role.server_name, own.server_name);
        assert_eq!(role.socket_buffer, DEFAULT_SOCKET_BUFFER);
        assert!(config.control_tls().is_ok());
    }

    #[test]
    fn a_missing_certificate_is_named_by_its_key() {
        let config = Config::default().into_development(Path::new("/nonexistent"), false);
        let error = config.gateway_role(Clock::system()).unwrap_err();
        assert_eq!(error.to_string(), "gateway.certificate cannot be used");
        let error = config.control_tls().unwrap_err();
        assert_eq!(error.to_string(), "gateway.control.ca cannot be used");
    }

    #[test]
    fn a_gateway_on_every_address_tells_the_one_towards_the_sidecar() {
        let mut gateway = Config::default().gateway;
        assert_eq!(
            gateway.advertised().unwrap(),
            ["127.0.0.1:7777".parse().unwrap()]
        );
        gateway.listen = "127.0.0.1:0".parse().unwrap();
        assert_eq!(gateway.advertised().unwrap(), []);
        gateway.advertise = vec!["203.0.113.7:7777".parse().unwrap()];
        assert_eq!(gateway.advertised().unwrap(), gateway.advertise);
    }
}
