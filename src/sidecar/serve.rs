//! The three listeners: what each serves, within which bounds.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::StreamExt;
use tonic::{
    Code,
    codegen::http,
    service::{Routes, RoutesBuilder},
    transport::Server,
};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::util::MapResponseLayer;
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    control,
    proto::{
        self,
        admin_service_server::{self, AdminServiceServer},
        auth_service_server::{self, AuthServiceServer},
        control_service_server,
    },
    rpc::{self, Exempt},
    tls::{self, Identity, TlsError},
};

use super::{
    Addresses, Running, SidecarConfig, StartError,
    admin::{AdminApi, LONGEST_WAIT},
    audit::Gate,
    auth::AuthApi,
    call::CallLayer,
    host::Host,
    lasting::Lasting,
    severed::Severable,
    trace,
};

/// The longest request of auth and admin: the longest fields are a token in metadata, which is not part of it, and a subject of
/// 256 bytes. Longer ones are answered OUT_OF_RANGE before they are read.
const MAX_REQUEST: usize = 16 << 10;

/// The longest answer: what gRPC's clients take unless told otherwise. The longest there is, a page of 1,000 sessions with a gateway each,
/// has some 250 KB.
const MAX_ANSWER: usize = 4 << 20;

/// All headers of one request: a session token has 1,024 bytes at most.
const MAX_HEADERS: u32 = 8 << 10;

/// Calls at once on one connection, of which as many wait for the store as it takes; more of them wait their turn. A backend that
/// wants more opens another connection.
const MAX_STREAMS: u32 = 256;

/// How long a call may take: the store answers in milliseconds, or its disk is broken.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A silent connection is asked for a sign of life this often, and given up if none comes for as long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long a player's or a backend's connection goes on: then it is told to go when its calls are answered, and is soon made anew by whoever
/// needs it. So connections that nobody uses are not held for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(10 * 60);

/// How much longer than its calls may take it is waited for then: who does not answer is cut off.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long the stream of a health or reflection service may go on.
const STREAM_AGE: Duration = Duration::from_secs(10 * 60);

/// Whether the services are fit to be called, as the health service tells it.
#[derive(Clone)]
pub(super) struct Health {
    reporter: HealthReporter,
    /// The same for whoever watches from within.
    serving: Arc<watch::Sender<bool>>,
    /// Whether [`down`](Self::down) has been called; held while the status changes, so that nothing undoes it.
    is_down: Arc<tokio::sync::Mutex<bool>>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            reporter: HealthReporter::new(),
            serving: Arc::new(watch::Sender::new(false)),
            is_down: Arc::default(),
        }
    }

    /// The services are fit to be called, or are not for now.
    pub(super) async fn serving(&self, serving: bool) {
        let is_down = self.is_down.lock().await;
        self.report(serving && !*is_down).await;
    }

    /// The services are not fit to be called any more, whatever anybody says later.
    pub(super) async fn down(&self) {
        let mut is_down = self.is_down.lock().await;
        *is_down = true;
        self.report(false).await;
    }

    /// Watches whether the services are fit to be called.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }

    async fn report(&self, serving: bool) {
        self.serving.send_replace(serving);
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        // The empty name is the sidecar as a whole (gRPC health checking protocol).
        for name in [
            "",
            auth_service_server::SERVICE_NAME,
            control_service_server::SERVICE_NAME,
            admin_service_server::SERVICE_NAME,
        ] {
            self.reporter.set_service_status(name, status).await;
        }
    }

    fn service(&self) -> Lasting<HealthServer<HealthService>> {
        lasting(
            HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
                .max_decoding_message_size(MAX_REQUEST)
                .max_encoding_message_size(MAX_ANSWER),
        )
    }
}

fn lasting<S>(inner: S) -> Lasting<S> {
    Lasting {
        inner,
        longest: STREAM_AGE,
    }
}

type Tls = Arc<ArcSwap<rustls::ServerConfig>>;

/// What the listeners show and whom they trust; it can be replaced while they listen.
pub(super) struct Certificates {
    /// None where `AuthService` speaks plain text.
    auth: Option<Tls>,
    /// Of the two that ask for certificates.
    mutual: Tls,
    /// What is shown, and who is trusted.
    shown: Mutex<Fingerprint>,
}

type Fingerprint = [u8; 32];

