//! The sessions of each player, in memory: an index that is made of the sessions themselves when the file is opened.
//!
//! On the disk it would be the one table that a login writes at a random place. Each of 256 logins in a commit then costs a page of its
//! own, copied, hashed and written, where the other tables grow at their ends and share a few: measured, 256 callers log in 32,000
//! times a second with such a table and 65,000 times without. Nothing is lost without it, for it says nothing that the sessions do not. What it costs is memory (34 to 55 bytes a session,
//! as full as B-tree nodes are) and a walk over all sessions at the start, which is less than checking the file takes anyway.

use std::{collections::BTreeSet, ops::Bound};

use crate::id::{PlayerId, SessionId};

/// Which sessions are whose, as of the last commit.
#[derive(Debug, Default)]
pub(super) struct Roster(BTreeSet<(PlayerId, SessionId)>);

/// What a transaction changes about it.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Sessions that were made.
    pub(super) started: Vec<(PlayerId, SessionId)>,
    /// Sessions that were taken away.
    pub(super) purged: Vec<(PlayerId, SessionId)>,
}

impl Roster {
    /// Takes over what a transaction has changed, now that it is durable.
    pub(super) fn follow(&mut self, moves: Moves) {
        let Moves { started, purged } = moves;
        self.0.extend(started);
        for pair in &purged {
            self.0.remove(pair);
        }
    }

    /// Up to `limit` sessions of a player with an id below `before` (all, if none), newest first.
    pub(super) fn of(
        &self,
        player: PlayerId,
        before: Option<SessionId>,
        limit: usize,
    ) -> Vec<SessionId> {
        let first = Bound::Included((player, SessionId(u128::MIN)));
        let end = match before {
            Some(before) => Bound::Excluded((player, before)),
            None => Bound::Included((player, SessionId(u128::MAX))),
        };
        let newest_first = self.0.range((first, end)).rev();
        newest_first.take(limit).map(|(_, id)| *id).collect()
    }
}

impl FromIterator<(PlayerId, SessionId)> for Roster {
    fn from_iter<I: IntoIterator<Item = (PlayerId, SessionId)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(player: u128, session: u128) -> (PlayerId, SessionId) {
        (PlayerId(player), SessionId(session))
    }

    #[test]
    fn a_players_sessions_are_listed_newest_first_and_in_pieces() {
        let mut roster = Roster::from_iter([pair(1, u128::MAX), pair(2, 5), pair(2, 3)]);
        roster.follow(Moves {
            started: vec![pair(2, 9), pair(3, 0), pair(2, u128::MAX), pair(2, 0)],
            purged: vec![pair(2, 5)],
        });
        let ids = |ids: &[u128]| ids.iter().copied().map(SessionId).collect::<Vec<_>>();
        let two = PlayerId(2);
        assert_eq!(roster.of(two, None, 9), ids(&[u128::MAX, 9, 3, 0]));
        assert_eq!(roster.of(two, None, 2), ids(&[u128::MAX, 9]));
        assert_eq!(roster.of(two, Some(SessionId(9)), 9), ids(&[3, 0]));
        assert_eq!(roster.of(two, Some(SessionId(0)), 9), ids(&[]));
        assert_eq!(roster.of(PlayerId(4), None, 9), ids(&[]));
    }

    #[test]
    fn what_one_transaction_makes_and_takes_away_is_gone() {
        let mut roster = Roster::default();
        roster.follow(Moves {
            started: vec![pair(1, 1)],
            purged: vec![pair(1, 1)],
        });
        assert!(roster.of(PlayerId(1), None, 9).is_empty());
    }
}
