//! How many seats there are and what became of those that were, in numbers that add up.

use super::EndReason;

/// What [`SeatTable::counts`](super::SeatTable::counts) tells: all numbers of one instant.
///
/// They add up: `joined == live + suspended + ended_in_all()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatCounts {
    /// Seats that a connection serves now.
    pub live: u64,
    /// Seats whose connection is lost and whose grace runs, now.
    pub suspended: u64,
    /// Seats that were filled afresh since the table was made.
    pub joined: u64,
    /// How often a session took its own seat over with a new connection, whether it was live or suspended.
    pub resumed: u64,
    /// How often a seat was suspended. A loss that ends the seat because there is no grace is none.
    pub suspensions: u64,
    /// Seats that ended since the table was made, by the label of the reason; each reason is there, in a fixed order.
    pub ended: [(&'static str, u64); EndReason::LABELS.len()],
}

impl SeatCounts {
    /// Seats that ended, for whatever reason.
    pub fn ended_in_all(&self) -> u64 {
        self.ended.iter().map(|(_, count)| count).sum()
    }
}

/// What is counted as it happens. How many seats there are now is known without counting.
#[derive(Debug, Default)]
pub(super) struct Tally {
    joined: u64,
    resumed: u64,
    suspensions: u64,
    ended: [u64; EndReason::LABELS.len()],
}

impl Tally {
    pub(super) fn joined(&mut self) {
        self.joined += 1;
    }

    pub(super) fn resumed(&mut self) {
        self.resumed += 1;
    }

    pub(super) fn suspended(&mut self) {
        self.suspensions += 1;
    }

    pub(super) fn ended(&mut self, reason: EndReason) {
        if let Some(count) = self.ended.get_mut(reason.index()) {
            *count += 1;
        }
    }

    /// The counts, with how many seats are live and suspended now.
    pub(super) fn with(&self, live: usize, suspended: usize) -> SeatCounts {
        let Self {
            joined,
            resumed,
            suspensions,
            ended,
        } = self;
        let mut labelled = EndReason::LABELS.map(|label| (label, 0));
        for ((_, told), count) in labelled.iter_mut().zip(ended) {
            *told = *count;
        }
        SeatCounts {
            live: live as u64,
            suspended: suspended as u64,
            joined: *joined,
            resumed: *resumed,
            suspensions: *suspensions,
            ended: labelled,
        }
    }
}
