//! The values of the configuration that TOML has no type for: durations, sizes, addresses, where a key comes from.
//!
//! Each is parsed once, here, and says what it expects. None repeats a text that could be a secret.

mod entering;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
};

use crate::id::GatewayId;

pub use entering::MailRelay;
pub(super) use entering::{
    default_sender, email, issuer_address, issuer_name, networks, optional_relay,
};

/// Reads a string through `parse`; the error names what was `expected`.
struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// Durations as people write them: `500ms`, `30s`, `1h 30m`.
pub(super) mod duration {
    use std::time::Duration;

    use super::*;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "a duration such as \"500ms\", \"30s\", \"15m\" or \"1h 30m\"",
            parse: |text| humantime::parse_duration(text).ok(),
        })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }
}

/// Durations that may also be without end: `never`.
pub(super) mod duration_or_never {
    use std::time::Duration;

    use super::*;

    const NEVER: &str = "never";

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "\"never\" or a duration such as \"30s\", \"15m\" or \"1h 30m\"",
            parse: |text| match text {
                NEVER => Some(None),
                _ => humantime::parse_duration(text).ok().map(Some),
            },
        })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_str(NEVER),
        }
    }
}

const ADDRESS: &str = "an IP address and a port such as \"127.0.0.1:7800\" or \"[::1]:7800\"";

/// A socket address.
pub(super) mod address {
    use std::net::SocketAddr;

    use super::*;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SocketAddr, D::Error> {
        deserializer.deserialize_str(Text {
            expected: ADDRESS,
            parse: |text| text.parse().ok(),
        })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        address: &SocketAddr,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }
}

/// A socket address, or none, which is the empty text.
pub(super) mod optional_address {
    use std::net::SocketAddr;

    use super::*;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "an IP address and a port such as \"127.0.0.1:7803\", or \"\" for none",
            parse: |text| match text {
                "" => Some(None),
                _ => text.parse().ok().map(Some),
            },
        })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }
}

/// A path, or none, which is the empty text.
pub(super) mod optional_path {
    use super::*;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }

    pub(in super::super) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_deref()
            .unwrap_or(Path::new(""))
            .serialize(serializer)
    }
}

/// Where a key comes from, or none, which is the empty text.
pub(super) mod optional_key {
    use super::*;

    struct Optional;

    impl<'de> Visitor<'de> for Optional {
        type Value = Option<KeySource>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("{ file = \"path\" }, { env = \"NAME\" }, or \"\" for none")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            match text {
                "" => Ok(None),
                _ => KeySourceVisitor.visit_str(text).map(Some),
            }
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            KeySourceVisitor.visit_map(map).map(Some)
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<KeySource>, D::Error> {
        deserializer.deserialize_any(Optional)
    }

    pub(in super::super) fn serialize<S: Serializer>(
        source: &Option<KeySource>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match source {
            Some(source) => source.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }
}

/// A list of socket addresses.
pub(super) mod addresses {
    use std::net::SocketAddr;

    use super::*;

    #[derive(Deserialize)]
    struct Address(#[serde(with = "address")] SocketAddr);

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SocketAddr>, D::Error> {
        let addresses = Vec::<Address>::deserialize(deserializer)?;
        Ok(addresses.into_iter().map(|address| address.0).collect())
    }

    pub(in super::super) fn serialize<S: Serializer>(
        addresses: &[SocketAddr],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(addresses.iter().map(ToString::to_string))
    }
}

/// A gateway's id.
pub(super) mod gateway_id {
    use super::*;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<GatewayId, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "1 to 63 lower-case letters, digits, '-' and '.'",
            parse: |text| text.parse().ok(),
        })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        id: &GatewayId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }
}

/// The id of a gateway that nobody named.
#[expect(
    clippy::expect_used,
    reason = "a literal, which every test of the default configuration parses"
)]
pub(super) fn default_gateway_id() -> GatewayId {
    "gateway-1".parse().expect("a valid gateway id")
}

/// A number of bytes, written as `65536`, `64KiB`, `4MiB` or `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, unit): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*unit);
        match UNITS.iter().find(whole) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Size {
    /// The size, for what counts memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        let suffix = |(name, unit): &(&str, u64)| Some((text.strip_suffix(name)?, *unit));
        let (digits, unit) = UNITS.iter().find_map(suffix).unwrap_or((text, 1));
        let number: u64 = digits.trim_end().parse().ok()?;
        number.checked_mul(unit).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "a size such as \"64KiB\" or \"4MiB\"",
            parse: Self::parse,
        })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the sidecar keeps sessions and revocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// In one file that the sidecar alone opens.
    Embedded(PathBuf),
    /// On the Redis server of `[sidecar.redis]`, which other sidecars may share.
    Redis,
}

