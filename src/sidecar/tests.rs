//! Sessions and minting over a model store and time moved by hand.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    clock::{ManualTime, Timestamp},
    control::GatewayDescription,
    id::{Incarnation, Revision},
    proto::{self, gateway_target},
    store::{Identity, Store, memory::MemoryStore},
    token::{ConnectKeyring, LoginKey, RefreshKey, Rotating, SessionKey, TransportMasterKey},
};

use super::{
    DEFAULT_REFRESHES_PER_MINUTE, MasterKey, SessionLives, TokenKeys,
    explain::Explain,
    keys::Keys,
    limit::Limit,
    metrics::Counters,
    mint::{Mint, Wanted},
    refusal::Refusal,
    registry::Registry,
    sessions::{LoggedIn, Sessions},
};

pub(super) const START: Timestamp = Timestamp(1_700_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

pub(super) struct World {
    pub(super) time: ManualTime,
    pub(super) store: Arc<MemoryStore>,
    pub(super) sessions: Sessions,
}

/// Keys of nobody else's.
pub(super) fn keys() -> TokenKeys {
    TokenKeys::new(
        SessionKey::generate(),
        RefreshKey::generate(),
        TransportMasterKey::generate(),
    )
}

pub(super) fn in_force(keys: TokenKeys) -> Arc<Keys> {
    Arc::new(Keys::new(keys, LoginKey::generate().id(), START))
}

pub(super) fn world(lives: SessionLives) -> World {
    let time = ManualTime::starting_at(START);
    let store = Arc::new(MemoryStore::new(lives.for_store()));
    let sessions = Sessions {
        store: Arc::clone(&store) as Arc<dyn Store>,
        keys: in_force(keys()),
        refresh_limit: Limit::per_minute(DEFAULT_REFRESHES_PER_MINUTE, &time.clock()),
        lives,
        clock: time.clock(),
        explain: Arc::new(Explain::new(START)),
        counters: Arc::new(Counters::new()),
    };
    World {
        time,
        store,
        sessions,
    }
}

impl World {
    pub(super) async fn log_in(&self) -> LoggedIn {
        let identity = Identity {
            provider: "dev".to_owned(),
            subject: "ada".to_owned(),
        };
        self.sessions.log_in(identity, "dev", false).await.unwrap()
    }

    async fn refusal(&self, token: &str) -> &'static str {
        match self.sessions.of_bearer(token).await {
            Ok(found) => panic!("{found:?} is live"),
            Err(refusal) => refusal.label(),
        }
    }
}

#[tokio::test]
async fn a_login_gives_a_token_that_finds_the_session() {
    let world = world(SessionLives::default());
    let login = world.log_in().await;
    assert!(login.is_new_player);
    assert_eq!(login.expires_at, START.after(15 * MINUTE));
    let found = world.sessions.of_bearer(&login.token).await.unwrap();
    assert_eq!(found, login.found);
    let claims = world
        .sessions
        .keys
        .open_session(&login.token, START)
        .unwrap();
    assert_eq!(claims.player, login.found.player.id);
    assert_eq!(claims.session, login.found.session.id);
    assert_eq!((&*claims.role, &*claims.method), ("player", "dev"));
}

#[tokio::test]
async fn tokens_end_with_their_life_or_the_sessions() {
    let world = world(SessionLives {
        absolute: 20 * MINUTE,
        ..SessionLives::default()
    });
    let login = world.log_in().await;
    world.time.advance(16 * MINUTE);
    assert_eq!(world.refusal(&login.token).await, "expired");
    // A token that is made of a session near its end does not outlive it.
    let found = world.sessions.live(login.found.session.id).await.unwrap();
    let claims = super::sessions::session_claims(&found, world.sessions.clock.wall(), 15 * MINUTE);
    assert_eq!(claims.expires_at, START.after(20 * MINUTE));
    world.time.advance(4 * MINUTE);
    let ended = world.sessions.live(login.found.session.id).await;
    assert_eq!(ended.unwrap_err().label(), "session_expired");
}

#[tokio::test]
async fn idleness_and_revocation_end_a_session_before_its_token() {
    let world = world(SessionLives {
        idle: 5 * MINUTE,
        ..SessionLives::default()
    });
    let idle = world.log_in().await;
    world.time.advance(4 * MINUTE);
    let now = world.sessions.clock.wall();
    world.store.note_activity(&[idle.found.session.id], now);
    world.time.advance(4 * MINUTE);
    assert!(world.sessions.of_bearer(&idle.token).await.is_ok());
    world.time.advance(MINUTE);
    assert_eq!(world.refusal(&idle.token).await, "session_idle");

    let revoked = world.log_in().await;
    let now = world.sessions.clock.wall();
    let id = revoked.found.session.id;
    world.store.revoke_session(id, now).await.unwrap();
    assert_eq!(world.refusal(&revoked.token).await, "session_revoked");

    let player = world.log_in().await;
    let id = player.found.player.id;
    world.store.revoke_player(id, now).await.unwrap();
    assert_eq!(world.refusal(&player.token).await, "session_revoked");
    // The player may log in again at once.
    let again = world.log_in().await;
    assert!(world.sessions.of_bearer(&again.token).await.is_ok());
}

