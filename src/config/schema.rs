//! The shape of the configuration file: its sections, keys and defaults. `check` holds the rules about their values.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::values::{self, KeySource, MailRelay, SidecarUrl, Size, Store};
use crate::{
    id::GatewayId,
    seat::SeatConfig,
    sidecar::{EmailAddress, IssuerAddress, IssuerName, Network},
    store::{DEFAULT_PREFIX, RedisUrl},
};

/// A whole configuration, checked.
///
/// Made by [`Config::load`], [`Config::parse`] and [`Config::default`], which is what the repository's `config.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether development conveniences may be switched on at all.
    pub environment: Environment,
    /// What is logged, and how.
    pub log: Log,
    /// How long sessions and their tokens live.
    pub session: Session,
    /// The authority.
    pub sidecar: Sidecar,
    /// The QUIC gateway.
    pub gateway: Gateway,
    /// Seats and what keeps them.
    pub seat: Seat,
    /// The demo world.
    pub demo: Demo,
}

/// What the process runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Real players: no development convenience is allowed.
    #[default]
    Production,
    /// A developer's machine: conveniences are allowed on loopback addresses.
    Development,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which events: a `tracing` filter.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// How long sessions and their tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// A session without activity anywhere for this long ends.
    #[serde(with = "values::duration")]
    pub idle: Duration,
    /// A session ends this long after its login, whatever happens.
    #[serde(with = "values::duration")]
    pub absolute: Duration,
    /// How long a session token (the bearer for calls to the sidecar) lives.
    #[serde(with = "values::duration")]
    pub token_life: Duration,
    /// How long a connect token lives when nobody asks for another life.
    #[serde(with = "values::duration")]
    pub connect_life: Duration,
    /// The longest life that a backend may ask for.
    #[serde(with = "values::duration")]
    pub longest_connect_life: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60 * 60),
            absolute: Duration::from_secs(24 * 60 * 60),
            token_life: Duration::from_secs(15 * 60),
            connect_life: Duration::from_secs(30),
            longest_connect_life: Duration::from_secs(5 * 60),
        }
    }
}

/// The authority: logs players in, mints tokens, revokes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sidecar {
    /// Where `AuthService` listens, for clients.
    #[serde(with = "values::address")]
    pub auth_listen: SocketAddr,
    /// Where `ControlService` listens, for gateways.
    #[serde(with = "values::address")]
    pub control_listen: SocketAddr,
    /// Where `AdminService` listens, for operators and backends.
    #[serde(with = "values::address")]
    pub admin_listen: SocketAddr,
    /// The sidecar's certificate chain (PEM), for all three listeners.
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Certificates (PEM) of who signs those of gateways, operators and backends.
    pub client_ca: PathBuf,
    /// Where metrics and health are told over HTTP; none: nowhere.
    #[serde(with = "values::optional_address")]
    pub metrics_listen: Option<SocketAddr>,
    /// The key that seals session tokens.
    pub session_key: KeySource,
    /// One more key, which opens session tokens and seals none.
    #[serde(with = "values::optional_key")]
    pub previous_session_key: Option<KeySource>,
    /// The key that seals refresh tokens.
    pub refresh_key: KeySource,
    /// One more key, which opens refresh tokens and seals none.
    #[serde(with = "values::optional_key")]
    pub previous_refresh_key: Option<KeySource>,
    /// The master key from which each gateway process's connect-token key is derived.
    pub transport_key: KeySource,
    /// The key under which codes and links are hashed.
    pub login_key: KeySource,
    /// How many connect tokens a player may ask for with one session in a minute.
    pub connect_tokens_per_minute: u32,
    /// How many refreshes may be asked for with one session in a minute.
    pub refreshes_per_minute: u32,
    /// Development: makes those of the four keys whose file is not there yet.
    pub generate_keys: bool,
    /// Where sessions and revocations are kept.
    pub store: Store,
    /// Development: login by name alone.
    pub dev_login: bool,
    /// Development: `AuthService` without TLS.
    pub plain_text: bool,
    /// The server, where sessions are kept in Redis.
    pub redis: Redis,
    /// The ways to log in.
    pub login: Login,
    /// How mail leaves.
    pub mail: Mail,
}

