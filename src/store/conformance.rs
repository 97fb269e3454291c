//! What every store must do: one suite, run against each of them.

mod gateways;
mod logins;
mod model;
mod races;
mod refresh;

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::{
    clock::Timestamp,
    control::Revocation,
    id::{PlayerGeneration, PlayerId, Revision, SessionId},
};

use super::{
    EndedBy, Found, Identity, NewSession, PlayerRevocation, Purged, SessionRevocation, Standing,
    Store, StoreError, StoreLives,
};

#[cfg(feature = "redis")]
pub(super) use self::{gateways::published, model::Open, races::Sidecars};
use self::{gateways::*, logins::*, races::*, refresh::*};

pub(super) const LIVES: StoreLives = StoreLives {
    idle: Duration::from_secs(3_600),
    longest: Duration::from_secs(24 * 3_600),
};

pub(super) const START: Timestamp = Timestamp(1_700_000_000_000);

pub(super) fn account(subject: &str) -> NewSession {
    NewSession {
        identity: Identity {
            provider: "dev".to_owned(),
            subject: subject.to_owned(),
        },
        method: "dev".to_owned(),
        at: START,
        ends_at: START.after(LIVES.longest),
    }
}

pub(super) async fn log_in(store: &dyn Store, subject: &str) -> Found {
    store.start_session(account(subject)).await.unwrap().found
}

async fn standing(store: &dyn Store, id: SessionId, at: Timestamp) -> Standing {
    let found = store.session(id).await.unwrap().unwrap();
    found.standing(at, LIVES.idle)
}

pub(super) async fn an_account_is_one_player(store: Arc<dyn Store>) {
    let first = store.start_session(account("ada")).await.unwrap();
    let again = store.start_session(account("ada")).await.unwrap();
    assert!(first.is_new_player);
    assert!(!again.is_new_player);
    assert_eq!(first.found.player, again.found.player);
    assert_ne!(first.found.session.id, again.found.session.id);
    // Neither another subject nor another provider is the same account, nor a split elsewhere between the two.
    for (provider, subject) in [("dev", "bob"), ("backend", "ada"), ("deva", "da")] {
        let mut other = account(subject);
        provider.clone_into(&mut other.identity.provider);
        let other = store.start_session(other).await.unwrap();
        assert!(other.is_new_player);
        assert_ne!(other.found.player.id, first.found.player.id);
    }
    let found = store.session(first.found.session.id).await.unwrap();
    assert_eq!(found, Some(first.found));
    assert_eq!(store.session(SessionId(7)).await.unwrap(), None);
}

pub(super) async fn a_thousand_logins_of_one_account_make_one_player(store: Arc<dyn Store>) {
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let store = Arc::clone(&store);
        logins.spawn(async move { store.start_session(account("ada")).await.unwrap() });
    }
    let started = logins.join_all().await;
    let players: HashSet<_> = started.iter().map(|s| s.found.player.id).collect();
    let sessions: HashSet<_> = started.iter().map(|s| s.found.session.id).collect();
    assert_eq!(players.len(), 1);
    assert_eq!(sessions.len(), 1_000);
    assert_eq!(started.iter().filter(|s| s.is_new_player).count(), 1);
}

pub(super) async fn a_revocation_ends_a_session_once(store: Arc<dyn Store>) {
    let id = log_in(&*store, "ada").await.session.id;
    let bystander = log_in(&*store, "ada").await.session.id;
    assert_eq!(standing(&*store, id, START).await, Standing::Live);
    let revoked = store.revoke_session(id, START).await.unwrap();
    assert_eq!(revoked, SessionRevocation::Ended(Revision(1)));
    let again = store.revoke_session(id, START).await.unwrap();
    assert_eq!(again, SessionRevocation::AlreadyEnded(Revision(1)));
    let unknown = store.revoke_session(SessionId(7), START).await.unwrap();
    assert_eq!(unknown, SessionRevocation::Unknown);
    let ended = Standing::Ended(EndedBy::Revocation);
    assert_eq!(standing(&*store, id, START).await, ended);
    assert_eq!(standing(&*store, bystander, START).await, Standing::Live);
    let range = store.log_after(Revision(0), 10).await.unwrap().unwrap();
    assert_eq!(range.events, [Revocation::Session(id)]);
    // What has passed its absolute end needs no event.
    let late = store
        .revoke_session(bystander, START.after(LIVES.longest))
        .await
        .unwrap();
    assert_eq!(late, SessionRevocation::AlreadyEnded(Revision(0)));
    assert_eq!(store.log_state().await.unwrap().head, Revision(1));
}

