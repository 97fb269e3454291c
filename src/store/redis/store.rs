//! The store's operations: which script each is, and what its answer means.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesOrdered};
use redis::ScriptInvocation;
use tokio::{sync::watch, time::timeout};

use super::{
    RedisStore, gateways, lock, log_state_of,
    logins::account_text,
    reply::{DAMAGED, Reply},
    scripts::SCRIPTS,
    writer,
};
use crate::{
    clock::{Timestamp, millis},
    control::{LogState, Revocation, RevocationRange},
    id::{GatewayId, Incarnation, PlayerGeneration, PlayerId, Revision, SessionId},
    store::{
        Answer, DEFAULT_ROLE, Fencing, Found, LEEWAY, MAX_FENCED, MAX_GRANTS, NewSession,
        PlayerRevocation, Publication, PublishedGateway, Purged, REFRESH_GRACE, RefreshClaim,
        Refreshed, SessionRevocation, Started, Store, StoreError, StoreLives, draw,
    },
};

/// How long what is queued may take when the store is closed.
const FINISH: Duration = Duration::from_secs(5);

/// Sessions that one script is asked about: one to two milliseconds of the server's time, for which everybody else waits. So a long list takes many
/// scripts, and others get in between.
const ASKED: usize = 1_024;

/// Scripts about one long list that are on their way at once: while the server works on one, the next has arrived and the one before is
/// read, so that it is the server's work alone that takes time, and not the way to it.
const AHEAD: usize = 4;

/// Sessions that one script lists.
const LISTED: usize = 256;

/// Events that one script reads.
const READ: usize = 4_096;

/// Rows of each kind that one script purges.
const PURGED: usize = 256;

impl RedisStore {
    /// With the activity that this sidecar knows of exactly.
    fn exact(&self, mut found: Found) -> Found {
        let session = &mut found.session;
        session.active_at = lock(&self.shared.activity).exact(session.id, session.active_at);
        found
    }

    /// This sidecar has made the event: its gateways need not wait for the news of it.
    pub(super) fn made(&self, revision: Revision, event: Revocation) {
        self.shared.known.heard(revision, event);
        if let Revocation::Session(session) = event {
            lock(&self.shared.activity).forget(session);
        }
    }

    async fn start(&self, new: NewSession) -> Result<Started, StoreError> {
        let NewSession {
            identity,
            method,
            at,
            ends_at,
        } = new;
        let account = account_text(&identity);
        loop {
            let mut call = self.call(&SCRIPTS.start_session, at);
            call.arg(draw::session_id(at)?.to_string())
                .arg(draw::player_id()?.to_string())
                .arg(&account)
                .arg(DEFAULT_ROLE)
                .arg(&method)
                .arg(millis(ends_at.since(at)));
            let mut answer = self.invoke(&call).await?;
            let is_new_player = match &*answer.text()? {
                "new" => true,
                "known" => false,
                "taken" => continue,
                _ => return Err(DAMAGED),
            };
            let found = answer.list()?.found()?;
            return Ok(Started {
                found,
                is_new_player,
            });
        }
    }

    async fn rotate(&self, claim: RefreshClaim, at: Timestamp) -> Result<Refreshed, StoreError> {
        let RefreshClaim {
            session,
            generation,
            player_generation,
        } = claim;
        let active = lock(&self.shared.activity).exact(session, Timestamp(0));
        let mut call = self.call(&SCRIPTS.refresh, at);
        call.arg(session.to_string())
            .arg(generation)
            .arg(player_generation.0)
            .arg(active.0)
            .arg(millis(self.shared.lives.idle))
            .arg(millis(REFRESH_GRACE));
        let mut answer = self.invoke(&call).await?;
        match &*answer.text()? {
            outcome @ ("rotated" | "again") => {
                let mut successor = answer.list()?.row()?;
                successor.found = self.exact(successor.found);
                Ok(match outcome {
                    "rotated" => Refreshed::Rotated(successor),
                    _ => Refreshed::Again(successor),
                })
            }
            "ended" => Ok(Refreshed::Ended(answer.ended_by()?)),
            "reused" => {
                let revision = answer.revision()?;
                self.made(revision, Revocation::Session(session));
                Ok(Refreshed::Reused(revision))
            }
            _ => Err(DAMAGED),
        }
    }

