//! The gateway's copy of the revocation log: what an admission is held against.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map},
    time::Duration,
};

use thiserror::Error;

use crate::{
    clock::Timestamp,
    id::{Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
};

/// Entries that one [`purge`](RevocationLog::purge) clears away at most: some 100 µs of work.
const PURGED_PER_CALL: usize = 1_024;

/// What a revocation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// One session.
    Session(SessionId),
    /// All sessions of a player whose generation is smaller.
    Player(PlayerId, PlayerGeneration),
}

/// Why a range of events is not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// There is no log yet: [`RevocationLog::reset`] comes first.
    #[error("no revocation log to apply events to")]
    NoLog,
    /// Events between the head and the range are missing.
    #[error("events are missing between revision {head} and {from}")]
    Gap {
        /// The last revision that is known here.
        head: Revision,
        /// The revision before the first event of the range.
        from: Revision,
    },
    /// The range ends before it begins.
    #[error("the range ends before it begins")]
    Backwards,
}

impl ApplyError {
    /// The fixed name, for metrics and logs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoLog => "no_log",
            Self::Gap { .. } => "gap",
            Self::Backwards => "backwards",
        }
    }
}

/// Whether the log tells of every revocation since a revision, at which a token was minted.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coverage {
    /// It does, up to its head.
    Covered,
    /// The revision is before the log's beginning here: revocations may be missing, and will not come.
    TooOld,
    /// The revision is after the log's head: revocations may be missing, and will come. So too while there is no log yet.
    NotYet,
}

/// The gateway's copy of the revocation log: sequenced events of one lineage, from the revision at which the copy begins up to
/// its head, without a gap.
///
/// An entry lives for the retention since it was applied. No connect token is minted for a session once it is revoked, so
/// entries must outlive the longest connect token, leeway included: 5 min and 5 s. The default is much longer, the default
/// absolute life of a session and some, so that whatever else is held against the log fails as well.
///
/// Memory: a session takes 17 bytes in the set and 48 in the order of ends, a player 33 and 48; the set and map are 7/16 full after
/// they have grown, the order half full. So a revocation takes under 180 bytes, and 10,000 a day take 1.8 MB. There is no other
/// bound, because to forget a revocation early would admit who was thrown out; the sidecar alone adds to it.
#[derive(Debug)]
pub struct RevocationLog {
    retention: Duration,
    range: Option<Range>,
    sessions: HashSet<SessionId>,
    /// The smallest generation that is good.
    players: HashMap<PlayerId, PlayerGeneration>,
    /// The same by the log before this one, until this one has caught up.
    former_players: HashMap<PlayerId, PlayerGeneration>,
    /// When entries end, in order, because they all live equally long.
    ends: VecDeque<(Timestamp, Revoked)>,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    lineage: Lineage,
    /// Events after this revision are here.
    tail: Revision,
    head: Revision,
}

impl RevocationLog {
    /// The absolute life of a session by default, 24 h, and a minute for leeways and clocks.
    pub const DEFAULT_RETENTION: Duration = Duration::from_secs(24 * 3_600 + 60);

    /// No log yet: it covers nothing until the first [`reset`](RevocationLog::reset).
    pub fn new(retention: Duration) -> Self {
        Self {
            retention,
            range: None,
            sessions: HashSet::new(),
            players: HashMap::new(),
            former_players: HashMap::new(),
            ends: VecDeque::new(),
        }
    }

    /// The log starts afresh at `revision` in `lineage`: the copy covers nothing before, and the next event is the one after.
    ///
    /// What was revoked stays revoked within a lineage. In a new one sessions stay revoked as well, because a JTI is never given
    /// twice; but player generations are forgotten once the new log has [caught up](Self::caught_up), because it may count them from
    /// an older state. Not before: what the new log retains of them comes only after the reset.
    pub fn reset(&mut self, lineage: Lineage, revision: Revision) {
        if self.lineage() != Some(lineage) {
            for (player, generation) in self.players.drain() {
                let former = self.former_players.entry(player).or_default();
                *former = generation.max(*former);
            }
            // Their ends too: an old one must not end a new revocation of the same generation early.
            self.ends
                .retain(|(_, revoked)| matches!(revoked, Revoked::Session(_)));
        }
        self.range = Some(Range {
            lineage,
            tail: revision,
            head: revision,
        });
    }

    /// Applies the events of the log in the range (`from`, `to`]. An overlap with what is known is applied again, which changes
    /// nothing.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing has changed then.
    pub fn apply(
        &mut self,
        from: Revision,
        to: Revision,
        events: impl IntoIterator<Item = Revoked>,
        now: Timestamp,
    ) -> Result<(), ApplyError> {
        let head = self.range.ok_or(ApplyError::NoLog)?.head;
        if to < from {
            return Err(ApplyError::Backwards);
        }
        if from > head {
            return Err(ApplyError::Gap { head, from });
        }
        for event in events {
            match event {
                Revoked::Session(session) => self.apply_session(session, now),
                Revoked::Player(player, generation) => self.apply_player(player, generation, now),
            }
        }
        if let Some(range) = &mut self.range {
            range.head = head.max(to);
        }
        Ok(())
    }