pub(super) async fn a_thousand_revocations_of_one_session_are_one_event(store: Arc<dyn Store>) {
    let id = log_in(&*store, "ada").await.session.id;
    let mut revocations = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let store = Arc::clone(&store);
        revocations.spawn(async move { store.revoke_session(id, START).await.unwrap() });
    }
    let outcomes = revocations.join_all().await;
    let ended = outcomes
        .iter()
        .filter(|o| **o == SessionRevocation::Ended(Revision(1)));
    assert_eq!(ended.count(), 1);
    let already = SessionRevocation::AlreadyEnded(Revision(1));
    assert_eq!(outcomes.iter().filter(|o| **o == already).count(), 999);
    assert_eq!(store.log_state().await.unwrap().head, Revision(1));
}

pub(super) async fn revoking_a_player_ends_what_was_before_it(store: Arc<dyn Store>) {
    let first = log_in(&*store, "ada").await;
    let player = first.player.id;
    let second = log_in(&*store, "ada").await;
    let bystander = log_in(&*store, "bob").await;
    store
        .revoke_session(second.session.id, START)
        .await
        .unwrap();
    let outcome = store.revoke_player(player, START).await.unwrap();
    let generation = PlayerGeneration(1);
    let expected = PlayerRevocation::Ended {
        generation,
        revision: Revision(2),
        sessions: 1,
    };
    assert_eq!(outcome, expected);
    // A session made in the very same millisecond, but after it, lives.
    let third = log_in(&*store, "ada").await;
    assert_eq!(third.session.player_generation, generation);
    let live = [&third, &bystander];
    for found in live {
        assert_eq!(
            standing(&*store, found.session.id, START).await,
            Standing::Live
        );
    }
    let ended = Standing::Ended(EndedBy::Revocation);
    assert_eq!(standing(&*store, first.session.id, START).await, ended);
    // The event that covers a session is that of the player.
    let again = store.revoke_session(first.session.id, START).await.unwrap();
    assert_eq!(again, SessionRevocation::AlreadyEnded(Revision(2)));
    let range = store.log_after(Revision(1), 10).await.unwrap().unwrap();
    assert_eq!(range.events, [Revocation::Player(player, generation)]);
    let unknown = store.revoke_player(PlayerId(7), START).await.unwrap();
    assert_eq!(unknown, PlayerRevocation::Unknown);
    let ids = |found: &[&Found]| found.iter().map(|f| f.session.id).collect::<Vec<_>>();
    let asked = [
        &ids(&[&first, &second, &third, &bystander])[..],
        &[SessionId(7)],
    ]
    .concat();
    let dead = store.dead_among(asked, START).await.unwrap();
    assert_eq!(
        dead,
        [first.session.id, second.session.id, SessionId(7)],
        "unknown sessions are dead too"
    );
}

pub(super) async fn logins_race_with_revoking_the_player(store: Arc<dyn Store>) {
    let player = log_in(&*store, "ada").await.player.id;
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let store = Arc::clone(&store);
        logins.spawn(async move { log_in(&*store, "ada").await });
    }
    let revocation = store.revoke_player(player, START).await.unwrap();
    let PlayerRevocation::Ended { revision, .. } = revocation else {
        panic!("{revocation:?}");
    };
    for login in logins.join_all().await {
        let before = login.head < revision;
        let found = store.session(login.session.id).await.unwrap().unwrap();
        assert_eq!(
            found.revocation().is_some(),
            before,
            "each login is on one side of it"
        );
    }
}

pub(super) async fn the_log_is_dense_and_read_in_pieces(store: Arc<dyn Store>) {
    let mut head = store.watch_head();
    let mut expected = Vec::new();
    for n in 0..25 {
        let found = log_in(&*store, &n.to_string()).await;
        if n % 5 == 0 {
            store.revoke_player(found.player.id, START).await.unwrap();
            expected.push(Revocation::Player(found.player.id, PlayerGeneration(1)));
        } else {
            store.revoke_session(found.session.id, START).await.unwrap();
            expected.push(Revocation::Session(found.session.id));
        }
    }
    assert_eq!(*head.borrow_and_update(), Revision(25));
    let mut events = Vec::new();
    let mut from = Revision(0);
    while from < Revision(25) {
        let range = store.log_after(from, 10).await.unwrap().unwrap();
        assert_eq!(range.from, from);
        assert_eq!(range.to.0 - range.from.0, range.events.len() as u64);
        assert!(range.events.len() <= 10);
        from = range.to;
        events.extend(range.events);
    }
    assert_eq!(events, expected);
    let end = store.log_after(Revision(25), 10).await.unwrap().unwrap();
    assert_eq!((end.to, end.events), (Revision(25), vec![]));
    let future = store.log_after(Revision(26), 10).await.unwrap();
    assert_eq!(future, None, "a revision that does not exist yet");
}

