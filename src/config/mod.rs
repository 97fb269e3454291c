//! The configuration: TOML read once into one checked [`Config`].
//!
//! Every key has a default and stands in `config.toml` at the root of the repository, with that default and a comment. What is
//! wrong is told with the key, the line and what is allowed there; nothing starts on half of a configuration.
//!
//! ```
//! use tickgate::config::Config;
//!
//! let config = Config::parse("[session]\nidle = \"30m\"")?;
//! assert_eq!(config.session.idle.as_secs(), 1_800);
//!
//! let refused = Config::parse("[session]\nconnect_life = \"10m\"").unwrap_err();
//! assert_eq!(
//!     refused.to_string(),
//!     "line 2, column 16: session.connect_life: 10m is out of range; allowed: 1s to 5m"
//! );
//! # Ok::<(), tickgate::config::ConfigError>(())
//! ```

mod check;
mod compare;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod key_file;
mod key_replace;
mod keys;
mod locate;
mod schema;
mod values;

use std::path::{Path, PathBuf};

use crate::certs::{DEV_SERVER_NAME, Layout};

pub use error::{ConfigError, Position, Problem};
pub use key_file::{InvalidKeyFile, KeyEntry, KeyFile, WrongStep};
pub use key_replace::replace_key_file;
pub use keys::{KeyError, KeysAtHand, SidecarKeys, load_key_file, write_key_file};
pub use schema::{
    Activity, Budget, Config, Control, Demo, Environment, Gateway, Issuer, Log, LogFormat, Login,
    LoginMethod, Mail, Redis, SamePlayer, Seat, Session, Sidecar,
};
pub use values::{KeySource, MailRelay, SidecarUrl, Size, Store};

/// Where the configuration is looked for when nobody says where it is.
pub const DEFAULT_PATH: &str = "config.toml";

/// Where links in the letters of a development stack lead: nowhere, for there is no page. Their tokens are what counts.
const DEV_LINK: &str = "http://localhost/login";

