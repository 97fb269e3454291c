//! Login by e-mail address and password, hashed with argon2id (RFC 9106).
//!
//! A password is set by a link that is mailed, and so by whoever holds the address: there is no other way, and no account whose
//! address was not proved. Whether an address is anybody's is not told, not even by the time it takes: where there is no password,
//! another one's hash is computed and compared all the same.
//!
//! What stops guessing is the limit on requests, which costs the attacker and not the owner, and behind it a limit on failures in a
//! row at one address: 100, as NIST SP 800-63B (5.2.2) demands of any verifier. Who has reached it gets in by another way, or by a
//! link that sets another password, and either forgets the failures. So nobody is locked out who can read their mail.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    id::PlayerGeneration,
    proto,
    sidecar::refusal::{BadLogin, Refusal},
    store::{Attempt, KeyedHash, Store, StoreError},
    token::LoginKey,
};

use super::address::EmailAddress;

/// Failures in a row at one address, at most (NIST SP 800-63B, section 5.2.2).
const MOST_FAILURES: u32 = 100;

/// Failures in a row are forgotten this long after the last one: whoever would go on guessing has a hundred tries a month.
const FAILURES_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Lengths of passwords: 8 characters at least (NIST SP 800-63B, section 5.1.1.2), and of 64 at least none is too many there. The bound
/// in bytes is against hashing megabytes.
const SHORTEST: usize = 8;
const LONGEST_BYTES: usize = 256;

/// argon2id with 19 MiB, two passes, one lane: the first of what OWASP's Password Storage Cheat Sheet holds to be equally strong.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes that are computed at once, 19 MiB and a core each, and those that may wait for it: more would be answered too late.
const AT_ONCE: usize = 2;
const WAITING: usize = 64;

/// Computes hashes, off the threads that serve calls.
#[derive(Clone)]
pub(in crate::sidecar) struct Hasher {
    params: Params,
    /// Places to compute in, and places to wait for one in.
    at_once: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What a password is compared with where there is none. Nobody knows a password for it.
    nobodys: Arc<str>,
}

/// A place in the queue.
pub(in crate::sidecar) struct Place {
    hasher: Hasher,
    _waits: OwnedSemaphorePermit,
}

impl Hasher {
    /// One that costs what it should. Computes a hash, which takes some 20 ms.
    ///
    /// # Errors
    /// There is no randomness, or no memory.
    pub(in crate::sidecar) fn new() -> Result<Self, StoreError> {
        Self::with(MEMORY_KIB, PASSES)
    }

    pub(super) fn with(memory_kib: u32, passes: u32) -> Result<Self, StoreError> {
        let params = Params::new(memory_kib, passes, LANES, None);
        let params = params.map_err(|_| StoreError::Randomness)?;
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(random.as_mut()).map_err(|_| StoreError::Randomness)?;
        let nobodys = hash(&params, random.as_ref())?;
        Ok(Self {
            params,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            nobodys: nobodys.into(),
        })
    }

    /// A place in the queue, to be asked for before anything is used up.
    ///
    /// # Errors
    /// Too many wait already.
    pub(in crate::sidecar) fn place(&self) -> Result<Place, Refusal> {
        let waits = Arc::clone(&self.waiting).try_acquire_owned();
        Ok(Place {
            hasher: self.clone(),
            _waits: waits.map_err(|_| Refusal::HashingBusy)?,
        })
    }
}

impl Place {
    /// The PHC string of a new password.
    pub(in crate::sidecar) async fn hash(
        self,
        password: Zeroizing<String>,
    ) -> Result<String, Refusal> {
        let hashed = self.compute(move |hasher| hash(&hasher.params, password.as_bytes()));
        Ok(hashed.await??)
    }

