//! The operators' line to a sidecar: which one, with which certificate, and what its failures mean.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tickgate::{
    client::{Admin, CallError},
    config::{Config, Session, Sidecar},
    role::dev::DevJson,
    tls::{self, Identity},
};

use super::{
    Global,
    failure::{Exit, Failure},
};

/// Where `tickgate dev` keeps its state unless told otherwise.
pub(super) const DEV_STATE: &str = ".tickgate";

/// Which sidecar to ask, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which sidecar")]
pub(super) struct Line {
    /// Its AdminService, such as https://127.0.0.1:7802 [default: that of the development stack which runs in ./.tickgate, else
    /// [sidecar] admin_listen of the configuration]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,

    /// Who signed its certificate, PEM [default: ca.pem beside the operator's certificate]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The operator's certificate, PEM, which says tickgate://admin/<name> [default: admin.pem beside [sidecar] client_ca]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// The private key of that certificate, PEM [default: admin.key beside it]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// The state directory of a running `tickgate dev`
    #[arg(long, value_name = "DIR", conflicts_with = "admin")]
    state_dir: Option<PathBuf>,
}

/// Where a sidecar is, what to show it, and who says so.
#[derive(Debug)]
pub(super) struct Place {
    url: String,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    /// Where that was found, for errors.
    origin: String,
    /// How long its tokens live.
    pub(super) session: Session,
    /// Where the sidecar's own keys are.
    pub(super) sidecar: Sidecar,
}

impl Line {
    /// The sidecar that is meant: what is named counts, else a development stack that runs here, else the configuration.
    pub(super) fn place(&self, global: &Global) -> Result<Place, Failure> {
        let mut place = match self.development(global)? {
            Some(place) => place,
            None => Place::configured(global)?,
        };
        if let Some(url) = &self.admin {
            place.url.clone_from(url);
            "the command line".clone_into(&mut place.origin);
        }
        if let Some(certificate) = &self.cert {
            place.certificate.clone_from(certificate);
            place.key = certificate.with_extension("key");
            place.ca = certificate.with_file_name("ca.pem");
        }
        if let Some(key) = &self.key {
            place.key.clone_from(key);
        }
        if let Some(ca) = &self.ca {
            place.ca.clone_from(ca);
        }
        Ok(place)
    }

    fn development(&self, global: &Global) -> Result<Option<Place>, Failure> {
        let directory = match &self.state_dir {
            Some(directory) => directory.as_path(),
            // Something else is named.
            None if self.admin.is_some() || global.config.is_some() => return Ok(None),
            None => Path::new(DEV_STATE),
        };
        match DevJson::of_running(directory)? {
            Some(json) => Ok(Some(Place::of_development(directory, json, global)?)),
            None if self.state_dir.is_some() => Err(Failure::usage(anyhow::anyhow!(
                "no development stack runs in {}",
                directory.display()
            ))
            .advise(
                "start one with `tickgate dev --state-dir DIR`, or name the sidecar with --admin URL or --config PATH",
            )),
            None => Ok(None),
        }
    }

    /// A line to it; it connects on the first call.
    pub(super) fn connect(&self, global: &Global) -> Result<Operator, Failure> {
        Operator::at(self.place(global)?)
    }
}

impl Place {
    /// Another sidecar, to be shown the same certificate.
    pub(super) fn at(self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            origin: "the command line".to_owned(),
            ..self
        }
    }

    fn of_development(directory: &Path, json: DevJson, global: &Global) -> Result<Self, Failure> {
        let config = global.config()?.into_development(directory, true);
        Ok(Self {
            url: json.admin_url,
            ca: json.ca,
            certificate: json.admin_certificate,
            key: json.admin_key,
            origin: format!("the development stack in {}", directory.display()),
            session: config.session,
            sidecar: config.sidecar,
        })
    }

    fn configured(global: &Global) -> Result<Self, Failure> {
        let Config {
            session, sidecar, ..
        } = global.config()?;
        let origin = match global.config_path() {
            Some(path) => format!("[sidecar] admin_listen in {}", path.display()),
            None => "the default configuration".to_owned(),
        };
        Ok(Self {
            url: format!("https://{}", callable(sidecar.admin_listen)),
            ca: sidecar.client_ca.clone(),
            certificate: sidecar.client_ca.with_file_name("admin.pem"),
            key: sidecar.client_ca.with_file_name("admin.key"),
            origin,
            session,
            sidecar,
        })
    }
}

/// Where to call what listens there: an unspecified address is this machine's own.
fn callable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// A line to a sidecar, for calls one after the other.
pub(super) struct Operator {
    admin: Admin,
    place: Place,
    runtime: tokio::runtime::Runtime,
}

impl Operator {
    pub(super) fn at(place: Place) -> Result<Self, Failure> {
        let files = |error| Failure::usage(anyhow::Error::new(error)).advise(FILES);
        let ca = tls::load_certificates(&place.ca).map_err(files)?;
        let identity = Identity::load(&place.certificate, &place.key).map_err(files)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        // The line's background task belongs to the runtime.
        let within = runtime.enter();
        let admin = Admin::connect(&place.url, &ca, &identity)
            .map_err(|error| Failure::usage(error).advise(FILES))?;
        drop(within);
        Ok(Self {
            admin,
            place,
            runtime,
        })
    }

    /// Makes a call and waits for its answer.
    pub(super) fn call<'a, T, F>(&'a self, call: impl FnOnce(&'a Admin) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let answer = self.runtime.block_on(call(&self.admin));
        answer.map_err(|error| self.failure(error))
    }

    /// Waits before the next call.
    pub(super) fn pause(&self, time: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }

    fn failure(&self, error: CallError) -> Failure {
        let Place {
            url,
            certificate,
            origin,
            ..
        } = &self.place;
        let advice = match &error {
            CallError::Unreachable(_) | CallError::TimedOut => format!(
                "see that the sidecar runs and is the one meant: {url}, from {origin}; name another one with --admin URL"
            ),
            CallError::Unavailable(_) => {
                "see with `tickgate gateways list` whether the gateway is attached, and try again"
                    .to_owned()
            }
            CallError::Denied(_) | CallError::Unauthenticated(_) => format!(
                "show a certificate that says tickgate://admin/<name>, with --cert and --key; {} does not, or the sidecar's client_ca \
                has not signed it",
                certificate.display()
            ),
            CallError::NotFound(_) => {
                "look for the id with `tickgate sessions list --all` or `tickgate gateways list`"
                    .to_owned()
            }
            CallError::Invalid(_) => "correct the arguments".to_owned(),
            _ => "look at the sidecar's log".to_owned(),
        };
        let failure = match &error {
            CallError::Invalid(_) => Failure::usage(error),
            CallError::NotFound(_) => Failure::runtime(error).with_code(Exit::NotFound),
            _ => Failure::runtime(error),
        };
        failure.advise(advice)
    }
}

const FILES: &str = "name the operator's files with --ca, --cert and --key; for development `tickgate certs` makes them as ca.pem, \
    admin.pem and admin.key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_called_here() {
        for (listen, call) in [
            ("0.0.0.0:7802", "127.0.0.1:7802"),
            ("[::]:7802", "[::1]:7802"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(callable(listen.parse().unwrap()), call.parse().unwrap());
        }
    }
}