impl Default for Store {
    fn default() -> Self {
        Self::Embedded("data/store.redb".into())
    }
}

impl Store {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "embedded" => Some(Self::default()),
            "redis" => Some(Self::Redis),
            // A URL has a section of its own, and must not become a file of that name.
            "" => None,
            _ if text.contains("://") => None,
            _ => Some(Self::Embedded(text.into())),
        }
    }
}

impl<'de> Deserialize<'de> for Store {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "\"embedded\", \"redis\" or the path of the store's file",
            parse: Self::parse,
        })
    }
}

impl Serialize for Store {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Embedded(path) => path.serialize(serializer),
            Self::Redis => serializer.serialize_str("redis"),
        }
    }
}

/// The URL of a Redis server.
pub(super) mod redis_url {
    use super::*;
    use crate::store::RedisUrl;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RedisUrl, D::Error> {
        // What is wrong with a URL is told without it: somebody will put a password there.
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }

    pub(in super::super) fn serialize<S: Serializer>(
        url: &RedisUrl,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(url)
    }

    /// A server on this machine.
    #[expect(
        clippy::expect_used,
        reason = "a literal, which every test of the default configuration parses"
    )]
    pub(in super::super) fn default() -> RedisUrl {
        "redis://127.0.0.1:6379/0".parse().expect("a valid URL")
    }
}

/// Where a gateway finds the sidecar's control listener: `https://host:port`. Always TLS: the certificate is who the gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarUrl {
    host: String,
    port: u16,
}

/// A text that is no [`SidecarUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of the form https://host:port")]
pub struct InvalidSidecarUrl;

impl SidecarUrl {
    /// The control listener of a sidecar on this machine.
    pub fn loopback(port: u16) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    /// The host: a name or an IP address (IPv6 in brackets).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for SidecarUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

impl FromStr for SidecarUrl {
    type Err = InvalidSidecarUrl;

    fn from_str(text: &str) -> Result<Self, InvalidSidecarUrl> {
        let authority = text.strip_prefix("https://").ok_or(InvalidSidecarUrl)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':').ok_or(InvalidSidecarUrl)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        // The same rule as TLS has for what a certificate may name.
        rustls::pki_types::ServerName::try_from(bare).map_err(|_| InvalidSidecarUrl)?;
        Ok(Self {
            host: host.to_owned(),
            port: port.parse().map_err(|_| InvalidSidecarUrl)?,
        })
    }
}

impl<'de> Deserialize<'de> for SidecarUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "a URL such as \"https://127.0.0.1:7801\" (the control channel is always TLS)",
            parse: |text| text.parse().ok(),
        })
    }
}

impl Serialize for SidecarUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a secret key comes from. The key itself never stands in the configuration, so what is there can be shown to anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// A file that holds the key's PASERK text.
    File(PathBuf),
    /// An environment variable that holds it, by name.
    Env(String),
}

impl KeySource {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Env(_) => None,
        }
    }

    pub(super) fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Env(_) => None,
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

const NEVER_INLINE: &str = "a key never stands in the configuration";

impl<'de> Deserialize<'de> for KeySource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `any`, so that a key pasted in place of its source is met by `visit_str` and not echoed by a type error.
        deserializer.deserialize_any(KeySourceVisitor)
    }
}

struct KeySourceVisitor;

impl<'de> Visitor<'de> for KeySourceVisitor {
    type Value = KeySource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("either { file = \"path\" } or { env = \"NAME\" }")
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<KeySource, E> {
        Err(E::custom(NEVER_INLINE))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeySource, A::Error> {
        let mut sources = Vec::new();
        while let Some(kind) = map.next_key::<String>()? {
            let text: String = map.next_value()?;
            sources.push(key_source(&kind, text).map_err(de::Error::custom)?);
        }
        match <[KeySource; 1]>::try_from(sources) {
            Ok([source]) => Ok(source),
            Err(_) => Err(de::Error::custom(
                "a key comes from exactly one place, `file` or `env`",
            )),
        }
    }
}

fn key_source(kind: &str, text: String) -> Result<KeySource, &'static str> {
    let name_of_variable = |text: &str| {
        !text.starts_with(|c: char| c.is_ascii_digit())
            && !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match kind {
        _ if text.starts_with("k4.") => Err(NEVER_INLINE),
        "file" if text.is_empty() => Err("`file` is empty"),
        "file" => Ok(KeySource::File(text.into())),
        "env" if name_of_variable(&text) => Ok(KeySource::Env(text)),
        "env" => Err("`env` is not the name of an environment variable"),
        _ => Err("a key comes from `file` or `env`, and from nowhere else"),
    }
}
