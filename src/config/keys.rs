//! Reads the sidecar's keys from where the configuration says they are, and writes key files.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    KeySource, Mail, Redis, Sidecar, Store,
    key_file::{InvalidKeyFile, KeyEntry, KeyFile},
};
use crate::{
    sidecar::{InvalidKeys, TokenKeys},
    store::RedisSettings,
    token::{
        KeyRole, LoginKey, MasterKey, OperatorKey, Purpose, RefreshKey, Rotating, SessionKey,
        TransportMasterKey,
    },
};

/// The keys of a sidecar.
#[derive(Debug)]
pub struct SidecarKeys {
    /// Seal tokens.
    pub tokens: TokenKeys,
    /// Hashes what the ways to log in keep.
    pub login: LoginKey,
}

/// Why a sidecar has no keys. Says where a key was looked for, never what was found there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no such file or environment variable.
    #[error("the {purpose} key is missing: no {place}")]
    Missing {
        /// Which key: `session`, `refresh`, `transport` or `login`.
        purpose: &'static str,
        /// Where it should be.
        place: KeySource,
    },
    /// The file or variable is there and cannot be read.
    #[error("the {purpose} key cannot be read from {place}")]
    Unreadable {
        /// Which key.
        purpose: &'static str,
        /// Where it is.
        place: KeySource,
        /// Why.
        source: io::Error,
    },
    /// What is there is no key.
    #[error("{place} holds no {purpose} key")]
    Invalid {
        /// Which key.
        purpose: &'static str,
        /// Where the text is.
        place: KeySource,
        /// Why not.
        source: InvalidKeyFile,
    },
    /// A key was to be made and could not be written.
    #[error("a new {purpose} key cannot be written to {place}")]
    NotWritten {
        /// Which key.
        purpose: &'static str,
        /// Where it was to be.
        place: KeySource,
        /// Why.
        source: io::Error,
    },
    /// The mail relay's password cannot be read.
    #[error("the mail relay's password cannot be read from {place}")]
    Password {
        /// Where it is.
        place: KeySource,
        /// Why.
        source: io::Error,
    },
    /// They cannot be used together: two purposes have the same key bytes, or two transport keys the same number.
    #[error(transparent)]
    Together(#[from] InvalidKeys),
}

impl KeyError {
    /// A fixed name of the kind of error.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "key_missing",
            Self::Unreadable { .. } => "key_unreadable",
            Self::Invalid { .. } => "key_invalid",
            Self::NotWritten { .. } => "key_not_written",
            Self::Password { .. } => "mail_password",
            Self::Together(invalid) => invalid.label(),
        }
    }
}

impl Sidecar {
    /// Reads the keys; with `generate_keys` those whose file is not there are made, and written there.
    ///
    /// # Errors
    /// [`KeyError`]; nothing was started and nothing needs undoing.
    pub fn load_keys(&self) -> Result<SidecarKeys, KeyError> {
        let previous_session = self.previous_session_key.as_ref();
        let previous_refresh = self.previous_refresh_key.as_ref();
        let login = Loader {
            purpose: name(LoginKey::PURPOSE),
            place: &self.login_key,
            generate: self
                .generate_keys
                .then_some(|| LoginKey::generate().to_paserk()),
        };
        let tokens = TokenKeys {
            session: self.load_rotating(&self.session_key, previous_session, |entry| entry.key)?,
            refresh: self.load_rotating(&self.refresh_key, previous_refresh, |entry| entry.key)?,
            transport: self.load_rotating(&self.transport_key, None, numbered)?,
        };
        let login = login.load(|text| Ok(LoginKey::from_paserk(text.trim())?))?;
        tokens.check(login.id())?;
        Ok(SidecarKeys { tokens, login })
    }

