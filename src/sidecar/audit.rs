//! The audit trail: who did what to whose sessions, and who was refused what. One event, one line, no secrets.
//!
//! Every place that decides says so here, once it is decided and durable. What the decision is about it says itself ([`Event`]); by whom
//! the call is and where it comes from is known of the call ([`Call`]), which [`serve`](super::serve) makes and which lasts as long
//! as the call is answered.
//!
//! The lines are `tracing` events of the target [`TARGET`], so that an operator routes them by the log's filter. Their fields are identifiers
//! and fixed names alone: never a token, a code, a key, a password or an e-mail address.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tonic::codegen::http;

use crate::{
    clock::{Clock, millis},
    control::Drain,
    id::{GatewayId, PlayerId, Revision, SessionId},
    rpc::{Peer, Role},
    store::Found,
};

use super::trace;

/// What an audit event's target is, whichever module decided.
pub(super) const TARGET: &str = "tickgate::audit";

/// Refusals that are written in one second; whoever asks in vain without end fills no disk. The rest is counted, and the next line of a
/// refusal says how many it was. A hundred lines of 400 bytes a second are 3.5 GB a day at the worst.
const REFUSALS: u32 = 100;
const TURN: Duration = Duration::from_secs(1);

/// What was decided.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// A session began. `method` says how the player proved to be who it is; with `linked`, that it was proved as another way in for the player
    /// who was logged in already.
    LoggedIn {
        method: &'static str,
        is_new_player: bool,
        linked: bool,
    },
    /// An account became the player's.
    Linked {
        player: PlayerId,
        method: &'static str,
    },
    /// The player's e-mail address is another one now.
    EmailChanged { player: PlayerId },
    /// An account is the player's no more: of which kind.
    Unlinked { player: PlayerId, kind: &'a str },
    /// A letter with a secret was asked for: what for.
    Mailed { purpose: &'static str },
    /// The session's tokens were changed for the next generation; with `again`, for the same one once more.
    Refreshed { generation: u32, again: bool },
    /// A session was ended before its time: why.
    SessionRevoked {
        session: SessionId,
        /// None where it is not known any more.
        player: Option<PlayerId>,
        revision: Revision,
        reason: Revoked,
    },
    /// All sessions of a player were ended: why, and how many there were.
    PlayerRevoked {
        player: PlayerId,
        revision: Revision,
        sessions: u32,
        reason: Revoked,
    },
    /// An account has another password.
    PasswordSet {
        player: PlayerId,
        is_new_player: bool,
    },
    /// A player has another role.
    RoleSet {
        player: PlayerId,
        role: &'a str,
        previous: &'a str,
    },
    /// A backend or an operator had a connect token minted for the session.
    TokenMinted,
    /// A gateway was told to drain, or not to.
    DrainOrdered {
        gateway: &'a GatewayId,
        drain: Drain,
        seats: u32,
    },
    /// An operator or a backend looked at what is not its own; the call says at what, and these, of whom.
    Read {
        session: Option<SessionId>,
        player: Option<PlayerId>,
        gateway: Option<&'a GatewayId>,
    },
    /// A gateway came.
    GatewayAttached { gateway: &'a GatewayId, seats: u32 },
    /// A gateway's older process was sent away.
    GatewayFenced { gateway: &'a GatewayId },
    /// The certificates are others from now on.
    CertificatesReplaced,
    /// The keys of tokens, or what they do, are others from now on.
    KeysReplaced,
    /// A call was refused, by this fixed reason.
    Refused { reason: &'static str },
}

/// Why sessions were ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revoked {
    /// The session's own owner has left.
    Logout,
    /// The player ended another one of its sessions.
    Own,
    /// A backend or an operator has said so.
    Ordered,
    /// A refresh token was presented that had been used before.
    RefreshReused,
    /// The password is another one.
    PasswordSet,
    /// One of the player's accounts was taken away.
    Unlinked,
    /// What it was earned by was replaced meanwhile; nobody has a token of it.
    Outdated,
}

impl Revoked {
    const fn label(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Own => "own",
            Self::Ordered => "ordered",
            Self::RefreshReused => "refresh_reused",
            Self::PasswordSet => "password_set",
            Self::Unlinked => "unlinked",
            Self::Outdated => "outdated",
        }
    }
}

impl Event<'_> {
    /// The event's fixed name.
    const fn label(&self) -> &'static str {
        match self {
            Self::LoggedIn { .. } => "login",
            Self::Linked { .. } => "link",
            Self::EmailChanged { .. } => "email_changed",
            Self::Unlinked { .. } => "unlink",
            Self::Mailed { .. } => "mail_requested",
            Self::Refreshed { .. } => "refresh",
            Self::SessionRevoked { .. } => "session_revoked",
            Self::PlayerRevoked { .. } => "player_revoked",
            Self::PasswordSet { .. } => "password_set",
            Self::RoleSet { .. } => "role_set",
            Self::TokenMinted => "token_minted",
            Self::DrainOrdered { .. } => "drain",
            Self::Read { .. } => "read",
            Self::GatewayAttached { .. } => "gateway_attached",
            Self::GatewayFenced { .. } => "gateway_fenced",
            Self::CertificatesReplaced => "certificates_replaced",
            Self::KeysReplaced => "keys_replaced",
            Self::Refused { .. } => "refused",
        }
    }
}

