//! Attaching, fencing, choosing and waiting.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{Clock, ManualTime, Timestamp},
    control::{AttachRefusal, AttachmentId, GatewayDescription, LiveSeat, SeatReport},
    id::{Incarnation, PlayerGeneration, PlayerId, Revision, SessionId},
};

use super::{NotFound, Registry, Target};

fn gateway(id: &str, incarnation: u128, capacity: u32) -> GatewayDescription {
    GatewayDescription {
        id: id.parse().unwrap(),
        incarnation: Incarnation(incarnation),
        addresses: vec!["192.0.2.1:7777".parse().unwrap()],
        server_name: "gateway".to_owned(),
        certificate_sha256: vec![[7; 32]],
        capacity,
    }
}

fn seat(session: u128) -> LiveSeat {
    LiveSeat {
        session: SessionId(session),
        player: PlayerId(1),
        player_generation: PlayerGeneration(0),
    }
}

fn heartbeat(seats: u32) -> SeatReport {
    SeatReport {
        seats,
        ..SeatReport::default()
    }
}

fn activity(sessions: &[u128]) -> SeatReport {
    SeatReport {
        active: sessions.iter().map(|id| SessionId(*id)).collect(),
        ..SeatReport::default()
    }
}

fn is_fenced(registry: &Registry, id: AttachmentId) -> bool {
    use futures_util::FutureExt;
    registry.fenced(id).now_or_never().is_some()
}

#[test]
fn a_newer_process_fences_off_the_older_one_for_good() {
    let registry = Registry::new(Clock::system());
    let older = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert!(!is_fenced(&registry, older));
    let newer = registry.attach(&gateway("eu", 2, 10), &[]).unwrap();
    assert!(is_fenced(&registry, older));
    assert!(!is_fenced(&registry, newer));
    let again = registry.attach(&gateway("eu", 1, 10), &[]);
    assert_eq!(again, Err(AttachRefusal::Fenced));
    // The late end of the older stream takes nothing from the newer one.
    registry.detach(older);
    assert_eq!(registry.list().len(), 1);
    assert!(!is_fenced(&registry, newer));
    // Not even when the newer one has gone.
    registry.detach(newer);
    assert!(registry.list().is_empty());
    let again = registry.attach(&gateway("eu", 1, 10), &[]);
    assert_eq!(again, Err(AttachRefusal::Fenced));
    // Other gateways are others.
    registry.attach(&gateway("us", 1, 10), &[]).unwrap();
}

#[test]
fn the_same_process_may_attach_again() {
    let registry = Registry::new(Clock::system());
    let first = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    let second = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert!(is_fenced(&registry, first), "its older stream ends");
    registry.detach(second);
    registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert_eq!(registry.list().len(), 1);
}

#[test]
fn activity_counts_only_where_there_is_a_seat() {
    let registry = Registry::new(Clock::system());
    let eu = registry.attach(&gateway("eu", 1, 2), &[seat(1)]).unwrap();
    let us = registry.attach(&gateway("us", 1, 2), &[]).unwrap();
    assert_eq!(registry.report(eu, activity(&[1, 2])), [SessionId(1)]);
    assert_eq!(registry.report(us, activity(&[1, 2])), []);
    // Seats come and go, and never more than the gateway has are known.
    let mut report = activity(&[1, 2, 3, 4]);
    report.closed = vec![SessionId(1)];
    report.opened = vec![seat(2), seat(3), seat(4)];
    let counted = registry.report(eu, report);
    assert_eq!(counted, [SessionId(2), SessionId(3)]);
    // Left and came back.
    let mut report = activity(&[2]);
    report.closed = vec![SessionId(2)];
    report.opened = vec![seat(2)];
    assert_eq!(registry.report(eu, report), [SessionId(2)]);
    assert_eq!(registry.state().known_seats, 2);
    registry.detach(eu);
    assert_eq!(registry.state().known_seats, 0);
    assert_eq!(registry.report(eu, activity(&[2])), []);
}

