//! What the sidecar is still to be told about seats, bounded by the size of the table.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    control::{LiveSeat, SeatReport},
    id::SessionId,
    seat::{SeatChange, TickReport},
};

/// What became of a seat; of several news about one session, the last counts.
#[derive(Debug)]
enum News {
    Opened(LiveSeat),
    Closed,
}

/// Collects each tick's news until the control channel takes it, every 50 ms when all is well.
///
/// While the channel is down nothing is reported: on attach the gateway names all its live seats, which says the same and more.
#[derive(Debug)]
pub(super) struct Journal {
    state: Mutex<State>,
    /// Whoever takes the news empties the list of the active here, and not under the lock that a tick needs.
    taken: Mutex<Vec<SessionId>>,
    ready: Arc<Notify>,
    /// Sessions with news of their seats at the most: each seat closed and taken again four times between two reports.
    most_news: usize,
    /// Entries of who was active at the most: each seat in four windows of activity, by default four seconds. Beyond, the channel is all
    /// but broken, and who plays on is active again within a window of its return.
    most_active: usize,
}

#[derive(Debug, Default)]
struct State {
    attached: bool,
    news: HashMap<SessionId, News>,
    /// As the ticks told it: a tick adds its sessions in one piece.
    active: Vec<SessionId>,
}

impl Journal {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            taken: Mutex::default(),
            ready: Arc::new(Notify::new()),
            most_news: capacity.saturating_mul(8).max(64),
            most_active: capacity.saturating_mul(4).max(64),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The control channel came up or went down; what was collected is void either way.
    pub(super) fn set_attached(&self, attached: bool) {
        let mut state = self.state();
        state.attached = attached;
        state.news.clear();
        state.active.clear();
    }

    /// Takes note of a tick.
    pub(super) fn record(&self, report: &TickReport) {
        if report.changes.is_empty() && report.active.is_empty() {
            return;
        }
        let mut state = self.state();
        if !state.attached {
            return;
        }
        for change in &report.changes {
            match change {
                SeatChange::Joined(joined) => {
                    let seat = LiveSeat {
                        session: joined.session,
                        player: joined.player,
                        player_generation: joined.player_generation,
                    };
                    self.note(&mut state, joined.session, News::Opened(seat));
                }
                SeatChange::Ended { session, .. } => {
                    self.note(&mut state, *session, News::Closed);
                }
                _ => {}
            }
        }
        let room = self.most_active.saturating_sub(state.active.len());
        let active = report.active.get(..room).unwrap_or(&report.active);
        state.active.extend_from_slice(active);
        drop(state);
        self.ready.notify_one();
    }

    /// Beyond the bound news is lost; the next attach says how things stand.
    fn note(&self, state: &mut State, session: SessionId, news: News) {
        if state.news.len() < self.most_news || state.news.contains_key(&session) {
            state.news.insert(session, news);
        }
    }

    /// Moves the news into `report`.
    pub(super) fn take(&self, report: &mut SeatReport) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        for (session, news) in state.news.drain() {
            match news {
                News::Opened(seat) => report.opened.push(seat),
                News::Closed => report.closed.push(session),
            }
        }
        std::mem::swap(&mut state.active, &mut taken);
        drop(state);
        report.active.append(&mut taken);
    }

    /// Notified when there is news.
    pub(super) fn ready(&self) -> Arc<Notify> {
        Arc::clone(&self.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(active: impl IntoIterator<Item = u128>) -> TickReport {
        let mut report = TickReport::default();
        report.active.extend(active.into_iter().map(SessionId));
        report
    }

    fn taken(journal: &Journal) -> Vec<u128> {
        let mut report = SeatReport::default();
        journal.take(&mut report);
        report.active.into_iter().map(|session| session.0).collect()
    }

    #[test]
    fn who_was_active_is_told_once_and_within_bounds() {
        let journal = Journal::new(64);
        journal.record(&report([1]));
        assert!(taken(&journal).is_empty(), "nobody listens");
        journal.set_attached(true);
        journal.record(&report([1, 2]));
        journal.record(&report([3]));
        assert_eq!(taken(&journal), [1, 2, 3]);
        assert!(taken(&journal).is_empty());
        for _ in 0..10 {
            journal.record(&report(0..60));
        }
        assert_eq!(taken(&journal).len(), 4 * 64);
        journal.record(&report([4]));
        assert_eq!(taken(&journal), [4], "there is room again");
        journal.record(&report([5]));
        journal.set_attached(true);
        assert!(taken(&journal).is_empty(), "the attach tells it all");
    }

    #[test]
    fn ticks_and_reports_by_turns_allocate_nothing_for_who_is_active() {
        let journal = Journal::new(1_000);
        journal.set_attached(true);
        let tick = report(0..500);
        let mut out = SeatReport::default();
        out.active.reserve(1_000);
        let mut round = || {
            journal.record(&tick);
            journal.record(&tick);
            journal.take(&mut out);
            out.active.clear();
        };
        (0..4).for_each(|_| round());
        let count = allocation_counter::measure(|| (0..100).for_each(|_| round()));
        assert_eq!(count.count_total, 0);
    }
}
