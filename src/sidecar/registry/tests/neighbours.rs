//! Gateways that are attached to other sidecars, and keys that all of them are told.

use super::*;

fn elsewhere(id: &str, capacity: u32, seats: u32, acknowledged: u64) -> PublishedGateway {
    PublishedGateway {
        description: gateway(id, 9, capacity),
        seats,
        draining: false,
        acknowledged: Revision(acknowledged),
        keys: Arc::default(),
        elsewhere: true,
    }
}

#[test]
fn tokens_go_to_the_gateways_of_other_sidecars_too() {
    let registry = Registry::new(Clock::system());
    let chosen = |target: &Target| {
        registry
            .choose(target)
            .map(|found| found.description.id.to_string())
    };
    let (eu, us) = ("eu".to_owned(), "us".to_owned());
    registry.hear_of(vec![elsewhere("us", 10, 0, 0)]);
    assert_eq!(
        chosen(&Target::Any),
        Ok(us.clone()),
        "none is attached here"
    );
    // What is minted counts at once, until a fresh count has come.
    registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    for expected in [&eu, &eu, &us, &eu] {
        assert_eq!(chosen(&Target::Any).as_ref(), Ok(expected));
        if expected == &us {
            registry.hear_of(vec![elsewhere("us", 10, 3, 0)]);
        }
    }
    let by_id = Target::Gateway("us".parse().unwrap());
    assert_eq!(chosen(&by_id), Ok(us));
    // Our own word on what is published counts for nothing here, and of a gateway that is here as well, ours.
    let own = PublishedGateway {
        elsewhere: false,
        ..elsewhere("ap", 10, 0, 0)
    };
    let stale = PublishedGateway {
        draining: true,
        ..elsewhere("eu", 10, 0, 0)
    };
    registry.hear_of(vec![own, stale]);
    assert_eq!(chosen(&Target::Any), Ok(eu));
    assert_eq!(chosen(&by_id), Err(NotFound::NotThat));
    let draining = PublishedGateway {
        draining: true,
        ..elsewhere("us", 10, 0, 0)
    };
    registry.hear_of(vec![draining]);
    assert_eq!(chosen(&by_id), Err(NotFound::Draining));
}

#[tokio::test]
async fn a_wait_is_for_the_gateways_of_other_sidecars_too() {
    let registry = Arc::new(Registry::new(Clock::system()));
    registry.hear_of(vec![elsewhere("us", 10, 0, 2)]);
    let waiting = {
        let registry = Arc::clone(&registry);
        let patience = Duration::from_secs(5);
        tokio::spawn(async move { registry.acknowledged_by_all(Revision(3), patience).await })
    };
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    registry.hear_of(vec![elsewhere("us", 10, 0, 3)]);
    assert!(waiting.await.unwrap());
}

#[test]
fn what_is_published_is_what_is_attached_and_an_evicted_stream_ends() {
    let registry = Registry::new(Clock::system());
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    registry.acknowledged(eu, Revision(5));
    registry.hear(eu, heartbeat(4));
    let published = PublishedGateway {
        description: gateway("eu", 1, 10),
        seats: 4,
        draining: false,
        acknowledged: Revision(5),
        keys: Arc::default(),
        elsewhere: false,
    };
    assert_eq!(registry.to_publish(), [(eu, published)]);
    registry.evict(eu);
    assert!(is_fenced(&registry, eu));
    assert_eq!(registry.to_publish(), []);
}

#[test]
fn what_a_gateway_holds_goes_with_its_tokens_and_to_other_sidecars() {
    let key = |n| TransportMasterKey::from_bytes(&[n; 32]).id();
    let registry = Registry::new(Clock::system());
    let eu = registry
        .attach_holding(&gateway("eu", 1, 10), &[], &[key(1)])
        .unwrap();
    let held = || registry.choose(&Target::Any).unwrap().keys.to_vec();
    assert_eq!(held(), [key(1)]);
    let mut changes = registry.changes();
    changes.mark_unchanged();
    registry.keys_held(eu, vec![key(1), key(2)]);
    assert!(changes.has_changed().unwrap(), "the others hear of it");
    assert_eq!(held(), [key(1), key(2)]);
    assert_eq!(*registry.to_publish()[0].1.keys, [key(1), key(2)]);
    let us = PublishedGateway {
        keys: vec![key(3)].into(),
        ..elsewhere("us", 10, 0, 0)
    };
    registry.hear_of(vec![us]);
    let holders = registry.key_holders();
    let holders: Vec<_> = holders
        .iter()
        .map(|holder| (holder.gateway.as_str(), holder.keys.to_vec()))
        .collect();
    assert_eq!(
        holders,
        [("eu", vec![key(1), key(2)]), ("us", vec![key(3)])]
    );
    // A stream that has ended says nothing any more.
    registry.detach(eu);
    registry.keys_held(eu, vec![key(9)]);
    assert_eq!(registry.key_holders().len(), 1);
}

#[tokio::test]
async fn every_gateway_is_told_its_keys_once_after_a_change() {
    let registry = Registry::new(Clock::system());
    let eu = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert_eq!(registry.take_key_order(eu), None, "the answer brings them");
    registry.renew_keys();
    registry.orders_ready(eu).notified().await;
    let process = ("eu".parse().unwrap(), Incarnation(1));
    assert_eq!(registry.take_key_order(eu), Some(process));
    assert_eq!(registry.take_key_order(eu), None);
    registry.renew_keys();
    // A new stream is answered with the new ones.
    let again = registry.attach(&gateway("eu", 1, 10), &[]).unwrap();
    assert_eq!(registry.take_key_order(eu), None);
    assert_eq!(registry.take_key_order(again), None);
}
