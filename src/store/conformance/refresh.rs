//! What every store must do with refreshes and lists of sessions.

use super::*;
use crate::store::{REFRESH_GRACE, RefreshClaim, Refreshed, Successor};

fn claim(found: &Found, generation: u32) -> RefreshClaim {
    RefreshClaim {
        session: found.session.id,
        generation,
        player_generation: found.session.player_generation,
    }
}

fn rotated(outcome: Refreshed) -> Successor {
    match outcome {
        Refreshed::Rotated(successor) => successor,
        other => panic!("{other:?}"),
    }
}

async fn head(store: &dyn Store) -> Revision {
    store.log_state().await.unwrap().head
}

pub(in crate::store) async fn each_refresh_makes_the_next_generation(store: Arc<dyn Store>) {
    let first = log_in(&*store, "ada").await;
    let mut at = START;
    for generation in 0..3 {
        at = at.after(Duration::from_secs(60));
        let successor = store.refresh(claim(&first, generation), at).await.unwrap();
        let successor = rotated(successor);
        assert_eq!(successor.found.session.generation, generation + 1);
        assert_eq!((successor.issued_at, &*successor.role), (at, "player"));
        let found = store.session(first.session.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&successor.found));
        // Nothing else of the session has moved: no activity, no later end.
        let mut expected = first.clone();
        expected.session.generation = generation + 1;
        assert_eq!(found, Some(expected));
    }
    assert_eq!(head(&*store).await, Revision(0));
    let idle_at = START.after(LIVES.idle);
    let late = store.refresh(claim(&first, 3), idle_at).await.unwrap();
    assert_eq!(late, Refreshed::Ended(Some(EndedBy::Idleness)));
}

pub(in crate::store) async fn a_lost_answer_can_be_asked_for_again(store: Arc<dyn Store>) {
    let found = log_in(&*store, "ada").await;
    let first = store.refresh(claim(&found, 0), START).await.unwrap();
    let first = rotated(first);
    let last = START.after(REFRESH_GRACE).before(Duration::from_millis(1));
    for at in [START, last] {
        let again = store.refresh(claim(&found, 0), at).await.unwrap();
        assert_eq!(again, Refreshed::Again(first.clone()));
    }
    // The grace runs from the rotation, however often it is asked again; then it is reuse.
    let late = START.after(REFRESH_GRACE);
    let reused = store.refresh(claim(&found, 0), late).await.unwrap();
    assert_eq!(reused, Refreshed::Reused(Revision(1)));
}

pub(in crate::store) async fn a_successor_that_was_used_leaves_no_grace(store: Arc<dyn Store>) {
    let found = log_in(&*store, "ada").await;
    for generation in 0..2 {
        let next = store.refresh(claim(&found, generation), START).await;
        rotated(next.unwrap());
    }
    let grandparent = store.refresh(claim(&found, 0), START).await.unwrap();
    assert_eq!(grandparent, Refreshed::Reused(Revision(1)));
    for generation in [0, 1, 2] {
        let after = store.refresh(claim(&found, generation), START).await;
        let revoked = Refreshed::Ended(Some(EndedBy::Revocation));
        assert_eq!(after.unwrap(), revoked, "nobody has the session any more");
    }
}

pub(in crate::store) async fn reuse_revokes_the_session_once(store: Arc<dyn Store>) {
    let found = log_in(&*store, "ada").await;
    let bystander = log_in(&*store, "ada").await;
    rotated(store.refresh(claim(&found, 0), START).await.unwrap());
    let late = START.after(REFRESH_GRACE);
    let mut reuses = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (store, claim) = (Arc::clone(&store), claim(&found, 0));
        reuses.spawn(async move { store.refresh(claim, late).await.unwrap() });
    }
    let outcomes = reuses.join_all().await;
    let count = |expected| outcomes.iter().filter(|o| **o == expected).count();
    assert_eq!(count(Refreshed::Reused(Revision(1))), 1);
    let revoked = Refreshed::Ended(Some(EndedBy::Revocation));
    assert_eq!(count(revoked), 999, "who has ended it is told once");
    let range = store.log_after(Revision(0), 10).await.unwrap().unwrap();
    assert_eq!(range.events, [Revocation::Session(found.session.id)]);
    assert_eq!(*store.watch_head().borrow(), Revision(1));
    let id = bystander.session.id;
    assert_eq!(standing(&*store, id, late).await, Standing::Live);
    // An idle session too: whoever holds the other token may be playing where nobody has told of it yet.
    let idle_at = START.after(LIVES.idle);
    rotated(store.refresh(claim(&bystander, 0), START).await.unwrap());
    let reused = store.refresh(claim(&bystander, 0), idle_at).await.unwrap();
    assert_eq!(reused, Refreshed::Reused(Revision(2)));
}

