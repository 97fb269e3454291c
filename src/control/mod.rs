//! The control channel between a gateway and its sidecar: what each end of it asks of its host.
//!
//! The protocol is two state machines without I/O or clock ([`link`], the gateway's end, and [`attachment`], the sidecar's); two
//! shells (`gateway` and `sidecar`) run them over one gRPC stream.
//!
//! ```text
//!   GatewayHost ◄─ effects ─ Link ─ FromGateway ─► codec ─► gRPC ─► codec ─► Attachment ─ actions ─► SidecarHost
//!               ─ reports ─►      ◄─ FromSidecar ─ codec ◄─ gRPC ◄─ codec ◄─            ◄─ answers ─
//! ```
//!
//! Three rules carry it. What is to be sent is *state, not a queue*: each machine knows its position in the log, the newest
//! acknowledgement, the report or the orders in hand, and turns them into a message only when the stream takes one, so a slow peer
//! costs no memory. Whatever is wrong with a stream ends it, and attaching again heals everything: the log from the gateway's
//! position (or a snapshot), the seats from its list. And nothing that ends a stream ends play.
//!
//! Lists that may be long go in portions, on attach (the gateway's seats) and in the answer (those of them that are dead), each with
//! its count ahead: nothing is acted on before the list is whole.

pub mod attachment;
pub mod codec;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod link;
pub mod message;
#[cfg(feature = "sidecar")]
mod openings;
#[cfg(feature = "sidecar")]
pub mod sidecar;
mod status;

#[cfg(test)]
#[cfg(all(feature = "gateway", feature = "sidecar"))]
mod loopback;
#[cfg(test)]
mod simulation;

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    clock::Timestamp,
    id::{GatewayId, Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
    token::KeyId,
};

/// How often each end says that it is there.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long an end listens to silence before it gives the stream up: five heartbeats, so that four may be late together.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// How long an attach may take, from opening the stream to the whole of the answer: a connection, a TLS handshake, every seat there and
/// every dead one back (63 MB at the very most), and a few reads of the store.
pub const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// The most seats that a gateway may have: it names them in 256 messages on attach, 46 MB in all, and the sidecar puts them together in
/// some 80 MB for as long as that takes.
pub const MAX_SEATS: u32 = 1_048_576;

/// The longest message either end accepts, in bytes. The largest is a report of 4,096 seats opened and 4,096 closed: a seat is at most
/// 44 bytes (two ids of 16 + 2, a generation of 5 + 1, and 2 around them), an id of the closed ones 16, which makes 245,760. Then
/// come Attach (180,224 and under 2 KiB of description), IdleMoved (31 bytes each: 126,976), ranges and events. A mebibyte leaves room
/// for fields to come.
pub const MAX_MESSAGE_BYTES: usize = 1_024 * 1_024;

/// A seat as the sidecar knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LiveSeat {
    /// The session that holds it.
    pub session: SessionId,
    /// Whose session that is.
    pub player: PlayerId,
    /// The player generation of the token that took the seat.
    pub player_generation: PlayerGeneration,
}

/// What a revocation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// One session.
    Session(SessionId),
    /// All sessions of a player whose generation is smaller.
    Player(PlayerId, PlayerGeneration),
}

/// Events of the revocation log in the range (from, to].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationRange {
    /// The revision before the first event.
    pub from: Revision,
    /// The revision of the last event.
    pub to: Revision,
    /// The events, in order.
    pub events: Vec<Revocation>,
}

/// A gateway as it presents itself on attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayDescription {
    /// Its id.
    pub id: GatewayId,
    /// This process of it.
    pub incarnation: Incarnation,
    /// Where clients reach it.
    pub addresses: Vec<SocketAddr>,
    /// The TLS server name that clients use.
    pub server_name: String,
    /// SHA-256 of its QUIC leaf certificate: current, then next.
    pub certificate_sha256: Vec<[u8; 32]>,
    /// How many seats it has.
    pub capacity: u32,
}

