//! What the sidecar is still to be told about seats, coalesced so that it cannot outgrow the table.

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

/// News about one session; of several, the last counts.
#[derive(Debug, Default)]
struct News {
    seat: Option<SeatNews>,
    active: bool,
}

#[derive(Debug)]
enum SeatNews {
    Opened(LiveSeat),
    Closed,
}

/// Collects each tick's news until the control channel takes it.
///
/// While the channel is down nothing is reported: on attach the gateway names all its live seats, which says the same and more.
#[derive(Debug)]
pub(super) struct Journal {
    state: Mutex<State>,
    ready: Arc<Notify>,
    /// Sessions with news at the most: each seat closed and taken again four times between two reports.
    bound: usize,
}

#[derive(Debug, Default)]
struct State {
    attached: bool,
    news: HashMap<SessionId, News>,
}

impl Journal {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            ready: Arc::new(Notify::new()),
            bound: capacity.saturating_mul(8).max(64),
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
                    self.note(&mut state, joined.session, |news| {
                        news.seat = Some(SeatNews::Opened(seat))
                    });
                }
                SeatChange::Ended { session, .. } => {
                    self.note(&mut state, *session, |news| {
                        news.seat = Some(SeatNews::Closed)
                    });
                }
                _ => {}
            }
        }
        for session in &report.active {
            self.note(&mut state, *session, |news| news.active = true);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Beyond the bound news is lost; the next attach says how things stand.
    fn note(&self, state: &mut State, session: SessionId, write: impl FnOnce(&mut News)) {
        if state.news.len() < self.bound || state.news.contains_key(&session) {
            write(state.news.entry(session).or_default());
        }
    }

    /// Moves the news into `report`.
    pub(super) fn take(&self, report: &mut SeatReport) {
        for (session, news) in self.state().news.drain() {
            match news.seat {
                Some(SeatNews::Opened(seat)) => report.opened.push(seat),
                Some(SeatNews::Closed) => report.closed.push(session),
                None => {}
            }
            if news.active {
                report.active.push(session);
            }
        }
    }

    /// Notified when there is news.
    pub(super) fn ready(&self) -> Arc<Notify> {
        Arc::clone(&self.ready)
    }
}