    async fn list(
        &self,
        player: Option<PlayerId>,
        mut before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Found>, StoreError> {
        let player = player.map_or_else(String::new, |player| player.to_string());
        let mut listed = Vec::new();
        while listed.len() < limit {
            let most = LISTED.min(limit - listed.len());
            let mut call = self.call(&SCRIPTS.sessions, Timestamp(0));
            call.arg(&player)
                .arg(before.map_or_else(String::new, |id| id.to_string()))
                .arg(most);
            let mut rows = self.invoke(&call).await?;
            let already = listed.len();
            while !rows.is_empty() {
                listed.push(self.exact(rows.list()?.found()?));
            }
            before = listed.last().map(|found| found.session.id);
            if listed.len() - already < most {
                break;
            }
        }
        Ok(listed)
    }

    async fn revoke(
        &self,
        session: SessionId,
        at: Timestamp,
    ) -> Result<SessionRevocation, StoreError> {
        let mut call = self.call(&SCRIPTS.revoke_session, at);
        call.arg(session.to_string());
        let mut answer = self.invoke(&call).await?;
        let outcome = answer.text()?;
        let revision = answer.revision()?;
        match &*outcome {
            "ended" => {
                self.made(revision, Revocation::Session(session));
                Ok(SessionRevocation::Ended(revision))
            }
            "already" => Ok(SessionRevocation::AlreadyEnded(revision)),
            "unknown" => Ok(SessionRevocation::Unknown),
            _ => Err(DAMAGED),
        }
    }

    async fn revoke_all(
        &self,
        player: PlayerId,
        at: Timestamp,
    ) -> Result<PlayerRevocation, StoreError> {
        let mut call = self.call(&SCRIPTS.revoke_player, at);
        call.arg(player.to_string())
            .arg(millis(self.shared.lives.idle));
        let mut answer = self.invoke(&call).await?;
        match &*answer.text()? {
            "ended" => {
                let generation = PlayerGeneration(answer.parsed()?);
                let revision = answer.revision()?;
                self.made(revision, Revocation::Player(player, generation));
                Ok(PlayerRevocation::Ended {
                    generation,
                    revision,
                    sessions: answer.parsed()?,
                })
            }
            "unknown" => Ok(PlayerRevocation::Unknown),
            _ => Err(DAMAGED),
        }
    }

    async fn read_log(
        &self,
        from: Revision,
        limit: usize,
    ) -> Result<Option<RevocationRange>, StoreError> {
        if self.closed().is_cancelled() {
            return Err(StoreError::Closed);
        }
        // What is here is on the server's disk, and of the log that the streams to gateways were told of.
        if let Some(range) = self.shared.known.range(from, limit) {
            return Ok(Some(range));
        }
        let mut call = self.call(&SCRIPTS.log, Timestamp(0));
        call.arg(from.0).arg(limit.min(READ));
        let mut answer = self.invoke(&call).await?;
        let lineage = answer.parsed()?;
        let (tail, head) = (answer.revision()?, answer.revision()?);
        if self.shared.known.seen().lineage != Some(lineage) {
            let detail = "the revocation log has a new lineage";
            return Err(StoreError::Unavailable(detail.to_owned()));
        }
        if from < tail || from > head {
            return Ok(None);
        }
        let events = answer.list()?.events()?;
        let to = Revision(from.0.saturating_add(events.len() as u64));
        Ok(Some(RevocationRange { from, to, events }))
    }

    /// What a script says about each of a long list of sessions, a piece at a time and in order.
    async fn about<T>(
        &self,
        sessions: &[SessionId],
        call: impl Fn() -> ScriptInvocation<'static>,
        read: impl Fn(Reply, &[SessionId]) -> Result<Vec<T>, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut pieces = sessions.chunks(ASKED);
        let mut under_way = FuturesOrdered::new();
        let mut all = Vec::new();
        loop {
            while under_way.len() < AHEAD
                && let Some(some) = pieces.next()
            {
                let mut call = call();
                for session in some {
                    call.arg(session.to_string());
                }
                under_way.push_back(async move { (some, self.invoke(&call).await) });
            }
            let Some((some, answer)) = under_way.next().await else {
                return Ok(all);
            };
            all.extend(read(answer?, some)?);
        }
    }

    async fn take_away(&self, at: Timestamp) -> Result<Purged, StoreError> {
        let StoreLives { idle, .. } = self.shared.lives;
        lock(&self.shared.activity).forget_before(at.before(idle));
        let mut total = Purged::default();
        loop {
            let mut call = self.call(&SCRIPTS.purge, at);
            call.arg(millis(LEEWAY))
                .arg(millis(self.shared.lives.retention()))
                .arg(PURGED);
            let mut answer = self.invoke(&call).await?;
            let (sessions, events): (usize, usize) = (answer.parsed()?, answer.parsed()?);
            self.shared.known.purged(answer.revision()?);
            total.sessions += sessions;
            total.events += events;
            if sessions < PURGED && events < PURGED {
                return Ok(total);
            }
        }
    }

    async fn finish(&self) -> Result<(), StoreError> {
        if self.closed().is_cancelled() {
            return Ok(());
        }
        // What is queued first, and then what was not even due; calls that are under way end meanwhile.
        lock(&self.queue).take();
        drop(timeout(FINISH, self.writer.wait()).await);
        let unwritten = lock(&self.shared.activity).unwritten();
        let written = writer::write(&self.shared, &unwritten).await;
        self.closed().cancel();
        self.keeper.wait().await;
        written
    }
}

impl Store for RedisStore {
    fn start_session(&self, new: NewSession) -> Answer<'_, Started> {
        Box::pin(self.start(new))
    }

