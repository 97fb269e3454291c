//! The last step of a letter: to a relay by SMTP, or into a folder.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message as Email, Tokio1Executor,
    transport::smtp::{
        self,
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
    },
};
use tokio::io::AsyncWriteExt;

use crate::{clock::Timestamp, sidecar::login::draw};

use super::{Delivery, MailError, SmtpConfig, SmtpSecurity};

/// How long a connection to the relay may take; the whole conversation is bounded by whoever delivers. RFC 5321 (section 4.5.3.2) grants minutes, but a code is good for ten.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a letter was not delivered. The relay's own words are not repeated: they may quote the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may be delivered later. `status` is the relay's, or 0.
    ForNow { reason: &'static str, status: u16 },
    /// It never will be, as the relay says.
    Final { status: u16 },
}

/// The way letters leave.
pub(in crate::sidecar) enum Transport {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    Spool(PathBuf),
}

impl Transport {
    pub(super) fn new(delivery: Delivery) -> Result<Self, MailError> {
        match delivery {
            Delivery::Smtp(config) => smtp_transport(config).map(|smtp| Self::Smtp(Box::new(smtp))),
            Delivery::Spool(path) => {
                let made = make_private(&path);
                made.map_err(|source| MailError::Spool {
                    path: path.clone(),
                    source,
                })?;
                Ok(Self::Spool(path))
            }
        }
    }

    pub(super) async fn deliver(&self, email: &Email, now: Timestamp) -> Result<(), Failure> {
        match self {
            Self::Smtp(smtp) => match smtp.send(email.clone()).await {
                Ok(_) => Ok(()),
                Err(error) => Err(failure(&error)),
            },
            Self::Spool(folder) => spool(folder, email, now).await.map_err(|error| {
                tracing::debug!(%error, "the mail spool cannot be written");
                Failure::ForNow {
                    reason: "spool",
                    status: 0,
                }
            }),
        }
    }
}

fn smtp_transport(config: SmtpConfig) -> Result<AsyncSmtpTransport<Tokio1Executor>, MailError> {
    let SmtpConfig {
        host,
        port,
        security,
        credentials,
        ca,
    } = config;
    let tls = match security {
        SmtpSecurity::Plain if is_loopback(&host) => Tls::None,
        SmtpSecurity::Plain => return Err(MailError::PlainText),
        SmtpSecurity::Tls => Tls::Wrapper(tls_parameters(&host, ca)?),
        SmtpSecurity::StartTls => Tls::Required(tls_parameters(&host, ca)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port)
        .timeout(Some(PATIENCE))
        .tls(tls);
    if let Some((user, password)) = credentials {
        builder = builder.credentials(Credentials::new(user, password.to_string()));
    }
    Ok(builder.build())
}

fn tls_parameters(
    host: &str,
    ca: Vec<rustls::pki_types::CertificateDer<'static>>,
) -> Result<TlsParameters, MailError> {
    let mut parameters = TlsParameters::builder(host.to_owned());
    if !ca.is_empty() {
        parameters = parameters.certificate_store(CertificateStore::None);
    }
    for certificate in ca {
        let certificate = Certificate::from_der(certificate.to_vec());
        parameters = parameters.add_root_certificate(certificate.map_err(|_| MailError::Tls)?);
    }
    parameters.build_rustls().map_err(|_| MailError::Tls)
}

/// Whether a name or address is this very machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn failure(error: &smtp::Error) -> Failure {
    let status = error.status().map_or(0, u16::from);
    if error.is_permanent() {
        return Failure::Final { status };
    }
    let reason = if error.is_transient() {
        "relay_busy"
    } else if error.is_timeout() {
        "timeout"
    } else if error.is_tls() {
        "tls"
    } else if error.is_response() {
        "not_smtp"
    } else if error.is_client() {
        "relay_too_simple"
    } else {
        "unreachable"
    };
    Failure::ForNow { reason, status }
}

/// One file for each letter, named by its time and at random, and there whole or not at all.
async fn spool(folder: &std::path::Path, email: &Email, now: Timestamp) -> io::Result<()> {
    let random = draw::text::<8>().map_err(|_| io::ErrorKind::Other)?;
    let name = format!("{}-{}.eml", now.0, *random);
    let (beside, place) = (folder.join(format!(".{name}")), folder.join(name));
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(&beside).await?;
    file.write_all(&email.formatted()).await?;
    file.flush().await?;
    tokio::fs::rename(beside, place).await
}

fn make_private(path: &std::path::Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