    /// The keys of one purpose: those of a file, and, behind them, one that is configured as their predecessor.
    fn load_rotating<K: OperatorKey, T>(
        &self,
        place: &KeySource,
        previous: Option<&KeySource>,
        make: fn(KeyEntry<K>) -> T,
    ) -> Result<Rotating<T>, KeyError> {
        let loader = Loader {
            purpose: name(K::PURPOSE),
            place,
            generate: self.generate_keys.then_some(|| K::generate().to_paserk()),
        };
        let mut keys = loader.load(KeyFile::<K>::parse)?.into_rotating(make);
        if let Some(place) = previous {
            keys.previous.push(make(load_key_file::<K>(place)?.current));
        }
        Ok(keys)
    }

    /// The files that the keys of tokens come from, which may change while a sidecar runs.
    pub fn key_files(&self) -> impl Iterator<Item = &Path> {
        let previous = [&self.previous_session_key, &self.previous_refresh_key];
        [&self.session_key, &self.refresh_key, &self.transport_key]
            .into_iter()
            .chain(previous.into_iter().flatten())
            .filter_map(KeySource::file)
    }
}

/// Reads the keys of one purpose from where they are.
///
/// # Errors
/// [`KeyError`]
pub fn load_key_file<K: OperatorKey>(place: &KeySource) -> Result<KeyFile<K>, KeyError> {
    let loader = Loader {
        purpose: name(K::PURPOSE),
        place,
        generate: None,
    };
    loader.load(KeyFile::parse)
}

fn numbered(entry: KeyEntry<TransportMasterKey>) -> MasterKey {
    MasterKey {
        epoch: entry.epoch,
        key: entry.key,
    }
}

/// Those of a sidecar's keys that are there to look at tokens with, with their roles; each file may be missing.
#[derive(Debug)]
pub struct KeysAtHand {
    /// Session tokens' keys.
    pub session: Vec<Result<(KeyRole, SessionKey), KeyError>>,
    /// Refresh tokens' keys.
    pub refresh: Vec<Result<(KeyRole, RefreshKey), KeyError>>,
    /// The masters of the keys for connect tokens.
    pub transport: Vec<Result<(KeyRole, MasterKey), KeyError>>,
}

impl Sidecar {
    /// Reads the keys that are there; makes none.
    pub fn keys_at_hand(&self) -> KeysAtHand {
        let (session, refresh) = (&self.session_key, &self.refresh_key);
        KeysAtHand {
            session: at_hand(session, self.previous_session_key.as_ref(), |entry| {
                entry.key
            }),
            refresh: at_hand(refresh, self.previous_refresh_key.as_ref(), |entry| {
                entry.key
            }),
            transport: at_hand(&self.transport_key, None, numbered),
        }
    }
}

/// The keys of a file, and the one that is configured as their predecessor.
fn at_hand<K: OperatorKey, T>(
    place: &KeySource,
    previous: Option<&KeySource>,
    make: fn(KeyEntry<K>) -> T,
) -> Vec<Result<(KeyRole, T), KeyError>> {
    let mut keys = Vec::new();
    match load_key_file::<K>(place) {
        Ok(KeyFile {
            next,
            current,
            previous,
        }) => {
            let others = [(KeyRole::Previous, previous), (KeyRole::Next, next)];
            keys.push(Ok((KeyRole::Current, make(current))));
            for (role, entry) in others {
                keys.extend(entry.map(|entry| Ok((role, make(entry)))));
            }
        }
        Err(error) => keys.push(Err(error)),
    }
    if let Some(place) = previous {
        let loaded = load_key_file::<K>(place);
        keys.push(loaded.map(|file| (KeyRole::Previous, make(file.current))));
    }
    keys
}

impl Mail {
    /// Reads the password for the mail relay; none if it asks for none. Line ends around it do not count.
    ///
    /// # Errors
    /// [`KeyError::Password`].
    pub fn load_password(&self) -> Result<Option<Zeroizing<String>>, KeyError> {
        let Some(place) = &self.smtp_password else {
            return Ok(None);
        };
        let text = read(place).map_err(|source| KeyError::Password {
            place: place.clone(),
            source,
        })?;
        let password = text.trim_matches(['\r', '\n']);
        Ok(Some(Zeroizing::new(password.to_owned())))
    }
}

