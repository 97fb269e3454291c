//! The sidecar: the authority that logs players in, owns sessions, mints tokens and revokes.
//!
//! ```text
//! players, backends ──TLS──► auth ────┐                        ┌─► login: proves an account ──► mail
//! gateways ─────────mTLS──► control ──┼─► host, sessions, mint ┼─► store: sessions, players, revocation log
//! backends, operators mTLS─► admin ───┘                        └─► registry: who is attached, how full, what they acknowledged
//! ```

mod admin;
mod audit;
mod auth;
mod call;
mod catching_up;
mod client_key;
mod config;
mod explain;
#[cfg(test)]
mod history;
mod host;
mod keys;
mod lasting;
mod limit;
mod login;
mod mail;
mod metrics;
mod mint;
mod neighbours;
mod refresh;
mod refusal;
mod registry;
mod reload;
mod serve;
mod sessions;
mod severed;
#[cfg(test)]
mod tests;
mod trace;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::{Clock, Timestamp},
    id::Revision,
    store::{EmbeddedStore, OpenError, Purged, Store, StoreError},
    tls::{Identity, TlsError},
};

#[cfg(feature = "redis")]
use crate::store::RedisStore;

use self::{
    admin::AdminApi,
    auth::AuthApi,
    explain::Explain,
    host::Host,
    keys::Keys,
    limit::Limit,
    login::{Methods, dev::DevLogin, limits::Limits, nonce::Nonces, oidc::Oidc},
    mail::Post,
    metrics::{Counters, Sources},
    mint::Mint,
    registry::Registry,
    reload::Reloading,
    serve::{Certificates, Health, Listeners},
    sessions::Sessions,
};

pub use config::{
    DEFAULT_CONNECT_TOKENS_PER_MINUTE, DEFAULT_REFRESHES_PER_MINUTE, Environment, LoginConfig,
    LoginLimits, MIN_REFRESHES_PER_MINUTE, SessionLives, SidecarConfig, StoreChoice,
};
#[cfg(feature = "cli")]
pub(crate) use config::{LONGEST_AUDIENCE, LONGEST_FRESH_LOGIN, LONGEST_MAGIC_LINK};
pub use keys::{InvalidKeys, TokenKeys};
pub use login::{
    address::{EmailAddress, InvalidEmail},
    network::{InvalidNetwork, Network},
    oidc::{
        InvalidIssuerAddress, InvalidIssuerName, IssuerAddress, IssuerName, MAX_CLIENT_IDS,
        MAX_ISSUERS, OidcError, OidcIssuer, are_client_ids,
    },
};
#[cfg(feature = "cli")]
pub(crate) use mail::is_loopback;
pub use mail::{Delivery, MailConfig, MailError, SmtpConfig, SmtpSecurity};
pub use metrics::SidecarMetrics;

pub use crate::token::MasterKey;

/// How often sessions and events that are over are taken away; also how often the store's health is looked at.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

/// How long what the ways to log in keep is kept after its end: whoever comes a little late is told that, and not that there is no such thing.
const EXPIRED_KEPT: Duration = Duration::from_secs(60 * 60);

/// How long calls may take to finish after shutdown began; then their connections are cut.
const GRACE: Duration = Duration::from_secs(2);

