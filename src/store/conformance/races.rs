//! Races at two sidecars over what is worth something once: one has it, nobody else does, whoever comes first and wherever.

use tokio::{sync::Barrier, task::JoinSet};

use super::*;
use crate::store::{
    Attempt, Code, Guess, Issued, Join, KeyedHash, Linked, OneTime, OneTimePurpose, Payload,
    RefreshClaim, Refreshed, Spent, Unlinked,
};

const MANY: usize = 1_000;
const MINUTE: Duration = Duration::from_secs(60);

/// What two sidecars have in hand: stores on one server, or one store twice where only one sidecar can have it.
pub(in crate::store) struct Sidecars {
    pub(in crate::store) stores: [Arc<dyn Store>; 2],
    /// By the stores' clock.
    pub(in crate::store) now: Timestamp,
}

impl Sidecars {
    pub(in crate::store) fn of_one(store: Arc<dyn Store>) -> Self {
        Self {
            stores: [Arc::clone(&store), store],
            now: START,
        }
    }

    fn at(&self, n: usize) -> Arc<dyn Store> {
        Arc::clone(&self.stores[n % 2])
    }

    /// What comes of so many calls that begin at one instant, half of them at each sidecar.
    async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        many: usize,
        call: impl Fn(Arc<dyn Store>, usize) -> F,
    ) -> Vec<T> {
        let begin = Arc::new(Barrier::new(many));
        let mut calls = JoinSet::new();
        for n in 0..many {
            let (begin, call) = (Arc::clone(&begin), call(self.at(n), n));
            calls.spawn(async move {
                begin.wait().await;
                call.await
            });
        }
        calls.join_all().await
    }

    fn one_time(&self, key: KeyedHash, purpose: OneTimePurpose) -> OneTime {
        OneTime {
            key,
            purpose,
            payload: Payload::new(key.to_vec()).unwrap(),
            expires_at: self.now.after(10 * MINUTE),
        }
    }

    async fn put_code(&self, n: u16) {
        let code = Code {
            key: hash(n),
            hash: RIGHT,
            expires_at: self.now.after(10 * MINUTE),
            tries: 3,
        };
        self.at(n.into()).put_code(code).await.unwrap();
    }

    /// Guesses at code `n` at one instant, of which those are right that `is_right` says.
    async fn guess_at_once(
        &self,
        n: u16,
        many: usize,
        is_right: impl Fn(usize) -> bool,
    ) -> Vec<Guess> {
        let now = self.now;
        let guesses = self.at_once(many, |store, guess| {
            let wrong = hash(u16::try_from(guess).unwrap());
            let guessed = if is_right(guess) { RIGHT } else { wrong };
            async move { store.guess(hash(n), guessed, now).await.unwrap() }
        });
        guesses.await
    }
}

fn hash(n: u16) -> KeyedHash {
    let mut hash = [0; 32];
    hash[..2].copy_from_slice(&n.to_be_bytes());
    hash
}

/// Of no guess that is wrong.
const RIGHT: KeyedHash = [0xff; 32];

fn count<T: PartialEq>(outcomes: &[T], wanted: &T) -> usize {
    outcomes.iter().filter(|outcome| *outcome == wanted).count()
}

pub(in crate::store) async fn a_thousand_spend_one_thing_and_one_gets_it(sidecars: Sidecars) {
    for (n, purpose) in (0..).zip(OneTimePurpose::ALL) {
        let wanted = sidecars.one_time(hash(n), purpose);
        sidecars.at(n.into()).issue(wanted.clone()).await.unwrap();
        let (key, now) = (wanted.key, sidecars.now);
        let outcomes = sidecars.at_once(MANY, |store, _| async move {
            store.spend(key, purpose, now).await.unwrap()
        });
        let outcomes = outcomes.await;
        assert_eq!(count(&outcomes, &Spent::Spent(wanted.payload)), 1);
        assert_eq!(count(&outcomes, &Spent::AlreadyUsed), MANY - 1);
    }
}

pub(in crate::store) async fn a_thousand_issue_one_thing_and_one_does(sidecars: Sidecars) {
    let entry = sidecars.one_time(hash(1), OneTimePurpose::LoginNonce);
    let outcomes = sidecars.at_once(MANY, |store, _| {
        let entry = entry.clone();
        async move { store.issue(entry).await.unwrap() }
    });
    let outcomes = outcomes.await;
    assert_eq!(count(&outcomes, &Issued::Issued), 1);
    assert_eq!(count(&outcomes, &Issued::Collision), MANY - 1);
}

