//! The sidecar from its configuration.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::pki_types::CertificateDer;

use super::{
    Asked, Reread, RoleError,
    files::Files,
    make_parent_directory,
    metrics::{MetricsPort, MetricsServer},
    run::{Changeable, told_of},
};
use crate::{
    admin::{FileGroup, FileHealth, WithFiles},
    clock::Clock,
    config::{self, Config, Environment, Issuer, Login, LoginMethod, Mail, SidecarKeys, Store},
    sidecar::{
        self, Delivery, LoginConfig, LoginLimits, MailConfig, OidcIssuer, SessionLives, Sidecar,
        SidecarConfig, SmtpConfig, SmtpSecurity, StoreChoice, TokenKeys,
    },
    tls::{self, Identity},
};

/// What a sidecar changes while it runs: its certificates, and the keys of tokens.
const CHANGEABLE: Changeable = Changeable {
    of_others: &["gateway", "seat", "demo"],
    keys: &[
        "sidecar.certificate",
        "sidecar.key",
        "sidecar.client_ca",
        "sidecar.session_key",
        "sidecar.previous_session_key",
        "sidecar.refresh_key",
        "sidecar.previous_refresh_key",
        "sidecar.transport_key",
    ],
};

/// Runs a sidecar until it is asked to end.
///
/// # Errors
/// [`RoleError`]; nothing runs then.
pub async fn run_sidecar(
    config: Config,
    asked: &Asked,
    reread: &dyn Reread,
) -> Result<(), RoleError> {
    let mut running = config;
    let mut files = Files::watch(watched(&running));
    let sidecar = SidecarRole::start(&running, Clock::system()).await?;
    loop {
        tokio::select! {
            biased;
            () = asked.stop_now.cancelled() => return Err(RoleError::Cut),
            () = asked.stop.cancelled() => break,
            () = asked.reload.notified() => {
                CHANGEABLE.reload(&mut running, reread, |new| sidecar.reload(new));
                files.follow(watched(&running));
            }
            changed = files.changed() => sidecar.reload_changed(changed, &running),
        }
    }
    tokio::select! {
        ended = sidecar.shutdown() => ended,
        () = asked.stop_now.cancelled() => Err(RoleError::Cut),
    }
}

/// A running sidecar with its metrics. Dropped, it cuts all connections at once.
pub struct SidecarRole {
    sidecar: Sidecar,
    files: Arc<FileHealth>,
    metrics: Option<MetricsServer>,
}

impl SidecarRole {
    /// Starts a sidecar from `[session]` and `[sidecar]`, with the keys and certificates that these name. Needs to be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`RoleError`]; nothing runs then.
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, RoleError> {
        // Before it makes keys: whoever changed the configuration in code is held to the same rules.
        config.check()?;
        let port = MetricsPort::bind(config.sidecar.metrics_listen)?;
        let sidecar = Sidecar::start(sidecar_config(config, clock)?).await?;
        let files = Arc::new(FileHealth::default());
        let told = WithFiles::new(sidecar.metrics(), Arc::clone(&files), "sidecar");
        let metrics = port.map(|port| port.serve(Arc::new(told)));
        if let Some(metrics) = &metrics {
            tracing::info!(address = %metrics.address(), "the sidecar tells metrics and health");
        }
        Ok(Self {
            sidecar,
            files,
            metrics,
        })
    }

    /// The sidecar.
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// Where it tells metrics and health.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Shows the certificate that `config` names from now on, and believes the callers whom its CA signs; connections that are there
    /// stay as they are. Seals and opens tokens with the keys that it names.
    ///
    /// # Errors
    /// [`RoleError::Tls`], [`RoleError::Key`] or [`RoleError::Keys`]; nothing has changed then.
    pub fn reload(&self, config: &Config) -> Result<(), RoleError> {
        let (identity, client_ca) = self.noted(FileGroup::Certificates, certificates(config))?;
        let keys = self.noted(FileGroup::Keys, token_keys(config))?;
        let replaced = self.sidecar.reload_tls(identity, client_ca);
        self.noted(FileGroup::Certificates, replaced.map_err(RoleError::from))?;
        // What could be wrong with the keys was looked at as they were read.
        self.noted(FileGroup::Keys, self.replace_keys(keys))?;
        self.files.loaded(FileGroup::Keys);
        self.files.loaded(FileGroup::Certificates);
        Ok(())
    }

