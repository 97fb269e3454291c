//! Connect tokens for the gateway under measurement, made as its sidecar would make them.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tickgate::{
    clock::{Clock, Timestamp},
    id::{ClientId, PlayerGeneration, PlayerId, Revision, SessionId},
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
};

use crate::server::SHARED_KEY;

/// The gateway's id.
pub(crate) const GATEWAY: &str = "peers";
/// Long enough for everything that is measured with one set of tokens.
const LIFE: Duration = Duration::from_secs(240);

/// Makes tokens, each of a player and a session of its own.
pub(crate) struct Mint {
    key: TransportKey,
    rng: ChaCha8Rng,
    clock: Clock,
}

impl Mint {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            key: TransportKey::from_bytes(&SHARED_KEY),
            rng: ChaCha8Rng::seed_from_u64(seed),
            clock: Clock::system(),
        }
    }

    /// So many tokens, good from now on.
    pub(crate) fn tokens(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        let gateway: tickgate::id::GatewayId = GATEWAY.parse()?;
        let now: Timestamp = self.clock.wall();
        let mut tokens = Vec::with_capacity(count);
        for _ in 0..count {
            let claims = ConnectClaims {
                player: PlayerId(self.rng.random()),
                session: SessionId(self.rng.random()),
                player_generation: PlayerGeneration(0),
                client: ClientId(self.rng.random()),
                nonce: Nonce(self.rng.random()),
                gateway: gateway.clone(),
                revision: Revision(0),
                session_ends_at: now.after(Duration::from_secs(86_400)),
                client_key: None,
                issued_at: now,
                expires_at: now.after(LIFE),
            };
            tokens.push(seal_connect(&self.key, &claims));
        }
        Ok(tokens)
    }
}
