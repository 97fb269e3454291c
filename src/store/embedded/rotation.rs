//! Refreshing a session's tokens: the compare and the swap.

use crate::{
    clock::Timestamp,
    proto,
    store::{
        EndedBy, Found, RefreshClaim, Refreshed, SessionRevocation, StoreError, Successor,
        rotation::{Worth, judge},
    },
};

use super::{
    Shared,
    changes::Changes,
    lock,
    tables::{self, found, player_of},
};

/// The answer that needs no change, as of the last commit: a lost one asked for again, or that the session is over. None if the writer
/// has to decide. So whoever sends a dead token over and over again costs no commit.
pub(super) fn read_settled(
    shared: &Shared,
    claim: RefreshClaim,
    at: Timestamp,
) -> Result<Option<Refreshed>, StoreError> {
    let read = shared.read(|read| tables::read_record(read, claim.session))?;
    let Some((mut found, record)) = read else {
        return Ok(Some(Refreshed::Ended(None)));
    };
    let on_disk = found.session.active_at;
    found.session.active_at = lock(&shared.activity).exact(claim.session, on_disk);
    let rotated_at = Timestamp(record.rotated_at_ms);
    let worth = judge(&found, rotated_at, claim, at, shared.lives.idle);
    #[cfg(test)]
    let worth = super::fault::misjudged(super::fault::planted(shared), worth);
    Ok(match worth {
        Worth::Next | Worth::Reused => None,
        Worth::Again => Some(Refreshed::Again(successor(found, record))),
        Worth::Nothing(by) => Some(Refreshed::Ended(by)),
    })
}

impl Changes<'_, '_> {
    /// Nothing can come between the look and the change: there is one writer, and this is one of its steps.
    pub(super) fn refresh(
        &mut self,
        claim: RefreshClaim,
        at: Timestamp,
    ) -> Result<Refreshed, StoreError> {
        let Some(mut record) = self.tables.session(claim.session)? else {
            return Ok(Refreshed::Ended(None));
        };
        let found = self.found_now(claim, &record)?;
        let rotated_at = Timestamp(record.rotated_at_ms);
        let worth = judge(&found, rotated_at, claim, at, self.idle);
        #[cfg(test)]
        let worth = super::fault::misjudged(self.fault, worth);
        match worth {
            Worth::Next => {
                record.generation = record
                    .generation
                    .checked_add(1)
                    .ok_or(StoreError::Record("sessions"))?;
                record.rotated_at_ms = at.0;
                record.rotated_role.clone_from(&found.player.role);
                self.tables.put_session(claim.session, &record)?;
                Ok(Refreshed::Rotated(successor(found, record)))
            }
            Worth::Again => Ok(Refreshed::Again(successor(found, record))),
            Worth::Reused => Ok(match self.revoke_session(claim.session, at)? {
                SessionRevocation::Ended(revision) => Refreshed::Reused(revision),
                SessionRevocation::AlreadyEnded(_) | SessionRevocation::Unknown => {
                    Refreshed::Ended(Some(EndedBy::Revocation))
                }
            }),
            Worth::Nothing(by) => Ok(Refreshed::Ended(by)),
        }
    }

    /// The session as it is in this very transaction, with its exact activity.
    fn found_now(
        &self,
        claim: RefreshClaim,
        record: &proto::SessionRecord,
    ) -> Result<Found, StoreError> {
        let owner = player_of(record)?;
        let player = self.tables.player(owner)?;
        let player = player.ok_or(StoreError::Record("players"))?;
        let mut found = found(claim.session, record.clone(), owner, player, self.head());
        let on_disk = found.session.active_at;
        found.session.active_at = self.known_activity().exact(claim.session, on_disk);
        Ok(found)
    }
}

fn successor(mut found: Found, record: proto::SessionRecord) -> Successor {
    found.session.generation = record.generation;
    Successor {
        found,
        issued_at: Timestamp(record.rotated_at_ms),
        role: record.rotated_role,
    }
}