/// A hash of certificates, key and authorities: each behind its length, so that no two lists are the same.
fn fingerprint(identity: &Identity, client_ca: &[CertificateDer<'static>]) -> Fingerprint {
    let mut all = Zeroizing::new(Vec::new());
    for certificates in [&identity.chain[..], client_ca] {
        all.extend_from_slice(&certificates.len().to_be_bytes());
        for certificate in certificates {
            all.extend_from_slice(&tls::fingerprint(certificate));
        }
    }
    all.extend_from_slice(&tls::fingerprint(identity.key.secret_der()));
    tls::fingerprint(&all)
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    fn new(config: &SidecarConfig) -> Result<Self, TlsError> {
        let shared = |config| Arc::new(ArcSwap::from_pointee(config));
        let Configs { auth, mutual } = Configs::new(&config.identity, &config.client_ca)?;
        Ok(Self {
            auth: (!config.plain_text).then(|| shared(auth)),
            mutual: shared(mutual),
            shown: Mutex::new(fingerprint(&config.identity, &config.client_ca)),
        })
    }

    /// Shows `identity` on connections that begin from now on, and asks their certificates of `client_ca`; whether these are others than
    /// before. Nothing changes if either is not usable.
    pub(super) fn replace(
        &self,
        identity: &Identity,
        client_ca: &[CertificateDer<'static>],
    ) -> Result<bool, TlsError> {
        let seen = fingerprint(identity, client_ca);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown == seen {
            return Ok(false);
        }
        let Configs { auth, mutual } = Configs::new(identity, client_ca)?;
        *shown = seen;
        if let Some(tls) = &self.auth {
            tls.store(Arc::new(auth));
        }
        self.mutual.store(Arc::new(mutual));
        Ok(true)
    }
}

struct Configs {
    auth: rustls::ServerConfig,
    mutual: rustls::ServerConfig,
}

impl Configs {
    fn new(identity: &Identity, client_ca: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        Ok(Self {
            auth: tls::rpc_server_config(identity, None)?,
            mutual: tls::rpc_server_config(identity, Some(client_ca))?,
        })
    }
}

/// The listeners, bound, and not serving yet.
pub(super) struct Listeners {
    pub(super) addresses: Addresses,
    certificates: Certificates,
    auth: TcpListener,
    control: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    pub(super) async fn bind(config: &SidecarConfig) -> Result<Self, StartError> {
        let certificates = Certificates::new(config)?;
        let (auth, auth_address) = bind("AuthService", config.auth_listen).await?;
        let (control, control_address) = bind("ControlService", config.control_listen).await?;
        let (admin, admin_address) = bind("AdminService", config.admin_listen).await?;
        Ok(Self {
            addresses: Addresses {
                auth: auth_address,
                control: control_address,
                admin: admin_address,
            },
            certificates,
            auth,
            control,
            admin,
        })
    }

    /// Spawns the servers; what they show stays in the caller's hands.
    pub(super) fn serve(
        self,
        auth: AuthApi,
        host: Host,
        admin: AdminApi,
        exempt: Exempt,
        running: &Running,
    ) -> Certificates {
        let certificates = self.certificates;
        let mutual = Some(Arc::clone(&certificates.mutual));

        let mut routes = common(&running.health);
        routes.add_service(
            AuthServiceServer::new(auth)
                .max_decoding_message_size(MAX_REQUEST)
                .max_encoding_message_size(MAX_ANSWER),
        );
        let tls = certificates.auth.clone();
        let bounds = Bounds {
            longest: CALL_TIMEOUT,
            age: Some(CONNECTION_AGE),
            exempt,
        };
        serve(self.auth, tls, routes.routes(), bounds, running);

        let mut routes = common(&running.health);
        // Heartbeats go by the system's clock, as tokio's timers do, even when a test moves the sidecar's time by hand.
        routes.add_service(control::sidecar::service_until(
            Arc::new(host),
            Clock::system(),
            running.stop.clone(),
        ));
        // An attach has a deadline of its own, and says so when it passes.
        let bounds = Bounds {
            longest: control::ATTACH_TIMEOUT + CALL_TIMEOUT,
            // A gateway's stream is there for as long as the gateway.
            age: None,
            exempt: nobody(),
        };
        serve(
            self.control,
            mutual.clone(),
            routes.routes(),
            bounds,
            running,
        );

        let mut routes = common(&running.health);
        routes.add_service(
            AdminServiceServer::new(admin)
                .max_decoding_message_size(MAX_REQUEST)
                .max_encoding_message_size(MAX_ANSWER),
        );
        let bounds = Bounds {
            longest: LONGEST_WAIT + CALL_TIMEOUT,
            age: Some(CONNECTION_AGE),
            exempt: nobody(),
        };
        serve(self.admin, mutual, routes.routes(), bounds, running);
        certificates
    }
}

async fn bind(
    listener: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind {
        listener,
        address,
        source,
    };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

/// What every listener serves: health and reflection, the latter also by the name that older tools ask for.
fn common(health: &Health) -> RoutesBuilder {
    let mut routes = Routes::builder();
    routes.add_service(health.service());
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    match (described().build_v1(), described().build_v1alpha()) {
        (Ok(reflection), Ok(older)) => {
            routes.add_service(lasting(
                reflection
                    .max_decoding_message_size(MAX_REQUEST)
                    .max_encoding_message_size(MAX_ANSWER),
            ));
            routes.add_service(lasting(
                older
                    .max_decoding_message_size(MAX_REQUEST)
                    .max_encoding_message_size(MAX_ANSWER),
            ));
        }
        // The descriptors are compiled in, so a test would have seen it; and the services work without it.
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no reflection service"),
    }
    routes
}

/// What one listener's connections are held to.
struct Bounds {
    /// How long a call may take.
    longest: Duration,
    /// How long a connection goes on.
    age: Option<Duration>,
    /// Whose connections count for no network's share.
    exempt: Exempt,
}

fn nobody() -> Exempt {
    Arc::new(|_| false)
}

fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    routes: Routes,
    bounds: Bounds,
    running: &Running,
) {
    let Bounds {
        longest,
        age,
        exempt,
    } = bounds;
    // Each listener has its own: strangers in vain at one keep nothing of another out of the trail. As refusals come, however a test moves
    // the sidecar's time.
    let gate = Arc::new(Gate::new(Clock::system()));
    let sever = running.sever.clone();
    let counters = Arc::clone(&running.counters);
    let incoming = rpc::listen_sharing(listener, tls, exempt)
        .map(move |stream| stream.map(|stream| Severable::new(stream, sever.clone())));
    let mut server = Server::builder();
    if let Some(age) = age {
        // What is under way then has the time that it has in any case.
        server = server
            .max_connection_age(age)
            .max_connection_age_grace(longest + GOODBYE);
    }
    let server = server
        .trace_fn(trace::call)
        .layer(MapResponseLayer::new(move |response| {
            counters.calls.count(code_of(&response));
            response
        }))
        .layer(CallLayer { longest, gate })
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, running.stop.clone().cancelled_owned());
    running.tasks.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "a listener has failed");
        }
    });
}

