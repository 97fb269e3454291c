//! A file whose making was cut short: telling it from every other file, and emptying it, so that it can be made again.
//!
//! redb makes a file in two steps: it sets the length, writes a header without its mark and syncs; then writes the header with the
//! mark and syncs again. Until the second has arrived, redb itself takes the file for somebody else's. Which bytes the first step
//! writes is known: [`first_step`] has redb do it in memory. A file that was cut short has the length of that step (or has not been given it
//! yet, and ends within the header), and at every place either that step's byte or the zero that was there before.
//!
//! So whatever is emptied holds nothing but zeros and what redb would write there again, and no store that was ever written to is among
//! it: such a one has the mark.

use std::{
    io,
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use redb::{BackendError, StorageBackend, backends::InMemoryBackend};

use crate::store::OpenError;

use super::open;

/// How much of the file redb's header takes: 64 bytes, and two commit slots of 128.
const HEADER: usize = 320;

/// Empties a file whose making was cut short; returns whether it was one. `path` is what errors call it.
pub(super) fn clear(medium: &impl StorageBackend, path: &Path) -> Result<bool, OpenError> {
    const EVERYTHING: (Bound<u64>, Bound<u64>) = (Bound::Unbounded, Bound::Unbounded);
    let inaccessible = |source| OpenError::Inaccessible {
        path: path.to_owned(),
        source,
    };
    // Another process may be about to make it. A medium that knows no locks has no other process.
    match medium.try_lock_range(EVERYTHING.0, EVERYTHING.1) {
        Ok(true) | Err(BackendError::Unsupported) => {}
        Ok(false) => {
            return Err(OpenError::InUse {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(inaccessible(io::Error::other(error.to_string()))),
    }
    let is_unfinished = is_unfinished(medium).map_err(inaccessible)?;
    if is_unfinished {
        tracing::warn!(path = %path.display(), "the making of the store was cut short before anything was in it: it is made again");
        medium.set_len(0).map_err(inaccessible)?;
        medium.sync_data().map_err(inaccessible)?;
    }
    medium.close().map_err(inaccessible)?;
    Ok(is_unfinished)
}

fn is_unfinished(medium: &impl StorageBackend) -> io::Result<bool> {
    let Some(written) = first_step() else {
        return Ok(false);
    };
    // Before anything of it is read: it may be anybody's, and of any size.
    let length = medium.len()?;
    if length != written.len() as u64 && length > HEADER as u64 {
        return Ok(false);
    }
    let mut found = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    medium.read(0, &mut found)?;
    let mut places = found.iter().zip(&written);
    Ok(places.all(|(found, written)| *found == 0 || found == written))
}

/// What the file is after the first step of its making; none if redb goes about it in another way.
pub(super) fn first_step() -> Option<Vec<u8>> {
    let medium = UntilSynced::default();
    let synced = Arc::clone(&medium.synced);
    // It fails, as it was made to.
    drop(open::builder().create_with_backend(medium));
    let synced = synced.lock().unwrap_or_else(PoisonError::into_inner).take();
    synced.filter(|bytes| bytes.len() > HEADER)
}

/// A medium in memory that fails when it is synced, and remembers what it was then.
#[derive(Debug, Default)]
struct UntilSynced {
    memory: InMemoryBackend,
    synced: Arc<Mutex<Option<Vec<u8>>>>,
}

impl StorageBackend for UntilSynced {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.memory.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let length = usize::try_from(self.memory.len()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.memory.read(0, &mut bytes)?;
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        synced.get_or_insert(bytes);
        Err(io::Error::other("only the first step is wanted"))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(bytes: &[u8]) -> InMemoryBackend {
        let medium = InMemoryBackend::new();
        medium.set_len(bytes.len() as u64).unwrap();
        medium.write(0, bytes).unwrap();
        medium
    }

    fn is_cleared(bytes: &[u8]) -> bool {
        let medium = holding(bytes);
        let cleared = clear(&medium, "the test's".as_ref()).unwrap();
        let length = medium.len().unwrap();
        assert_eq!(length, if cleared { 0 } else { bytes.len() as u64 });
        cleared
    }

    #[test]
    fn the_first_step_is_a_header_without_a_mark() {
        let step = first_step().unwrap();
        assert!(step.len() > 1 << 20 && step.len() < 2 << 20);
        assert!(step[..9].iter().all(|byte| *byte == 0), "the mark");
        assert!(step[9..64].iter().any(|byte| *byte != 0), "the header");
        assert!(step[HEADER..].iter().all(|byte| *byte == 0));
        assert_eq!(first_step().unwrap(), step, "whenever it is asked for");
    }

    #[test]
    fn what_is_left_of_the_first_step_is_cleared() {
        let step = first_step().unwrap();
        assert!(is_cleared(&step), "all of it");
        assert!(is_cleared(&vec![0; step.len()]), "the length alone");
        for sector in [16, 64, 512] {
            let mut torn = step.clone();
            torn[sector..].fill(0);
            assert!(is_cleared(&torn), "its first {sector} bytes");
            let mut torn = step.clone();
            torn[..sector].fill(0);
            assert!(is_cleared(&torn), "all but its first {sector} bytes");
        }
        for length in [1, 16, 64, HEADER] {
            assert!(is_cleared(&step[..length]), "{length} bytes of the header");
        }
    }

    #[test]
    fn what_holds_anything_else_is_left_alone() {
        let step = first_step().unwrap();
        for place in [0, 9, 12, 63, HEADER - 1, HEADER, 4_095, 4_096, 600_000] {
            let mut other = step.clone();
            other[place] ^= 0x40;
            assert!(!is_cleared(&other), "another byte at {place}");
        }
        for length in [HEADER + 1, 4_096, step.len() - 1, step.len() + 1, 5 << 20] {
            assert!(!is_cleared(&vec![0; length]), "{length} zeros");
        }
        // Formats that begin with zeros: an icon, and a tape archive whose first name is empty.
        let icon = [&[0, 0, 1, 0, 1, 0, 16, 16][..], &[0; 14]].concat();
        assert!(!is_cleared(&icon));
        let mut archive = vec![0; 10_240];
        archive[257..262].copy_from_slice(b"ustar");
        assert!(!is_cleared(&archive));
        assert!(!is_cleared(b"[sidecar]\n"));
    }

    #[test]
    fn a_store_that_was_ever_used_is_left_alone() {
        let step = first_step().unwrap();
        let mut marked = step;
        marked[..4].copy_from_slice(b"redb");
        assert!(!is_cleared(&marked));
    }
}
