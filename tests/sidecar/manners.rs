//! How calls are refused: by which status, with which reason, and when to come again.

use super::fixture::*;

/// Whether the details name the reason, as `google.rpc.ErrorInfo`, and by how many seconds the metadata says when to try again.
fn told(status: &Status, code: Code, reason: &str, wait: Option<&str>) {
    let details = String::from_utf8_lossy(status.details());
    assert_eq!(status.code(), code, "{status}");
    assert!(details.contains("google.rpc.ErrorInfo"), "{status}");
    assert!(details.contains(reason), "{reason}: {details}");
    assert_eq!(details.contains("google.rpc.RetryInfo"), wait.is_some());
    let metadata = status.metadata().get("retry-after");
    assert_eq!(metadata.map(|value| value.to_str().unwrap()), wait);
}

#[tokio::test]
async fn every_refusal_says_its_reason_and_when_to_come_again() {
    let stage = Stage::up().await;
    let ada = stage.login("ada").await;
    let mut auth = stage.auth.clone();
    let refused = auth.who_am_i(proto::WhoAmIRequest {}).await.unwrap_err();
    told(&refused, Code::Unauthenticated, "no_bearer", None);
    let refused = stage.who_am_i("v4.local.AAAA").await.unwrap_err();
    told(&refused, Code::Unauthenticated, "bearer_rejected", None);
    let refused = stage.refresh("v4.local.AAAA").await.unwrap_err();
    told(&refused, Code::Unauthenticated, "refresh_refused", None);
    let refused = stage.connect_token(&ada.session_token).await.unwrap_err();
    told(&refused, Code::Unavailable, "no_gateway", Some("2"));
    let mut admin = stage.admin.clone();
    let refused = admin.create_session(create("")).await.unwrap_err();
    told(&refused, Code::InvalidArgument, "argument", None);
    let nobody = revoke(&"0".repeat(26));
    let refused = admin.revoke_session(nobody).await.unwrap_err();
    told(&refused, Code::NotFound, "no_such_session", None);
    let role = proto::SetRoleRequest::default();
    let refused = admin.set_role(role).await.unwrap_err();
    told(&refused, Code::PermissionDenied, "role", None);
    let logout = with_bearer(proto::LogoutRequest::default(), &ada.session_token);
    auth.logout(logout).await.unwrap();
    let refused = stage.who_am_i(&ada.session_token).await.unwrap_err();
    told(&refused, Code::Unauthenticated, "session_revoked", None);
    stage.down().await;
}

#[tokio::test]
async fn what_is_too_long_is_not_read() {
    let stage = Stage::up().await;
    let mut auth = stage.auth.clone();
    let long = auth.login(dev(&"x".repeat(20 << 10))).await.unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange);
    let mut admin = stage.admin.clone();
    let long = create(&"x".repeat(20 << 10));
    let long = admin.create_session(long).await.unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange);
    stage.down().await;
}