/// The fields of a line: what an event does not say is not written.
#[derive(Debug, Default)]
struct Fields<'a> {
    session: Option<SessionId>,
    player: Option<PlayerId>,
    gateway: Option<&'a str>,
    method: Option<&'a str>,
    reason: Option<&'a str>,
    revision: Option<u64>,
    sessions: Option<u32>,
    generation: Option<u32>,
    is_new_player: Option<bool>,
    linked: Option<bool>,
    again: Option<bool>,
    role: Option<&'a str>,
    previous: Option<&'a str>,
    drain: Option<&'static str>,
    deadline_ms: Option<u64>,
    seats: Option<u32>,
    unrecorded: Option<u64>,
}

impl<'a> Fields<'a> {
    fn of(event: Event<'a>) -> Self {
        let none = Self::default();
        match event {
            Event::LoggedIn {
                method,
                is_new_player,
                linked,
            } => Self {
                method: Some(method),
                is_new_player: Some(is_new_player),
                linked: Some(linked),
                ..none
            },
            Event::Linked { player, method } => Self {
                player: Some(player),
                method: Some(method),
                ..none
            },
            Event::EmailChanged { player } => Self {
                player: Some(player),
                ..none
            },
            Event::Unlinked { player, kind } => Self {
                player: Some(player),
                method: Some(kind),
                ..none
            },
            Event::Mailed { purpose } => Self {
                reason: Some(purpose),
                ..none
            },
            Event::Refreshed { generation, again } => Self {
                generation: Some(generation),
                again: Some(again),
                ..none
            },
            Event::SessionRevoked {
                session,
                player,
                revision,
                reason,
            } => Self {
                session: Some(session),
                player,
                revision: Some(revision.0),
                reason: Some(reason.label()),
                ..none
            },
            Event::PlayerRevoked {
                player,
                revision,
                sessions,
                reason,
            } => Self {
                player: Some(player),
                revision: Some(revision.0),
                sessions: Some(sessions),
                reason: Some(reason.label()),
                ..none
            },
            Event::PasswordSet {
                player,
                is_new_player,
            } => Self {
                player: Some(player),
                is_new_player: Some(is_new_player),
                ..none
            },
            Event::RoleSet {
                player,
                role,
                previous,
            } => Self {
                player: Some(player),
                role: Some(role),
                previous: Some(previous),
                ..none
            },
            Event::DrainOrdered {
                gateway,
                drain,
                seats,
            } => {
                let (drain, deadline) = match drain {
                    Drain::Within(deadline) => ("begin", Some(deadline)),
                    Drain::Cancel => ("cancel", None),
                };
                Self {
                    gateway: Some(gateway.as_str()),
                    drain: Some(drain),
                    deadline_ms: deadline.map(millis),
                    seats: Some(seats),
                    ..none
                }
            }
            Event::GatewayAttached { gateway, seats } => Self {
                gateway: Some(gateway.as_str()),
                seats: Some(seats),
                ..none
            },
            Event::GatewayFenced { gateway } => Self {
                gateway: Some(gateway.as_str()),
                ..none
            },
            Event::Refused { reason } => Self {
                reason: Some(reason),
                ..none
            },
            Event::Read {
                session,
                player,
                gateway,
            } => Self {
                session,
                player,
                gateway: gateway.map(GatewayId::as_str),
                ..none
            },
            Event::TokenMinted | Event::CertificatesReplaced | Event::KeysReplaced => none,
        }
    }
}

