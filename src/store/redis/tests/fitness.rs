//! Servers that are not fit, each refused by name and with what to do.

use super::{server::FIT, *};
use zeroize::Zeroizing;

async fn refused(settings: &RedisSettings) -> OpenError {
    let opened = RedisStore::open(settings, LIVES, Clock::system()).await;
    opened.expect_err("it is not fit")
}

async fn refused_with(changed: &[&str]) -> OpenError {
    let options: Vec<&str> = FIT.iter().chain(changed).copied().collect();
    let server = Server::with(&options);
    refused(&settings(&server)).await
}

#[tokio::test]
async fn what_would_lose_something_is_refused() {
    for (changed, label, advice) in [
        (
            &["--appendonly", "no"][..],
            "redis_appendonly",
            "appendonly yes",
        ),
        (
            &["--appendfsync", "everysec"][..],
            "redis_appendfsync",
            "appendfsync always",
        ),
        (
            &["--maxmemory-policy", "allkeys-lru"][..],
            "redis_eviction",
            "maxmemory-policy noeviction",
        ),
        (
            &["--cluster-enabled", "yes"][..],
            "redis_cluster",
            "cluster-enabled no",
        ),
        (
            &["--replicaof", "127.0.0.1", "9"][..],
            "redis_not_primary",
            "name the primary",
        ),
    ] {
        let error = refused_with(changed).await;
        assert_eq!(error.label(), label, "{error}");
        assert!(error.to_string().contains(advice), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let mut server = Server::start();
    let settings = settings(&server);
    server.kill();
    let error = refused(&settings).await;
    assert_eq!(error.label(), "redis_unreachable");
    assert!(error.to_string().contains(&server.url()), "{error}");
}

#[tokio::test]
async fn a_password_is_asked_for_and_never_told() {
    let secret = "correct horse battery staple";
    let options: Vec<&str> = FIT
        .iter()
        .chain(&["--requirepass", secret])
        .copied()
        .collect();
    let server = Server::with(&options);
    let without = settings(&server);
    assert_eq!(refused(&without).await.label(), "redis_log_in");
    let wrong = without
        .clone()
        .password(Zeroizing::new("wrong horse".to_owned()));
    let error = refused(&wrong).await;
    assert_eq!(error.label(), "redis_log_in", "{error}");
    assert!(!format!("{error} {error:?} {wrong:?}").contains("horse"));
    let right = without.password(Zeroizing::new(secret.to_owned()));
    let store = RedisStore::open(&right, LIVES, Clock::system())
        .await
        .unwrap();
    assert!(!format!("{store:?}").contains("horse"));
    new_session(&store, "ada").await;
}

#[tokio::test]
async fn deployments_on_one_server_do_not_meet() {
    let server = Server::start();
    let by_prefix = settings(&server).prefix("other:");
    let by_database = RedisSettings::new(
        format!("redis://127.0.0.1:{}/3", server.port())
            .parse()
            .unwrap(),
    );
    let first = open(&server, &Clock::system()).await;
    let id = new_session(&first, "ada").await;
    for settings in [by_prefix, by_database] {
        let other = RedisStore::open(&settings, LIVES, Clock::system())
            .await
            .unwrap();
        assert_eq!(other.session(id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn data_of_another_layout_is_left_alone() {
    let server = Server::start();
    drop(open(&server, &Clock::system()).await);
    server.cli(&["HSET", "tickgate:log:state", "layout", "3"]);
    let error = refused(&settings(&server)).await;
    assert_eq!(error.label(), "redis_layout");
    assert_eq!(
        server.cli(&["HGET", "tickgate:log:state", "layout"]).trim(),
        "3"
    );
}