impl Sidecar {
    /// Where the Redis server is and how to log in there, for a sidecar that keeps its sessions in one.
    ///
    /// # Errors
    /// [`KeyError::Missing`] or [`KeyError::Unreadable`]: the password or the authority's certificate is not where it should be.
    pub fn redis_settings(&self) -> Result<RedisSettings, KeyError> {
        let Redis {
            url,
            password,
            ca,
            prefix,
        } = &self.redis;
        let mut settings = RedisSettings::new(url.clone()).prefix(prefix);
        if let Some(place) = password {
            let loader = Loader {
                purpose: "Redis password",
                place,
                generate: None,
            };
            let text = loader.text()?;
            settings = settings.password(Zeroizing::new(text.trim().to_owned()));
        }
        if let Some(path) = ca {
            let pem = std::fs::read(path).map_err(|source| KeyError::Unreadable {
                purpose: "Redis CA",
                place: KeySource::File(path.clone()),
                source,
            })?;
            settings = settings.ca(pem);
        }
        Ok(settings)
    }

    /// The files that logging in to Redis takes; none if the sessions are kept elsewhere.
    pub(super) fn redis_files(&self) -> impl Iterator<Item = &Path> {
        let redis = (self.store == Store::Redis).then_some(&self.redis);
        let password = redis.and_then(|redis| redis.password.as_ref()?.file());
        let ca = redis.and_then(|redis| redis.ca.as_deref());
        password.into_iter().chain(ca)
    }
}

/// What a key is called in the configuration and on the command line.
const fn name(purpose: Purpose) -> &'static str {
    match purpose {
        // Its master key is what is configured.
        Purpose::Connect => "transport",
        _ => purpose.label(),
    }
}

/// How one key is found.
struct Loader<'a> {
    purpose: &'static str,
    place: &'a KeySource,
    generate: Option<fn() -> Zeroizing<String>>,
}

impl Loader<'_> {
    fn load<T>(self, parse: fn(&str) -> Result<T, InvalidKeyFile>) -> Result<T, KeyError> {
        let Self { purpose, place, .. } = self;
        let text = self.text()?;
        parse(&text).map_err(|source| KeyError::Invalid {
            purpose,
            place: place.clone(),
            source,
        })
    }

    fn text(&self) -> Result<Zeroizing<String>, KeyError> {
        let (purpose, place) = (self.purpose, self.place.clone());
        match (read(&place), &place, self.generate) {
            (Ok(text), ..) => Ok(text),
            (Err(error), KeySource::File(path), Some(generate)) if is_absent(&error) => {
                let text = generate();
                match write_key_file(path, &text) {
                    Ok(()) => Ok(text),
                    Err(source) => Err(KeyError::NotWritten {
                        purpose,
                        place,
                        source,
                    }),
                }
            }
            (Err(error), ..) if is_absent(&error) => Err(KeyError::Missing { purpose, place }),
            (Err(source), ..) => Err(KeyError::Unreadable {
                purpose,
                place,
                source,
            }),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Far more than any key's text; whoever names a huge file learns soon that it is no key.
const MAX_KEY_TEXT: u64 = 4_096;

fn read(place: &KeySource) -> io::Result<Zeroizing<String>> {
    match place {
        KeySource::File(path) => {
            let file = File::open(path)?;
            warn_if_open_to_others(path, &file);
            let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_TEXT as usize + 1));
            let read = file.take(MAX_KEY_TEXT + 1).read_to_string(&mut text)?;
            // What lies beyond would be missed without a word: keys that tokens are still sealed with.
            if read as u64 > MAX_KEY_TEXT {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(text)
        }
        KeySource::Env(name) => match std::env::var(name) {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(std::env::VarError::NotPresent) => Err(io::ErrorKind::NotFound.into()),
            // The error itself would quote the variable.
            Err(std::env::VarError::NotUnicode(_)) => Err(io::ErrorKind::InvalidData.into()),
        },
    }
}

#[cfg(unix)]
fn warn_if_open_to_others(path: &Path, file: &File) {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().map_or(0, |file| file.permissions().mode());
    // A warning and no refusal: orchestrators mount secrets readable for all inside a container.
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format_args!("{:03o}", mode & 0o777),
            "others on this machine can read this key file; `chmod 600` it",
        );
    }
}

