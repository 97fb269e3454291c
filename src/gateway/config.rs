//! What a gateway is told at its start: who it is, where it listens, and its limits with their arithmetic.

use std::{
    net::SocketAddr,
    num::{NonZeroU8, NonZeroU32},
    path::PathBuf,
    time::Duration,
};

use super::exchange::SeatBudget;
use crate::{
    clock::Clock,
    id::GatewayId,
    seat::{DEFAULT_ACTIVITY_WINDOW, SeatConfig},
    tls::Identity,
};

/// Everything that a [`Gateway`](super::Gateway) needs to start.
#[derive(Debug)]
pub struct GatewayConfig {
    /// The gateway's id: connect tokens are made for it, and its control certificate says the same.
    pub id: GatewayId,
    /// The UDP address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that carry the clients' traffic, each with a socket of its own on the same address. Default 1: one carries some two
    /// thousand clients at 30 Hz, and the game that the gateway is embedded in has a use for the other cores. More than one only where the
    /// kernel can steer packets to their worker, which is Linux. Never more than cores.
    pub workers: NonZeroU8,
    /// The addresses that clients are told; empty means the address bound.
    pub advertise: Vec<SocketAddr>,
    /// The TLS server name that clients are told.
    pub server_name: String,
    /// The certificate and key of the QUIC listener.
    pub identity: Identity,
    /// The identity that follows: announced from the start, served after [`next_certificate_lead`](Self::next_certificate_lead).
    pub next_identity: Option<Identity>,
    /// How long a next certificate is announced before it is served. [`NEXT_CERTIFICATE_LEAD`], which only tests have a reason to
    /// shorten: a client that pins certificates has the list of them that came with its connect token.
    pub next_certificate_lead: Duration,
    /// The file that keeps the transport's keys, so that a restarted gateway knows the connections of the process before it and
    /// resets them at once; made if it is not there. Without one, their clients find out by their idle timeout.
    pub state: Option<PathBuf>,
    /// The seat table. Its window is counted in ticks: see [`ticking_at`](Self::ticking_at).
    pub seats: SeatConfig,
    /// Limits on what peers may take.
    pub limits: Limits,
    /// The simulation's time between two ticks, to count those that take longer. None: they are not counted.
    pub tick_interval: Option<Duration>,
    /// Bytes of receive and send buffer to ask the kernel for.
    pub socket_buffer: usize,
    /// The clock that tokens and seats are judged by.
    pub clock: Clock,
}

impl GatewayConfig {
    /// A configuration with the documented defaults for everything that has one.
    pub fn new(id: GatewayId, listen: SocketAddr, identity: Identity) -> Self {
        Self {
            id,
            listen,
            workers: NonZeroU8::MIN,
            advertise: Vec::new(),
            server_name: "tickgate.local".to_owned(),
            identity,
            next_identity: None,
            next_certificate_lead: NEXT_CERTIFICATE_LEAD,
            state: None,
            seats: SeatConfig::default(),
            limits: Limits::default(),
            tick_interval: None,
            socket_buffer: DEFAULT_SOCKET_BUFFER,
            clock: Clock::system(),
        }
    }

    /// For a simulation of `rate` ticks per second: a session's activity is written at most once a second
    /// ([`SeatConfig::with_window`] sets another time), and a tick that takes longer than the time between two is counted as an
    /// overrun.
    #[must_use]
    pub fn ticking_at(mut self, rate: NonZeroU32) -> Self {
        self.seats = self.seats.with_window(DEFAULT_ACTIVITY_WINDOW, rate);
        self.tick_interval = Some(Duration::from_secs(1) / rate.get());
        self
    }
}

/// 4 MiB: at 60,000 datagrams a second with about 1.3 KiB of kernel memory each, a pause of 50 ms.
pub const DEFAULT_SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// 5 min: the longest life that a connect token can have. So whoever still holds a list of certificates without the next one has a
/// token that no gateway takes any more.
pub const NEXT_CERTIFICATE_LEAD: Duration = Duration::from_secs(300);

/// What peers may take of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes in flight; at the cap the oldest unfinished one is dropped, and no proven prefix holds more than an eighth. Default
    /// 1,024: about 20 KiB of memory each, 20 MiB. An honest handshake of 150 ms keeps its place as long as fewer than 1,024 begin
    /// in that time: 6,800 a second, where a core can do 4,000 (250 µs each).
    pub handshakes: usize,
    /// Handshakes in flight above which an address that has not proved itself is asked to (Retry, RFC 9000, section 8.1.2). Default
    /// 256, a quarter of the cap: all that forged addresses can hold. At 100 ms a handshake, up to 2,560 clients a second come in
    /// without the round trip more that a Retry costs them. 0 asks everybody.
    pub retry_above: usize,
    /// From a client's first packet to the end of its handshake; then it is forgotten without a word. Default 5 s: a client sends
    /// anew after 1 s and 2 s more (RFC 9002, section 6.2), so two losses in a row leave two seconds.
    pub handshake_timeout: Duration,
    /// Handshakes a second that one proven prefix (IPv4 /32, IPv6 /64) may begin in the long run. Default 50: 1.25 % of a core.
    /// Only prefixes that were asked to prove themselves are charged, so below [`retry_above`](Self::retry_above) nobody is.
    pub prefix_rate: u32,
    /// Handshakes that one proven prefix may begin at once. Default 200: a tournament's hall, or a carrier's NAT after an outage, and
    /// 50 ms of a core.
    pub prefix_burst: u32,
    /// Connections that have not said Hello yet; at the cap the oldest is closed, and no prefix holds more than an eighth. Default
    /// 1,024: 30 KiB each, 30 MiB. An honest client says Hello with the end of its handshake and is here for an instant.
    pub awaiting_hello: usize,
    /// Connections that were refused and are kept until QUIC has drained them, to tell them again why; of more the oldest is forgotten.
    /// Default 1,024: at some 20 KiB each 20 MiB.
    pub refused: usize,
    /// From the handshake's end to Hello. Default 3 s.
    pub hello_timeout: Duration,
    /// QUIC idle timeout: silence after which a connection counts as lost. Default 10 s, three missed pings.
    pub idle_timeout: Duration,
    /// Connect tokens remembered as used; full refuses new ones. Default 65,536: with tokens of 30 s and 5 s of leeway,
    /// 1,872 admissions a second.
    pub single_use: usize,
    /// How long new clients are admitted after the last heartbeat of the sidecar. Default 30 s.
    pub admit_while_stale: Duration,
    /// How long seats go on after the last heartbeat of the sidecar; then they end. Default none: for ever. Looked at once a second,
    /// whether or not the simulation ticks.
    pub max_stale: Option<Duration>,
    /// How long new clients are admitted after the last tick of the simulation. Default 2 s.
    pub tick_stall: Duration,
    /// What one seat may send per tick.
    pub seat: SeatBudget,
    /// What one connection may send per second, with a seat or without.
    pub rates: SeatRates,
    /// Bytes of messages that may wait for one client; a client that falls further behind is closed as rate limited. Default 256 KiB.
    pub message_backlog: usize,
}

