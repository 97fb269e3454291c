//! Everybody's timers: a wheel of milliseconds, in which setting, moving and taking one costs the same for ten clients as for ten thousand.
//!
//! A connection's timer moves with every packet, so a heap would be stirred all day. The wheel keeps each client in one place at the most, and
//! leaves it there when its timer is put off: it is looked at again when the old time comes. So most moves are one comparison.

use std::time::{Duration, Instant};

/// Places on the wheel, one a millisecond. What is due later than the 4 s they span waits at the last place and is looked at again there:
/// a client whose next timer is its idle timeout, some three times in ten seconds.
const PLACES: u64 = 4_096;
/// Places in a word of the map of those that are taken.
const WORD: u64 = 64;
/// Nobody: the end of a list.
const NOBODY: u32 = u32::MAX;

/// Where a client stands.
#[derive(Debug, Clone, Copy)]
struct Standing {
    next: u32,
    previous: u32,
    /// The millisecond that it waits for; none when it waits for nothing.
    due: Option<u64>,
}

const NOWHERE: Standing = Standing {
    next: NOBODY,
    previous: NOBODY,
    due: None,
};

/// Timers of clients that are named by small numbers.
///
/// A timer fires within the millisecond after it is due, and never before it. Memory: 16 KiB, and 24 bytes a client.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Millisecond 0.
    base: Instant,
    /// The first millisecond whose place may not be empty.
    cursor: u64,
    heads: Vec<u32>,
    /// One bit a place: whether somebody stands there.
    taken: Vec<u64>,
    standing: Vec<Standing>,
}