pub(super) async fn activity_moves_forward_only(store: Arc<dyn Store>) {
    let id = log_in(&*store, "ada").await.session.id;
    let idle_at = START.after(LIVES.idle);
    let idle = Standing::Ended(EndedBy::Idleness);
    assert_eq!(standing(&*store, id, idle_at).await, idle);
    // Less than a granule: exact all the same.
    let a_second_later = START.after(Duration::from_secs(1));
    store.note_activity(&[id, SessionId(7)], a_second_later);
    assert_eq!(standing(&*store, id, idle_at).await, Standing::Live);
    store.note_activity(&[id], START);
    assert_eq!(standing(&*store, id, idle_at).await, Standing::Live);
    let found = store.session(id).await.unwrap().unwrap();
    assert_eq!(found.session.active_at, a_second_later);
    // Whoever plays on while nobody listens is not idle: the gateway that reports it knows better.
    let after_a_gap = idle_at.after(Duration::from_secs(100));
    assert_eq!(store.dead_among(vec![id], after_a_gap).await.unwrap(), []);
    store.note_activity(&[id], after_a_gap);
    assert_eq!(standing(&*store, id, after_a_gap).await, Standing::Live);
}

pub(super) async fn activity_revives_nobody(store: Arc<dyn Store>) {
    let id = log_in(&*store, "ada").await.session.id;
    store.revoke_session(id, START).await.unwrap();
    store.note_activity(&[id], START.after(Duration::from_secs(1)));
    let ended = Standing::Ended(EndedBy::Revocation);
    assert_eq!(standing(&*store, id, START).await, ended);
    let expired = log_in(&*store, "ada").await.session.id;
    let end = START.after(LIVES.longest);
    store.note_activity(&[expired], end);
    let absolute = Standing::Ended(EndedBy::AbsoluteEnd);
    assert_eq!(standing(&*store, expired, end).await, absolute);
    assert_eq!(
        store.dead_among(vec![expired], end).await.unwrap(),
        [expired]
    );
}

pub(super) async fn purging_takes_only_what_is_over(store: Arc<dyn Store>) {
    let mut short = account("ada");
    short.ends_at = START.after(Duration::from_secs(60));
    let short = store.start_session(short).await.unwrap().found.session.id;
    let long = log_in(&*store, "ada").await;
    store.revoke_session(short, START).await.unwrap();
    let minute = Duration::from_secs(60);
    let purged = store.purge(START.after(minute)).await.unwrap();
    assert_eq!(purged, Purged::default(), "within the margin");
    let purged = store.purge(START.after(minute * 3)).await.unwrap();
    let one_session = Purged {
        sessions: 1,
        events: 0,
    };
    assert_eq!(purged, one_session);
    assert_eq!(store.session(short).await.unwrap(), None);
    assert!(store.session(long.session.id).await.unwrap().is_some());
    // The log goes when its retention has passed; its head stays.
    let much_later = START.after(LIVES.retention() + minute);
    store
        .revoke_player(long.player.id, much_later)
        .await
        .unwrap();
    let purged = store.purge(much_later).await.unwrap();
    let expected = Purged {
        sessions: 1,
        events: 1,
    };
    assert_eq!(purged, expected);
    let state = store.log_state().await.unwrap();
    assert_eq!((state.tail, state.head), (Revision(1), Revision(2)));
    assert_eq!(store.log_after(Revision(0), 10).await.unwrap(), None);
    let rest = store.log_after(Revision(1), 10).await.unwrap().unwrap();
    assert_eq!(rest.events.len(), 1);
    // A player outlives all sessions.
    let again = store.start_session(account("ada")).await.unwrap();
    assert!(!again.is_new_player);
    assert_eq!(again.found.player.id, long.player.id);
}

pub(super) async fn a_large_purge_is_whole(store: Arc<dyn Store>) {
    let mut logins = tokio::task::JoinSet::new();
    for n in 0..2_500 {
        let store = Arc::clone(&store);
        logins.spawn(async move {
            let id = log_in(&*store, &(n % 10).to_string()).await.session.id;
            store.revoke_session(id, START).await.unwrap();
        });
    }
    logins.join_all().await;
    let later = START.after(LIVES.retention() * 2);
    let purged = store.purge(later).await.unwrap();
    let expected = Purged {
        sessions: 2_500,
        events: 2_500,
    };
    assert_eq!(purged, expected);
    let state = store.log_state().await.unwrap();
    assert_eq!((state.tail, state.head), (Revision(2_500), Revision(2_500)));
}