#[tokio::test]
async fn a_token_of_other_keys_is_refused_without_saying_why() {
    let (ours, theirs) = (
        world(SessionLives::default()),
        world(SessionLives::default()),
    );
    let foreign = theirs.log_in().await.token;
    assert_eq!(ours.refusal(&foreign).await, "unknown_key");
    let status: tonic::Status = ours.sessions.of_bearer(&foreign).await.unwrap_err().into();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(!status.message().contains("key"), "{status:?}");
    for text in ["", "v4.local.", "v4.public.AAAA", &"x".repeat(10_000)] {
        assert_eq!(ours.refusal(text).await, "malformed", "{text}");
    }
}

#[tokio::test]
async fn a_connect_token_opens_at_the_very_process_and_covers_the_log() {
    let world = world(SessionLives::default());
    let master = TransportMasterKey::generate();
    let gateway = GatewayDescription {
        id: "eu".parse().unwrap(),
        incarnation: Incarnation(5),
        addresses: vec!["192.0.2.1:7777".parse().unwrap()],
        server_name: "gateway".to_owned(),
        certificate_sha256: vec![[7; 32], [8; 32]],
        capacity: 10,
    };
    let mut keyrings = [Incarnation(5), Incarnation(6)].map(|incarnation| {
        let mut keyring = ConnectKeyring::new(gateway.id.clone());
        keyring.replace(vec![master.derive(&gateway.id, incarnation, 3)]);
        keyring
    });
    let registry = Arc::new(Registry::new(world.time.clock()));
    registry.attach(&gateway, &[]).unwrap();
    let mint = Mint {
        registry,
        store: Arc::clone(&world.sessions.store),
        limit: Limit::per_minute(60, &world.time.clock()),
        explain: Arc::clone(&world.sessions.explain),
        counters: Arc::clone(&world.sessions.counters),
        keys: in_force(TokenKeys {
            transport: Rotating::only(MasterKey {
                epoch: 3,
                key: master,
            }),
            ..keys()
        }),
        clock: world.time.clock(),
    };
    let other = world.log_in().await.found.session.id;
    world.store.revoke_session(other, START).await.unwrap();
    let login = world.log_in().await;
    let found = world.sessions.live(login.found.session.id).await.unwrap();
    let any = |yes| {
        Some(proto::GatewayTarget {
            target: Some(gateway_target::Target::Any(yes)),
        })
    };
    let wanted = |target| Wanted {
        target,
        life: MINUTE,
        client_key: Bytes::new(),
    };
    let ticket = mint.issue(&found, wanted(any(true))).await.unwrap();
    assert_eq!(ticket.gateway_id, "eu");
    assert_eq!(ticket.addresses, ["192.0.2.1:7777"]);
    assert_eq!(ticket.certificate_sha256.len(), 2);
    assert_eq!(ticket.session_id, found.session.id.to_string());
    assert_eq!(ticket.expires_at_ms, START.after(MINUTE).0);
    let [this_process, another] = &mut keyrings;
    let claims = this_process.open(&ticket.token, START).unwrap();
    assert_eq!(claims.session, found.session.id);
    assert_eq!(claims.revision, Revision(1));
    assert_eq!(claims.session_ends_at, found.session.ends_at);
    assert!(another.open(&ticket.token, START).is_err());
    // The gateway is believed from now on, in the store.
    let eu = "eu".parse().unwrap();
    let granted = world.store.granted_among(eu, vec![other, found.session.id]);
    assert_eq!(granted.await.unwrap(), [found.session.id]);

    let second = mint.issue(&found, wanted(any(true))).await.unwrap();
    let second = this_process.open(&second.token, START).unwrap();
    assert_ne!(second.nonce, claims.nonce);
    assert_ne!(second.client, claims.client);
    for unclear in [any(false), None, Some(proto::GatewayTarget::default())] {
        let refused = mint.issue(&found, wanted(unclear)).await;
        assert!(matches!(refused, Err(Refusal::Argument { .. })));
    }
}

#[tokio::test]
async fn tokens_under_a_retired_key_are_refused_as_of_an_unknown_key() {
    let world = world(SessionLives::default());
    let login = world.log_in().await;
    let before = keys();
    let after = keys();
    // Of the world's own keys nothing is left; those in between open what was sealed before.
    let sealed = |keys: &TokenKeys| {
        let live = in_force(keys.clone());
        let claims = world.sessions.keys.open_session(&login.token, START);
        live.seal_session(&claims.unwrap())
    };
    let token = sealed(&before);
    let rotated = TokenKeys {
        session: Rotating {
            previous: vec![before.session.current.clone()],
            ..after.session.clone()
        },
        ..after.clone()
    };
    world.sessions.keys.replace(rotated).unwrap();
    assert!(world.sessions.of_bearer(&token).await.is_ok());
    assert_eq!(world.refusal(&login.token).await, "unknown_key");
    let refreshed = world.sessions.refresh(&login.refresh_token).await;
    assert_eq!(refreshed.map(drop).unwrap_err().label(), "unknown_key");
    world.sessions.keys.replace(after).unwrap();
    assert_eq!(world.refusal(&token).await, "unknown_key");
}
