//! What the table is held to: what each tick told, and after each step everything that can be asked.

use std::collections::HashMap;

use super::{CAPACITY, Model, SESSIONS};
use crate::{
    id::SessionId,
    seat::{Answers, Handle, SamePlayer, SeatChange, Verdict},
};

impl Model {
    /// Holds what a tick told to what was to be told, seat by seat, and of joins and ends across seats.
    pub(super) fn hear(&mut self, changes: &[SeatChange]) {
        let mut told: HashMap<Handle, Vec<SeatChange>> = HashMap::new();
        for change in changes {
            told.entry(change.handle()).or_default().push(*change);
        }
        for seat in &mut self.seats {
            let told = told.remove(&seat.handle).unwrap_or_default();
            if seat.gone {
                assert_eq!(told, [], "told of a seat whose end was told");
                continue;
            }
            assert_eq!(told, seat.changes());
            for change in told {
                seat.told = Some(follow(seat.told, &change));
            }
            assert_eq!(seat.told, Some(seat.verdict()), "and that is how it is");
            seat.served.clear();
            seat.gone = !seat.is_seated();
        }
        assert!(told.is_empty(), "told of nobody's seats: {told:?}");
        let order: Vec<Handle> = changes
            .iter()
            .filter(|change| matches!(change, SeatChange::Joined(_) | SeatChange::Ended { .. }))
            .map(SeatChange::handle)
            .collect();
        assert_eq!(order, std::mem::take(&mut self.order));
    }

    pub(in crate::seat) fn compare(&self) {
        let seated = self.seated(|_| true);
        assert!(seated.len() <= CAPACITY as usize);
        assert_eq!(self.table.len(), seated.len());
        assert_eq!(self.table.used(), self.used());
        let recent = self.seats.len().saturating_sub(64)..self.seats.len();
        let asked: Vec<usize> = recent.chain(seated.iter().copied()).collect();
        for i in &asked {
            let seat = &self.seats[*i];
            assert_eq!(self.table.verify(seat.handle), seat.verdict());
            assert_eq!(self.table.connection(seat.handle), seat.connection);
            let slot = seat.handle.slot();
            let is_last = !self.seats[i + 1..]
                .iter()
                .any(|later| later.handle.slot() == slot);
            let reason = seat.ended.filter(|_| is_last);
            assert_eq!(self.table.end_reason(seat.handle), reason);
        }
        let handles: Vec<Handle> = asked.iter().map(|i| self.seats[*i].handle).collect();
        let mut answers = Answers::default();
        self.table.verify_batch(&handles, &mut answers);
        let is_live = |place: usize| self.seats[asked[place]].verdict().is_live();
        assert_eq!(answers.len(), asked.len());
        assert!((0..asked.len()).all(|place| answers.is_live(place) == is_live(place)));
        for session in 0..SESSIONS {
            let session = SessionId(session.into());
            let seat = self.seat_of(session).map(|i| &self.seats[i]);
            assert_eq!(self.table.find(session), seat.map(|seat| seat.handle));
            assert_eq!(
                self.table.is_session_authorized(session),
                seat.is_some_and(|seat| seat.verdict().is_live())
            );
        }
        let mut told = Vec::new();
        self.table
            .live_seats(|seat| told.push((seat.session, seat.player, seat.player_generation)));
        told.sort();
        let mut expected: Vec<_> = seated
            .iter()
            .map(|i| &self.seats[*i])
            .map(|seat| (seat.grant.session, seat.grant.player, seat.generation))
            .collect();
        expected.sort();
        assert_eq!(told, expected);
        if self.rules.same_player != SamePlayer::Allow {
            let mut players: Vec<_> = expected.iter().map(|(_, player, _)| *player).collect();
            players.dedup();
            assert_eq!(players.len(), expected.len(), "one seat for each player");
        }
        self.count(&seated);
    }

    fn count(&self, seated: &[usize]) {
        let counts = self.table.counts();
        assert_eq!(
            counts.joined,
            counts.live + counts.suspended + counts.ended_in_all()
        );
        let live = seated
            .iter()
            .filter(|i| self.seats[**i].connection.is_some())
            .count();
        assert_eq!(counts.live, live as u64);
        assert_eq!(counts.suspended, (seated.len() - live) as u64);
        assert_eq!(counts.joined, self.seats.len() as u64);
        assert_eq!(counts.resumed, self.resumed);
        assert_eq!(counts.suspensions, self.suspensions);
        for (label, count) in counts.ended {
            let ended = self
                .seats
                .iter()
                .filter(|seat| seat.ended.is_some_and(|reason| reason.label() == label));
            assert_eq!(count, ended.count() as u64, "{label}");
        }
    }
}

/// What somebody knows of a seat who knew `told` and is told `change`; no change may surprise them.
pub(in crate::seat) fn follow(told: Option<Verdict>, change: &SeatChange) -> Verdict {
    match (told, change) {
        (None, SeatChange::Joined(_)) => Verdict::Live,
        (Some(Verdict::Live | Verdict::Suspended), SeatChange::Resumed { .. }) => Verdict::Live,
        (Some(Verdict::Live), SeatChange::Suspended { .. }) => Verdict::Suspended,
        (Some(Verdict::Live | Verdict::Suspended), SeatChange::Ended { .. }) => Verdict::Ended,
        surprise => panic!("{surprise:?}"),
    }
}