#[cfg(not(unix))]
fn warn_if_open_to_others(_: &Path, _: &File) {}

/// Writes a key to a new file that its owner alone can read (mode 0600), with the directories above it.
///
/// It is written beside and then put in its place whole: a process that is killed meanwhile leaves no half of a key there.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the file is there: a key is never overwritten, for every token under it would die.
pub fn write_key_file(path: &Path, paserk: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut beside = name.to_owned();
    // The process's id, so that two that make the same key do not write to one file.
    beside.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_private(&beside, paserk)
        // Unlike a rename, a link never takes the place of a file that is there.
        .and_then(|()| std::fs::hard_link(&beside, path));
    // What went wrong before says more.
    let removed = std::fs::remove_file(&beside);
    written.and(removed)
}

pub(super) fn write_private(path: &Path, paserk: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let text = Zeroizing::new(format!("{paserk}\n"));
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar(directory: &Path) -> Sidecar {
        Sidecar {
            session_key: KeySource::File(directory.join("keys/session.key")),
            refresh_key: KeySource::File(directory.join("keys/refresh.key")),
            transport_key: KeySource::File(directory.join("keys/transport.key")),
            login_key: KeySource::File(directory.join("keys/login.key")),
            ..Sidecar::default()
        }
    }

    #[test]
    fn a_missing_key_is_an_error_unless_it_may_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let mut sidecar = sidecar(directory.path());
        let missing = sidecar.load_keys().unwrap_err();
        assert_eq!(missing.label(), "key_missing");
        assert!(missing.to_string().contains("session.key"), "{missing}");

        sidecar.generate_keys = true;
        let made = sidecar.load_keys().unwrap();
        let found = sidecar.load_keys().unwrap();
        assert_eq!(made.tokens, found.tokens);
        assert_eq!(made.login.id(), found.login.id());
    }

    #[test]
    fn a_previous_key_is_read_and_never_made() {
        let directory = tempfile::tempdir().unwrap();
        let mut sidecar = sidecar(directory.path());
        sidecar.generate_keys = true;
        let old = RefreshKey::generate();
        let place = KeySource::File(directory.path().join("old.key"));
        sidecar.previous_refresh_key = Some(place.clone());
        assert_eq!(sidecar.load_keys().unwrap_err().label(), "key_missing");

        write_key_file(place.file().unwrap(), &old.to_paserk()).unwrap();
        let keys = sidecar.load_keys().unwrap();
        assert_eq!(keys.tokens.refresh.previous, std::slice::from_ref(&old));

        sidecar.previous_refresh_key = None;
        sidecar.previous_session_key = Some(place);
        sidecar.refresh_key = KeySource::File(directory.path().join("other.key"));
        write_key_file(&directory.path().join("other.key"), &old.to_paserk()).unwrap();
        assert_eq!(sidecar.load_keys().unwrap_err().label(), "shared_key");
    }

    #[test]
    fn two_purposes_never_share_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = sidecar(directory.path());
        let key = SessionKey::generate().to_paserk();
        for place in [&sidecar.session_key, &sidecar.transport_key] {
            write_key_file(place.file().unwrap(), &key).unwrap();
        }
        let other = RefreshKey::generate().to_paserk();
        write_key_file(sidecar.refresh_key.file().unwrap(), &other).unwrap();
        let login = LoginKey::generate().to_paserk();
        write_key_file(sidecar.login_key.file().unwrap(), &login).unwrap();
        assert_eq!(sidecar.load_keys().unwrap_err().label(), "shared_key");
    }

    #[test]
    fn what_is_no_key_is_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = sidecar(directory.path());
        write_key_file(sidecar.session_key.file().unwrap(), "hunter2").unwrap();
        let error = sidecar.load_keys().unwrap_err();
        assert_eq!(error.label(), "key_invalid");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_key_file_is_its_owners_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/down.key");
        write_key_file(&path, "k").unwrap();
        let again = write_key_file(&path, "other").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "k\n");
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(files.count(), 1, "something was left beside it");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }
}