    /// Puts what the files of one group hold now in force. If that cannot be used, what was in force before stays so, and the log, a
    /// metric and `/ready` say it.
    pub fn reload_changed(&self, group: FileGroup, config: &Config) {
        let reloaded = match group {
            FileGroup::Certificates => certificates(config).and_then(|(identity, client_ca)| {
                self.sidecar.reload_tls(identity, client_ca)?;
                Ok(())
            }),
            FileGroup::Keys => token_keys(config).and_then(|keys| self.replace_keys(keys)),
        };
        told_of(group, &self.files, reloaded);
    }

    fn replace_keys(&self, keys: TokenKeys) -> Result<(), RoleError> {
        self.sidecar.replace_keys(keys)?;
        Ok(())
    }

    /// Takes note of files that cannot be used.
    fn noted<T>(&self, group: FileGroup, used: Result<T, RoleError>) -> Result<T, RoleError> {
        used.inspect_err(|_| self.files.refused(group))
    }

    /// Stops: lets calls that are under way finish for 2 s, and closes the store.
    ///
    /// # Errors
    /// [`RoleError::Store`]: the last activity is lost; everything that was acknowledged is safe.
    pub async fn shutdown(self) -> Result<(), RoleError> {
        let Self {
            sidecar,
            files: _,
            metrics,
        } = self;
        let closed = sidecar.shutdown().await;
        if let Some(metrics) = metrics {
            metrics.shutdown().await;
        }
        Ok(closed?)
    }
}

/// The files of a sidecar that may change while it runs.
pub(super) fn watched(config: &Config) -> [(FileGroup, Vec<PathBuf>); 2] {
    let sidecar = &config.sidecar;
    let certificates = [&sidecar.certificate, &sidecar.key, &sidecar.client_ca];
    let keys = sidecar.key_files().map(Path::to_owned).collect();
    [
        (
            FileGroup::Certificates,
            certificates.map(PathBuf::clone).to_vec(),
        ),
        (FileGroup::Keys, keys),
    ]
}

/// The keys as they are now. None is made up while a sidecar runs: a file that has gone is a mistake.
fn token_keys(config: &Config) -> Result<TokenKeys, RoleError> {
    let sidecar = config::Sidecar {
        generate_keys: false,
        ..config.sidecar.clone()
    };
    // The login key takes effect at the next start.
    Ok(sidecar.load_keys()?.tokens)
}

fn certificates(config: &Config) -> Result<(Identity, Vec<CertificateDer<'static>>), RoleError> {
    let sidecar = &config.sidecar;
    let identity = Identity::load(&sidecar.certificate, &sidecar.key)?;
    Ok((identity, tls::load_certificates(&sidecar.client_ca)?))
}

fn sidecar_config(config: &Config, clock: Clock) -> Result<SidecarConfig, RoleError> {
    let (lives, sidecar) = (&config.session, &config.sidecar);
    let SidecarKeys { tokens, login } = sidecar.load_keys()?;
    let (identity, client_ca) = certificates(config)?;
    let store = match &sidecar.store {
        Store::Embedded(path) => {
            make_parent_directory(path)?;
            StoreChoice::Embedded(path.clone())
        }
        Store::Redis => StoreChoice::Redis(sidecar.redis_settings()?),
    };
    Ok(SidecarConfig {
        environment: match config.environment {
            Environment::Production => sidecar::Environment::Production,
            Environment::Development => sidecar::Environment::Development,
        },
        auth_listen: sidecar.auth_listen,
        control_listen: sidecar.control_listen,
        admin_listen: sidecar.admin_listen,
        identity,
        client_ca,
        plain_text: sidecar.plain_text,
        keys: tokens,
        login_key: login,
        login: login_config(&sidecar.login)?,
        mail: mail_config(&sidecar.mail)?,
        lives: SessionLives {
            idle: lives.idle,
            absolute: lives.absolute,
            session_token: lives.token_life,
            connect_token: lives.connect_life,
            longest_connect_token: lives.longest_connect_life,
        },
        connect_tokens_per_minute: sidecar.connect_tokens_per_minute,
        refreshes_per_minute: sidecar.refreshes_per_minute,
        store,
        clock,
        dev_login: sidecar.dev_login,
    })
}