impl Wheel {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            base: now,
            cursor: 0,
            heads: vec![NOBODY; PLACES as usize],
            taken: vec![0; (PLACES / WORD) as usize],
            standing: Vec::new(),
        }
    }

    /// Has `client` called at `at`, or earlier if an earlier time was asked for and has not come yet.
    pub(super) fn schedule(&mut self, client: u32, at: Instant) {
        let index = client as usize;
        if index >= self.standing.len() {
            self.standing.resize(index + 1, NOWHERE);
        }
        let due = self
            .millisecond(at)
            .clamp(self.cursor, self.cursor + PLACES - 1);
        match self.standing.get(index).and_then(|standing| standing.due) {
            Some(queued) if queued <= due => return,
            Some(_) => self.remove(client),
            None => {}
        }
        self.push(client, due);
    }

    /// The first whole millisecond that is not before `at`.
    fn millisecond(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.base).as_nanos();
        u64::try_from(after.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    fn push(&mut self, client: u32, due: u64) {
        let place = due % PLACES;
        let Some(head) = self.heads.get_mut(place as usize) else {
            return;
        };
        let next = std::mem::replace(head, client);
        if let Some(word) = self.taken.get_mut((place / WORD) as usize) {
            *word |= 1 << (place % WORD);
        }
        if let Some(standing) = self.standing.get_mut(next as usize) {
            standing.previous = client;
        }
        if let Some(standing) = self.standing.get_mut(client as usize) {
            *standing = Standing {
                next,
                previous: NOBODY,
                due: Some(due),
            };
        }
    }

    /// Takes `client` off the wheel, if it is there.
    pub(super) fn remove(&mut self, client: u32) {
        let Some(standing) = self.standing.get_mut(client as usize) else {
            return;
        };
        let Standing {
            next,
            previous,
            due,
        } = std::mem::replace(standing, NOWHERE);
        let Some(due) = due else { return };
        if let Some(behind) = self.standing.get_mut(next as usize) {
            behind.previous = previous;
        }
        if let Some(before) = self.standing.get_mut(previous as usize) {
            before.next = next;
            return;
        }
        let place = due % PLACES;
        if let Some(head) = self.heads.get_mut(place as usize) {
            *head = next;
        }
        if next == NOBODY
            && let Some(word) = self.taken.get_mut((place / WORD) as usize)
        {
            *word &= !(1 << (place % WORD));
        }
    }

    /// Takes one client off whose time has come, or for whom the wheel is too small.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let passed = now.saturating_duration_since(self.base).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let first = self.first();
        match first {
            Some(due) if due <= passed => {
                self.cursor = due;
                let client = *self.heads.get((due % PLACES) as usize)?;
                self.remove(client);
                Some(client)
            }
            _ => {
                // Nobody is left before `passed`, so the places up to it may serve the next round.
                self.cursor = self.cursor.max(passed);
                None
            }
        }
    }

    /// When somebody is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        Some(self.base + Duration::from_millis(self.first()?))
    }

    /// The first millisecond that somebody waits for.
    fn first(&self) -> Option<u64> {
        let start = self.cursor % PLACES;
        let words = PLACES / WORD;
        // Once around, and then the part of the first word that lies before the start.
        for step in 0..=words {
            let word = (start / WORD + step) % words;
            let mut bits = *self.taken.get(word as usize)?;
            if step == 0 {
                bits &= u64::MAX << (start % WORD);
            } else if step == words {
                bits &= !(u64::MAX << (start % WORD));
            }
            if bits != 0 {
                let place = word * WORD + u64::from(bits.trailing_zeros());
                return Some(self.cursor + (place + PLACES - start) % PLACES);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_timer_fires_when_it_is_due_and_not_before() {
        let start = Clock::system().now();
        let mut wheel = Wheel::new(start);
        wheel.schedule(7, start + Duration::from_micros(1_500));
        assert_eq!(wheel.next(), Some(start + ms(2)));
        assert_eq!(wheel.pop_due(start + Duration::from_micros(1_999)), None);
        assert_eq!(wheel.pop_due(start + ms(2)), Some(7));
        assert_eq!(wheel.pop_due(start + ms(2)), None);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn what_is_long_due_fires_at_once() {
        let start = Clock::system().now();
        let mut wheel = Wheel::new(start);
        assert_eq!(wheel.pop_due(start + ms(10_000)), None);
        wheel.schedule(0, start + ms(3));
        assert_eq!(wheel.pop_due(start + ms(10_000)), Some(0));
    }

    #[test]
    fn what_is_due_beyond_the_wheel_is_looked_at_again() {
        let start = Clock::system().now();
        let mut wheel = Wheel::new(start);
        let far = start + ms(10_000);
        wheel.schedule(1, far);
        let mut looks = 0;
        let mut now = start;
        while now < far {
            now = wheel.next().unwrap();
            assert_eq!(wheel.pop_due(now), Some(1));
            wheel.schedule(1, far);
            looks += 1;
        }
        assert_eq!((now, looks), (far, 3));
    }

    /// What the wheel says it does, on a map.
    #[derive(Default)]
    struct Model {
        due: BTreeMap<u32, u64>,
        cursor: u64,
    }

    proptest! {
        #[test]
        fn the_wheel_is_a_map_of_times(
            steps in proptest::collection::vec((0_u32..20, 0_u64..9_000, 0_u64..1_500, any::<bool>()), 1..200),
        ) {
            let start = Clock::system().now();
            let mut wheel = Wheel::new(start);
            let mut model = Model::default();
            let mut now = 0;
            for (client, ahead, later, removed) in steps {
                if removed {
                    wheel.remove(client);
                    model.due.remove(&client);
                }
                wheel.schedule(client, start + ms(now + ahead));
                let due = (now + ahead).clamp(model.cursor, model.cursor + PLACES - 1);
                let queued = model.due.entry(client).or_insert(due);
                *queued = due.min(*queued);
                prop_assert_eq!(wheel.next(), model.due.values().min().map(|at| start + ms(*at)));
                now += later;
                let mut fired = Vec::new();
                while let Some(client) = wheel.pop_due(start + ms(now)) {
                    fired.push(client);
                }
                fired.sort_unstable();
                let expected: Vec<u32> = model.due.iter().filter(|(_, at)| **at <= now).map(|(c, _)| *c).collect();
                prop_assert_eq!(fired, expected);
                model.due.retain(|_, at| *at > now);
                model.cursor = now;
            }
        }
    }
}
