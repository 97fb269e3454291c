//! What every store must keep for the ways to log in.

use super::*;
use crate::store::{
    Account, Attempt, Code, Guess, Issued, Join, KeyedHash, Linked, MAX_IDENTITIES, MAX_PLACES,
    OneTime, OneTimePurpose, Payload, RefreshClaim, Refreshed, Spent, Unlinked,
};

const MINUTE: Duration = Duration::from_secs(60);

fn key(n: u8) -> KeyedHash {
    [n; 32]
}

fn payload(text: &str) -> Payload {
    Payload::new(text.as_bytes().to_vec()).unwrap()
}

fn entry(n: u8, purpose: OneTimePurpose) -> OneTime {
    OneTime {
        key: key(n),
        purpose,
        payload: payload("ada@example.com"),
        expires_at: START.after(10 * MINUTE),
    }
}

fn code(n: u8, hash: u8) -> Code {
    Code {
        key: key(n),
        hash: key(hash),
        expires_at: START.after(10 * MINUTE),
        tries: 3,
    }
}

fn identity(provider: &str, subject: &str) -> Identity {
    Identity {
        provider: provider.to_owned(),
        subject: subject.to_owned(),
    }
}

async fn player_of(store: &dyn Store, provider: &str, subject: &str) -> Option<Account> {
    store.account(identity(provider, subject)).await.unwrap()
}

pub(in crate::store) async fn what_is_spent_is_spent_once_and_known_as_such(store: Arc<dyn Store>) {
    for (n, purpose) in (1..).zip(OneTimePurpose::ALL) {
        let spend = |purpose, at| store.spend(key(n), purpose, at);
        assert_eq!(spend(purpose, START).await.unwrap(), Spent::Unknown);
        let issued = store.issue(entry(n, purpose)).await.unwrap();
        assert_eq!(issued, Issued::Issued);
        // Whatever else it is presented for, it is still there for what it is for.
        for other in OneTimePurpose::ALL.into_iter().filter(|o| *o != purpose) {
            assert_eq!(spend(other, START).await.unwrap(), Spent::WrongPurpose);
            let again = store.issue(entry(n, other)).await.unwrap();
            assert_eq!(again, Issued::Collision);
        }
        let spent = spend(purpose, START).await.unwrap();
        assert_eq!(spent, Spent::Spent(payload("ada@example.com")));
        assert_eq!(spend(purpose, START).await.unwrap(), Spent::AlreadyUsed);
        // A used one is never issued anew: whoever drew it draws another.
        let again = store.issue(entry(n, purpose)).await.unwrap();
        assert_eq!(again, Issued::Collision);
    }
    let late = entry(100, OneTimePurpose::MagicLink);
    store.issue(late.clone()).await.unwrap();
    let spend = |at| store.spend(late.key, late.purpose, at);
    assert_eq!(spend(late.expires_at).await.unwrap(), Spent::Expired);
    let last = late.expires_at.before(Duration::from_millis(1));
    assert_eq!(spend(last).await.unwrap(), Spent::Spent(late.payload));
    assert_eq!(spend(late.expires_at).await.unwrap(), Spent::AlreadyUsed);
}

pub(in crate::store) async fn a_code_has_as_many_guesses_as_it_has_tries(store: Arc<dyn Store>) {
    let guess = |n, hash, at| store.guess(key(n), key(hash), at);
    assert_eq!(guess(1, 9, START).await.unwrap(), Guess::Unknown);
    store.put_code(code(1, 9)).await.unwrap();
    store.put_code(code(2, 9)).await.unwrap();
    for left in [2, 1, 0] {
        assert_eq!(guess(1, 8, START).await.unwrap(), Guess::Wrong { left });
    }
    // Not even the right one.
    for hash in [9, 8, 9] {
        assert_eq!(guess(1, hash, START).await.unwrap(), Guess::Exhausted);
    }
    // Another code is another matter, and is worth something once.
    let end = code(2, 9).expires_at;
    assert_eq!(guess(2, 9, end).await.unwrap(), Guess::Expired);
    assert_eq!(guess(2, 9, START).await.unwrap(), Guess::Right);
    assert_eq!(guess(2, 9, START).await.unwrap(), Guess::Unknown);
    // A new code takes the place of the old one, with guesses of its own.
    store.put_code(code(1, 7)).await.unwrap();
    let wrong = Guess::Wrong { left: 2 };
    assert_eq!(guess(1, 9, START).await.unwrap(), wrong);
    assert_eq!(guess(1, 7, START).await.unwrap(), Guess::Right);
}