impl Limits {
    /// What one of so many workers may let its peers take, so that all together let them take no more than this, but for rounding up.
    ///
    /// Rooms are each worker's own: handshakes, connections that have yet to say Hello, those refused, and the bytes of an inbox. So their
    /// sizes are divided, and with them the eighth that one prefix may hold. All else is one for all workers (a prefix's rate, the tokens
    /// presented) or counted per connection, and stays as it is.
    #[must_use]
    pub(super) fn among(self, workers: NonZeroU8) -> Self {
        let workers = usize::from(workers.get());
        let seat = SeatBudget {
            total_bytes: self.seat.total_bytes.div_ceil(workers),
            ..self.seat
        };
        Self {
            handshakes: self.handshakes.div_ceil(workers),
            retry_above: self.retry_above.div_ceil(workers),
            awaiting_hello: self.awaiting_hello.div_ceil(workers),
            refused: self.refused.div_ceil(workers),
            seat,
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 1_024,
            retry_above: 256,
            handshake_timeout: Duration::from_secs(5),
            prefix_rate: 50,
            prefix_burst: 200,
            awaiting_hello: 1_024,
            refused: 1_024,
            hello_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(10),
            single_use: 65_536,
            admit_while_stale: Duration::from_secs(30),
            max_stale: None,
            tick_stall: Duration::from_secs(2),
            seat: SeatBudget::default(),
            rates: SeatRates::default(),
            message_backlog: 256 * 1024,
        }
    }
}

/// What one connection may send in the long run, and [`burst`](Self::burst) at once.
///
/// Packets, datagrams and bytes beyond it are dropped and counted; a client that goes on at more than twice its rate is closed as rate
/// limited once it has sent a whole burst too many. Messages beyond it are not read until there is room, so that the client's own sending
/// waits. Streams need no budget: QUIC lets a client open one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatRates {
    /// UDP packets a second, of whatever kind. Default 2,000: a client at 128 Hz with a datagram and a message per input, which acknowledges
    /// a gateway that sends as much, needs some 400. At 10 µs each, 2 % of a core.
    pub packets: u32,
    /// Datagrams a second. Default 512: four per input at 128 Hz.
    pub datagrams: u32,
    /// Bytes of datagrams and messages a second. Default 512 KiB: three and a half times the largest datagrams at 128 Hz.
    pub bytes: u32,
    /// Messages a second. Default 256: two per input at 128 Hz.
    pub messages: u32,
    /// Changes of address a minute, and at once. Default 12. Beyond it, packets from another address than the last are dropped; a client that
    /// goes on at more than half the rate is closed after some minutes.
    pub moves: u32,
    /// How much of a rate may come at once, in the time that it takes to come. Default 4 s: what a client at 128 Hz sends in 16 s without a
    /// link, if it keeps all of it and sends it at once.
    pub burst: Duration,
}

impl Default for SeatRates {
    fn default() -> Self {
        Self {
            packets: 2_000,
            datagrams: 512,
            bytes: 512 * 1024,
            messages: 256,
            moves: 12,
            burst: Duration::from_secs(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_rooms_and_nothing_else() {
        let whole = Limits::default();
        let part = whole.clone().among(NonZeroU8::new(3).unwrap());
        assert_eq!((part.handshakes, part.retry_above), (342, 86));
        assert_eq!((part.awaiting_hello, part.refused), (342, 342));
        assert_eq!(part.seat.total_bytes, whole.seat.total_bytes.div_ceil(3));
        assert_eq!(part.seat.datagrams, whole.seat.datagrams);
        let restored = Limits {
            handshakes: whole.handshakes,
            retry_above: whole.retry_above,
            awaiting_hello: whole.awaiting_hello,
            refused: whole.refused,
            seat: whole.seat,
            ..part
        };
        assert_eq!(restored, whole);
        assert_eq!(whole.clone().among(NonZeroU8::MIN), whole);
        // Everybody has at least a place, were there ever so many workers.
        assert_eq!(whole.among(NonZeroU8::MAX).handshakes, 5);
    }
}
