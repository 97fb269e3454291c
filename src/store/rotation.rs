//! What a refresh token is worth against its session as it stands: the rule of rotation, without a store.
//!
//! ```text
//! generation presented   session                         worth
//! the current one        live                            the next generation
//! its parent             live, within the grace          the current generation once more: the answer was lost
//! any other, or later    not over yet                    reuse: two parties hold the tokens, and one of them is no friend
//! whichever              over                            nothing: what a dead token is presented for tells nothing more
//! ```
//!
//! That the successor has not been used in the meantime needs no mark: once it is, it is the parent, and its own parent is older.
//! (RFC 9700, section 4.14.2: rotation, and what reuse tells.)

use std::time::Duration;

use crate::clock::Timestamp;

use super::{EndedBy, Found, REFRESH_GRACE, RefreshClaim, Standing};

/// What a refresh token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// The next generation.
    Next,
    /// The current generation, as it was made before.
    Again,
    /// It was used before: the session is to be revoked.
    Reused,
    /// The session has ended, or this token is of none that is known.
    Nothing(Option<EndedBy>),
}

/// Judges `claim` at the time `at` against the session, whose current generation was made at `rotated_at`.
pub(super) fn judge(
    found: &Found,
    rotated_at: Timestamp,
    claim: RefreshClaim,
    at: Timestamp,
    idle: Duration,
) -> Worth {
    let session = &found.session;
    let is_foreign = claim.player_generation != session.player_generation;
    if is_foreign || claim.generation > session.generation {
        // Sealed by us, and yet not of this session: the store was restored from a backup meanwhile. Nobody stole anything.
        return Worth::Nothing(None);
    }
    let is_current = claim.generation == session.generation;
    let is_parent = claim.generation.checked_add(1) == Some(session.generation);
    if is_current || (is_parent && at < rotated_at.after(REFRESH_GRACE)) {
        return match found.standing(at, idle) {
            Standing::Ended(by) => Worth::Nothing(Some(by)),
            Standing::Live if is_current => Worth::Next,
            Standing::Live => Worth::Again,
        };
    }
    match found.standing(at, idle) {
        // Reuse is told once, by the step that ends the session for it.
        Standing::Ended(by @ (EndedBy::Revocation | EndedBy::AbsoluteEnd)) => {
            Worth::Nothing(Some(by))
        }
        // An idle one too: a gateway may know of activity that has not arrived here, and the thief may be playing.
        Standing::Ended(EndedBy::Idleness) | Standing::Live => Worth::Reused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{PlayerGeneration, PlayerId, Revision, SessionId},
        store::{Player, Session},
    };

    const IDLE: Duration = Duration::from_secs(3_600);
    const ROTATED: Timestamp = Timestamp(1_000_000);
    const GENERATION: u32 = 5;

    fn found() -> Found {
        Found {
            session: Session {
                id: SessionId(1),
                player_generation: PlayerGeneration(3),
                generation: GENERATION,
                method: "dev".into(),
                created_at: Timestamp(0),
                ends_at: ROTATED.after(IDLE * 24),
                active_at: ROTATED,
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

    fn worth(found: &Found, generation: u32, at: Timestamp) -> Worth {
        let claim = RefreshClaim {
            session: found.session.id,
            generation,
            player_generation: PlayerGeneration(3),
        };
        judge(found, ROTATED, claim, at, IDLE)
    }

    #[test]
    fn only_the_current_generation_is_worth_another() {
        let found = found();
        let last = ROTATED
            .after(REFRESH_GRACE)
            .before(Duration::from_millis(1));
        let late = ROTATED.after(REFRESH_GRACE);
        for at in [ROTATED, last, late] {
            assert_eq!(worth(&found, GENERATION, at), Worth::Next);
            assert_eq!(worth(&found, GENERATION - 2, at), Worth::Reused);
            assert_eq!(worth(&found, GENERATION + 1, at), Worth::Nothing(None));
        }
        for (at, expected) in [
            (ROTATED.before(REFRESH_GRACE), Worth::Again),
            (ROTATED, Worth::Again),
            (last, Worth::Again),
            (late, Worth::Reused),
        ] {
            assert_eq!(worth(&found, GENERATION - 1, at), expected, "{at}");
        }
        let mut foreign = found;
        foreign.session.player_generation = PlayerGeneration(2);
        assert_eq!(worth(&foreign, GENERATION, ROTATED), Worth::Nothing(None));
    }

    #[test]
    fn an_ended_session_is_worth_nothing_and_reuse_of_an_idle_one_is_told() {
        let idle = ROTATED.after(IDLE);
        let nothing = |by| Worth::Nothing(Some(by));
        assert_eq!(
            worth(&found(), GENERATION, idle),
            nothing(EndedBy::Idleness)
        );
        assert_eq!(worth(&found(), 1, idle), Worth::Reused);
        let end = found().session.ends_at;
        for generation in [1, GENERATION - 1, GENERATION] {
            let mut active = found();
            active.session.active_at = end;
            assert_eq!(
                worth(&active, generation, end),
                nothing(EndedBy::AbsoluteEnd)
            );
        }
        let mut revoked = found();
        revoked.session.revoked = Some(Revision(4));
        for generation in [1, GENERATION - 1, GENERATION] {
            let expected = nothing(EndedBy::Revocation);
            assert_eq!(worth(&revoked, generation, ROTATED), expected);
        }
        let mut outdated = found();
        outdated.player.generation = PlayerGeneration(4);
        assert_eq!(worth(&outdated, 1, ROTATED), nothing(EndedBy::Revocation));
    }

    /// Nothing overflows at the last generation there can be.
    #[test]
    fn the_last_generation_is_no_parent() {
        let mut found = found();
        found.session.generation = 0;
        assert_eq!(worth(&found, u32::MAX, ROTATED), Worth::Nothing(None));
    }
}
