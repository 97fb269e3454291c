//! The values of how players come in: e-mail addresses, networks, mail relays, issuers of identity tokens.

use std::fmt;

use serde::{Deserialize, Deserializer, Serializer};

use super::Text;
use crate::sidecar::{EmailAddress, IssuerAddress, IssuerName, Network};

/// An e-mail address.
pub(in crate::config) mod email {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<EmailAddress, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "an e-mail address such as \"no-reply@example.com\"",
            parse: |text| text.parse().ok(),
        })
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        address: &EmailAddress,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }
}

/// A list of networks.
pub(in crate::config) mod networks {
    use super::*;

    #[derive(Deserialize)]
    struct Text(#[serde(deserialize_with = "one")] Network);

    fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
        deserializer.deserialize_str(super::Text {
            expected: "an IP address such as \"192.0.2.7\" or a network such as \"10.0.0.0/8\"",
            parse: |text| text.parse().ok(),
        })
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Network>, D::Error> {
        let networks = Vec::<Text>::deserialize(deserializer)?;
        Ok(networks.into_iter().map(|network| network.0).collect())
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        networks: &[Network],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(networks.iter().map(ToString::to_string))
    }
}

/// What an issuer is called.
pub(in crate::config) mod issuer_name {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<IssuerName, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "1 to 32 lower-case letters, digits, '-' and '_', such as \"google\", and not the name of another way to log in",
            parse: |text| text.parse().ok(),
        })
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        name: &IssuerName,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(name)
    }
}

/// Where an issuer is.
pub(in crate::config) mod issuer_address {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<IssuerAddress, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "an https URL without query and fragment such as \"https://accounts.google.com\", exactly as the issuer calls itself",
            parse: |text| text.parse().ok(),
        })
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        address: &IssuerAddress,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }
}

/// Whom mail is from when nobody said.
#[expect(
    clippy::expect_used,
    reason = "a literal, which every test of the default configuration parses"
)]
pub(in crate::config) fn default_sender() -> EmailAddress {
    "no-reply@localhost".parse().expect("a valid address")
}

/// A mail relay: `smtps://host:port` (TLS from the first byte) or `smtp://host:port` (STARTTLS, or nothing at all on loopback).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailRelay {
    /// Whether TLS comes first.
    pub implicit_tls: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl MailRelay {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let implicit_tls = match scheme {
            "smtps" => true,
            "smtp" => false,
            _ => return None,
        };
        let (host, port) = authority.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host).to_owned();
        rustls::pki_types::ServerName::try_from(host.as_str()).ok()?;
        let port = port.parse().ok()?;
        Some(Self {
            implicit_tls,
            host,
            port,
        })
    }

    /// Whether it is on this very machine.
    pub fn is_loopback(&self) -> bool {
        crate::sidecar::is_loopback(&self.host)
    }
}

impl fmt::Display for MailRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.implicit_tls { "smtps" } else { "smtp" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// A mail relay, or none, which is the empty text.
pub(in crate::config) mod optional_relay {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<MailRelay>, D::Error> {
        deserializer.deserialize_str(Text {
            expected: "a relay such as \"smtps://mail.example.com:465\" or \"smtp://mail.example.com:587\", or \"\" for none",
            parse: |text| match text {
                "" => Some(None),
                _ => MailRelay::parse(text).map(Some),
            },
        })
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        relay: &Option<MailRelay>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match relay {
            Some(relay) => serializer.collect_str(relay),
            None => serializer.serialize_str(""),
        }
    }
}