/// Counts the refusals of a second.
#[derive(Debug)]
pub(super) struct Gate {
    clock: Clock,
    turn: Mutex<Turn>,
}

#[derive(Debug)]
struct Turn {
    began: Instant,
    written: u32,
    unrecorded: u64,
}

impl Gate {
    pub(super) fn new(clock: Clock) -> Self {
        let turn = Turn {
            began: clock.now(),
            written: 0,
            unrecorded: 0,
        };
        Self {
            clock,
            turn: Mutex::new(turn),
        }
    }

    /// Whether one more refusal is written, and then how many were not since the last one that was.
    fn pass(&self) -> Option<u64> {
        let now = self.clock.now();
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(turn.began) >= TURN {
            turn.began = now;
            turn.written = 0;
        }
        if turn.written >= REFUSALS {
            turn.unrecorded += 1;
            return None;
        }
        turn.written += 1;
        Some(std::mem::take(&mut turn.unrecorded))
    }
}

/// What is known of a call while it is answered.
#[derive(Debug)]
pub(super) struct Call {
    uri: http::Uri,
    role: Option<Role>,
    peer: Cell<Option<IpAddr>>,
    method: Cell<Option<&'static str>>,
    session: Cell<Option<SessionId>>,
    player: Cell<Option<PlayerId>>,
    gateway: RefCell<Option<GatewayId>>,
    /// Whether it was refused, and that has been said.
    refused: Cell<bool>,
    /// When whoever waits for the answer is told that it took too long.
    ends_at: tokio::time::Instant,
    gate: Arc<Gate>,
}

tokio::task_local! {
    /// The call that the present task answers.
    pub(super) static CALL: Call;
}

impl Call {
    pub(super) fn of<B>(
        request: &http::Request<B>,
        ends_at: tokio::time::Instant,
        gate: Arc<Gate>,
    ) -> Self {
        let peer = request.extensions().get::<Peer>();
        Self {
            uri: request.uri().clone(),
            role: peer.and_then(|peer| peer.role.clone()),
            peer: Cell::new(peer.map(|peer| peer.address.ip().to_canonical())),
            method: Cell::default(),
            session: Cell::default(),
            player: Cell::default(),
            gateway: RefCell::default(),
            refused: Cell::default(),
            ends_at,
            gate,
        }
    }

    /// The service and the method, without the package.
    fn name(&self) -> &str {
        let path = trace::method(self.uri.path());
        path.strip_prefix("tickgate.v1.").unwrap_or(path)
    }

    /// By whom the call is: whom its certificate names, or whoever calls `AuthService`, proven or not.
    fn by(&self) -> String {
        match &self.role {
            Some(Role::Gateway(id)) => format!("gateway/{id}"),
            Some(Role::Admin(name)) => format!("admin/{name}"),
            Some(Role::Backend(name)) => format!("backend/{name}"),
            None if self.name().starts_with("AuthService/") => "player".to_owned(),
            None => "unknown".to_owned(),
        }
    }
}

