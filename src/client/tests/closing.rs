//! How connections end, and who is told what.

use super::*;

#[tokio::test]
async fn every_refusal_tells_its_code() {
    for code in CloseCode::ALL {
        let refused = met(|peer| async move { peer.close(*code, b"") }).await;
        let ConnectError::Refused(closed) = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(closed.code(), Some(*code));
        assert_eq!(refused.label(), code.label());
        assert_eq!(refused.advice(), code.advice());
    }
}

#[tokio::test]
async fn a_code_that_is_not_known_is_told_as_such() {
    let refused = met(|peer| async move { peer.quic.close(VarInt::from_u32(0xbeef), b"") }).await;
    assert!(matches!(
        refused,
        ConnectError::Refused(Closed::Unknown(0xbeef))
    ));
}

#[tokio::test]
async fn a_gateway_that_speaks_out_of_turn_is_left() {
    let refused = met(|mut peer| async move {
        peer.write(&Frame::Message(Bytes::from_static(b"early")))
            .await;
        let told = Closed::from(peer.quic.closed().await);
        assert_eq!(told.code(), Some(CloseCode::ProtocolViolation));
    })
    .await;
    let ConnectError::Refused(closed) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(closed, Closed::Violation(FrameError::UnexpectedType));
}

#[tokio::test]
async fn a_reset_stream_does_not_hide_the_close_code() {
    let refused = met(|mut peer| async move {
        peer.send.reset(VarInt::from_u32(1)).unwrap();
        peer.receive.stop(VarInt::from_u32(1)).unwrap();
        peer.close(CloseCode::ServerFull, b"");
    })
    .await;
    assert_eq!(refused.label(), "server_full");
}

#[tokio::test]
async fn the_close_code_is_told_though_the_stream_ended_before() {
    let (mut peer, connection) = admitted().await;
    peer.send.finish().unwrap();
    let gateway = async {
        peer.quic
            .send_datagram(Bytes::from_static(b"seen?"))
            .unwrap();
        peer.quic.read_datagram().await.unwrap();
        peer.close(CloseCode::SessionRevoked, b"");
    };
    // The answer tells the gateway that the end of the stream has arrived: it travelled no later than the datagram.
    let answer = async {
        connection.recv_datagram().await.unwrap();
        connection
            .send_datagram(Bytes::from_static(b"seen"))
            .unwrap();
    };
    let all = async { tokio::join!(gateway, answer, connection.recv_message()) };
    let (_, _, ended) = soon(all).await;
    assert_eq!(ended.unwrap_err().code(), Some(CloseCode::SessionRevoked));
}

#[tokio::test]
async fn a_close_during_play_is_told_to_everybody() {
    let (peer, connection) = admitted().await;
    peer.close(CloseCode::Kicked, &9_u32.to_be_bytes());
    let kicked = soon(connection.closed()).await;
    assert_eq!(kicked.kick_reason(), Some(9));
    assert_eq!(kicked.advice(), Advice::GiveUp);
    assert_eq!(soon(connection.recv_datagram()).await, Err(kicked.clone()));
    assert_eq!(soon(connection.recv_message()).await, Err(kicked.clone()));
    let unsent = soon(connection.send_message(b"late")).await;
    assert_eq!(unsent, Err(SendError::Closed(kicked.clone())));
    let unsent = connection.send_datagram(Bytes::new());
    assert_eq!(unsent, Err(SendError::Closed(kicked.clone())));
    // Closing what is closed does not change why.
    connection.close();
    assert_eq!(connection.close_reason(), Some(kicked));
}

#[tokio::test]
async fn dropping_a_connection_leaves() {
    let (peer, connection) = admitted().await;
    drop(connection);
    let told = Closed::from(soon(peer.quic.closed()).await);
    assert_eq!(told.code(), Some(CloseCode::Left));
}

#[tokio::test]
async fn shutting_an_endpoint_down_leaves_everywhere() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let both = async { tokio::join!(Peer::admit(&endpoint), local.connect(&ticket)) };
    let (peer, connection) = soon(both).await;
    let connection = connection.unwrap();
    soon(local.shutdown()).await;
    let told = Closed::from(soon(peer.quic.closed()).await);
    assert_eq!(told.code(), Some(CloseCode::Left));
    assert_eq!(connection.close_reason(), Some(Closed::Local));
    let refused = soon(local.connect(&ticket)).await.unwrap_err();
    assert_eq!(refused.label(), "endpoint_closed");
}

#[tokio::test]
async fn a_stream_that_ended_without_a_close_is_left() {
    let (mut peer, connection) = admitted().await;
    peer.send.finish().unwrap();
    let ended = soon(connection.recv_message()).await.unwrap_err();
    assert_eq!(ended, Closed::StreamEnded);
    assert_eq!(ended.advice(), Advice::NewToken);
    let told = Closed::from(soon(peer.quic.closed()).await);
    assert_eq!(told.code(), Some(CloseCode::Left));
    // It is remembered why, though QUIC only knows who closed.
    assert_eq!(connection.close_reason(), Some(Closed::StreamEnded));
}

#[tokio::test]
async fn a_frame_of_another_version_is_answered_as_such() {
    let refused = met(|mut peer| async move {
        let mut bytes = Vec::new();
        WELCOME.encode(&mut bytes);
        bytes[4] = wire::VERSION + 1;
        peer.send.write_all(&bytes).await.unwrap();
        let told = Closed::from(peer.quic.closed().await);
        assert_eq!(told.code(), Some(CloseCode::UnsupportedVersion));
    })
    .await;
    assert_eq!(refused.label(), "violation");
}
