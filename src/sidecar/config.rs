//! What a sidecar has to be told, and what must hold between its parts.

use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use rustls::pki_types::CertificateDer;

use crate::{
    clock::Clock,
    store::StoreLives,
    tls::Identity,
    token::{LoginKey, MAX_CONNECT_LIFE},
};

#[cfg(feature = "redis")]
use crate::store::RedisSettings;

use super::{
    StartError, TokenKeys,
    login::{network::Network, oidc::OidcIssuer},
    mail::{Delivery, MailConfig},
};

/// Where a process runs: what is convenient in development is a hole in production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Environment {
    /// Players depend on it.
    #[default]
    Production,
    /// A developer's own machine.
    Development,
}

/// How long sessions and their tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLives {
    /// A session without activity for this long has ended. Default 1 h.
    pub idle: Duration,
    /// A session ends this long after login, however active. Default 24 h.
    pub absolute: Duration,
    /// A session token is accepted for this long. Default 15 min: the time for which a role that was taken away still works.
    pub session_token: Duration,
    /// A connect token is accepted for this long, unless the backend asks for another life. Default 30 s: enough for a handshake
    /// over a bad line and a retry, and short for whoever steals it. At most 5 min.
    pub connect_token: Duration,
    /// The longest life that a backend may ask for, and so how long a rotated transport key has to be kept. Default, and at most, 5 min.
    pub longest_connect_token: Duration,
}

impl Default for SessionLives {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60 * 60),
            absolute: Duration::from_secs(24 * 60 * 60),
            session_token: Duration::from_secs(15 * 60),
            connect_token: Duration::from_secs(30),
            longest_connect_token: MAX_CONNECT_LIFE,
        }
    }
}

/// How many connect tokens a session may ask for in a minute, unless configured otherwise: a client that reconnects every second is
/// still served.
pub const DEFAULT_CONNECT_TOKENS_PER_MINUTE: u32 = 60;

/// How many refreshes a session may ask for in a minute, unless configured otherwise.
///
/// One is due each 9 to 12 min. A client that gets no answer asks again after 250 ms, 500 ms and then each second, of which chance may
/// take half, until the grace for a lost answer is nearly over (8 s): 18 questions in all, if each fails at once. So 30 leave room for
/// such a row and twelve more, and cost an honest client nothing.
pub const DEFAULT_REFRESHES_PER_MINUTE: u32 = 30;

/// The fewest that may be configured: the 18 of a row without an answer, and the one before it.
pub const MIN_REFRESHES_PER_MINUTE: u32 = 20;

/// The shortest life of anything: below it, clocks and networks decide.
pub(super) const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Where sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreChoice {
    /// In a local file; it is made if it is not there.
    Embedded(PathBuf),
    /// On a Redis server that many sidecars share. The sidecar's clock is put on that server's time.
    #[cfg(feature = "redis")]
    Redis(RedisSettings),
}

/// The ways to log in, beside dev login, and what they have to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    /// By a code that is mailed.
    pub otp: bool,
    /// By a key that the device holds.
    pub device_key: bool,
    /// By a link that is mailed.
    pub magic_link: bool,
    /// By e-mail address and password.
    pub password: bool,
    /// By OpenID Connect: whose identity tokens log players in. 16 at most; none: the method is switched off.
    pub oidc: Vec<OidcIssuer>,
    /// How long a mailed link logs in. Default 10 min, 15 at most.
    pub magic_link_life: Duration,
    /// How long after logging in a session may be used to link an account, take one away or change the e-mail address. Default 10 min, a day
    /// at most: long enough to get through such a dialogue, and of no use to whoever steals a token later.
    pub fresh_login: Duration,
    /// How often who may ask.
    pub limits: LoginLimits,
    /// Whom a device's signature is for: the name of this service, the same at every sidecar of it; 1 to 255 bytes.
    pub audience: String,
}

