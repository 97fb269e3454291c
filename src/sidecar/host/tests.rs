//! What a gateway may say, and what becomes of it.

use std::sync::Arc;

use super::{
    super::tests::{START, in_force, keys, world},
    *,
};
use crate::{
    clock::{ManualTime, Timestamp},
    control::GatewayEventKind,
    id::{PlayerGeneration, PlayerId},
    sidecar::{SessionLives, catching_up::go_round},
    store::{Identity, NewSession, Started, memory::MemoryStore},
};

/// A sidecar as gateways see it, over a store that may have seen another one before.
fn host(store: &Arc<MemoryStore>, time: &ManualTime) -> Host {
    Host {
        registry: Arc::new(Registry::new(time.clock())),
        store: Arc::clone(store) as Arc<dyn Store>,
        keys: in_force(keys()),
        explain: Arc::new(Explain::new(START)),
        counters: Arc::new(Counters::new()),
        idle: SessionLives::default().idle,
        clock: time.clock(),
        attaching: Mutex::default(),
    }
}

fn gateway(id: &str, incarnation: u128) -> GatewayDescription {
    GatewayDescription {
        id: id.parse().unwrap(),
        incarnation: Incarnation(incarnation),
        addresses: vec!["192.0.2.1:7777".parse().unwrap()],
        server_name: "gateway".to_owned(),
        certificate_sha256: vec![[7; 32]],
        capacity: 10,
    }
}

fn seat(session: SessionId) -> LiveSeat {
    LiveSeat {
        session,
        player: PlayerId(1),
        player_generation: PlayerGeneration(0),
    }
}

async fn login(store: &MemoryStore, name: &str) -> (SessionId, PlayerId) {
    let identity = Identity {
        provider: "dev".to_owned(),
        subject: name.to_owned(),
    };
    let new = NewSession {
        identity,
        method: "dev".to_owned(),
        at: START,
        ends_at: START.after(SessionLives::default().absolute),
    };
    let Started { found, .. } = store.start_session(new).await.unwrap();
    (found.session.id, found.player.id)
}

async fn active_at(store: &MemoryStore, session: SessionId) -> Timestamp {
    let found = store.session(session).await.unwrap().unwrap();
    found.session.active_at
}

fn refused(session: Option<SessionId>, token: Option<[u8; 32]>) -> GatewayEvent {
    let (reason, code) = ("token_used".into(), 0x23);
    GatewayEvent {
        at: START,
        kind: GatewayEventKind::Refused { reason, code },
        session,
        token_sha256: token,
        remote: None,
    }
}

#[tokio::test]
async fn a_fenced_process_stays_out_also_after_a_restart_of_the_sidecar() {
    let world = world(SessionLives::default());
    let before = host(&world.store, &world.time);
    let older = before.attach(&gateway("eu", 1), &[], &[]).await.unwrap();
    before.attach(&gateway("eu", 2), &[], &[]).await.unwrap();
    before.fenced(older).await;
    let again = before.attach(&gateway("eu", 1), &[], &[]).await;
    assert_eq!(again, Err(AttachRefusal::Fenced));
    assert_eq!(before.registry.list().len(), 1, "the newer one stays");

    let after = host(&world.store, &world.time);
    let again = after.attach(&gateway("eu", 1), &[], &[]).await;
    assert_eq!(again, Err(AttachRefusal::Fenced));
    after.attach(&gateway("eu", 2), &[], &[]).await.unwrap();
    after.attach(&gateway("us", 1), &[], &[]).await.unwrap();
}

#[tokio::test]
async fn activity_counts_for_sessions_that_were_minted_to_the_gateway() {
    let world = world(SessionLives::default());
    let (store, host) = (&world.store, host(&world.store, &world.time));
    let eu = gateway("eu", 1);
    let (granted, _) = login(store, "ada").await;
    let (foreign, _) = login(store, "eve").await;
    store.grant(granted, eu.id.clone()).await.unwrap();
    store.grant(foreign, "us".parse().unwrap()).await.unwrap();
    // Neither a list at attach nor a report makes a seat of what was not minted to it.
    let id = host.attach(&eu, &[seat(foreign)], &[]).await.unwrap();
    assert_eq!(host.registry.seats_of(foreign), []);
    world.time.advance(Duration::from_secs(60));
    let now = world.time.clock().wall();
    let report = SeatReport {
        opened: vec![seat(granted), seat(foreign)],
        active: vec![granted, foreign],
        seats: 2,
        ..SeatReport::default()
    };
    host.report(id, report).await;
    assert_eq!(host.registry.seats_of(granted), ["eu".parse().unwrap()]);
    assert_eq!(host.registry.seats_of(foreign), []);
    assert_eq!(active_at(store, granted).await, now);
    assert_eq!(active_at(store, foreign).await, START);
    let counted = (
        host.counters.activity_rejected.read(),
        host.counters.seats_rejected.read(),
    );
    assert_eq!(counted, (1, 2));
    // What was active and left in one go was active.
    world.time.advance(Duration::from_secs(60));
    let now = world.time.clock().wall();
    let report = SeatReport {
        closed: vec![granted],
        ..SeatReport::default()
    };
    host.report(id, report).await;
    let report = SeatReport {
        active: vec![granted],
        ..SeatReport::default()
    };
    host.report(id, report).await;
    assert_eq!(active_at(store, granted).await, now);
}

