//! Attaching, reporting, choosing, ordering and waiting.

mod neighbours;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use crate::{
    clock::{Clock, ManualTime, Timestamp},
    control::{
        AttachmentId, Drain, GatewayDescription, LiveSeat, Orders, SILENCE_LIMIT, SeatReport,
    },
    id::{GatewayId, Incarnation, PlayerGeneration, PlayerId, Revision, SessionId},
    store::PublishedGateway,
    token::TransportMasterKey,
};

use super::{Arrival, NotFound, Registry, Reported, Target, Totals};

const NOW: Timestamp = Timestamp(1_000);

impl Registry {
    /// A report in which nothing is foreign.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "tests hand over what they made"
    )]
    fn hear(&self, id: AttachmentId, report: SeatReport) -> Vec<SessionId> {
        self.report(id, &report, &HashSet::new(), NOW).active
    }

    fn known_seats(&self) -> usize {
        self.state().seats.known()
    }
}

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
fn a_newer_process_ends_the_older_ones_stream() {
    let registry = Registry::new(Clock::system());
    let older = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert!(!is_fenced(&registry, older));
    let newer = registry.attach(&gateway("eu", 2, 10), &[]).unwrap();
    assert!(is_fenced(&registry, older));
    assert!(!is_fenced(&registry, newer));
    // The late end of the older stream takes nothing from the newer one.
    registry.detach(older);
    assert_eq!(registry.list().len(), 1);
    assert!(!is_fenced(&registry, newer));
    registry.detach(newer);
    assert!(registry.list().is_empty());
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
fn what_is_foreign_does_not_count() {
    let registry = Registry::new(Clock::system());
    let eu = registry
        .attach(&gateway("eu", 1, 2), &[SessionId(1)])
        .unwrap();
    // Of a seat that is known nobody has to be asked.
    let mut report = activity(&[1, 2, 3]);
    report.opened = vec![seat(3), seat(4)];
    let (whose, strangers) = registry.strangers(eu, &report).unwrap();
    assert_eq!(whose.as_str(), "eu");
    assert_eq!(strangers, HashSet::from([2, 3, 4].map(SessionId)));
    let foreign = HashSet::from([2, 4].map(SessionId));
    let reported = registry.report(eu, &report, &foreign, NOW);
    let expected = Reported {
        active: vec![SessionId(1), SessionId(3)],
        active_rejected: 1,
        seats_rejected: 1,
    };
    assert_eq!(reported, expected);
    assert_eq!(registry.seats_of(SessionId(3)), ["eu".parse().unwrap()]);
    assert_eq!(registry.seats_of(SessionId(4)), []);
    // Whoever is not attached any more has nothing to say.
    registry.detach(eu);
    assert_eq!(registry.strangers(eu, &report), None);
    assert_eq!(registry.hear(eu, activity(&[1])), []);
    assert_eq!(registry.known_seats(), 0);
}

#[test]
fn never_more_seats_are_known_than_a_gateway_has() {
    let registry = Registry::new(Clock::system());
    let eu = registry
        .attach(&gateway("eu", 1, 2), &[SessionId(1)])
        .unwrap();
    // What a seat did before it ended counts; and what has no room is not forgotten: the store vouches for its activity.
    let mut report = activity(&[1, 2, 3, 4]);
    report.closed = vec![SessionId(1)];
    report.opened = vec![seat(2), seat(3), seat(4)];
    assert_eq!(registry.hear(eu, report), [1, 2, 3, 4].map(SessionId));
    assert_eq!(registry.known_seats(), 2);
    let (_, strangers) = registry.strangers(eu, &activity(&[2, 4])).unwrap();
    assert_eq!(strangers, HashSet::from([SessionId(4)]));
    // One that is in both lists left and came back.
    let report = SeatReport {
        closed: vec![SessionId(2)],
        opened: vec![seat(2)],
        ..SeatReport::default()
    };
    registry.hear(eu, report);
    assert_eq!(registry.seats_of(SessionId(2)).len(), 1);
    assert_eq!(registry.known_seats(), 2);
}

#[test]
fn activity_moves_the_idle_deadline_on_every_other_gateway() {
    let registry = Registry::new(Clock::system());
    let both = [SessionId(1), SessionId(2)];
    let eu = registry.attach(&gateway("eu", 1, 9), &both).unwrap();
    let us = registry.attach(&gateway("us", 1, 9), &both).unwrap();
    let asia = registry
        .attach(&gateway("asia", 1, 9), &[SessionId(3)])
        .unwrap();
    let ready = |id| {
        use futures_util::FutureExt;
        let orders = registry.orders_ready(id);
        let notified = orders.notified().now_or_never();
        notified.is_some()
    };
    registry.hear(eu, activity(&[1, 2, 3]));
    // The newest counts, whoever says it last.
    let nobody = HashSet::new();
    registry.report(eu, &activity(&[1]), &nobody, Timestamp(3_000));
    registry.report(eu, &activity(&[1]), &nobody, Timestamp(2_000));
    assert!(!ready(eu), "its own activity it knows");
    assert!(ready(us));
    assert!(ready(asia));
    let mut moved = registry.take_orders(us).idle_moved;
    moved.sort();
    let expected = [(SessionId(1), Timestamp(3_000)), (SessionId(2), NOW)];
    assert_eq!(moved, expected);
    assert_eq!(registry.take_orders(us), Orders::default(), "told once");
    assert_eq!(registry.take_orders(asia).idle_moved, [(SessionId(3), NOW)]);
    // A seat that has gone is not told about.
    registry.hear(eu, activity(&[2]));
    let left = SeatReport {
        closed: vec![SessionId(2)],
        ..SeatReport::default()
    };
    registry.hear(us, left);
    assert_eq!(registry.take_orders(us).idle_moved, []);
    assert_eq!(registry.take_orders(eu).idle_moved, []);
}

#[test]
fn a_gateway_that_drains_gets_no_tokens() {
    let registry = Registry::new(Clock::system());
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    let mut us = gateway("us", 1, 10);
    us.addresses = vec!["192.0.2.2:7777".parse().unwrap()];
    let us = registry.attach(&us, &[]).unwrap();
    let id: GatewayId = "eu".parse().unwrap();
    let by_id = Target::Gateway(id.clone());
    let by_address = Target::Address("192.0.2.1:7777".parse().unwrap());
    let draining = |seats| SeatReport {
        draining: true,
        ..heartbeat(seats)
    };
    // By its own word.
    registry.hear(eu, draining(3));
    assert_eq!(registry.choose(&by_id), Err(NotFound::Draining));
    assert_eq!(registry.choose(&by_address), Err(NotFound::Draining));
    assert_eq!(
        registry
            .choose(&Target::Any)
            .unwrap()
            .description
            .id
            .as_str(),
        "us"
    );
    assert!(registry.list()[0].draining && !registry.list()[1].draining);
    registry.hear(us, draining(0));
    assert_eq!(registry.choose(&Target::Any), Err(NotFound::Draining));
    registry.hear(eu, heartbeat(3));
    registry.hear(us, heartbeat(0));
    assert!(registry.choose(&by_id).is_ok());
    // By an order, from that instant on, though the gateway still says otherwise.
    let order = Drain::Within(Duration::from_secs(60));
    assert_eq!(registry.drain(&id, order), Ok(3));
    assert_eq!(registry.choose(&by_id), Err(NotFound::Draining));
    registry.hear(eu, heartbeat(3));
    assert_eq!(registry.choose(&by_id), Err(NotFound::Draining));
    let unknown = "asia".parse().unwrap();
    assert_eq!(registry.drain(&unknown, order), Err(NotFound::NotThat));
    assert_eq!(registry.totals().draining, 1);
}

#[test]
fn an_order_is_told_until_its_gateway_says_that_it_is_so() {
    let time = ManualTime::starting_at(Timestamp(0));
    let registry = Registry::new(time.clock());
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    let id: GatewayId = "eu".parse().unwrap();
    let minute = Duration::from_secs(60);
    registry.drain(&id, Drain::Within(minute)).unwrap();
    let taken = |attachment| registry.take_orders(attachment).drain;
    assert_eq!(taken(eu), Some(Drain::Within(minute)));
    assert_eq!(taken(eu), None);
    // The stream breaks before the gateway has said that it drains: the next one brings what is left of the time.
    registry.hear(eu, heartbeat(0));
    registry.detach(eu);
    assert_eq!(registry.drain(&id, Drain::Cancel), Err(NotFound::Away));
    time.advance(Duration::from_secs(10));
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    let left = Drain::Within(Duration::from_secs(50));
    assert_eq!(taken(eu), Some(left));
    let mut draining = heartbeat(0);
    draining.draining = true;
    time.advance(SILENCE_LIMIT);
    registry.hear(eu, draining.clone());
    registry.detach(eu);
    // It knows now, and says so by itself.
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert_eq!(taken(eu), None);
    registry.hear(eu, draining.clone());
    // Ordered to be through with it at another time, it drains as before: what it says at once may be of before the order.
    registry.drain(&id, Drain::Within(2 * minute)).unwrap();
    assert_eq!(taken(eu), Some(Drain::Within(2 * minute)));
    registry.hear(eu, draining.clone());
    registry.detach(eu);
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert_eq!(taken(eu), Some(Drain::Within(2 * minute)));
    time.advance(SILENCE_LIMIT);
    registry.hear(eu, draining.clone());
    registry.detach(eu);
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert_eq!(taken(eu), None);
    // To admit again is not so before the gateway says it.
    registry.drain(&id, Drain::Cancel).unwrap();
    registry.hear(eu, draining);
    assert_eq!(taken(eu), Some(Drain::Cancel));
    let by_id = Target::Gateway(id.clone());
    assert_eq!(registry.choose(&by_id), Err(NotFound::Draining));
    registry.hear(eu, heartbeat(0));
    assert!(registry.choose(&by_id).is_ok());
    // Its successor was started for a reason: an order is for one process.
    registry.drain(&id, Drain::Within(minute)).unwrap();
    let eu = registry.attach(&gateway("eu", 2, 10), &[]).unwrap();
    assert_eq!(taken(eu), None);
    assert!(registry.choose(&by_id).is_ok());
}

#[test]
fn new_certificates_are_in_the_next_ticket() {
    let registry = Registry::new(Clock::system());
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    let mut report = heartbeat(0);
    report.certificate_sha256 = Some(vec![[7; 32], [8; 32]]);
    registry.hear(eu, report);
    registry.hear(eu, heartbeat(0));
    let chosen = registry.choose(&Target::Any).unwrap().description;
    assert_eq!(chosen.certificate_sha256, [[7; 32], [8; 32]]);
}

#[test]
fn it_is_known_where_a_revision_has_arrived() {
    let registry = Registry::new(Clock::system());
    assert_eq!(registry.totals(), Totals::default());
    let eu = registry
        .attach(&gateway("eu", 1, 10), &[SessionId(1)])
        .unwrap();
    let us = registry.attach(&gateway("us", 1, 10), &[]).unwrap();
    registry.acknowledged(eu, Revision(5));
    registry.acknowledged(us, Revision(3));
    let arrival = registry.arrival(Revision(4));
    let expected = Arrival {
        arrived: vec!["eu".parse().unwrap()],
        outstanding: vec!["us".parse().unwrap()],
    };
    assert_eq!(arrival, expected);
    let totals = registry.totals();
    assert_eq!((totals.attached, totals.seats), (2, 1));
    assert_eq!(totals.acknowledged, Some(Revision(3)));
}

/// How the gateway's end of the control channel sends a report: both lists from their ends, so much a message.
fn messages(mut report: SeatReport, at_most: usize) -> Vec<SeatReport> {
    let mut messages = Vec::new();
    while !(report.opened.is_empty() && report.closed.is_empty()) {
        let rest = report.opened.len().saturating_sub(at_most);
        let opened = report.opened.split_off(rest);
        let rest = report.closed.len().saturating_sub(at_most);
        let closed = report.closed.split_off(rest);
        messages.push(SeatReport {
            opened,
            closed,
            ..SeatReport::default()
        });
    }
    messages
}

proptest! {
    /// Whatever comes and goes, and however reports are cut into messages, the registry ends up with the seats that there are: a
    /// session that is told opened later than closed stays.
    #[test]
    fn seats_are_known_however_reports_are_split(
        ticks in prop::collection::vec(prop::collection::vec((0..12_u128, any::<bool>()), 0..16), 1..12),
        at_most in 1..5_usize,
    ) {
        let registry = Registry::new(Clock::system());
        let eu = registry.attach(&gateway("eu", 1, 12), &[]).unwrap();
        let mut truth: BTreeSet<u128> = BTreeSet::new();
        for changes in ticks {
            let mut changed: BTreeSet<u128> = BTreeSet::new();
            for (session, opens) in changes {
                if opens { truth.insert(session); } else { truth.remove(&session); }
                changed.insert(session);
            }
            // Each session that changed stands in the list that says how it is now, also if that is known.
            let (opened, closed): (Vec<_>, Vec<_>) =
                changed.into_iter().partition(|session| truth.contains(session));
            let report = SeatReport {
                opened: opened.into_iter().map(seat).collect(),
                closed: closed.into_iter().map(SessionId).collect(),
                ..SeatReport::default()
            };
            for message in messages(report, at_most) {
                registry.hear(eu, message);
            }
        }
        let known: BTreeSet<u128> = (0..12)
            .filter(|session| !registry.seats_of(SessionId(*session)).is_empty())
            .collect();
        prop_assert_eq!(known, truth.clone());
        prop_assert_eq!(registry.known_seats(), truth.len());
    }
}

#[test]
fn tokens_go_where_there_is_room() {
    let registry = Registry::new(Clock::system());
    assert_eq!(registry.choose(&Target::Any), Err(NotFound::Nothing));
    let small = registry.attach(&gateway("a", 1, 10), &[]).unwrap();
    let mut large = gateway("b", 1, 100);
    large.addresses = vec!["192.0.2.2:7777".parse().unwrap()];
    let large = registry.attach(&large, &[]).unwrap();
    registry.hear(small, heartbeat(5));
    registry.hear(large, heartbeat(40));
    let chosen = |target: &Target| {
        registry
            .choose(target)
            .map(|found| found.description.id.to_string())
    };
    // 5 of 10 against 40 of 100: a burst goes to the larger one until it is as full, each token counted at once.
    for _ in 0..10 {
        assert_eq!(chosen(&Target::Any).unwrap(), "b");
    }
    assert_eq!(chosen(&Target::Any).unwrap(), "a", "a tie goes by id");
    assert_eq!(chosen(&Target::Any).unwrap(), "b");
    // The next count says how it really is.
    registry.hear(large, heartbeat(40));
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
    assert!(nobody, "nobody has to: no gateway was ever attached");
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
    let full = registry
        .attach(&gateway("eu", 1, 10), &[SessionId(1)])
        .unwrap();
    let empty = registry.attach(&gateway("us", 1, 10), &[]).unwrap();
    registry.detach(empty);
    registry.detach(full);
    assert!(!registry.acknowledged_by_all(Revision(3), patience).await);
    // Back again, with the log.
    let full = registry
        .attach(&gateway("eu", 1, 10), &[SessionId(1)])
        .unwrap();
    registry.acknowledged(full, Revision(3));
    assert!(registry.acknowledged_by_all(Revision(3), patience).await);
    // Gone for longer than that: nobody knows whether it comes back.
    registry.detach(full);
    time.advance(Duration::from_secs(6));
    assert!(registry.acknowledged_by_all(Revision(4), patience).await);
}

/// A revocation right after a restart was told to be acknowledged by all, of which none had attached again yet.
#[tokio::test]
async fn after_a_restart_gateways_are_given_time_to_attach_again() {
    let time = ManualTime::starting_at(Timestamp(0));
    let registry = Registry::after_restart(time.clock());
    let wait = |milliseconds| {
        registry.acknowledged_by_all(Revision(3), Duration::from_millis(milliseconds))
    };
    assert!(!wait(10).await, "nobody knows who there is");
    let eu = registry
        .attach(&gateway("eu", 1, 10), &[SessionId(1)])
        .unwrap();
    registry.acknowledged(eu, Revision(3));
    assert!(!wait(10).await, "nor whether that was all");
    time.advance(Duration::from_millis(4_990));
    // One that comes in time is waited for.
    let (outcome, us) = tokio::join!(wait(500), async {
        registry
            .attach(&gateway("us", 1, 10), &[SessionId(2)])
            .unwrap()
    });
    assert!(!outcome);
    registry.acknowledged(us, Revision(3));
    assert!(wait(5_000).await);
    // Then all are known that there are.
    time.advance(Duration::from_secs(5));
    assert!(wait(0).await);
}
