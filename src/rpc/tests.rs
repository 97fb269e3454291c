//! Listeners and channels against each other over loopback, with real TLS.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tonic::{Code, Request, Response, Status};

use super::{
    listen::{Limits, listen_within},
    *,
};
use crate::{
    certs::DevCerts,
    proto::{
        ConnectTicket, IssueConnectTokenRequest, LoginRequest, LoginResponse,
        RevokeOwnSessionRequest, RevokeOwnSessionResponse, WhoAmIRequest, WhoAmIResponse,
        auth_service_client::AuthServiceClient,
        auth_service_server::{AuthService, AuthServiceServer},
    },
    tls::{self, Identity},
};

/// Tells the caller who it is taken for.
struct Mirror;

#[tonic::async_trait]
impl AuthService for Mirror {
    async fn request_otp(
        &self,
        _: Request<crate::proto::RequestOtpRequest>,
    ) -> Result<Response<crate::proto::RequestOtpResponse>, Status> {
        Err(Status::unimplemented("not mirrored"))
    }

    async fn create_challenge(
        &self,
        _: Request<crate::proto::CreateChallengeRequest>,
    ) -> Result<Response<crate::proto::CreateChallengeResponse>, Status> {
        Err(Status::unimplemented("not mirrored"))
    }

    async fn create_login_nonce(
        &self,
        _: Request<crate::proto::CreateLoginNonceRequest>,
    ) -> Result<Response<crate::proto::CreateLoginNonceResponse>, Status> {
        Err(Status::unimplemented("not mirrored"))
    }

    async fn request_verification(
        &self,
        _: Request<crate::proto::RequestVerificationRequest>,
    ) -> Result<Response<crate::proto::RequestVerificationResponse>, Status> {
        Err(Status::unimplemented("not mirrored"))
    }

    async fn consume_verification(
        &self,
        _: Request<crate::proto::ConsumeVerificationRequest>,
    ) -> Result<Response<crate::proto::ConsumeVerificationResponse>, Status> {
        Err(Status::unimplemented("not mirrored"))
    }

    async fn refresh(
        &self,
        _: Request<crate::proto::RefreshRequest>,
    ) -> Result<Response<crate::proto::RefreshResponse>, Status> {
        Err(Status::unimplemented("not mirrored"))
    }

    async fn logout(
        &self,
        _: Request<crate::proto::LogoutRequest>,
    ) -> Result<Response<crate::proto::LogoutResponse>, Status> {
        Err(Status::unimplemented("not mirrored"))
    }

    async fn list_sessions(
        &self,
        _: Request<crate::proto::ListOwnSessionsRequest>,
    ) -> Result<Response<crate::proto::ListOwnSessionsResponse>, Status> {
        Err(Status::unimplemented("not mirrored"))
    }

    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let peer = peer(&request).unwrap();
        assert!(peer.address.ip().is_loopback());
        Ok(Response::new(WhoAmIResponse {
            role: format!("{:?}", peer.role),
            ..WhoAmIResponse::default()
        }))
    }

    async fn login(&self, _: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        Err(Status::unimplemented("mirror"))
    }

    async fn issue_connect_token(
        &self,
        _: Request<IssueConnectTokenRequest>,
    ) -> Result<Response<ConnectTicket>, Status> {
        Err(Status::unimplemented("mirror"))
    }

    async fn list_identities(
        &self,
        _: Request<crate::proto::ListIdentitiesRequest>,
    ) -> Result<Response<crate::proto::ListIdentitiesResponse>, Status> {
        Err(Status::unimplemented("mirror"))
    }

    async fn remove_identity(
        &self,
        _: Request<crate::proto::RemoveIdentityRequest>,
    ) -> Result<Response<crate::proto::RemoveIdentityResponse>, Status> {
        Err(Status::unimplemented("mirror"))
    }

    async fn revoke_session(
        &self,
        _: Request<RevokeOwnSessionRequest>,
    ) -> Result<Response<RevokeOwnSessionResponse>, Status> {
        Err(Status::unimplemented("mirror"))
    }
}

