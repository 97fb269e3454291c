//! Where the server is and how to log in there.

use std::{fmt, str::FromStr};

use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsCertificates};
use thiserror::Error;
use zeroize::Zeroizing;

/// The prefix of all keys, unless configured otherwise.
pub const DEFAULT_PREFIX: &str = "tickgate:";

/// A server's address: `redis://host:port/database`, or `rediss://` for TLS, with the user's name before the host if there is one. Never
/// a password: that one comes apart, so that this may be shown to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// A text that is no [`RedisUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidRedisUrl {
    /// It is none.
    #[error(
        "not a URL of the form redis://host:port/database, or rediss://host:port/database for TLS"
    )]
    Malformed,
    /// It has a password in it.
    #[error(
        "a password never stands in the URL: name the file or the environment variable that holds it"
    )]
    Password,
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let url = redis::parse_redis_url(text).ok_or(InvalidRedisUrl::Malformed)?;
        if url.password().is_some() {
            return Err(InvalidRedisUrl::Password);
        }
        let is_plain = url.query().is_none() && url.fragment().is_none();
        let is_known = matches!(url.scheme(), "redis" | "rediss") && url.has_host();
        if !is_plain || !is_known || text.into_connection_info().is_err() {
            return Err(InvalidRedisUrl::Malformed);
        }
        Ok(Self(text.to_owned()))
    }
}

impl RedisUrl {
    /// Whether what goes over the network is encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("rediss:")
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which server, and what there.
#[derive(Clone)]
pub struct RedisSettings {
    url: RedisUrl,
    prefix: String,
    password: Option<Zeroizing<String>>,
    ca: Option<Vec<u8>>,
}

impl PartialEq for RedisSettings {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            url,
            prefix,
            password,
            ca,
        } = self;
        (url, prefix, password, ca) == (&other.url, &other.prefix, &other.password, &other.ca)
    }
}

impl Eq for RedisSettings {}

impl RedisSettings {
    /// The server at `url`, without a password, under [`DEFAULT_PREFIX`].
    pub fn new(url: RedisUrl) -> Self {
        Self {
            url,
            prefix: DEFAULT_PREFIX.to_owned(),
            password: None,
            ca: None,
        }
    }

    /// The prefix of all keys: deployments that share a server must differ in it, or in the database. Default [`DEFAULT_PREFIX`].
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// The password of the user in the URL, or of the default user. Default none. Never shown.
    #[must_use]
    pub fn password(mut self, password: Zeroizing<String>) -> Self {
        self.password = Some(password);
        self
    }

    /// Who signs the server's certificate, PEM. Default: whom the system trusts.
    #[must_use]
    pub fn ca(mut self, pem: Vec<u8>) -> Self {
        self.ca = Some(pem);
        self
    }

    pub(super) fn url(&self) -> &RedisUrl {
        &self.url
    }

    pub(super) fn key_prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn client(&self) -> RedisResult<Client> {
        let mut info: ConnectionInfo = self.url.as_str().into_connection_info()?;
        if let Some(password) = &self.password {
            let login = info.redis_settings().clone();
            info = info.set_redis_settings(login.set_password(password.as_str()));
        }
        if !self.url.is_tls() {
            return Client::open(info);
        }
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: self.ca.clone(),
        };
        Client::build_with_tls(info, certificates)
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("url", &self.url.0)
            .field("prefix", &self.prefix)
            .field("password", &self.password.as_ref().map(|_| "[redacted]"))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_holds_no_password() {
        for good in [
            "redis://127.0.0.1:6379",
            "redis://tickgate@cache.internal:6379/3",
            "rediss://cache.internal:6380/0",
            "redis://[::1]:6379/",
        ] {
            let url: RedisUrl = good.parse().unwrap();
            assert_eq!(url.to_string(), good);
            assert_eq!(url.is_tls(), good.starts_with("rediss"));
        }
        let secret = "redis://:hunter2@127.0.0.1/".parse::<RedisUrl>();
        assert_eq!(secret, Err(InvalidRedisUrl::Password));
        for bad in [
            "",
            "127.0.0.1:6379",
            "http://127.0.0.1:6379",
            "redis+unix:///run/redis.sock",
            "redis://127.0.0.1:6379/not-a-number",
            "rediss://127.0.0.1:6379/#insecure",
        ] {
            let refused = bad.parse::<RedisUrl>();
            assert_eq!(refused, Err(InvalidRedisUrl::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let settings = RedisSettings::new("redis://127.0.0.1:6379".parse().unwrap())
            .password(Zeroizing::new("hunter2".to_owned()));
        assert!(!format!("{settings:?}").contains("hunter2"));
        let client = settings.client().unwrap();
        let login = client.get_connection_info().redis_settings();
        assert_eq!(login.password(), Some("hunter2"));
    }
}
