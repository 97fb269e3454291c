//! Whether answer or time tells whose an e-mail address is: the service is asked about addresses that are somebody's and nobody's, in
//! turns, for everything that takes an address from a stranger.
//!
//! The measure is the area under the ROC curve of "the slower one is somebody's": 0.5 is a coin, 1 (or 0) a certain sign. With a thousand
//! samples each it strays by 0.013 (one standard deviation), so 0.45 to 0.55 is four of those. What else the machine does falls on both
//! kinds alike, since they take turns, and in each turn chance says which is first.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tonic::{Request, Status};

use crate::{
    clock::Clock,
    proto::{
        self, auth_service_server::AuthService, login_request::Method,
        request_verification_request::Purpose,
    },
    rpc::Peer,
    sidecar::{
        SessionLives,
        auth::AuthApi,
        config::{LoginConfig, LoginLimits},
        limit::Limit,
        mail::{self, Outbox},
        mint::Mint,
        registry::Registry,
        tests::{START, World, world},
    },
    store::{EmbeddedStore, Store},
    token::LoginKey,
};

use super::{Methods, address::EmailAddress, limits::Limits, nonce::Nonces, password::Hasher};

const SAMPLES: usize = 1_000;

/// Each address bears a hundred failures in a row, and there are fifty for each here.
const ADDRESSES: usize = 20;

/// What chance, or a machine that is busy, may spoil: one that passes is enough, since a leak would show in each.
const MEASUREMENTS: usize = 3;

/// Where nothing is told.
const FAIR: std::ops::RangeInclusive<f64> = 0.45..=0.55;

/// What a stranger may ask about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Otp,
    Password,
    MagicLink,
    PasswordReset,
}

impl Question {
    const ALL: [Self; 4] = [
        Self::Otp,
        Self::Password,
        Self::MagicLink,
        Self::PasswordReset,
    ];

    /// Whether a letter goes out with the answer.
    fn mails(self) -> bool {
        self != Self::Password
    }
}

/// What the caller sees.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Until(u64),
    Refused(tonic::Code, String, Vec<u8>),
}

impl Told {
    fn of(refused: &Status) -> Self {
        let (message, details) = (refused.message(), refused.details());
        Self::Refused(refused.code(), message.to_owned(), details.to_vec())
    }
}

