//! A gateway with the demo world from its configuration.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    num::{NonZeroU8, NonZeroU32},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Asked, Reread, RoleError,
    files::Files,
    make_parent_directory,
    metrics::{MetricsPort, MetricsServer},
    run::{Changeable, told_of},
};
use crate::{
    admin::{FileGroup, FileHealth, WithFiles},
    clock::Clock,
    config::{self, Activity, Config, Gateway as GatewaySection},
    control,
    demo::{self, Summary},
    gateway::{Gateway, GatewayConfig, Limits, SeatRates},
    rpc::{self, Role},
    seat::{ActivitySource, SamePlayer, SeatConfig},
    tls::{self, Identity, TlsError},
};

/// What a gateway changes while it runs: the certificates that players and the sidecar see, and how long players may stay when it ends.
const CHANGEABLE: Changeable = Changeable {
    of_others: &["sidecar"],
    keys: &[
        "gateway.certificate",
        "gateway.key",
        "gateway.next_certificate",
        "gateway.next_key",
        "gateway.drain",
        "gateway.control.ca",
        "gateway.control.certificate",
        "gateway.control.key",
    ],
};

/// How much longer than its deadline a drain is waited for: the gateway closes by its own clock and needs a moment for it.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Runs a gateway with the demo world until it is asked to end; then those in play may stay for `[gateway] drain`.
///
/// # Errors
/// [`RoleError::Fenced`] when another process of the same gateway has taken its place: everybody here was closed as drained, and finds
/// that one. Other [`RoleError`]s when it cannot start.
pub async fn run_gateway(
    config: Config,
    asked: &Asked,
    reread: &dyn Reread,
) -> Result<(), RoleError> {
    let mut running = config;
    let mut files = Files::watch([watched(&running)]);
    let gateway = GatewayRole::start(&running, Clock::system())?;
    let mut is_fenced = false;
    loop {
        tokio::select! {
            biased;
            () = asked.stop.cancelled() => break,
            () = asked.stop_now.cancelled() => break,
            () = gateway.fenced() => {
                is_fenced = true;
                break;
            }
            () = asked.reload.notified() => {
                CHANGEABLE.reload(&mut running, reread, |new| gateway.reload(new));
                files.follow([watched(&running)]);
            }
            _ = files.changed() => gateway.reload_changed(&running),
        }
    }
    if !is_fenced {
        tokio::select! {
            biased;
            () = asked.stop_now.cancelled() => {}
            // Its successor is up already: nobody needs to wait here.
            () = gateway.fenced() => {}
            () = gateway.drain(running.gateway.drain) => {}
        }
    }
    gateway.shutdown().await;
    if is_fenced {
        return Err(RoleError::Fenced(running.gateway.id));
    }
    Ok(())
}

/// A running gateway, its control channel, and the demo world. Dropped, it ends all three, without waiting for the last two.
pub struct GatewayRole {
    // The fields are dropped in this order: the control channel goes on until the connections are closed.
    gateway: Gateway,
    files: Arc<FileHealth>,
    /// What the sidecar is shown, and whom it has to be signed by.
    to_sidecar: Arc<ArcSwap<rustls::ClientConfig>>,
    metrics: Option<MetricsServer>,
    stop: DropGuard,
    /// Cancelled when the sidecar has sent this process away for good.
    fenced: CancellationToken,
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
        let to_sidecar = Arc::new(ArcSwap::from_pointee(control_tls(section)?));
        let channel = {
            let tls = Some(Arc::clone(&to_sidecar));
            rpc::connect_with(&section.control.sidecar.to_string(), None, tls)?
        };
        let port = MetricsPort::bind(section.metrics_listen)?;
        let rate = NonZeroU32::new(config.demo.tick_hz).unwrap_or(demo::RATE);
        let (gateway, simulation) = Gateway::start(gateway_config(config, clock)?)?;
        let files = Arc::new(FileHealth::default());
        let told = WithFiles::new(gateway.metrics(), Arc::clone(&files), "gateway");
        let metrics = port.map(|port| port.serve(Arc::new(told)));
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let world = demo::spawn(simulation, rate, Clock::system(), stop.clone())
            .map_err(RoleError::World)?;
        let fenced = CancellationToken::new();
        let (host, to_fence) = (gateway.host(), fenced.clone());
        let control = tokio::spawn(async move {
            let ended = control::gateway::run(channel, host, Clock::system(), stop).await;
            if ended == control::gateway::Ended::Fenced {
                to_fence.cancel();
            }
            ended
        });
        tracing::info!(gateway = %gateway.id(), address = %gateway.local_addr(), "gateway is listening");
        if let Some(metrics) = &metrics {
            tracing::info!(address = %metrics.address(), "the gateway tells metrics and health");
        }
        Ok(Self {
            gateway,
            files,
            to_sidecar,
            metrics,
            stop: guard,
            fenced,
            control,
            world,
        })
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Where it tells metrics and health.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Returns when the sidecar has sent this process away for good, since another one of the same gateway has attached.
    pub async fn fenced(&self) {
        self.fenced.cancelled().await;
    }

    /// Admits nobody any more, and returns when nobody is in any more: all have left, or `within` is over and they were closed.
    pub async fn drain(&self, within: Duration) {
        self.gateway.drain(within);
        let drained = self.gateway.drained();
        if tokio::time::timeout(within + DRAIN_SLACK, drained)
            .await
            .is_err()
        {
            tracing::warn!("the gateway has not drained in time; who is left is closed now");
        }
    }