pub(in crate::store) async fn attempts_in_a_row_are_counted_before_they_are_made(
    store: Arc<dyn Store>,
) {
    let end = START.after(MINUTE);
    for n in 1..=100 {
        let attempt = store.attempt(key(1), 100, START, end).await.unwrap();
        assert_eq!(attempt, Attempt::Counted(n));
    }
    // Another account is not concerned, and neither is this one once it has been proved.
    let attempt = |n, at| store.attempt(key(n), 100, at, end);
    assert_eq!(attempt(2, START).await.unwrap(), Attempt::Counted(1));
    assert_eq!(attempt(1, START).await.unwrap(), Attempt::TooMany);
    store.forget_attempts(key(1)).await.unwrap();
    assert_eq!(attempt(1, START).await.unwrap(), Attempt::Counted(1));
    // They are forgotten in time.
    assert_eq!(attempt(2, end).await.unwrap(), Attempt::Counted(1));
}

pub(in crate::store) async fn an_account_is_linked_once_and_players_never_merge(
    store: Arc<dyn Store>,
) {
    let found = log_in(&*store, "ada").await;
    let (player, ada) = (found.player.id, found.session.id);
    let bob = log_in(&*store, "bob").await.session.id;
    let link = |subject: &str, by, join| store.link(identity("email", subject), by, join);
    for (subject, by, join, expected) in [
        ("a@x.org", ada, Join::Only, Linked::Linked),
        ("a@x.org", ada, Join::Only, Linked::Already),
        ("a@x.org", bob, Join::Instead, Linked::Taken),
        ("b@x.org", ada, Join::Only, Linked::HasOne),
        ("b@x.org", ada, Join::Beside, Linked::Linked),
        ("c@x.org", ada, Join::Instead, Linked::Linked),
    ] {
        let outcome = link(subject, by, join).await.unwrap();
        assert_eq!(outcome, expected, "{subject}");
    }
    for free in ["a@x.org", "b@x.org"] {
        assert_eq!(player_of(&*store, "email", free).await, None);
    }
    let account = player_of(&*store, "email", "c@x.org").await.unwrap();
    assert_eq!(account.player, player);
    let expected = [identity("dev", "ada"), identity("email", "c@x.org")];
    assert_eq!(account.identities, expected);
    let told = store.identities(player).await.unwrap();
    assert_eq!(told, Some(account.identities.clone()));
    assert_eq!(store.identities(PlayerId(7)).await.unwrap(), None);
    assert_eq!(player_of(&*store, "dev", "ada").await, Some(account));
    // What was linked logs the same player in.
    let mut by_email = super::account("c@x.org");
    by_email.identity.provider = "email".to_owned();
    let started = store.start_session(by_email).await.unwrap();
    assert_eq!(started.found.player.id, player);
    assert!(!started.is_new_player);
    for n in 2..MAX_IDENTITIES {
        let device = identity("device", &n.to_string());
        let linked = store.link(device, ada, Join::Beside).await.unwrap();
        assert_eq!(linked, Linked::Linked);
    }
    let last = store.link(identity("device", "x"), ada, Join::Beside);
    assert_eq!(last.await.unwrap(), Linked::TooMany);
}

/// Of a session that was revoked, alone or with all of its player's, nothing is linked; of another one of the player's it is.
pub(in crate::store) async fn whoever_was_put_out_links_nothing(store: Arc<dyn Store>) {
    let email = || identity("email", "d@x.org");
    let unknown = store.link(email(), SessionId(7), Join::Beside).await;
    assert_eq!(unknown.unwrap(), Linked::Outdated);
    let first = log_in(&*store, "bob").await;
    let second = log_in(&*store, "bob").await.session.id;
    store.revoke_session(first.session.id, START).await.unwrap();
    let out = store.link(email(), first.session.id, Join::Beside).await;
    assert_eq!(out.unwrap(), Linked::Outdated);
    store.revoke_player(first.player.id, START).await.unwrap();
    let out = store.link(email(), second, Join::Beside).await;
    assert_eq!(out.unwrap(), Linked::Outdated);
    assert_eq!(player_of(&*store, "email", "d@x.org").await, None);
    let third = log_in(&*store, "bob").await.session.id;
    let back = store.link(email(), third, Join::Only).await;
    assert_eq!(back.unwrap(), Linked::Linked);
}

