//! What has to be known of an issuer of identity tokens, and what is wrong with it.

use std::{fmt, str::FromStr};

use openidconnect::IssuerUrl;
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use crate::sidecar::login::{EMAIL, Methods};

/// The longest name of an issuer, in bytes.
const MAX_NAME: usize = 32;

/// The longest URL of an issuer, in bytes.
const MAX_URL: usize = 255;

/// The most client ids of one issuer: one for each of a game's platforms, and as many again.
pub const MAX_CLIENT_IDS: usize = 16;

/// The longest client id, in bytes. Google's have about 70.
const MAX_CLIENT_ID: usize = 255;

/// The most issuers.
pub const MAX_ISSUERS: usize = 16;

/// What an issuer is called here: 1 to 32 lower-case letters, digits, '-' and '_', and not the name of another way to log in.
///
/// It stands before the issuer's own name for an account, which is no other issuer's: so it stays the same for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerName(String);

/// A text that is no [`IssuerName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "1 to 32 lower-case letters, digits, '-' and '_', such as google, and not the name of another way to log in"
)]
pub struct InvalidIssuerName;

impl IssuerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Google's, unless configured otherwise.
    pub fn google() -> Self {
        Self("google".to_owned())
    }
}

impl FromStr for IssuerName {
    type Err = InvalidIssuerName;

    fn from_str(text: &str) -> Result<Self, InvalidIssuerName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let is_sound = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(plain);
        // An issuer of such a name could say who somebody is who logs in otherwise. (A backend's and an operator's have a '/'.)
        let is_taken = text == EMAIL || Methods::NAMES.contains(&text);
        (is_sound && !is_taken)
            .then(|| Self(text.to_owned()))
            .ok_or(InvalidIssuerName)
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an issuer is, as it calls itself: `https`, without query and fragment (OpenID Connect Discovery 1.0, section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerAddress(IssuerUrl);

/// A text that is no [`IssuerAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an https URL without query and fragment, such as https://accounts.google.com")]
pub struct InvalidIssuerAddress;

impl IssuerAddress {
    /// Google's, unless configured otherwise.
    #[expect(
        clippy::expect_used,
        reason = "a literal, which every test of the default configuration parses"
    )]
    pub fn google() -> Self {
        let url = "https://accounts.google.com".parse();
        url.expect("a valid issuer")
    }

    pub(super) fn url(&self) -> &IssuerUrl {
        &self.0
    }
}

impl FromStr for IssuerAddress {
    type Err = InvalidIssuerAddress;

    fn from_str(text: &str) -> Result<Self, InvalidIssuerAddress> {
        if text.len() > MAX_URL {
            return Err(InvalidIssuerAddress);
        }
        let url = IssuerUrl::new(text.to_owned()).map_err(|_| InvalidIssuerAddress)?;
        let parsed = url.url();
        let is_bare = parsed.query().is_none() && parsed.fragment().is_none();
        let is_public = parsed.username().is_empty() && parsed.password().is_none();
        (parsed.scheme() == "https" && is_bare && is_public)
            .then_some(Self(url))
            .ok_or(InvalidIssuerAddress)
    }
}

impl fmt::Display for IssuerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An issuer whose identity tokens log players in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcIssuer {
    /// What it is called here.
    pub name: IssuerName,
    /// Where it is.
    pub issuer: IssuerAddress,
    /// The ids under which it knows this game: 1 to 16. A token that is for anybody else is refused.
    pub client_ids: Vec<String>,
    /// Who has signed its certificate; empty: whom this machine trusts.
    pub ca: Vec<CertificateDer<'static>>,
}

/// Whether these are as many client ids as there may be, and each is one.
pub fn are_client_ids(ids: &[String]) -> bool {
    let is_one = |id: &String| {
        (1..=MAX_CLIENT_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
    };
    (1..=MAX_CLIENT_IDS).contains(&ids.len()) && ids.iter().all(is_one)
}

/// Why nobody can log in by an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OidcError {
    /// It has no client ids, too many, or one that is none.
    #[error("issuer {0} needs 1 to 16 client ids, of printable ASCII without spaces")]
    ClientIds(IssuerName),
    /// Two issuers have one name: the accounts of one would be those of the other.
    #[error("two issuers are called {0}")]
    SameName(IssuerName),
    /// Too many issuers.
    #[error("{0} issuers are more than 16")]
    TooMany(usize),
    /// Nobody's certificate could be trusted.
    #[error(
        "nobody is known who could have signed the certificate of issuer {0}: name a file of CA certificates, or install this machine's (ca-certificates)"
    )]
    NoAuthority(IssuerName),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up for issuer {0}")]
    Tls(IssuerName),
}

impl OidcError {
    /// The error's fixed name in logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ClientIds(_) => "oidc_client_ids",
            Self::SameName(_) => "oidc_same_name",
            Self::TooMany(_) => "oidc_too_many",
            Self::NoAuthority(_) => "oidc_no_authority",
            Self::Tls(_) => "oidc_tls",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_plain_and_nobody_elses() {
        assert_eq!("google".parse(), Ok(IssuerName::google()));
        for good in ["a", "my-idp_2", &"x".repeat(32)] {
            assert_eq!(good.parse::<IssuerName>().unwrap().as_str(), good);
        }
        for bad in [
            "", "Google", "a b", "a/b", "ä", "email", "dev", "otp", "password", "oidc",
        ] {
            assert!(bad.parse::<IssuerName>().is_err(), "{bad}");
        }
        assert!("x".repeat(33).parse::<IssuerName>().is_err());
    }

    #[test]
    fn an_issuer_is_reached_over_tls_and_named_as_it_names_itself() {
        for good in [
            &IssuerAddress::google().to_string(),
            "https://login.example.com/tenant/v2.0",
            "https://127.0.0.1:8443",
        ] {
            let address: IssuerAddress = good.parse().unwrap();
            assert_eq!(address.to_string(), good);
        }
        for bad in [
            "",
            "accounts.google.com",
            "http://accounts.google.com",
            "https://example.com?tenant=1",
            "https://example.com/#a",
            "https://user@example.com",
            "https://user:password@example.com",
            "file:///etc/passwd",
        ] {
            assert!(bad.parse::<IssuerAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn client_ids_are_some_and_not_many() {
        let ids = |ids: &[&str]| {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            are_client_ids(&ids)
        };
        assert!(ids(&["1234-abc.apps.googleusercontent.com"]));
        assert!(ids(&["a"; MAX_CLIENT_IDS]));
        for bad in [&[][..], &["a"; MAX_CLIENT_IDS + 1], &[""], &["a b"]] {
            assert!(!ids(bad), "{bad:?}");
        }
    }
}
