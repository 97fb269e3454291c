//! One event as it is remembered.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use crate::{
    clock::Timestamp,
    id::{GatewayId, Revision, SessionId},
    proto,
    wire::CloseCode,
};

/// Something that happened to a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// When, by the clock of whoever saw it.
    pub(crate) at: Timestamp,
    pub(crate) kind: Kind,
    /// Which session it is about, unless it is about all of a player's.
    pub(crate) session: Option<SessionId>,
    /// Where it happened, or which gateway a token is for.
    pub(crate) gateway: Option<GatewayId>,
    /// Which connect token.
    pub(crate) token_sha256: Option<[u8; 32]>,
}

// The arithmetic of the rings rests on it.
const _: () = assert!(size_of::<Event>() <= 128);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    LoggedIn,
    Refreshed,
    RefreshReused {
        revision: Revision,
    },
    LoggedOut {
        revision: Revision,
    },
    Minted {
        expires_at: Timestamp,
    },
    Admitted,
    Resumed {
        /// Whether from a live connection of the session.
        superseded: bool,
    },
    Refused {
        reason: Arc<str>,
        code: u16,
    },
    Suspended,
    Ended {
        reason: Arc<str>,
        code: u16,
    },
    Active,
    SessionRevoked {
        revision: Revision,
    },
    PlayerRevoked {
        revision: Revision,
    },
}

/// A refusal whose token is not known to be anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nameless {
    pub(crate) event: Event,
    pub(crate) remote: Option<SocketAddr>,
}

impl Kind {
    /// Its fixed name.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::LoggedIn => "logged_in",
            Self::Refreshed => "refreshed",
            Self::RefreshReused { .. } => "refresh_reused",
            Self::LoggedOut { .. } => "logged_out",
            Self::Minted { .. } => "token_minted",
            Self::Admitted => "admitted",
            Self::Resumed { .. } => "resumed",
            Self::Refused { .. } => "refused",
            Self::Suspended => "suspended",
            Self::Ended { .. } => "ended",
            Self::Active => "active",
            Self::SessionRevoked { .. } => "session_revoked",
            Self::PlayerRevoked { .. } => "player_revoked",
        }
    }

    /// The event of the revocation log that it came with.
    pub(crate) const fn revision(&self) -> Option<Revision> {
        match self {
            Self::RefreshReused { revision }
            | Self::LoggedOut { revision }
            | Self::SessionRevoked { revision }
            | Self::PlayerRevoked { revision } => Some(*revision),
            Self::LoggedIn
            | Self::Refreshed
            | Self::Minted { .. }
            | Self::Admitted
            | Self::Resumed { .. }
            | Self::Refused { .. }
            | Self::Suspended
            | Self::Ended { .. }
            | Self::Active => None,
        }
    }

    /// The true reason and the code that the client was told, of a refusal or an end; of a seat that was taken over from a live
    /// connection, what that one was told.
    pub(crate) fn outcome(&self) -> Option<(&str, u16)> {
        const SUPERSEDED: CloseCode = CloseCode::Superseded;
        match self {
            Self::Resumed { superseded: true } => Some((SUPERSEDED.label(), SUPERSEDED as u16)),
            Self::Refused { reason, code } | Self::Ended { reason, code } => Some((reason, *code)),
            _ => None,
        }
    }
}

impl Event {
    pub(super) fn of_session(kind: Kind, session: SessionId, at: Timestamp) -> Self {
        Self {
            session: Some(session),
            ..Self::of_player(kind, at)
        }
    }

    pub(super) fn of_player(kind: Kind, at: Timestamp) -> Self {
        Self {
            at,
            kind,
            session: None,
            gateway: None,
            token_sha256: None,
        }
    }

    /// The last activity of a session; the sidecar keeps no list of earlier ones.
    pub(crate) fn activity(session: SessionId, gateway: Option<GatewayId>, at: Timestamp) -> Self {
        Self {
            gateway,
            ..Self::of_session(Kind::Active, session, at)
        }
    }
}

impl From<Event> for proto::ExplainEvent {
    fn from(event: Event) -> Self {
        let outcome = event.kind.outcome();
        Self {
            at_ms: event.at.0,
            kind: event.kind.label().to_owned(),
            session_id: event.session.map(|id| id.to_string()).unwrap_or_default(),
            gateway_id: event.gateway.map(|id| id.to_string()).unwrap_or_default(),
            reason: outcome
                .map(|(reason, _)| reason.to_owned())
                .unwrap_or_default(),
            close_code: outcome
                // Code 0 is the client's own: of a seat that was lost nobody was told.
                .filter(|(reason, code)| *code != 0 || *reason == "left")
                .map(|(_, code)| close_code(code))
                .unwrap_or_default(),
            token_sha256: event
                .token_sha256
                .map(|hash| hexadecimal(&hash))
                .unwrap_or_default(),
            revision: event.kind.revision().unwrap_or_default().0,
            remote: String::new(),
        }
    }
}

impl From<Nameless> for proto::ExplainEvent {
    fn from(Nameless { event, remote }: Nameless) -> Self {
        Self {
            remote: remote
                .map(|address| address.to_string())
                .unwrap_or_default(),
            ..event.into()
        }
    }
}

/// A close code's name; a number that this version has no name for, as a number.
pub(super) fn close_code(number: u16) -> String {
    match CloseCode::from_number(number.into()) {
        Some(code) => code.label().to_owned(),
        None => format!("{number:#04x}"),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reasons as gateways tell them, each kept once: they are fixed labels, some dozens of them.
#[derive(Debug, Default)]
pub(super) struct Labels(HashSet<Arc<str>>);

/// Labels kept at once, of 64 bytes at most each: 32 KiB with what is around them. A gateway that makes them up runs into it.
const MAX_LABELS: usize = 256;

/// The longest label.
const MAX_LABEL: usize = 64;

impl Labels {
    /// The label as it is kept; one too many, or one that is no label, is "other".
    pub(super) fn intern(&mut self, label: &str) -> Arc<str> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let is_label = (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(plain);
        let label = if is_label { label } else { OTHER };
        if let Some(known) = self.0.get(label) {
            return Arc::clone(known);
        }
        let label = if self.0.len() < MAX_LABELS {
            label
        } else {
            OTHER
        };
        let new: Arc<str> = label.into();
        self.0.insert(Arc::clone(&new));
        new
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

const OTHER: &str = "other";