pub(in crate::store) async fn what_has_ended_is_not_refreshed(store: Arc<dyn Store>) {
    let ended = |by| Refreshed::Ended(Some(by));
    let found = log_in(&*store, "ada").await;
    let end = START.after(LIVES.longest);
    store.note_activity(&[found.session.id], end.before(Duration::from_secs(1)));
    let outcome = store.refresh(claim(&found, 0), end).await.unwrap();
    assert_eq!(outcome, ended(EndedBy::AbsoluteEnd));

    let revoked = log_in(&*store, "ada").await;
    store
        .revoke_session(revoked.session.id, START)
        .await
        .unwrap();
    let outcome = store.refresh(claim(&revoked, 0), START).await.unwrap();
    assert_eq!(outcome, ended(EndedBy::Revocation));

    let outdated = log_in(&*store, "ada").await;
    rotated(store.refresh(claim(&outdated, 0), START).await.unwrap());
    store
        .revoke_player(outdated.player.id, START)
        .await
        .unwrap();
    for generation in [0, 1] {
        let outcome = store.refresh(claim(&outdated, generation), START).await;
        assert_eq!(outcome.unwrap(), ended(EndedBy::Revocation));
    }
    let late = START.after(REFRESH_GRACE);
    let outcome = store.refresh(claim(&outdated, 0), late).await.unwrap();
    assert_eq!(outcome, ended(EndedBy::Revocation), "no reuse to tell of");

    // What a store restored from a backup is asked: generations that it does not know, of sessions that it does not know.
    let fresh = log_in(&*store, "ada").await;
    let stranger = RefreshClaim {
        session: SessionId(7),
        ..claim(&fresh, 0)
    };
    let older = RefreshClaim {
        player_generation: PlayerGeneration(0),
        ..claim(&fresh, 0)
    };
    for unknown in [stranger, older, claim(&fresh, 1), claim(&fresh, u32::MAX)] {
        let outcome = store.refresh(unknown, START).await.unwrap();
        assert_eq!(outcome, Refreshed::Ended(None));
    }
    let id = fresh.session.id;
    assert_eq!(standing(&*store, id, START).await, Standing::Live);
    assert_eq!(head(&*store).await, Revision(2));
}

pub(in crate::store) async fn sessions_are_listed_newest_first_in_pages(store: Arc<dyn Store>) {
    let mut logins = Vec::new();
    for n in 0_u64..25 {
        let mut new = account(["ada", "bob"][usize::from(n % 5 == 0)]);
        new.at = START.after(Duration::from_millis(n));
        logins.push(store.start_session(new).await.unwrap().found);
    }
    let (bob, ada) = (logins[0].player.id, logins[1].player.id);
    for (player, expected) in [(None, 25), (Some(ada), 20), (Some(bob), 5)] {
        let mut listed = Vec::new();
        let mut before = None;
        loop {
            let page = store.sessions(player, before, 7).await.unwrap();
            assert!(page.len() <= 7);
            let Some(last) = page.last() else { break };
            before = Some(last.session.id);
            listed.extend(page);
        }
        let of_player = logins
            .iter()
            .rev()
            .filter(|found| player.is_none_or(|player| player == found.player.id));
        let of_player: Vec<_> = of_player.cloned().collect();
        assert_eq!(listed, of_player);
        assert_eq!(listed.len(), expected);
    }
    let nobody = store.sessions(Some(PlayerId(7)), None, 7).await.unwrap();
    assert_eq!(nobody, []);
    assert_eq!(store.sessions(None, None, 0).await.unwrap(), []);

    // What has ended is listed until it is purged, and activity is exact.
    let newest = logins[24].session.id;
    store.revoke_session(newest, START).await.unwrap();
    let active = logins[23].session.id;
    let later = START.after(Duration::from_secs(1));
    store.note_activity(&[active], later);
    let page = store.sessions(Some(ada), None, 2).await.unwrap();
    assert_eq!(page[0].session.revoked, Some(Revision(1)));
    assert_eq!(page[1].session.active_at, later);
    let much_later = START.after(LIVES.longest * 2);
    store.purge(much_later).await.unwrap();
    assert_eq!(store.sessions(None, None, 100).await.unwrap(), []);
    assert_eq!(store.sessions(Some(ada), None, 100).await.unwrap(), []);
}
