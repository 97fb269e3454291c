//! Refresh, logout, the list of one's own sessions, and connect tokens as players ask for them.

use tickgate::token::{ConnectKeyring, RefreshKeyring, SessionKeyring, TransportKey};

use super::fixture::*;

fn log_out(refresh_token: &str) -> proto::LogoutRequest {
    proto::LogoutRequest {
        refresh_token: refresh_token.to_owned(),
    }
}

impl Stage {
    async fn log_out(&self, request: Request<proto::LogoutRequest>) -> Result<bool, Status> {
        let answer = self.auth.clone().logout(request).await;
        answer.map(|answer| answer.into_inner().ended)
    }

    async fn own_sessions(&self, bearer: &str, include_ended: bool) -> Vec<proto::SessionInfo> {
        let request = proto::ListOwnSessionsRequest { include_ended };
        let mut auth = self.auth.clone();
        let listed = auth.list_sessions(with_bearer(request, bearer)).await;
        listed.unwrap().into_inner().sessions
    }
}

#[tokio::test]
async fn a_session_goes_on_past_its_tokens_and_not_past_its_end() {
    let world = World::new();
    let mut config = world.config();
    // It is the absolute end that is looked for here.
    config.lives.idle = 24 * 60 * MINUTE;
    let stage = world.start_with(config).await;
    let login = stage.login("ada").await;
    let mut refresh_token = login.refresh_token.clone();
    let mut first = None;
    for turn in 1..=4 {
        stage.advance(14 * MINUTE);
        let fresh = stage.refresh(&refresh_token).await.unwrap();
        assert_eq!(fresh.session_id, login.session_id);
        assert_eq!(fresh.session_ends_at_ms, login.session_ends_at_ms);
        assert_eq!(fresh.role, "player");
        let elapsed = (turn * 14 * MINUTE).as_millis() as u64;
        assert_eq!(fresh.expires_at_ms, login.expires_at_ms + elapsed);
        let me = stage.who_am_i(&fresh.session_token).await.unwrap();
        assert_eq!(me.session_id, login.session_id);
        // An older session token works until its own end.
        let older = stage.who_am_i(&login.session_token).await;
        assert_eq!(older.is_ok(), turn == 1);
        refresh_token = fresh.refresh_token;
        first.get_or_insert(fresh.session_token);
    }
    let end = login.session_ends_at_ms - START.0;
    stage.advance(std::time::Duration::from_millis(end) - 56 * MINUTE - MINUTE);
    let last = stage.refresh(&refresh_token).await.unwrap();
    assert_eq!(last.expires_at_ms, login.session_ends_at_ms);
    stage.advance(MINUTE);
    let over = stage.refresh(&last.refresh_token).await;
    assert_eq!(code(over), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test]
async fn asking_again_brings_the_same_claims_and_reuse_ends_the_session() {
    let stage = Stage::up().await;
    let login = stage.login("ada").await;
    let sessions = SessionKeyring::new(SessionKey::from_bytes(&stage.world.session_key), None);
    let refreshes = RefreshKeyring::new(RefreshKey::from_bytes(&stage.world.refresh_key), None);
    stage.advance(MINUTE);
    let at = START.after(MINUTE);
    let fresh = stage.refresh(&login.refresh_token).await.unwrap();
    stage.advance(9 * SECOND);
    let again = stage.refresh(&login.refresh_token).await.unwrap();
    assert_ne!(again.session_token, fresh.session_token, "sealed anew");
    let claims = [&fresh, &again].map(|tokens| {
        let session = sessions.open(&tokens.session_token, at).unwrap();
        (session, refreshes.open(&tokens.refresh_token, at).unwrap())
    });
    assert_eq!(claims[0], claims[1]);
    let (session, refresh) = &claims[0];
    assert_eq!((session.generation, refresh.generation), (1, 1));
    assert_eq!((session.issued_at, refresh.issued_at), (at, at));
    assert_eq!(refresh.expires_at.0, login.session_ends_at_ms);

    // Either of the two is the successor, and once it is used there is no grace for the parent.
    let third = stage.refresh(&again.refresh_token).await.unwrap();
    let reused = stage.refresh(&login.refresh_token).await.unwrap_err();
    assert_eq!(reused.code(), Code::Unauthenticated);
    for token in [&fresh.session_token, &third.session_token] {
        assert_eq!(code(stage.who_am_i(token).await), Code::Unauthenticated);
    }
    // The thief learns nothing that an honest client with a bad token would not.
    let ended = stage.refresh(&third.refresh_token).await.unwrap_err();
    let forged = stage.refresh("v4.local.AAAA").await.unwrap_err();
    let empty = stage.refresh("").await.unwrap_err();
    let bearer = stage.refresh(&login.session_token).await.unwrap_err();
    let huge = stage.refresh(&"x".repeat(10_000)).await.unwrap_err();
    let reused_again = stage.refresh(&login.refresh_token).await.unwrap_err();
    for other in [reused_again, ended, forged, empty, bearer, huge] {
        assert_eq!(
            (other.code(), other.message()),
            (reused.code(), reused.message())
        );
    }
    stage.down().await;
}

#[tokio::test]
async fn a_refresh_is_no_activity() {
    let stage = Stage::up().await;
    let login = stage.login("ada").await;
    stage.advance(59 * MINUTE);
    let fresh = stage.refresh(&login.refresh_token).await.unwrap();
    stage.advance(MINUTE);
    let idle = stage.refresh(&fresh.refresh_token).await;
    assert_eq!(code(idle), Code::Unauthenticated);
    let idle = stage.who_am_i(&fresh.session_token).await;
    assert_eq!(code(idle), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test]
async fn a_player_logs_out_by_either_token_and_once_more_without_harm() {
    let stage = Stage::up().await;
    let by_bearer = stage.login("ada").await;
    let by_refresh = stage.login("ada").await;
    let bystander = stage.login("ada").await;
    for ended in [true, false] {
        let request = with_bearer(log_out(""), &by_bearer.session_token);
        assert_eq!(stage.log_out(request).await.unwrap(), ended);
    }
    // A refresh token will do though its session token has expired, and though it was used.
    stage.refresh(&by_refresh.refresh_token).await.unwrap();
    stage.advance(16 * MINUTE);
    for ended in [true, false] {
        let request = Request::new(log_out(&by_refresh.refresh_token));
        assert_eq!(stage.log_out(request).await.unwrap(), ended);
    }
    for over in [&by_bearer, &by_refresh] {
        let refreshed = stage.refresh(&over.refresh_token).await;
        assert_eq!(code(refreshed), Code::Unauthenticated);
    }
    // The bearer does not stand in for a refresh token that is bad.
    let fresh = stage.refresh(&bystander.refresh_token).await.unwrap();
    let mixed = with_bearer(log_out("v4.local.AAAA"), &fresh.session_token);
    for bad in [
        Request::new(log_out("")),
        Request::new(log_out("v4.local.AAAA")),
        with_bearer(log_out(""), "v4.local.AAAA"),
        with_bearer(log_out(""), &by_bearer.session_token),
        mixed,
    ] {
        assert_eq!(code(stage.log_out(bad).await), Code::Unauthenticated);
    }
    assert!(stage.who_am_i(&fresh.session_token).await.is_ok());
    stage.down().await;
}

#[tokio::test]
async fn a_player_sees_their_own_sessions_newest_first() {
    let stage = Stage::up().await;
    let mut logins = Vec::new();
    for name in ["ada", "ada", "bob", "ada"] {
        logins.push(stage.login(name).await);
        stage.advance(SECOND);
    }
    let [first, second, bob, third] = &logins[..] else {
        panic!("four logins");
    };
    stage.refresh(&third.refresh_token).await.unwrap();
    let revoked = revoke(&second.session_id);
    stage.admin.clone().revoke_session(revoked).await.unwrap();
    let shown = |listed: &[proto::SessionInfo]| -> Vec<_> {
        let shown = listed.iter();
        shown
            .map(|info| (info.session_id.clone(), info.state.clone(), info.generation))
            .collect()
    };
    let live = |login: &proto::LoginResponse, generation| {
        (login.session_id.clone(), "live".to_owned(), generation)
    };
    let listed = stage.own_sessions(&first.session_token, false).await;
    assert_eq!(shown(&listed), [live(third, 1), live(first, 0)]);
    assert_eq!(listed[1].player_id, first.player_id);
    assert_eq!(&*listed[1].method, "dev");
    assert_eq!(listed[1].created_at_ms, START.0);
    assert_eq!(listed[1].ends_at_ms, first.session_ends_at_ms);
    let all = stage.own_sessions(&first.session_token, true).await;
    assert_eq!(all.len(), 3);
    assert_eq!(&*all[1].state, "session_revoked");
    let of_bob = stage.own_sessions(&bob.session_token, true).await;
    assert_eq!(shown(&of_bob), [live(bob, 0)]);
    let nobody = proto::ListOwnSessionsRequest::default();
    let nobody = stage.auth.clone().list_sessions(nobody).await;
    assert_eq!(code(nobody), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test]
async fn a_connect_token_names_the_key_that_its_client_has() {
    let stage = Stage::up().await;
    let gateway = stage.attach().await;
    let login = stage.login("ada").await;
    let keys = gateway.host.keys.lock().unwrap().clone();
    let mut keyring = ConnectKeyring::new("eu".parse().unwrap());
    let key: &[u8; 32] = keys[0].key[..].try_into().unwrap();
    keyring.replace(vec![TransportKey::from_bytes(key)]);

    let mut claimed = Vec::new();
    for client_key in [vec![], vec![7; 32]] {
        let by_player = proto::IssueConnectTokenRequest {
            target: any(),
            client_key: client_key.clone().into(),
        };
        let by_player = with_bearer(by_player, &login.session_token);
        let by_player = stage.auth.clone().issue_connect_token(by_player).await;
        let by_backend = proto::AdminIssueConnectTokenRequest {
            client_key: client_key.into(),
            ..issue(&login.session_id)
        };
        let by_backend = stage.admin.clone().issue_connect_token(by_backend).await;
        for ticket in [by_player, by_backend] {
            let ticket = ticket.unwrap().into_inner();
            claimed.push(keyring.open(&ticket.token, START).unwrap().client_key);
        }
    }
    assert_eq!(claimed, [None, None, Some([7; 32]), Some([7; 32])]);
    for length in [1, 31, 33, 64] {
        let request = proto::IssueConnectTokenRequest {
            target: any(),
            client_key: vec![7; length].into(),
        };
        let request = with_bearer(request, &login.session_token);
        let refused = stage.auth.clone().issue_connect_token(request).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("client_key"), "{refused:?}");
    }
    stage.down().await;
}

#[tokio::test]
async fn a_session_that_asks_for_too_many_connect_tokens_is_told_to_wait() {
    let world = World::new();
    let limited = SidecarConfig {
        connect_tokens_per_minute: 3,
        ..world.config()
    };
    let stage = world.start_with(limited).await;
    let _gateway = stage.attach().await;
    let eager = stage.login("ada").await;
    let patient = stage.login("ada").await;
    for _ in 0..3 {
        stage.connect_token(&eager.session_token).await.unwrap();
    }
    let refused = stage.connect_token(&eager.session_token).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("20 s"), "{refused:?}");
    // Nor by way of a backend; another session of the same player has its own measure.
    let refused = stage.backend_token(&eager.session_id).await;
    assert_eq!(code(refused), Code::ResourceExhausted);
    assert!(stage.connect_token(&patient.session_token).await.is_ok());
    stage.advance(20 * SECOND);
    assert!(stage.connect_token(&eager.session_token).await.is_ok());
    let refused = stage.connect_token(&eager.session_token).await;
    assert_eq!(code(refused), Code::ResourceExhausted);
    stage.down().await;
}

#[tokio::test]
async fn a_session_that_is_refreshed_too_often_is_told_to_wait_and_goes_on() {
    let world = World::new();
    let limited = SidecarConfig {
        refreshes_per_minute: MIN_REFRESHES_PER_MINUTE,
        ..world.config()
    };
    let stage = world.start_with(limited).await;
    let login = stage.login("ada").await;
    let other = stage.login("ada").await;
    // Whose answers are all lost asks 18 times within the grace, each time with the same token.
    let mut last = None;
    for _ in 0..18 {
        last = Some(stage.refresh(&login.refresh_token).await.unwrap());
        stage.advance(SECOND / 2);
    }
    // Nine seconds have given back three of the twenty.
    let mut newest = last.unwrap();
    for _ in 0..5 {
        newest = stage.refresh(&newest.refresh_token).await.unwrap();
    }
    let refused = stage.refresh(&newest.refresh_token).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("3 s"), "{refused:?}");
    assert_eq!(refused.metadata().get("retry-after").unwrap(), "3");
    // What was used before is not found out this way, and ends nothing while it is not looked at.
    let used = stage.refresh(&login.refresh_token).await;
    assert_eq!(code(used), Code::ResourceExhausted);
    assert!(stage.refresh(&other.refresh_token).await.is_ok());
    stage.advance(3 * SECOND);
    let fresh = stage.refresh(&newest.refresh_token).await.unwrap();
    assert!(stage.who_am_i(&fresh.session_token).await.is_ok());
    stage.down().await;
}
