//! The log's lineage: whatever may have been lost, no gateway takes what follows for the continuation of what it knows.

use super::*;
use crate::{control::LogState, id::Revision, store::conformance::START};

async fn revoke(store: &RedisStore, subject: &str) {
    let id = new_session(store, subject).await;
    store.revoke_session(id, START).await.unwrap();
}

/// Waits until the store has found another log than `before`, whose watch must have ended by then.
async fn another(store: &RedisStore, before: LogState) -> LogState {
    soon(|| async {
        let state = store.log_state().await.ok()?;
        let is_known = store.shared.known.seen().lineage == Some(state.lineage);
        (is_known && state.lineage != before.lineage).then_some(state)
    })
    .await
}

#[tokio::test]
async fn sidecars_come_and_go_and_the_lineage_stays() {
    let server = Server::start();
    let a = open(&server, &Clock::system()).await;
    revoke(&a, "ada").await;
    let state = a.log_state().await.unwrap();
    let b = open(&server, &Clock::system()).await;
    a.close().await.unwrap();
    assert_eq!(b.log_state().await.unwrap(), state);
    // Connections that break, to the same server.
    let head = b.watch_head();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let again = soon(|| async { b.log_state().await.ok() }).await;
    assert_eq!(again, state);
    revoke(&b, "bob").await;
    assert_eq!(*head.borrow(), Revision(2), "the same watch");
}

#[tokio::test]
async fn a_restarted_server_has_another_lineage_for_all() {
    let mut server = Server::start();
    let a = open(&server, &Clock::system()).await;
    let b = open(&server, &Clock::system()).await;
    revoke(&a, "ada").await;
    let before = a.log_state().await.unwrap();
    let old = [a.watch_head(), b.watch_head()];
    server.kill();
    server.restart();
    let [at_a, at_b] = [another(&a, before).await, another(&b, before).await];
    assert_eq!(at_a, at_b, "the first to see it draws it");
    assert_eq!(at_a.head, before.head, "and nothing was lost");
    for mut old in old {
        old.borrow_and_update();
        assert!(old.changed().await.is_err(), "streams end with it");
    }
    let mut new = b.watch_head();
    revoke(&a, "bob").await;
    let heard = new.wait_for(|head| *head == Revision(2));
    let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
    heard.expect("not heard").unwrap();
}

#[tokio::test]
async fn a_restored_backup_has_another_lineage() {
    let mut server = Server::start();
    let store = open(&server, &Clock::system()).await;
    revoke(&store, "ada").await;
    let kept = server.folder().join("appendonlydir");
    let backup = server.folder().join("backup");
    copy(&kept, &backup);
    revoke(&store, "bob").await;
    let lost = store.log_state().await.unwrap();
    server.kill();
    std::fs::remove_dir_all(&kept).unwrap();
    copy(&backup, &kept);
    server.restart();
    // Counted on beyond what was lost, by one who never knew of it.
    let stranger = open(&server, &Clock::system()).await;
    for subject in ["eve", "joe"] {
        revoke(&stranger, subject).await;
    }
    let restored = another(&store, lost).await;
    assert_eq!(restored, stranger.log_state().await.unwrap());
    assert!(restored.head > lost.head);
}

/// Without a restart: what was seen of the log is not there any more, or something else is.
#[tokio::test]
async fn a_log_that_went_back_has_another_lineage() {
    let server = Server::start();
    let store = open(&server, &Clock::system()).await;
    for subject in ["ada", "bob"] {
        revoke(&store, subject).await;
    }
    let before = store.log_state().await.unwrap();
    server.cli(&["HSET", "tickgate:log:state", "head", "1"]);
    let after = another(&store, before).await;
    assert_eq!(after.head, Revision(1));
}

#[tokio::test]
async fn another_history_under_the_same_revision_has_another_lineage() {
    let server = Server::start();
    let store = open(&server, &Clock::system()).await;
    revoke(&store, "ada").await;
    let before = store.log_state().await.unwrap();
    let script = "redis.call('DEL', 'tickgate:log') return redis.call('XADD', 'tickgate:log', '1-0', 'event', 's7ZZZZZZZZZZZZZZZZZZZZZZZZZ', 'at', '1')";
    server.cli(&["EVAL", script, "0"]);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    another(&store, before).await;
}

#[tokio::test]
async fn a_data_set_that_is_gone_is_made_anew() {
    let server = Server::start();
    let store = open(&server, &Clock::system()).await;
    let id = new_session(&store, "ada").await;
    revoke(&store, "bob").await;
    let before = store.log_state().await.unwrap();
    server.cli(&["FLUSHALL"]);
    // No word on any session before somebody has looked: it may be that the keeper has, by now.
    match store.session(id).await {
        Err(error) => assert_eq!(error.label(), "store_unavailable"),
        Ok(found) => assert_eq!(found, None),
    }
    let after = another(&store, before).await;
    assert_eq!((after.tail, after.head), (Revision(0), Revision(0)));
    assert_eq!(store.session(id).await.unwrap(), None);
    revoke(&store, "bob").await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
