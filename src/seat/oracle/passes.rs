//! What a tick pass may do and what it must, for each seat: ends by time, activity written out, changes told.

use std::{collections::HashSet, time::Duration};

use super::book::{Book, Seat};
use crate::{
    clock::Timestamp,
    id::{SessionId, Tick},
    seat::{EndReason, Handle, SeatChange, SeatConfig, TickReport, model::follow},
};

/// How late an end by time may come, but for the end of a grace, which comes by the tick.
const SECOND: Duration = Duration::from_secs(1);

impl Book {
    /// Ticks, `skip` ticks after the last one and after so much time.
    pub(super) fn pass(&mut self, skip: u64, passed: Duration) {
        self.tick += skip;
        self.now = self.now.after(passed);
        if skip > 1 {
            self.skipped = Some(self.tick);
        }
        let mut report = std::mem::take(&mut self.report);
        self.table.tick(Tick(self.tick), self.now, &mut report);
        // Who is written out was seated when the pass began; it may be that the pass ends it as well.
        self.hear_active(&report.active);
        self.hear_changes(&report);
        self.report = report;
        for seat in self.seats.values() {
            seat.is_as_it_must_be(&self.config, self.tick, self.skipped, self.now);
        }
    }

    fn hear_active(&mut self, active: &[SessionId]) {
        let window = u64::from(self.config.window.max(1));
        for session in active {
            let slot = self.by_session.get(session);
            let slot = slot.unwrap_or_else(|| panic!("{session} has no seat, and was active"));
            let seat = self.seats.get_mut(slot).unwrap();
            assert!(seat.marked.is_some(), "{session} was not active");
            if let Some(written) = seat.written {
                let since = self.tick - written;
                assert!(
                    since >= window,
                    "{session} written again after {since} ticks"
                );
            }
            seat.marked = None;
            seat.written = Some(self.tick);
            if seat.is_suspended() {
                self.tally.written_in_suspension += 1;
            } else {
                seat.known_at = seat.known_at.max(self.now);
            }
            self.tally.written += 1;
        }
    }

    fn hear_changes(&mut self, report: &TickReport) {
        let mut order = Vec::new();
        for change in &report.changes {
            let handle = change.handle();
            let seat = self.seats.get_mut(&handle.slot());
            let seat = seat.filter(|seat| seat.handle == handle);
            let seat = seat.unwrap_or_else(|| panic!("{change:?}, of nobody's seat"));
            seat.told = Some(follow(seat.told, change));
            match *change {
                SeatChange::Joined(joined) => {
                    order.push(handle);
                    let grant = seat.grant;
                    assert_eq!(
                        (joined.session, joined.player),
                        (grant.session, grant.player)
                    );
                    assert_eq!(joined.client, grant.client);
                    assert_eq!(joined.player_generation, grant.player_generation);
                }
                SeatChange::Ended {
                    session,
                    client,
                    reason,
                    ..
                } => {
                    assert_eq!((session, client), (seat.grant.session, seat.grant.client));
                    if seat.is_seated() {
                        seat.may_end(reason, &self.config, self.now);
                        let suspended = seat.is_suspended();
                        self.tally.ended_by_time(reason, suspended);
                        self.strike(handle.slot(), reason, true);
                    } else {
                        order.push(handle);
                        assert_eq!(seat.ended, Some(reason));
                    }
                    self.untold -= 1;
                }
                SeatChange::Resumed { .. } | SeatChange::Suspended { .. } => {}
            }
        }
        self.order.hear(&order);
        self.each_is_told_as_it_is(&report.changes);
    }

    fn each_is_told_as_it_is(&self, changes: &[SeatChange]) {
        assert_eq!(self.untold, 0, "ends were not told");
        // The worker that was told last is the one that serves the seat.
        let mut seen: HashSet<Handle> = HashSet::new();
        for change in changes
            .iter()
            .rev()
            .filter(|change| !matches!(change, SeatChange::Ended { .. }))
        {
            let seat = &self.seats[&change.handle().slot()];
            if !seen.insert(change.handle()) || !seat.is_seated() {
                continue;
            }
            let worker = match change {
                SeatChange::Joined(joined) => Some(joined.worker),
                SeatChange::Resumed { worker, .. } => Some(*worker),
                SeatChange::Suspended { .. } | SeatChange::Ended { .. } => None,
            };
            assert_eq!(worker, seat.connection.map(|connection| connection.worker));
        }
        for seat in self.seats.values() {
            assert_eq!(seat.told, Some(seat.verdict()), "{}", seat.handle);
        }
    }
}

impl Seat {
    /// A pass ended it: only for what is due.
    fn may_end(&self, reason: EndReason, config: &SeatConfig, now: Timestamp) {
        let due = match reason {
            EndReason::Idle => self.active_at.after(config.idle),
            EndReason::Expired => self.grant.ends_at,
            EndReason::Lost if self.is_suspended() => self.grace_ends,
            _ => panic!("{} ended for {reason:?}", self.handle),
        };
        assert!(
            now >= due,
            "{} ended for {reason:?} {:?} early",
            self.handle,
            due.since(now)
        );
    }

    /// After a pass no seat is there whose time was over a second ago, and no activity waits for longer than it may.
    fn is_as_it_must_be(
        &self,
        config: &SeatConfig,
        tick: u64,
        skipped: Option<u64>,
        now: Timestamp,
    ) {
        if !self.is_seated() {
            return;
        }
        let handle = self.handle;
        assert!(
            now < self.grant.ends_at.after(SECOND),
            "{handle} is past its end"
        );
        if self.is_suspended() {
            assert!(now < self.grace_ends, "{handle} is past its grace");
        }
        // Activity that waits to be written out is known by then.
        if self.marked.is_none() || self.is_suspended() {
            let due = self.known_at.after(config.idle);
            assert!(
                now < due.after(SECOND),
                "{handle} is idle since {:?}",
                now.since(self.known_at)
            );
        }
        if let Some(marked) = self.marked {
            let window = u64::from(config.window.max(1));
            // Its turn comes once a window, and is passed over if the last one was late, after skipped ticks.
            let passed_over = skipped.is_some_and(|late| late + window > marked + 1);
            let turn = marked + window * (1 + u64::from(passed_over));
            assert!(
                tick < turn,
                "{handle} was active after tick {marked}, and that waits"
            );
        }
    }
}