impl Default for Sidecar {
    fn default() -> Self {
        Self {
            auth_listen: (Ipv4Addr::LOCALHOST, 7800).into(),
            control_listen: (Ipv4Addr::LOCALHOST, 7801).into(),
            admin_listen: (Ipv4Addr::LOCALHOST, 7802).into(),
            certificate: "certs/sidecar.pem".into(),
            key: "certs/sidecar.key".into(),
            client_ca: "certs/ca.pem".into(),
            metrics_listen: Some((Ipv4Addr::LOCALHOST, 7803).into()),
            session_key: KeySource::File("certs/session.key".into()),
            previous_session_key: None,
            refresh_key: KeySource::File("certs/refresh.key".into()),
            previous_refresh_key: None,
            transport_key: KeySource::File("certs/transport.key".into()),
            login_key: KeySource::File("certs/login.key".into()),
            connect_tokens_per_minute: 60,
            refreshes_per_minute: 30,
            generate_keys: false,
            store: Store::default(),
            dev_login: false,
            plain_text: false,
            redis: Redis::default(),
            login: Login::default(),
            mail: Mail::default(),
        }
    }
}

/// The ways to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    /// Which are switched on.
    pub methods: Vec<LoginMethod>,
    /// What this service is called in what clients sign.
    pub audience: String,
    /// How long a mailed link logs in.
    #[serde(with = "values::duration")]
    pub magic_link_life: Duration,
    /// Letters to one e-mail address in an hour.
    pub letters_per_hour: u32,
    /// Calls of one kind from one network address in an hour.
    pub calls_per_hour: u32,
    /// Changes to how one player logs in, in an hour.
    pub changes_per_hour: u32,
    /// Proxies whose word for whom a call is from is believed.
    #[serde(with = "values::networks")]
    pub trusted_proxies: Vec<Network>,
    /// Whose identity tokens log players in.
    pub oidc: Vec<Issuer>,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            methods: Vec::new(),
            audience: "tickgate".to_owned(),
            magic_link_life: Duration::from_secs(10 * 60),
            letters_per_hour: 5,
            calls_per_hour: 30,
            changes_per_hour: 10,
            trusted_proxies: Vec::new(),
            oidc: Vec::new(),
        }
    }
}

/// An issuer of identity tokens (OpenID Connect): Google, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Issuer {
    /// What it is called here.
    #[serde(with = "values::issuer_name")]
    pub name: IssuerName,
    /// Where it is, as it calls itself.
    #[serde(with = "values::issuer_address")]
    pub issuer: IssuerAddress,
    /// The ids under which it knows the game.
    pub client_ids: Vec<String>,
    /// Certificates (PEM) of who signs its own; none: whom the machine trusts.
    #[serde(with = "values::optional_path")]
    pub ca: Option<PathBuf>,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            name: IssuerName::google(),
            issuer: IssuerAddress::google(),
            client_ids: Vec::new(),
            ca: None,
        }
    }
}

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginMethod {
    /// By a code that is mailed.
    Otp,
    /// By a key that the device holds.
    DeviceKey,
    /// By a link that is mailed.
    MagicLink,
    /// By e-mail address and password.
    Password,
}

impl LoginMethod {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Otp, Self::DeviceKey, Self::MagicLink, Self::Password];
}

/// How mail leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mail {
    /// The relay; none: mail does not leave, or goes to the spool.
    #[serde(with = "values::optional_relay")]
    pub smtp: Option<MailRelay>,
    /// The user to be at the relay; empty: it asks for none.
    pub smtp_user: String,
    /// The user's password.
    #[serde(with = "values::optional_key")]
    pub smtp_password: Option<KeySource>,
    /// Certificates (PEM) of who signs the relay's; none: whom the machine trusts.
    #[serde(with = "values::optional_path")]
    pub smtp_ca: Option<PathBuf>,
    /// Development: the folder that letters are put into.
    #[serde(with = "values::optional_path")]
    pub spool: Option<PathBuf>,
    /// Whom letters are from.
    #[serde(with = "values::email")]
    pub from: EmailAddress,
    /// What the game is called in them.
    pub game: String,
    /// Where links in them lead; empty: nowhere.
    pub link: String,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            smtp: None,
            smtp_user: String::new(),
            smtp_password: None,
            smtp_ca: None,
            spool: None,
            from: values::default_sender(),
            game: "Tickgate".to_owned(),
            link: String::new(),
        }
    }
}

