//! How a sidecar starts, stops, and starts again.

use std::{path::Path, time::Duration};

use tickgate::{admin::Source, certs::DevCerts, sidecar::StartError, tls};

use super::fixture::*;

#[tokio::test]
async fn a_restart_keeps_sessions_and_revocations() {
    let stage = Stage::up().await;
    let kept = stage.login("ada").await;
    let revoked = stage.login("bob").await;
    let mut admin = stage.admin.clone();
    let first = admin.revoke_session(revoke(&revoked.session_id)).await;
    assert_eq!(first.unwrap().into_inner().sessions_ended, 1);

    let stage = stage.restarted().await;
    let found = stage.who_am_i(&kept.session_token).await.unwrap();
    assert_eq!(found.session_id, kept.session_id);
    let over = stage.who_am_i(&revoked.session_token).await;
    assert_eq!(code(over), Code::Unauthenticated);
    let mut admin = stage.admin.clone();
    let again = admin.revoke_session(revoke(&revoked.session_id)).await;
    let expected = proto::RevokeResponse {
        sessions_ended: 0,
        revision: 1,
        acknowledged: false,
    };
    assert_eq!(again.unwrap().into_inner(), expected);
    // A refresh token outlives a restart, and so does what is known of it.
    let fresh = stage.refresh(&kept.refresh_token).await.unwrap();
    let stage = stage.restarted().await;
    let again = stage.refresh(&kept.refresh_token).await.unwrap();
    assert_eq!(again.expires_at_ms, fresh.expires_at_ms);
    assert!(stage.refresh(&fresh.refresh_token).await.is_ok());

    // Dropped instead of shut down: what was acknowledged is safe all the same.
    let mut admin = stage.admin.clone();
    let last = admin.revoke_session(revoke(&kept.session_id)).await;
    last.unwrap();
    let Stage { world, sidecar, .. } = stage;
    drop(sidecar);
    let store = world.folder.path().join("store.redb");
    let copy = World {
        folder: tempfile::tempdir().unwrap(),
        ..world
    };
    std::fs::copy(store, copy.folder.path().join("store.redb")).unwrap();
    let stage = copy.start().await;
    let over = stage.who_am_i(&kept.session_token).await;
    assert_eq!(code(over), Code::Unauthenticated);
    stage.down().await;
}

#[tokio::test]
async fn a_stalled_call_does_not_hold_up_shutdown() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let stage = Stage::up().await;
    let _gateway = stage.attach().await;
    let channel = stage.world.channel(stage.sidecar.addresses().auth, None);
    // A health watch goes on for minutes.
    let watch = HealthClient::new(channel)
        .watch(HealthCheckRequest::default())
        .await;
    let mut watch = watch.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let shutdown = tokio::time::timeout(20 * SECOND, stage.down());
    shutdown.await.unwrap();
}

#[tokio::test]
async fn certificates_are_replaced_under_streams_that_live_on() {
    let stage = Stage::up().await;
    let gateway = stage.attach().await;
    let first = stage.login("ada").await;
    let next = DevCerts::generate(&["eu".parse().unwrap()]).unwrap();
    let Stage { world, sidecar, .. } = &stage;
    let reloaded = sidecar.reload_tls(next.sidecar.clone(), vec![next.ca.clone()]);
    assert!(reloaded.unwrap());
    // What was connected goes on.
    assert!(stage.who_am_i(&first.session_token).await.is_ok());
    assert!(*gateway.host.attached.borrow());
    // What connects now is shown the new certificate, and is asked for one of the new authority's.
    let address = sidecar.addresses().admin;
    let list = || proto::ListGatewaysRequest {};
    let old = world.channel(address, Some(&world.certs.backend));
    let refused = AdminServiceClient::new(old).list_gateways(list()).await;
    assert_eq!(code(refused), Code::Unavailable);
    let tls = tls::rpc_client_config(std::slice::from_ref(&next.ca), Some(&next.backend)).unwrap();
    let new = rpc::connect(&format!("https://{address}"), None, Some(tls)).unwrap();
    let listed = AdminServiceClient::new(new).list_gateways(list()).await;
    assert_eq!(listed.unwrap().into_inner().gateways.len(), 1);
    // What cannot be used changes nothing.
    let bad = sidecar.reload_tls(next.sidecar.clone(), Vec::new());
    assert!(bad.is_err());
    let metrics = sidecar.metrics();
    assert!(metrics.is_ready() && metrics.is_live());
    stage.down().await;
    assert!(!metrics.is_ready());
}

#[tokio::test]
async fn health_and_reflection_answer_on_each_listener() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let stage = Stage::up().await;
    let addresses = stage.sidecar.addresses();
    let backend = Some(&stage.world.certs.backend);
    for (address, identity, service) in [
        (addresses.auth, None, "tickgate.v1.AuthService"),
        (addresses.control, backend, "tickgate.v1.ControlService"),
        (addresses.admin, backend, "tickgate.v1.AdminService"),
    ] {
        let channel = stage.world.channel(address, identity);
        for name in ["", service] {
            let request = HealthCheckRequest {
                service: name.to_owned(),
            };
            let health = HealthClient::new(channel.clone()).check(request).await;
            assert_eq!(health.unwrap().into_inner().status, 1, "{service}: SERVING");
        }
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let stream = tokio_stream::once(list);
        let answers = ServerReflectionClient::new(channel)
            .server_reflection_info(stream)
            .await;
        let answer = answers
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap();
        let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
            panic!("{answer:?}");
        };
        assert!(
            services.service.iter().any(|s| s.name == service),
            "{services:?}"
        );
    }
    stage.down().await;
}