    /// The sidecar's log has this head: once the copy has come so far, nothing that the log before has revoked counts any more but
    /// what this one says too.
    pub fn caught_up(&mut self, head: Revision) {
        if self.range.is_some_and(|range| range.head >= head) {
            self.former_players.clear();
        }
    }

    /// Notes a session as revoked, apart from the sequence: what a snapshot says of it.
    pub fn apply_session(&mut self, session: SessionId, now: Timestamp) {
        if self.sessions.insert(session) {
            self.note_end(Revoked::Session(session), now);
        }
    }

    /// Notes that sessions of the player before `generation` are revoked, apart from the sequence: what a snapshot says of it.
    pub fn apply_player(&mut self, player: PlayerId, generation: PlayerGeneration, now: Timestamp) {
        let known = self.players.entry(player).or_default();
        if *known < generation {
            *known = generation;
            self.note_end(Revoked::Player(player, generation), now);
        }
    }

    /// Whether the session is revoked, or all of its player's of that generation are.
    pub fn check(
        &self,
        session: SessionId,
        player: PlayerId,
        generation: PlayerGeneration,
    ) -> bool {
        let is_older = |least: Option<&PlayerGeneration>| least.is_some_and(|l| generation < *l);
        self.sessions.contains(&session)
            || is_older(self.players.get(&player))
            || is_older(self.former_players.get(&player))
    }

    /// Whether the log tells of every revocation since `revision`.
    pub fn covers(&self, revision: Revision) -> Coverage {
        match self.range {
            Some(range) if revision < range.tail => Coverage::TooOld,
            Some(range) if revision <= range.head => Coverage::Covered,
            Some(_) | None => Coverage::NotYet,
        }
    }

    /// The last revision applied; 0 while there is no log.
    pub fn head(&self) -> Revision {
        self.range.map(|range| range.head).unwrap_or_default()
    }

    /// Which log this is a copy of.
    pub fn lineage(&self) -> Option<Lineage> {
        self.range.map(|range| range.lineage)
    }

    /// Clears away entries whose retention has passed: at most 1,024 on one call, so call it every second or tick.
    pub fn purge(&mut self, now: Timestamp) {
        for _ in 0..PURGED_PER_CALL {
            let Some((_, entry)) = self.ends.front().filter(|(end, _)| *end <= now) else {
                break;
            };
            match *entry {
                Revoked::Session(session) => {
                    self.sessions.remove(&session);
                }
                Revoked::Player(player, generation) => {
                    // A later revocation of the same player has an end of its own.
                    if let hash_map::Entry::Occupied(known) = self.players.entry(player)
                        && *known.get() == generation
                    {
                        known.remove();
                    }
                }
            }
            self.ends.pop_front();
        }
    }

    /// How many entries there are: revocations applied within the retention, but for repeated ones.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn note_end(&mut self, entry: Revoked, now: Timestamp) {
        self.ends.push_back((now.after(self.retention), entry));
    }
}