pub(in crate::store) async fn a_thousand_right_guesses_are_one(sidecars: Sidecars) {
    sidecars.put_code(1).await;
    let outcomes = sidecars.guess_at_once(1, MANY, |_| true).await;
    assert_eq!(count(&outcomes, &Guess::Right), 1);
    assert_eq!(count(&outcomes, &Guess::Unknown), MANY - 1);
}

pub(in crate::store) async fn a_thousand_guesses_are_three(sidecars: Sidecars) {
    sidecars.put_code(1).await;
    let outcomes = sidecars.guess_at_once(1, MANY, |_| false).await;
    for left in [2, 1, 0] {
        assert_eq!(count(&outcomes, &Guess::Wrong { left }), 1);
    }
    assert_eq!(count(&outcomes, &Guess::Exhausted), MANY - 3);
    // Nor is there a fourth for whoever knows the code.
    let outcomes = sidecars.guess_at_once(1, 2, |_| true).await;
    assert_eq!(outcomes, [Guess::Exhausted; 2]);

    // One that is right among others that are not: it is one of three, or too late.
    for n in 2..52 {
        sidecars.put_code(n).await;
        let outcomes = sidecars.guess_at_once(n, 20, |guess| guess == 5).await;
        let right = count(&outcomes, &Guess::Right);
        let wrong = |left| count(&outcomes, &Guess::Wrong { left });
        let all_wrong = wrong(2) + wrong(1) + wrong(0);
        let over = match right {
            1 => count(&outcomes, &Guess::Unknown),
            _ => count(&outcomes, &Guess::Exhausted),
        };
        assert!([2, 1, 0].into_iter().all(|left| wrong(left) <= 1));
        assert!(right + all_wrong <= 3, "{outcomes:?}");
        assert!(right == 1 || all_wrong == 3, "{outcomes:?}");
        assert_eq!(right + all_wrong + over, outcomes.len(), "{outcomes:?}");
    }
}

pub(in crate::store) async fn a_thousand_attempts_are_a_hundred(sidecars: Sidecars) {
    let (now, end) = (sidecars.now, sidecars.now.after(MINUTE));
    let outcomes = sidecars.at_once(MANY, |store, _| async move {
        store.attempt(hash(1), 100, now, end).await.unwrap()
    });
    let outcomes = outcomes.await;
    for n in 1..=100 {
        assert_eq!(count(&outcomes, &Attempt::Counted(n)), 1);
    }
    assert_eq!(count(&outcomes, &Attempt::TooMany), MANY - 100);
}

pub(in crate::store) async fn a_thousand_link_one_account_and_it_is_one_players(
    sidecars: Sidecars,
) {
    let mut players = Vec::new();
    for n in 0..10 {
        let found = log_in(&*sidecars.at(n), &n.to_string()).await;
        players.push((found.player.id, found.session.id));
    }
    let wanted = account("wanted").identity;
    let outcomes = sidecars.at_once(MANY, |store, n| {
        // Either sidecar has all of them.
        let (wanted, (player, session)) = (wanted.clone(), players[n / 2 % players.len()]);
        async move {
            let linked = store.link(wanted, session, Join::Beside);
            (linked.await.unwrap(), player)
        }
    });
    let outcomes = outcomes.await;
    let [owner] = sidecars
        .at(0)
        .account(wanted.clone())
        .await
        .unwrap()
        .map(|a| a.player)
        .as_slice()[..]
    else {
        panic!("nobody's");
    };
    let expected = |linked, of_owner| {
        let outcomes = outcomes.iter();
        let alike = outcomes
            .filter(|(outcome, player)| *outcome == linked && (*player == owner) == of_owner);
        alike.count()
    };
    assert_eq!(expected(Linked::Linked, true), 1);
    assert_eq!(expected(Linked::Already, true), MANY / 10 - 1);
    assert_eq!(expected(Linked::Taken, false), MANY / 10 * 9);
}