    /// Announces the certificate that `config` names, the next one if there is one, and serves it when everybody who connects has
    /// heard of it. Nothing happens for one that is announced or served already. The sidecar is shown the control certificate that
    /// `config` names when the channel to it is next made; the one that is up stays.
    ///
    /// # Errors
    /// [`RoleError::Tls`] or [`RoleError::OtherGateway`]; nothing has changed then.
    pub fn reload(&self, config: &Config) -> Result<(), RoleError> {
        let reloaded = self.put_in_force(&config.gateway);
        match &reloaded {
            Ok(()) => self.files.loaded(FileGroup::Certificates),
            Err(_) => self.files.refused(FileGroup::Certificates),
        }
        reloaded
    }

    /// The same when files have changed. If what they hold cannot be used, what was in force before stays so, and the log, a metric and
    /// `/ready` say it.
    pub fn reload_changed(&self, config: &Config) {
        let reloaded = self.put_in_force(&config.gateway);
        told_of(FileGroup::Certificates, &self.files, reloaded);
    }

    fn put_in_force(&self, section: &GatewaySection) -> Result<(), RoleError> {
        let to_sidecar = control_tls(section)?;
        // Both must be usable: the present one is what the next start begins with.
        let identity = Identity::load(&section.certificate, &section.key)?;
        let identity = next_identity(section)?.unwrap_or(identity);
        self.gateway.rotate_certificate(identity)?;
        self.to_sidecar.store(Arc::new(to_sidecar));
        Ok(())
    }

    /// Closes all connections as drained and returns when everything has stopped.
    pub async fn shutdown(self) {
        let Self {
            gateway,
            files: _,
            to_sidecar: _,
            metrics,
            stop,
            fenced: _,
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
        if let Some(metrics) = metrics {
            metrics.shutdown().await;
        }
    }
}

/// The files of a gateway that may change while it runs.
pub(super) fn watched(config: &Config) -> (FileGroup, Vec<PathBuf>) {
    let section = &config.gateway;
    let control = &section.control;
    let files = [&section.certificate, &section.key]
        .into_iter()
        .chain(&section.next_certificate)
        .chain(&section.next_key)
        .chain([&control.ca, &control.certificate, &control.key]);
    (FileGroup::Certificates, files.cloned().collect())
}

/// How the sidecar is called.
fn control_tls(section: &GatewaySection) -> Result<rustls::ClientConfig, RoleError> {
    let ca = tls::load_certificates(&section.control.ca)?;
    let identity = Identity::load(&section.control.certificate, &section.control.key)?;
    ensure_own(section, &identity)?;
    Ok(tls::rpc_client_config(&ca, Some(&identity))?)
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

fn next_identity(section: &GatewaySection) -> Result<Option<Identity>, TlsError> {
    let files = section
        .next_certificate
        .as_ref()
        .zip(section.next_key.as_ref());
    files
        .map(|(certificate, key)| Identity::load(certificate, key))
        .transpose()
}

fn gateway_config(config: &Config, clock: Clock) -> Result<GatewayConfig, RoleError> {
    let section = &config.gateway;
    let identity = Identity::load(&section.certificate, &section.key)?;
    if let Some(state) = &section.state {
        make_parent_directory(state)?;
    }
    Ok(GatewayConfig {
        next_identity: next_identity(section)?,
        state: section.state.clone(),
        tick_interval: Some(Duration::from_secs(1) / config.demo.tick_hz.max(1)),
        // Checked to be 1 to 255.
        workers: u8::try_from(section.workers)
            .ok()
            .and_then(NonZeroU8::new)
            .unwrap_or(NonZeroU8::MIN),
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
            grace: config.seat.grace,
            same_player: match config.seat.same_player {
                config::SamePlayer::NewestWins => SamePlayer::NewestWins,
                config::SamePlayer::OldestWins => SamePlayer::OldestWins,
                config::SamePlayer::Allow => SamePlayer::Allow,
            },
        },
        limits: Limits {
            handshakes: section.max_handshakes as usize,
            retry_above: section.retry_above as usize,
            handshake_timeout: section.handshake_timeout,
            prefix_rate: section.prefix_rate,
            prefix_burst: section.prefix_burst,
            awaiting_hello: section.max_awaiting_hello as usize,
            hello_timeout: section.hello_timeout,
            idle_timeout: section.idle_timeout,
            single_use: section.single_use_capacity as usize,
            admit_while_stale: section.control.admit_while_stale,
            max_stale: section.control.max_stale,
            message_backlog: section.message_backlog.bytes(),
            rates: rates(&section.budget),
            ..Limits::default()
        },
        socket_buffer: usize::try_from(section.socket_buffer.0).unwrap_or(usize::MAX),
        clock,
        ..GatewayConfig::new(section.id.clone(), section.listen, identity)
    })
}

/// What one client may send.
fn rates(budget: &config::Budget) -> SeatRates {
    let config::Budget {
        packets,
        datagrams,
        bytes,
        messages,
        moves,
        burst,
    } = *budget;
    SeatRates {
        packets,
        datagrams,
        // Checked to be 64 MiB at the most.
        bytes: u32::try_from(bytes.0).unwrap_or(u32::MAX),
        messages,
        moves,
        burst,
    }
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
            files: _,
            to_sidecar: _,
            metrics: _,
            stop,
            fenced: _,
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
