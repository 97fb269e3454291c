//! The store over TLS, at a real server that speaks nothing else.

use std::path::Path;

use zeroize::Zeroizing;

use super::*;
use crate::{
    certs::{DevCerts, Layout},
    id::Revision,
    store::SessionRevocation,
};

/// An authority's files in a folder, and the PEM of its certificate.
fn authority(folder: &Path) -> (Layout, Vec<u8>) {
    DevCerts::generate(&[]).unwrap().write_to(folder).unwrap();
    let layout = Layout::new(folder);
    let ca = std::fs::read(layout.ca()).unwrap();
    (layout, ca)
}

async fn open(settings: &RedisSettings) -> Result<RedisStore, OpenError> {
    RedisStore::open(settings, LIVES, Clock::system()).await
}

#[tokio::test]
async fn two_stores_share_a_server_over_tls_and_hear_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, ca) = authority(folder.path());
    let files = layout.sidecar();
    let mut server = Server::over_tls(&files.certificate, &files.key);
    let settings = settings(&server).ca(ca);
    let [a, b] = [
        open(&settings).await.unwrap(),
        open(&settings).await.unwrap(),
    ];
    let kept = log_in(&a, "ada").await.session;
    let ended = log_in(&b, "bob").await.session.id;
    let mut head = b.watch_head();
    let revoked = a.revoke_session(ended, Clock::system().wall()).await;
    assert_eq!(revoked.unwrap(), SessionRevocation::Ended(Revision(1)));
    let heard = head.wait_for(|head| *head == Revision(1));
    heard
        .await
        .expect("the other connection, which waits for the log");

    // A new connection is as good as the first.
    server.kill();
    server.restart();
    let back = async {
        loop {
            if let Ok(found) = b.session(kept.id).await {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), back).await;
    assert_eq!(found.unwrap().unwrap().session.id, kept.id);
}

#[tokio::test]
async fn a_password_goes_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, ca) = authority(folder.path());
    let files = layout.sidecar();
    let server = Server::over_tls_with(
        &files.certificate,
        &files.key,
        &["--requirepass", "hunter2"],
    );
    let settings = settings(&server).ca(ca);
    let refused = open(&settings).await.unwrap_err();
    assert_eq!(refused.label(), "redis_log_in", "{refused}");
    let settings = settings.password(Zeroizing::new("hunter2".to_owned()));
    log_in(&open(&settings).await.unwrap(), "ada").await;
}

/// Whoever can put himself between the sidecar and its store owns every session: a server that does not prove its name is none.
#[tokio::test]
async fn a_server_that_cannot_prove_its_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, ca) = authority(&folder.path().join("own"));
    let files = layout.sidecar();
    let server = Server::over_tls(&files.certificate, &files.key);
    let (_, other_ca) = authority(&folder.path().join("other"));
    for (settings, what) in [
        (settings(&server).ca(other_ca), "another authority"),
        (settings(&server), "the system's authorities"),
    ] {
        let refused = open(&settings).await.unwrap_err();
        assert_eq!(refused.label(), "redis_unreachable", "{what}: {refused}");
        let told = refused.to_string().to_lowercase();
        assert!(told.contains("certificate"), "{what}: {refused}");
    }
    let plain = server.url().replace("rediss:", "redis:");
    let refused = open(&RedisSettings::new(plain.parse().unwrap())).await;
    assert_eq!(refused.unwrap_err().label(), "redis_unreachable");

    // A certificate of the right authority, but not the server's.
    let files = layout.backend();
    let posing = Server::over_tls(&files.certificate, &files.key);
    let refused = open(&settings(&posing).ca(ca.clone())).await.unwrap_err();
    assert_eq!(refused.label(), "redis_unreachable");
    assert!(refused.to_string().contains("certificate"), "{refused}");

    assert!(open(&settings(&server).ca(ca)).await.is_ok());
}
