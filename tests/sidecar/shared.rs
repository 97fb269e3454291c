//! Two sidecars over one Redis server: what one does, the other knows, and so do its gateways.

use std::time::Duration;

use tickgate::{clock::Clock, store::RedisSettings};

use super::{fixture::*, redis_server::Server};

/// Two sidecars with the same keys; the second one's system clock is what it is, too.
pub(crate) async fn two(server: &Server) -> [Stage; 2] {
    two_with(server, |_| ()).await
}

/// Two such sidecars with something else in their configuration.
pub(crate) async fn two_with(
    server: &Server,
    configure: impl Fn(&mut SidecarConfig),
) -> [Stage; 2] {
    let first = World::new();
    let second = first.beside();
    let mut stages = Vec::new();
    for world in [first, second] {
        let settings = RedisSettings::new(server.url().parse().unwrap());
        let mut config = SidecarConfig {
            store: StoreChoice::Redis(settings),
            clock: Clock::system(),
            // Tests ask until it is so.
            connect_tokens_per_minute: 1_000_000,
            refreshes_per_minute: 1_000_000,
            ..world.config()
        };
        configure(&mut config);
        stages.push(world.start_with(config).await);
    }
    stages.try_into().ok().unwrap()
}

/// Waits until the gateway has applied the log up to there.
async fn applied(gateway: &Attached, revision: u64) {
    let mut applied = gateway.host.applied.subscribe();
    let heard = applied.wait_for(|applied| *applied >= Revision(revision));
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await;
    heard.expect("not applied").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_sidecar_serves_any_session_and_mints_for_any_gateway() {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let session = a.login("ada").await;
    let me = b.who_am_i(&session.session_token).await.unwrap();
    assert_eq!(me.session_id, session.session_id);
    let none = b.connect_token(&session.session_token).await;
    assert_eq!(code(none), Code::Unavailable);

    let gateway = a.attach().await;
    // The other sidecar hears of it within a moment; asked before, it looks for itself.
    let minting = async {
        loop {
            if let Ok(ticket) = b.connect_token(&session.session_token).await {
                return ticket;
            }
        }
    };
    let ticket = tokio::time::timeout(Duration::from_secs(10), minting).await;
    let ticket = ticket.expect("no ticket");
    assert_eq!(ticket.gateway_id, "eu");
    assert_eq!(ticket.addresses, ["127.0.0.1:7777"]);
    assert_eq!(ticket.certificate_sha256, [vec![7; 32]]);
    // What the backend of B mints is for that very process, under the key that A gave it: the footers agree.
    let of_a = a.backend_token(&session.session_id).await.unwrap();
    let footer = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    assert_eq!(footer(&of_a.token), footer(&ticket.token));

    // A refresh at one is a refresh at the other.
    let fresh = a.refresh(&session.refresh_token).await.unwrap();
    let again = b.refresh(&session.refresh_token).await.unwrap();
    assert_eq!(fresh.expires_at_ms, again.expires_at_ms);
    assert!(b.refresh(&again.refresh_token).await.is_ok());

    // It leaves with its sidecar's leave.
    drop(gateway);
    let gone = async {
        loop {
            let ticket = b.connect_token(&session.session_token).await;
            if ticket.is_err_and(|status| status.code() == Code::Unavailable) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .expect("still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_at_one_reaches_the_gateways_of_the_other() {
    let server = Server::start();
    let [a, b] = two(&server).await;
    let gateway = a.attach().await;
    for n in 1..=20_u64 {
        let session = a.login(&n.to_string()).await;
        let mut admin = b.admin.clone();
        let revoked = admin.revoke_session(revoke(&session.session_id)).await;
        assert_eq!(revoked.unwrap().into_inner().revision, n);
        applied(&gateway, n).await;
    }
    // Whoever waits for all gateways waits for those of the other sidecar as well.
    let session = a.login("last").await;
    let request = proto::RevokeSessionRequest {
        wait: RevokeWait::Gateways.into(),
        ..revoke(&session.session_id)
    };
    let revoked = b.admin.clone().revoke_session(request).await;
    let revoked = revoked.unwrap().into_inner();
    assert!(revoked.acknowledged);
    assert!(*gateway.host.applied.borrow() >= Revision(revoked.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_is_back_disturbs_nobody_for_long() {
    let mut server = Server::start();
    let [a, b] = two(&server).await;
    let gateway = a.attach().await;
    let kept = a.login("ada").await;
    let other = a.login("bob").await;
    server.kill();
    let down = b.who_am_i(&kept.session_token).await;
    assert_eq!(code(down), Code::Unavailable);
    server.restart();
    let back = async { while b.who_am_i(&kept.session_token).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), back)
        .await
        .expect("not back");
    // The gateway has attached again, to a log of another lineage that goes on at the same revision.
    let mut admin = b.admin.clone();
    let revoked = admin.revoke_session(revoke(&other.session_id)).await;
    applied(&gateway, revoked.unwrap().into_inner().revision).await;
    assert!(a.who_am_i(&kept.session_token).await.is_ok());
}
