//! QUIC as the gateway wants it: quinn-proto's configuration with the arithmetic beside each limit, and connection ids that name
//! their worker.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use quinn_proto::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, InvalidCid, ServerConfig,
    TimeSource, TransportConfig, ValidationTokenConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};

use super::config::Limits;
use crate::clock::Clock;

/// Where random bytes come from: the system, or a test's seed.
pub(super) type Entropy = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Keys that all workers of a process share.
pub(super) struct TransportKeys {
    /// Signs stateless resets (RFC 9000, section 10.3.2).
    pub(super) reset: [u8; 32],
    /// Marks connection ids as ours.
    pub(super) connection_id: [u8; 32],
    /// Seals Retry tokens (RFC 9000, section 8.1.2): one for all workers, so that a Retry sent by one is good at another.
    pub(super) retry: [u8; 32],
}

/// Bytes of datagrams that may wait for a client.
pub(super) const DATAGRAM_SEND_BUFFER: usize = 64 * 1024;

/// Length of our connection ids: one byte of worker, four random ones, and three of a keyed hash over those. Who knows neither key nor
/// id has to guess seven bytes of it, 56 bits; four random bytes are enough for the endpoint to draw one that is free.
pub(super) const CONNECTION_ID_LEN: usize = 8;
/// Where the hash begins.
const CONNECTION_ID_HASHED: usize = 5;

/// Connection ids whose first byte is the worker that serves the connection, and which are known as ours without a table.
///
/// A packet for a connection that nobody knows is answered with a stateless reset, but only if the id in it is one of ours: of this
/// process, or of an earlier one with the same key. Of 16.8 million packets of junk one gets through.
struct WorkerConnectionIds {
    worker: u8,
    key: ring::hmac::Key,
    entropy: Entropy,
}

impl WorkerConnectionIds {
    /// Writes the hash of an id's first bytes into its last ones.
    fn seal(&self, id: &mut [u8; CONNECTION_ID_LEN]) {
        let (hashed, hash) = id.split_at_mut(CONNECTION_ID_HASHED);
        let tag = ring::hmac::sign(&self.key, hashed);
        for (byte, of_tag) in hash.iter_mut().zip(tag.as_ref()) {
            *byte = *of_tag;
        }
    }
}

impl ConnectionIdGenerator for WorkerConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_LEN];
        (self.entropy)(&mut id);
        if let Some(first) = id.first_mut() {
            *first = self.worker;
        }
        self.seal(&mut id);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let mut ours = <[u8; CONNECTION_ID_LEN]>::try_from(&id[..]).map_err(|_| InvalidCid)?;
        // Whichever worker's: what is another's is passed on to that one before. An id that comes here all the same names a worker of an
        // earlier process that had more of them.
        self.seal(&mut ours);
        if ours == id[..] {
            Ok(())
        } else {
            Err(InvalidCid)
        }
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// quinn-proto's view of our clock, which never steps back.
struct QuicTime(Clock);

impl TimeSource for QuicTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.wall().0)
    }
}

/// The endpoint's configuration for one worker.
pub(super) fn endpoint_config(
    worker: u8,
    keys: &TransportKeys,
    entropy: Entropy,
    rng_seed: Option<[u8; 32]>,
) -> EndpointConfig {
    let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &keys.reset);
    let ids = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &keys.connection_id);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config
        .cid_generator(move || {
            Box::new(WorkerConnectionIds {
                worker,
                key: ids.clone(),
                entropy: Arc::clone(&entropy),
            })
        })
        // QUIC version 1 alone (RFC 9000): what docs/PROTOCOL.md promises.
        .supported_versions(vec![1])
        // The core has a budget of its own for resets. An interval between any two would let one through of each batch of packets,
        // which all come at the same instant.
        .min_reset_interval(Duration::ZERO)
        .rng_seed(rng_seed);
    config
}

/// The server's configuration over a TLS configuration of [`tls`](crate::tls).
pub(super) fn server_config(
    tls: rustls::ServerConfig,
    keys: &TransportKeys,
    limits: &Limits,
    clock: Clock,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let crypto = QuicServerConfig::try_from(tls)?;
    let retry = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&keys.retry);
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(retry));
    let mut tokens = ValidationTokenConfig::default();
    // No NEW_TOKEN frames: they serve 0-RTT, which is off.
    tokens.sent(0);
    config
        .transport_config(Arc::new(transport_config(limits)))
        .validation_token_config(tokens)
        .time_source(Arc::new(QuicTime(clock)))
        // Every Incoming is decided on the spot, so hardly any ever waits.
        .max_incoming(64)
        // A ClientHello of 3 packets with post-quantum shares is under 4 KiB.
        .incoming_buffer_size(32 * 1024)
        .incoming_buffer_size_total(1024 * 1024)
        // A phone that moves from Wi-Fi to mobile, or a NAT that rebinds, keeps its connection (RFC 9000, section 9).
        .migration(true);
    Ok(config)
}

fn transport_config(limits: &Limits) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = u64::try_from(limits.idle_timeout.as_millis()).unwrap_or(u64::MAX);
    let idle = VarInt::from_u64(idle).unwrap_or(VarInt::MAX);
    config
        // The session's one stream, opened by the client.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(idle)))
        // Two of the largest messages in flight; the connection has one stream, so its window is the same.
        .stream_receive_window(VarInt::from_u32(32 * 1024))
        .receive_window(VarInt::from_u32(32 * 1024))
        .send_window(128 * 1024)
        // 32 KiB is 28 datagrams of the largest size: more than a seat may hand to one tick.
        .datagram_receive_buffer_size(Some(32 * 1024))
        // 64 KiB is 56 snapshots of the largest size; older ones are dropped first, being out of date.
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        // A payload of 1,150 bytes always fits the smallest QUIC packet, so there is no larger size to discover.
        .mtu_discovery_config(None);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(worker: u8, key: u8) -> WorkerConnectionIds {
        WorkerConnectionIds {
            worker,
            key: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[key; 32]),
            entropy: Arc::new(|bytes| {
                getrandom::fill(bytes).unwrap();
            }),
        }
    }

    #[test]
    fn our_ids_are_known_across_processes_and_no_others_are() {
        let mut before = ids(3, 1);
        let after = ids(3, 1);
        for _ in 0..1_000 {
            let id = before.generate_cid();
            assert_eq!((id.len(), id[0]), (CONNECTION_ID_LEN, 3));
            assert!(after.validate(&id).is_ok());
            assert!(ids(4, 1).validate(&id).is_ok(), "a worker's that is gone");
            assert!(ids(3, 2).validate(&id).is_err(), "another gateway's");
            let mut changed = [0; CONNECTION_ID_LEN];
            changed.copy_from_slice(&id);
            changed[4] ^= 1;
            assert!(after.validate(&ConnectionId::new(&changed)).is_err());
            assert!(after.validate(&ConnectionId::new(&id[..7])).is_err());
            assert!(after.validate(&ConnectionId::new(&[])).is_err());
        }
    }

    #[test]
    fn junk_is_none_of_ours() {
        let ours = ids(0, 1);
        let mut bytes = [0; CONNECTION_ID_LEN];
        let known = (0..10_000).filter(|_| {
            getrandom::fill(&mut bytes).unwrap();
            bytes[0] = 0;
            ours.validate(&ConnectionId::new(&bytes)).is_ok()
        });
        // One in 16.8 million is: twice in a run of 10,000 is one in millions of runs.
        assert!(known.count() <= 1);
    }
}
