//! Who may ask what, and what is answered.

use crate::{
    control::{GatewayDescription, GatewayEvent, GatewayEventKind},
    id::Incarnation,
    proto::explain_request::About,
    rpc::Peer,
    sidecar::{
        SessionLives,
        limit::Limit,
        tests::{START, World, world},
    },
    store::Standing,
};

use super::*;

fn api(world: World) -> AdminApi {
    let World { time, sessions, .. } = world;
    let registry = Arc::new(Registry::new(time.clock()));
    let mint = Mint {
        registry: Arc::clone(&registry),
        store: Arc::clone(&sessions.store),
        keys: Arc::clone(&sessions.keys),
        limit: Limit::per_minute(60, &time.clock()),
        clock: time.clock(),
        explain: Arc::clone(&sessions.explain),
        counters: Arc::clone(&sessions.counters),
    };
    AdminApi {
        keys: Arc::clone(&sessions.keys),
        sessions: Arc::new(sessions),
        mint: Arc::new(mint),
        registry,
    }
}

fn request<T>(role: Option<Role>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        role,
    });
    request
}

fn by_admin<T>(message: T) -> Request<T> {
    request(Some(Role::Admin("ann".to_owned())), message)
}

fn by_backend<T>(message: T) -> Request<T> {
    request(Some(Role::Backend("game".to_owned())), message)
}

fn gateway_eu() -> GatewayDescription {
    GatewayDescription {
        id: "eu".parse().unwrap(),
        incarnation: Incarnation(1),
        addresses: vec!["192.0.2.1:7777".parse().unwrap()],
        server_name: "gateway".to_owned(),
        certificate_sha256: vec![[7; 32]],
        capacity: 10,
    }
}

async fn create(api: &AdminApi, subject: &str) -> proto::CreateSessionResponse {
    let subject = subject.to_owned();
    let request = by_backend(proto::CreateSessionRequest { subject });
    api.create_session(request).await.unwrap().into_inner()
}

async fn explained(api: &AdminApi, about: About) -> Result<proto::ExplainResponse, tonic::Code> {
    let request = by_admin(proto::ExplainRequest { about: Some(about) });
    let answer = api.explain(request).await;
    answer
        .map(Response::into_inner)
        .map_err(|status| status.code())
}

#[tokio::test]
async fn operators_alone_list_drain_and_explain() {
    let api = api(world(SessionLives::default()));
    let roles = [
        Some(Role::Backend("game".to_owned())),
        Some(Role::Gateway("eu".parse().unwrap())),
        None,
    ];
    for role in roles {
        let list = request(role.clone(), proto::ListSessionsRequest::default());
        let list = api.list_sessions(list).await.unwrap_err();
        let drain = request(role.clone(), proto::DrainGatewayRequest::default());
        let drain = api.drain_gateway(drain).await.unwrap_err();
        let keys = request(role.clone(), proto::ListKeysRequest {});
        let keys = api.list_keys(keys).await.unwrap_err();
        let explain = request(role, proto::ExplainRequest::default());
        let explain = api.explain(explain).await.unwrap_err();
        for status in [list, drain, keys, explain] {
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
        }
    }
    let gateways = by_backend(proto::ListGatewaysRequest {});
    assert!(api.list_gateways(gateways).await.is_ok());
}

