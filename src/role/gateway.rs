//! A gateway with the demo world from its configuration.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    num::NonZeroU32,
    thread,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::RoleError;
use crate::{
    clock::Clock,
    config::{Activity, Config, Gateway as GatewaySection},
    control,
    demo::{self, Summary},
    gateway::{Gateway, GatewayConfig, Limits},
    rpc,
    seat::{ActivitySource, SeatConfig},
    tls::{self, Identity},
};

/// A running gateway, its control channel, and the demo world.
pub struct GatewayRole {
    gateway: Gateway,
    stop: CancellationToken,
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
        let section = &config.gateway;
        let channel = {
            let ca = tls::load_certificates(&section.control.ca)?;
            let identity = Identity::load(&section.control.certificate, &section.control.key)?;
            let tls = tls::rpc_client_config(&ca, Some(&identity))?;
            rpc::connect(&section.control.sidecar.to_string(), None, Some(tls))?
        };
        let rate = NonZeroU32::new(config.demo.tick_hz).unwrap_or(demo::RATE);
        let (gateway, simulation) = Gateway::start(gateway_config(config, clock)?)?;
        let stop = CancellationToken::new();
        let world = demo::spawn(simulation, rate, Clock::system(), stop.clone())
            .map_err(RoleError::World)?;
        let control = tokio::spawn(control::gateway::run(
            channel,
            gateway.host(),
            Clock::system(),
            stop.clone(),
        ));
        Ok(Self {
            gateway,
            stop,
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
        stop.cancel();
        if control.await.is_err() {
            tracing::error!("the control channel had panicked");
        }
        let world = tokio::task::spawn_blocking(move || world.join());
        if !matches!(world.await, Ok(Ok(_))) {
            tracing::error!("the demo world had panicked");
        }
    }
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
