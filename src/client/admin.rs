//! An operator's line to the sidecar: AdminService over mutual TLS, with what is for operators alone.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::{
    About, AttachedGateway, Backend, CallError, Explanation, KeyList, ListedSession, Revoked, Wait,
    call::{CALL_DEADLINE, within},
    listed::listed,
};
use crate::{
    id::{GatewayId, PlayerId, SessionId},
    proto,
    tls::Identity,
};

/// Which sessions to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionQuery {
    /// This player's alone; everybody's when there is none.
    pub player: Option<PlayerId>,
    /// Whether those that have ended, and are not yet purged, are listed too.
    pub include_ended: bool,
    /// How many a page holds at most: 1 to 1,000; 0 stands for 100.
    pub page_size: u32,
    /// Where the page before ended ([`SessionPage::next`]); none for the first.
    pub page: Option<String>,
}

/// Some of the sessions asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// By the time of login: newest first.
    pub sessions: Vec<ListedSession>,
    /// What brings the next page, as [`SessionQuery::page`]; none on the last.
    pub next: Option<String>,
}

/// A line to the sidecar for operators, whose certificate says `tickgate://admin/<name>`. Connects by itself when it is first used and
/// whenever the connection broke. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Admin(Backend);

impl Admin {
    /// A line to the sidecar at `url` (`https://host:port`), whose certificate one of `ca` has signed, as the operator that
    /// `identity`'s certificate names. Connects on the first call only.
    ///
    /// # Errors
    /// When the URL or the certificates cannot be used.
    pub fn connect(
        url: &str,
        ca: &[CertificateDer<'static>],
        identity: &Identity,
    ) -> Result<Self, CallError> {
        Backend::connect(url, ca, identity).map(Self)
    }

    /// The same line, for the calls that a backend may make: an operator may make them all.
    pub const fn as_backend(&self) -> &Backend {
        &self.0
    }

    /// A page of sessions.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a page that is none; [`CallError::Denied`] for who is no operator.
    pub async fn list_sessions(&self, query: &SessionQuery) -> Result<SessionPage, CallError> {
        let SessionQuery {
            player,
            include_ended,
            page_size,
            page,
        } = query;
        let request = proto::ListSessionsRequest {
            player_id: player.map(|id| id.to_string()).unwrap_or_default(),
            include_ended: *include_ended,
            page_size: *page_size,
            page_token: page.clone().unwrap_or_default(),
        };
        let answer = within(CALL_DEADLINE, self.0.client().list_sessions(request)).await?;
        Ok(SessionPage {
            sessions: listed(answer.sessions)?,
            next: Some(answer.next_page_token).filter(|token| !token.is_empty()),
        })
    }

    /// Ends a session and closes its live connections.
    ///
    /// # Errors
    /// As [`Backend::revoke_session`].
    pub async fn revoke_session(
        &self,
        session: SessionId,
        wait: Wait,
    ) -> Result<Revoked, CallError> {
        self.0.revoke_session(session, wait).await
    }

    /// Ends all sessions of a player that were made before this instant.
    ///
    /// # Errors
    /// As [`Backend::revoke_player`].
    pub async fn revoke_player(&self, player: PlayerId, wait: Wait) -> Result<Revoked, CallError> {
        self.0.revoke_player(player, wait).await
    }

    /// Gives a player another role (1 to 32 lower-case letters, digits, '-' and '_'), and returns the one before. Tokens carry it from
    /// their next refresh on.
    ///
    /// # Errors
    /// [`CallError::NotFound`] for an unknown player; [`CallError::Invalid`] for what is no role; [`CallError::Denied`] for who is no
    /// operator.
    pub async fn set_role(&self, player: PlayerId, role: &str) -> Result<String, CallError> {
        let request = proto::SetRoleRequest {
            player_id: player.to_string(),
            role: role.into(),
        };
        let answer = within(CALL_DEADLINE, self.0.client().set_role(request)).await?;
        Ok(answer.previous)
    }

    /// The gateways that are attached now, by id.
    ///
    /// # Errors
    /// Only what any call may meet.
    pub async fn list_gateways(&self) -> Result<Vec<AttachedGateway>, CallError> {
        self.0.list_gateways().await
    }

    /// Tells a gateway to admit nobody any more, and to close what is left after `deadline` (24 h at most; zero is at once). Returns
    /// the seats taken there, as last reported.
    ///
    /// # Errors
    /// [`CallError::NotFound`] for an unknown gateway; [`CallError::Unavailable`] when it is not attached now;
    /// [`CallError::Invalid`] for a longer deadline; [`CallError::Denied`] for who is no operator.
    pub async fn drain_gateway(
        &self,
        gateway: &GatewayId,
        deadline: Duration,
    ) -> Result<u32, CallError> {
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.drain(gateway, deadline_ms, false).await
    }

    /// Tells a gateway that drains to admit again. Returns the seats taken there, as last reported.
    ///
    /// # Errors
    /// As [`drain_gateway`](Self::drain_gateway).
    pub async fn cancel_drain(&self, gateway: &GatewayId) -> Result<u32, CallError> {
        self.drain(gateway, 0, true).await
    }

    async fn drain(
        &self,
        gateway: &GatewayId,
        deadline_ms: u64,
        cancel: bool,
    ) -> Result<u32, CallError> {
        let request = proto::DrainGatewayRequest {
            gateway_id: gateway.to_string(),
            deadline_ms,
            cancel,
        };
        let answer = within(CALL_DEADLINE, self.0.client().drain_gateway(request)).await?;
        Ok(answer.seats)
    }

    /// The keys that the sidecar seals and opens tokens with, by id.
    ///
    /// # Errors
    /// [`CallError::Denied`] for who is no operator.
    pub async fn list_keys(&self) -> Result<KeyList, CallError> {
        let request = proto::ListKeysRequest {};
        within(CALL_DEADLINE, self.0.client().list_keys(request))
            .await?
            .try_into()
    }

    /// Asks why a player was refused, was removed, or is in; or what a gateway refused that names nobody.
    ///
    /// # Errors
    /// [`CallError::NotFound`] when nothing is known of it; [`CallError::Denied`] for who is no operator.
    pub async fn explain(&self, about: &About) -> Result<Explanation, CallError> {
        let request = proto::ExplainRequest::from(about);
        within(CALL_DEADLINE, self.0.client().explain(request))
            .await?
            .try_into()
    }
}
