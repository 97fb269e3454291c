//! What only a store on a disk has to prove: what was acknowledged is there again, whatever happened in between.

use std::{
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::future::BoxFuture;
use redb::{ReadableDatabase, TableHandle};

use crate::{
    clock::Timestamp,
    control::LogState,
    id::{GatewayId, Incarnation, Revision, SessionId},
    proto,
    store::{
        EmbeddedStore, Fencing, OpenError, PlayerRevocation, RefreshClaim, Refreshed,
        SessionRevocation, Standing, Store, StoreError,
        conformance::{LIVES, START, account, log_in},
    },
};

use super::{open::SESSIONS_BY_PLAYER, unfinished};

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, LIVES).unwrap()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    (folder, path)
}

async fn revoked_by(store: &EmbeddedStore, id: SessionId) -> Option<Revision> {
    store.session(id).await.unwrap().unwrap().revocation()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let (_folder, path) = folder();
    let store = open(&path);
    let ada = log_in(&store, "ada").await;
    let bob = log_in(&store, "bob").await.session.id;
    store.revoke_session(bob, START).await.unwrap();
    let state = store.log_state().await.unwrap();
    drop(store);

    let store = open(&path);
    let LogState { tail, head, .. } = store.log_state().await.unwrap();
    assert_eq!((tail, head), (state.tail, state.head));
    assert_eq!(*store.watch_head().borrow(), Revision(1));
    assert_eq!(revoked_by(&store, bob).await, Some(Revision(1)));
    let found = store.session(ada.session.id).await.unwrap().unwrap();
    assert_eq!(found.session, ada.session);
    assert_eq!(log_in(&store, "ada").await.player, ada.player);
    let next = store.revoke_session(ada.session.id, START).await.unwrap();
    assert_eq!(next, SessionRevocation::Ended(Revision(2)));
}

#[tokio::test]
async fn successors_grants_and_fences_are_there_after_reopening() {
    let (_folder, path) = folder();
    let store = open(&path);
    let found = log_in(&store, "ada").await;
    let id = found.session.id;
    let claim = RefreshClaim {
        session: id,
        generation: 0,
        player_generation: found.session.player_generation,
    };
    let Refreshed::Rotated(made) = store.refresh(claim, START).await.unwrap() else {
        panic!("not rotated");
    };
    let gateway: GatewayId = "eu".parse().unwrap();
    store.grant(id, gateway.clone()).await.unwrap();
    for process in [1, 2] {
        let attached = store.attach_gateway(gateway.clone(), Incarnation(process));
        assert_eq!(attached.await.unwrap(), Fencing::Newest);
    }
    drop(store);

    let store = open(&path);
    // The role that the successor got, whatever the player's is by now.
    let owner = found.player.id;
    let changed = store.change(move |changes| {
        let mut record = changes.tables.player(owner)?.unwrap();
        record.role = "moderator".to_owned();
        changes.tables.put_player(owner, &record)
    });
    changed.await.unwrap();
    let Refreshed::Again(again) = store.refresh(claim, START).await.unwrap() else {
        panic!("not the same");
    };
    assert_eq!(
        (again.issued_at, &again.role, &again.found.session),
        (made.issued_at, &made.role, &made.found.session)
    );
    let next = RefreshClaim {
        generation: 1,
        ..claim
    };
    let Refreshed::Rotated(next) = store.refresh(next, START).await.unwrap() else {
        panic!("not rotated");
    };
    assert_eq!(next.role, "moderator", "read anew");
    let granted = store.granted_among(gateway.clone(), vec![id]).await;
    assert_eq!(granted.unwrap(), [id]);
    for (process, expected) in [(1, Fencing::Fenced), (2, Fencing::Newest)] {
        let attached = store.attach_gateway(gateway.clone(), Incarnation(process));
        assert_eq!(attached.await.unwrap(), expected);
    }
}

