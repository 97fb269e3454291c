//! A session as the store knows it, and when it has ended.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId, Revision, SessionId},
};

/// A player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Player {
    /// Who it is.
    pub id: PlayerId,
    /// Sessions with a smaller one are dead.
    pub generation: PlayerGeneration,
    /// The player's role.
    pub role: String,
    /// The event of the newest revocation of all sessions; 0 if there was none.
    pub revoked_revision: Revision,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its JTI.
    pub id: SessionId,
    /// The player generation when it was made.
    pub player_generation: PlayerGeneration,
    /// Counts the refreshes of its tokens.
    pub generation: u32,
    /// How the player logged in.
    pub method: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its absolute end.
    pub ends_at: Timestamp,
    /// Its last activity, as far as it is known.
    pub active_at: Timestamp,
    /// The event that revoked it, if one did.
    pub revoked: Option<Revision>,
}

/// A session, its player and the log's head, as of one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The session.
    pub session: Session,
    /// Whose it is.
    pub player: Player,
    /// The newest revision of the revocation log at that instant.
    pub head: Revision,
}

/// Whether a session may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Live,
    /// It may not.
    Ended(EndedBy),
}

/// What ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// It was revoked, alone or with all of its player's.
    Revocation,
    /// It has reached its absolute end.
    AbsoluteEnd,
    /// Nobody used it for too long.
    Idleness,
}

impl EndedBy {
    /// Its fixed name in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Revocation => "session_revoked",
            Self::AbsoluteEnd => "session_expired",
            Self::Idleness => "session_idle",
        }
    }
}

impl Found {
    /// Whether the session may be used at `now`.
    pub fn standing(&self, now: Timestamp, idle: Duration) -> Standing {
        let Session {
            ends_at, active_at, ..
        } = self.session;
        if self.revocation().is_some() {
            Standing::Ended(EndedBy::Revocation)
        } else if now >= ends_at {
            Standing::Ended(EndedBy::AbsoluteEnd)
        } else if now >= active_at.after(idle) {
            Standing::Ended(EndedBy::Idleness)
        } else {
            Standing::Live
        }
    }

    /// The event that revoked the session, alone or with all of its player's.
    pub fn revocation(&self) -> Option<Revision> {
        let outdated = self.session.player_generation < self.player.generation;
        self.session
            .revoked
            .or_else(|| outdated.then_some(self.player.revoked_revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(100);

    fn found() -> Found {
        Found {
            session: Session {
                id: SessionId(1),
                player_generation: PlayerGeneration(3),
                generation: 0,
                method: "dev".into(),
                created_at: Timestamp(0),
                ends_at: Timestamp(1_000_000),
                active_at: Timestamp(50_000),
                revoked: None,
            },
            player: Player {
                id: PlayerId(2),
                generation: PlayerGeneration(3),
                role: "player".into(),
                revoked_revision: Revision(9),
            },
            head: Revision(10),
        }
    }

    #[test]
    fn a_session_ends_by_the_first_of_its_ends() {
        let live = found();
        assert_eq!(live.standing(Timestamp(149_999), IDLE), Standing::Live);
        assert_eq!(
            live.standing(Timestamp(150_000), IDLE),
            Standing::Ended(EndedBy::Idleness)
        );
        assert_eq!(
            live.standing(Timestamp(1_000_000), IDLE),
            Standing::Ended(EndedBy::AbsoluteEnd)
        );

        let mut revoked = found();
        revoked.session.revoked = Some(Revision(4));
        assert_eq!(
            revoked.standing(Timestamp(1_000_000), IDLE),
            Standing::Ended(EndedBy::Revocation)
        );
        assert_eq!(revoked.revocation(), Some(Revision(4)));
    }

    #[test]
    fn an_older_player_generation_is_a_revocation() {
        let mut outdated = found();
        outdated.session.player_generation = PlayerGeneration(2);
        assert_eq!(
            outdated.standing(Timestamp(60_000), IDLE),
            Standing::Ended(EndedBy::Revocation)
        );
        assert_eq!(outdated.revocation(), Some(Revision(9)));
    }
}