impl Default for LoginConfig {
    /// None of them: what lets people in is switched on by whoever knows whom.
    fn default() -> Self {
        Self {
            otp: false,
            device_key: false,
            magic_link: false,
            password: false,
            oidc: Vec::new(),
            magic_link_life: Duration::from_secs(10 * 60),
            fresh_login: Duration::from_secs(10 * 60),
            limits: LoginLimits::default(),
            audience: "tickgate".to_owned(),
        }
    }
}

/// How often in an hour who may ask, and at once. Development login and a backend's `CreateSession` are not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginLimits {
    /// Letters to one e-mail address. Default 5.
    pub per_email: NonZeroU32,
    /// Calls of one kind from one network address (IPv4, or IPv6 /64). Default 30.
    pub per_address: NonZeroU32,
    /// Changes to how one player logs in. Default 10.
    pub per_player: NonZeroU32,
    /// Proxies whose `x-forwarded-for` is believed. Default none.
    pub trusted_proxies: Vec<Network>,
}

impl Default for LoginLimits {
    fn default() -> Self {
        const fn limit(most: u32) -> NonZeroU32 {
            NonZeroU32::MIN.saturating_add(most - 1)
        }
        Self {
            per_email: limit(5),
            per_address: limit(30),
            per_player: limit(10),
            trusted_proxies: Vec::new(),
        }
    }
}

/// The longest name of a service, in bytes: that of a domain.
pub(crate) const LONGEST_AUDIENCE: usize = 255;

/// How long a link that logs in may be good.
pub(crate) const LONGEST_MAGIC_LINK: Duration = Duration::from_secs(15 * 60);

/// How long ago a log-in may be that counts as fresh.
pub(crate) const LONGEST_FRESH_LOGIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that [`Sidecar::start`](super::Sidecar::start) needs. It reads no other file, and no environment.
pub struct SidecarConfig {
    /// Development conveniences need [`Environment::Development`] and loopback addresses.
    pub environment: Environment,
    /// Where `AuthService` listens, for players and backends. Port 0: the system chooses.
    pub auth_listen: SocketAddr,
    /// Where `ControlService` listens, for gateways.
    pub control_listen: SocketAddr,
    /// Where `AdminService` listens, for backends and operators.
    pub admin_listen: SocketAddr,
    /// What the three listeners show.
    pub identity: Identity,
    /// Who signs the certificates of gateways, backends and operators.
    pub client_ca: Vec<CertificateDer<'static>>,
    /// Serve `AuthService` without TLS. A development convenience. The other two always have TLS, since certificates say who calls.
    pub plain_text: bool,
    /// Seal and open tokens. [`Sidecar::replace_keys`](super::Sidecar::replace_keys) changes them later.
    pub keys: TokenKeys,
    /// What the ways to log in keep is known by hashes under it. Whoever replaces it makes codes and links that are on their way
    /// worthless, which can be asked for again, and nothing else.
    pub login_key: LoginKey,
    /// The ways to log in.
    pub login: LoginConfig,
    /// How mail leaves. Needed by what is mailed.
    pub mail: Option<MailConfig>,
    /// How long sessions and tokens live.
    pub lives: SessionLives,
    /// How many connect tokens a player may ask for with one session in a minute, and at once. At least 1.
    pub connect_tokens_per_minute: u32,
    /// How many refreshes may be asked for with one session in a minute, and at once. At least [`MIN_REFRESHES_PER_MINUTE`].
    pub refreshes_per_minute: u32,
    /// Where sessions are kept.
    pub store: StoreChoice,
    /// The time.
    pub clock: Clock,
    /// Let anybody in by any name. A development convenience.
    pub dev_login: bool,
}

impl fmt::Debug for SidecarConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarConfig")
            .field("environment", &self.environment)
            .field("auth_listen", &self.auth_listen)
            .field("control_listen", &self.control_listen)
            .field("admin_listen", &self.admin_listen)
            .field("lives", &self.lives)
            .field("connect_tokens_per_minute", &self.connect_tokens_per_minute)
            .field("refreshes_per_minute", &self.refreshes_per_minute)
            .field("store", &self.store)
            .field("login", &self.login)
            .field("mail", &self.mail)
            .field("dev_login", &self.dev_login)
            .field("plain_text", &self.plain_text)
            .finish_non_exhaustive()
    }
}

