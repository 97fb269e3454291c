//! The keys of tokens, as operators see them: who opens with which, and until when.

use crate::{
    clock::millis,
    id::GatewayId,
    proto,
    sidecar::{
        SessionLives,
        keys::{Keys, Known},
        registry::Holder,
    },
    token::{LEEWAY, Purpose},
};

use super::AdminApi;

impl AdminApi {
    /// Every key with its role; of transport keys, which gateways do not hold them yet.
    pub(super) async fn list_of_keys(&self) -> proto::ListKeysResponse {
        self.ask_others().await;
        let holders = self.registry.key_holders();
        let known = self.keys.known();
        let lives = self.sessions.lives;
        let now = self.sessions.clock.wall();
        proto::ListKeysResponse {
            keys: known
                .iter()
                .map(|known| token_key(known, &self.keys, &holders, lives))
                .collect(),
            time_ms: now.0,
            holding_others: texts(&self.keys.strangers(&holders)),
        }
    }
}

fn token_key(
    known: &Known,
    keys: &Keys,
    holders: &[Holder],
    lives: SessionLives,
) -> proto::TokenKey {
    let (purpose, longest) = match known.purpose {
        Purpose::Session => ("session", lives.session_token),
        Purpose::Refresh => ("refresh", lives.absolute),
        // What seals no token is not listed.
        Purpose::Connect | Purpose::Login => ("transport", lives.longest_connect_token),
    };
    let outstanding = match known.purpose {
        Purpose::Connect => keys.outstanding(known.id, holders),
        Purpose::Session | Purpose::Refresh | Purpose::Login => Vec::new(),
    };
    proto::TokenKey {
        purpose: purpose.to_owned(),
        role: known.role.label().to_owned(),
        id: known.id.to_string(),
        epoch: known.epoch.unwrap_or_default(),
        opens_for_ms: millis(longest.saturating_add(LEEWAY)),
        sealed_at_ms: known.sealed_at().0,
        outstanding: texts(&outstanding),
    }
}

fn texts(gateways: &[GatewayId]) -> Vec<String> {
    gateways.iter().map(ToString::to_string).collect()
}
