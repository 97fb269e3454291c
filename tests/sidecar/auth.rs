//! What players are answered: login, bearer tokens, bad requests.

use super::fixture::*;

#[tokio::test]
async fn a_player_logs_in_is_known_and_leaves() {
    let stage = Stage::up().await;
    let mut auth = stage.auth.clone();
    let login = stage.login("ada").await;
    assert!(login.is_new_player);
    assert_eq!(login.expires_at_ms, START.0 + 15 * 60 * 1_000);
    assert_eq!(login.session_ends_at_ms, START.0 + 24 * 60 * 60 * 1_000);
    let token = &login.session_token;
    let me = stage.who_am_i(token).await.unwrap();
    assert_eq!(me.player_id, login.player_id);
    assert_eq!(me.session_id, login.session_id);
    assert_eq!((&*me.role, &*me.method), ("player", "dev"));

    let again = stage.login("ada").await;
    assert!(!again.is_new_player);
    assert_eq!(again.player_id, login.player_id);
    assert_ne!(again.session_id, login.session_id);

    // Another player's session is not even there; one's own other one is.
    let mallory = stage.login("mallory").await;
    let own = |id: &str| proto::RevokeOwnSessionRequest {
        session_id: id.to_owned(),
    };
    let stranger = with_bearer(own(&login.session_id), &mallory.session_token);
    assert_eq!(code(auth.revoke_session(stranger).await), Code::NotFound);
    for expected in [true, false] {
        let other = with_bearer(own(&again.session_id), token);
        let revoked = auth.revoke_session(other).await.unwrap().into_inner();
        assert_eq!(revoked.revoked, expected);
    }
    let itself = auth.revoke_session(with_bearer(own(""), token)).await;
    assert!(itself.unwrap().into_inner().revoked);
    assert_eq!(code(stage.who_am_i(token).await), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test]
async fn bad_requests_get_clear_answers() {
    let stage = Stage::up().await;
    let mut auth = stage.auth.clone();
    for bad in [
        dev(""),
        dev(&"x".repeat(65)),
        dev("a\nb"),
        proto::LoginRequest::default(),
    ] {
        assert_eq!(code(auth.login(bad).await), Code::InvalidArgument);
    }
    let nobody = auth.who_am_i(proto::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    assert!(nobody.message().contains("authorization"), "{nobody:?}");
    let forged = stage.who_am_i("v4.local.AAAA").await;
    assert_eq!(code(forged), Code::Unauthenticated);

    let login = stage.login("ada").await;
    let ask = |target| {
        with_bearer(
            proto::IssueConnectTokenRequest {
                target,
                ..Default::default()
            },
            &login.session_token,
        )
    };
    let nowhere = auth.issue_connect_token(ask(any())).await;
    assert_eq!(code(nowhere), Code::Unavailable);
    let unclear = auth.issue_connect_token(ask(None)).await;
    assert_eq!(code(unclear), Code::InvalidArgument);

    let mut tampered = login.session_token.clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let tampered = stage.who_am_i(&tampered).await;
    assert_eq!(code(tampered), Code::Unauthenticated);
    // 15 minutes, and 5 seconds of leeway.
    stage.advance(15 * MINUTE + 5 * SECOND);
    let expired = stage.who_am_i(&login.session_token).await.unwrap_err();
    assert_eq!(expired.code(), Code::Unauthenticated);
    assert!(expired.message().contains("expired"), "{expired:?}");
    stage.down().await;
}
