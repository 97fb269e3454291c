//! Who is nearby: the world cut into squares, and who stands in which.

use super::protocol::WORLD_SIZE;

/// Squares along each side: at 1,000 players 4 to a square, at 10,000 some 40.
const SIDE: usize = 16;
/// A position's bits below its square's number.
const SHIFT: u32 = (WORLD_SIZE as u32).trailing_zeros() - SIDE.trailing_zeros();

/// The players' slots, sorted by the square they stand in. Made afresh for each tick that needs it, by counting: two passes over the
/// players, and no allocation once it has grown to the world's size.
#[derive(Debug)]
pub(super) struct Neighbours {
    /// Where in `slots` each square begins; the last entry is the end.
    starts: [u32; SIDE * SIDE + 1],
    slots: Vec<u32>,
}

impl Neighbours {
    pub(super) fn new() -> Self {
        Self {
            starts: [0; SIDE * SIDE + 1],
            slots: Vec::new(),
        }
    }

    /// Sorts these players, given as slot and position.
    pub(super) fn arrange(&mut self, players: impl Iterator<Item = (u32, (i32, i32))> + Clone) {
        let Self { starts, slots } = self;
        starts.fill(0);
        let mut total = 0;
        for (_, position) in players.clone() {
            total += 1;
            if let Some(count) = starts.get_mut(square(position)) {
                *count += 1;
            }
        }
        // From counts to ends; then each player put in moves its square's end down to its start.
        let mut end = 0;
        for count in starts.iter_mut() {
            end += *count;
            *count = end;
        }
        slots.clear();
        slots.resize(total, 0);
        for (slot, position) in players {
            if let Some(place) = starts.get_mut(square(position)) {
                *place -= 1;
                if let Some(entry) = slots.get_mut(*place as usize) {
                    *entry = slot;
                }
            }
        }
    }

    /// The slots of all who stand in the square of this position.
    pub(super) fn around(&self, position: (i32, i32)) -> &[u32] {
        let square = square(position);
        match self.starts.get(square..square + 2) {
            Some(&[start, end]) => self.slots.get(start as usize..end as usize).unwrap_or(&[]),
            _ => &[],
        }
    }
}

/// Positions lie within the world.
fn square((x, y): (i32, i32)) -> usize {
    let along = |p: i32| (p >> SHIFT).clamp(0, SIDE as i32 - 1) as usize;
    along(y) * SIDE + along(x)
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn everybody_stands_in_one_square() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut neighbours = Neighbours::new();
        for count in [1_000, 0, 3, 500] {
            let mut anywhere = || random.random_range(0..WORLD_SIZE);
            let players: Vec<(u32, (i32, i32))> = (0..count)
                .map(|slot| (slot, (anywhere(), anywhere())))
                .collect();
            neighbours.arrange(players.iter().copied());
            for (slot, position) in &players {
                let around = neighbours.around(*position);
                assert!(around.contains(slot));
                for other in around {
                    let (_, there) = players[*other as usize];
                    assert_eq!(square(there), square(*position));
                }
            }
            assert_eq!(neighbours.slots.len(), players.len());
        }
    }

    #[test]
    fn the_corners_are_squares_too() {
        let far = WORLD_SIZE - 1;
        assert_eq!(square((0, 0)), 0);
        assert_eq!(square((far, far)), SIDE * SIDE - 1);
    }
}
