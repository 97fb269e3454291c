//! Keys rotate under load, and nobody is refused: connect tokens' while clients come in, session and refresh tokens' while they are used.
//! The old key goes at the earliest instant at which an operator is allowed to retire it.
//!
//! Every CI run does it at a rate that a debug build on a busy machine can bear; `scripts/rotation` does it at 500 admissions a second.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use support::{Stack, endpoint, soon};
use tickgate::{
    client::{Admin, Backend, Endpoint, KeyList, ListedKey, Session, Target},
    clock::{Clock, Timestamp},
    config::KeyFile,
    sidecar::{SessionLives, Sidecar, TokenKeys},
    token::{KeyRole, MasterKey, OperatorKey, RefreshKey, SessionKey, TransportMasterKey},
};
use tokio::{sync::Semaphore, task::JoinSet};

const SECOND: Duration = Duration::from_secs(1);

/// Sessions that come in one after the other, so that none supersedes itself.
const SESSIONS: usize = 2_000;
/// Admissions under way at once; beyond that the generator is late, and says so.
const IN_FLIGHT: usize = 256;
const ENDPOINTS: usize = 16;

/// The key files of a sidecar in this process, and its operator.
struct Operator {
    admin: Admin,
    session: KeyFile<SessionKey>,
    refresh: KeyFile<RefreshKey>,
    transport: KeyFile<TransportMasterKey>,
    clock: Clock,
}

impl Operator {
    fn of(stack: &Stack, keys: &TokenKeys) -> Self {
        fn file<K: OperatorKey>(key: &K) -> KeyFile<K> {
            KeyFile::parse(&key.to_paserk()).unwrap()
        }
        let url = format!("https://{}", stack.sidecar.addresses().admin);
        let ca = std::slice::from_ref(&stack.certs.ca);
        Self {
            admin: Admin::connect(&url, ca, &stack.certs.admin).unwrap(),
            session: file(&keys.session.current),
            refresh: file(&keys.refresh.current),
            transport: file(&keys.transport.current.key),
            clock: Clock::system(),
        }
    }

    /// What the sidecar does when the files have changed.
    fn reload(&self, sidecar: &Sidecar) {
        let keys = TokenKeys {
            session: self.session.clone().into_rotating(|entry| entry.key),
            refresh: self.refresh.clone().into_rotating(|entry| entry.key),
            transport: self.transport.clone().into_rotating(|entry| MasterKey {
                epoch: entry.epoch,
                key: entry.key,
            }),
        };
        assert!(sidecar.replace_keys(keys).unwrap());
    }

    fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    async fn list(&self) -> KeyList {
        self.admin.list_keys().await.unwrap()
    }

    /// The key of a purpose in a role; as `tickgate keys` looks it up.
    async fn key(&self, purpose: &str, role: KeyRole) -> ListedKey {
        let keys = self.list().await.keys.into_iter();
        let mut of_role = keys.filter(|key| (key.purpose.as_str(), key.role) == (purpose, role));
        of_role.next().unwrap()
    }

