//! A sidecar that is killed in mid-play and started again, as a real process: nobody in play notices, nothing acknowledged is lost.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{Host, connect, endpoint, plays, process::Deployment, soon};
use tickgate::{
    client::{Account, Backend, CallError, Closed, Connection, Session, Target, Wait},
    clock::Clock,
    gateway::GatewayConfig,
    wire::CloseCode,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const PLAYERS: usize = 20;

/// The wire between gateway and sidecar, which a test can cut.
struct Wire {
    address: SocketAddr,
    leads_to: Arc<Mutex<Option<SocketAddr>>>,
    carried: Arc<Mutex<JoinSet<()>>>,
}

impl Wire {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leads_to = Arc::new(Mutex::new(Some(target)));
        let carried: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let (target, set) = (Arc::clone(&leads_to), Arc::clone(&carried));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let Some(target) = *target.lock().unwrap() else {
                    continue;
                };
                set.lock().unwrap().spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self {
            address,
            leads_to,
            carried,
        }
    }

    fn cut(&self) {
        *self.leads_to.lock().unwrap() = None;
        self.carried.lock().unwrap().abort_all();
    }

    fn mend(&self, target: SocketAddr) {
        *self.leads_to.lock().unwrap() = Some(target);
    }
}

/// Logs in and revokes as fast as it goes until the sidecar is gone, and gives what was acknowledged: sessions, and whether revoked.
async fn storm(
    account: Account,
    backend: Backend,
    worker: usize,
    counted: Arc<Mutex<usize>>,
) -> Vec<(Session, bool)> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let Ok(session) = account.login_dev(&format!("storm-{worker}-{n}")).await else {
            break;
        };
        *counted.lock().unwrap() += 1;
        let revoke = n % 3 == 0;
        let id = session.id;
        // A revocation that was sent and not acknowledged may or may not have been made: it tells nothing.
        if revoke && backend.revoke_session(id, Wait::Commit).await.is_err() {
            break;
        }
        acknowledged.push((session, revoke));
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sidecar_loses_nothing_and_nobody() {
    let deployment = Deployment::of(&["one"]);
    let certs = &deployment.certs;
    let mut first = deployment.sidecar("");
    let wire = Wire::to(first.control).await;
    let mut config = GatewayConfig::new(
        "one".parse().unwrap(),
        "127.0.0.1:0".parse().unwrap(),
        certs.gateways[0].quic.clone(),
    );
    config.server_name = tickgate::certs::DEV_SERVER_NAME.to_owned();
    config.clock = Clock::system();
    let gateway = Host::start(config, certs, wire.address).await;

    let socket = endpoint();
    let mut players: Vec<(Session, Connection)> = Vec::new();
    for n in 0..PLAYERS {
        let session = first
            .account
            .login_dev(&format!("player-{n}"))
            .await
            .unwrap();
        let ticket = first
            .account
            .issue_connect_token(&session, Target::Any)
            .await
            .unwrap();
        let connection = connect(&socket, &ticket).await.unwrap();
        plays(&connection).await;
        players.push((session, connection));
    }

    // Killed in the middle of a storm of logins and revocations.
    let counted = Arc::new(Mutex::new(0));
    let mut storms = JoinSet::new();
    for worker in 0..8 {
        storms.spawn(storm(
            first.account.clone(),
            first.backend.clone(),
            worker,
            Arc::clone(&counted),
        ));
    }
    soon("a storm", async {
        while *counted.lock().unwrap() < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    first.process.kill();
    let acknowledged: Vec<_> = soon("the storm's end", storms.join_all())
        .await
        .into_iter()
        .flatten()
        .collect();
    assert!(acknowledged.len() >= 80);

    gateway.attached(false).await;
    for (_, connection) in &players {
        plays(connection).await;
    }

    // Started again on the same store: the gateway comes back by itself.
    let second = deployment.sidecar("");
    wire.mend(second.control);
    gateway.attached(true).await;
    for (session, revoked) in &acknowledged {
        match second.account.who_am_i(&session.token).await {
            Ok(identified) => {
                assert_eq!(identified.session, session.id);
                assert!(!revoked, "{} was revoked and lives", session.id);
            }
            Err(CallError::Ended { .. } | CallError::Unauthenticated { .. }) => {
                assert!(revoked, "{} was acknowledged and is lost", session.id);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    for (_, connection) in &players {
        plays(connection).await;
        assert!(connection.close_reason().is_none());
    }

    // A revocation while the gateway is cut off: it cannot know, and learns when it is back.
    wire.cut();
    gateway.attached(false).await;
    let (session, revoked) = players.remove(0);
    let answer = second
        .backend
        .revoke_session(session.id, Wait::Commit)
        .await
        .unwrap();
    assert_eq!(answer.sessions_ended, 1);
    plays(&revoked).await;
    wire.mend(second.control);
    match soon("close", revoked.closed()).await {
        Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::SessionRevoked),
        other => panic!("{other:?}"),
    }
    assert!(!gateway.seats(session.id));
    for (_, connection) in &players {
        plays(connection).await;
    }
    assert_eq!(gateway.joins(), PLAYERS, "nobody had to join twice");
    gateway.stop().await;
}