/// Two of a player's accounts are taken away at once: one stays.
pub(in crate::store) async fn of_two_that_are_taken_away_at_once_one_stays(sidecars: Sidecars) {
    for n in 0..100 {
        let name = n.to_string();
        let first = account(&name).identity;
        let mut second = first.clone();
        second.provider = "other".to_owned();
        let store = sidecars.at(n);
        let found = log_in(&*store, &name).await;
        let session = found.session.id;
        let linked = store.link(second.clone(), session, Join::Beside);
        assert_eq!(linked.await.unwrap(), Linked::Linked);
        let now = sidecars.now;
        let outcomes = sidecars.at_once(2, |store, n| {
            let identity = [&first, &second][n].clone();
            async move { store.unlink(identity, session, false, now).await.unwrap() }
        });
        let outcomes = outcomes.await;
        // Whichever was first has ended the session in which the other was asked for.
        assert_eq!(count(&outcomes, &Unlinked::Outdated), 1, "{outcomes:?}");
        let left = store.identities(found.player.id).await.unwrap();
        assert_eq!(left.unwrap().len(), 1);
    }
}

/// Whoever revokes a session is sure of it: what it links from then on is refused, wherever it is asked for.
pub(in crate::store) async fn nothing_is_linked_after_its_session_was_revoked(sidecars: Sidecars) {
    for n in 0..100 {
        let name = n.to_string();
        let session = log_in(&*sidecars.at(n), &name).await.session.id;
        let now = sidecars.now;
        let wanted = |which: &str| {
            let mut identity = account(&name).identity;
            which.clone_into(&mut identity.provider);
            identity
        };
        let outcomes = sidecars.at_once(2, |store, n| {
            let identity = wanted("meanwhile");
            async move {
                if n == 1 {
                    store.revoke_session(session, now).await.unwrap();
                    return None;
                }
                Some(store.link(identity, session, Join::Beside).await.unwrap())
            }
        });
        let meanwhile = outcomes.await.into_iter().flatten().next().unwrap();
        let either = [Linked::Linked, Linked::Outdated];
        assert!(either.contains(&meanwhile), "{meanwhile:?}");
        for at in 0..2 {
            let store = sidecars.at(at);
            let late = store.link(wanted("late"), session, Join::Beside).await;
            assert_eq!(late.unwrap(), Linked::Outdated);
            let known = store.account(wanted("meanwhile")).await.unwrap();
            assert_eq!(known.is_some(), meanwhile == Linked::Linked);
        }
    }
}

pub(in crate::store) async fn logins_and_passwords_of_one_account_make_one_player(
    sidecars: Sidecars,
) {
    let now = sidecars.now;
    let outcomes = sidecars.at_once(200, |store, n| async move {
        // Either sidecar has both.
        if n / 2 % 2 == 0 {
            let started = store.start_session(account("ada")).await.unwrap();
            let found = started.found;
            (started.is_new_player, found.player.id, None, Some(found))
        } else {
            let set = store.set_password(account("ada").identity, "$".to_owned(), now);
            let set = set.await.unwrap();
            (set.is_new_player, set.player, Some(set.revision), None)
        }
    });
    let outcomes = outcomes.await;
    assert_eq!(outcomes.iter().filter(|(is_new, ..)| *is_new).count(), 1);
    let known = sidecars.at(0).account(account("ada").identity).await;
    let known = known.unwrap().unwrap();
    assert_eq!(known.identities, [account("ada").identity]);
    assert!(
        outcomes
            .iter()
            .all(|(_, player, ..)| *player == known.player)
    );
    let revisions: HashSet<_> = outcomes
        .iter()
        .filter_map(|(_, _, revision, _)| *revision)
        .collect();
    assert_eq!(revisions.len(), 100, "an event for each password");
    assert_eq!(known.generation, PlayerGeneration(100));
    for found in outcomes.into_iter().filter_map(|(.., found)| found) {
        let store = sidecars.at(1);
        let after = store.session(found.session.id).await.unwrap().unwrap();
        let is_last = found.head == Revision(100);
        assert_eq!(after.revocation().is_none(), is_last, "on one side of each");
    }
}

fn claim(found: &Found, generation: u32) -> RefreshClaim {
    RefreshClaim {
        session: found.session.id,
        generation,
        player_generation: found.session.player_generation,
    }
}