/// What happened on a gateway since the last report.
///
/// It tells states and not histories, which bounds it and lets it be late: a session stands at most once in `opened` and `closed`
/// together, in the one that says how things are now, and in `active` once for each activity window that the report is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeatReport {
    /// Seats taken.
    pub opened: Vec<LiveSeat>,
    /// Sessions whose seat ended.
    pub closed: Vec<SessionId>,
    /// Sessions that were active.
    pub active: Vec<SessionId>,
    /// Seats taken now.
    pub seats: u32,
    /// Whether the gateway drains: no tokens are to be minted for it.
    pub draining: bool,
    /// SHA-256 of the QUIC leaf certificate, current then next, if that has changed since it was last told.
    pub certificate_sha256: Option<Vec<[u8; 32]>>,
    /// What happened, oldest first, for `explain` alone.
    pub events: Vec<GatewayEvent>,
    /// Events that were lost because too much happened at once, or the channel was down.
    pub events_lost: u64,
}

/// Something that happened at a gateway's door or to a seat, as `explain` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayEvent {
    /// When, by the gateway's clock.
    pub at: Timestamp,
    /// What.
    pub kind: GatewayEventKind,
    /// Whose; none for a refusal whose token did not open.
    pub session: Option<SessionId>,
    /// SHA-256 of the connect token's text, of an admission or a refusal that presented one.
    pub token_sha256: Option<[u8; 32]>,
    /// The peer's address, of a refusal.
    pub remote: Option<SocketAddr>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayEventKind {
    /// A token took a new seat.
    Admitted,
    /// A token took over the seat of its session.
    Resumed {
        /// Whether from a connection that was live, and was closed as superseded; else the seat was suspended.
        superseded: bool,
    },
    /// A client was refused.
    Refused {
        /// The true reason, a fixed label.
        reason: Cow<'static, str>,
        /// The number of the close code that the client was told.
        code: u16,
    },
    /// A seat's connection was lost; its grace runs.
    Suspended,
    /// A seat ended.
    Ended {
        /// Why, a fixed label.
        reason: Cow<'static, str>,
        /// The number of the close code that the client was told.
        code: u16,
    },
}

/// What a sidecar wants of a gateway beside the log; state, not a queue, so that whatever is newer replaces what has not gone out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The keys to accept from now on, if they have changed.
    pub keys: Option<Vec<CarriedKey>>,
    /// Sessions with a seat there that were active elsewhere, with their last activity; each at most once.
    pub idle_moved: Vec<(SessionId, Timestamp)>,
    /// Drain, or stop draining.
    pub drain: Option<Drain>,
}

/// Whether a gateway is to admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Admit nobody any more, and close what is left after this time.
    Within(Duration),
    /// Admit again.
    Cancel,
}

/// A transport key as the control channel carries it: 32 secret bytes and the master epoch they derive from.
#[derive(Clone, PartialEq, Eq)]
pub struct CarriedKey {
    /// Which master key it is derived from.
    pub epoch: u32,
    /// The key bytes. Secret.
    pub key: Bytes,
}

impl std::fmt::Debug for CarriedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CarriedKey")
            .field("epoch", &self.epoch)
            .field("key", &"[redacted]")
            .finish()
    }
}

/// What the gateway's end of the control channel asks of the gateway. All calls are short and never block.
pub trait GatewayHost: Send + Sync + 'static {
    /// How the gateway presents itself.
    fn describe(&self) -> GatewayDescription;
    /// Its live seats now: what changes from here on is to be reported, until [`detached`](Self::detached).
    fn live_seats(&self) -> Vec<LiveSeat>;
    /// The channel is up: the sidecar's time and the sessions' idle timeout.
    fn attached(&self, time: Timestamp, idle_timeout: Duration);
    /// The channel is down, or was not answered after [`live_seats`](Self::live_seats); what is known stays in force.
    fn detached(&self);
    /// These are the keys to open connect tokens with from now on. Unusable ones are refused with a log line.
    fn install_keys(&self, keys: &[CarriedKey]);
    /// The log starts afresh at `revision` in `lineage`, and these of the seats named on attach are dead.
    fn reset_log(&self, lineage: Lineage, revision: Revision, dead: &[SessionId]);
    /// Apply these events: when it returns, the next verify refuses what they end.
    fn apply_revocations(&self, range: &RevocationRange);
    /// These sessions were active on another gateway, at these times.
    fn idle_moved(&self, sessions: &[(SessionId, Timestamp)]);
    /// Admit nobody any more, or again.
    fn drain(&self, drain: Drain);
    /// A heartbeat: the sidecar's time and the head of its log.
    fn heartbeat(&self, time: Timestamp, head: Revision);
    /// Takes what is to be reported (swaps it out); `live_seats` on a later attach heals whatever a lost report said.
    fn take_report(&self, report: &mut SeatReport);
    /// Notified (`notify_one`, so that it is not lost between two waits) when there is something to report.
    fn report_ready(&self) -> Arc<Notify>;
}