/// Why a sidecar does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A development convenience outside development.
    #[error(
        "{convenience} needs environment = \"development\": it lets anybody in or shows everything to everybody"
    )]
    ConvenienceInProduction {
        /// Which one.
        convenience: &'static str,
    },
    /// A development convenience where others can reach it.
    #[error("{convenience} needs every listener on a loopback address, and {address} is none")]
    ConvenienceExposed {
        /// Which one.
        convenience: &'static str,
        /// The listener's address.
        address: SocketAddr,
    },
    /// A life out of range.
    #[error("the {name} must be {allowed}")]
    Life {
        /// Which one.
        name: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A limit out of range.
    #[error("{name} must be {allowed}")]
    Limit {
        /// Which one.
        name: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A way to log in that mails something, and nothing that mails it.
    #[error(
        "login method {method} mails its players something, and there is no way for mail to leave, or no place for its links to lead to"
    )]
    NoMail {
        /// Which one.
        method: &'static str,
    },
    /// Passwords cannot be hashed here.
    #[error("passwords cannot be hashed: {0}")]
    Hashing(#[source] StoreError),
    /// Mail cannot leave the way that is configured.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// Nobody can log in by an issuer that is configured.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// The keys cannot be used together.
    #[error(transparent)]
    Keys(#[from] InvalidKeys),
    /// Certificates or key are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be had.
    #[error("cannot listen on {address} for {listener}")]
    Bind {
        /// Which listener.
        listener: &'static str,
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
}

impl StartError {
    /// The error's fixed name in logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ConvenienceInProduction { .. } => "convenience_in_production",
            Self::ConvenienceExposed { .. } => "convenience_exposed",
            Self::Life { .. } => "life",
            Self::Limit { .. } => "limit",
            Self::NoMail { .. } => "no_mail",
            Self::Hashing(error) => error.label(),
            Self::Mail(error) => error.label(),
            Self::Oidc(error) => error.label(),
            Self::Keys(error) => error.label(),
            Self::Tls(error) => error.label(),
            Self::Bind { .. } => "bind",
            Self::Store(error) => error.label(),
        }
    }
}

/// Where a sidecar listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// `AuthService`, for players and backends.
    pub auth: SocketAddr,
    /// `ControlService`, for gateways.
    pub control: SocketAddr,
    /// `AdminService`, for backends and operators.
    pub admin: SocketAddr,
}

/// A running sidecar. Dropping it cuts all connections at once; [`shutdown`](Self::shutdown) lets calls finish.
#[derive(Debug)]
pub struct Sidecar {
    addresses: Addresses,
    certificates: Certificates,
    metrics: SidecarMetrics,
    reloading: Reloading,
    running: Running,
}

/// What keeps a sidecar going, and ends it.
struct Running {
    store: Arc<dyn Store>,
    health: Health,
    counters: Arc<Counters>,
    tasks: TaskTracker,
    /// Accept nothing more, and finish what is under way.
    stop: CancellationToken,
    /// Cut what is left.
    sever: CancellationToken,
}