/// A gateway that has followed the log to revision 2 must not take the restored one, at revision 1 or beyond, for its continuation.
#[tokio::test]
async fn a_store_restored_from_a_backup_has_another_lineage() {
    let (folder, path) = folder();
    let store = open(&path);
    let [ada, bob, eve] = ["ada", "bob", "eve"];
    let ada = log_in(&store, ada).await.session.id;
    let bob = log_in(&store, bob).await.session.id;
    let eve = log_in(&store, eve).await.session.id;
    store.revoke_session(ada, START).await.unwrap();
    let backup = folder.path().join("backup.redb");
    std::fs::copy(&path, &backup).unwrap();
    store.revoke_session(bob, START).await.unwrap();
    let lost = store.log_state().await.unwrap();
    drop(store);

    std::fs::copy(&backup, &path).unwrap();
    let store = open(&path);
    store.revoke_session(eve, START).await.unwrap();
    let restored = store.log_state().await.unwrap();
    assert_eq!(restored.head, lost.head);
    assert_ne!(restored.lineage, lost.lineage);
}

#[tokio::test]
async fn closing_writes_activity_down_to_the_millisecond() {
    let (_folder, path) = folder();
    let store = open(&path);
    let id = log_in(&store, "ada").await.session.id;
    store.note_activity(&[id], START.after(Duration::from_secs(5)));
    store.note_activity(&[id], START.after(Duration::from_secs(6)));
    store.close().await.unwrap();

    let found = open(&path).session(id).await.unwrap().unwrap();
    let idle_at = START.after(LIVES.idle);
    assert_eq!(found.session.active_at, START.after(Duration::from_secs(6)));
    assert_eq!(found.standing(idle_at, LIVES.idle), Standing::Live);
}

#[tokio::test]
async fn a_copy_of_the_open_file_has_all_that_was_acknowledged() {
    let (folder, path) = folder();
    let store = open(&path);
    let mut revoked = Vec::new();
    for n in 0..50 {
        let id = log_in(&store, &n.to_string()).await.session.id;
        store.revoke_session(id, START).await.unwrap();
        revoked.push(id);
    }
    // What the file holds at this instant is what a process that was killed would leave behind.
    let copy = folder.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    let copy = open(&copy);
    for (index, id) in revoked.into_iter().enumerate() {
        let revision = Revision(index as u64 + 1);
        assert_eq!(revoked_by(&copy, id).await, Some(revision));
    }
}

/// Names the file for [`child_that_revokes_until_it_is_killed`].
const CHILD_STORE: &str = "TICKGATE_TEST_CHILD_STORE";

/// No test by itself: the process that [`a_killed_process_loses_nothing_acknowledged`] kills.
#[tokio::test]
async fn child_that_revokes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD_STORE) else {
        return;
    };
    let store = open(Path::new(&path));
    for n in 0_u64.. {
        let session = log_in(&store, &n.to_string()).await.session;
        let id = session.id;
        let claim = RefreshClaim {
            session: id,
            generation: 0,
            player_generation: session.player_generation,
        };
        let refreshed = store.refresh(claim, START).await.unwrap();
        assert!(matches!(refreshed, Refreshed::Rotated(_)), "{refreshed:?}");
        let outcome = store.revoke_session(id, START).await.unwrap();
        let SessionRevocation::Ended(revision) = outcome else {
            panic!("{outcome:?}");
        };
        // The test harness captures `println!`; what goes straight to the handle gets out.
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {id} {revision}").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    let (_folder, path) = folder();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("store::embedded::tests::child_that_revokes_until_it_is_killed")
        .env(CHILD_STORE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, rest)) = line.split_once("acknowledged ") else {
            continue;
        };
        let (id, revision) = rest.split_once(' ').unwrap();
        let id: SessionId = id.parse().unwrap();
        acknowledged.push((id, Revision(revision.parse().unwrap())));
        if acknowledged.len() == 100 {
            break;
        }
    }
    // SIGKILL: in the middle of whatever it was doing.
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!(acknowledged.len(), 100);
    let store = open(&path);
    for (id, revision) in acknowledged {
        assert_eq!(revoked_by(&store, id).await, Some(revision));
        let found = store.session(id).await.unwrap().unwrap();
        assert_eq!(found.session.generation, 1, "rotated before it was revoked");
    }
    let state = store.log_state().await.unwrap();
    let range = store.log_after(Revision(0), usize::MAX).await.unwrap();
    assert_eq!(
        range.unwrap().to,
        state.head,
        "no gap, and no event too many"
    );
}

