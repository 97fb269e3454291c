//! Two sidecars on one server.

use super::*;
use crate::{
    control::Revocation,
    id::{Incarnation, PlayerGeneration, Revision},
    store::{
        EndedBy, Fencing, Publication, PublishedGateway, RefreshClaim, Refreshed,
        conformance::{START, published},
    },
};

fn claim(session: SessionId, generation: u32) -> RefreshClaim {
    RefreshClaim {
        session,
        generation,
        player_generation: PlayerGeneration(0),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_at_one_is_heard_at_the_other() {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let mut head = b.watch_head();
    let mut expected = Vec::new();
    for n in 1..=100 {
        let found = log_in(&*a, &n.to_string()).await;
        expected.push(if n % 3 == 0 {
            a.revoke_player(found.player.id, START).await.unwrap();
            Revocation::Player(found.player.id, PlayerGeneration(1))
        } else {
            a.revoke_session(found.session.id, START).await.unwrap();
            Revocation::Session(found.session.id)
        });
        let heard = head.wait_for(|head| *head == Revision(n));
        let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
        heard.expect("not heard").unwrap();
    }
    for store in [&a, &b] {
        let range = store.log_after(Revision(0), 1_000).await.unwrap().unwrap();
        assert_eq!(range.events, expected);
    }
    // One that comes later reads what it has not heard.
    let c = open(&server, &Clock::system()).await;
    assert_eq!(*c.watch_head().borrow(), Revision(100));
    let range = c.log_after(Revision(40), 1_000).await.unwrap().unwrap();
    assert_eq!(range.events, expected[40..]);
    assert_eq!(
        c.log_state().await.unwrap(),
        a.log_state().await.unwrap(),
        "one log, of one lineage"
    );
}

/// By the callers' times the second one would be reuse, an hour after the grace, or years before the session was made.
#[tokio::test]
async fn the_servers_clock_alone_says_how_long_ago_it_was() {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let id = new_session(&a, "ada").await;
    let now = Clock::system().wall();
    let made = match a.refresh(claim(id, 0), now).await.unwrap() {
        Refreshed::Rotated(successor) => successor,
        other => panic!("{other:?}"),
    };
    assert!(made.issued_at.since(now) < HOUR / 2 && now.since(made.issued_at) < HOUR / 2);
    for at in [now.after(HOUR), now.before(HOUR), Timestamp(0)] {
        let again = b.refresh(claim(id, 0), at).await.unwrap();
        assert_eq!(again, Refreshed::Again(made.clone()));
    }
    // And a session is over when the server says so.
    let short = a.start_session(living("bob", Duration::from_millis(200)));
    let short = short.await.unwrap().found.session;
    assert_eq!(
        short.ends_at,
        short.created_at.after(Duration::from_millis(200))
    );
    let ended = soon(|| async {
        match b.dead_among(vec![short.id], Timestamp(0)).await.unwrap() {
            dead if dead.is_empty() => None,
            dead => Some(dead),
        }
    });
    assert_eq!(ended.await, [short.id]);
    let refused = b
        .refresh(claim(short.id, 0), short.created_at)
        .await
        .unwrap();
    assert_eq!(refused, Refreshed::Ended(Some(EndedBy::AbsoluteEnd)));
    // Long after every margin, by the caller's clock; by the server's a moment later.
    let purged = b.purge(now.after(HOUR * 1_000)).await.unwrap();
    assert_eq!(purged.sessions, 0);
}

#[tokio::test]
async fn a_sidecars_clock_is_put_on_the_servers_time() {
    let server = Server::start();
    let skewed = Clock::new(Ahead(HOUR));
    let _store = open(&server, &skewed).await;
    let told = server.cli(&["TIME"]);
    let seconds: u64 = told.lines().next().unwrap().trim().parse().unwrap();
    let off = skewed.wall().0.abs_diff(seconds * 1_000);
    assert!(off < 30_000, "{off} ms from the server's time");
}

#[tokio::test]
async fn activity_told_to_one_is_known_to_the_other() {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let id = new_session(&a, "ada").await;
    let before = b.session(id).await.unwrap().unwrap().session.active_at;
    let at = before.after(Duration::from_millis(1));
    soon(|| async { (Clock::system().wall() > at).then_some(()) }).await;
    a.note_activity(&[id], at);
    let heard = soon(|| async {
        let active_at = b.session(id).await.unwrap().unwrap().session.active_at;
        (active_at != before).then_some(active_at)
    });
    assert_eq!(heard.await, at);
    // A sidecar whose clock is ahead keeps nobody alive in advance.
    a.note_activity(&[id], at.after(HOUR * 10));
    a.close().await.unwrap();
    let found = b.session(id).await.unwrap().unwrap();
    assert!(found.session.active_at < at.after(HOUR));
}

#[tokio::test]
async fn any_sidecar_knows_the_gateways_of_the_others() {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let lease = Duration::from_secs(60);
    let here = |seats| published(1, 1, seats);
    let there = |seats| PublishedGateway {
        elsewhere: true,
        ..published(1, 1, seats)
    };
    let id = here(0).description.id;
    let attached = a.attach_gateway(id.clone(), Incarnation(1)).await;
    assert_eq!(attached.unwrap(), Fencing::Newest);
    let publish = |store: &Arc<RedisStore>, seats, has_attached| {
        let store = Arc::clone(store);
        async move {
            let gateway = published(1, 1, seats);
            let outcome = store.publish_gateway(gateway, lease, has_attached, START);
            outcome.await.unwrap()
        }
    };
    assert_eq!(publish(&a, 5, true).await, Publication::Published);
    assert_eq!(a.gateways(START).await.unwrap(), [here(5)]);
    assert_eq!(b.gateways(START).await.unwrap(), [there(5)]);
    // Its stream to A broke, and it attached to B: what A still says of it counts no more.
    assert_eq!(publish(&b, 6, true).await, Publication::Published);
    assert_eq!(publish(&a, 5, false).await, Publication::Elsewhere);
    a.withdraw_gateway(id.clone(), Incarnation(1))
        .await
        .unwrap();
    assert_eq!(a.gateways(START).await.unwrap(), [there(6)]);
    // A newer process at A fences it off everywhere.
    let attached = a.attach_gateway(id.clone(), Incarnation(2)).await;
    assert_eq!(attached.unwrap(), Fencing::Newest);
    assert_eq!(publish(&b, 7, false).await, Publication::Fenced);
    let attached = b.attach_gateway(id, Incarnation(1)).await;
    assert_eq!(attached.unwrap(), Fencing::Fenced);
    // A lease runs out by the server's clock.
    let short = Duration::from_millis(50);
    let outcome = a.publish_gateway(published(1, 2, 0), short, true, START);
    assert_eq!(outcome.await.unwrap(), Publication::Published);
    soon(|| async { b.gateways(START).await.unwrap().is_empty().then_some(()) }).await;
}
