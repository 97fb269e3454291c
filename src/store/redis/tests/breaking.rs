//! Connections that break, and servers that are killed.

use super::*;
use crate::{
    id::{PlayerGeneration, Revision},
    store::{
        RefreshClaim, Refreshed, SessionRevocation, Standing,
        conformance::{START, published},
    },
};

fn is_passing(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable(_) | StoreError::Unanswered(_)
    )
}

/// What a client of two sidecars was told, until one of them could not answer.
async fn work(store: Arc<RedisStore>, name: usize) -> (Vec<(SessionId, Revision)>, StoreError) {
    let mut told = Vec::new();
    for n in 0.. {
        let step = async {
            let found = store.start_session(living(&format!("{name}-{n}"), LIVES.longest));
            let session = found.await?.found.session;
            let claim = RefreshClaim {
                session: session.id,
                generation: 0,
                player_generation: PlayerGeneration(0),
            };
            let refreshed = store.refresh(claim, START).await?;
            assert!(matches!(refreshed, Refreshed::Rotated(_)), "{refreshed:?}");
            match store.revoke_session(session.id, START).await? {
                SessionRevocation::Ended(revision) => Ok((session.id, revision)),
                other => panic!("{other:?}"),
            }
        };
        match step.await {
            Ok(acknowledged) => told.push(acknowledged),
            Err(error) => return (told, error),
        }
    }
    unreachable!("it ends with the server")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_acknowledged() {
    let mut server = Server::start();
    let stores = [
        open(&server, &Clock::system()).await,
        open(&server, &Clock::system()).await,
    ];
    let mut workers = tokio::task::JoinSet::new();
    for name in 0..16 {
        workers.spawn(work(Arc::clone(&stores[name % 2]), name));
    }
    let mut head = stores[0].watch_head();
    let busy = head.wait_for(|head| *head >= Revision(200));
    tokio::time::timeout(Duration::from_secs(20), busy)
        .await
        .expect("too slow")
        .unwrap();
    server.kill();
    let mut acknowledged = Vec::new();
    for (told, error) in workers.join_all().await {
        assert!(is_passing(&error), "{error}");
        acknowledged.extend(told);
    }
    assert!(acknowledged.len() >= 150, "{}", acknowledged.len());
    server.restart();

    // The same stores go on, by themselves.
    for store in &stores {
        let state = soon(|| async { store.log_state().await.ok() }).await;
        for (id, revision) in &acknowledged {
            let found = store.session(*id).await.unwrap().unwrap();
            assert_eq!(found.revocation(), Some(*revision));
            assert_eq!(found.session.generation, 1);
            assert!(*revision <= state.head);
        }
    }
    let state = stores[0].log_state().await.unwrap();
    let (mut from, mut events) = (Revision(0), 0);
    while from < state.head {
        let range = stores[1].log_after(from, 1_000).await.unwrap().unwrap();
        assert!(range.to > from, "a gap after {from}");
        events += range.events.len() as u64;
        from = range.to;
    }
    assert_eq!(events, state.head.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_told_within_the_deadline() {
    let mut server = Server::start();
    let store = open(&server, &Clock::system()).await;
    let id = new_session(&store, "ada").await;
    server.kill();
    let within = |answer| tokio::time::timeout(Duration::from_secs(5), answer);
    let error = within(store.session(id)).await.expect("late").unwrap_err();
    assert!(is_passing(&error), "{error}");
    let error = within(store.session(id)).await.expect("late").unwrap_err();
    assert_eq!(error.label(), "store_unavailable", "now it is known");
    assert!(!*store.watch_failed().borrow(), "it passes");
    // Nobody waits for activity, whether there is a server or not; what was told meanwhile is written when there is one.
    let at = Clock::system().wall();
    for _ in 0..10_000 {
        store.note_activity(&[id], at);
    }
    server.restart();
    let found = soon(|| async { store.session(id).await.ok() })
        .await
        .unwrap();
    assert_eq!(
        found.standing(Clock::system().wall(), LIVES.idle),
        Standing::Live
    );
    store.close().await.unwrap();
    let other = open(&server, &Clock::system()).await;
    let found = other.session(id).await.unwrap().unwrap();
    assert_eq!(found.session.active_at, at);
}

/// A server that takes what is sent and does not answer, as behind a network that drops packets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_does_not_come_is_told_as_such() {
    let server = Server::start();
    let store = open(&server, &Clock::system()).await;
    let id = new_session(&store, "ada").await;
    server.signal("STOP");
    let asked = tokio::time::timeout(Duration::from_secs(9), store.revoke_session(id, START));
    let error = asked.await.expect("late").unwrap_err();
    server.signal("CONT");
    assert_eq!(error.label(), "store_unanswered");
    // It was done all the same; asking again tells.
    let outcome = soon(|| async { store.revoke_session(id, START).await.ok() }).await;
    assert_eq!(outcome, SessionRevocation::AlreadyEnded(Revision(1)));
}

#[tokio::test]
async fn a_closed_store_is_of_no_more_use_and_leaves_the_server_to_others() {
    let server = Server::start();
    let [a, b] = [
        open(&server, &Clock::system()).await,
        open(&server, &Clock::system()).await,
    ];
    let id = new_session(&a, "ada").await;
    a.close().await.unwrap();
    assert_eq!(a.session(id).await.unwrap_err().label(), "store_closed");
    let published = a.publish_gateway(published(1, 1, 0), LIVES.idle, true, START);
    assert_eq!(published.await.unwrap_err().label(), "store_closed");
    assert!(b.session(id).await.unwrap().is_some());
}