    fn session(&self, id: SessionId) -> Answer<'_, Option<Found>> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.session, Timestamp(0));
            call.arg(id.to_string());
            let mut answer = self.invoke(&call).await?;
            if answer.is_empty() {
                return Ok(None);
            }
            answer.found().map(|found| Some(self.exact(found)))
        })
    }

    fn refresh(&self, claim: RefreshClaim, at: Timestamp) -> Answer<'_, Refreshed> {
        Box::pin(self.rotate(claim, at))
    }

    fn sessions(
        &self,
        player: Option<PlayerId>,
        before: Option<SessionId>,
        limit: usize,
    ) -> Answer<'_, Vec<Found>> {
        Box::pin(self.list(player, before, limit))
    }

    fn grant(&self, session: SessionId, gateway: GatewayId) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.grant, Timestamp(0));
            call.arg(session.to_string())
                .arg(gateway.as_str())
                .arg(MAX_GRANTS);
            self.shared.link.invoke(&call).await
        })
    }

    fn granted_among(
        &self,
        gateway: GatewayId,
        sessions: Vec<SessionId>,
    ) -> Answer<'_, Vec<SessionId>> {
        Box::pin(async move {
            let call = || {
                let mut call = self.call(&SCRIPTS.granted, Timestamp(0));
                call.arg(gateway.as_str());
                call
            };
            self.about(&sessions, call, Reply::places).await
        })
    }

    fn active_elsewhere(
        &self,
        gateway: GatewayId,
        sessions: Vec<SessionId>,
    ) -> Answer<'_, Vec<(SessionId, Timestamp)>> {
        Box::pin(async move {
            let call = || {
                let mut call = self.call(&SCRIPTS.elsewhere, Timestamp(0));
                call.arg(gateway.as_str());
                call
            };
            let mut active = self.about(&sessions, call, Reply::moments).await?;
            let noted = lock(&self.shared.activity);
            for (session, active_at) in &mut active {
                *active_at = noted.exact(*session, *active_at);
            }
            Ok(active)
        })
    }

    fn attach_gateway(&self, gateway: GatewayId, incarnation: Incarnation) -> Answer<'_, Fencing> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.attach_gateway, Timestamp(0));
            call.arg(gateway.as_str())
                .arg(incarnation.to_string())
                .arg(MAX_FENCED + 1);
            let is_newest: bool = self.shared.link.invoke(&call).await?;
            Ok(match is_newest {
                true => Fencing::Newest,
                false => Fencing::Fenced,
            })
        })
    }

    fn publish_gateway(
        &self,
        gateway: PublishedGateway,
        lease: Duration,
        has_attached: bool,
        at: Timestamp,
    ) -> Answer<'_, Publication> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.publish_gateway, at);
            call.arg(gateway.description.id.as_str())
                .arg(gateway.description.incarnation.to_string())
                .arg(&self.own)
                .arg(gateways::encode(&gateway))
                .arg(millis(lease))
                .arg(if has_attached { "1" } else { "" });
            let outcome: String = self.shared.link.invoke(&call).await?;
            match &*outcome {
                "published" => Ok(Publication::Published),
                "elsewhere" => Ok(Publication::Elsewhere),
                "fenced" => Ok(Publication::Fenced),
                _ => Err(DAMAGED),
            }
        })
    }

    fn withdraw_gateway(&self, gateway: GatewayId, incarnation: Incarnation) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.withdraw_gateway, Timestamp(0));
            call.arg(gateway.as_str())
                .arg(incarnation.to_string())
                .arg(&self.own);
            self.shared.link.invoke(&call).await
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn gateways(&self, at: Timestamp) -> Answer<'_, Vec<PublishedGateway>> {
        Box::pin(async move {
            let call = self.call(&SCRIPTS.gateways, at);
            let mut answer = self.invoke(&call).await?;
            let mut published = Vec::new();
            while !answer.is_empty() {
                let mut record: Reply = answer.list()?;
                let is_elsewhere = record.text()? != self.own;
                published.push(gateways::decode(&record.bytes()?, is_elsewhere)?);
            }
            Ok(published)
        })
    }

    fn revoke_session(&self, id: SessionId, at: Timestamp) -> Answer<'_, SessionRevocation> {
        Box::pin(self.revoke(id, at))
    }

    fn revoke_player(&self, id: PlayerId, at: Timestamp) -> Answer<'_, PlayerRevocation> {
        Box::pin(self.revoke_all(id, at))
    }

    fn log_state(&self) -> Answer<'_, LogState> {
        Box::pin(async move {
            let mut call = self.call(&SCRIPTS.log, Timestamp(0));
            call.arg(0).arg(0);
            log_state_of(self.shared.link.invoke(&call).await?)
        })
    }

    fn log_after(&self, from: Revision, limit: usize) -> Answer<'_, Option<RevocationRange>> {
        Box::pin(self.read_log(from, limit))
    }

    fn dead_among(&self, sessions: Vec<SessionId>, at: Timestamp) -> Answer<'_, Vec<SessionId>> {
        Box::pin(async move {
            let call = || self.call(&SCRIPTS.dead, at);
            self.about(&sessions, call, Reply::places).await
        })
    }

    fn note_activity(&self, sessions: &[SessionId], at: Timestamp) {
        let queue = lock(&self.queue);
        let Some(queue) = queue.as_ref() else { return };
        let mut activity = lock(&self.shared.activity);
        let due: Vec<writer::Moment> = sessions
            .iter()
            .filter(|id| activity.note(**id, at))
            .map(|id| (*id, at))
            .collect();
        if due.is_empty() {
            return;
        }
        let sent = due.clone();
        // A full queue means that the server is behind: the next report of these sessions tries again.
        if queue.try_send(due).is_ok() {
            sent.iter().for_each(|(id, at)| activity.sent(*id, *at));
        }
    }

    fn purge(&self, at: Timestamp) -> Answer<'_, Purged> {
        Box::pin(self.take_away(at))
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.shared.known.watch()
    }

    /// Never: a connection that breaks is made anew, and what the server says meanwhile passes.
    fn watch_failed(&self) -> watch::Receiver<bool> {
        watch::Sender::new(false).subscribe()
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(self.finish())
    }
}
