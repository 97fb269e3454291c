//! What the store has promised, and whether it holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{Rng, seq::IteratorRandom};

use super::{
    super::{EmbeddedStore, gateways::read_fencing},
    Ask,
};
use crate::{
    clock::Timestamp,
    control::Revocation,
    id::{GatewayId, Incarnation, PlayerGeneration, PlayerId, Revision, SessionId},
    store::{
        Fencing, Found, LEEWAY, PlayerRevocation, RefreshClaim, Refreshed, SessionRevocation,
        Started, Store, conformance::LIVES,
    },
};

/// What the store has answered.
#[derive(Debug)]
pub(super) enum Done {
    Started(Started),
    Refreshed(Refreshed),
    Session(SessionRevocation),
    Player(PlayerRevocation),
    Granted,
    Attached(Fencing),
    Purged,
}

/// A session as it was promised.
#[derive(Debug, Clone)]
struct Known {
    player: PlayerId,
    player_generation: PlayerGeneration,
    generation: u32,
    revoked: Option<Revision>,
    ends_at: Timestamp,
    active_at: Timestamp,
    gateways: BTreeSet<GatewayId>,
}

/// Everything that was promised, and what was asked for without an answer.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sessions: BTreeMap<SessionId, Known>,
    accounts: BTreeMap<&'static str, PlayerId>,
    players: BTreeMap<PlayerId, PlayerGeneration>,
    log: BTreeMap<Revision, (Timestamp, Revocation)>,
    /// The processes of each gateway, the newest last.
    processes: BTreeMap<GatewayId, Vec<Incarnation>>,
    /// When a purge was last asked for.
    purged_at: Timestamp,
    open: Vec<(Ask, Timestamp)>,
}