impl Config {
    /// Reads and checks a file. Relative paths in it count from the directory that it stands in.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or [`ConfigError::Invalid`] with everything that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let mut config = Self::parse(&text).map_err(|error| error.in_file(path))?;
        if let Some(directory) = path.parent() {
            config.rebase(directory);
        }
        Ok(config)
    }

    /// Reads and checks the text of a configuration. Paths stay as they are written.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::invalid(vec![locate::problem(text, &error)]))?;
        config.check_in(&locate::Lines::of(text))?;
        Ok(config)
    }

    /// Checks the values as [`Config::parse`] does: for a configuration that was changed, or made, in code. The roles call it before
    /// they start anything.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_in(&locate::Lines::of(""))
    }

    /// Checks the values; `lines` says where they stand.
    fn check_in(&self, lines: &locate::Lines<'_>) -> Result<(), ConfigError> {
        let problem = |fault: check::Fault| {
            let position = lines.position_of(fault.key);
            Problem::new(fault.key, position, &fault.what, check::allowed(fault.key))
        };
        let problems: Vec<_> = check::faults(self).into_iter().map(problem).collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::invalid(problems))
        }
    }

    /// The configuration in force as TOML. Keys of the sidecar stand there by their source, never by their value.
    pub fn to_toml(&self) -> String {
        // Only values that TOML cannot hold fail here, and the schema has none: a test writes the default one.
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// This configuration as a whole development stack in one process runs it: loopback addresses, the development login, and
    /// everything that is made on the spot (certificates, keys, store) under `state`. With `ephemeral_ports` the system chooses
    /// every port.
    #[must_use]
    pub fn into_development(mut self, state: &Path, ephemeral_ports: bool) -> Self {
        let on_loopback = |address: std::net::SocketAddr| {
            let port = if ephemeral_ports { 0 } else { address.port() };
            std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port))
        };
        let certs = Layout::new(state.join("certs"));
        // Taken apart whole: a new key does not compile until somebody has thought about what a development stack makes of it.
        let Self {
            environment,
            log: _,
            session: _,
            sidecar,
            gateway,
            seat: _,
            demo: _,
        } = &mut self;
        *environment = Environment::Development;

        let Sidecar {
            auth_listen,
            control_listen,
            admin_listen,
            certificate,
            key,
            client_ca,
            metrics_listen,
            session_key,
            previous_session_key,
            refresh_key,
            previous_refresh_key,
            transport_key,
            login_key,
            connect_tokens_per_minute: _,
            refreshes_per_minute: _,
            generate_keys,
            store,
            // Not asked: a stack of its own shares its store with nobody.
            redis: _,
            dev_login,
            plain_text,
            login,
            mail,
        } = sidecar;
        for listen in [auth_listen, &mut *control_listen, admin_listen] {
            *listen = on_loopback(*listen);
        }
        *metrics_listen = metrics_listen.map(on_loopback);
        let own = certs.sidecar();
        (*certificate, *key) = (own.certificate, own.key);
        *client_ca = certs.ca();
        *session_key = KeySource::File(state.join("session.key"));
        *refresh_key = KeySource::File(state.join("refresh.key"));
        *transport_key = KeySource::File(state.join("transport.key"));
        *login_key = KeySource::File(state.join("login.key"));
        (*previous_session_key, *previous_refresh_key) = (None, None);
        login.methods = LoginMethod::ALL.to_vec();
        // Nobody's mailbox: letters lie beside everything else that it has made.
        *mail = Mail {
            spool: Some(state.join("mail")),
            game: std::mem::take(&mut mail.game),
            link: DEV_LINK.to_owned(),
            ..Mail::default()
        };
        *generate_keys = true;
        *store = Store::Embedded(state.join("store.redb"));
        *dev_login = true;
        // Those who read where the stack listens are told https.
        *plain_text = false;

        let Gateway {
            id,
            listen,
            advertise,
            server_name,
            certificate,
            key,
            next_certificate,
            next_key,
            state: kept,
            metrics_listen,
            drain: _,
            workers: _,
            capacity: _,
            max_handshakes: _,
            retry_above: _,
            handshake_timeout: _,
            prefix_rate: _,
            prefix_burst: _,
            max_awaiting_hello: _,
            hello_timeout: _,
            idle_timeout: _,
            socket_buffer: _,
            message_backlog: _,
            single_use_capacity: _,
            budget: _,
            control,
        } = gateway;
        let to_players = certs.gateway_quic(id);
        *listen = on_loopback(*listen);
        advertise.clear();
        DEV_SERVER_NAME.clone_into(server_name);
        (*certificate, *key) = (to_players.certificate, to_players.key);
        (*next_certificate, *next_key) = (None, None);
        *kept = Some(state.join(format!("{id}.state")));
        *metrics_listen = metrics_listen.map(on_loopback);

        let to_sidecar = certs.gateway(id);
        *control = Control {
            sidecar: SidecarUrl::loopback(control_listen.port()),
            ca: certs.ca(),
            certificate: to_sidecar.certificate,
            key: to_sidecar.key,
            admit_while_stale: control.admit_while_stale,
            max_stale: control.max_stale,
        };
        self
    }

    /// The files that must be there before the roles start, in the order of the keys that name them.
    pub fn input_files(&self) -> impl Iterator<Item = &Path> {
        let (sidecar, gateway) = (&self.sidecar, &self.gateway);
        let certificates = [&sidecar.certificate, &sidecar.key, &sidecar.client_ca];
        let keys = [
            &sidecar.session_key,
            &sidecar.refresh_key,
            &sidecar.transport_key,
            &sidecar.login_key,
        ];
        let previous = [&sidecar.previous_session_key, &sidecar.previous_refresh_key];
        let control = &gateway.control;
        let issuers = sidecar.login.oidc.iter();
        certificates
            .into_iter()
            .map(PathBuf::as_path)
            .chain(
                keys.into_iter()
                    .filter(|_| !sidecar.generate_keys)
                    .filter_map(KeySource::file),
            )
            .chain(previous.into_iter().flatten().filter_map(KeySource::file))
            .chain(sidecar.redis_files())
            .chain(
                sidecar
                    .mail
                    .smtp_password
                    .iter()
                    .filter_map(KeySource::file),
            )
            .chain(sidecar.mail.smtp_ca.as_deref())
            .chain(issuers.filter_map(|issuer| issuer.ca.as_deref()))
            .chain([&*gateway.certificate, &gateway.key])
            .chain(
                [&gateway.next_certificate, &gateway.next_key]
                    .into_iter()
                    .flatten()
                    .map(PathBuf::as_path),
            )
            .chain([&*control.ca, &control.certificate, &control.key])
    }

    /// Every file and directory that the configuration names.
    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Sidecar {
            certificate,
            key,
            client_ca,
            session_key,
            previous_session_key,
            refresh_key,
            previous_refresh_key,
            transport_key,
            login_key,
            store,
            redis: Redis { password, ca, .. },
            login,
            mail,
            ..
        } = &mut self.sidecar;
        let issuers = login.oidc.iter_mut();
        let previous = [previous_session_key, previous_refresh_key, password];
        let store = match store {
            Store::Embedded(path) => Some(path),
            Store::Redis => None,
        };
        let gateway = &mut self.gateway;
        [certificate, key, client_ca]
            .into_iter()
            .chain(store)
            .chain(ca)
            .chain(
                [session_key, refresh_key, transport_key, login_key]
                    .into_iter()
                    .chain(previous.into_iter().flatten())
                    .chain(&mut mail.smtp_password)
                    .filter_map(KeySource::file_mut),
            )
            .chain(&mut mail.smtp_ca)
            .chain(issuers.filter_map(|issuer| issuer.ca.as_mut()))
            .chain(&mut mail.spool)
            .chain([&mut gateway.certificate, &mut gateway.key])
            .chain(
                [
                    &mut gateway.next_certificate,
                    &mut gateway.next_key,
                    &mut gateway.state,
                ]
                .into_iter()
                .flatten(),
            )
            .chain([
                &mut gateway.control.ca,
                &mut gateway.control.certificate,
                &mut gateway.control.key,
            ])
    }

    /// Makes relative paths relative to `directory`.
    fn rebase(&mut self, directory: &Path) {
        for path in self.paths_mut() {
            // Joining an absolute path yields that path.
            *path = directory.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests;