pub(in crate::store) async fn an_account_is_taken_away_with_whoever_came_in_by_it(
    store: Arc<dyn Store>,
) {
    let email = || identity("email", "ada@x.org");
    let (dev, device) = (|| identity("dev", "ada"), || identity("device", "1"));
    let found = log_in(&*store, "ada").await;
    let (player, session) = (found.player.id, found.session.id);
    let unlink = |identity, by, with_password| store.unlink(identity, by, with_password, START);
    assert_eq!(
        unlink(dev(), session, false).await.unwrap(),
        Unlinked::LastOne
    );
    store.link(email(), session, Join::Only).await.unwrap();
    store.link(device(), session, Join::Beside).await.unwrap();
    let bob = log_in(&*store, "bob").await.session.id;
    let foreign = unlink(email(), bob, false).await.unwrap();
    assert_eq!(foreign, Unlinked::NotTheirs);
    let nobodys = unlink(identity("device", "2"), session, false).await;
    assert_eq!(nobodys.unwrap(), Unlinked::NotTheirs);

    log_in(&*store, "ada").await;
    let taken = unlink(device(), session, false).await.unwrap();
    let revision = Revision(1);
    let sessions = 2;
    assert_eq!(taken, Unlinked::Unlinked { revision, sessions });
    assert_eq!(store.account(device()).await.unwrap(), None);
    let left = store.identities(player).await.unwrap();
    assert_eq!(left, Some(vec![dev(), email()]));
    let range = store.log_after(Revision(0), 10).await.unwrap().unwrap();
    let event = Revocation::Player(player, PlayerGeneration(1));
    assert_eq!(range.events, [event]);
    // That session is over, and has no say any more.
    let ended = Standing::Ended(EndedBy::Revocation);
    assert_eq!(standing(&*store, session, START).await, ended);
    let late = unlink(email(), session, false).await.unwrap();
    assert_eq!(late, Unlinked::Outdated);

    // A password goes with the account that it was for, and with no other.
    let set = store.set_password(email(), "$argon2id$1".to_owned(), START);
    set.await.unwrap();
    let password = || async {
        let account = player_of(&*store, "dev", "ada").await.unwrap();
        account.password
    };
    let session = log_in(&*store, "ada").await.session.id;
    store.link(device(), session, Join::Beside).await.unwrap();
    unlink(device(), session, false).await.unwrap();
    assert!(password().await.is_some());
    let session = log_in(&*store, "ada").await.session.id;
    unlink(email(), session, true).await.unwrap();
    assert_eq!(password().await, None);
    // It is anybody's who proves it now.
    let session = log_in(&*store, "bob").await.session.id;
    let linked = store.link(email(), session, Join::Only).await.unwrap();
    assert_eq!(linked, Linked::Linked);
}

pub(in crate::store) async fn places_are_remembered_of_each_account(store: Arc<dyn Store>) {
    let place = |n: usize| [n as u8; 16];
    let end = START.after(10 * MINUTE);
    let known = |n, of, at| store.known_place(key(n), place(of), at);
    let remember = |n, of, at, end| store.remember_place(key(n), place(of), at, end);
    assert_eq!(known(1, 0, START).await.unwrap(), None);
    remember(1, 0, START, end).await.unwrap();
    assert_eq!(known(1, 0, START).await.unwrap(), Some(end));
    assert_eq!(known(1, 1, START).await.unwrap(), None, "another place");
    assert_eq!(known(2, 0, START).await.unwrap(), None, "another account");
    // The oldest goes, and one that is seen again is not the oldest.
    for of in 1..MAX_PLACES {
        remember(1, of, START, end).await.unwrap();
    }
    remember(1, 0, START, end).await.unwrap();
    remember(1, MAX_PLACES, START, end).await.unwrap();
    assert_eq!(known(1, 1, START).await.unwrap(), None);
    for of in (0..=MAX_PLACES).filter(|of| *of != 1) {
        assert_eq!(known(1, of, START).await.unwrap(), Some(end), "{of}");
    }
    // All live on with each of them, and are forgotten together.
    let later = end.after(MINUTE);
    remember(1, 2, START, later).await.unwrap();
    assert_eq!(known(1, 0, end).await.unwrap(), Some(later));
    assert_eq!(known(1, 0, later).await.unwrap(), None);
    remember(1, 3, later, later.after(MINUTE)).await.unwrap();
    assert_eq!(known(1, 0, later).await.unwrap(), None);
    let purged = later.after(MINUTE + Duration::from_millis(1));
    assert_eq!(store.purge_logins(purged).await.unwrap(), 1);
    assert_eq!(known(1, 3, later).await.unwrap(), None);
}

