//! Puts another text into a key file that is there: whole or not at all, and for the same eyes as before.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::keys::write_private;

/// Replaces the text of a key file. It is written beside and then put in its place, so that whoever reads the file meanwhile, or after a
/// crash, finds the old text or the new one. The file keeps its owner and its mode, or the sidecar could not read it any more.
///
/// A symbolic link is followed: what it leads to is replaced.
///
/// # Errors
/// What the system says; then the file is as it was. [`io::ErrorKind::NotFound`] if there is none.
pub fn replace_key_file(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut beside = name.to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let replaced = write_private(&beside, text)
        .and_then(|()| resemble(&beside, &path))
        .and_then(|()| fs::rename(&beside, &path));
    if let Err(error) = replaced {
        // What went wrong before says more.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    sync_directory(&path)
}

/// Gives the file the other one's owner and mode; in this order, since a change of owner may take bits of the mode away.
#[cfg(unix)]
fn resemble(file: &Path, other: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let (ours, theirs) = (fs::metadata(file)?, fs::metadata(other)?);
    if (ours.uid(), ours.gid()) != (theirs.uid(), theirs.gid()) {
        chown(file, Some(theirs.uid()), Some(theirs.gid()))?;
    }
    fs::set_permissions(file, theirs.permissions())
}

#[cfg(not(unix))]
fn resemble(_: &Path, _: &Path) -> io::Result<()> {
    Ok(())
}

/// A rename is on disk when its directory is.
#[cfg(unix)]
fn sync_directory(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(not(unix))]
fn sync_directory(file: &Path) -> io::Result<()> {
    File::open(file).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::write_key_file;

    #[test]
    fn a_file_is_replaced_whole_and_stays_its_readers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session.key");
        let missing = replace_key_file(&path, "new").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        write_key_file(&path, "old").unwrap();
        replace_key_file(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{PermissionsExt, symlink};
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let link = directory.path().join("link.key");
            symlink(&path, &link).unwrap();
            replace_key_file(&link, "newer").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "newer\n");
            assert_eq!(mode(&path), 0o640, "its group reads it");
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
    }
}