pub(super) async fn a_closed_store_says_so(store: Arc<dyn Store>) {
    let id = log_in(&*store, "ada").await.session.id;
    store.close().await.unwrap();
    store.close().await.ok();
    store.note_activity(&[id], START);
    let closed = |error: StoreError| assert_eq!(error.label(), StoreError::Closed.label());
    closed(store.session(id).await.unwrap_err());
    closed(store.revoke_session(id, START).await.unwrap_err());
    closed(store.log_after(Revision(0), 1).await.unwrap_err());
}

/// One test of each case for the store that `$make` makes.
macro_rules! conformance {
    ($make:expr; $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _guard) = $make;
                super::$case(store).await;
            }
        )*
    };
    ($make:expr) => {
        conformance! {
            $make;
            an_account_is_one_player
            a_thousand_logins_of_one_account_make_one_player
            a_revocation_ends_a_session_once
            a_thousand_revocations_of_one_session_are_one_event
            revoking_a_player_ends_what_was_before_it
            logins_race_with_revoking_the_player
            the_log_is_dense_and_read_in_pieces
            activity_moves_forward_only
            activity_revives_nobody
            purging_takes_only_what_is_over
            a_large_purge_is_whole
            a_closed_store_says_so
            each_refresh_makes_the_next_generation
            a_lost_answer_can_be_asked_for_again
            a_successor_that_was_used_leaves_no_grace
            reuse_revokes_the_session_once
            what_has_ended_is_not_refreshed
            sessions_are_listed_newest_first_in_pages
            a_gateway_is_granted_what_was_minted_for_it
            activity_elsewhere_is_known_of_sessions_of_several_gateways
            a_session_has_a_bounded_number_of_gateways
            a_newer_process_fences_the_older_ones_off
            a_bounded_number_of_old_processes_is_remembered
            two_processes_that_attach_at_once_leave_one
            a_published_gateway_is_known_until_its_lease_runs_out
            only_the_newest_process_is_published
            what_is_spent_is_spent_once_and_known_as_such
            a_code_has_as_many_guesses_as_it_has_tries
            attempts_in_a_row_are_counted_before_they_are_made
            an_account_is_linked_once_and_players_never_merge
            whoever_was_put_out_links_nothing
            an_account_is_taken_away_with_whoever_came_in_by_it
            places_are_remembered_of_each_account
            a_password_ends_every_session_and_makes_the_player_if_need_be
            a_role_is_set_and_told_with_the_next_refresh
            purging_logins_takes_what_expired_used_or_not
        }
    };
}

/// The same of each race at the two sidecars that `$make` makes.
macro_rules! races {
    ($make:expr) => {
        conformance! {
            $make;
            a_thousand_spend_one_thing_and_one_gets_it
            a_thousand_issue_one_thing_and_one_does
            a_thousand_right_guesses_are_one
            a_thousand_guesses_are_three
            a_thousand_attempts_are_a_hundred
            a_thousand_link_one_account_and_it_is_one_players
            nothing_is_linked_after_its_session_was_revoked
            of_two_that_are_taken_away_at_once_one_stays
            logins_and_passwords_of_one_account_make_one_player
            a_thousand_refreshes_of_one_generation_make_one_successor
            no_refresh_outlives_a_revocation
        }
    };
}

mod memory {
    use super::*;

    fn make() -> (Arc<dyn Store>, ()) {
        (Arc::new(crate::store::memory::MemoryStore::new(LIVES)), ())
    }

    conformance!(make());
    races!((Sidecars::of_one(make().0), ()));
}

mod embedded {
    use super::*;

    fn make() -> (Arc<dyn Store>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::EmbeddedStore::open(&folder.path().join("store.redb"), LIVES);
        (Arc::new(store.unwrap()), folder)
    }

    conformance!(make());
    races!({
        let (store, folder) = make();
        (Sidecars::of_one(store), folder)
    });

    #[tokio::test]
    async fn the_file_says_what_the_model_says() {
        let folder = tempfile::tempdir().unwrap();
        let open = |seed| {
            let path = folder.path().join(format!("{seed}.redb"));
            let open = move || -> futures_util::future::BoxFuture<'static, Arc<dyn Store>> {
                let store = crate::store::EmbeddedStore::open(&path, LIVES).unwrap();
                Box::pin(std::future::ready(Arc::new(store) as Arc<dyn Store>))
            };
            Box::new(open) as model::Open
        };
        model::says_what_the_model_says(12, 250, open).await;
    }
}

#[cfg(feature = "redis")]
mod redis {
    conformance!(crate::store::redis::tests::by_callers_time().await);
    races!(crate::store::redis::tests::two_sidecars().await);

    #[tokio::test]
    async fn the_server_says_what_the_model_says() {
        let server = crate::store::redis::tests::server::Server::start();
        let open = |seed| crate::store::redis::tests::open_again(&server, seed);
        super::model::says_what_the_model_says(8, 250, open).await;
    }
}
