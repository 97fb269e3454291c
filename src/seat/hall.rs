//! What the books share with the tick pass and the hot path: all that is not behind the books' lock.

use std::time::Duration;

use super::{
    SeatConfig,
    closings::Closings,
    era::Era,
    floor::Floor,
    journal::Journal,
    layout::{Deals, Layout},
    sync::{Apart, AtomicBool, AtomicU64, Mutex, Ordering},
};
use crate::clock::Timestamp;

/// No suspended seat.
const NO_GRACE: u64 = u64::MAX;

pub(super) struct Hall {
    /// First, and never written: what verify reads to find the slots.
    pub(super) floor: Floor,
    pub(super) layout: Layout,
    pub(super) era: Era,
    pub(super) deals: Apart<Deals>,
    pub(super) journal: Apart<Mutex<Journal>>,
    pub(super) closings: Closings,
    /// In milliseconds since the epoch.
    next_grace_end: Apart<AtomicU64>,
    /// In milliseconds.
    idle: AtomicU64,
    /// The next sweep is to look at each slot.
    is_to_sweep_all: AtomicBool,
}

impl Hall {
    pub(super) fn new(config: &SeatConfig, layout: Layout) -> Self {
        let hall = Self {
            floor: Floor::new(layout.slots()),
            layout,
            era: Era::new(),
            deals: Apart(Deals::new(&layout)),
            journal: Apart(Mutex::new(Journal::new(config.capacity))),
            closings: Closings::default(),
            next_grace_end: Apart(AtomicU64::new(NO_GRACE)),
            idle: AtomicU64::new(0),
            is_to_sweep_all: AtomicBool::new(false),
        };
        hall.set_idle(config.idle);
        hall
    }

    /// How many slots were dealt out so far; all seats are among them.
    pub(super) fn slots_dealt(&self) -> u32 {
        self.deals.count() * self.layout.block
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle.load(Ordering::Relaxed))
    }

    /// The next tick enforces it.
    pub(super) fn set_idle(&self, idle: Duration) {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.idle.store(idle, Ordering::Relaxed);
        // After the timeout: who sees that all are to be looked at sees what for.
        self.is_to_sweep_all.store(true, Ordering::Release);
    }

    /// Says once that each slot is to be looked at.
    pub(super) fn is_to_sweep_all(&self) -> bool {
        self.is_to_sweep_all.load(Ordering::Relaxed)
            && self.is_to_sweep_all.swap(false, Ordering::Acquire)
    }

    /// When the first of the graces ends; in a far future if there is none.
    pub(super) fn next_grace_end(&self) -> Timestamp {
        Timestamp(self.next_grace_end.load(Ordering::Acquire))
    }

    /// For whoever holds the books.
    pub(super) fn set_next_grace_end(&self, first: Option<(Timestamp, u32)>) {
        let end = first.map_or(NO_GRACE, |(end, _)| end.0);
        self.next_grace_end.store(end, Ordering::Release);
    }
}
