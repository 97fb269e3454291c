//! What whoever runs a role may ask of it while it runs: to end, to end at once, to read its configuration again.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::RoleError;
use crate::{
    admin::{FileGroup, FileHealth},
    config::{Config, ConfigError},
};

/// What is asked of a running role. Clones ask the same role.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// End in good order: a gateway lets its players play on for as long as `[gateway] drain` says.
    pub stop: CancellationToken,
    /// End at once.
    pub stop_now: CancellationToken,
    /// Read the configuration and the certificates again; asked twice before it is heeded, it is done once.
    pub reload: Arc<Notify>,
}

/// Where a role's configuration comes from, and what of it is the process's and not the role's.
pub trait Reread: Sync {
    /// Reads the configuration again.
    ///
    /// # Errors
    /// [`ConfigError`]; the role goes on with what it has.
    fn read(&self) -> Result<Config, ConfigError>;

    /// Logs by another filter from now on; it has been checked.
    fn set_log_filter(&self, filter: &str);
}

/// What of the configuration a role can change while it runs.
pub(super) struct Changeable {
    /// Sections that it does not read at all.
    pub(super) of_others: &'static [&'static str],
    /// Keys that take effect at once.
    pub(super) keys: &'static [&'static str],
}

const LOG_FILTER: &str = "log.filter";

impl Changeable {
    /// Reads the configuration again and lets it take effect, as far as that goes while the role runs; `apply` does that, or nothing
    /// at all. What cannot be changed is named in a warning and keeps its value. Whatever cannot be used is told, and nothing has
    /// changed then.
    pub(super) fn reload(
        &self,
        running: &mut Config,
        reread: &dyn Reread,
        apply: impl FnOnce(&Config) -> Result<(), RoleError>,
    ) {
        let new = match reread.read() {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(label = error.label(), %error, "the configuration cannot be used; nothing has changed");
                return;
            }
        };
        if let Err(error) = apply(&new) {
            tracing::error!(label = error.label(), %error, "what the configuration names cannot be used; nothing has changed");
            return;
        }
        let (mut changed, mut kept) = (Vec::new(), Vec::new());
        for key in running.differences(&new) {
            if self.keys.contains(&key.as_str()) || key == LOG_FILTER {
                changed.push(key);
            } else if !self.is_of_others(&key) {
                kept.push(key);
            }
        }
        if new.log.filter != running.log.filter {
            reread.set_log_filter(&new.log.filter);
        }
        if changed.is_empty() {
            changed.push("no key".to_owned());
        }
        tracing::info!(changed = %changed.join(", "), "the configuration and the certificates were read again");
        if !kept.is_empty() {
            tracing::warn!(
                kept = %kept.join(", "),
                "these keys take effect at the next start and keep their values until then"
            );
        }
        adopt(running, new);
    }

    fn is_of_others(&self, key: &str) -> bool {
        self.of_others
            .iter()
            .any(|section| key.split('.').next() == Some(section))
    }
}

/// Tells what became of files that have changed.
pub(super) fn told_of(group: FileGroup, files: &FileHealth, reloaded: Result<(), RoleError>) {
    let what = group.label();
    match reloaded {
        Ok(()) => {
            files.loaded(group);
            tracing::info!(
                files = what,
                "the files have changed, and what they hold is in force"
            );
        }
        Err(error) => {
            files.refused(group);
            let cause = std::error::Error::source(&error).map(tracing::field::display);
            tracing::error!(
                files = what,
                label = error.label(),
                %error,
                cause,
                "the files have changed and cannot be used; what was in force before still is"
            );
        }
    }
}

/// What has taken effect, so that the next reload does not tell of it again. All that may change while any role runs.
fn adopt(running: &mut Config, new: Config) {
    let Config {
        log,
        sidecar,
        gateway,
        ..
    } = new;
    running.log.filter = log.filter;
    running.sidecar.certificate = sidecar.certificate;
    running.sidecar.key = sidecar.key;
    running.sidecar.client_ca = sidecar.client_ca;
    running.sidecar.session_key = sidecar.session_key;
    running.sidecar.previous_session_key = sidecar.previous_session_key;
    running.sidecar.refresh_key = sidecar.refresh_key;
    running.sidecar.previous_refresh_key = sidecar.previous_refresh_key;
    running.sidecar.transport_key = sidecar.transport_key;
    running.gateway.certificate = gateway.certificate;
    running.gateway.key = gateway.key;
    running.gateway.next_certificate = gateway.next_certificate;
    running.gateway.next_key = gateway.next_key;
    running.gateway.drain = gateway.drain;
    running.gateway.control.ca = gateway.control.ca;
    running.gateway.control.certificate = gateway.control.certificate;
    running.gateway.control.key = gateway.control.key;
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::Mutex};

    use super::*;

    struct File {
        text: Mutex<&'static str>,
        filters: Mutex<Vec<String>>,
    }

    impl Reread for File {
        fn read(&self) -> Result<Config, ConfigError> {
            Config::parse(*self.text.lock().unwrap())
        }

        fn set_log_filter(&self, filter: &str) {
            self.filters.lock().unwrap().push(filter.to_owned());
        }
    }

    #[test]
    fn what_is_broken_changes_nothing() {
        let file = File {
            text: Mutex::new(
                "[log]\nfilter = \"debug\"\n[gateway]\ndrain = \"1s\"\ncapacity = 7\n",
            ),
            filters: Mutex::default(),
        };
        let changeable = Changeable {
            of_others: &["sidecar"],
            keys: &["gateway.drain"],
        };
        let mut running = Config::default();
        let applied = RefCell::new(0);
        let apply = |_: &Config| {
            *applied.borrow_mut() += 1;
            Ok(())
        };

        // A certificate that cannot be used.
        changeable.reload(&mut running, &file, |_| {
            Err(RoleError::InUse("certs".into()))
        });
        assert_eq!(running, Config::default());
        let good = std::mem::replace(&mut *file.text.lock().unwrap(), "[log]\nfilter = 7\n");
        changeable.reload(&mut running, &file, apply);
        assert_eq!((running.clone(), *applied.borrow()), (Config::default(), 0));
        assert!(file.filters.lock().unwrap().is_empty());

        *file.text.lock().unwrap() = good;
        changeable.reload(&mut running, &file, apply);
        assert_eq!(*applied.borrow(), 1);
        assert_eq!(*file.filters.lock().unwrap(), ["debug"]);
        assert_eq!(running.gateway.drain.as_secs(), 1);
        assert_eq!(running.gateway.capacity, 4_096, "it needs a restart");
    }
}