fn hold(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

async fn all_sessions(store: &EmbeddedStore) -> Result<BTreeMap<SessionId, Found>, String> {
    let all = store.sessions(None, None, usize::MAX).await;
    let all = all.map_err(|e| e.to_string())?.into_iter();
    Ok(all.map(|found| (found.session.id, found)).collect())
}

/// Whether each player's sessions, which the store knows from memory, are those in the file.
pub(super) async fn check_lists(store: &EmbeddedStore) -> Result<(), String> {
    let mut in_file: BTreeMap<PlayerId, Vec<SessionId>> = BTreeMap::new();
    for (id, found) in all_sessions(store).await?.into_iter().rev() {
        in_file.entry(found.player.id).or_default().push(id);
    }
    for (player, expected) in in_file {
        let own = store.sessions(Some(player), None, usize::MAX).await;
        let own = own.map_err(|e| e.to_string())?.into_iter();
        let own: Vec<_> = own.map(|found| found.session.id).collect();
        hold(own == expected, || {
            format!("{own:?} listed of {expected:?}")
        })?;
    }
    Ok(())
}

impl Ledger {
    pub(super) fn any_session(&self, rng: &mut impl Rng) -> Option<SessionId> {
        // One of the last: most of the others are over.
        self.sessions.keys().rev().take(8).copied().choose(rng)
    }

    pub(super) fn claim_of(&self, session: SessionId) -> RefreshClaim {
        let known = &self.sessions[&session];
        RefreshClaim {
            session,
            generation: known.generation,
            player_generation: known.player_generation,
        }
    }

    pub(super) fn player_of(&self, session: SessionId) -> PlayerId {
        self.sessions[&session].player
    }

    fn head(&self) -> Revision {
        self.log.last_key_value().map_or(Revision(0), |(r, _)| *r)
    }

    /// Activity of the session that is on disk, but for a granule.
    pub(super) fn was_active(&mut self, session: SessionId, at: Timestamp) {
        if let Some(known) = self.sessions.get_mut(&session)
            && known.revoked.is_none()
            && at < known.ends_at
        {
            known.active_at = at;
        }
    }

    /// It was asked for, and there is no saying whether it has happened.
    pub(super) fn left_open(&mut self, ask: Ask, at: Timestamp) {
        if matches!(ask, Ask::Purge) {
            self.purged_at = at;
        }
        self.open.push((ask, at));
    }

    /// Takes note of a promise, if it goes with the earlier ones.
    pub(super) fn note(&mut self, ask: &Ask, done: Done, at: Timestamp) -> Result<(), String> {
        let wrong =
            |ledger: &Self, done: &Done| Err(format!("{ask:?} gave {done:?} after {ledger:?}"));
        match (ask, done) {
            (Ask::LogIn(subject), Done::Started(started)) => {
                let player = started.found.player.id;
                let expected = *self.accounts.entry(subject).or_insert(player);
                let is_new = self.sessions.contains_key(&started.found.session.id);
                if expected != player || is_new {
                    return wrong(self, &Done::Started(started));
                }
                self.learn(&started.found);
            }
            (Ask::Refresh(claim), Done::Refreshed(done)) => {
                let known = self.sessions.get_mut(&claim.session).ok_or("no session")?;
                match &done {
                    Refreshed::Rotated(next) if known.generation == claim.generation => {
                        known.generation = next.found.session.generation;
                    }
                    // Looked up at once, perhaps, before what was asked for beside it was done.
                    Refreshed::Again(same)
                        if same.found.session.generation == claim.generation + 1
                            && known.generation > claim.generation => {}
                    Refreshed::Reused(revision) => {
                        let revision = *revision;
                        self.ended(claim.session, revision, at)?;
                    }
                    Refreshed::Ended(Some(_)) => {}
                    Refreshed::Ended(None) if self.may_be_purged(claim.session) => {}
                    _ => return wrong(self, &Done::Refreshed(done)),
                }
            }
            (Ask::RevokeSession(id), Done::Session(done)) => match done {
                SessionRevocation::Ended(revision) => self.ended(*id, revision, at)?,
                SessionRevocation::AlreadyEnded(_) => {}
                SessionRevocation::Unknown if self.may_be_purged(*id) => {}
                SessionRevocation::Unknown => return wrong(self, &Done::Session(done)),
            },
            (Ask::RevokePlayer(id), Done::Player(done)) => match done {
                PlayerRevocation::Ended {
                    generation,
                    revision,
                    ..
                } => {
                    let known = self.players.insert(*id, generation);
                    hold(known.is_some_and(|known| known < generation), || {
                        format!("player generation {known:?} and then {generation:?}")
                    })?;
                    self.append(revision, Revocation::Player(*id, generation), at)?;
                }
                PlayerRevocation::Unknown => return wrong(self, &Done::Player(done)),
            },
            (Ask::Grant(session, gateway), Done::Granted) => {
                if let Some(known) = self.sessions.get_mut(session) {
                    known.gateways.insert(gateway.clone());
                }
            }
            (Ask::Attach(gateway, process), Done::Attached(fencing)) => {
                let known = self.processes.entry(gateway.clone()).or_default();
                let is_newest =
                    known.last().is_none_or(|newest| newest == process) || !known.contains(process);
                hold(is_newest == (fencing == Fencing::Newest), || {
                    format!("{process:?} of {known:?}: {fencing:?}")
                })?;
                if is_newest && known.last() != Some(process) {
                    known.push(*process);
                }
            }
            (Ask::Purge, Done::Purged) => self.purged_at = at,
            (_, done) => return wrong(self, &done),
        }
        Ok(())
    }

    fn learn(&mut self, found: &Found) {
        let Found {
            session, player, ..
        } = found;
        self.players.insert(player.id, player.generation);
        let gateways = self
            .sessions
            .get(&session.id)
            .map(|known| known.gateways.clone());
        let known = Known {
            player: player.id,
            player_generation: session.player_generation,
            generation: session.generation,
            revoked: session.revoked,
            ends_at: session.ends_at,
            active_at: session.active_at,
            gateways: gateways.unwrap_or_default(),
        };
        self.sessions.insert(session.id, known);
    }

    fn ended(&mut self, id: SessionId, revision: Revision, at: Timestamp) -> Result<(), String> {
        self.append(revision, Revocation::Session(id), at)?;
        let known = self.sessions.get_mut(&id).ok_or("no session")?;
        let before = known.revoked.replace(revision);
        hold(before.is_none(), || format!("{id} ended twice"))
    }

    fn append(
        &mut self,
        revision: Revision,
        event: Revocation,
        at: Timestamp,
    ) -> Result<(), String> {
        let head = self.head();
        hold(revision.0 == head.0 + 1, || {
            format!("revision {revision} after {head}")
        })?;
        self.log.insert(revision, (at, event));
        Ok(())
    }

    fn may_be_purged(&self, id: SessionId) -> bool {
        let known = self.sessions.get(&id);
        known.is_none_or(|known| known.ends_at < self.purged_at.before(LEEWAY))
    }

    /// Whether the store has all that was promised, and beyond that only what was asked for; then that counts as promised too.
    pub(super) async fn check(&mut self, store: &EmbeddedStore) -> Result<(), String> {
        self.check_log(store).await?;
        self.check_sessions(store).await?;
        check_lists(store).await?;
        self.check_gateways(store).await?;
        self.open.clear();
        Ok(())
    }

    async fn check_log(&mut self, store: &EmbeddedStore) -> Result<(), String> {
        let state = store.log_state().await.map_err(|e| e.to_string())?;
        let range = store.log_after(state.tail, usize::MAX).await;
        let range = range.map_err(|e| e.to_string())?.ok_or("no log")?;
        let (head, told) = (self.head(), *store.watch_head().borrow());
        hold(range.to == state.head && told == state.head, || {
            format!(
                "the log ends at {}, its head is {} and told as {told}",
                range.to, state.head
            )
        })?;
        hold(state.head >= head, || {
            format!("the log's head fell from {head} to {}", state.head)
        })?;
        let old = self.purged_at.before(LIVES.retention());
        let lost = self
            .log
            .range(..=state.tail)
            .find(|(_, (at, _))| *at >= old);
        hold(lost.is_none(), || format!("purged: {lost:?}"))?;
        for (index, event) in range.events.iter().enumerate() {
            let revision = Revision(state.tail.0 + 1 + index as u64);
            if let Some((_, known)) = self.log.get(&revision) {
                hold(known == event, || {
                    format!("{revision} was {known:?} and is {event:?}")
                })?;
                continue;
            }
            let asked = self.open.iter().find(|(ask, _)| match (ask, event) {
                (Ask::RevokeSession(id), Revocation::Session(ended)) => id == ended,
                (Ask::Refresh(claim), Revocation::Session(ended)) => claim.session == *ended,
                (Ask::RevokePlayer(id), Revocation::Player(ended, _)) => id == ended,
                _ => false,
            });
            let (_, at) = asked.ok_or(format!("nobody asked for {event:?} at {revision}"))?;
            self.log.insert(revision, (*at, *event));
        }
        Ok(())
    }

    async fn check_sessions(&mut self, store: &EmbeddedStore) -> Result<(), String> {
        let all = all_sessions(store).await?;
        for (id, known) in &self.sessions {
            match all.get(id) {
                Some(found) => self.check_session(known, found)?,
                None => hold(self.may_be_purged(*id), || {
                    format!("{id} is lost: {known:?}")
                })?,
            }
        }
        let asked = self
            .open
            .iter()
            .filter(|(ask, _)| matches!(ask, Ask::LogIn(_)));
        let unknown = all.keys().filter(|id| !self.sessions.contains_key(id));
        let (asked, unknown) = (asked.count(), unknown.count());
        hold(unknown <= asked, || {
            format!("{unknown} new sessions, {asked} logins")
        })?;

        let tail = store.log_state().await.map_err(|e| e.to_string())?.tail;
        let mut newest = BTreeMap::new();
        for (revision, (_, event)) in &self.log {
            match event {
                Revocation::Session(id) => {
                    let revoked = all.get(id).map(|found| found.session.revoked);
                    hold(revoked.is_none_or(|r| r == Some(*revision)), || {
                        format!("{id} is revoked by {revision}, and says {revoked:?}")
                    })?;
                }
                Revocation::Player(id, generation) => {
                    newest.insert(*id, (*generation, *revision));
                }
            }
        }
        for found in all.values() {
            let (player, revoked) = (&found.player, found.session.revoked);
            let newest = newest.get(&player.id).copied().unwrap_or_default();
            hold(
                (player.generation, player.revoked_revision) == newest,
                || format!("{player:?}, and the log says {newest:?}"),
            )?;
            let is_logged = revoked.is_none_or(|r| r <= tail || self.log.contains_key(&r));
            hold(is_logged, || format!("{found:?} is not in the log"))?;
        }
        for (id, found) in &all {
            // What was active is on the disk but for a granule; that is what counts from here on.
            let active_at = self.sessions.get(id).map(|known| known.active_at);
            self.learn(found);
            if let (Some(known), Some(active_at)) = (self.sessions.get_mut(id), active_at) {
                known.active_at = known.active_at.min(active_at);
            }
        }
        self.sessions.retain(|id, _| all.contains_key(id));
        Ok(())
    }

    fn check_session(&self, known: &Known, found: &Found) -> Result<(), String> {
        let id = found.session.id;
        let was_asked = |which: &dyn Fn(&Ask) -> bool| self.open.iter().any(|(ask, _)| which(ask));
        let refresh = |ask: &Ask| matches!(ask, Ask::Refresh(claim) if claim.session == id);
        let revoke = |ask: &Ask| matches!(ask, Ask::RevokeSession(other) if *other == id);
        let of_player =
            |ask: &Ask| matches!(ask, Ask::RevokePlayer(other) if *other == known.player);
        let most = known.generation + u32::from(was_asked(&refresh));
        hold(
            (known.generation..=most).contains(&found.session.generation),
            || format!("{found:?} was at generation {} to {most}", known.generation),
        )?;
        let may_have_ended = was_asked(&revoke) || was_asked(&refresh);
        hold(
            found.session.revoked == known.revoked || (known.revoked.is_none() && may_have_ended),
            || format!("{found:?} was {known:?}"),
        )?;
        let generation = self.players[&known.player];
        hold(
            found.player.id == known.player
                && (found.player.generation == generation
                    || (found.player.generation > generation && was_asked(&of_player))),
            || format!("{found:?} is of another player or generation: {generation:?}"),
        )?;
        hold(
            found.session.active_at
                >= known
                    .active_at
                    .before(LIVES.granule() + Duration::from_millis(1)),
            || format!("{found:?} was active: {known:?}"),
        )
    }

    async fn check_gateways(&mut self, store: &EmbeddedStore) -> Result<(), String> {
        for (gateway, known) in &mut self.processes {
            // Those of them that have been let in without an answer, in their order.
            let mut unanswered = Vec::new();
            for (ask, _) in &self.open {
                let Ask::Attach(id, process) = ask else {
                    continue;
                };
                let found = store
                    .shared
                    .read(|read| read_fencing(read, gateway, *process));
                let is_in_file = found.map_err(|e| e.to_string())?;
                let is_known = known.contains(process) || unanswered.contains(process);
                if id == gateway && is_in_file.is_some() && !is_known {
                    unanswered.push(*process);
                }
            }
            for (place, process) in known.clone().into_iter().enumerate() {
                let is_newest = place + 1 == known.len();
                let fencing = store.attach_gateway(gateway.clone(), process).await;
                let fencing = fencing.map_err(|e| e.to_string())?;
                let expected = if is_newest {
                    Fencing::Newest
                } else {
                    Fencing::Fenced
                };
                if is_newest && fencing == Fencing::Fenced && !unanswered.is_empty() {
                    known.append(&mut unanswered);
                    continue;
                }
                hold(fencing == expected, || {
                    format!("{process:?} of {known:?} is {fencing:?}")
                })?;
            }
            let sessions: Vec<_> = self
                .sessions
                .iter()
                .filter(|(_, known)| known.gateways.contains(gateway))
                .map(|(id, _)| *id)
                .collect();
            let granted = store.granted_among(gateway.clone(), sessions.clone()).await;
            let granted = granted.map_err(|e| e.to_string())?;
            hold(granted == sessions, || {
                format!("granted {granted:?} of {sessions:?}")
            })?;
        }
        Ok(())
    }
}
