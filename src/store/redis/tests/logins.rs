//! What the ways to log in keep, on a server whose clock says how late it is.

use super::*;
use crate::{
    control::Revocation,
    id::{PlayerGeneration, Revision},
    store::{
        Code, Guess, Issued, KeyedHash, Logins, OneTime, OneTimePurpose, Payload, Spent,
        conformance::account,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// Hashes that `redis-cli` can write down.
const LONG: KeyedHash = [b'l'; 32];
const SHORT: KeyedHash = [b's'; 32];
const PURPOSE: OneTimePurpose = OneTimePurpose::MagicLink;

fn entry(key: KeyedHash, expires_at: Timestamp) -> OneTime {
    OneTime {
        key,
        purpose: PURPOSE,
        payload: Payload::new(b"ada@example.com".to_vec()).unwrap(),
        expires_at,
    }
}

fn name(kind: &str, key: KeyedHash) -> String {
    format!("tickgate:{kind}:{}", std::str::from_utf8(&key).unwrap())
}

/// What a caller says of the time counts for nothing, at whichever sidecar.
#[tokio::test]
async fn the_servers_clock_says_what_has_expired() {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let now = Clock::system().wall();
    let soon_over = now.after(Duration::from_millis(300));
    for (key, end) in [(LONG, now.after(10 * MINUTE)), (SHORT, soon_over)] {
        assert_eq!(a.issue(entry(key, end)).await.unwrap(), Issued::Issued);
        let code = Code {
            key,
            hash: LONG,
            expires_at: end,
            tries: 3,
        };
        a.put_code(code).await.unwrap();
    }
    let spend = |key, at| b.spend(key, PURPOSE, at);
    soon(|| async {
        let other = OneTimePurpose::PasswordReset;
        assert_eq!(
            b.spend(SHORT, other, now).await.unwrap(),
            Spent::WrongPurpose
        );
        let guess = b.guess(SHORT, SHORT, now).await.unwrap();
        (guess == Guess::Expired).then_some(())
    })
    .await;
    // An hour ago it was not, by the caller's clock.
    assert_eq!(
        spend(SHORT, now.before(HOUR)).await.unwrap(),
        Spent::Expired
    );
    // And in an hour the others will be.
    let later = now.after(HOUR);
    assert_eq!(b.guess(LONG, LONG, later).await.unwrap(), Guess::Right);
    let spent = Spent::Spent(entry(LONG, now).payload);
    assert_eq!(spend(LONG, later).await.unwrap(), spent);

    // It is the purge's business how long what has expired is known as such; what has not is nobody's.
    assert_eq!(a.purge_logins(now.before(HOUR)).await.unwrap(), 0);
    assert_eq!(spend(SHORT, now).await.unwrap(), Spent::Expired);
    assert_eq!(a.purge_logins(now.after(1_000 * HOUR)).await.unwrap(), 2);
    assert_eq!(spend(SHORT, now).await.unwrap(), Spent::Unknown);
    assert_eq!(b.guess(SHORT, LONG, now).await.unwrap(), Guess::Unknown);
    assert_eq!(spend(LONG, now).await.unwrap(), Spent::AlreadyUsed);
}

/// Where no sidecar purges, it is gone an hour after its end.
#[tokio::test]
async fn what_expires_goes_by_itself_an_hour_later() {
    let server = Server::start();
    let store = open(&server, &Clock::system()).await;
    let now = Clock::system().wall();
    let end = now.after(10 * MINUTE);
    let left = |kind| {
        let told = server.cli(&["PTTL", &name(kind, LONG)]);
        Duration::from_millis(told.trim().parse().unwrap())
    };
    let is_right = |left: Duration| left <= HOUR + 10 * MINUTE && left > HOUR + 9 * MINUTE;
    store.issue(entry(LONG, end)).await.unwrap();
    assert!(is_right(left("one-time")), "{:?}", left("one-time"));
    // Spent, it is kept as long, without what it brought.
    store.spend(LONG, PURPOSE, now).await.unwrap();
    assert!(is_right(left("one-time")), "{:?}", left("one-time"));
    let payload = server.cli(&["HEXISTS", &name("one-time", LONG), "payload"]);
    assert_eq!(payload.trim(), "0");

    let code = Code {
        key: LONG,
        hash: SHORT,
        expires_at: end,
        tries: 3,
    };
    store.put_code(code).await.unwrap();
    store.guess(LONG, LONG, now).await.unwrap();
    assert!(is_right(left("code")), "{:?}", left("code"));
    store.attempt(LONG, 100, now, end).await.unwrap();
    assert!(is_right(left("attempts")), "{:?}", left("attempts"));
    // What was guessed or forgotten is gone at once, from the index too.
    assert_eq!(server.cli(&["ZCARD", "tickgate:expiring"]).trim(), "3");
    store.guess(LONG, SHORT, now).await.unwrap();
    store.forget_attempts(LONG).await.unwrap();
    assert_eq!(server.cli(&["ZCARD", "tickgate:expiring"]).trim(), "1");
}

#[tokio::test]
async fn a_password_set_at_one_is_heard_at_the_other() {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let mut head = b.watch_head();
    let found = log_in(&*a, "ada").await;
    let set = a.set_password(account("ada").identity, "$".to_owned(), Timestamp(0));
    let set = set.await.unwrap();
    assert_eq!((set.revision, set.sessions), (Revision(1), 1));
    let heard = head.wait_for(|head| *head == Revision(1));
    let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
    heard.expect("not heard").unwrap();
    let range = b.log_after(Revision(0), 10).await.unwrap().unwrap();
    let event = Revocation::Player(found.player.id, PlayerGeneration(1));
    assert_eq!(range.events, [event]);
    let known = b.account(account("ada").identity).await.unwrap().unwrap();
    assert_eq!(known.password.as_deref(), Some("$"));
}