/// The Redis server that sidecars share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Where it is.
    #[serde(with = "values::redis_url")]
    pub url: RedisUrl,
    /// Where its password is; none: it asks for none.
    #[serde(with = "values::optional_key")]
    pub password: Option<KeySource>,
    /// Who signs its certificate (PEM); none: whom the system trusts.
    #[serde(with = "values::optional_path")]
    pub ca: Option<PathBuf>,
    /// What all keys begin with.
    pub prefix: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: values::redis_url::default(),
            password: None,
            ca: None,
            prefix: DEFAULT_PREFIX.to_owned(),
        }
    }
}

/// The QUIC gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// Its name: in its control certificate, and what connect tokens are bound to.
    #[serde(with = "values::gateway_id")]
    pub id: GatewayId,
    /// Where it listens for clients (UDP).
    #[serde(with = "values::address")]
    pub listen: SocketAddr,
    /// Where clients reach it; empty when that is where it listens.
    #[serde(with = "values::addresses")]
    pub advertise: Vec<SocketAddr>,
    /// The TLS server name that clients use.
    pub server_name: String,
    /// The QUIC certificate chain (PEM), which clients pin.
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// The certificate chain (PEM) that follows; announced at the start, served five minutes later.
    #[serde(with = "values::optional_path")]
    pub next_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[serde(with = "values::optional_path")]
    pub next_key: Option<PathBuf>,
    /// The file that keeps the transport's keys from process to process; none: each process has its own.
    #[serde(with = "values::optional_path")]
    pub state: Option<PathBuf>,
    /// Where metrics and health are told over HTTP; none: nowhere.
    #[serde(with = "values::optional_address")]
    pub metrics_listen: Option<SocketAddr>,
    /// How long those in play may stay when the process is asked to end.
    #[serde(with = "values::duration")]
    pub drain: Duration,
    /// Threads that carry the clients' traffic.
    pub workers: u32,
    /// How many seats it has.
    pub capacity: u32,
    /// Handshakes in flight at most; then the oldest unfinished one is dropped.
    pub max_handshakes: u32,
    /// Handshakes in flight from which on an address has to prove itself first.
    pub retry_above: u32,
    /// How long a handshake may take.
    #[serde(with = "values::duration")]
    pub handshake_timeout: Duration,
    /// Handshakes a second that one prefix may begin in the long run.
    pub prefix_rate: u32,
    /// Handshakes that one prefix may begin at once.
    pub prefix_burst: u32,
    /// Connections that have yet to say Hello at most; then the oldest goes.
    pub max_awaiting_hello: u32,
    /// How long after the handshake Hello must have arrived.
    #[serde(with = "values::duration")]
    pub hello_timeout: Duration,
    /// A connection from which nothing arrives for this long is lost.
    #[serde(with = "values::duration")]
    pub idle_timeout: Duration,
    /// What each socket's kernel buffers are asked to hold, in bytes, per direction.
    pub socket_buffer: Size,
    /// What may wait for one client in messages, in bytes; then it is closed.
    pub message_backlog: Size,
    /// How many presented tokens are remembered at once.
    pub single_use_capacity: u32,
    /// What one client may send.
    pub budget: Budget,
    /// The control channel to the sidecar.
    pub control: Control,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            id: values::default_gateway_id(),
            listen: (Ipv4Addr::UNSPECIFIED, 7777).into(),
            advertise: Vec::new(),
            server_name: "tickgate.local".to_owned(),
            certificate: "certs/gateway-gateway-1-quic.pem".into(),
            key: "certs/gateway-gateway-1-quic.key".into(),
            next_certificate: None,
            next_key: None,
            state: Some("data/gateway.state".into()),
            metrics_listen: Some((Ipv4Addr::LOCALHOST, 7778).into()),
            drain: Duration::from_secs(30),
            workers: 1,
            capacity: 4_096,
            max_handshakes: 1_024,
            retry_above: 256,
            handshake_timeout: Duration::from_secs(5),
            prefix_rate: 50,
            prefix_burst: 200,
            max_awaiting_hello: 1_024,
            hello_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(10),
            socket_buffer: Size(4 * 1024 * 1024),
            message_backlog: Size(256 * 1024),
            single_use_capacity: 65_536,
            budget: Budget::default(),
            control: Control::default(),
        }
    }
}

