//! What a sidecar has to be told, and what must hold between its parts.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use rustls::pki_types::CertificateDer;

use crate::{
    clock::Clock,
    store::StoreLives,
    tls::Identity,
    token::{
        MAX_CONNECT_LIFE, Purpose, RefreshKey, SessionKey, TransportMasterKey, ensure_unshared,
    },
};

#[cfg(feature = "redis")]
use crate::store::RedisSettings;

use super::StartError;

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
}

impl Default for SessionLives {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60 * 60),
            absolute: Duration::from_secs(24 * 60 * 60),
            session_token: Duration::from_secs(15 * 60),
            connect_token: Duration::from_secs(30),
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

/// A master transport key and its number: gateways tell keys apart by it while they rotate.
pub struct MasterKey {
    /// Counts the rotations.
    pub epoch: u32,
    /// The key that the keys of gateway processes derive from.
    pub key: TransportMasterKey,
}

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
    /// Seals session tokens.
    pub session_key: SessionKey,
    /// Opens what was sealed before the last rotation.
    pub previous_session_key: Option<SessionKey>,
    /// Seals refresh tokens.
    pub refresh_key: RefreshKey,
    /// Opens what was sealed before the last rotation; needed for as long as sessions live.
    pub previous_refresh_key: Option<RefreshKey>,
    /// The keys of gateway processes derive from it.
    pub transport_key: MasterKey,
    /// Its predecessor: gateways go on accepting what was sealed before the last rotation.
    pub previous_transport_key: Option<MasterKey>,
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
        let mut keys = vec![
            (Purpose::Session, self.session_key.id()),
            (Purpose::Refresh, self.refresh_key.id()),
            (Purpose::Connect, self.transport_key.key.id()),
        ];
        keys.extend(
            self.previous_session_key
                .iter()
                .map(|key| (Purpose::Session, key.id())),
        );
        keys.extend(
            self.previous_refresh_key
                .iter()
                .map(|key| (Purpose::Refresh, key.id())),
        );
        if let Some(previous) = &self.previous_transport_key {
            keys.push((Purpose::Connect, previous.key.id()));
            if previous.epoch == self.transport_key.epoch {
                return Err(StartError::SameEpoch(previous.epoch));
            }
        }
        ensure_unshared(&keys)?;
        self.conveniences()
    }

    fn conveniences(&self) -> Result<Option<Convenient>, StartError> {
        let convenience = match (self.dev_login, self.plain_text) {
            (false, false) => return Ok(None),
            (true, _) => "dev login",
            (false, true) => "plain text",
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
        if connect_token > MAX_CONNECT_LIFE {
            let (name, allowed) = ("connect token life", "at most 5 min");
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