#[test]
fn tokens_go_where_there_is_room() {
    let registry = Registry::new(Clock::system());
    assert_eq!(registry.choose(&Target::Any), Err(NotFound::Nothing));
    let small = registry.attach(&gateway("a", 1, 10), &[]).unwrap();
    let mut large = gateway("b", 1, 100);
    large.addresses = vec!["192.0.2.2:7777".parse().unwrap()];
    let large = registry.attach(&large, &[]).unwrap();
    registry.report(small, heartbeat(5));
    registry.report(large, heartbeat(40));
    let chosen = |target: &Target| registry.choose(target).map(|g| g.id.to_string());
    // 5 of 10 against 40 of 100: a burst goes to the larger one until it is as full, each token counted at once.
    for _ in 0..10 {
        assert_eq!(chosen(&Target::Any).unwrap(), "b");
    }
    assert_eq!(chosen(&Target::Any).unwrap(), "a", "a tie goes by id");
    assert_eq!(chosen(&Target::Any).unwrap(), "b");
    // The next count says how it really is.
    registry.report(large, heartbeat(40));
    assert_eq!(chosen(&Target::Any).unwrap(), "b");

    let by_address = Target::Address("192.0.2.1:7777".parse().unwrap());
    assert_eq!(chosen(&by_address).unwrap(), "a");
    let by_id = Target::Gateway("b".parse().unwrap());
    assert_eq!(chosen(&by_id).unwrap(), "b");
    // One that was here may come back; one that never was is not there.
    registry.detach(large);
    assert_eq!(registry.choose(&by_id), Err(NotFound::Away));
    let by_address = Target::Address("192.0.2.2:7777".parse().unwrap());
    assert_eq!(registry.choose(&by_address), Err(NotFound::Away));
    for stranger in [
        Target::Gateway("c".parse().unwrap()),
        Target::Address("192.0.2.3:7777".parse().unwrap()),
    ] {
        assert_eq!(registry.choose(&stranger), Err(NotFound::NotThat));
    }
    registry.detach(small);
    assert_eq!(registry.choose(&by_id), Err(NotFound::Nothing));
}

#[tokio::test]
async fn a_wait_ends_when_all_have_acknowledged() {
    let registry = Arc::new(Registry::new(Clock::system()));
    let patience = Duration::from_secs(5);
    let nobody = registry.acknowledged_by_all(Revision(3), patience).await;
    assert!(nobody, "nobody has to");
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    let us = registry.attach(&gateway("us", 1, 10), &[]).unwrap();
    let waiting = {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { registry.acknowledged_by_all(Revision(3), patience).await })
    };
    tokio::task::yield_now().await;
    registry.acknowledged(eu, Revision(3));
    registry.acknowledged(us, Revision(2));
    // One that drops off has not acknowledged; it has when it is back and says so.
    registry.detach(us);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    let us = registry.attach(&gateway("us", 1, 10), &[]).unwrap();
    registry.acknowledged(us, Revision(4));
    assert!(waiting.await.unwrap());
    // An acknowledgement that does not come.
    let patience = Duration::from_millis(10);
    assert!(!registry.acknowledged_by_all(Revision(5), patience).await);
}

#[tokio::test]
async fn a_gateway_that_broke_off_with_seats_is_waited_for_a_while() {
    let time = ManualTime::starting_at(Timestamp(0));
    let registry = Registry::new(time.clock());
    let patience = Duration::from_millis(10);
    let full = registry.attach(&gateway("eu", 1, 10), &[seat(1)]).unwrap();
    let empty = registry.attach(&gateway("us", 1, 10), &[]).unwrap();
    registry.detach(empty);
    registry.detach(full);
    assert!(!registry.acknowledged_by_all(Revision(3), patience).await);
    // Back again, with the log.
    let full = registry.attach(&gateway("eu", 1, 10), &[seat(1)]).unwrap();
    registry.acknowledged(full, Revision(3));
    assert!(registry.acknowledged_by_all(Revision(3), patience).await);
    // Gone for longer than that: nobody knows whether it comes back.
    registry.detach(full);
    time.advance(Duration::from_secs(6));
    assert!(registry.acknowledged_by_all(Revision(4), patience).await);
}
