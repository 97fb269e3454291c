//! Datagrams and messages, once the client is in.

use super::*;

#[tokio::test]
async fn datagrams_go_both_ways_within_their_limit() {
    let (peer, connection) = admitted().await;
    let longest = Bytes::from(vec![7; MAX_DATAGRAM]);
    connection.send_datagram(longest.clone()).unwrap();
    assert_eq!(soon(peer.quic.read_datagram()).await, Ok(longest));
    let refused = connection.send_datagram(Bytes::from(vec![7; MAX_DATAGRAM + 1]));
    let too_long = SendError::TooLong {
        length: MAX_DATAGRAM + 1,
        limit: MAX_DATAGRAM,
    };
    assert_eq!(refused, Err(too_long));

    assert_eq!(connection.try_recv_datagram(), None);
    for payload in ["one", "two"] {
        peer.quic.send_datagram(payload.into()).unwrap();
    }
    assert_eq!(soon(connection.recv_datagram()).await, Ok("one".into()));
    assert_eq!(soon(connection.recv_datagram()).await, Ok("two".into()));
}

#[tokio::test]
async fn messages_go_both_ways_in_order() {
    let (mut peer, connection) = admitted().await;
    let longest = Bytes::from(vec![1; MAX_MESSAGE]);
    let refused = soon(connection.send_message(&vec![0; MAX_MESSAGE + 1])).await;
    assert_eq!(refused.unwrap_err().label(), "too_long");
    let said = async {
        connection.send_message(b"hello").await.unwrap();
        connection.send_message(&longest).await.unwrap();
        connection.send_message(b"").await.unwrap();
    };
    let heard = async {
        for expected in [Bytes::from_static(b"hello"), longest.clone(), Bytes::new()] {
            assert_eq!(peer.next().await, Frame::Message(expected));
        }
    };
    soon(async { tokio::join!(said, heard) }).await;

    let said = async {
        for payload in [Bytes::from_static(b"one"), longest.clone()] {
            peer.write(&Frame::Message(payload)).await;
        }
        // Byte by byte, as a stream may cut it.
        for byte in [3, 0, 0, 2, b'o', b'k'] {
            peer.send.write_all(&[byte]).await.unwrap();
        }
    };
    let heard = async {
        for expected in [
            Bytes::from_static(b"one"),
            longest.clone(),
            Bytes::from_static(b"ok"),
        ] {
            assert_eq!(connection.recv_message().await, Ok(expected));
        }
    };
    soon(async { tokio::join!(said, heard) }).await;
}

#[tokio::test]
async fn a_cancelled_message_is_sent_whole_or_not_at_all() {
    let (mut peer, connection) = admitted().await;
    // Nobody reads: sooner or later the windows are full, and a message stays where it is, half-way through.
    let longest = vec![1; MAX_MESSAGE];
    let mut sent = 0;
    while tokio::time::timeout(
        Duration::from_millis(300),
        connection.send_message(&longest),
    )
    .await
    .is_ok()
    {
        sent += 1;
    }
    let said = async { connection.send_message(b"last").await.unwrap() };
    let heard = async {
        for _ in 0..=sent {
            assert_eq!(peer.next().await, Frame::Message(longest.clone().into()));
        }
        assert_eq!(
            peer.next().await,
            Frame::Message(Bytes::from_static(b"last"))
        );
    };
    soon(async { tokio::join!(said, heard) }).await;
}

#[tokio::test]
async fn a_gateway_that_asks_for_it_is_pinged_more_often() {
    let (endpoint, ticket) = gateway();
    let local = client();
    let gateway = async {
        let (mut peer, _) = Peer::accept(&endpoint).await;
        let welcome = Welcome {
            ping_interval_ms: 100,
            ..WELCOME
        };
        peer.write(&Frame::Welcome(welcome)).await;
        peer
    };
    let (mut peer, connection) =
        soon(async { tokio::join!(gateway, local.connect(&ticket)) }).await;
    let connection = connection.unwrap();
    let before = peer.quic.stats().frame_rx.max_data;
    let heard = async {
        while peer.quic.stats().frame_rx.max_data < before + 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), heard)
        .await
        .expect("no pings: QUIC's own come every 3 s only");
    // They change nothing in what may be on its way.
    let longest = Bytes::from(vec![1; MAX_MESSAGE]);
    for _ in 0..4 {
        let message = Frame::Message(longest.clone());
        let said = peer.write(&message);
        let ((), heard) = soon(async { tokio::join!(said, connection.recv_message()) }).await;
        assert_eq!(heard.unwrap(), longest);
    }
}
