//! Who gets which seat: fresh ones, those that are taken over, and those whose connection is lost.

use super::{
    Connection, EndReason, Grant, Handle, Installed, Joined, NotSeated, SamePlayer,
    books::Books,
    hall::Hall,
    phases::{hash, phase_of},
    record::{Links, Record, Service},
    sync::lock,
};
use crate::{
    clock::Timestamp,
    id::{PlayerId, SessionId},
};

/// Where a session is to sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// In its own seat, which is in this slot.
    Own(u32),
    /// In a new one, once the player's other seats have ended if there are any.
    New,
}

impl Books {
    /// Where this session is to sit.
    pub(super) fn room_for(
        &self,
        hall: &Hall,
        session: SessionId,
        player: PlayerId,
    ) -> Result<Room, NotSeated> {
        if let Some(slot) = self.find(hall, session) {
            return Ok(Room::Own(slot));
        }
        let replaced = match self.same_player {
            SamePlayer::NewestWins => self.of_player(player).count(),
            SamePlayer::OldestWins if self.first_of_player(player).is_some() => {
                return Err(NotSeated::PlayerPresent);
            }
            SamePlayer::OldestWins | SamePlayer::Allow => 0,
        };
        let slots = hall.floor.len() - self.worn_out;
        if self.seats - replaced < self.capacity && self.used(hall) < slots {
            Ok(Room::New)
        } else {
            Err(NotSeated::Full)
        }
    }

    pub(super) fn install(
        &mut self,
        hall: &Hall,
        grant: Grant,
        now: Timestamp,
    ) -> Result<Installed, NotSeated> {
        let room = self.room_for(hall, grant.session, grant.player)?;
        if let Room::Own(slot) = room
            && let Some(taken) = self.take_over(hall, slot, &grant, now)
        {
            return Ok(taken);
        }
        let phase = phase_of(grant.session, hall.layout.phases);
        let slot = self.free_slot(hall, phase).ok_or(NotSeated::Full)?;
        if self.same_player == SamePlayer::NewestWins {
            // Before the new seat is there: all of the player's seats are others. One at the most, since this held before too.
            while let Some(other) = self.first_of_player(grant.player)
                && self.end_and_close(hall, other, EndReason::Superseded)
            {}
        }
        self.seat(hall, slot, grant, now).map(Installed::Fresh)
    }

    /// Gives the seat in `slot` to the connection of `grant`, of the same session; lists the one that served it, if one did, for
    /// its worker to close. The absolute end stays: it is the session's, and cannot be moved.
    fn take_over(
        &mut self,
        hall: &Hall,
        slot: u32,
        grant: &Grant,
        now: Timestamp,
    ) -> Option<Installed> {
        let handle = hall.floor.handle(slot)?;
        let record = self.records.get_mut(slot)?;
        let client = record.client;
        record.player_generation = record.player_generation.max(grant.player_generation);
        hall.floor.was_active(slot, hall.era.round_up(now));
        let displaced = record.service.connection();
        if let Some(displaced) = displaced {
            hall.floor.mark(slot);
            hall.closings.list(handle, displaced, EndReason::Superseded);
        } else {
            self.graces.remove(&mut self.records, slot);
            hall.set_next_grace_end(self.first_grace());
            hall.floor.resume(handle);
        }
        let record = self.records.get_mut(slot)?;
        record.service = Service::by(grant.connection);
        record.told = lock(&hall.journal).resumed(
            handle,
            grant.connection.worker,
            record.told,
            displaced.is_some(),
        );
        self.tally.resumed();
        Some(Installed::Taken {
            handle,
            client,
            displaced,
        })
    }

    /// Seats a session that has no seat in a free slot.
    fn seat(
        &mut self,
        hall: &Hall,
        slot: u32,
        grant: Grant,
        now: Timestamp,
    ) -> Result<Handle, NotSeated> {
        let Grant {
            session,
            player,
            player_generation,
            client,
            ends_at,
            connection,
        } = grant;
        let (ends_at, active_at) = (hall.era.round_up(ends_at), hall.era.round_up(now));
        let (Some(record), Some(handle)) = (
            self.records.get_mut(slot),
            hall.floor.open(slot, session, ends_at, active_at),
        ) else {
            // Unreachable: a free slot has a record, a word, and a generation left.
            return Err(NotSeated::Full);
        };
        *record = Record {
            player,
            client,
            service: Service::by(connection),
            player_generation,
            told: lock(&hall.journal).joined(Joined {
                handle,
                session,
                player,
                player_generation,
                client,
                worker: connection.worker,
            }),
            links: Links::NONE,
            siblings: Links::NONE,
        };
        self.by_session.insert(hash(session.0), slot);
        self.join_player(player, slot);
        self.seats += 1;
        self.tally.joined();
        Ok(handle)
    }

    /// Suspends a live seat whose connection was lost, or ends it if there is no grace. False if that connection does not serve it.
    pub(super) fn suspend(
        &mut self,
        hall: &Hall,
        handle: Handle,
        connection: Connection,
        now: Timestamp,
    ) -> bool {
        let slot = handle.slot();
        if self.connection(hall, handle) != Some(connection) {
            return false;
        }
        if self.grace.is_zero() {
            return self.end(hall, slot, EndReason::Lost).is_some();
        }
        let Some(record) = self.records.get_mut(slot) else {
            // Unreachable: it has a connection.
            return false;
        };
        if hall.floor.suspend(handle) {
            // The mark is older than its write-out is going to be, but not than this.
            hall.floor.was_active(slot, hall.era.round_up(now));
        }
        record.service = Service::NoneUntil(now.after(self.grace));
        record.told = lock(&hall.journal).suspended(handle, record.told);
        self.graces.insert(&mut self.records, slot);
        hall.set_next_grace_end(self.first_grace());
        self.tally.suspended();
        true
    }
}
