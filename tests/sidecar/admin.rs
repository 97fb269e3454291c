//! What backends and operators are answered, and who is refused.

use super::fixture::*;

#[tokio::test]
async fn roles_are_what_certificates_say() {
    let stage = Stage::up().await;
    let admin_address = stage.sidecar.addresses().admin;
    let gateway = &stage.world.certs.gateways[0].control;
    let mut as_gateway = AdminServiceClient::new(stage.world.channel(admin_address, Some(gateway)));
    let list = || proto::ListGatewaysRequest {};
    assert_eq!(
        code(as_gateway.list_gateways(list()).await),
        Code::PermissionDenied
    );
    assert_eq!(
        code(as_gateway.create_session(create("x")).await),
        Code::PermissionDenied
    );
    let nobody = "0".repeat(26);
    assert_eq!(
        code(as_gateway.revoke_session(revoke(&nobody)).await),
        Code::PermissionDenied
    );
    let player = proto::RevokePlayerRequest::default();
    assert_eq!(
        code(as_gateway.revoke_player(player).await),
        Code::PermissionDenied
    );
    let issue = proto::AdminIssueConnectTokenRequest::default();
    assert_eq!(
        code(as_gateway.issue_connect_token(issue).await),
        Code::PermissionDenied
    );

    let mut anonymous = AdminServiceClient::new(stage.world.channel(admin_address, None));
    assert!(
        anonymous.list_gateways(list()).await.is_err(),
        "TLS ends it"
    );

    let operator = Some(&stage.world.certs.admin);
    let mut operator = AdminServiceClient::new(stage.world.channel(admin_address, operator));
    let listed = operator.list_gateways(list()).await.unwrap().into_inner();
    assert!(listed.gateways.is_empty());
    stage.down().await;
}

#[tokio::test]
async fn a_backend_brings_its_players() {
    let stage = Stage::up().await;
    let gateway = stage.attach().await;
    let mut admin = stage.admin.clone();
    for bad in [create(""), create(&"x".repeat(257))] {
        assert_eq!(code(admin.create_session(bad).await), Code::InvalidArgument);
    }
    let session = stage.create("steam:1").await;
    assert!(session.is_new_player);
    let issue = |life_ms| proto::AdminIssueConnectTokenRequest {
        life_ms,
        ..issue(&session.session_id)
    };
    for (life_ms, lives) in [(0, 30_000), (1_000, 1_000), (300_000, 300_000)] {
        let ticket = admin
            .issue_connect_token(issue(life_ms))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(ticket.gateway_id, "eu");
        assert_eq!(ticket.server_name, "gateway");
        assert_eq!(ticket.addresses, ["127.0.0.1:7777"]);
        assert_eq!(ticket.expires_at_ms, START.0 + lives);
    }
    for out_of_range in [1, 999, 300_001, u32::MAX] {
        let refused = admin.issue_connect_token(issue(out_of_range)).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
    let elsewhere = |target| proto::AdminIssueConnectTokenRequest {
        target: Some(proto::GatewayTarget {
            target: Some(target),
        }),
        ..issue(0)
    };
    use gateway_target::Target;
    for (target, expected) in [
        (Target::GatewayId("us".into()), Code::NotFound),
        (Target::GatewayId("No Id".into()), Code::InvalidArgument),
        (Target::Address("127.0.0.1:1".into()), Code::NotFound),
        (Target::Address("localhost".into()), Code::InvalidArgument),
    ] {
        let refused = admin.issue_connect_token(elsewhere(target)).await;
        assert_eq!(code(refused), expected);
    }
    let by_address = elsewhere(Target::Address("127.0.0.1:7777".into()));
    assert!(admin.issue_connect_token(by_address).await.is_ok());

    let listed = admin.list_gateways(proto::ListGatewaysRequest {}).await;
    let listed = listed.unwrap().into_inner().gateways;
    assert_eq!(listed.len(), 1);
    assert_eq!((&*listed[0].id, listed[0].capacity), ("eu", 100));
    let keys = gateway.host.keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 1, "the gateway has its key");
    assert_eq!(keys[0].epoch, 1);
    stage.down().await;
}

