//! The same clients of quinn's own: a task for each that takes what comes, and one loop that sends what is due.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::{TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use tokio::{
    runtime::Runtime,
    time::{MissedTickBehavior, interval},
};

use super::{PAYLOAD, Played, SETTLE, SOCKETS, due, echo::EchoServer, thread_nanos};
use crate::rig::stopwatch;

pub(super) struct Bare {
    runtime: Runtime,
    connections: Vec<quinn::Connection>,
    echoed: Arc<AtomicU64>,
}

impl Bare {
    pub(super) fn connect(server: &EchoServer, count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let crypto = QuicClientConfig::try_from(server.tls()).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        let echoed = Arc::new(AtomicU64::new(0));
        let connections = runtime.block_on(async {
            let endpoints: Vec<_> = (0..SOCKETS)
                .map(|_| quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap())
                .collect();
            let mut connections = Vec::with_capacity(count);
            for n in 0..count {
                let connecting = endpoints[n % SOCKETS]
                    .connect_with(config.clone(), server.address, "echo")
                    .unwrap();
                let connection = connecting.await.unwrap();
                let (receiving, echoed) = (connection.clone(), Arc::clone(&echoed));
                tokio::spawn(async move {
                    while receiving.read_datagram().await.is_ok() {
                        echoed.fetch_add(1, Ordering::Relaxed);
                    }
                });
                connections.push(connection);
            }
            connections
        });
        Self {
            runtime,
            connections,
            echoed,
        }
    }

    /// Sends what is due every millisecond, for `span`.
    pub(super) fn play(&mut self, span: Duration) -> Played {
        let Self {
            runtime,
            connections,
            echoed,
        } = self;
        let before = echoed.load(Ordering::Relaxed);
        let heard = || echoed.load(Ordering::Relaxed) - before;
        runtime.block_on(async {
            let mut slices = interval(Duration::from_millis(1));
            slices.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let start = stopwatch::start();
            let payload = Bytes::from_static(&[7; PAYLOAD]);
            let mut sent = 0;
            let mut counted = None;
            for millis in 0..span.as_millis() as u64 {
                if counted.is_none() && start.elapsed() >= SETTLE {
                    counted = Some((thread_nanos(), sent, heard()));
                }
                while sent < due(millis, connections.len()) {
                    let connection = &connections[(sent % connections.len() as u64) as usize];
                    connection.send_datagram(payload.clone()).unwrap();
                    sent += 1;
                }
                slices.tick().await;
            }
            let nanos = thread_nanos();
            let (nanos_before, sent_before, heard_before) = counted.unwrap();
            Played {
                sent: sent - sent_before,
                echoed: heard() - heard_before,
                nanos: nanos - nanos_before,
            }
        })
    }
}

/// As the fleet's.
fn transport() -> TransportConfig {
    let ours = super::transport();
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(ours.peer_streams))
        .max_concurrent_uni_streams(VarInt::from_u32(ours.peer_streams))
        .stream_receive_window(VarInt::from_u32(ours.receive_window))
        .receive_window(VarInt::from_u32(ours.receive_window))
        .send_window(ours.send_window)
        .datagram_receive_buffer_size(Some(ours.datagrams_in))
        .datagram_send_buffer_size(ours.datagrams_out)
        .keep_alive_interval(ours.keep_alive)
        .max_idle_timeout(Some(ours.idle_timeout.try_into().unwrap()))
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    transport
}
