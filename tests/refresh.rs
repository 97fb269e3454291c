//! Refresh while players play, over real gRPC, real QUIC and the real control channel: nobody notices an honest one, and a stolen token
//! ends the session it was stolen from.
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
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use support::{Host, Stack, connect, endpoint, plays, soon};
use tickgate::{
    client::{Closed, Connection, Endpoint},
    clock::Timestamp,
    proto::{self, auth_service_client::AuthServiceClient, gateway_target, login_request},
    rpc,
    seat::{EndReason, SeatChange},
    tls,
    token::{RefreshClaims, RefreshKey, RefreshKeyring, SessionClaims, SessionKey, SessionKeyring},
    wire::CloseCode,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Channel};

const SESSION_KEY: [u8; 32] = [1; 32];
const REFRESH_KEY: [u8; 32] = [2; 32];

/// Calls at the same instant: what one bar asks for, and the players of the other.
const MANY: usize = 1_000;

async fn stack() -> Stack {
    Stack::start_with(|config| {
        config.keys.session = SessionKey::from_bytes(&SESSION_KEY).into();
        config.keys.refresh = RefreshKey::from_bytes(&REFRESH_KEY).into();
        // It is what becomes of all of them that is looked for here.
        config.refreshes_per_minute = 6_000;
    })
    .await
}

/// A player's client, down to the messages.
#[derive(Clone)]
struct Client(AuthServiceClient<Channel>);

impl Client {
    fn of(stack: &Stack) -> Self {
        let ca = std::slice::from_ref(&stack.certs.ca);
        let tls = tls::rpc_client_config(ca, None).unwrap();
        let url = format!("https://{}", stack.sidecar.addresses().auth);
        Self(AuthServiceClient::new(
            rpc::connect(&url, None, Some(tls)).unwrap(),
        ))
    }

    async fn login(&self, name: &str) -> proto::LoginResponse {
        let method = login_request::Method::Dev(proto::DevLogin { name: name.into() });
        let request = proto::LoginRequest {
            method: Some(method),
            link: false,
        };
        self.0.clone().login(request).await.unwrap().into_inner()
    }