#[tokio::test]
async fn conveniences_are_for_development_on_loopback() {
    let world = World::new();
    let refused = |config| async { Sidecar::start(config).await.unwrap_err() };
    let production = || SidecarConfig {
        environment: Environment::Production,
        ..world.config()
    };
    assert_eq!(
        refused(production()).await.label(),
        "convenience_in_production"
    );
    let plain = SidecarConfig {
        dev_login: false,
        plain_text: true,
        ..production()
    };
    assert_eq!(refused(plain).await.label(), "convenience_in_production");
    let exposed = SidecarConfig {
        admin_listen: "0.0.0.0:0".parse().unwrap(),
        ..world.config()
    };
    let error = refused(exposed).await;
    assert_eq!(error.label(), "convenience_exposed");
    assert!(error.to_string().contains("0.0.0.0:0"), "{error}");

    // Letters that lie in a folder are convenient too.
    let spooling = SidecarConfig {
        dev_login: false,
        ..production()
    };
    let error = refused(spooling).await;
    assert_eq!(error.label(), "convenience_in_production");
    let without = SidecarConfig {
        dev_login: false,
        login: LoginConfig::default(),
        mail: None,
        ..production()
    };
    let stage = world.start_with(without).await;
    let login = stage.auth.clone().login(dev("ada")).await;
    assert_eq!(code(login), Code::PermissionDenied);
    let world = stage.down().await;

    let plain = SidecarConfig {
        plain_text: true,
        ..world.config()
    };
    let stage = world.start_with(plain).await;
    let url = format!("http://{}", stage.sidecar.addresses().auth);
    let channel = rpc::connect(&url, None, None).unwrap();
    assert!(
        AuthServiceClient::new(channel)
            .login(dev("ada"))
            .await
            .is_ok()
    );
    stage.down().await;
}

#[tokio::test]
async fn a_bad_configuration_does_not_start() {
    let world = World::new();
    let refused = |config| async { Sidecar::start(config).await.unwrap_err() };
    let mut shared = world.config();
    shared.keys.session = SessionKey::from_bytes(&world.transport_key).into();
    assert_eq!(refused(shared).await.label(), "shared_key");
    let mut shared = world.config();
    shared.keys.refresh = RefreshKey::from_bytes(&world.session_key).into();
    assert_eq!(refused(shared).await.label(), "shared_key");
    let mut shared = world.config();
    shared.keys.refresh.previous = vec![RefreshKey::from_bytes(&world.transport_key)];
    assert_eq!(refused(shared).await.label(), "shared_key");
    let mut shared = world.config();
    shared.keys.session.next = Some(SessionKey::from_bytes(&world.refresh_key));
    assert_eq!(refused(shared).await.label(), "shared_key");
    let none = SidecarConfig {
        connect_tokens_per_minute: 0,
        ..world.config()
    };
    assert_eq!(
        refused(none).await.to_string(),
        "connect tokens per minute must be at least 1"
    );
    let few = SidecarConfig {
        refreshes_per_minute: MIN_REFRESHES_PER_MINUTE - 1,
        ..world.config()
    };
    assert_eq!(
        refused(few).await.to_string(),
        "refreshes per minute must be at least 20"
    );
    let shared = SidecarConfig {
        login_key: LoginKey::from_bytes(&world.session_key),
        ..world.config()
    };
    assert_eq!(refused(shared).await.label(), "shared_key");
    for break_it in [
        |config: &mut SidecarConfig| config.mail = None,
        |config: &mut SidecarConfig| config.mail.as_mut().unwrap().link = None,
    ] {
        let mut config = world.config();
        break_it(&mut config);
        assert_eq!(refused(config).await.label(), "no_mail");
    }
    for audience in ["", &"x".repeat(256)] {
        let mut config = world.config();
        config.login.audience = audience.to_owned();
        assert_eq!(refused(config).await.label(), "limit");
    }
    let mut spoilt = world.config();
    spoilt.mail.as_mut().unwrap().game = "Foo\r\nBcc: eve@example.com".to_owned();
    assert!(matches!(refused(spoilt).await, StartError::Mail(_)));
    let mut long = world.config();
    long.login.magic_link_life = 16 * MINUTE;
    assert_eq!(refused(long).await.label(), "life");
    let mut epochs = world.config();
    epochs.keys.transport.previous = vec![MasterKey {
        epoch: 1,
        key: TransportMasterKey::generate(),
    }];
    assert_eq!(refused(epochs).await.label(), "same_epoch");
    let lives = SidecarConfig {
        lives: SessionLives {
            connect_token: 2 * SECOND,
            longest_connect_token: SECOND,
            ..SessionLives::default()
        },
        ..world.config()
    };
    assert_eq!(
        refused(lives).await.to_string(),
        "the longest connect token life must be no shorter than that of connect tokens"
    );
    let lives = SidecarConfig {
        lives: SessionLives {
            connect_token: Duration::from_secs(301),
            ..SessionLives::default()
        },
        ..world.config()
    };
    let error = refused(lives).await;
    assert_eq!(
        error.to_string(),
        "the connect token life must be at most 5 min"
    );
    let taken = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let taken = SidecarConfig {
        control_listen: taken.local_addr().unwrap(),
        ..world.config()
    };
    assert_eq!(
        refused(taken).await.label(),
        "bind",
        "the listener above is dropped only here"
    );
    let nowhere = SidecarConfig {
        store: StoreChoice::Embedded(Path::new("/nowhere/store.redb").to_owned()),
        ..world.config()
    };
    assert_eq!(refused(nowhere).await.label(), "store_inaccessible");
}