#[tokio::test]
async fn keys_are_told_by_id_and_by_who_lacks_them() {
    let api = api(world(SessionLives::default()));
    let eu = api.registry.attach(&gateway_eu(), &[]).unwrap();
    let list = async || {
        let told = api.list_keys(by_admin(proto::ListKeysRequest {})).await;
        told.unwrap().into_inner().keys
    };
    let keys = list().await;
    let told: Vec<_> = keys
        .iter()
        .map(|key| (key.purpose.as_str(), key.role.as_str(), key.opens_for_ms))
        .collect();
    assert_eq!(
        told,
        [
            ("session", "current", 905_000),
            ("refresh", "current", 86_405_000),
            ("transport", "current", 305_000)
        ]
    );
    assert!(keys.iter().all(|key| key.sealed_at_ms == 0));
    assert_eq!(keys[2].outstanding, ["eu"]);
    let (gateway, process) = (gateway_eu().id, gateway_eu().incarnation);
    let held = api.keys.for_process(&gateway, process);
    let held = held.iter().map(|(_, key)| key.id()).collect();
    api.registry.keys_held(eu, held);
    create(&api, "steam:1").await;
    let keys = list().await;
    assert!(keys[2].outstanding.is_empty());
    let sealed: Vec<_> = keys.iter().map(|key| key.sealed_at_ms).collect();
    assert_eq!(sealed, [START.0, START.0, 0]);
}

#[tokio::test]
async fn a_backend_gets_a_refresh_token_too() {
    let api = api(world(SessionLives::default()));
    let created = create(&api, "steam:1").await;
    let renewed = api.sessions.refresh(&created.refresh_token).await.unwrap();
    assert_eq!(renewed.found.session.id.to_string(), created.session_id);
    assert_eq!(renewed.found.session.generation, 1);
}

#[tokio::test]
async fn sessions_are_listed_by_page() {
    let api = api(world(SessionLives::default()));
    let mut all = Vec::new();
    for n in 0..7 {
        all.push(create(&api, &format!("steam:{}", n % 2)).await);
    }
    let (gone, player) = (all[3].session_id.clone(), all[0].player_id.clone());
    let revoke = proto::RevokeSessionRequest {
        session_id: gone.clone(),
        ..proto::RevokeSessionRequest::default()
    };
    api.revoke_session(by_backend(revoke)).await.unwrap();
    let id = all[6].session_id.parse().unwrap();
    api.registry.attach(&gateway_eu(), &[id]).unwrap();

    let pages = async |asked: proto::ListSessionsRequest| {
        let (mut pages, mut page_token) = (Vec::new(), String::new());
        loop {
            let asked = proto::ListSessionsRequest {
                page_token,
                ..asked.clone()
            };
            let page = api.list_sessions(by_admin(asked)).await.unwrap();
            let page = page.into_inner();
            pages.push(page.sessions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return pages;
            }
        }
    };
    let asked = proto::ListSessionsRequest {
        page_size: 3,
        ..proto::ListSessionsRequest::default()
    };
    let live = pages(asked.clone()).await;
    let lengths: Vec<_> = live.iter().map(Vec::len).collect();
    assert_eq!(lengths, [3, 3], "the last page says that it is the last");
    let mut listed: Vec<_> = live.concat();
    assert!(listed.iter().all(|session| session.session_id != gone));
    assert!(listed.iter().all(|session| session.state == "live"));
    assert!(listed.is_sorted_by(|a, b| a.session_id > b.session_id));
    listed.retain(|session| !session.gateways.is_empty());
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].session_id, all[6].session_id);
    assert_eq!(listed[0].gateways, ["eu"]);

    let ended = proto::ListSessionsRequest {
        include_ended: true,
        ..asked.clone()
    };
    let everything = pages(ended).await.concat();
    assert_eq!(everything.len(), 7);
    let revoked = everything.iter().find(|session| session.session_id == gone);
    assert_eq!(revoked.unwrap().state, "session_revoked");
    let of_one = proto::ListSessionsRequest {
        player_id: player.clone(),
        ..asked
    };
    let of_one = pages(of_one).await.concat();
    assert_eq!(of_one.len(), 4);
    assert!(of_one.iter().all(|session| session.player_id == player));
}