impl Default for RevocationLog {
    fn default() -> Self {
        Self::new(Self::DEFAULT_RETENTION)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const RETENTION: Duration = Duration::from_secs(60);
    const LINEAGE: Lineage = Lineage(1);
    const NOBODY: PlayerId = PlayerId(0);

    fn log_at(revision: u64) -> RevocationLog {
        let mut log = RevocationLog::new(RETENTION);
        log.reset(LINEAGE, Revision(revision));
        log
    }

    fn session(n: u128) -> Revoked {
        Revoked::Session(SessionId(n))
    }

    fn revoked(log: &RevocationLog, n: u128) -> bool {
        log.check(SessionId(n), NOBODY, PlayerGeneration(0))
    }

    #[test]
    fn without_a_log_nothing_is_covered_or_applied() {
        let mut log = RevocationLog::default();
        assert_eq!(log.covers(Revision(0)), Coverage::NotYet);
        assert_eq!(
            log.apply(Revision(0), Revision(1), [session(1)], NOW),
            Err(ApplyError::NoLog)
        );
        assert!(!revoked(&log, 1));
        assert_eq!((log.head(), log.lineage()), (Revision(0), None));
    }

    #[test]
    fn ranges_follow_one_another_and_gaps_are_refused() {
        let mut log = log_at(5);
        assert_eq!(log.covers(Revision(4)), Coverage::TooOld);
        assert_eq!(log.covers(Revision(5)), Coverage::Covered);
        assert_eq!(log.covers(Revision(6)), Coverage::NotYet);
        log.apply(Revision(5), Revision(7), [session(6), session(7)], NOW)
            .unwrap();
        assert_eq!(
            log.apply(Revision(8), Revision(9), [session(9)], NOW),
            Err(ApplyError::Gap {
                head: Revision(7),
                from: Revision(8)
            })
        );
        assert!(!revoked(&log, 9));
        assert_eq!(
            log.apply(Revision(7), Revision(6), [session(9)], NOW),
            Err(ApplyError::Backwards)
        );
        // Overlap, and a range that is known altogether.
        log.apply(Revision(6), Revision(8), [session(7), session(8)], NOW)
            .unwrap();
        log.apply(Revision(5), Revision(6), [session(6)], NOW)
            .unwrap();
        assert_eq!(log.head(), Revision(8));
        assert_eq!(log.covers(Revision(8)), Coverage::Covered);
        assert_eq!(log.len(), 3);
        assert!((6..=8).all(|n| revoked(&log, n)));
    }

    #[test]
    fn player_generations_only_rise() {
        let mut log = log_at(0);
        let player = PlayerId(1);
        log.apply_player(player, PlayerGeneration(3), NOW);
        log.apply_player(player, PlayerGeneration(2), NOW);
        let check = |log: &RevocationLog, generation| {
            log.check(SessionId(1), player, PlayerGeneration(generation))
        };
        assert!(check(&log, 2));
        assert!(!check(&log, 3));
        assert!(!log.check(SessionId(1), PlayerId(2), PlayerGeneration(0)));
    }

    #[test]
    fn entries_end_with_their_retention() {
        let mut log = log_at(0);
        let later = NOW.after(Duration::from_secs(30));
        log.apply_session(SessionId(1), NOW);
        log.apply_player(PlayerId(1), PlayerGeneration(1), NOW);
        log.apply_player(PlayerId(1), PlayerGeneration(2), later);
        log.purge(NOW.after(RETENTION).before(Duration::from_millis(1)));
        assert!(revoked(&log, 1));
        log.purge(NOW.after(RETENTION));
        assert!(!revoked(&log, 1));
        assert!(log.check(SessionId(9), PlayerId(1), PlayerGeneration(1)));
        log.purge(later.after(RETENTION));
        assert!(!log.check(SessionId(9), PlayerId(1), PlayerGeneration(1)));
        assert!(log.is_empty() && log.players.is_empty() && log.sessions.is_empty());
    }

    #[test]
    fn a_new_lineage_counts_players_afresh() {
        let mut log = log_at(9);
        log.apply_session(SessionId(1), NOW);
        log.apply_player(PlayerId(1), PlayerGeneration(4), NOW);
        log.reset(LINEAGE, Revision(20));
        assert!(revoked(&log, 1));
        assert!(log.check(SessionId(2), PlayerId(1), PlayerGeneration(3)));
        assert_eq!(log.covers(Revision(19)), Coverage::TooOld);

        log.reset(Lineage(2), Revision(2));
        assert!(revoked(&log, 1));
        // What the new log says of the player may be still to come.
        log.caught_up(Revision(3));
        assert!(log.check(SessionId(2), PlayerId(1), PlayerGeneration(3)));
        log.apply(Revision(2), Revision(3), [session(5)], NOW)
            .unwrap();
        log.caught_up(Revision(3));
        assert!(!log.check(SessionId(2), PlayerId(1), PlayerGeneration(3)));
        assert_eq!(log.head(), Revision(3));
        assert_eq!(log.lineage(), Some(Lineage(2)));
    }

    fn event() -> impl Strategy<Value = Revoked> {
        prop_oneof![
            (0..40_u128).prop_map(session),
            (0..6_u128, 0..9_u32)
                .prop_map(|(p, g)| Revoked::Player(PlayerId(p), PlayerGeneration(g))),
        ]
    }

    proptest! {
        /// Whatever ranges of one log arrive, in whatever order, what is applied is a prefix of it, and all of that prefix.
        #[test]
        fn what_is_applied_is_a_prefix(
            events in prop::collection::vec(event(), 1..60),
            ranges in prop::collection::vec((0..60_usize, 0..12_usize), 0..40),
        ) {
            let mut log = log_at(0);
            let mut known = 0;
            for (from, count) in ranges {
                let from = from.min(events.len());
                let to = (from + count).min(events.len());
                let applied = log.apply(
                    Revision(from as u64), Revision(to as u64), events[from..to].iter().copied(), NOW);
                prop_assert_eq!(applied.is_ok(), from <= known);
                if from <= known {
                    known = known.max(to);
                }
                prop_assert_eq!(log.head(), Revision(known as u64));
            }
            let prefix = &events[..known];
            for s in 0..40 {
                prop_assert_eq!(
                    log.check(SessionId(s), PlayerId(99), PlayerGeneration(0)),
                    prefix.contains(&session(s)));
            }
            for p in 0..6 {
                let least = prefix.iter().filter_map(|event| match event {
                    Revoked::Player(player, generation) if *player == PlayerId(p) => Some(generation.0),
                    _ => None,
                }).max().unwrap_or(0);
                for g in 0..9 {
                    prop_assert_eq!(
                        log.check(SessionId(99), PlayerId(p), PlayerGeneration(g)), g < least);
                }
            }
        }
    }
}