/// What one client may send a gateway in the long run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// UDP packets a second.
    pub packets: u32,
    /// Datagrams a second.
    pub datagrams: u32,
    /// Bytes of datagrams and messages a second.
    pub bytes: Size,
    /// Messages a second.
    pub messages: u32,
    /// Changes of address a minute.
    pub moves: u32,
    /// How much of a rate may come at once, in the time that it takes to come.
    #[serde(with = "values::duration")]
    pub burst: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            packets: 2_000,
            datagrams: 512,
            bytes: Size(512 * 1024),
            messages: 256,
            moves: 12,
            burst: Duration::from_secs(4),
        }
    }
}

/// A gateway's control channel to its sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// The sidecar's control listener.
    pub sidecar: SidecarUrl,
    /// Certificates (PEM) of who signs the sidecar's.
    pub ca: PathBuf,
    /// The gateway's control certificate chain (PEM): its identity to the sidecar.
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// How long after the sidecar's last heartbeat new clients are admitted.
    #[serde(with = "values::duration")]
    pub admit_while_stale: Duration,
    /// How long after it those in play stay; none: for ever.
    #[serde(with = "values::duration_or_never")]
    pub max_stale: Option<Duration>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            sidecar: SidecarUrl::loopback(7801),
            ca: "certs/ca.pem".into(),
            certificate: "certs/gateway-gateway-1.pem".into(),
            key: "certs/gateway-gateway-1.key".into(),
            admit_while_stale: Duration::from_secs(30),
            max_stale: None,
        }
    }
}

/// Seats and what keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seat {
    /// What counts as activity of a session.
    pub activity: Activity,
    /// A session's activity is written at most once in this time.
    #[serde(with = "values::duration")]
    pub activity_window: Duration,
    /// How long a session whose connection was lost may come back to its seat; zero: not at all.
    #[serde(with = "values::duration")]
    pub grace: Duration,
    /// What becomes of a player who comes with another session while one is seated.
    pub same_player: SamePlayer,
}

impl Seat {
    /// The activity window in ticks of a loop that ticks `hz` times a second; at least 1.
    pub fn window_ticks(&self, hz: u32) -> u32 {
        let rate = NonZeroU32::new(hz).unwrap_or(NonZeroU32::MIN);
        SeatConfig::default()
            .with_window(self.activity_window, rate)
            .window
    }
}

impl Default for Seat {
    fn default() -> Self {
        Self {
            activity: Activity::Input,
            activity_window: Duration::from_secs(1),
            grace: Duration::from_secs(15),
            same_player: SamePlayer::NewestWins,
        }
    }
}

/// What counts as activity of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// Datagrams and messages of the game; not pings or keep-alives.
    Input,
    /// Being checked by the simulation.
    Verify,
}

/// What becomes of a player who comes with another session while one is seated at the same gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamePlayer {
    /// The new one is seated, and the other one's connection is closed as superseded.
    NewestWins,
    /// The new one is refused.
    OldestWins,
    /// Both are seated.
    Allow,
}

/// The demo world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Demo {
    /// Ticks a second.
    pub tick_hz: u32,
}

impl Default for Demo {
    fn default() -> Self {
        Self { tick_hz: 60 }
    }
}
