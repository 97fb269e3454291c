//! Draining: nobody is admitted any more, seats go on until the deadline, and then they end.

use std::time::Duration;

use super::shared::Shared;
use crate::seat::EndReason;

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Seats go on, for so long at the most.
    Waiting(Duration),
    /// Nobody is in any more.
    Done,
}

/// Does what a drain asks for now; none if the gateway does not drain.
///
/// Called by the worker and not by the tick: a game that hangs is no reason for its gateway not to end. A seat whose connection is
/// lost is not waited for, since its session would not be let in again.
pub(super) fn enforce(shared: &Shared) -> Option<Progress> {
    let deadline = shared.drain_deadline()?;
    let left = deadline.since(shared.clock.wall());
    if left > Duration::ZERO && shared.seats.counts().live > 0 {
        return Some(Progress::Waiting(left));
    }
    shared.seats.end_all(EndReason::Drained);
    Some(Progress::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{ManualTime, Timestamp},
        gateway::Limits,
        id::{ClientId, PlayerGeneration, PlayerId, SessionId},
        seat::{Connection, Grant, Handle, SeatConfig, SeatTable},
    };

    const START: Timestamp = Timestamp(1_700_000_000_000);

    fn shared(time: &ManualTime) -> Shared {
        let seats = SeatTable::new(SeatConfig::default());
        let id = "one".parse().unwrap();
        Shared::new(id, Limits::default(), time.clock(), seats, None)
    }

    fn seat(shared: &Shared, n: u64) -> (Handle, Connection) {
        let connection = Connection { worker: 0, id: n };
        let grant = Grant {
            session: SessionId(n.into()),
            player: PlayerId(n.into()),
            player_generation: PlayerGeneration(0),
            client: ClientId(n),
            ends_at: START.after(Duration::from_secs(3_600)),
            connection,
        };
        let installed = shared.seats.install(grant, START).unwrap();
        (installed.handle(), connection)
    }

    #[test]
    fn at_the_deadline_all_seats_end_without_a_tick() {
        let time = ManualTime::starting_at(START);
        let shared = shared(&time);
        let (handle, connection) = seat(&shared, 1);
        assert_eq!(enforce(&shared), None);
        let second = Duration::from_secs(1);
        shared.start_draining(START.after(second));
        assert_eq!(enforce(&shared), Some(Progress::Waiting(second)));
        time.advance(second / 2);
        assert_eq!(enforce(&shared), Some(Progress::Waiting(second / 2)));
        assert!(shared.seats.verify(handle).is_live());
        time.advance(second / 2);
        assert_eq!(enforce(&shared), Some(Progress::Done));
        assert!(shared.seats.verify(handle).is_ended());
        let mut closings = Vec::new();
        shared.seats.take_closings(0, &mut closings);
        assert_eq!(closings, [(handle, connection, EndReason::Drained)]);
    }

    #[test]
    fn it_is_done_when_nobody_plays_any_more_and_who_was_lost_is_not_waited_for() {
        let time = ManualTime::starting_at(START);
        let shared = shared(&time);
        let (handle, connection) = seat(&shared, 1);
        let (lost, lost_connection) = seat(&shared, 2);
        assert!(shared.seats.suspend(lost, lost_connection, START));
        shared.start_draining(START.after(Duration::from_secs(60)));
        assert!(matches!(enforce(&shared), Some(Progress::Waiting(_))));
        let left = EndReason::Left;
        assert!(shared.seats.end_connection(handle, connection, left));
        assert_eq!(enforce(&shared), Some(Progress::Done));
        assert!(shared.seats.verify(lost).is_ended());
    }

    #[test]
    fn called_off_it_leaves_everybody_in_place() {
        let time = ManualTime::starting_at(START);
        let shared = shared(&time);
        let (handle, _) = seat(&shared, 1);
        shared.start_draining(START.after(Duration::from_secs(1)));
        shared.cancel_draining();
        time.advance(Duration::from_secs(10));
        assert_eq!(enforce(&shared), None);
        assert!(shared.seats.verify(handle).is_live());
    }
}
