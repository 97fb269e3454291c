//! A gateway with the demo world from its configuration.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    num::NonZeroU32,
    thread,
};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::RoleError;
use crate::{
    clock::Clock,
    config::{Activity, Config, Gateway as GatewaySection},
    control,
    demo::{self, Summary},
    gateway::{Gateway, GatewayConfig, Limits},
    rpc::{self, Role},
    seat::{ActivitySource, SeatConfig},
    tls::{self, Identity},
};

/// A running gateway, its control channel, and the demo world. Dropped, it ends all three, without waiting for the last two.
pub struct GatewayRole {
    // The fields are dropped in this order: the control channel goes on until the connections are closed.
    gateway: Gateway,
    stop: DropGuard,
    control: JoinHandle<control::gateway::Ended>,
    world: thread::JoinHandle<Summary>,
}

impl GatewayRole {
    /// Starts a gateway from `[gateway]`, `[seat]` and `[demo]`; it attaches itself as soon as the sidecar is there. Needs to be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`RoleError`]; nothing runs then.
    pub fn start(config: &Config, clock: Clock) -> Result<Self, RoleError> {
        config.check()?;
        let section = &config.gateway;
        let channel = {
            let ca = tls::load_certificates(&section.control.ca)?;
            let identity = Identity::load(&section.control.certificate, &section.control.key)?;
            ensure_own(section, &identity)?;
            let tls = tls::rpc_client_config(&ca, Some(&identity))?;
            rpc::connect(&section.control.sidecar.to_string(), None, Some(tls))?
        };
        let rate = NonZeroU32::new(config.demo.tick_hz).unwrap_or(demo::RATE);
        let (gateway, simulation) = Gateway::start(gateway_config(config, clock)?)?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let world = demo::spawn(simulation, rate, Clock::system(), stop.clone())
            .map_err(RoleError::World)?;
        let control = tokio::spawn(control::gateway::run(
            channel,
            gateway.host(),
            Clock::system(),
            stop,
        ));
        Ok(Self {
            gateway,
            stop: guard,
            control,
            world,
        })
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Closes all connections as drained and returns when everything has stopped.
    pub async fn shutdown(self) {
        let Self {
            gateway,
            stop,
            control,
            world,
        } = self;
        // Closing and joining threads takes a tick at the most, and the control channel goes on meanwhile.
        let closed = tokio::task::spawn_blocking(move || gateway.shutdown());
        if closed.await.is_err() {
            tracing::error!("the gateway's shutdown had panicked");
        }
        drop(stop);
        if control.await.is_err() {
            tracing::error!("the control channel had panicked");
        }
        let world = tokio::task::spawn_blocking(move || world.join());
        if !matches!(world.await, Ok(Ok(_))) {
            tracing::error!("the demo world had panicked");
        }
    }
}

/// Else the sidecar would refuse every attach, and only its log would say why.
fn ensure_own(section: &GatewaySection, identity: &Identity) -> Result<(), RoleError> {
    let role = identity.chain.first().and_then(Role::of_certificate);
    let names = match role {
        Some(Role::Gateway(id)) if id == section.id => return Ok(()),
        Some(Role::Gateway(id)) => format!("gateway {id}"),
        Some(Role::Admin(name)) => format!("admin {name}"),
        Some(Role::Backend(name)) => format!("backend {name}"),
        None => "nobody in particular (no URI SAN tickgate://gateway/<id>)".to_owned(),
    };
    Err(RoleError::OtherGateway {
        certificate: section.control.certificate.clone(),
        names,
        id: section.id.clone(),
    })
}

fn gateway_config(config: &Config, clock: Clock) -> Result<GatewayConfig, RoleError> {
    let section = &config.gateway;
    let identity = Identity::load(&section.certificate, &section.key)?;
    Ok(GatewayConfig {
        advertise: advertise(section).map_err(RoleError::Advertise)?,
        server_name: section.server_name.clone(),
        seats: SeatConfig {
            capacity: section.capacity,
            window: config.seat.window_ticks(config.demo.tick_hz),
            // Until the sidecar says what holds; nobody is admitted before.
            idle: config.session.idle,
            activity: match config.seat.activity {
                Activity::Input => ActivitySource::Input,
                Activity::Verify => ActivitySource::Verify,
            },
            ..SeatConfig::default()
        },
        limits: Limits {
            handshakes: section.max_handshakes as usize,
            awaiting_hello: section.max_awaiting_hello as usize,
            hello_timeout: section.hello_timeout,
            idle_timeout: section.idle_timeout,
            single_use: section.single_use_capacity as usize,
            admit_while_stale: section.control.admit_while_stale,
            message_backlog: section.message_backlog.bytes(),
            ..Limits::default()
        },
        socket_buffer: usize::try_from(section.socket_buffer.0).unwrap_or(usize::MAX),
        clock,
        ..GatewayConfig::new(section.id.clone(), section.listen, identity)
    })
}

/// What clients are told: what the configuration says; else the address bound, which an empty list stands for; or, where that is
/// no address of its own, this machine's on the way to the sidecar.
fn advertise(section: &GatewaySection) -> io::Result<Vec<SocketAddr>> {
    if !section.advertise.is_empty() || !section.listen.ip().is_unspecified() {
        return Ok(section.advertise.clone());
    }
    let host = section.control.sidecar.host().trim_matches(['[', ']']);
    // Connecting a UDP socket sends nothing; it asks the routing table.
    let probe = UdpSocket::bind((section.listen.ip(), 0))?;
    probe.connect((host, section.control.sidecar.port()))?;
    Ok(vec![SocketAddr::new(
        probe.local_addr()?.ip(),
        section.listen.port(),
    )])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{certs::DevCerts, config::SidecarUrl};

    #[tokio::test]
    async fn a_gateway_that_is_dropped_leaves_nothing_running() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default().into_development(directory.path(), true);
        // Nobody is there: the control channel tries again and again.
        config.gateway.control.sidecar = SidecarUrl::loopback(1);
        DevCerts::generate(std::slice::from_ref(&config.gateway.id))
            .unwrap()
            .write_to(&directory.path().join("certs"))
            .unwrap();
        // As drop does it, in the order of the fields, and then waits for what drop does not wait for.
        let GatewayRole {
            gateway,
            stop,
            control,
            world,
        } = GatewayRole::start(&config, Clock::system()).unwrap();
        drop(gateway);
        drop(stop);
        let ended = tokio::time::timeout(Duration::from_secs(10), control).await;
        assert_eq!(ended.unwrap().unwrap(), control::gateway::Ended::Cancelled);
        world.join().unwrap();
    }
}