pub(in crate::store) async fn a_password_ends_every_session_and_makes_the_player_if_need_be(
    store: Arc<dyn Store>,
) {
    let email = || identity("email", "ada@x.org");
    let made = store.set_password(email(), "$argon2id$1".to_owned(), START);
    let made = made.await.unwrap();
    assert!(made.is_new_player);
    let account = player_of(&*store, "email", "ada@x.org").await.unwrap();
    assert_eq!(account.player, made.player);
    assert_eq!(account.password.as_deref(), Some("$argon2id$1"));
    assert_eq!(account.identities, [email()]);

    let mut login = super::account("ada@x.org");
    login.identity = email();
    let found = store.start_session(login).await.unwrap().found;
    assert_eq!(found.player.id, made.player);
    let set = store.set_password(email(), "$argon2id$2".to_owned(), START);
    let set = set.await.unwrap();
    assert!(!set.is_new_player);
    assert_eq!((set.player, set.sessions), (made.player, 1));
    let ended = Standing::Ended(EndedBy::Revocation);
    assert_eq!(standing(&*store, found.session.id, START).await, ended);
    let range = store.log_after(made.revision, 10).await.unwrap().unwrap();
    let after = player_of(&*store, "email", "ada@x.org").await.unwrap();
    assert_eq!(range.to, set.revision);
    let event = Revocation::Player(made.player, after.generation);
    assert_eq!(range.events, [event]);
    assert!(after.generation > account.generation);
    assert_eq!(after.password.as_deref(), Some("$argon2id$2"));
}

pub(in crate::store) async fn a_role_is_set_and_told_with_the_next_refresh(store: Arc<dyn Store>) {
    let found = log_in(&*store, "ada").await;
    let role = |player, role: &str| store.set_role(player, role.to_owned());
    let before = role(found.player.id, "moderator").await.unwrap();
    assert_eq!(before.as_deref(), Some("player"));
    assert_eq!(role(PlayerId(7), "moderator").await.unwrap(), None);
    let claim = RefreshClaim {
        session: found.session.id,
        generation: 0,
        player_generation: found.session.player_generation,
    };
    let Refreshed::Rotated(successor) = store.refresh(claim, START).await.unwrap() else {
        panic!("not rotated");
    };
    assert_eq!(successor.role, "moderator");
}

pub(in crate::store) async fn purging_logins_takes_what_expired_used_or_not(store: Arc<dyn Store>) {
    let purpose = OneTimePurpose::PasswordReset;
    for n in 1..=3 {
        store.issue(entry(n, purpose)).await.unwrap();
        store.put_code(code(n, 9)).await.unwrap();
    }
    store.spend(key(1), purpose, START).await.unwrap();
    let mut longer = entry(3, purpose);
    longer.key = key(4);
    longer.expires_at = longer.expires_at.after(MINUTE);
    store.issue(longer.clone()).await.unwrap();
    let end = code(1, 9).expires_at;
    let attempt = store.attempt(key(5), 100, START, START.after(MINUTE));
    attempt.await.unwrap();
    // Moved on: what it was to be forgotten at does not count any more.
    let attempt = store.attempt(key(5), 100, START, end);
    attempt.await.unwrap();

    assert_eq!(store.purge_logins(end).await.unwrap(), 0);
    let after = end.after(Duration::from_millis(1));
    assert_eq!(store.purge_logins(after).await.unwrap(), 7);
    for n in 1..=3 {
        let spent = store.spend(key(n), purpose, START).await.unwrap();
        assert_eq!(spent, Spent::Unknown);
        let guess = store.guess(key(n), key(9), START).await.unwrap();
        assert_eq!(guess, Guess::Unknown);
    }
    let spent = store.spend(longer.key, purpose, START).await.unwrap();
    assert_eq!(spent, Spent::Spent(longer.payload));
    assert_eq!(store.purge_logins(after).await.unwrap(), 0);
}