/// Why a gateway may not attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachRefusal {
    /// The certificate names no gateway, or another one.
    #[error("the certificate is not that gateway's")]
    WrongIdentity,
    /// The first message was no usable Attach.
    #[error("malformed attach")]
    Malformed,
    /// A newer process of the same gateway is attached.
    #[error("a newer process of this gateway has attached")]
    Fenced,
    /// The sidecar cannot answer now (store failure); try again.
    #[error("the sidecar is not ready")]
    NotReady,
}

impl AttachRefusal {
    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::WrongIdentity => "wrong_identity",
            Self::Malformed => "malformed_attach",
            Self::Fenced => "fenced",
            Self::NotReady => "not_ready",
        }
    }
}

/// The revocation log and liveness, as the sidecar's end of the control channel reads them.
#[tonic::async_trait]
pub trait SidecarHost: Send + Sync + 'static {
    /// The sidecar's time.
    fn time(&self) -> Timestamp;
    /// Idle timeout of sessions.
    fn idle_timeout(&self) -> Duration;
    /// Registers a gateway process, which holds the keys of these ids; from now on connect tokens can be minted for it. Replaces an
    /// older attachment.
    async fn attach(
        &self,
        gateway: &GatewayDescription,
        seats: &[LiveSeat],
        keys: &[KeyId],
    ) -> Result<AttachmentId, AttachRefusal>;
    /// The keys for this gateway process.
    fn keys_for(&self, gateway: &GatewayId, incarnation: Incarnation) -> Vec<CarriedKey>;
    /// The log's lineage, the oldest revision still retained (exclusive: events after it are there) and the head.
    ///
    /// An event must be retained for the longest life of a connect token, plus its leeway, plus [`ATTACH_TIMEOUT`]: a token minted
    /// before the event may take a seat after the gateway has listed its seats for an attach that is still under way, so that only
    /// the log can end it.
    async fn log_state(&self) -> Result<LogState, AttachRefusal>;
    /// Up to `limit` events after `from`, in order: the range they cover, which starts later than `from` if what came next is no
    /// longer retained.
    async fn log_after(
        &self,
        from: Revision,
        limit: usize,
    ) -> Result<RevocationRange, AttachRefusal>;
    /// Which of these seats' sessions are dead (revoked, expired, unknown, or of an older player generation).
    async fn dead_among(&self, seats: &[LiveSeat]) -> Result<Vec<SessionId>, AttachRefusal>;
    /// Watches the head of the log, which moves once the events up to it can be read. Its end is the sidecar's: streams close.
    fn watch_head(&self) -> tokio::sync::watch::Receiver<Revision>;
    /// A gateway's report of seats and activity. One at a time for an attachment, and the stream is read on when it returns; an
    /// empty one, with the count of seats alone, comes with each heartbeat.
    async fn report(&self, attachment: AttachmentId, report: SeatReport);
    /// A gateway has applied the log up to `revision`.
    fn acknowledged(&self, attachment: AttachmentId, revision: Revision);
    /// A gateway holds the keys of these ids now, and no others: it opens no token under another one.
    fn keys_held(&self, attachment: AttachmentId, keys: Vec<KeyId>);
    /// The attachment's stream has ended.
    fn detach(&self, attachment: AttachmentId);
    /// Resolves when this attachment has been replaced by a newer one.
    async fn fenced(&self, attachment: AttachmentId);
    /// Notified (`notify_one`) when there are orders for this attachment.
    fn orders_ready(&self, attachment: AttachmentId) -> Arc<Notify>;
    /// Takes the orders for this attachment (swaps them out).
    fn take_orders(&self, attachment: AttachmentId) -> Orders;
}

/// One stream of one gateway process, as the sidecar counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachmentId(pub u64);

/// Where the revocation log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Its identity.
    pub lineage: Lineage,
    /// Events after this revision are retained.
    pub tail: Revision,
    /// The newest revision.
    pub head: Revision,
}