    /// Whether the password is the one that `phc` was made of. Takes as long without one.
    async fn verify(
        self,
        password: Zeroizing<String>,
        phc: Option<String>,
    ) -> Result<bool, Refusal> {
        self.compute(move |hasher| {
            let known = phc.is_some();
            let phc = phc.as_deref().unwrap_or(&hasher.nobodys);
            let fits = argon2(&hasher.params).verify_password(password.as_bytes(), phc);
            known & fits.is_ok()
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        self,
        work: impl FnOnce(&Hasher) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let Self { hasher, _waits } = self;
        let at_once = Arc::clone(&hasher.at_once).acquire_owned().await;
        let computed = tokio::task::spawn_blocking(move || {
            // Both held for as long as it takes, also when nobody waits for it any more.
            let _places = (at_once, _waits);
            work(&hasher)
        });
        computed.await.map_err(|_| Refusal::HashingBusy)
    }
}

fn argon2(params: &Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
}

fn hash(params: &Params, password: &[u8]) -> Result<String, StoreError> {
    let hashed = argon2(params).hash_password(password);
    Ok(hashed.map_err(|_| StoreError::Randomness)?.to_string())
}

/// The login method.
pub(in crate::sidecar) struct Password {
    pub(in crate::sidecar) store: Arc<dyn Store>,
    pub(in crate::sidecar) key: Arc<LoginKey>,
    pub(in crate::sidecar) hasher: Hasher,
    pub(in crate::sidecar) clock: Clock,
}

impl Password {
    /// What it is called.
    pub(in crate::sidecar) const NAME: &'static str = "password";

    /// Whether the password is that of the address, and the generation that its player had then: a session of a later one was not
    /// earned by this password.
    pub(in crate::sidecar) async fn prove(
        &self,
        login: proto::PasswordLogin,
    ) -> Result<(EmailAddress, PlayerGeneration), Refusal> {
        let proto::PasswordLogin { email, password } = login;
        let password = Zeroizing::new(password);
        let email: EmailAddress = email
            .parse()
            .map_err(|_| Refusal::Email("password.email"))?;
        if password.len() > LONGEST_BYTES {
            // It is nobody's, and takes no time: that tells nothing of the address.
            return Err(Refusal::Login(BadLogin::Password));
        }
        let place = self.hasher.place()?;
        let at = self.clock.wall();
        let account = self.store.account(email.identity()).await?;
        let generation = account.as_ref().map(|account| account.generation);
        let phc = account.and_then(|account| account.password);
        let attempts = self.attempts_of(&email);
        let nobodys = self.nobodys_attempts(&attempts);
        let counted = if phc.is_some() { attempts } else { nobodys };
        let forget_at = at.after(FAILURES_KEPT);
        let attempt = self.store.attempt(counted, MOST_FAILURES, at, forget_at);
        if attempt.await? == Attempt::TooMany {
            return Err(Refusal::Login(BadLogin::TooManyFailures));
        }
        let fits = place.verify(password, phc).await?;
        let generation = generation.filter(|_| fits);
        let generation = generation.ok_or(Refusal::Login(BadLogin::Password))?;
        self.store.forget_attempts(attempts).await?;
        Ok((email, generation))
    }

    /// Forgets the failures at an address whose owner has proved to be that.
    pub(in crate::sidecar) async fn forget_failures(
        &self,
        email: &EmailAddress,
    ) -> Result<(), Refusal> {
        Ok(self.store.forget_attempts(self.attempts_of(email)).await?)
    }

    /// Where the failures at an address are counted that has no password. Addresses can be made up without end, and what is kept of them must
    /// not be: so they share 65,536 ledgers, and which of them an address has nobody knows. Whoever tries an address sees what he would
    /// see of one with a password, unless a hundred failures at others have met in its ledger.
    fn nobodys_attempts(&self, own: &KeyedHash) -> KeyedHash {
        let [first, second, ..] = *own;
        self.key.hash("nobodys-attempts", &[&[first, second]])
    }

    fn attempts_of(&self, email: &EmailAddress) -> KeyedHash {
        let parts = [email.as_str().as_bytes()];
        self.key.hash("password-attempts", &parts)
    }
}

/// A password that may be set.
///
/// # Errors
/// It is too short or too long.
pub(in crate::sidecar) fn sound(password: String) -> Result<Zeroizing<String>, Refusal> {
    let password = Zeroizing::new(password);
    let long_enough = password.chars().take(SHORTEST).count() == SHORTEST;
    if long_enough && password.len() <= LONGEST_BYTES {
        Ok(password)
    } else {
        Err(Refusal::Argument {
            field: "new_password",
            allowed: "8 characters at least, and 256 bytes at most",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualTime,
        sidecar::{SessionLives, tests::START},
        store::{PlayerRevocation, memory::MemoryStore},
    };

    fn method() -> (Password, ManualTime) {
        let time = ManualTime::starting_at(START);
        let store = MemoryStore::new(SessionLives::default().for_store());
        let password = Password {
            store: Arc::new(store),
            key: Arc::new(LoginKey::generate()),
            hasher: Hasher::with(8, 1).unwrap(),
            clock: time.clock(),
        };
        (password, time)
    }

    fn ada() -> EmailAddress {
        "ada@example.com".parse().unwrap()
    }

    async fn set(method: &Password, password: &str) -> crate::id::PlayerId {
        let password = sound(password.to_owned()).unwrap();
        let phc = method.hasher.place().unwrap().hash(password).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{phc}");
        let set = method.store.set_password(ada().identity(), phc, START);
        set.await.unwrap().player
    }

    async fn refused(method: &Password, email: &str, password: &str) -> &'static str {
        let login = proto::PasswordLogin {
            email: email.to_owned(),
            password: password.to_owned(),
        };
        match method.prove(login).await {
            Ok(_) => "none",
            Err(refusal) => refusal.label(),
        }
    }

    #[test]
    fn the_cost_is_what_is_recommended() {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap();
        let cost = (params.m_cost(), params.t_cost(), params.p_cost());
        assert_eq!(cost, (19_456, 2, 1));
    }

    #[tokio::test]
    async fn the_password_that_was_set_fits_and_no_other() {
        let (method, _time) = method();
        assert_eq!(
            refused(&method, "ada@example.com", "correct horse").await,
            "bad_password"
        );
        let player = set(&method, "correct horse").await;
        assert_eq!(
            refused(&method, "Ada@example.com", "correct horse").await,
            "none"
        );
        let long = "x".repeat(257);
        for wrong in ["correct hors", "correct horse ", "", &long] {
            assert_eq!(
                refused(&method, "ada@example.com", wrong).await,
                "bad_password"
            );
        }
        assert_eq!(
            refused(&method, "eve@example.com", "correct horse").await,
            "bad_password"
        );
        // The generation that a session has to have is the one that the password was found under.
        let login = proto::PasswordLogin {
            email: "ada@example.com".to_owned(),
            password: "correct horse".to_owned(),
        };
        let (_, before) = method.prove(login.clone()).await.unwrap();
        let revoked = method.store.revoke_player(player, START).await.unwrap();
        assert!(matches!(revoked, PlayerRevocation::Ended { .. }));
        let (_, after) = method.prove(login).await.unwrap();
        assert!(before < after);
    }

    #[tokio::test]
    async fn a_hundred_failures_in_a_row_are_the_end_until_the_owner_comes_another_way() {
        let (method, _time) = method();
        set(&method, "correct horse").await;
        for email in ["ada@example.com", "nobody@example.com"] {
            for _ in 0..MOST_FAILURES {
                assert_eq!(refused(&method, email, "wrong").await, "bad_password");
            }
            let last = refused(&method, email, "correct horse").await;
            assert_eq!(last, "too_many_failures", "known or not, it is the same");
        }
        method.forget_failures(&ada()).await.unwrap();
        assert_eq!(
            refused(&method, "ada@example.com", "correct horse").await,
            "none"
        );
        // A success starts the count afresh.
        for _ in 0..MOST_FAILURES - 1 {
            refused(&method, "ada@example.com", "wrong").await;
        }
        assert_eq!(
            refused(&method, "ada@example.com", "correct horse").await,
            "none"
        );
        assert_eq!(
            refused(&method, "ada@example.com", "wrong").await,
            "bad_password"
        );
    }

    /// Addresses that are made up share what is kept of them, and nobody who has a password shares with them.
    #[tokio::test]
    async fn made_up_addresses_fill_nothing_and_lock_nobody_out() {
        let (method, _time) = method();
        set(&method, "correct horse").await;
        let ledger = |email: &str| {
            let own = method.attempts_of(&email.parse().unwrap());
            method.nobodys_attempts(&own)
        };
        let of_ada = ledger("ada@example.com");
        let made_up = (0..).map(|n| format!("{n}@example.com"));
        let neighbours: Vec<_> = made_up
            .filter(|email| ledger(email) == of_ada)
            .take(2)
            .collect();
        let [one, other] = [&neighbours[0], &neighbours[1]];
        for _ in 0..MOST_FAILURES {
            assert_eq!(refused(&method, one, "wrong").await, "bad_password");
        }
        for full in [one, other] {
            let last = refused(&method, full, "wrong").await;
            assert_eq!(last, "too_many_failures");
        }
        let kept = method.store.purge_logins(START.after(2 * FAILURES_KEPT));
        assert_eq!(kept.await.unwrap(), 1);
        let own = refused(&method, "ada@example.com", "correct horse").await;
        assert_eq!(own, "none");
    }

    #[tokio::test]
    async fn more_than_can_wait_are_sent_away_before_anything_is_counted() {
        let (method, _time) = method();
        set(&method, "correct horse").await;
        let places: Vec<_> = (0..AT_ONCE + WAITING)
            .map(|_| method.hasher.place().unwrap())
            .collect();
        assert_eq!(
            refused(&method, "ada@example.com", "wrong").await,
            "hashing_busy"
        );
        drop(places);
        assert_eq!(
            refused(&method, "ada@example.com", "correct horse").await,
            "none"
        );
    }

    #[test]
    fn passwords_have_a_length_and_no_other_rule() {
        for good in ["12345678", "пароль-1", "a b c d e f", &"x".repeat(256)] {
            assert!(sound(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "1234567", "пароль1", &"x".repeat(257)] {
            assert!(sound(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