impl Sidecar {
    /// Starts a sidecar; when this returns, all three listeners answer. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What is wrong with the configuration, the addresses or the store, and what to do about it.
    pub async fn start(config: SidecarConfig) -> Result<Self, StartError> {
        let convenient = config.check()?;
        let listeners = Listeners::bind(&config).await?;
        let addresses = listeners.addresses;
        let SidecarConfig {
            keys,
            login_key,
            mut login,
            mail,
            lives,
            connect_tokens_per_minute,
            refreshes_per_minute,
            store,
            clock,
            dev_login,
            // Already used by the check and the listeners.
            environment: _,
            auth_listen: _,
            control_listen: _,
            admin_listen: _,
            identity: _,
            client_ca: _,
            plain_text: _,
        } = config;
        let counters = Arc::new(Counters::new());
        let post = mail.map(|mail| Post::new(mail, clock.clone(), Arc::clone(&counters)));
        let post = post.transpose()?;
        let store = open(store, lives, &clock).await?;
        // By the system's clock, as heartbeats go, even when a test moves the sidecar's time by hand.
        // A store that cannot say is not taken for a new one.
        let earlier = store.sessions(None, None, 1).await;
        let registry = Arc::new(match earlier {
            Ok(none) if none.is_empty() => Registry::new(Clock::system()),
            Ok(_) | Err(_) => Registry::after_restart(Clock::system()),
        });
        let keys = Arc::new(Keys::new(keys, login_key.id(), clock.wall()));
        let explain = Arc::new(Explain::new(clock.wall()));
        let running = Running::new(Arc::clone(&store), Arc::clone(&counters));
        let sessions = Arc::new(Sessions {
            store: Arc::clone(&store),
            keys: Arc::clone(&keys),
            refresh_limit: Limit::per_minute(refreshes_per_minute, &clock),
            lives,
            clock: clock.clone(),
            explain: Arc::clone(&explain),
            counters: Arc::clone(&counters),
        });
        let mint = Arc::new(Mint {
            registry: Arc::clone(&registry),
            store: Arc::clone(&store),
            keys: Arc::clone(&keys),
            limit: Limit::per_minute(connect_tokens_per_minute, &clock),
            clock: clock.clone(),
            explain: Arc::clone(&explain),
            counters: Arc::clone(&counters),
        });
        let mailer = post.map(|post| {
            let (mailer, outbox) = mail::queue();
            let stop = running.stop.clone();
            running.tasks.spawn(post.run(outbox, stop));
            mailer
        });
        let limits = Limits::new(
            login.limits.clone(),
            login_key.clone(),
            clock.clone(),
            Arc::clone(&store),
        );
        let fresh = login.fresh_login;
        let trusted = login.limits.trusted_proxies.clone();
        let nonces = Nonces {
            store: Arc::clone(&store),
            key: Arc::new(login_key),
            clock: clock.clone(),
        };
        let oidc = Oidc::new(std::mem::take(&mut login.oidc), nonces.clone(), &counters)?;
        let methods = Methods {
            dev: convenient.filter(|_| dev_login).map(DevLogin::new),
            oidc: oidc.map(|(oidc, keepers)| {
                keepers.run(&running.tasks, &running.stop);
                oidc
            }),
            ..Methods::new(login, mailer, &nonces)?
        };
        let auth = AuthApi {
            fresh,
            sessions: Arc::clone(&sessions),
            mint: Arc::clone(&mint),
            registry: Arc::clone(&registry),
            methods,
            limits,
        };
        let admin = AdminApi {
            sessions,
            mint,
            registry: Arc::clone(&registry),
            keys: Arc::clone(&keys),
        };
        let reloading = Reloading {
            keys: Arc::clone(&keys),
            registry: Arc::clone(&registry),
        };
        let metrics = SidecarMetrics::new(Sources {
            counters: Arc::clone(&counters),
            registry: Arc::clone(&registry),
            keys: Arc::clone(&keys),
            head: head_of(&store),
            failed: store.watch_failed(),
            serving: running.health.watch(),
            stop: running.stop.clone(),
        });
        if store.is_shared() {
            running.tasks.spawn(neighbours::run(
                Arc::clone(&registry),
                Arc::clone(&store),
                clock.clone(),
                running.health.clone(),
                running.stop.clone(),
            ));
            running.tasks.spawn(catching_up::run(
                Arc::clone(&registry),
                Arc::clone(&store),
                clock.clone(),
                lives.for_store().granule(),
                running.stop.clone(),
            ));
        }
        let host = Host {
            registry,
            store,
            keys,
            explain,
            counters: Arc::clone(&counters),
            idle: lives.idle,
            clock: clock.clone(),
            attaching: Mutex::default(),
        };
        running.health.serving(true).await;
        let exempt = move |address| trusted.iter().any(|network| network.contains(address));
        let certificates = listeners.serve(auth, host, admin, Arc::new(exempt), &running);
        running.tasks.spawn(purge(
            Arc::clone(&running.store),
            running.health.clone(),
            clock,
            running.stop.clone(),
        ));
        let Addresses {
            auth,
            control,
            admin,
        } = addresses;
        tracing::info!(%auth, %control, %admin, "sidecar is up");
        Ok(Self {
            addresses,
            certificates,
            metrics,
            reloading,
            running,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its metrics and health, for [`admin::serve`](crate::admin::serve).
    pub fn metrics(&self) -> SidecarMetrics {
        self.metrics.clone()
    }

    /// Shows another certificate, and asks the certificates of gateways, backends and operators of these authorities, on every
    /// connection that begins from now on. Those that there are go on: control streams live through it. Whether these are others than before.
    ///
    /// # Errors
    /// As at the start; then nothing changes.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "what was read from files is handed over"
    )]
    pub fn reload_tls(
        &self,
        identity: Identity,
        client_ca: Vec<CertificateDer<'static>>,
    ) -> Result<bool, TlsError> {
        let replaced = self.certificates.replace(&identity, &client_ca)?;
        if replaced {
            audit::record(audit::Event::CertificatesReplaced);
            tracing::info!("certificates replaced: new connections are shown them");
        }
        Ok(replaced)
    }

    /// Stops: accepts no more calls, lets those under way finish for 2 s, cuts the rest, waits 2 s more at most, and closes the store.
    ///
    /// # Errors
    /// The store could not write down the last activity; everything that was acknowledged is safe.
    pub async fn shutdown(self) -> Result<(), StoreError> {
        let running = &self.running;
        running.stop.cancel();
        running.health.down().await;
        running.tasks.close();
        if tokio::time::timeout(GRACE, running.tasks.wait())
            .await
            .is_err()
        {
            running.sever.cancel();
            // What is cut ends at once, but for a purge that waits for its disk.
            if tokio::time::timeout(GRACE, running.tasks.wait())
                .await
                .is_err()
            {
                tracing::warn!(left = running.tasks.len(), "tasks are left behind");
            }
        }
        let closed = running.store.close().await;
        tracing::info!("sidecar has stopped");
        closed
    }
}

impl Running {
    fn new(store: Arc<dyn Store>, counters: Arc<Counters>) -> Self {
        Self {
            store,
            health: Health::new(),
            counters,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            sever: CancellationToken::new(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.sever.cancel();
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

async fn open(
    choice: StoreChoice,
    lives: SessionLives,
    clock: &Clock,
) -> Result<Arc<dyn Store>, StartError> {
    #[cfg(not(feature = "redis"))]
    let _ = clock;
    match choice {
        #[cfg(feature = "redis")]
        StoreChoice::Redis(settings) => {
            let opened = RedisStore::open(&settings, lives.for_store(), clock.clone());
            Ok(Arc::new(opened.await?))
        }
        StoreChoice::Embedded(path) => {
            let for_error = path.clone();
            let opened =
                tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, lives.for_store()));
            let opened = opened.await.unwrap_or_else(|panicked| {
                Err(OpenError::Damaged {
                    path: for_error,
                    detail: panicked.to_string(),
                })
            });
            Ok(Arc::new(opened?))
        }
    }
}

/// Reads the head of the log as it is then: the watch of one lineage ends with it. Does not keep the store.
fn head_of(store: &Arc<dyn Store>) -> metrics::Head {
    let store = Arc::downgrade(store);
    Box::new(move || {
        store
            .upgrade()
            .map_or(Revision(0), |store| *store.watch_head().borrow())
    })
}

/// Takes away what is over, and of the ways to log in what has been over for [`EXPIRED_KEPT`].
async fn purge_once(store: &dyn Store, now: Timestamp) -> Result<(Purged, usize), StoreError> {
    let purged = store.purge(now).await?;
    let logins = store.purge_logins(now.before(EXPIRED_KEPT)).await?;
    Ok((purged, logins))
}

/// Purges now and then, and says by the health service whether the store works: at once when it has failed for good.
async fn purge(store: Arc<dyn Store>, health: Health, clock: Clock, stop: CancellationToken) {
    let mut turns = tokio::time::interval(PURGE_INTERVAL);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failed = store.watch_failed();
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            // An error is the store's end, which only a shutdown brings.
            Ok(()) = async { failed.wait_for(|failed| *failed).await.map(drop) } => {
                return health.down().await;
            }
            () = stop.cancelled() => return,
        }
        let now = clock.wall();
        let purged = tokio::select! {
            purged = purge_once(&*store, now) => purged,
            () = stop.cancelled() => return,
        };
        match purged {
            Ok((purged, logins)) => {
                tracing::debug!(purged.sessions, purged.events, logins, "purged");
                health.serving(true).await;
            }
            Err(error) => {
                tracing::error!(label = error.label(), %error, "the store does not work");
                health.serving(false).await;
            }
        }
    }
}