/// Where the present call comes from, seen through the proxies that are trusted.
pub(super) fn origin(origin: IpAddr) {
    let _ = CALL.try_with(|call| call.peer.set(Some(origin)));
}

/// The present call is about logging in this way.
pub(super) fn method(method: &'static str) {
    let _ = CALL.try_with(|call| call.method.set(Some(method)));
}

/// When the present call ends, whether or not it is answered by then.
pub(super) fn ends_at() -> Option<tokio::time::Instant> {
    CALL.try_with(|call| call.ends_at).ok()
}

/// The present call is about this session.
pub(super) fn session(found: &Found) {
    let _ = CALL.try_with(|call| {
        call.session.set(Some(found.session.id));
        call.player.set(Some(found.player.id));
    });
}

/// The present call is about this gateway.
pub(super) fn gateway(gateway: &GatewayId) {
    let _ = CALL.try_with(|call| *call.gateway.borrow_mut() = Some(gateway.clone()));
}

/// The present call was answered by this status: if it is a refusal that nobody has written down, it was tonic or the control channel who
/// refused, and the status is all that is known of why.
pub(super) fn answered(status: &'static str) {
    let said = CALL.try_with(|call| call.refused.get()).unwrap_or(true);
    if status != "ok" && !said {
        record(Event::Refused { reason: status });
    }
}

/// Writes down what was decided.
pub(super) fn record(event: Event<'_>) {
    if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
        return;
    }
    if CALL.try_with(|call| record_in(call, event)).is_err() {
        write(event.label(), "sidecar", None, None, &Fields::of(event));
    }
}

fn record_in(call: &Call, event: Event<'_>) {
    let mut fields = Fields::of(event);
    if let Event::Refused { .. } = event {
        call.refused.set(true);
        match call.gate.pass() {
            Some(0) => {}
            Some(unrecorded) => fields.unrecorded = Some(unrecorded),
            None => return,
        }
    }
    // What is about another player is not about the session of who calls.
    let is_theirs = fields.player.is_none_or(|p| call.player.get() == Some(p));
    if fields.session.is_none() && is_theirs {
        fields.session = call.session.get();
    }
    fields.player = fields.player.or(call.player.get());
    fields.method = fields.method.or(call.method.get());
    let gateway = call.gateway.borrow();
    fields.gateway = fields
        .gateway
        .or_else(|| gateway.as_ref().map(GatewayId::as_str));
    let by = call.by();
    write(
        event.label(),
        &by,
        call.peer.get(),
        Some(call.name()),
        &fields,
    );
}

fn write(event: &str, by: &str, peer: Option<IpAddr>, call: Option<&str>, fields: &Fields<'_>) {
    let Fields {
        session,
        player,
        gateway,
        method,
        reason,
        revision,
        sessions,
        generation,
        is_new_player,
        linked,
        again,
        role,
        previous,
        drain,
        deadline_ms,
        seats,
        unrecorded,
    } = fields;
    tracing::info!(
        target: TARGET,
        event,
        by,
        peer = peer.map(display),
        call,
        session = session.map(display),
        player = player.map(display),
        gateway,
        method,
        reason,
        revision,
        sessions,
        generation,
        is_new_player,
        linked,
        again,
        role,
        previous,
        drain,
        deadline_ms,
        seats,
        unrecorded,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    #[test]
    fn refusals_beyond_a_second_s_share_are_counted_and_told_of() {
        let time = ManualTime::starting_at(Timestamp(1_700_000_000_000));
        let gate = Gate::new(time.clock());
        for _ in 0..REFUSALS {
            assert_eq!(gate.pass(), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(gate.pass(), None);
        }
        time.advance(TURN);
        assert_eq!(gate.pass(), Some(7));
        assert_eq!(gate.pass(), Some(0));
    }
}
