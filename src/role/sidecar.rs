//! The sidecar from its configuration.

use std::path::Path;

use super::{RoleError, make_private_directory};
use crate::{
    clock::Clock,
    config::{Config, Environment, Store},
    sidecar::{self, MasterKey, SessionLives, Sidecar, SidecarConfig, StoreChoice},
    tls::{self, Identity},
    token::RefreshKey,
};

/// The master transport key's number as long as keys are not rotated.
const FIRST_EPOCH: u32 = 1;

/// Starts a sidecar from `[session]` and `[sidecar]`, with the keys and certificates that these name.
///
/// # Errors
/// [`RoleError`]; nothing runs then.
pub async fn start_sidecar(config: &Config, clock: Clock) -> Result<Sidecar, RoleError> {
    // Before it makes keys: whoever changed the configuration in code is held to the same rules.
    config.check()?;
    let (session, sidecar) = (&config.session, &config.sidecar);
    let keys = sidecar.load_keys()?;
    let Store::Embedded(path) = &sidecar.store;
    let identity = Identity::load(&sidecar.certificate, &sidecar.key)?;
    let client_ca = tls::load_certificates(&sidecar.client_ca)?;
    // A file in the working directory has the parent "", which is there.
    if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
        make_private_directory(parent)?;
    }
    let started = Sidecar::start(SidecarConfig {
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
        session_key: keys.session,
        previous_session_key: None,
        refresh_key: RefreshKey::generate(),
        previous_refresh_key: None,
        transport_key: MasterKey {
            epoch: FIRST_EPOCH,
            key: keys.transport,
        },
        previous_transport_key: None,
        lives: SessionLives {
            idle: session.idle,
            absolute: session.absolute,
            session_token: session.token_life,
            connect_token: session.connect_life,
        },
        connect_tokens_per_minute: sidecar::DEFAULT_CONNECT_TOKENS_PER_MINUTE,
        store: StoreChoice::Embedded(path.clone()),
        clock,
        dev_login: sidecar.dev_login,
    })
    .await?;
    Ok(started)
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
        config.sidecar.transport_key = KeySource::File(directory.path().join("transport.key"));
        config.sidecar.generate_keys = true;
        let Err(refused) = start_sidecar(&config, Clock::system()).await else {
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