#[tokio::test]
async fn a_store_in_use_is_refused_by_name() {
    let (_folder, path) = folder();
    let _first = open(&path);
    let error = EmbeddedStore::open(&path, LIVES).unwrap_err();
    assert_eq!(error.label(), "store_in_use");
    assert!(error.to_string().contains(path.to_str().unwrap()));
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_by_name() {
    let (_folder, path) = folder();
    std::fs::write(&path, "[sidecar]\n".repeat(1_000)).unwrap();
    let error = EmbeddedStore::open(&path, LIVES).unwrap_err();
    assert_eq!(error.label(), "store_damaged", "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));

    let nowhere = path.join("store.redb");
    let error = EmbeddedStore::open(&nowhere, LIVES).unwrap_err();
    assert!(matches!(error, OpenError::Inaccessible { .. }), "{error}");
}

/// A process that is killed while it makes the file leaves one that redb takes for somebody else's.
#[tokio::test]
async fn a_file_whose_making_was_cut_short_is_made_again() {
    let (_folder, path) = folder();
    let step = unfinished::first_step().unwrap();
    let header = step[..64].to_vec();
    for left in [vec![0; step.len()], header, step.clone()] {
        std::fs::write(&path, &left).unwrap();
        let store = open(&path);
        log_in(&store, "ada").await;
        store.close().await.unwrap();
        assert_eq!(store_sessions(&open(&path)).await, 1);
        std::fs::remove_file(&path).unwrap();
    }
    // What may have been a store is nobody's to clear, and what may be somebody else's neither.
    let mut zeroed = vec![0; step.len()];
    zeroed[600_000] = 1;
    let foreign = [vec![0; 9], vec![7; 300]].concat();
    for damaged in [zeroed, vec![0; 5_000_000], vec![0; 4_096], foreign] {
        std::fs::write(&path, &damaged).unwrap();
        let error = EmbeddedStore::open(&path, LIVES).unwrap_err();
        assert_eq!(error.label(), "store_damaged", "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
}

/// Files of the first layout have an index of each player's sessions, which this one does without.
#[tokio::test]
async fn a_file_of_the_first_layout_is_brought_up_to_this_one() {
    let (_folder, path) = folder();
    let store = open(&path);
    let ada = log_in(&store, "ada").await;
    log_in(&store, "bob").await;
    let other = log_in(&store, "ada").await;
    set_layout(&store, 1).await;
    drop(store);
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut index = transaction.open_table(SESSIONS_BY_PLAYER).unwrap();
    let pair = (ada.player.id.0, ada.session.id.0);
    index.insert(pair, ()).unwrap();
    drop(index);
    transaction.commit().unwrap();
    drop(database);

    drop(open(&path));
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    let tables = transaction.list_tables().unwrap();
    let names: Vec<String> = tables.map(|table| table.name().to_owned()).collect();
    assert!(names.contains(&"sessions".to_owned()), "{names:?}");
    assert!(!names.contains(&SESSIONS_BY_PLAYER.name().to_owned()));
    drop((transaction, database));

    let store = open(&path);
    let listed = store.sessions(Some(ada.player.id), None, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&ada) && listed.contains(&other));
}

#[tokio::test]
async fn a_file_of_a_layout_to_come_is_refused_and_left_alone() {
    let (_folder, path) = folder();
    let store = open(&path);
    set_layout(&store, 3).await;
    drop(store);
    for _ in 0..2 {
        let error = EmbeddedStore::open(&path, LIVES).unwrap_err();
        let OpenError::Layout { found, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(found, 3);
    }
}

async fn set_layout(store: &EmbeddedStore, layout: u32) {
    let set = store.change(move |changes| {
        changes.log.format = layout;
        Ok(())
    });
    set.await.unwrap();
}

/// A player's sessions are known by an index in memory alone, which has to be there again, and has to follow every change.
#[tokio::test]
async fn a_players_sessions_are_known_again_after_reopening() {
    let (_folder, path) = folder();
    let store = open(&path);
    let player = log_in(&store, "ada").await.player.id;
    for _ in 0..4 {
        log_in(&store, "bob").await;
        log_in(&store, "ada").await;
    }
    let before = store.sessions(Some(player), None, 10).await.unwrap();
    assert_eq!(before.len(), 5);
    drop(store);

    let store = open(&path);
    let listed = store.sessions(Some(player), None, 10).await.unwrap();
    assert_eq!(listed, before);
    let second = listed[1].session.id;
    let rest = store.sessions(Some(player), Some(second), 2).await.unwrap();
    assert_eq!(rest, before[2..4]);
    let revoked = store.revoke_player(player, START).await.unwrap();
    let PlayerRevocation::Ended { sessions, .. } = revoked else {
        panic!("{revoked:?}");
    };
    assert_eq!(sessions, 5);
    let later = START.after(LIVES.longest * 2);
    assert_eq!(store.purge(later).await.unwrap().sessions, 9);
    let listed = store.sessions(Some(player), None, 10).await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
}

/// 80 random bits do not collide; if they did, nobody's session would become another's.
#[tokio::test]
async fn a_session_is_never_put_in_the_place_of_another() {
    let (_folder, path) = folder();
    let store = open(&path);
    let ada = log_in(&store, "ada").await;
    let id = ada.session.id;
    let adding = store.change(move |changes| {
        let other = proto::SessionRecord {
            method: "other".to_owned(),
            ..Default::default()
        };
        let free = SessionId(id.0 ^ 1);
        let taken = changes.tables.add_session(id, &other)?;
        Ok((taken, changes.tables.add_session(free, &other)?))
    });
    assert_eq!(adding.await.unwrap(), (false, true));
    let found = store.session(id).await.unwrap().unwrap();
    assert_eq!(found, ada);
}

/// What is asked for at once is done in one transaction, which sees what it has made and taken away itself.
#[tokio::test]
async fn a_player_is_revoked_with_the_sessions_of_the_same_commit() {
    let (_folder, path) = folder();
    let store = open(&path);
    let player = log_in(&store, "ada").await.player.id;
    let later = START.after(LIVES.longest * 2);
    let log_in = |at: Timestamp| {
        let mut new = account("ada");
        new.at = at;
        new.ends_at = at.after(LIVES.longest);
        store.start_session(new)
    };
    let asks: Vec<BoxFuture<'_, u32>> = vec![
        Box::pin(async { u32::try_from(store.purge(later).await.unwrap().sessions).unwrap() }),
        Box::pin(async { u32::from(log_in(later).await.unwrap().is_new_player) }),
        Box::pin(async { u32::from(log_in(later).await.unwrap().is_new_player) }),
        Box::pin(async {
            match store.revoke_player(player, later).await.unwrap() {
                PlayerRevocation::Ended { sessions, .. } => sessions,
                PlayerRevocation::Unknown => 99,
            }
        }),
    ];
    let did = store.at_once(|| (), asks).await;
    assert_eq!(did, [1, 0, 0, 2], "one purged, two made, both revoked");
    let listed = store.sessions(Some(player), None, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
}

async fn store_sessions(store: &EmbeddedStore) -> usize {
    store.sessions(None, None, 10).await.unwrap().len()
}

#[tokio::test]
async fn a_file_with_flipped_bytes_is_refused_or_whole() {
    let (folder, path) = folder();
    let store = open(&path);
    for n in 0..200 {
        log_in(&store, &n.to_string()).await;
    }
    store.close().await.unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    let copy = folder.path().join("copy.redb");
    let mut refused = 0;
    for offset in (0..length).step_by(4_096 * 3 + 40).take(100) {
        std::fs::copy(&path, &copy).unwrap();
        let mut file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(&[0x5a; 64]).unwrap();
        drop(file);
        match EmbeddedStore::open(&copy, LIVES) {
            Ok(store) => drop(store.log_state().await.unwrap()),
            Err(error) => {
                assert_eq!(error.label(), "store_damaged", "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_medium_that_fails_is_told_at_once_and_for_good() {
    let (_folder, path) = folder();
    let store = open(&path);
    let failed = store.watch_failed();
    let fail_with = |error: StoreError| store.change(move |_| Err::<(), _>(error.clone()));
    fail_with(StoreError::Record("sessions")).await.unwrap_err();
    assert!(!*failed.borrow(), "one damaged record is no failed disk");
    let broken = StoreError::Storage("input/output error".to_owned());
    fail_with(broken).await.unwrap_err();
    assert!(*failed.borrow());
}