/// A running server, which ends with the test.
struct Server {
    port: u16,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bound() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn serve<S>(incoming: S, port: u16) -> Server
where
    S: Stream<Item = io::Result<RpcStream>> + Send + 'static,
{
    let server = tonic::transport::Server::builder().add_service(AuthServiceServer::new(Mirror));
    let task = tokio::spawn(server.serve_with_incoming(incoming)).abort_handle();
    Server { port, task }
}

async fn start(tls: Option<Arc<ArcSwap<ServerConfig>>>) -> Server {
    let (listener, port) = bound().await;
    serve(listen(listener, tls), port)
}

fn certs() -> DevCerts {
    DevCerts::generate(&["gw-1".parse().unwrap()]).unwrap()
}

/// A sidecar's configuration that asks for certificates from `client_ca`.
fn server_tls(certs: &DevCerts, client_ca: Option<&DevCerts>) -> Arc<ArcSwap<ServerConfig>> {
    let ca = client_ca.map(|certs| std::slice::from_ref(&certs.ca));
    Arc::new(ArcSwap::from_pointee(
        tls::rpc_server_config(&certs.sidecar, ca).unwrap(),
    ))
}

/// Whom the server at `url` takes us for.
async fn who(
    url: &str,
    name: Option<&str>,
    ca: Option<&DevCerts>,
    identity: Option<&Identity>,
) -> Result<String, Status> {
    let tls =
        ca.map(|certs| tls::rpc_client_config(std::slice::from_ref(&certs.ca), identity).unwrap());
    let channel = connect(url, name, tls).unwrap();
    let answer = AuthServiceClient::new(channel)
        .who_am_i(WhoAmIRequest {})
        .await?;
    Ok(answer.into_inner().role)
}

#[tokio::test]
async fn the_certificate_says_who_calls() {
    let certs = certs();
    let server = start(Some(server_tls(&certs, Some(&certs)))).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    for (identity, role) in [
        (&certs.gateways[0].control, "Some(Gateway(\"gw-1\"))"),
        (&certs.admin, "Some(Admin(\"dev\"))"),
        (&certs.backend, "Some(Backend(\"dev\"))"),
    ] {
        let answer = who(&url, None, Some(&certs), Some(identity)).await;
        assert_eq!(answer.unwrap(), role);
    }
    let by_name = who(&url, Some("localhost"), Some(&certs), Some(&certs.admin)).await;
    assert!(by_name.is_ok());
}

#[tokio::test]
async fn without_a_client_authority_nobody_has_a_role() {
    let certs = certs();
    let server = start(Some(server_tls(&certs, None))).await;
    let url = format!("https://localhost:{}", server.port);
    for identity in [None, Some(&certs.admin)] {
        let answer = who(&url, None, Some(&certs), identity).await;
        assert_eq!(answer.unwrap(), "None");
    }
}

#[tokio::test]
async fn strangers_are_refused_both_ways() {
    let (ours, theirs) = (certs(), certs());
    let server = start(Some(server_tls(&ours, Some(&ours)))).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    for (name, ca, identity) in [
        // The server's authority is not ours.
        (None, &theirs, Some(&ours.admin)),
        // Our authority is not the server's.
        (None, &ours, Some(&theirs.admin)),
        (None, &ours, None),
        // The certificate is not for that name.
        (Some("elsewhere.example"), &ours, Some(&ours.admin)),
    ] {
        let status = who(&url, name, Some(ca), identity).await.unwrap_err();
        assert!(
            matches!(status.code(), Code::Unavailable | Code::Unknown),
            "{status}"
        );
    }
    assert!(
        who(&url, None, Some(&ours), Some(&ours.admin))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections() {
    let (old, new) = (certs(), certs());
    let tls = server_tls(&old, None);
    let server = start(Some(Arc::clone(&tls))).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    let config = tls::rpc_client_config(std::slice::from_ref(&old.ca), None).unwrap();
    let mut live = AuthServiceClient::new(connect(&url, None, Some(config)).unwrap());
    live.who_am_i(WhoAmIRequest {}).await.unwrap();
    assert!(who(&url, None, Some(&new), None).await.is_err());

    tls.store(server_tls(&new, None).load_full());
    assert!(who(&url, None, Some(&new), None).await.is_ok());
    assert!(who(&url, None, Some(&old), None).await.is_err());
    // The connection that was there goes on.
    live.who_am_i(WhoAmIRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_channel_comes_back_by_itself() {
    let certs = certs();
    let first = start(Some(server_tls(&certs, None))).await;
    let config = tls::rpc_client_config(std::slice::from_ref(&certs.ca), None).unwrap();
    let url = format!("https://127.0.0.1:{}", first.port);
    let mut client = AuthServiceClient::new(connect(&url, None, Some(config)).unwrap());
    client.who_am_i(WhoAmIRequest {}).await.unwrap();

    let port = first.port;
    drop(first);
    let rebound = async {
        loop {
            // The port is free again as soon as the aborted server has been dropped.
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let listener = tokio::time::timeout(Duration::from_secs(10), rebound)
        .await
        .unwrap();
    let _second = serve(listen(listener, Some(server_tls(&certs, None))), port);
    // The first calls may still find the end of the old connection.
    let mut attempts = 0;
    while client.who_am_i(WhoAmIRequest {}).await.is_err() {
        attempts += 1;
        assert!(attempts < 100);
    }
}

const PATIENT: Limits = Limits {
    connections: 64,
    of_one_network: 64,
    handshakes: 4,
    patience: Duration::from_secs(3_600),
    pause: Duration::from_millis(1),
};

#[tokio::test]
async fn stalled_handshakes_block_nobody_and_the_oldest_gives_way() {
    let certs = certs();
    let (listener, port) = bound().await;
    let incoming = listen_within(listener, Some(server_tls(&certs, None)), PATIENT, nobody());
    let server = serve(incoming, port);
    let url = format!("https://127.0.0.1:{}", server.port);

    let mut stalled = Vec::new();
    for _ in 0..3 * PATIENT.handshakes {
        stalled.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        assert!(who(&url, None, Some(&certs), None).await.is_ok());
    }
    // The oldest was dropped: its end of the line is closed.
    let closed = stalled[0].read(&mut [0; 1]).await;
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_stalled_handshake_is_given_up() {
    let certs = certs();
    let (listener, port) = bound().await;
    let limits = Limits {
        patience: Duration::from_millis(20),
        ..PATIENT
    };
    let incoming = listen_within(listener, Some(server_tls(&certs, None)), limits, nobody());
    let _server = serve(incoming, port);
    let mut stalled = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let closed = stalled.read(&mut [0; 1]).await;
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_connection_that_is_not_used_is_given_up() {
    for first_words in [&b""[..], b"PRI"] {
        let (listener, port) = bound().await;
        let limits = Limits {
            patience: Duration::from_millis(20),
            ..PATIENT
        };
        let _server = serve(listen_within(listener, None, limits, nobody()), port);
        let mut silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        silent.write_all(first_words).await.unwrap();
        // The server's own first words come first.
        let mut said = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), silent.read_to_end(&mut said));
        let _ = closed.await.expect("the connection is still open");
    }
}

#[tokio::test]
async fn a_connection_that_has_spoken_may_be_silent() {
    let (listener, port) = bound().await;
    let limits = Limits {
        patience: Duration::from_millis(200),
        ..PATIENT
    };
    let mut incoming = std::pin::pin!(listen_within(listener, None, limits, nobody()));
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    client.write_all(preface).await.unwrap();
    let mut accepted = incoming.next().await.unwrap().unwrap();
    accepted.read_exact(&mut [0; 24]).await.unwrap();
    let more = tokio::time::timeout(2 * limits.patience, accepted.read_u8()).await;
    assert!(more.is_err(), "nothing has come, and nothing has ended");
}

#[tokio::test]
async fn one_connection_too_many_is_dropped() {
    let (listener, port) = bound().await;
    let limits = Limits {
        connections: 1,
        ..PATIENT
    };
    let _server = serve(listen_within(listener, None, limits, nobody()), port);
    let first = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut second = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let closed = second.read(&mut [0; 1]).await;
    assert!(matches!(closed, Ok(0) | Err(_)));
    // A place that was given up is another's.
    drop(first);
    let url = format!("http://127.0.0.1:{port}");
    let freed = async {
        while who(&url, None, None, None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(10), freed).await;
    freed.unwrap();
}

/// One host cannot hold all connections.
#[tokio::test]
async fn one_network_has_its_share_of_connections_and_no_more() {
    let (listener, port) = bound().await;
    let limits = Limits {
        of_one_network: 1,
        ..PATIENT
    };
    let _server = serve(listen_within(listener, None, limits, nobody()), port);
    let from = async |address: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind((address.parse::<IpAddr>().unwrap(), 0).into())
            .unwrap();
        let to = (IpAddr::from([127, 0, 0, 1]), port).into();
        socket.connect(to).await.unwrap()
    };
    let is_dropped =
        async |stream: &mut TcpStream| matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_));
    let _first = from("127.0.0.2").await;
    let mut second = from("127.0.0.2").await;
    assert!(is_dropped(&mut second).await);
    // Others are served; the server's first words are its settings.
    let mut other = from("127.0.0.3").await;
    other
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    assert!(!is_dropped(&mut other).await);
}

fn nobody() -> Exempt {
    Arc::new(|_| false)
}

#[tokio::test]
async fn plain_text_stays_on_loopback() {
    let server = start(None).await;
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{}", server.port);
        assert_eq!(who(&url, None, None, None).await.unwrap(), "None");
    }
    for url in [
        "http://192.0.2.1:1",
        "http://[2001:db8::1]:1",
        "http://game.example",
    ] {
        let error = connect(url, None, None).unwrap_err();
        assert_eq!(error, RpcError::PlainText(url.into()));
    }

    let everywhere = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let items: Vec<_> = listen(everywhere, None).collect().await;
    assert!(matches!(&items[..], [Err(error)] if error.kind() == io::ErrorKind::PermissionDenied));
}

#[tokio::test]
async fn bad_addresses_are_refused() {
    let certs = certs();
    let tls = || Some(tls::rpc_client_config(std::slice::from_ref(&certs.ca), None).unwrap());
    for url in [
        "",
        "localhost",
        "localhost:443",
        "ftp://localhost",
        "https://",
        "https://host/path",
        "https://host?query",
        "https://user@host",
        "https://host:",
        "https://host:0",
        "https://host:70000",
        "https://ho st",
    ] {
        let error = connect(url, None, tls())
            .map(drop)
            .map_err(|error| error.label());
        assert_eq!(error, Err("bad_url"), "{url}");
    }
    let error = connect("https://localhost", None, None).unwrap_err();
    assert_eq!(error.label(), "no_tls");
    let error = connect("https://localhost", Some("no name"), tls()).unwrap_err();
    assert_eq!(error.label(), "bad_server_name");
    for url in ["https://[::1]:1", "https://host", "https://host:1/"] {
        assert!(connect(url, None, tls()).is_ok(), "{url}");
    }
}

#[test]
fn role_names_are_strict() {
    let role = Role::from_uri;
    assert_eq!(
        role("tickgate://gateway/gw-1"),
        Some(Role::Gateway("gw-1".parse().unwrap()))
    );
    assert_eq!(
        role("tickgate://backend/Shop_1"),
        Some(Role::Backend("Shop_1".into()))
    );
    for bad in [
        "",
        "tickgate://",
        "tickgate://gateway",
        "tickgate://gateway/",
        "tickgate://gateway/A",
        "tickgate://gateway/a/b",
        "tickgate://admin/a b",
        "tickgate://root/a",
        "TICKGATE://admin/a",
        "https://admin/a",
    ] {
        assert_eq!(role(bad), None, "{bad}");
    }
}

#[test]
fn a_certificate_of_two_roles_has_none() {
    let key = rcgen::KeyPair::generate().unwrap();
    let role = |uris: &[&str]| {
        let mut params = rcgen::CertificateParams::default();
        for uri in uris {
            let name = rcgen::SanType::URI((*uri).try_into().unwrap());
            params.subject_alt_names.push(name);
        }
        Role::of_certificate(params.self_signed(&key).unwrap().der())
    };
    assert_eq!(role(&[]), None);
    assert_eq!(
        role(&["https://example.org/x", "tickgate://admin/a"]),
        Some(Role::Admin("a".into()))
    );
    assert_eq!(role(&["tickgate://admin/a", "tickgate://gateway/b"]), None);
    assert_eq!(role(&["tickgate://what/a", "tickgate://admin/a"]), None);
    assert_eq!(Role::of_certificate(&vec![0x30; 9].into()), None);
}
