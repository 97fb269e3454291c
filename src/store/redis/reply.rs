//! What scripts answer, read value by value: whatever is not as it should be is a damaged record.

use std::{str::FromStr, vec};

use redis::Value;

use crate::{
    clock::Timestamp,
    control::Revocation,
    id::{PlayerGeneration, Revision},
    store::{EndedBy, Found, Player, Session, StoreError, Successor},
};

/// What stands where nothing of ours should.
pub(super) const DAMAGED: StoreError = StoreError::Record("redis");

/// The values of an answer, in order.
pub(super) struct Reply(vec::IntoIter<Value>);

impl Reply {
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(DAMAGED),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            Some(Value::SimpleString(text)) => Ok(text.into_bytes()),
            Some(Value::Int(number)) => Ok(number.to_string().into_bytes()),
            _ => Err(DAMAGED),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| DAMAGED)
    }

    /// A number or an id, by its text.
    pub(super) fn parsed<T: FromStr>(&mut self) -> Result<T, StoreError> {
        self.text()?.parse().map_err(|_| DAMAGED)
    }

    pub(super) fn revision(&mut self) -> Result<Revision, StoreError> {
        self.parsed().map(Revision)
    }

    fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.parsed().map(Timestamp)
    }

    pub(super) fn list(&mut self) -> Result<Self, StoreError> {
        self.0.next().ok_or(DAMAGED).and_then(Self::of)
    }

    /// A session as `row` in prelude.lua lays it out.
    pub(super) fn found(&mut self) -> Result<Found, StoreError> {
        self.row().map(|successor| successor.found)
    }

    /// A session with what its last rotation made.
    pub(super) fn row(&mut self) -> Result<Successor, StoreError> {
        let id = self.parsed()?;
        let owner = self.parsed()?;
        let mut session = Session {
            id,
            player_generation: self.parsed().map(PlayerGeneration)?,
            generation: self.parsed()?,
            method: self.text()?,
            created_at: self.time()?,
            ends_at: self.time()?,
            active_at: self.time()?,
            revoked: None,
        };
        let revoked = self.text()?;
        if !revoked.is_empty() {
            session.revoked = Some(Revision(revoked.parse().map_err(|_| DAMAGED)?));
        }
        let player = Player {
            id: owner,
            generation: self.parsed().map(PlayerGeneration)?,
            role: self.text()?,
            revoked_revision: self.revision()?,
        };
        let issued_at = self.time()?;
        let role = self.text()?;
        let head = self.revision()?;
        Ok(Successor {
            found: Found {
                session,
                player,
                head,
            },
            issued_at,
            role,
        })
    }

    /// What ended a session, as `ended` in prelude.lua says it; none for a session that is not known.
    pub(super) fn ended_by(&mut self) -> Result<Option<EndedBy>, StoreError> {
        match &*self.text()? {
            "r" => Ok(Some(EndedBy::Revocation)),
            "a" => Ok(Some(EndedBy::AbsoluteEnd)),
            "i" => Ok(Some(EndedBy::Idleness)),
            "" => Ok(None),
            _ => Err(DAMAGED),
        }
    }

    /// Places in a list that was asked about: those of `asked` that stand there.
    pub(super) fn places<T: Copy>(self, asked: &[T]) -> Result<Vec<T>, StoreError> {
        self.0
            .map(|place| match place {
                Value::Int(place) => usize::try_from(place)
                    .ok()
                    .and_then(|place| asked.get(place).copied())
                    .ok_or(DAMAGED),
                _ => Err(DAMAGED),
            })
            .collect()
    }

    /// Places in a list that was asked about, each with a time.
    pub(super) fn moments<T: Copy>(
        mut self,
        asked: &[T],
    ) -> Result<Vec<(T, Timestamp)>, StoreError> {
        let mut moments = Vec::with_capacity(self.0.len() / 2);
        while !self.is_empty() {
            let place: usize = self.parsed()?;
            let of = asked.get(place).copied().ok_or(DAMAGED)?;
            moments.push((of, self.time()?));
        }
        Ok(moments)
    }

    pub(super) fn events(mut self) -> Result<Vec<Revocation>, StoreError> {
        let mut events = Vec::with_capacity(self.0.len());
        while !self.is_empty() {
            events.push(event_from(&self.text()?)?);
        }
        Ok(events)
    }

    /// What the stream holds: each event with its revision.
    pub(super) fn entries(mut self) -> Result<Vec<(Revision, Revocation)>, StoreError> {
        let mut entries = Vec::with_capacity(self.0.len());
        while !self.is_empty() {
            let mut entry = self.list()?;
            let id = entry.text()?;
            let revision = id.strip_suffix("-0").ok_or(DAMAGED)?;
            let revision = Revision(revision.parse().map_err(|_| DAMAGED)?);
            let mut fields = entry.list()?;
            if fields.text()? != "event" {
                return Err(DAMAGED);
            }
            entries.push((revision, event_from(&fields.text()?)?));
        }
        Ok(entries)
    }
}

/// An event as the stream holds it: `s` and the session, or `p`, the player, and its generation.
fn event_from(text: &str) -> Result<Revocation, StoreError> {
    if let Some(session) = text.strip_prefix('s') {
        return session
            .parse()
            .map(Revocation::Session)
            .map_err(|_| DAMAGED);
    }
    let player = text.strip_prefix('p').and_then(|p| p.split_once(':'));
    let (player, generation) = player.ok_or(DAMAGED)?;
    let player = player.parse().map_err(|_| DAMAGED)?;
    let generation = PlayerGeneration(generation.parse().map_err(|_| DAMAGED)?);
    Ok(Revocation::Player(player, generation))
}

/// The text of [`event_from`].
pub(super) fn event_text(event: Revocation) -> String {
    match event {
        Revocation::Session(session) => format!("s{session}"),
        Revocation::Player(player, PlayerGeneration(generation)) => {
            format!("p{player}:{generation}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PlayerId, SessionId};

    #[test]
    fn events_survive_their_text() {
        for event in [
            Revocation::Session(SessionId(0x0192_5f6a_0000_1234_5678_9abc_def0_1234)),
            Revocation::Player(PlayerId(7), PlayerGeneration(u32::MAX)),
        ] {
            assert_eq!(event_from(&event_text(event)).unwrap(), event);
        }
        for bad in ["", "s", "p7", "p:1", "x01"] {
            assert!(event_from(bad).is_err(), "{bad}");
        }
    }
}