    async fn refresh(&self, refresh_token: &str) -> Result<proto::RefreshResponse, Status> {
        let request = proto::RefreshRequest {
            refresh_token: refresh_token.to_owned(),
        };
        let answer = self.0.clone().refresh(request).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn ticket(&self, session_token: &str) -> proto::ConnectTicket {
        let target = gateway_target::Target::GatewayId("one".to_owned());
        let mut request = Request::new(proto::IssueConnectTokenRequest {
            target: Some(proto::GatewayTarget {
                target: Some(target),
            }),
            ..Default::default()
        });
        let bearer = format!("Bearer {session_token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let ticket = self.0.clone().issue_connect_token(request).await;
        ticket.unwrap().into_inner()
    }

    /// Logs in and plays on gateway "one".
    async fn join(&self, name: &str, endpoint: &Endpoint) -> (proto::LoginResponse, Connection) {
        let login = self.login(name).await;
        let ticket = self.ticket(&login.session_token).await;
        let connection = connect(endpoint, &ticket.try_into().unwrap()).await;
        let connection = connection.unwrap();
        plays(&connection).await;
        (login, connection)
    }
}

/// What both of the tokens claim.
fn claims(tokens: &proto::RefreshResponse, now: Timestamp) -> (SessionClaims, RefreshClaims) {
    let sessions = SessionKeyring::new(SessionKey::from_bytes(&SESSION_KEY), None);
    let refreshes = RefreshKeyring::new(RefreshKey::from_bytes(&REFRESH_KEY), None);
    (
        sessions.open(&tokens.session_token, now).unwrap(),
        refreshes.open(&tokens.refresh_token, now).unwrap(),
    )
}

async fn refused(client: &Client, refresh_token: &str) {
    let refused = client.refresh(refresh_token).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

async fn is_revoked(gateway: &Host, connection: &Connection) {
    match soon("close", connection.closed()).await {
        Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::SessionRevoked),
        other => panic!("closed otherwise: {other:?}"),
    }
    gateway
        .told("the end", |change| {
            matches!(change, SeatChange::Ended { reason, .. } if *reason == EndReason::SessionRevoked)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_refreshes_of_one_generation_are_one_and_reuse_closes_the_seat() {
    let stack = stack().await;
    let gateway = stack.plain_gateway("one").await;
    let client = Client::of(&stack);
    let endpoint = endpoint();
    let (ann, anns) = client.join("ann", &endpoint).await;
    let (bob, bobs) = client.join("bob", &endpoint).await;

    let now = stack.time.clock().wall();
    let mut refreshes = JoinSet::new();
    for _ in 0..MANY {
        let (client, token) = (client.clone(), ann.refresh_token.clone());
        refreshes.spawn(async move { client.refresh(&token).await.unwrap() });
    }
    let answers = soon("refreshes", refreshes.join_all()).await;
    assert_eq!(answers.len(), MANY);
    let successor = claims(&answers[0], now);
    assert_eq!((successor.0.generation, successor.1.generation), (1, 1));
    assert_eq!(successor.0.session.to_string(), ann.session_id);
    for answer in &answers {
        assert_eq!(claims(answer, now), successor);
    }
    plays(&anns).await;

    // A lost answer may be asked for again within the grace; any of the answers is the successor.
    stack.time.advance(Duration::from_millis(9_999));
    let again = client.refresh(&ann.refresh_token).await.unwrap();
    assert_eq!(claims(&again, now), successor);
    let next = client.refresh(&answers[500].refresh_token).await.unwrap();
    let next_claims = claims(&next, stack.time.clock().wall());
    assert_eq!((next_claims.0.generation, next_claims.1.generation), (2, 2));
    plays(&anns).await;

    // Whoever comes with the first one now has stolen it, or was stolen from.
    refused(&client, &ann.refresh_token).await;
    is_revoked(&gateway, &anns).await;
    for dead in [&next.refresh_token, &again.refresh_token] {
        refused(&client, dead).await;
    }

    // The same when the grace is over, the successor unused.
    let fresh = client.refresh(&bob.refresh_token).await.unwrap();
    plays(&bobs).await;
    stack.time.advance(Duration::from_secs(10));
    refused(&client, &bob.refresh_token).await;
    match soon("close", bobs.closed()).await {
        Closed::Gateway { code, .. } => assert_eq!(code, CloseCode::SessionRevoked),
        other => panic!("closed otherwise: {other:?}"),
    }
    refused(&client, &fresh.refresh_token).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_closes_the_seat_and_leaves_others_in_play() {
    let stack = stack().await;
    let gateway = stack.plain_gateway("one").await;
    let client = Client::of(&stack);
    let endpoint = endpoint();
    let (ann, anns) = client.join("ann", &endpoint).await;
    let (_, bobs) = client.join("bob", &endpoint).await;
    let request = proto::LogoutRequest {
        refresh_token: ann.refresh_token.clone(),
    };
    let answer = client.0.clone().logout(request).await.unwrap();
    assert!(answer.into_inner().ended);
    is_revoked(&gateway, &anns).await;
    plays(&bobs).await;
    refused(&client, &ann.refresh_token).await;
    gateway.stop().await;
}

/// A player in play, who goes on until told to stop.
struct Playing {
    login: proto::LoginResponse,
    connection: Arc<Connection>,
}

/// Endpoints, each with an address of its own: a gateway counts handshakes by where they come from.
fn endpoints(count: u8) -> Vec<Endpoint> {
    (1..=count)
        .map(|n| Endpoint::bind(SocketAddr::from((Ipv4Addr::new(127, 0, 3, n), 0))).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_players_refresh_in_mid_play_and_nobody_is_disturbed() {
    let stack = stack().await;
    let gateway = stack.plain_gateway("one").await;
    let client = Client::of(&stack);
    let endpoints = endpoints(20);

    // Few at a time, so that each is admitted within the deadlines of a handshake.
    let at_once = Arc::new(Semaphore::new(40));
    let mut joining = JoinSet::new();
    for n in 0..MANY {
        let (client, at_once) = (client.clone(), Arc::clone(&at_once));
        let endpoint = endpoints[n % endpoints.len()].clone();
        joining.spawn(async move {
            let _turn = at_once.acquire_owned().await.unwrap();
            let (login, connection) = client.join(&format!("player-{n}"), &endpoint).await;
            Playing {
                login,
                connection: Arc::new(connection),
            }
        });
    }
    let players = joining.join_all().await;
    assert_eq!(gateway.joins(), MANY);

    // All of them go on playing meanwhile.
    let over = CancellationToken::new();
    let mut games = JoinSet::new();
    for Playing { connection, .. } in &players {
        let (connection, over) = (Arc::clone(connection), over.clone());
        games.spawn(async move {
            let mut rounds = 0;
            while !over.is_cancelled() {
                plays(&connection).await;
                rounds += 1;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            rounds
        });
    }
    let mut renewed = Vec::new();
    for generation in 1..=2 {
        let mut refreshes = JoinSet::new();
        for (n, Playing { login, .. }) in players.iter().enumerate() {
            let tokens: &Vec<proto::RefreshResponse> = &renewed;
            let token = match tokens.get(n) {
                Some(newer) => newer.refresh_token.clone(),
                None => login.refresh_token.clone(),
            };
            let client = client.clone();
            refreshes.spawn(async move { (n, client.refresh(&token).await.unwrap()) });
        }
        let mut answers = soon("refreshes", refreshes.join_all()).await;
        answers.sort_by_key(|(n, _)| *n);
        renewed = answers.into_iter().map(|(_, answer)| answer).collect();
        let now = stack.time.clock().wall();
        for (answer, Playing { login, .. }) in renewed.iter().zip(&players) {
            assert_eq!(answer.session_id, login.session_id);
            assert_eq!(answer.session_ends_at_ms, login.session_ends_at_ms);
            assert_eq!(claims(answer, now).0.generation, generation);
        }
    }
    over.cancel();
    let rounds = games.join_all().await;
    assert!(rounds.into_iter().all(|rounds: u32| rounds > 0));

    // Not one seat has moved, and every connection still carries traffic both ways.
    for Playing { connection, .. } in &players {
        assert_eq!(connection.close_reason(), None);
    }
    let changes = gateway.changes.lock().unwrap().clone();
    assert_eq!(changes.len(), MANY);
    let joined = |change: &SeatChange| matches!(change, SeatChange::Joined(_));
    assert!(changes.iter().all(joined));
    // What was refreshed is as good as new.
    let ticket = client.ticket(&renewed[7].session_token).await;
    assert_eq!(ticket.session_id, players[7].login.session_id);
    gateway.stop().await;
}
