//! Why a player was refused, was removed, or is in: the sidecar's account of the recent past.

use super::{
    CallError, ListedSession,
    account::{player_id, session_id},
    listed::{gateway_id, listed},
};
use crate::{
    clock::Timestamp,
    id::{GatewayId, PlayerId, Revision, SessionId},
    proto,
};

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A player.
    Player(PlayerId),
    /// The player of a session.
    Session(SessionId),
    /// A gateway: the refusals there that name nobody.
    Gateway(GatewayId),
}

impl From<&About> for proto::ExplainRequest {
    fn from(about: &About) -> Self {
        use proto::explain_request::About as Wire;
        let about = match about {
            About::Player(id) => Wire::PlayerId(id.to_string()),
            About::Session(id) => Wire::SessionId(id.to_string()),
            About::Gateway(id) => Wire::GatewayId(id.to_string()),
        };
        Self { about: Some(about) }
    }
}

/// What happened, as far as the sidecar's bounded memory goes. It holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The player, if it is about one.
    pub player: Option<PlayerId>,
    /// What can be said in one sentence, for people.
    pub summary: String,
    /// The player's sessions, newest first.
    pub sessions: Vec<ListedSession>,
    /// What happened, oldest first.
    pub events: Vec<ExplainedEvent>,
    /// Events that fell out of memory, as far as it is known.
    pub forgotten: u64,
    /// Since when the sidecar remembers: when it started. What was before is not among the events, and not counted as forgotten.
    pub remembers_since: Timestamp,
    /// Where each revocation of the player or its sessions has arrived.
    pub revocations: Vec<RevocationArrival>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedEvent {
    /// When, by the clock of whoever saw it.
    pub at: Timestamp,
    /// What, as a fixed label: "logged_in", "token_minted", "refused" and so on (`ExplainEvent` in admin.proto has them all).
    pub kind: String,
    /// The session that it is about.
    pub session: Option<SessionId>,
    /// The gateway that it happened on, or is for.
    pub gateway: Option<GatewayId>,
    /// The true reason of a refusal or an end, as a fixed label; of a resumption, "superseded" if an earlier connection of the session was
    /// live and was closed for it.
    pub reason: Option<String>,
    /// What the client was told: the close code's name.
    pub close_code: Option<String>,
    /// Which connect token, by the SHA-256 of its text in hexadecimal: mint and refusal share it.
    pub token_sha256: Option<String>,
    /// The revision of the revocation log, of a revocation.
    pub revision: Option<Revision>,
    /// The peer's address, of a refusal that names nobody.
    pub remote: Option<String>,
}

/// How far a revocation has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationArrival {
    /// Which.
    pub revision: Revision,
    /// Gateways that have applied it.
    pub arrived: Vec<GatewayId>,
    /// Attached gateways that have not acknowledged it yet.
    pub outstanding: Vec<GatewayId>,
}

impl TryFrom<proto::ExplainResponse> for Explanation {
    type Error = CallError;

    fn try_from(answer: proto::ExplainResponse) -> Result<Self, CallError> {
        let proto::ExplainResponse {
            player_id: player,
            summary,
            sessions,
            events,
            forgotten,
            revocations,
            remembers_since_ms,
        } = answer;
        Ok(Self {
            player: given(player).map(|id| player_id(&id)).transpose()?,
            summary,
            sessions: listed(sessions)?,
            events: events
                .into_iter()
                .map(ExplainedEvent::try_from)
                .collect::<Result<_, _>>()?,
            forgotten,
            remembers_since: Timestamp(remembers_since_ms),
            revocations: revocations
                .into_iter()
                .map(RevocationArrival::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<proto::ExplainEvent> for ExplainedEvent {
    type Error = CallError;

    fn try_from(event: proto::ExplainEvent) -> Result<Self, CallError> {
        let proto::ExplainEvent {
            at_ms,
            kind,
            session_id: session,
            gateway_id: gateway,
            reason,
            close_code,
            token_sha256,
            revision,
            remote,
        } = event;
        Ok(Self {
            at: Timestamp(at_ms),
            kind,
            session: given(session).map(|id| session_id(&id)).transpose()?,
            gateway: given(gateway).map(|id| gateway_id(&id)).transpose()?,
            reason: given(reason),
            close_code: given(close_code),
            token_sha256: given(token_sha256),
            revision: (revision != 0).then_some(Revision(revision)),
            remote: given(remote),
        })
    }
}

impl TryFrom<proto::RevocationArrival> for RevocationArrival {
    type Error = CallError;

    fn try_from(arrival: proto::RevocationArrival) -> Result<Self, CallError> {
        let proto::RevocationArrival {
            revision,
            arrived,
            outstanding,
        } = arrival;
        let gateways = |ids: Vec<String>| -> Result<Vec<GatewayId>, CallError> {
            ids.iter().map(|id| gateway_id(id)).collect()
        };
        Ok(Self {
            revision: Revision(revision),
            arrived: gateways(arrived)?,
            outstanding: gateways(outstanding)?,
        })
    }
}

/// proto3 leaves out what is not known: an empty text is none.
fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_none() {
        let event = ExplainedEvent::try_from(proto::ExplainEvent {
            kind: "refused".into(),
            close_code: "token_used".into(),
            ..proto::ExplainEvent::default()
        })
        .unwrap();
        assert_eq!(event.close_code.as_deref(), Some("token_used"));
        assert_eq!(
            (event.session, event.revision, event.remote),
            (None, None, None)
        );
    }

    #[test]
    fn an_id_that_is_none_is_told() {
        let answer = proto::ExplainResponse {
            revocations: vec![proto::RevocationArrival {
                outstanding: vec!["NO".into()],
                ..proto::RevocationArrival::default()
            }],
            ..proto::ExplainResponse::default()
        };
        assert_eq!(
            Explanation::try_from(answer).unwrap_err().label(),
            "malformed"
        );
    }
}
