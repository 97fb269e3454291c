//! What a bad network does to one packet: the pure half of the relay. The same seed does the same to the same packets.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How bad a network is, each way. Chances are of a thousand packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Are lost.
    pub loss: u32,
    /// Come twice.
    pub duplication: u32,
    /// Are held back by [`Self::HOLD`], so that those sent later overtake them.
    pub reorder: u32,
    /// What every packet takes.
    pub delay: Duration,
    /// What is added to it, evenly distributed: it reorders as well.
    pub jitter: Duration,
}

impl Weather {
    pub const FINE: Self = Self {
        loss: 0,
        duplication: 0,
        reorder: 0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
    };
    /// Longer than it takes QUIC to think three later packets prove a loss (RFC 9002, section 6.1.1), at tens of packets a second.
    pub const HOLD: Duration = Duration::from_millis(60);
}

/// One direction of a line, from a seed.
#[derive(Debug)]
pub struct Fates {
    rng: ChaCha8Rng,
}

impl Fates {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// After how long each copy of the next packet arrives; none if it is lost.
    pub fn next(&mut self, weather: &Weather) -> [Option<Duration>; 2] {
        // As many draws for every packet, whatever becomes of it: so one that comes earlier or later changes no other's fate.
        let mut happens = |chance: u32| self.rng.random_range(0..1_000) < chance;
        let (lost, twice, held) = (
            happens(weather.loss),
            happens(weather.duplication),
            happens(weather.reorder),
        );
        let mut takes = || weather.delay + weather.jitter.mul_f64(self.rng.random());
        let (first, second) = (takes(), takes());
        let first = if held { first + Weather::HOLD } else { first };
        if lost {
            [None, None]
        } else {
            [Some(first), twice.then_some(second)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUL: Weather = Weather {
        loss: 100,
        duplication: 50,
        reorder: 250,
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(30),
    };

    #[test]
    fn a_seed_has_one_course() {
        let fates = |seed| {
            let mut fates = Fates::new(seed);
            (0..1_000).map(|_| fates.next(&FOUL)).collect::<Vec<_>>()
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
    }

    #[test]
    fn chances_are_what_they_say() {
        let mut fates = Fates::new(7);
        let (mut lost, mut twice, mut held) = (0, 0, 0);
        for _ in 0..100_000 {
            match fates.next(&FOUL) {
                [None, None] => lost += 1,
                [Some(first), second] => {
                    assert!(first >= FOUL.delay);
                    twice += u32::from(second.is_some());
                    held += u32::from(first >= FOUL.delay + Weather::HOLD);
                }
                [None, Some(_)] => panic!("a second copy of nothing"),
            }
        }
        // Within a twentieth: some five times the spread of the rarest.
        let near = |count: u32, expected: u32| count.abs_diff(expected) * 20 < expected;
        assert!(near(lost, 10_000), "{lost}");
        assert!(near(held, 22_500), "{held}");
        assert!(near(twice, 4_500), "{twice}");
        let mut fine = Fates::new(7);
        for _ in 0..100 {
            assert_eq!(fine.next(&Weather::FINE), [Some(Duration::ZERO), None]);
        }
    }
}