pub(in crate::store) async fn a_thousand_refreshes_of_one_generation_make_one_successor(
    sidecars: Sidecars,
) {
    let found = log_in(&*sidecars.at(0), "ada").await;
    let (claim, now) = (claim(&found, 0), sidecars.now);
    let outcomes = sidecars.at_once(MANY, |store, n| async move {
        // Not all at the same instant, and not in the order of their times either.
        let at = now.after(Duration::from_millis(n as u64 * 7 % 9_999));
        store.refresh(claim, at).await.unwrap()
    });
    let (mut made, mut again) = (Vec::new(), Vec::new());
    for outcome in outcomes.await {
        match outcome {
            Refreshed::Rotated(successor) => made.push(successor),
            Refreshed::Again(successor) => again.push(successor),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((made.len(), again.len()), (1, MANY - 1));
    assert!(again.iter().all(|successor| *successor == made[0]));
    let state = sidecars.at(1).log_state().await.unwrap();
    assert_eq!(state.head, Revision(0));
}

/// What ends a session.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Session,
    Player,
    Password,
}

/// Which of the two comes first.
#[derive(Debug, Clone, Copy)]
enum Order {
    RefreshFirst,
    RevocationFirst,
    AtOnce,
}

/// In every order: once a revocation has returned, nobody gets a token of that session, at either sidecar.
pub(in crate::store) async fn no_refresh_outlives_a_revocation(sidecars: Sidecars) {
    let now = sidecars.now;
    let races = sidecars.at_once(360, |a, n| {
        let b = sidecars.at(n / 2);
        let ending = [Ending::Session, Ending::Player, Ending::Password][n % 3];
        // As many at once as in a given order.
        let order = [
            Order::AtOnce,
            Order::RefreshFirst,
            Order::AtOnce,
            Order::RevocationFirst,
        ][n / 3 % 4];
        async move { race([a, b], ending, order, &n.to_string(), now).await }
    });
    let revisions: HashSet<_> = races.await.into_iter().collect();
    assert_eq!(revisions.len(), 360, "an event for each");
    let state = sidecars.at(1).log_state().await.unwrap();
    assert_eq!(state.head, Revision(360));
}

async fn race(
    [a, b]: [Arc<dyn Store>; 2],
    ending: Ending,
    order: Order,
    subject: &str,
    now: Timestamp,
) -> Revision {
    let found = log_in(&*a, subject).await;
    let id = found.session.id;
    let ended = Refreshed::Ended(Some(EndedBy::Revocation));
    let revoking = async {
        let revision = match ending {
            Ending::Session => match b.revoke_session(id, now).await.unwrap() {
                SessionRevocation::Ended(revision) => revision,
                other => panic!("{other:?}"),
            },
            Ending::Player => match b.revoke_player(found.player.id, now).await.unwrap() {
                PlayerRevocation::Ended {
                    revision,
                    sessions: 1,
                    ..
                } => revision,
                other => panic!("{other:?}"),
            },
            Ending::Password => {
                let identity = account(subject).identity;
                let set = b.set_password(identity, "$".to_owned(), now).await.unwrap();
                assert_eq!(set.sessions, 1);
                set.revision
            }
        };
        // From here on it has returned.
        for store in [&a, &b] {
            let after = store.refresh(claim(&found, 0), now).await.unwrap();
            assert_eq!(after, ended, "{ending:?} {order:?}");
        }
        revision
    };
    // Not before it is waited for: the model does all at the call.
    let refreshing = async { a.refresh(claim(&found, 0), now).await };
    let (before, revision) = match order {
        Order::RefreshFirst => (refreshing.await, revoking.await),
        Order::RevocationFirst => {
            let revision = revoking.await;
            (refreshing.await, revision)
        }
        Order::AtOnce => tokio::join!(refreshing, revoking),
    };
    let before = before.unwrap();
    let was_first = matches!(before, Refreshed::Rotated(_));
    match order {
        Order::RefreshFirst => assert!(was_first, "{before:?}"),
        Order::RevocationFirst => assert_eq!(before, ended),
        Order::AtOnce => assert!(was_first || before == ended, "{before:?}"),
    }
    for store in [&a, &b] {
        let next = store.refresh(claim(&found, 1), now).await.unwrap();
        assert!(matches!(next, Refreshed::Ended(_)), "{next:?}");
        assert_eq!(
            standing(&**store, id, now).await,
            Standing::Ended(EndedBy::Revocation)
        );
        assert_eq!(store.dead_among(vec![id], now).await.unwrap(), [id]);
    }
    revision
}