/// The gRPC status of an answer, by its name. A refusal has no body and says it in its header; an answer that has one says it after
/// that, and has hardly a reason left to fail.
pub(super) fn code_of<B>(response: &http::Response<B>) -> &'static str {
    let status = response.headers().get("grpc-status");
    code_label(status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes())))
}

/// The names of all gRPC statuses: they are numbered from 0 to 16.
pub(super) fn code_labels() -> impl Iterator<Item = &'static str> {
    (0..=16).map(|number| code_label(Code::from_i32(number)))
}

const fn code_label(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use tonic_health::pb::{HealthCheckRequest, health_server::Health as _};

    use super::{super::SessionLives, *};
    use crate::store::memory::MemoryStore;

    async fn is_serving(health: &Health) -> bool {
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let request = tonic::Request::new(HealthCheckRequest::default());
        let answer = service.check(request).await.unwrap().into_inner();
        answer.status == ServingStatus::Serving as i32
    }

    /// A listener in plain text for health alone, within these bounds.
    async fn listening(age: Option<Duration>) -> (SocketAddr, Running) {
        let store = MemoryStore::new(SessionLives::default().for_store());
        let counters = Arc::new(super::super::metrics::Counters::new());
        let running = Running::new(Arc::new(store), counters);
        running.health.serving(true).await;
        let (listener, address) = bind("AuthService", "127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let bounds = Bounds {
            longest: Duration::from_millis(50),
            age,
            exempt: nobody(),
        };
        let routes = common(&running.health).routes();
        serve(listener, None, routes, bounds, &running);
        (address, running)
    }

    #[tokio::test]
    async fn a_connection_that_nobody_uses_does_not_last() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (address, _running) = listening(Some(Duration::from_millis(50))).await;
        let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
        // The preface, and settings that say nothing (RFC 9113, sections 3.4 and 6.5).
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        idle.write_all(preface).await.unwrap();
        let mut said = Vec::new();
        let closed = tokio::time::timeout(CALL_TIMEOUT, idle.read_to_end(&mut said)).await;
        closed.expect("it is still open").unwrap();
    }

    #[tokio::test]
    async fn nothing_undoes_that_the_services_are_down() {
        let health = Health::new();
        health.serving(true).await;
        assert!(is_serving(&health).await);
        health.down().await;
        health.serving(true).await;
        assert!(!is_serving(&health).await);
    }

    #[tokio::test]
    async fn a_failed_store_is_told_without_waiting_for_the_next_purge() {
        let store = Arc::new(MemoryStore::new(SessionLives::default().for_store()));
        let (health, stop) = (Health::new(), CancellationToken::new());
        health.serving(true).await;
        let purging = tokio::spawn(super::super::purge(
            Arc::clone(&store) as Arc<dyn crate::store::Store>,
            health.clone(),
            Clock::system(),
            stop,
        ));
        tokio::task::yield_now().await;
        assert!(is_serving(&health).await);
        store.failed.send_replace(true);
        purging.await.unwrap();
        assert!(!is_serving(&health).await);
    }
}
