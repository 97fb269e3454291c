//! Sessions and gateways as the sidecar lists them.

use std::{net::SocketAddr, time::Duration};

use super::{
    CallError,
    account::{player_id, session_id},
};
use crate::{
    clock::Timestamp,
    id::{GatewayId, Incarnation, PlayerId, Revision, SessionId},
    proto,
    token::{KeyId, KeyRole},
};

/// A session as its owner and operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSession {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub player: PlayerId,
    /// How the player logged in: "dev", "backend".
    pub method: String,
    /// Counts the refreshes of its tokens.
    pub generation: u32,
    /// "live", or what ended it as a fixed label: "session_revoked", "session_idle", "session_expired".
    pub state: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its last known activity.
    pub active_at: Timestamp,
    /// Its absolute end.
    pub ends_at: Timestamp,
    /// The attached gateways on which it has a seat now.
    pub gateways: Vec<GatewayId>,
}

impl ListedSession {
    /// Whether it has not ended.
    pub fn is_live(&self) -> bool {
        self.state == "live"
    }
}

impl TryFrom<proto::SessionInfo> for ListedSession {
    type Error = CallError;

    fn try_from(session: proto::SessionInfo) -> Result<Self, CallError> {
        let proto::SessionInfo {
            session_id: id,
            player_id: player,
            method,
            generation,
            state,
            created_at_ms,
            active_at_ms,
            ends_at_ms,
            gateways,
        } = session;
        Ok(Self {
            id: session_id(&id)?,
            player: player_id(&player)?,
            method,
            generation,
            state,
            created_at: Timestamp(created_at_ms),
            active_at: Timestamp(active_at_ms),
            ends_at: Timestamp(ends_at_ms),
            gateways: gateways
                .iter()
                .map(|id| gateway_id(id))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Sessions as an answer lists them.
pub(super) fn listed(sessions: Vec<proto::SessionInfo>) -> Result<Vec<ListedSession>, CallError> {
    sessions.into_iter().map(ListedSession::try_from).collect()
}

/// A key that tokens are sealed or opened with, as the sidecar tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// What it is for: "session", "refresh" or "transport".
    pub purpose: String,
    /// What it does now.
    pub role: KeyRole,
    /// Its public name; of a transport key the master's.
    pub id: KeyId,
    /// The number of a transport key; else 0.
    pub epoch: u32,
    /// For how long after its making a token under it may still be accepted.
    pub opens_for: Duration,
    /// When that sidecar last made a token under it; none that it knows of.
    pub sealed_at: Option<Timestamp>,
    /// Of a transport key: attached gateways that do not hold it yet.
    pub outstanding: Vec<GatewayId>,
}

/// The keys of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyList {
    /// By purpose; of each the current key, previous ones, and the next.
    pub keys: Vec<ListedKey>,
    /// The sidecar's time.
    pub at: Timestamp,
    /// Attached gateways that hold a transport key which is none of these: one that was retired, and that they have not let go of yet.
    pub holding_others: Vec<GatewayId>,
}

fn gateway_ids(texts: &[String]) -> Result<Vec<GatewayId>, CallError> {
    texts.iter().map(|id| gateway_id(id)).collect()
}

impl TryFrom<proto::ListKeysResponse> for KeyList {
    type Error = CallError;

    fn try_from(answer: proto::ListKeysResponse) -> Result<Self, CallError> {
        let proto::ListKeysResponse {
            keys,
            time_ms,
            holding_others,
        } = answer;
        Ok(Self {
            keys: keys
                .into_iter()
                .map(ListedKey::try_from)
                .collect::<Result<_, _>>()?,
            at: Timestamp(time_ms),
            holding_others: gateway_ids(&holding_others)?,
        })
    }
}

impl TryFrom<proto::TokenKey> for ListedKey {
    type Error = CallError;

    fn try_from(key: proto::TokenKey) -> Result<Self, CallError> {
        let proto::TokenKey {
            purpose,
            role,
            id,
            epoch,
            opens_for_ms,
            sealed_at_ms,
            outstanding,
        } = key;
        Ok(Self {
            purpose,
            role: role.parse().map_err(|_| CallError::Malformed("key role"))?,
            id: id.parse().map_err(|_| CallError::Malformed("key id"))?,
            epoch,
            opens_for: Duration::from_millis(opens_for_ms),
            sealed_at: Some(Timestamp(sealed_at_ms)).filter(|at| at.0 > 0),
            outstanding: gateway_ids(&outstanding)?,
        })
    }
}

/// A gateway that is attached to the sidecar now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedGateway {
    /// Its id.
    pub id: GatewayId,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// Where clients reach it.
    pub addresses: Vec<SocketAddr>,
    /// Seats it has.
    pub capacity: u32,
    /// Seats taken, as last reported.
    pub seats: u32,
    /// The newest revision of the revocation log that it acknowledged.
    pub revision: Revision,
    /// Whether it drains: no tokens are minted for it.
    pub draining: bool,
}

impl TryFrom<proto::Gateway> for AttachedGateway {
    type Error = CallError;

    fn try_from(gateway: proto::Gateway) -> Result<Self, CallError> {
        let proto::Gateway {
            id,
            incarnation,
            addresses,
            capacity,
            seats,
            revision,
            draining,
        } = gateway;
        Ok(Self {
            id: gateway_id(&id)?,
            incarnation: incarnation
                .parse()
                .map_err(|_| CallError::Malformed("incarnation"))?,
            addresses: addresses
                .iter()
                .map(|address| address.parse())
                .collect::<Result<_, _>>()
                .map_err(|_| CallError::Malformed("gateway address"))?,
            capacity,
            seats,
            revision: Revision(revision),
            draining,
        })
    }
}

pub(super) fn gateway_id(text: &str) -> Result<GatewayId, CallError> {
    text.parse().map_err(|_| CallError::Malformed("gateway id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried() -> proto::SessionInfo {
        proto::SessionInfo {
            session_id: SessionId(5).to_string(),
            player_id: PlayerId(6).to_string(),
            method: "dev".into(),
            generation: 3,
            state: "live".into(),
            created_at_ms: 1,
            active_at_ms: 2,
            ends_at_ms: 3,
            gateways: vec!["eu-1".into()],
        }
    }

    #[test]
    fn a_session_is_taken_whole_or_not_at_all() {
        let session = ListedSession::try_from(carried()).unwrap();
        assert!(session.is_live());
        assert_eq!((session.id, session.player), (SessionId(5), PlayerId(6)));
        assert_eq!(session.gateways, ["eu-1".parse().unwrap()]);
        let spoilings: [fn(&mut proto::SessionInfo); 3] = [
            |s| s.session_id.clear(),
            |s| s.player_id = "ada".into(),
            |s| s.gateways = vec!["EU".into()],
        ];
        for spoil in spoilings {
            let mut session = carried();
            spoil(&mut session);
            assert_eq!(
                listed(vec![carried(), session]).unwrap_err().label(),
                "malformed"
            );
        }
    }
}