fn login_config(login: &Login) -> Result<LoginConfig, RoleError> {
    let Login {
        methods,
        audience,
        magic_link_life,
        fresh_login,
        letters_per_hour,
        calls_per_hour,
        changes_per_hour,
        trusted_proxies,
        oidc,
    } = login;
    let has = |method| methods.contains(&method);
    // Checked before: none is 0.
    let limit = |most: u32| NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN);
    Ok(LoginConfig {
        otp: has(LoginMethod::Otp),
        device_key: has(LoginMethod::DeviceKey),
        magic_link: has(LoginMethod::MagicLink),
        password: has(LoginMethod::Password),
        oidc: oidc.iter().map(issuer).collect::<Result<_, _>>()?,
        magic_link_life: *magic_link_life,
        fresh_login: *fresh_login,
        audience: audience.clone(),
        limits: LoginLimits {
            per_email: limit(*letters_per_hour),
            per_address: limit(*calls_per_hour),
            per_player: limit(*changes_per_hour),
            trusted_proxies: trusted_proxies.clone(),
        },
    })
}

fn issuer(issuer: &Issuer) -> Result<OidcIssuer, RoleError> {
    let Issuer {
        name,
        issuer,
        client_ids,
        ca,
    } = issuer;
    let ca = ca.as_deref().map(tls::load_certificates).transpose()?;
    Ok(OidcIssuer {
        name: name.clone(),
        issuer: issuer.clone(),
        client_ids: client_ids.clone(),
        ca: ca.unwrap_or_default(),
    })
}

/// How mail leaves; none where no way out is named.
fn mail_config(mail: &Mail) -> Result<Option<MailConfig>, RoleError> {
    let delivery = match (&mail.smtp, &mail.spool) {
        (Some(relay), _) => {
            let security = match relay.implicit_tls {
                true => SmtpSecurity::Tls,
                false if relay.is_loopback() && mail.smtp_ca.is_none() => SmtpSecurity::Plain,
                false => SmtpSecurity::StartTls,
            };
            let ca = mail.smtp_ca.as_deref().map(tls::load_certificates);
            Delivery::Smtp(SmtpConfig {
                host: relay.host.clone(),
                port: relay.port,
                security,
                credentials: mail
                    .load_password()?
                    .map(|password| (mail.smtp_user.clone(), password)),
                ca: ca.transpose()?.unwrap_or_default(),
            })
        }
        (None, Some(spool)) => Delivery::Spool(spool.clone()),
        (None, None) => return Ok(None),
    };
    Ok(Some(MailConfig {
        from: mail.from.clone(),
        game: mail.game.clone(),
        link: Some(mail.link.clone()).filter(|link| !link.is_empty()),
        delivery,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeySource;

    #[tokio::test]
    async fn keys_are_not_made_up_in_production() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        let key = directory.path().join("session.key");
        config.sidecar.session_key = KeySource::File(key.clone());
        config.sidecar.refresh_key = KeySource::File(directory.path().join("refresh.key"));
        config.sidecar.transport_key = KeySource::File(directory.path().join("transport.key"));
        config.sidecar.login_key = KeySource::File(directory.path().join("login.key"));
        config.sidecar.generate_keys = true;
        let Err(refused) = SidecarRole::start(&config, Clock::system()).await else {
            panic!("it started");
        };
        assert_eq!(refused.label(), "config_invalid");
        assert!(
            refused.to_string().contains("sidecar.generate_keys"),
            "{refused}"
        );
        assert!(!key.exists());
    }
}
