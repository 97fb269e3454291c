//! Whose a connect token is, by the SHA-256 of its text: how a refusal at a gateway that could not open the token finds its player.

use std::collections::{HashMap, VecDeque};

use crate::id::{PlayerId, SessionId};

/// Tokens remembered: seven eighths of 65,536, which is as full as a hash table of so many places gets. At 32 + 32 + 1 bytes a
/// place and 32 in the order of minting, that is 6 MiB; a token a second for each of 10,000 players is remembered for 5 s after it was
/// minted, and one a match of ten minutes for an hour.
pub(super) const TOKENS: usize = 57_344;

/// Whom a token was minted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) session: SessionId,
    pub(super) player: PlayerId,
}

/// The newest tokens. They stay after they were used or have expired: who presents one again is to be known.
#[derive(Debug)]
pub(super) struct Tokens {
    by_hash: HashMap<[u8; 32], Bearer>,
    /// In the order of minting, for forgetting the oldest.
    order: VecDeque<[u8; 32]>,
    limit: usize,
}

impl Tokens {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            by_hash: HashMap::new(),
            order: VecDeque::new(),
            limit,
        }
    }

    pub(super) fn minted(&mut self, hash: [u8; 32], bearer: Bearer) {
        if self.by_hash.insert(hash, bearer).is_some() {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_hash.remove(&oldest);
        }
    }

    pub(super) fn bearer(&self, hash: &[u8; 32]) -> Option<Bearer> {
        self.by_hash.get(hash).copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_hash.len(), self.order.len());
        self.order.len()
    }
}