#[tokio::test]
async fn a_malformed_question_for_sessions_is_refused() {
    let api = api(world(SessionLives::default()));
    let usual = proto::ListSessionsRequest::default;
    let bad = [
        proto::ListSessionsRequest {
            player_id: "ada".to_owned(),
            ..usual()
        },
        proto::ListSessionsRequest {
            page_token: "2".to_owned(),
            ..usual()
        },
        proto::ListSessionsRequest {
            page_size: 1_001,
            ..usual()
        },
    ];
    for asked in bad {
        let refused = api.list_sessions(by_admin(asked)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_drain_is_ordered_of_a_gateway_that_is_attached() {
    let api = api(world(SessionLives::default()));
    let drain = async |id: &str, deadline_ms| {
        let asked = proto::DrainGatewayRequest {
            gateway_id: id.to_owned(),
            deadline_ms,
            cancel: false,
        };
        api.drain_gateway(by_admin(asked)).await
    };
    let code = |answer: Result<_, Status>| answer.unwrap_err().code();
    assert_eq!(code(drain("eu", 1_000).await), tonic::Code::NotFound);
    assert_eq!(code(drain("EU", 1_000).await), tonic::Code::InvalidArgument);
    let eu = api.registry.attach(&gateway_eu(), &[]).unwrap();
    assert_eq!(
        code(drain("eu", u64::MAX).await),
        tonic::Code::InvalidArgument
    );
    assert_eq!(drain("eu", 1_000).await.unwrap().into_inner().seats, 0);
    let ordered = Drain::Within(Duration::from_secs(1));
    assert_eq!(api.registry.take_orders(eu).drain, Some(ordered));
    let listed = by_backend(proto::ListGatewaysRequest {});
    let listed = api.list_gateways(listed).await.unwrap().into_inner();
    assert!(listed.gateways[0].draining);
    let session_id = create(&api, "steam:1").await.session_id;
    let asked = proto::AdminIssueConnectTokenRequest {
        session_id,
        target: Some(proto::GatewayTarget {
            target: Some(proto::gateway_target::Target::GatewayId("eu".to_owned())),
        }),
        ..proto::AdminIssueConnectTokenRequest::default()
    };
    let issued = api.issue_connect_token(by_backend(asked)).await;
    assert_eq!(issued.unwrap_err().code(), tonic::Code::Unavailable);
    api.registry.detach(eu);
    assert_eq!(code(drain("eu", 1_000).await), tonic::Code::Unavailable);
}

#[tokio::test]
async fn a_players_story_is_told_and_where_its_revocation_has_arrived() {
    let api = api(world(SessionLives::default()));
    let created = create(&api, "steam:1").await;
    let id: SessionId = created.session_id.parse().unwrap();
    let about = || About::PlayerId(created.player_id.clone());
    let told = explained(&api, about()).await.unwrap();
    assert!(
        told.summary.starts_with("logged in since"),
        "{}",
        told.summary
    );
    assert_eq!(told.sessions.len(), 1);

    let eu = api.registry.attach(&gateway_eu(), &[]).unwrap();
    let asked = proto::AdminIssueConnectTokenRequest {
        session_id: created.session_id.clone(),
        target: Some(proto::GatewayTarget {
            target: Some(proto::gateway_target::Target::Any(true)),
        }),
        ..proto::AdminIssueConnectTokenRequest::default()
    };
    let ticket = api.issue_connect_token(by_backend(asked)).await.unwrap();
    let token = ticket.into_inner().token;
    let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let hash: [u8; 32] = hash.as_ref().try_into().unwrap();
    let refused = |token_sha256| {
        let (reason, code) = ("token_used".into(), 0x23);
        GatewayEvent {
            at: START,
            kind: GatewayEventKind::Refused { reason, code },
            session: None,
            token_sha256,
            remote: Some("192.0.2.7:1".parse().unwrap()),
        }
    };
    let events = [refused(Some(hash)), refused(None)];
    let explain = &api.sessions.explain;
    explain.gateway_events(&gateway_eu().id, events, 0);

    let told = explained(&api, about()).await.unwrap();
    assert!(
        told.summary.starts_with("refused at eu: token_used"),
        "{}",
        told.summary
    );
    let kinds: Vec<_> = told.events.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds, ["logged_in", "token_minted", "refused"]);
    assert_eq!(told.events[1].token_sha256, told.events[2].token_sha256);
    let secrets = [&*token, &created.session_token, &created.refresh_token];
    let text = format!("{told:?}");
    assert!(secrets.iter().all(|secret| !text.contains(secret)));

    // Those that name nobody are the gateway's.
    let door = explained(&api, About::GatewayId("eu".to_owned())).await;
    let door = door.unwrap();
    assert_eq!(door.events.len(), 1);
    assert_eq!(door.events[0].remote, "192.0.2.7:1");
    assert!(door.player_id.is_empty());

    // A revocation has arrived where it was acknowledged, and not before.
    let revoke = proto::RevokePlayerRequest {
        player_id: created.player_id.clone(),
        ..proto::RevokePlayerRequest::default()
    };
    let revoked = api.revoke_player(by_backend(revoke)).await.unwrap();
    let revision = revoked.into_inner().revision;
    let told = explained(&api, About::SessionId(created.session_id.clone())).await;
    let told = told.unwrap();
    assert_eq!(told.player_id, created.player_id);
    assert_eq!(told.revocations[0].revision, revision);
    assert_eq!(told.revocations[0].outstanding, ["eu"]);
    api.registry.acknowledged(eu, Revision(revision));
    let told = explained(&api, about()).await.unwrap();
    assert_eq!(told.revocations.len(), 1);
    assert_eq!(told.revocations[0].arrived, ["eu"]);
    assert!(told.revocations[0].outstanding.is_empty());
    assert!(
        told.summary.starts_with("all sessions were revoked"),
        "{}",
        told.summary
    );
    assert_eq!(told.sessions[0].state, "session_revoked");
    let found = api.sessions.store.session(id).await.unwrap().unwrap();
    let standing = found.standing(START, api.sessions.lives.idle);
    assert_ne!(standing, Standing::Live);
}

#[tokio::test]
async fn what_is_not_known_is_not_explained() {
    let api = api(world(SessionLives::default()));
    let nothing = Err(tonic::Code::NotFound);
    let id = PlayerId(7).to_string();
    assert_eq!(explained(&api, About::PlayerId(id)).await, nothing);
    let id = SessionId(7).to_string();
    assert_eq!(explained(&api, About::SessionId(id)).await, nothing);
    let eu = || About::GatewayId("eu".to_owned());
    assert_eq!(explained(&api, eu()).await, nothing);
    let malformed = explained(&api, About::PlayerId("x".to_owned())).await;
    assert_eq!(malformed, Err(tonic::Code::InvalidArgument));
    // A gateway that is here and has refused nobody is known.
    api.registry.attach(&gateway_eu(), &[]).unwrap();
    assert!(explained(&api, eu()).await.unwrap().events.is_empty());
}

#[test]
fn a_drain_has_a_day_at_most() {
    assert_eq!(drain(0, false).unwrap(), Drain::Within(Duration::ZERO));
    let day = Duration::from_secs(86_400);
    assert_eq!(drain(86_400_000, false).unwrap(), Drain::Within(day));
    assert!(drain(86_400_001, false).is_err());
    assert_eq!(drain(u64::MAX, true).unwrap(), Drain::Cancel);
}

#[test]
fn too_long_a_wait_is_cut_short() {
    let asked = |ms| patience(RevokeWait::Gateways.into(), ms).unwrap();
    assert_eq!(asked(0), Some(DEFAULT_WAIT));
    assert_eq!(asked(1), Some(Duration::from_millis(1)));
    assert_eq!(asked(u32::MAX), Some(LONGEST_WAIT));
    assert_eq!(patience(RevokeWait::Commit.into(), u32::MAX).unwrap(), None);
    assert!(patience(7, 0).is_err());
}
