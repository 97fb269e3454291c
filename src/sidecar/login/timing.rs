//! Whether it can be told by the time whose an address is: a password is tried at addresses that are somebody's and nobody's, in turns.
//!
//! The measure is the area under the ROC curve of "the slower one is somebody's": 0.5 is a coin, 1 (or 0) a certain sign. With a thousand
//! samples each it strays by 0.013 (one standard deviation), so 0.45 to 0.55 is four of those.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Clock,
    proto,
    sidecar::{SessionLives, tests::START},
    store::memory::MemoryStore,
    token::LoginKey,
};

use super::{
    address::EmailAddress,
    password::{Hasher, Password},
};

const SAMPLES: usize = 1_000;
/// Each address bears a hundred failures.
const ADDRESSES: usize = 20;

fn email(kind: &str, n: usize) -> EmailAddress {
    let n = n % ADDRESSES;
    format!("{kind}-{n}@example.com").parse().unwrap()
}

async fn method() -> Password {
    let store = MemoryStore::new(SessionLives::default().for_store());
    let method = Password {
        store: Arc::new(store),
        key: Arc::new(LoginKey::generate()),
        hasher: Hasher::with(256, 1).unwrap(),
        clock: Clock::system(),
    };
    let place = method.hasher.place().unwrap();
    let phc = place.hash("correct horse".to_owned().into()).await.unwrap();
    for n in 0..ADDRESSES {
        let identity = email("known", n).identity();
        let set = method.store.set_password(identity, phc.clone(), START);
        set.await.unwrap();
    }
    method
}

/// How long the refusal of a wrong password takes.
async fn refused(method: &Password, email: &EmailAddress, shortcut: bool) -> Duration {
    let clock = Clock::system();
    let start = clock.now();
    // The leak that is planted: at nobody's address there is nothing to compare with, so why compute anything?
    let is_nobodys = shortcut
        && method
            .store
            .account(email.identity())
            .await
            .unwrap()
            .is_none();
    if !is_nobodys {
        let login = proto::PasswordLogin {
            email: email.to_string(),
            password: "wrong horse".to_owned(),
        };
        assert!(method.prove(login).await.is_err());
    }
    clock.now().saturating_duration_since(start)
}

async fn area_under_curve(shortcut: bool) -> f64 {
    let method = method().await;
    let mut samples = Vec::with_capacity(2 * SAMPLES);
    for n in 0..SAMPLES {
        for (kind, is_known) in [("known", true), ("nobody", false)] {
            let took = refused(&method, &email(kind, n), shortcut).await;
            samples.push((took, is_known));
        }
    }
    samples.sort_unstable();
    // Of all pairs, those in which the known one took longer (Mann-Whitney).
    let (mut nobodys, mut pairs) = (0_u32, 0_u32);
    for (_, is_known) in samples {
        if is_known {
            pairs += nobodys;
        } else {
            nobodys += 1;
        }
    }
    f64::from(pairs) / (SAMPLES * SAMPLES) as f64
}

#[tokio::test]
async fn the_time_does_not_tell_whose_an_address_is_and_a_leak_would_be_seen() {
    let area = area_under_curve(false).await;
    assert!((0.45..=0.55).contains(&area), "{area}");
    let leaking = area_under_curve(true).await;
    assert!(leaking > 0.9, "{leaking}");
}
