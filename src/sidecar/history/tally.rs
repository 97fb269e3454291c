//! What the runs went through: a test that never gets somewhere tests nothing there.

/// Counts the counters by name.
macro_rules! tally {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        pub(super) struct Tally {
            $(pub(super) $name: u64,)*
        }

        impl Tally {
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// The names of what was never reached.
            pub(super) fn unreached(&self) -> Vec<&'static str> {
                let all = [$((stringify!($name), self.$name)),*];
                all.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
            }
        }
    };
}

tally!(
    calls,
    logins,
    renewed,
    renewed_by_a_retry,
    reuses,
    seen_live,
    seen_revoked,
    seen_idle,
    seen_expired,
    seen_unknown,
    revoked,
    players_revoked,
    failed,
    requests_lost,
    answers_lost,
    duplicates,
    presented_while_down,
    kills,
    power_losses,
    crashes_in_a_batch,
    broken_disks,
    crashes_while_opening,
);
