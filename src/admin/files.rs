//! What is told of the files that a role reads again while it runs: how often that went well, and whether what they hold now is in
//! force.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Readings, Scrape, Source};

/// Files that are used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileGroup {
    /// What is shown to peers, and whom they have to be signed by.
    Certificates,
    /// What tokens are sealed with.
    Keys,
}

impl FileGroup {
    /// All groups.
    pub const ALL: [Self; 2] = [Self::Certificates, Self::Keys];

    /// The group as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Certificates => "certificates",
            Self::Keys => "keys",
        }
    }

    /// What `/ready` says while the group's files cannot be used.
    const fn warning(self) -> &'static str {
        match self {
            Self::Certificates => "certificates_refused",
            Self::Keys => "keys_refused",
        }
    }
}

/// What became of a role's files when they were read again.
#[derive(Debug, Default)]
pub struct FileHealth {
    certificates: Group,
    keys: Group,
}

#[derive(Debug, Default)]
struct Group {
    loaded: AtomicU64,
    refused: AtomicU64,
    is_refused: AtomicBool,
}

impl FileHealth {
    fn of(&self, group: FileGroup) -> &Group {
        match group {
            FileGroup::Certificates => &self.certificates,
            FileGroup::Keys => &self.keys,
        }
    }

    /// What the files of a group hold is in force.
    pub fn loaded(&self, group: FileGroup) {
        let group = self.of(group);
        group.loaded.fetch_add(1, Ordering::Relaxed);
        group.is_refused.store(false, Ordering::Relaxed);
    }

    /// What the files of a group hold cannot be used: what was in force before still is.
    pub fn refused(&self, group: FileGroup) {
        let group = self.of(group);
        group.refused.fetch_add(1, Ordering::Relaxed);
        group.is_refused.store(true, Ordering::Relaxed);
    }

    /// Whether the files of a group could not be used when they were last read.
    pub fn is_refused(&self, group: FileGroup) -> bool {
        self.of(group).is_refused.load(Ordering::Relaxed)
    }
}

/// A role that tells of its files as well.
#[derive(Debug)]
pub struct WithFiles<S> {
    source: S,
    files: Arc<FileHealth>,
    role: &'static str,
}

impl<S: Source> WithFiles<S> {
    /// `source` with what becomes of its files; `role` is what the names of its metrics begin with, behind `tickgate_`.
    pub const fn new(source: S, files: Arc<FileHealth>, role: &'static str) -> Self {
        Self {
            source,
            files,
            role,
        }
    }
}

impl<S: Source> Source for WithFiles<S> {
    fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.source.register(registry);
        let files = Arc::clone(&self.files);
        let role = self.role;
        Scrape::register(registry, Told { files, role });
    }

    fn is_live(&self) -> bool {
        self.source.is_live()
    }

    fn hindrances(&self) -> Vec<&'static str> {
        self.source.hindrances()
    }

    /// Whoever runs on older files serves as well as before: to turn newcomers away would make a slip of somebody's an outage.
    fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = self.source.warnings();
        let refused = FileGroup::ALL.into_iter();
        let refused = refused.filter(|group| self.files.is_refused(*group));
        warnings.extend(refused.map(FileGroup::warning));
        warnings
    }
}

struct Told {
    files: Arc<FileHealth>,
    role: &'static str,
}

impl Readings for Told {
    fn read(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let Self { files, role } = self;
        let sum = |count: fn(&Group) -> &AtomicU64| {
            let counts = FileGroup::ALL.map(|group| count(files.of(group)).load(Ordering::Relaxed));
            counts.into_iter().fold(0_u64, u64::saturating_add)
        };
        scrape.counters(
            &format!("tickgate_{role}_file_reloads"),
            "Times that certificates or keys were read again",
            "outcome",
            [
                ("loaded", sum(|group| &group.loaded)),
                ("refused", sum(|group| &group.refused)),
            ],
        )?;
        scrape.gauges(
            &format!("tickgate_{role}_files_refused"),
            "Whether the files cannot be used as they are now (1), and older ones are in force",
            "files",
            FileGroup::ALL.map(|group| (group.label(), u64::from(files.is_refused(group)))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Source for Nothing {
        fn register(&self, _: &mut prometheus_client::registry::Registry) {}

        fn is_live(&self) -> bool {
            true
        }

        fn hindrances(&self) -> Vec<&'static str> {
            Vec::new()
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_told_and_hinder_nobody() {
        let files = Arc::new(FileHealth::default());
        let told = WithFiles::new(Nothing, Arc::clone(&files), "role");
        let page = |told: &WithFiles<Nothing>| {
            let mut registry = prometheus_client::registry::Registry::default();
            told.register(&mut registry);
            let mut page = String::new();
            prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
            page
        };
        assert!(page(&told).contains("tickgate_role_file_reloads_total{outcome=\"refused\"} 0"));
        files.refused(FileGroup::Keys);
        files.loaded(FileGroup::Certificates);
        assert!(told.is_ready() && told.is_live());
        assert_eq!(told.warnings(), ["keys_refused"]);
        for line in [
            "tickgate_role_file_reloads_total{outcome=\"loaded\"} 1",
            "tickgate_role_file_reloads_total{outcome=\"refused\"} 1",
            "tickgate_role_files_refused{files=\"certificates\"} 0",
            "tickgate_role_files_refused{files=\"keys\"} 1",
        ] {
            assert!(
                page(&told).contains(line),
                "{line} is not in\n{}",
                page(&told)
            );
        }
        files.loaded(FileGroup::Keys);
        assert!(told.warnings().is_empty());
    }
}