/// Proof that the development conveniences are allowed here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convenient(());

impl SidecarConfig {
    /// Checks what must hold between the parts. Whether conveniences are allowed, if any is asked for.
    pub(super) fn check(&self) -> Result<Option<Convenient>, StartError> {
        self.lives.check()?;
        if self.connect_tokens_per_minute == 0 {
            return Err(StartError::Limit {
                name: "connect tokens per minute",
                allowed: "at least 1",
            });
        }
        if self.refreshes_per_minute < MIN_REFRESHES_PER_MINUTE {
            return Err(StartError::Limit {
                name: "refreshes per minute",
                allowed: "at least 20",
            });
        }
        let has_links = self.mail.as_ref().is_some_and(|mail| mail.link.is_some());
        for (method, is_on, can_mail) in [
            ("otp", self.login.otp, self.mail.is_some()),
            ("magic_link", self.login.magic_link, has_links),
            ("password", self.login.password, has_links),
        ] {
            if is_on && !can_mail {
                return Err(StartError::NoMail { method });
            }
        }
        if !(1..=LONGEST_AUDIENCE).contains(&self.login.audience.len()) {
            let (name, allowed) = ("login audience", "1 to 255 bytes");
            return Err(StartError::Limit { name, allowed });
        }
        if !(SHORTEST_LIFE..=LONGEST_MAGIC_LINK).contains(&self.login.magic_link_life) {
            let (name, allowed) = ("magic link life", "1 s to 15 min");
            return Err(StartError::Life { name, allowed });
        }
        if !(SHORTEST_LIFE..=LONGEST_FRESH_LOGIN).contains(&self.login.fresh_login) {
            let (name, allowed) = ("time for which a log-in is fresh", "1 s to 24 h");
            return Err(StartError::Life { name, allowed });
        }
        self.keys.check(self.login_key.id())?;
        self.conveniences()
    }

    fn conveniences(&self) -> Result<Option<Convenient>, StartError> {
        let spools = self
            .mail
            .as_ref()
            .is_some_and(|mail| matches!(mail.delivery, Delivery::Spool(_)));
        let convenience = match (self.dev_login, self.plain_text, spools) {
            (false, false, false) => return Ok(None),
            (true, ..) => "dev login",
            (false, true, _) => "plain text",
            (false, false, true) => "a mail spool",
        };
        if self.environment != Environment::Development {
            return Err(StartError::ConvenienceInProduction { convenience });
        }
        let exposed = [self.auth_listen, self.control_listen, self.admin_listen]
            .into_iter()
            .find(|address| !address.ip().is_loopback());
        match exposed {
            Some(address) => Err(StartError::ConvenienceExposed {
                convenience,
                address,
            }),
            None => Ok(Some(Convenient(()))),
        }
    }
}

impl SessionLives {
    fn check(&self) -> Result<(), StartError> {
        let Self {
            idle,
            absolute,
            session_token,
            connect_token,
            longest_connect_token,
        } = *self;
        let lives = [
            ("idle timeout", idle),
            ("absolute life", absolute),
            ("session token life", session_token),
            ("connect token life", connect_token),
        ];
        for (name, life) in lives {
            if life < SHORTEST_LIFE {
                let allowed = "at least 1 s";
                return Err(StartError::Life { name, allowed });
            }
        }
        for (name, life) in [
            ("connect token life", connect_token),
            ("longest connect token life", longest_connect_token),
        ] {
            if life > MAX_CONNECT_LIFE {
                let allowed = "at most 5 min";
                return Err(StartError::Life { name, allowed });
            }
        }
        if longest_connect_token < connect_token {
            let name = "longest connect token life";
            let allowed = "no shorter than that of connect tokens";
            return Err(StartError::Life { name, allowed });
        }
        Ok(())
    }

    /// What the store has to know of it.
    pub(super) fn for_store(&self) -> StoreLives {
        StoreLives {
            idle: self.idle,
            longest: self.absolute,
        }
    }
}