/// A revocation that waits for a gateway which is away with its players, by a caller who has less patience: it was made, and that is told.
#[tokio::test]
async fn a_revocation_is_told_within_its_callers_deadline() {
    let stage = Stage::up().await;
    let gateway = stage.attach().await;
    let session = stage.create("steam:1").await;
    stage.backend_token(&session.session_id).await.unwrap();
    *gateway.host.report.lock().unwrap() = SeatReport {
        opened: vec![LiveSeat {
            session: session.session_id.parse().unwrap(),
            player: session.player_id.parse().unwrap(),
            player_generation: PlayerGeneration(0),
        }],
        seats: 1,
        ..SeatReport::default()
    };
    stage.reported(&gateway, 1).await;
    let mut attached = gateway.host.attached.subscribe();
    drop(gateway);
    attached.wait_for(|attached| !attached).await.unwrap();
    let mut request = Request::new(proto::RevokeSessionRequest {
        wait: RevokeWait::Gateways.into(),
        wait_ms: 20_000,
        ..revoke(&session.session_id)
    });
    request.set_timeout(3 * SECOND);
    let revoked = stage.admin.clone().revoke_session(request).await;
    let expected = proto::RevokeResponse {
        sessions_ended: 1,
        revision: 1,
        acknowledged: false,
    };
    assert_eq!(revoked.unwrap().into_inner(), expected);
    let after = stage.who_am_i(&session.session_token).await;
    assert_eq!(code(after), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test]
async fn a_revocation_waits_for_gateways() {
    let stage = Stage::up().await;
    let gateway = stage.attach().await;
    let mut admin = stage.admin.clone();
    let session = stage.create("steam:1").await;
    let waiting = |session_id: &str| proto::RevokeSessionRequest {
        wait: RevokeWait::Gateways.into(),
        wait_ms: 20_000,
        ..revoke(session_id)
    };
    let first = admin.revoke_session(waiting(&session.session_id)).await;
    let expected = proto::RevokeResponse {
        sessions_ended: 1,
        revision: 1,
        acknowledged: true,
    };
    assert_eq!(first.unwrap().into_inner(), expected);
    assert_eq!(*gateway.host.applied.borrow(), Revision(1));
    let again = admin.revoke_session(waiting(&session.session_id)).await;
    let already = proto::RevokeResponse {
        sessions_ended: 0,
        ..expected
    };
    assert_eq!(again.unwrap().into_inner(), already);

    let mut players = Vec::new();
    for _ in 0..3 {
        players.push(stage.create("steam:1").await);
    }
    let all = proto::RevokePlayerRequest {
        player_id: players[0].player_id.clone(),
        wait: RevokeWait::Gateways.into(),
        wait_ms: 0,
    };
    let all = admin.revoke_player(all).await.unwrap().into_inner();
    let expected = proto::RevokeResponse {
        sessions_ended: 3,
        revision: 2,
        acknowledged: true,
    };
    assert_eq!(all, expected);

    // Too long a wait is cut short: it must not keep a session alive.
    let patient = stage.create("steam:2").await;
    let too_long = proto::RevokeSessionRequest {
        wait_ms: 60_000,
        ..waiting(&patient.session_id)
    };
    let revoked = admin.revoke_session(too_long).await.unwrap().into_inner();
    assert_eq!((revoked.sessions_ended, revoked.acknowledged), (1, true));
    let unknown = SessionId(7).to_string();
    assert_eq!(
        code(admin.revoke_session(revoke(&unknown)).await),
        Code::NotFound
    );
    assert_eq!(
        code(admin.revoke_session(revoke("?")).await),
        Code::InvalidArgument
    );
    let unknown = proto::RevokePlayerRequest {
        player_id: PlayerId(7).to_string(),
        ..Default::default()
    };
    assert_eq!(code(admin.revoke_player(unknown).await), Code::NotFound);
    let ended = stage.backend_token(&session.session_id).await;
    assert_eq!(code(ended), Code::FailedPrecondition);
    stage.down().await;
}

#[tokio::test]
async fn activity_at_a_gateway_keeps_a_session_alive() {
    let stage = Stage::up().await;
    let gateway = stage.attach().await;
    let session = stage.create("steam:1").await;
    let token = || stage.backend_token(&session.session_id);
    token().await.unwrap();
    let id: SessionId = session.session_id.parse().unwrap();
    let seat = LiveSeat {
        session: id,
        player: session.player_id.parse().unwrap(),
        player_generation: PlayerGeneration(0),
    };
    stage.advance(30 * MINUTE);
    *gateway.host.report.lock().unwrap() = SeatReport {
        opened: vec![seat],
        active: vec![id],
        seats: 1,
        ..SeatReport::default()
    };
    stage.reported(&gateway, 1).await;
    // A count follows the reports that were taken before it.
    gateway.host.report.lock().unwrap().seats = 2;
    stage.reported(&gateway, 2).await;
    stage.advance(31 * MINUTE);
    assert!(token().await.is_ok());
    stage.advance(30 * MINUTE);
    assert_eq!(code(token().await), Code::FailedPrecondition);
    stage.down().await;
}
