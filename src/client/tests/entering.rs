//! Getting in, or not.

use super::*;

#[tokio::test]
async fn hello_presents_the_token_and_welcome_is_read() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let gateway = async {
        let (mut peer, hello) = Peer::accept(&endpoint).await;
        assert_eq!(hello, Hello::new("v4.local.token"));
        peer.write(&Frame::Welcome(WELCOME)).await;
        peer
    };
    let (_peer, connection) = soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    let connection = connection.unwrap();
    assert_eq!(*connection.welcome(), WELCOME);
    assert_eq!(connection.remote_address(), ticket.addresses[0]);
    assert_eq!(connection.close_reason(), None);
}

#[tokio::test]
async fn options_replace_what_hello_says() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let options = HelloOptions {
        token: Some(SecretToken::new("forged")),
        proof: Some([3; 64]),
        ..HelloOptions::default()
    };
    // Dropping the gateway's end refuses the client.
    let gateway = async { Peer::accept(&endpoint).await.1 };
    let connecting = local.connect_with(&ticket, &options);
    let (hello, _) = soon(async { tokio::join!(gateway, connecting) }).await;
    assert_eq!(hello.token, "forged");
    assert_eq!(hello.proof, Some([3; 64]));
}

#[tokio::test]
async fn a_gateway_with_another_certificate_is_told_no_token() {
    let (endpoint, mut ticket) = gateway();
    ticket.certificate_sha256 = vec![[0; 32]];
    let local = client();
    let gateway = async { endpoint.accept().await.unwrap().await.map(|_| ()) };
    let (handshake, outcome) = soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    assert!(handshake.is_err());
    let refused = outcome.unwrap_err();
    assert_eq!(refused.label(), "transport");
    assert_eq!(refused.advice(), Advice::NewToken);
}

#[tokio::test]
async fn a_silent_address_is_passed_over_for_the_next() {
    let (endpoint, mut ticket) = gateway();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = client().with_deadlines(Deadlines {
        handshake: Duration::from_secs(1),
        ..Deadlines::default()
    });
    let other_family = "[::1]:9".parse().unwrap();
    ticket.addresses = vec![other_family, silent.local_addr().unwrap()];
    let unanswered = soon(local.connect(&ticket)).await.unwrap_err();
    assert_eq!(unanswered.label(), "handshake_timeout");

    ticket.addresses.push(endpoint.local_addr().unwrap());
    let both = async { tokio::join!(Peer::admit(&endpoint), local.connect(&ticket)) };
    let (_peer, connection) = soon(both).await;
    assert_eq!(connection.unwrap().remote_address(), ticket.addresses[2]);

    ticket.addresses = vec![other_family];
    let unusable = soon(local.connect(&ticket)).await.unwrap_err();
    assert_eq!(unusable.label(), "ticket");
}

#[tokio::test]
async fn a_gateway_that_never_answers_is_given_up() {
    let (endpoint, ticket) = gateway();
    let local = client().with_deadlines(Deadlines {
        welcome: Duration::from_millis(100),
        ..Deadlines::default()
    });
    let gateway = async {
        let (peer, _) = Peer::accept(&endpoint).await;
        Closed::from(peer.quic.closed().await)
    };
    let (told, outcome) = soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    assert_eq!(outcome.unwrap_err().label(), "welcome_timeout");
    assert_eq!(told.code(), Some(CloseCode::Left));
}

#[tokio::test]
async fn a_villain_writes_what_it_likes() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let villain = async {
        let mut handshaken = local.handshake(&ticket).await.unwrap();
        handshaken
            .send_datagram(Bytes::from_static(b"too early"))
            .unwrap();
        for byte in [1, 0, 0, 4, wire::VERSION, 0, 1, b't'] {
            handshaken.send_hello_bytes(&[byte]).await.unwrap();
        }
        handshaken.finish_hello();
        handshaken.welcome().await
    };
    let both = async { tokio::join!(Peer::admit(&endpoint), villain) };
    let (_peer, connection) = soon(both).await;
    assert!(connection.is_ok());
}

#[tokio::test]
async fn a_token_that_fits_no_hello_is_not_sent() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let options = HelloOptions {
        token: Some(SecretToken::new("")),
        ..HelloOptions::default()
    };
    let gateway = async { endpoint.accept().await.unwrap().await };
    let both = async { tokio::join!(gateway, local.connect_with(&ticket, &options)) };
    let (_quic, outcome) = soon(both).await;
    assert!(matches!(
        outcome,
        Err(ConnectError::Hello(FrameError::Malformed))
    ));
}

#[tokio::test]
async fn a_rejected_client_comes_back_with_a_new_token() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let gateway = async {
        let (peer, first) = Peer::accept(&endpoint).await;
        peer.close(CloseCode::TokenRejected, b"");
        let (mut peer, second) = Peer::accept(&endpoint).await;
        peer.write(&Frame::Welcome(WELCOME)).await;
        (peer, first.token, second.token)
    };
    let mut issued = 0;
    let fresh = || {
        issued += 1;
        let token = SecretToken::new(format!("token-{issued}"));
        let ticket = Ticket {
            token,
            ..ticket.clone()
        };
        async { Ok(ticket) }
    };
    let joining = movable(join(&local, Patience::default(), fresh));
    let ((_peer, first, second), joined) = soon(async { tokio::join!(gateway, joining) }).await;
    assert!(joined.is_ok());
    assert_eq!((first.as_str(), second.as_str()), ("token-1", "token-2"));
}

#[tokio::test]
async fn a_client_with_a_key_proves_it_to_this_gateway() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let key = ClientKey::generate().unwrap();
    let options = HelloOptions {
        client_key: Some(key.clone()),
        ..HelloOptions::default()
    };
    let gateway = async { Peer::accept(&endpoint).await.1 };
    let connecting = local.connect_with(&ticket, &options);
    let (hello, _) = soon(async { tokio::join!(gateway, connecting) }).await;
    let expected = key.prove("v4.local.token", &ticket.certificate_sha256[0]);
    assert_eq!(hello.proof, Some(expected));
}

#[tokio::test]
async fn who_is_let_in_as_somebody_else_leaves() {
    let (endpoint, mut ticket) = gateway();
    ticket.session = SessionId(6);
    let local = client();
    let gateway = async {
        let peer = Peer::admit(&endpoint).await;
        Closed::from(peer.quic.closed().await)
    };
    let (told, outcome) = soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    assert_eq!(told.code(), Some(CloseCode::ProtocolViolation));
    let refused = outcome.unwrap_err();
    assert_eq!(refused.label(), "other_session");
    assert_eq!(refused.advice(), Advice::GiveUp);
}
