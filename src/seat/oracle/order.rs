//! In which order joins and ends are to be told.

use std::collections::{HashMap, VecDeque};

use crate::seat::Handle;

/// Joins and ends in the order in which they are to be told. Those of one call stand in any.
#[derive(Default)]
pub(super) struct Order {
    /// Numbers of instants, of each seat in order.
    instants: HashMap<Handle, VecDeque<u64>>,
    pub(super) instant: u64,
    /// What is noted is of the same instant as what was before.
    pub(super) at_once: bool,
}

impl Order {
    pub(super) fn note(&mut self, handle: Handle) {
        self.instant += u64::from(!self.at_once);
        self.instants
            .entry(handle)
            .or_default()
            .push_back(self.instant);
    }

    /// Holds what was told to it, and starts afresh.
    pub(super) fn hear(&mut self, told: &[Handle]) {
        let instants: Vec<u64> = told
            .iter()
            .map(|handle| {
                let instant = self.instants.get_mut(handle).and_then(VecDeque::pop_front);
                instant.unwrap_or_else(|| panic!("{handle} neither joined nor ended"))
            })
            .collect();
        assert!(
            instants.is_sorted(),
            "joins and ends out of order: {told:?}"
        );
        self.instants.retain(|_, rest| !rest.is_empty());
        assert!(self.instants.is_empty(), "not told: {:?}", self.instants);
    }
}
