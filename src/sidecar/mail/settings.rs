//! How mail leaves the sidecar.

use std::{fmt, io, path::PathBuf};

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::sidecar::EmailAddress;

/// How mail leaves the sidecar, and what it says of itself.
#[derive(Debug, Clone)]
pub struct MailConfig {
    /// Whom it is from.
    pub from: EmailAddress,
    /// What the game is called in it: 1 to 64 bytes without control characters.
    pub game: String,
    /// Where links lead: the studio's page, or the game itself (`mygame://login`). What follows is `#purpose=…&token=…`. Needed by what
    /// mails links. Printable ASCII without `#`, `<`, `>`, `"` and spaces.
    pub link: Option<String>,
    /// The way it leaves.
    pub delivery: Delivery,
}

/// The longest name of a game in bytes, so that it and what stands around it fit into a subject line.
const LONGEST_GAME: usize = 64;

impl MailConfig {
    /// Whether letters can be written with it.
    pub(super) fn check(&self) -> Result<(), MailError> {
        let is_short = (1..=LONGEST_GAME).contains(&self.game.len());
        if !is_short || self.game.chars().any(char::is_control) {
            return Err(MailError::Game);
        }
        let fit = |byte: u8| byte.is_ascii_graphic() && !b"#<>\"".contains(&byte);
        let is_fit = |link: &String| !link.is_empty() && link.bytes().all(fit);
        match self.link.as_ref().is_none_or(is_fit) {
            true => Ok(()),
            false => Err(MailError::Link),
        }
    }
}

/// The way mail leaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Delivery {
    /// A file for each letter (`.eml`, mode 0600) in this folder, which is made if it is not there. A development convenience.
    Spool(PathBuf),
    /// Handed to a relay.
    Smtp(SmtpConfig),
}

/// A mail relay.
#[derive(Clone)]
pub struct SmtpConfig {
    /// Its name, which its certificate must have, or its address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the line to it is kept private.
    pub security: SmtpSecurity,
    /// User and password, if it wants them.
    pub credentials: Option<(String, Zeroizing<String>)>,
    /// Who has signed its certificate; empty: whom this machine trusts.
    pub ca: Vec<CertificateDer<'static>>,
}

/// How the line to a relay is kept private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// TLS from the first byte (RFC 8314): port 465.
    Tls,
    /// TLS after STARTTLS (RFC 3207), and nothing without it: port 587.
    StartTls,
    /// None, for a relay on this very machine: a loopback address.
    Plain,
}

impl fmt::Debug for SmtpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            security,
            credentials,
            ca,
        } = self;
        f.debug_struct("SmtpConfig")
            .field("host", host)
            .field("port", port)
            .field("security", security)
            .field("user", &credentials.as_ref().map(|(user, _)| user))
            .field("ca", &ca.len())
            .finish()
    }
}

/// Why mail cannot leave.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MailError {
    /// The line would not be private.
    #[error("mail leaves this machine without TLS: use TLS, or a relay on a loopback address")]
    PlainText,
    /// TLS cannot be set up for this relay.
    #[error("TLS cannot be set up for the mail relay: check its name and smtp_ca")]
    Tls,
    /// What the game is called does not fit into a letter's head.
    #[error("what the game is called in letters is 1 to 64 bytes without control characters")]
    Game,
    /// Where links are to lead does not fit into a letter.
    #[error(
        "where links in letters lead is printable ASCII without '#', '<', '>', '\"' and spaces"
    )]
    Link,
    /// The spool folder cannot be made.
    #[error("the mail spool {} cannot be made", path.display())]
    Spool {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl MailError {
    /// The error's fixed name in logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::PlainText => "mail_plain_text",
            Self::Tls => "mail_tls",
            Self::Game => "mail_game",
            Self::Link => "mail_link",
            Self::Spool { .. } => "mail_spool",
        }
    }
}
