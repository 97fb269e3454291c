//! The transport's keys that outlive the process: what makes a restarted gateway the same one to the clients of the process before.
//!
//! A file of four lines, for its owner alone (mode 0600), replaced as a whole:
//!
//! ```text
//! tickgate gateway state, version 1
//! reset-key <64 hexadecimal digits>
//! connection-id-key <64 hexadecimal digits>
//! sha-256 <of all lines above>
//! ```

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;
use zeroize::Zeroizing;

/// The first line of the one version there is.
const HEADER: &str = "tickgate gateway state, version 1";
/// What the first line of every version begins with.
const HEADER_OF_ANY: &str = "tickgate gateway state, version ";
/// The file has 250 bytes; one that is much longer is something else.
const LONGEST: u64 = 4_096;

/// Why the state file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file is there and cannot be read.
    #[error("cannot read the gateway's state file {}: {source}; check that this user may read it", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot write the gateway's state file {}: {source}; check that its directory may be written to", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is of a version of Tickgate that this one does not know.
    #[error("{} is of another version of Tickgate; run that one, or remove the file: clients of the process before then find out by their idle timeout that it is gone", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or no state file.
    #[error("{} is damaged, or no gateway's state file ({what}); restore it, or remove it: clients of the process before then find out by their idle timeout that it is gone", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl StateError {
    /// The error as a fixed label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Read { .. } => "state_unreadable",
            Self::Write { .. } => "state_unwritable",
            Self::Version { .. } => "state_version",
            Self::Damaged { .. } => "state_damaged",
        }
    }
}

/// The keys in the file.
pub(super) struct PersistedKeys {
    /// Signs stateless resets.
    pub(super) reset: [u8; 32],
    /// Marks our connection ids as ours.
    pub(super) connection_id: [u8; 32],
}

/// Reads the keys, or makes the file with `fresh` ones if there is none.
///
/// A file that is there is never replaced: whatever is wrong with it, somebody should know.
pub(super) fn load_or_create(
    path: &Path,
    fresh: PersistedKeys,
) -> Result<PersistedKeys, StateError> {
    match read(path) {
        Ok(text) => {
            warn_of_readers(path);
            parse(path, &text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write(path, &fresh).map_err(|source| StateError::Write {
                path: path.to_owned(),
                source,
            })?;
            Ok(fresh)
        }
        Err(source) => Err(StateError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize));
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<PersistedKeys, StateError> {
    let damaged = |what| StateError::Damaged {
        path: path.to_owned(),
        what,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let first = text.lines().next().unwrap_or_default();
    if first != HEADER {
        return Err(if first.starts_with(HEADER_OF_ANY) {
            StateError::Version {
                path: path.to_owned(),
            }
        } else {
            damaged("its first line is another one's")
        });
    }
    let mut lines = text.lines().skip(1);
    let mut field = |name: &str| -> Option<[u8; 32]> {
        unhex(lines.next()?.strip_prefix(name)?.strip_prefix(' ')?)
    };
    let fields = (field("reset-key"), field("connection-id-key"));
    let (Some(reset), Some(connection_id)) = fields else {
        return Err(damaged("a key is missing or is none"));
    };
    let keys = PersistedKeys {
        reset,
        connection_id,
    };
    // There is one way to write the keys down, checksum included.
    if text != encode(&keys).as_str() {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(keys)
}

fn encode(keys: &PersistedKeys) -> Zeroizing<String> {
    let PersistedKeys {
        reset,
        connection_id,
    } = keys;
    let mut text = Zeroizing::new(format!(
        "{HEADER}\nreset-key {}\nconnection-id-key {}\n",
        *hex(reset),
        *hex(connection_id)
    ));
    let sum = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    text.push_str(&format!("sha-256 {}\n", *hex(sum.as_ref())));
    text
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Writes beside the place and moves over it, so that no moment and no crash leaves half a file.
fn write(path: &Path, keys: &PersistedKeys) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    make_directory(directory)?;
    let mut beside = OsString::from(path);
    beside.push(".new");
    // One left behind by a crash may have any mode: made anew, it has ours from its first instant.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(encode(keys).as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Who reads the reset key can end every connection of the gateway; it is warned of and not refused, since mode bits do not always
/// say who may (mounted secrets, access lists).
fn warn_of_readers(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode());
        if mode & 0o077 != 0 {
            tracing::warn!(
                path = %path.display(),
                mode = format_args!("{:03o}", mode & 0o777),
                "others may read or change the gateway's state file: it should have mode 600"
            );
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: PersistedKeys = PersistedKeys {
        reset: [7; 32],
        connection_id: [0xab; 32],
    };
    const OTHERS: PersistedKeys = PersistedKeys {
        reset: [8; 32],
        connection_id: [9; 32],
    };

    #[test]
    fn what_is_written_first_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/gateway.state");
        load_or_create(&path, KEYS).unwrap();
        let again = load_or_create(&path, OTHERS).unwrap();
        assert_eq!(
            (again.reset, again.connection_id),
            (KEYS.reset, KEYS.connection_id)
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_crash_while_writing_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.state");
        fs::write(folder.path().join("gateway.state.new"), "half a fi").unwrap();
        load_or_create(&path, KEYS).unwrap();
        assert_eq!(load_or_create(&path, OTHERS).unwrap().reset, KEYS.reset);
    }

    #[test]
    fn any_damage_is_found_and_the_file_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.state");
        let good = encode(&KEYS).as_bytes().to_vec();
        let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|n| good[..n].to_vec()).collect();
        damaged.extend((0..good.len()).map(|n| {
            let mut bytes = good.clone();
            bytes[n] ^= 1;
            bytes
        }));
        damaged.push([good.as_slice(), b"\n"].concat());
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            let error = load_or_create(&path, OTHERS).err().unwrap();
            assert!(matches!(
                error,
                StateError::Damaged { .. } | StateError::Version { .. }
            ));
            assert!(error.to_string().contains("gateway.state"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        let later = String::from_utf8(good)
            .unwrap()
            .replace("version 1", "version 2");
        fs::write(&path, later).unwrap();
        let error = load_or_create(&path, OTHERS).err().unwrap();
        assert_eq!(error.label(), "state_version");
    }

    #[test]
    fn a_place_that_cannot_be_used_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = load_or_create(folder.path(), KEYS).err().unwrap();
        assert_eq!(error.label(), "state_unreadable");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = load_or_create(&file.join("state"), KEYS).err().unwrap();
        assert!(matches!(
            error.label(),
            "state_unwritable" | "state_unreadable"
        ));
    }
}