/// The service over a store on disk.
struct Asked {
    api: AuthApi,
    outbox: Outbox,
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

impl Asked {
    async fn new() -> Self {
        let World {
            mut sessions, time, ..
        } = world(SessionLives::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let store = EmbeddedStore::open(&path, SessionLives::default().for_store()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        sessions.store = Arc::clone(&store);
        let (mailer, outbox) = mail::queue();
        let key = LoginKey::generate();
        let many = NonZeroU32::new(1_000_000).unwrap();
        let login = LoginConfig {
            otp: true,
            magic_link: true,
            password: true,
            limits: LoginLimits {
                per_email: many,
                per_address: many,
                ..LoginLimits::default()
            },
            ..LoginConfig::default()
        };
        let limits = Limits::new(
            login.limits.clone(),
            key.clone(),
            time.clock(),
            Arc::clone(&store),
        );
        let nonces = Nonces {
            store: Arc::clone(&store),
            key: Arc::new(key),
            clock: time.clock(),
        };
        let mut methods = Methods::new(login, Some(mailer), &nonces).unwrap();
        // Cheaper than what players get, and so more telling: there is less of what all addresses cost.
        let hasher = Hasher::with(256, 1).unwrap();
        methods.password.as_mut().unwrap().hasher = hasher.clone();
        let registry = Arc::new(Registry::new(time.clock()));
        let mint = Mint {
            registry: Arc::clone(&registry),
            store: Arc::clone(&store),
            keys: Arc::clone(&sessions.keys),
            limit: Limit::per_minute(60, &time.clock()),
            clock: time.clock(),
            explain: Arc::clone(&sessions.explain),
            counters: Arc::clone(&sessions.counters),
        };
        let place = hasher.place().unwrap();
        let phc = place.hash("correct horse".to_owned().into()).await.unwrap();
        for n in 0..ADDRESSES {
            let identity = email("known", n).identity();
            let set = store.set_password(identity, phc.clone(), START);
            set.await.unwrap();
        }
        Self {
            api: AuthApi {
                fresh: Duration::ZERO,
                sessions: Arc::new(sessions),
                mint: Arc::new(mint),
                registry,
                methods,
                limits,
            },
            outbox,
            store,
            _folder: folder,
        }
    }

    async fn ask(&self, question: Question, email: &str) -> Told {
        let email = email.to_owned();
        let purpose = match question {
            Question::Otp => {
                let asked = proto::RequestOtpRequest { email };
                let answer = self.api.request_otp(from_somewhere(asked)).await;
                return answer.map_or_else(
                    |refused| Told::of(&refused),
                    |answer| Told::Until(answer.get_ref().expires_at_ms),
                );
            }
            Question::Password => {
                let password = "wrong horse".to_owned();
                let method = Some(Method::Password(proto::PasswordLogin { email, password }));
                let asked = proto::LoginRequest {
                    method,
                    link: false,
                };
                let answer = self.api.login(from_somewhere(asked)).await;
                return Told::of(&answer.unwrap_err());
            }
            Question::MagicLink => Purpose::MagicLink(email),
            Question::PasswordReset => Purpose::PasswordReset(email),
        };
        let purpose = Some(purpose);
        let asked = proto::RequestVerificationRequest { purpose };
        let answer = self.api.request_verification(from_somewhere(asked)).await;
        answer.map_or_else(
            |refused| Told::of(&refused),
            |answer| Told::Until(answer.get_ref().expires_at_ms),
        )
    }

    /// What is told, and how long that takes.
    async fn sample(
        &mut self,
        question: Question,
        email: &EmailAddress,
        leaks: bool,
    ) -> (Option<Told>, Duration) {
        let stopwatch = Clock::system();
        let start = stopwatch.now();
        // The leak that is planted: of nobody's address there is nothing to compare with and nobody to write to, so why do anything?
        let passed_over = leaks && {
            let account = self.store.account(email.identity());
            account.await.unwrap().is_none()
        };
        let told = match passed_over {
            true => None,
            false => Some(self.ask(question, email.as_str()).await),
        };
        let took = stopwatch.now().saturating_duration_since(start);
        if question.mails() && !passed_over {
            // A letter waits whoever it is to; nobody waits for it.
            assert_eq!(self.outbox.next_letter().await.to, *email);
        }
        (told, took)
    }
}

fn from_somewhere<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Peer {
        address: "192.0.2.1:1".parse().unwrap(),
        role: None,
    });
    request
}

fn email(kind: &str, n: usize) -> EmailAddress {
    let n = n % ADDRESSES;
    format!("{kind}-{n}@example.com").parse().unwrap()
}

/// The area, from a thousand samples of each kind; and everybody is told the same.
async fn area_under_curve(question: Question, leaks: bool, seed: u64) -> f64 {
    let mut asked = Asked::new().await;
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut samples = Vec::with_capacity(2 * SAMPLES);
    let mut first = None;
    for n in 0..SAMPLES {
        let mut turn = [("known", true), ("other", false)];
        if chance.random() {
            turn.reverse();
        }
        for (kind, is_known) in turn {
            let (told, took) = asked.sample(question, &email(kind, n), leaks).await;
            samples.push((took, is_known));
            if let Some(told) = told {
                match &first {
                    Some(first) => assert_eq!(told, *first, "{question:?}"),
                    None => first = Some(told),
                }
            }
        }
    }
    area(samples)
}

/// Of all pairs, those in which the known one took longer; where both took as long, half (Mann-Whitney).
fn area(mut samples: Vec<(Duration, bool)>) -> f64 {
    samples.sort_unstable();
    let (mut others, mut known, mut halves) = (0_u64, 0_u64, 0_u64);
    for alike in samples.chunk_by(|(one, _), (other, _)| one == other) {
        let of_known = alike.iter().filter(|(_, is_known)| *is_known).count() as u64;
        let of_others = alike.len() as u64 - of_known;
        halves += of_known * (2 * others + of_others);
        others += of_others;
        known += of_known;
    }
    halves as f64 / (2 * known * others) as f64
}

#[test]
fn the_area_tells_a_coin_from_a_sign() {
    let of = |known: &[u64], others: &[u64]| {
        let samples = |took: &[u64], is_known| {
            let took = took.iter().map(|ms| Duration::from_millis(*ms));
            took.map(move |took| (took, is_known)).collect::<Vec<_>>()
        };
        area([samples(known, true), samples(others, false)].concat())
    };
    assert_eq!(of(&[1, 2, 3], &[1, 2, 3]), 0.5);
    assert_eq!(of(&[4, 5], &[1, 2, 3]), 1.0);
    assert_eq!(of(&[1], &[2, 3]), 0.0);
    assert_eq!(of(&[1, 4], &[2, 3]), 0.5);
    assert_eq!(of(&[3, 4], &[2, 3]), 0.875);
}

#[tokio::test]
async fn neither_answer_nor_time_tells_whose_an_address_is_and_a_leak_would_be_seen() {
    for question in Question::ALL {
        let mut areas = Vec::new();
        for seed in 0..MEASUREMENTS as u64 {
            let leaking = area_under_curve(question, true, seed).await;
            assert!(!FAIR.contains(&leaking), "{question:?} leaks: {leaking}");
            areas.push(area_under_curve(question, false, seed).await);
            if areas.iter().any(|area| FAIR.contains(area)) {
                break;
            }
        }
        println!("{question:?}: {areas:?}");
        let fair = areas.iter().any(|area| FAIR.contains(area));
        assert!(fair, "{question:?}: {areas:?}");
    }
}