#[tokio::test]
async fn activity_on_one_gateway_is_told_to_another() {
    let world = world(SessionLives::default());
    let host = host(&world.store, &world.time);
    let (session, _) = login(&world.store, "ada").await;
    let mut ids = Vec::new();
    for name in ["eu", "us"] {
        let gateway = gateway(name, 1);
        world
            .store
            .grant(session, gateway.id.clone())
            .await
            .unwrap();
        ids.push(host.attach(&gateway, &[seat(session)], &[]).await.unwrap());
    }
    let report = SeatReport {
        active: vec![session],
        ..SeatReport::default()
    };
    host.report(ids[0], report).await;
    host.orders_ready(ids[1]).notified().await;
    assert_eq!(host.take_orders(ids[1]).idle_moved, [(session, START)]);
    assert_eq!(host.take_orders(ids[0]).idle_moved, []);
}

#[tokio::test]
async fn activity_elsewhere_that_a_broken_stream_lost_is_told_on_the_next_one() {
    let world = world(SessionLives::default());
    let (store, time) = (&world.store, &world.time);
    let host = host(store, time);
    let (session, _) = login(store, "ada").await;
    let (stays, _) = login(store, "bob").await;
    let [eu, us] = ["eu", "us"].map(|name| gateway(name, 1));
    for (session, gateway) in [(session, &eu), (session, &us), (stays, &us)] {
        store.grant(session, gateway.id.clone()).await.unwrap();
    }
    let seats = [seat(session), seat(stays)];
    let playing = host.attach(&eu, &seats[..1], &[]).await.unwrap();
    let broken = host.attach(&us, &seats, &[]).await.unwrap();
    time.advance(Duration::from_secs(1_800));
    let active = |session| SeatReport {
        active: vec![session],
        ..SeatReport::default()
    };
    host.report(playing, active(session)).await;
    host.report(broken, active(stays)).await;
    let at = time.clock().wall();
    // Taken from the registry, and gone with the stream.
    assert_eq!(host.take_orders(broken).idle_moved, [(session, at)]);
    host.detach(broken);

    time.advance(Duration::from_secs(1));
    let again = host.attach(&us, &seats, &[]).await.unwrap();
    host.orders_ready(again).notified().await;
    // Who was on no other gateway was active on none.
    assert_eq!(host.take_orders(again).idle_moved, [(session, at)]);
    // Nor does a restart of the sidecar lose it.
    let host = self::host(store, time);
    let again = host.attach(&us, &seats, &[]).await.unwrap();
    assert_eq!(host.take_orders(again).idle_moved, [(session, at)]);
}

#[tokio::test]
async fn activity_at_another_sidecars_gateway_is_heard_in_the_next_round() {
    let world = world(SessionLives::default());
    let (store, time) = (&world.store, &world.time);
    let [here, there] = [host(store, time), host(store, time)];
    let (session, _) = login(store, "ada").await;
    let (alone, _) = login(store, "bob").await;
    let [eu, us] = ["eu", "us"].map(|name| gateway(name, 1));
    for (session, gateway) in [(session, &eu), (session, &us), (alone, &us)] {
        store.grant(session, gateway.id.clone()).await.unwrap();
    }
    let playing = there.attach(&eu, &[seat(session)], &[]).await.unwrap();
    let quiet = here
        .attach(&us, &[seat(session), seat(alone)], &[])
        .await
        .unwrap();
    drop(here.take_orders(quiet));
    time.advance(Duration::from_secs(1_800));
    let active = SeatReport {
        active: vec![session],
        ..SeatReport::default()
    };
    there.report(playing, active).await;
    assert!(here.take_orders(quiet).idle_moved.is_empty());
    go_round(&here.registry, &**store).await.unwrap();
    let at = time.clock().wall();
    here.orders_ready(quiet).notified().await;
    assert_eq!(here.take_orders(quiet).idle_moved, [(session, at)]);
    // Whose stream has ended is asked for no more.
    here.detach(quiet);
    go_round(&here.registry, &**store).await.unwrap();
    assert!(here.registry.attachments().is_empty());
}

#[tokio::test]
async fn events_find_their_player_by_session_or_token() {
    let world = world(SessionLives::default());
    let (store, host) = (&world.store, host(&world.store, &world.time));
    let eu = gateway("eu", 1);
    let (session, player) = login(store, "ada").await;
    store.grant(session, eu.id.clone()).await.unwrap();
    let (foreign, other) = login(store, "eve").await;
    let id = host.attach(&eu, &[seat(session)], &[]).await.unwrap();
    // A token for another gateway: what opened nothing is known by its hash.
    let us = "us".parse().unwrap();
    host.explain
        .minted(foreign, other, &us, [9; 32], START, START);
    let suspended = GatewayEvent {
        kind: GatewayEventKind::Suspended,
        ..refused(Some(session), None)
    };
    let report = SeatReport {
        events: vec![
            // The sidecar has not heard of this session since it started; the store knows whose it is.
            suspended,
            refused(None, Some([9; 32])),
            // A session that was never minted to it, and one that there never was.
            refused(Some(foreign), None),
            refused(Some(SessionId(99)), None),
        ],
        events_lost: 4,
        ..SeatReport::default()
    };
    host.report(id, report).await;
    let kinds = |player| {
        let history = host.explain.player(player).unwrap();
        let events = history.events.into_iter();
        events.map(|event| event.kind.label()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(player), ["suspended"]);
    assert_eq!(kinds(other), ["token_minted", "refused"]);
    let door = host.explain.gateway(&eu.id).unwrap();
    assert_eq!((door.refusals.len(), door.forgotten), (2, 4));
    assert_eq!(door.refusals[0].event.session, None);
}
