//! Nonces and challenges: 32 random bytes that the sidecar draws, keeps by keyed hash, and takes back once.
//!
//! Unpredictable, with an end, drawn again should one be drawn twice, and spent by one conditional write of the store: so by one of
//! any number of callers, at any number of sidecars.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{Clock, Timestamp},
    sidecar::refusal::Refusal,
    store::{Issued, OneTime, OneTimePurpose, Payload, Spent, Store, StoreError},
    token::LoginKey,
};

use super::draw;

/// How long a challenge is good: long enough for a slow device to sign.
pub(in crate::sidecar) const LIFE: Duration = Duration::from_secs(2 * 60);

/// How long a login nonce is good: long enough for a player to find a password and a second factor on an issuer's pages.
pub(in crate::sidecar) const LOGIN_LIFE: Duration = Duration::from_secs(10 * 60);

fn life(purpose: OneTimePurpose) -> Duration {
    match purpose {
        OneTimePurpose::LoginNonce => LOGIN_LIFE,
        _ => LIFE,
    }
}

/// Draws in a row that may collide before something other than chance is at work.
const DRAWS: usize = 4;

/// Draws nonces, and takes them back.
#[derive(Clone)]
pub(in crate::sidecar) struct Nonces {
    pub(in crate::sidecar) store: Arc<dyn Store>,
    pub(in crate::sidecar) key: Arc<LoginKey>,
    pub(in crate::sidecar) clock: Clock,
}

/// One that was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sidecar) struct Drawn {
    pub(in crate::sidecar) nonce: [u8; 32],
    pub(in crate::sidecar) expires_at: Timestamp,
}

impl Nonces {
    pub(in crate::sidecar) async fn draw(&self, purpose: OneTimePurpose) -> Result<Drawn, Refusal> {
        self.draw_by(purpose, draw::bytes).await
    }

    async fn draw_by(
        &self,
        purpose: OneTimePurpose,
        mut random: impl FnMut() -> Result<[u8; 32], Refusal>,
    ) -> Result<Drawn, Refusal> {
        let expires_at = self.clock.wall().after(life(purpose));
        // It comes back with the end that it was drawn with, so that who signs it can be held to that very end.
        let payload = Payload::new(expires_at.0.to_be_bytes().to_vec()).unwrap_or_default();
        for _ in 0..DRAWS {
            let nonce = random()?;
            let entry = OneTime {
                key: self.hash(&nonce),
                purpose,
                payload: payload.clone(),
                expires_at,
            };
            match self.store.issue(entry).await? {
                Issued::Issued => return Ok(Drawn { nonce, expires_at }),
                Issued::Collision => tracing::warn!("a nonce was drawn twice"),
            }
        }
        Err(Refusal::Store(StoreError::Randomness))
    }

    /// Takes one back; when it was to end.
    pub(in crate::sidecar) async fn spend(
        &self,
        nonce: &[u8],
        purpose: OneTimePurpose,
    ) -> Result<Timestamp, Refusal> {
        let at = self.clock.wall();
        let spent = self.store.spend(self.hash(nonce), purpose, at).await?;
        match spent {
            Spent::Spent(payload) => match <[u8; 8]>::try_from(payload.bytes()) {
                Ok(end) => Ok(Timestamp(u64::from_be_bytes(end))),
                Err(_) => Err(Refusal::Store(StoreError::Record("logins"))),
            },
            Spent::WrongPurpose | Spent::Unknown => Err(Refusal::Nonce("unknown_nonce")),
            Spent::AlreadyUsed => Err(Refusal::Nonce("nonce_already_used")),
            Spent::Expired => Err(Refusal::Nonce("nonce_expired")),
        }
    }

    fn hash(&self, nonce: &[u8]) -> [u8; 32] {
        self.key.hash("nonce", &[nonce])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualTime,
        sidecar::{SessionLives, tests::START},
        store::memory::MemoryStore,
    };

    fn nonces() -> (Nonces, ManualTime) {
        let time = ManualTime::starting_at(START);
        let store = MemoryStore::new(SessionLives::default().for_store());
        let nonces = Nonces {
            store: Arc::new(store),
            key: Arc::new(LoginKey::generate()),
            clock: time.clock(),
        };
        (nonces, time)
    }

    const PURPOSE: OneTimePurpose = OneTimePurpose::Challenge;

    async fn refused(nonces: &Nonces, nonce: &[u8], purpose: OneTimePurpose) -> &'static str {
        nonces.spend(nonce, purpose).await.unwrap_err().label()
    }

    #[tokio::test]
    async fn one_is_spent_once_for_its_purpose_in_its_time() {
        let (nonces, time) = nonces();
        let drawn = nonces.draw(PURPOSE).await.unwrap();
        assert_eq!(drawn.expires_at, START.after(LIFE));
        let other = OneTimePurpose::LoginNonce;
        assert_eq!(refused(&nonces, &drawn.nonce, other).await, "unknown_nonce");
        let end = nonces.spend(&drawn.nonce, PURPOSE).await.unwrap();
        assert_eq!(end, drawn.expires_at);
        let again = refused(&nonces, &drawn.nonce, PURPOSE).await;
        assert_eq!(again, "nonce_already_used");
        assert_eq!(refused(&nonces, &[7; 32], PURPOSE).await, "unknown_nonce");
        let late = nonces.draw(PURPOSE).await.unwrap();
        time.advance(LIFE);
        assert_eq!(
            refused(&nonces, &late.nonce, PURPOSE).await,
            "nonce_expired"
        );
    }

    #[tokio::test]
    async fn what_is_drawn_twice_is_drawn_again() {
        let (nonces, _time) = nonces();
        let mut numbers = [1, 1, 1, 2].into_iter();
        let mut random = || Ok([numbers.next().unwrap(); 32]);
        let first = nonces.draw_by(PURPOSE, &mut random).await.unwrap();
        let second = nonces.draw_by(PURPOSE, &mut random).await.unwrap();
        assert_eq!((first.nonce, second.nonce), ([1; 32], [2; 32]));
        // Nothing random at all is told, and not tried for ever.
        let stuck = nonces.draw_by(PURPOSE, || Ok([1; 32])).await;
        assert_eq!(stuck.unwrap_err().label(), "store_randomness");
    }
}