    /// Waits until every gateway holds a key.
    async fn held(&self, purpose: &str, role: KeyRole) {
        let held = async {
            while !self.key(purpose, role).await.outstanding.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon("the gateways hold the key", held).await;
    }

    /// Waits until the previous key may be retired, and not a moment longer.
    async fn over(&self, purpose: &str, promoted_at: Timestamp) {
        let previous = self.key(purpose, KeyRole::Previous).await;
        let sealed_at = previous.sealed_at.unwrap().max(promoted_at);
        let until = sealed_at.after(previous.opens_for);
        tokio::time::sleep(until.since(self.now())).await;
    }
}

/// What the load has come to.
#[derive(Default)]
struct Load {
    done: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self) -> u64 {
        self.done.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Waits until `more` things are done from now on.
    async fn advances(&self, more: u64) {
        let target = self.done.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.done.load(Ordering::Relaxed) < target {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon("the load goes on", reached).await;
    }
}

/// Lets clients come in at `rate` a second until the load is to stop; how many were refused, how many came in, and for how long it went
/// on.
async fn admissions(load: Arc<Load>, rate: u32, backend: Backend) -> (Vec<String>, u64, Duration) {
    let sessions = sessions(&backend).await;
    let endpoints: Vec<Endpoint> = (0..ENDPOINTS).map(|_| endpoint()).collect();
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let clock = Clock::system();
    let start = clock.now();
    let mut under_way = JoinSet::new();
    let mut refused = Vec::new();
    let mut begun = 0;
    while load.goes_on() {
        // From the start and not from the last one: who is late catches up.
        let due = start + SECOND * begun / rate;
        tokio::time::sleep(due.saturating_duration_since(clock.now())).await;
        let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
        let at = usize::try_from(begun).unwrap();
        let session = sessions[at % sessions.len()].clone();
        let endpoint = endpoints[at % ENDPOINTS].clone();
        let (backend, load) = (backend.clone(), Arc::clone(&load));
        under_way.spawn(async move {
            let admitted = admit(&backend, &endpoint, &session).await;
            load.count();
            drop(slot);
            admitted
        });
        begun += 1;
        while let Some(done) = under_way.try_join_next() {
            refused.extend(done.unwrap().err());
        }
    }
    while let Some(done) = under_way.join_next().await {
        refused.extend(done.unwrap().err());
    }
    (refused, begun.into(), clock.now() - start)
}

/// One client: a token, a connection, a Welcome, and away again.
async fn admit(backend: &Backend, endpoint: &Endpoint, session: &Session) -> Result<(), String> {
    let target = Target::Gateway("one".parse().unwrap());
    let ticket = backend.issue_connect_token(session.id, target, None).await;
    let ticket = ticket.map_err(|error| format!("no token: {error:?}"))?;
    let connection = endpoint.connect(&ticket).await;
    connection
        .map_err(|error| format!("not admitted: {error:?}"))?
        .close();
    Ok(())
}

async fn sessions(backend: &Backend) -> Vec<Session> {
    let mut made = JoinSet::new();
    for n in 0..SESSIONS {
        let backend = backend.clone();
        made.spawn(async move {
            backend
                .create_session(&format!("player {n}"))
                .await
                .unwrap()
        });
    }
    made.join_all().await
}

/// Rotates the transport key twice while `rate` clients a second come in, for 10 s at least.
async fn transport_key_rotates_at(rate: u32) {
    let mut keys = None;
    let stack = Stack::start_with(|config| {
        keys = Some(config.keys.clone());
        config.clock = Clock::system();
        config.connect_tokens_per_minute = 6_000;
        config.lives = SessionLives {
            connect_token: SECOND,
            longest_connect_token: SECOND,
            ..SessionLives::default()
        };
    })
    .await;
    let mut config = stack.gateway_config("one");
    config.clock = Clock::system();
    // All clients come from one address here.
    config.limits.prefix_rate = 100_000;
    config.limits.prefix_burst = 100_000;
    let host = stack.gateway(config).await;
    let mut operator = Operator::of(&stack, &keys.unwrap());

    let load = Arc::new(Load::default());
    let clients = tokio::spawn(admissions(Arc::clone(&load), rate, stack.backend.clone()));
    let mut sealed_with = Vec::new();
    for _ in 0..2 {
        load.advances(u64::from(rate)).await;
        let file = operator.transport.clone();
        operator.transport = file
            .publish(TransportMasterKey::generate(), operator.now())
            .unwrap();
        operator.reload(&stack.sidecar);
        operator.held("transport", KeyRole::Next).await;
        let promoted_at = operator.now();
        operator.transport = operator.transport.promote(promoted_at).unwrap();
        operator.reload(&stack.sidecar);
        load.advances(u64::from(rate)).await;
        operator.over("transport", promoted_at).await;
        operator.transport = operator.transport.retire().unwrap();
        operator.reload(&stack.sidecar);
        let current = operator.key("transport", KeyRole::Current).await;
        assert!(current.sealed_at > Some(promoted_at), "the new key seals");
        sealed_with.push(current.epoch);
    }
    load.advances(u64::from(rate)).await;
    load.stop.store(true, Ordering::Relaxed);
    let (refused, begun, took) = clients.await.unwrap();
    println!(
        "{begun} admissions in {took:.1?}: {:.0} a second, {} refused, epochs {sealed_with:?}",
        begun as f64 / took.as_secs_f64(),
        refused.len()
    );
    assert!(
        refused.is_empty(),
        "{} refused: {:?}",
        refused.len(),
        &refused[..1]
    );
    assert_eq!(sealed_with, [2, 3]);
    assert!(took > 10 * SECOND, "{took:?}");
    assert!(
        begun >= u64::from(rate) * took.as_secs() * 95 / 100,
        "{begun} in {took:?}"
    );
    // The last of them is told on the next tick.
    let told = async {
        while host.joins() as u64 != begun {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("each of them is told to have come in", told).await;
    host.stop().await;
    stack.sidecar.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_while_the_transport_key_rotates() {
    transport_key_rotates_at(40).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants a release build and a machine to itself: scripts/rotation"]
async fn nobody_of_500_a_second_is_refused_while_the_transport_key_rotates() {
    transport_key_rotates_at(500).await;
}

/// A player who refreshes all the time, and calls with each token as long as it lives.
async fn refreshes(load: Arc<Load>, stack: Arc<Stack>, name: String, lives: SessionLives) {
    let clock = Clock::system();
    while load.goes_on() {
        let mut session = stack.login(&name).await;
        // It ends by itself later on, and that is no refusal.
        let until = clock.now() + lives.absolute / 2;
        while load.goes_on() && clock.now() < until {
            let before = session.token.clone();
            session = stack.account.refresh(&session).await.expect("refreshed");
            for token in [&before, &session.token] {
                let me = stack.account.who_am_i(token).await.expect("a live token");
                assert_eq!(me.session, session.id);
            }
            load.count();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_while_session_and_refresh_keys_rotate() {
    const PLAYERS: usize = 8;
    let lives = SessionLives {
        idle: 3 * SECOND,
        absolute: 3 * SECOND,
        session_token: 2 * SECOND,
        ..SessionLives::default()
    };
    let mut keys = None;
    let stack = Stack::start_with(|config| {
        keys = Some(config.keys.clone());
        config.clock = Clock::system();
        config.refreshes_per_minute = 60_000;
        config.lives = lives;
    })
    .await;
    let mut operator = Operator::of(&stack, &keys.unwrap());
    let stack = Arc::new(stack);
    let load = Arc::new(Load::default());
    let mut players = JoinSet::new();
    for n in 0..PLAYERS {
        let (load, stack) = (Arc::clone(&load), Arc::clone(&stack));
        players.spawn(refreshes(load, stack, format!("player {n}"), lives));
    }
    load.advances(40).await;
    let now = operator.now();
    operator.session = operator
        .session
        .publish(SessionKey::generate(), now)
        .unwrap();
    operator.refresh = operator
        .refresh
        .publish(RefreshKey::generate(), now)
        .unwrap();
    operator.reload(&stack.sidecar);
    load.advances(40).await;
    let promoted_at = operator.now();
    operator.session = operator.session.promote(promoted_at).unwrap();
    operator.refresh = operator.refresh.promote(promoted_at).unwrap();
    operator.reload(&stack.sidecar);
    operator.over("session", promoted_at).await;
    operator.session = operator.session.retire().unwrap();
    operator.reload(&stack.sidecar);
    load.advances(40).await;
    operator.over("refresh", promoted_at).await;
    operator.refresh = operator.refresh.retire().unwrap();
    operator.reload(&stack.sidecar);
    load.advances(40).await;
    load.stop.store(true, Ordering::Relaxed);
    // None of them met a refusal.
    while let Some(played) = players.join_next().await {
        played.unwrap();
    }
    let keys = operator.list().await.keys;
    assert!(
        keys.iter().all(|key| key.role == KeyRole::Current),
        "{keys:?}"
    );
    println!("{} refreshes", load.done.load(Ordering::Relaxed));
}
