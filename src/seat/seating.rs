//! Who gets which seat: fresh ones, those that are taken over, and those whose connection is lost.

use super::{
    Connection, EndReason, Grant, Handle, Installed, Joined, NotSeated, SamePlayer,
    books::{Berth, Books, Floor, Seat, Service},
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
        floor: &Floor,
        session: SessionId,
        player: PlayerId,
    ) -> Result<Room, NotSeated> {
        if let Some(slot) = self.find(session) {
            return Ok(Room::Own(slot));
        }
        let replaced = match self.same_player {
            SamePlayer::NewestWins => self.of_player(player).count(),
            SamePlayer::OldestWins if self.first_of_player(player).is_some() => {
                return Err(NotSeated::PlayerPresent);
            }
            SamePlayer::OldestWins | SamePlayer::Allow => 0,
        };
        if self.seats - replaced < self.capacity && self.used() < floor.slots.len() {
            Ok(Room::New)
        } else {
            Err(NotSeated::Full)
        }
    }

    pub(super) fn install(
        &mut self,
        floor: &Floor,
        grant: Grant,
        now: Timestamp,
    ) -> Result<Installed, NotSeated> {
        let room = self.room_for(floor, grant.session, grant.player)?;
        if let Room::Own(slot) = room
            && let Some(taken) = self.take_over(floor, slot, &grant, now)
        {
            return Ok(taken);
        }
        let slot = self.free_slot(floor).ok_or(NotSeated::Full)?;
        if self.same_player == SamePlayer::NewestWins {
            // Before the new seat is there: all of the player's seats are others. One at the most, since this held before too.
            while let Some(other) = self.first_of_player(grant.player)
                && self.end_and_close(floor, other, EndReason::Superseded)
            {}
        }
        self.seat(floor, slot, grant, now).map(Installed::Fresh)
    }

    /// Gives the seat in `slot` to the connection of `grant`, of the same session; lists the one that served it, if one did, for
    /// its worker to close. The absolute end stays: it is the session's, and cannot be moved.
    fn take_over(
        &mut self,
        floor: &Floor,
        slot: u32,
        grant: &Grant,
        now: Timestamp,
    ) -> Option<Installed> {
        let word = floor.slot(slot)?;
        let berth = self.berths.get_mut(slot as usize)?;
        let seat = berth.seat.as_mut()?;
        let handle = Handle {
            slot,
            generation: berth.generation,
        };
        seat.player_generation = seat.player_generation.max(grant.player_generation);
        seat.active_at = seat.active_at.max(now);
        let displaced = match std::mem::replace(&mut seat.service, Service::By(grant.connection)) {
            Service::By(displaced) => {
                word.mark(handle.generation);
                floor
                    .closings
                    .list(handle, displaced, EndReason::Superseded);
                Some(displaced)
            }
            Service::NoneUntil(end) => {
                self.graces.remove(&(end, slot));
                word.resume(handle.generation);
                None
            }
        };
        seat.told = self
            .journal
            .resumed(handle, grant.connection.worker, seat.told);
        self.tally.resumed();
        Some(Installed::Taken {
            handle,
            client: seat.client,
            displaced,
        })
    }

    /// Seats a session that has no seat in a free slot.
    fn seat(
        &mut self,
        floor: &Floor,
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
        let (Some(berth), Some(word)) = (self.berths.get_mut(slot as usize), floor.slot(slot))
        else {
            // Unreachable: a free slot has a berth and a word.
            return Err(NotSeated::Full);
        };
        berth.generation = berth.generation.wrapping_add(1).max(1);
        let handle = Handle {
            slot,
            generation: berth.generation,
        };
        berth.seat = Some(Seat {
            session,
            player,
            player_generation,
            client,
            ends_at,
            service: Service::By(connection),
            active_at: now,
            written: None,
            place: self.phases.enter(session, slot),
            told: self.journal.joined(Joined {
                handle,
                session,
                player,
                player_generation,
                client,
                worker: connection.worker,
            }),
        });
        self.by_session.insert(session, slot);
        self.by_player.insert((player, slot));
        self.seats += 1;
        self.tally.joined();
        word.open(handle.generation);
        Ok(handle)
    }

    fn first_of_player(&self, player: PlayerId) -> Option<u32> {
        self.of_player(player).next()
    }

    fn free_slot(&mut self, floor: &Floor) -> Option<u32> {
        if let Some(slot) = self.free.pop_front() {
            return Some(slot);
        }
        if self.berths.len() >= floor.slots.len() {
            return None;
        }
        let slot = u32::try_from(self.berths.len()).ok()?;
        self.berths.push(Berth {
            generation: 0,
            seat: None,
        });
        // Room for every slot to be free, so that a tick that frees slots never allocates.
        self.free.reserve(self.berths.len() - self.free.len());
        Some(slot)
    }

    /// Suspends a live seat whose connection was lost, or ends it if there is no grace. False if that connection does not serve it.
    pub(super) fn suspend(
        &mut self,
        floor: &Floor,
        handle: Handle,
        connection: Connection,
        now: Timestamp,
    ) -> bool {
        if self.connection(handle) != Some(connection) {
            return false;
        }
        if self.grace.is_zero() {
            return self.end(floor, handle.slot, EndReason::Lost).is_some();
        }
        let (
            Some(word),
            Some(Berth {
                seat: Some(seat), ..
            }),
        ) = (
            floor.slot(handle.slot),
            self.berths.get_mut(handle.slot as usize),
        )
        else {
            // Unreachable: it has a connection.
            return false;
        };
        let Some(was_marked) = word.suspend(handle.generation) else {
            // Unreachable: the books and the word agree while the lock is held.
            return false;
        };
        if was_marked {
            // The mark is older than its write-out is going to be, but not than this.
            seat.active_at = seat.active_at.max(now);
        }
        let end = now.after(self.grace);
        seat.service = Service::NoneUntil(end);
        seat.told = self.journal.suspended(handle, seat.told);
        self.graces.insert((end, handle.slot));
        self.tally.suspended();
        true
    }

    /// Ends every seat; returns how many there were.
    pub(super) fn end_all(&mut self, floor: &Floor, reason: EndReason) -> usize {
        (0..)
            .take(self.berths.len())
            .filter(|slot| self.end_and_close(floor, *slot, reason))
            .count()
    }
}
