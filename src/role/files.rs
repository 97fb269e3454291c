//! Watches the files of a role: certificates and keys that change take effect without anybody's asking.
//!
//! The files are read every second and compared by a hash, which works on every system, through symbolic links and mounts, and with any
//! way of replacing a file. A change counts once the files are the same for two looks in a row, so that a certificate and its key that
//! are written one after the other are taken together.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Interval, MissedTickBehavior, interval};
use zeroize::Zeroizing;

use crate::{admin::FileGroup, tls};

/// How often the files are looked at: what has changed is in force after one to two of these.
const LOOK: Duration = Duration::from_secs(1);

/// How much of a file is looked at: far more than a chain of certificates.
const MOST: u64 = 1 << 20;

type Fingerprint = [u8; 32];

/// The files of a role, in groups.
pub(super) struct Files {
    groups: Vec<Group>,
    looks: Interval,
}

struct Group {
    what: FileGroup,
    paths: Vec<PathBuf>,
    /// As they were when they were last told of, or when the watch began.
    known: Fingerprint,
    /// As they were at the last look, if that was otherwise.
    changing: Option<Fingerprint>,
}

impl Files {
    /// Watches these files from now on: to be called before they are loaded, or a change in between would go unseen. Needs to be called
    /// within a tokio runtime.
    pub(super) fn watch(groups: impl IntoIterator<Item = (FileGroup, Vec<PathBuf>)>) -> Self {
        Self::watch_every(LOOK, groups)
    }

    fn watch_every(
        look: Duration,
        groups: impl IntoIterator<Item = (FileGroup, Vec<PathBuf>)>,
    ) -> Self {
        let groups = groups.into_iter().map(|(what, paths)| Group {
            what,
            known: fingerprint(&paths),
            paths,
            changing: None,
        });
        let mut looks = interval(look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            groups: groups.collect(),
            looks,
        }
    }

    /// Other files may be meant from now on. Those that are new count as changed.
    pub(super) fn follow(&mut self, groups: impl IntoIterator<Item = (FileGroup, Vec<PathBuf>)>) {
        for (what, paths) in groups {
            let mut known = self.groups.iter_mut();
            if let Some(group) = known.find(|group| group.what == what) {
                group.paths = paths;
            }
        }
    }

    /// Returns when the files of a group have changed. Nothing is lost when the future is dropped.
    pub(super) async fn changed(&mut self) -> FileGroup {
        loop {
            self.looks.tick().await;
            for group in &mut self.groups {
                // A few small files, which the system has in memory.
                let seen = fingerprint(&group.paths);
                if group.settles(seen) {
                    return group.what;
                }
            }
        }
    }
}

impl Group {
    /// Whether the files are others than before, and have been so for two looks.
    fn settles(&mut self, seen: Fingerprint) -> bool {
        if seen == self.known {
            self.changing = None;
            return false;
        }
        if self.changing.replace(seen) != Some(seen) {
            return false;
        }
        self.changing = None;
        self.known = seen;
        true
    }
}

/// A hash of what is in the files, and of which are not there.
fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut all = Zeroizing::new(Vec::new());
    for path in paths {
        let content = read(path);
        let hash = content.as_ref().map(|content| tls::fingerprint(content));
        all.push(u8::from(hash.is_some()));
        all.extend_from_slice(&hash.unwrap_or_default());
    }
    tls::fingerprint(&all)
}

fn read(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let file = std::fs::File::open(path).ok()?;
    let length = file.metadata().map_or(0, |file| file.len());
    let length = usize::try_from(length.min(MOST)).unwrap_or_default();
    // Room for the whole at once: growing would leave a copy of its beginning behind.
    let mut content = Zeroizing::new(Vec::with_capacity(length.saturating_add(1)));
    file.take(MOST).read_to_end(&mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| directory.path().join(name)).to_vec();
        let [a, b] = [&paths[0], &paths[1]];
        std::fs::write(a, "1").unwrap();
        let mut group = Group {
            what: FileGroup::Keys,
            known: fingerprint(&paths),
            paths: paths.clone(),
            changing: None,
        };
        let mut looks = || group.settles(fingerprint(&paths));
        assert!(!looks());
        std::fs::write(a, "2").unwrap();
        assert!(!looks(), "it may go on changing");
        std::fs::write(b, "2").unwrap();
        assert!(!looks(), "and did");
        assert!(looks());
        assert!(!looks(), "it is told once");
        std::fs::remove_file(b).unwrap();
        assert!(!looks());
        std::fs::write(b, "2").unwrap();
        assert!(!looks(), "it was taken back");
        assert!(!looks());
    }

    #[tokio::test]
    async fn what_has_changed_is_told_by_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key, other] = ["c", "k", "o"].map(|name| directory.path().join(name));
        let groups = [
            (FileGroup::Certificates, vec![certificate]),
            (FileGroup::Keys, vec![key.clone()]),
        ];
        let look = Duration::from_millis(5);
        let mut files = Files::watch_every(look, groups);
        std::fs::write(&key, "new").unwrap();
        assert_eq!(files.changed().await, FileGroup::Keys);
        std::fs::write(&other, "another").unwrap();
        files.follow([(FileGroup::Certificates, vec![other])]);
        assert_eq!(files.changed().await, FileGroup::Certificates);
        let nothing = tokio::time::timeout(10 * look, files.changed()).await;
        assert!(nothing.is_err());
    }
}
