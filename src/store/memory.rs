//! The memory store, for tests only: plain maps behind one lock. It is written for being obviously right, as the model that the
//! embedded store is held against.

mod logins;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    clock::Timestamp,
    control::{LogState, Revocation, RevocationRange},
    id::{GatewayId, Incarnation, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
};

use super::{
    Answer, DEFAULT_ROLE, EndedBy, Fencing, Found, Identity, LEEWAY, MAX_FENCED, MAX_GRANTS,
    NewSession, Player, PlayerRevocation, Publication, PublishedGateway, Purged, REFRESH_GRACE,
    RefreshClaim, Refreshed, Session, SessionRevocation, Standing, Started, Store, StoreError,
    StoreLives, Successor, draw, leases::Leases,
};

/// A store without a disk.
pub(crate) struct MemoryStore {
    model: Mutex<Model>,
    head: watch::Sender<Revision>,
    /// Whether it says of itself that its medium has failed.
    pub(crate) failed: watch::Sender<bool>,
    leases: Leases,
    lives: StoreLives,
}

struct Model {
    lineage: Lineage,
    tail: Revision,
    head: Revision,
    log: BTreeMap<Revision, (Timestamp, Revocation)>,
    identities: HashMap<Identity, PlayerId>,
    players: HashMap<PlayerId, Player>,
    sessions: BTreeMap<SessionId, (PlayerId, Session)>,
    /// When each generation but the first was made of its parent, and the role it carries.
    rotations: HashMap<SessionId, Vec<(Timestamp, String)>>,
    /// The gateways that a session has tokens for, the first one first.
    grants: HashMap<SessionId, Vec<GatewayId>>,
    /// Every process of a gateway that may not be forgotten, the newest last.
    processes: HashMap<GatewayId, Vec<Incarnation>>,
    logins: logins::Kept,
    closed: bool,
}

impl MemoryStore {
    pub(crate) fn new(lives: StoreLives) -> Self {
        Self {
            model: Mutex::new(Model {
                lineage: draw::lineage().unwrap(),
                tail: Revision(0),
                head: Revision(0),
                log: BTreeMap::new(),
                identities: HashMap::new(),
                players: HashMap::new(),
                sessions: BTreeMap::new(),
                rotations: HashMap::new(),
                grants: HashMap::new(),
                processes: HashMap::new(),
                logins: logins::Kept::default(),
                closed: false,
            }),
            head: watch::Sender::new(Revision(0)),
            failed: watch::Sender::new(false),
            leases: Leases::default(),
            lives,
        }
    }

    fn with<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Model) -> Result<T, StoreError>,
    ) -> Answer<'_, T> {
        let mut model = self.model();
        let result = if model.closed {
            Err(StoreError::Closed)
        } else {
            step(&mut model)
        };
        self.head.send_if_modified(|head| {
            let moved = *head != model.head;
            *head = model.head;
            moved
        });
        Box::pin(std::future::ready(result))
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model {
    fn found(&self, id: SessionId) -> Option<Found> {
        let (owner, session) = self.sessions.get(&id)?;
        Some(Found {
            session: session.clone(),
            player: self.players.get(owner)?.clone(),
            head: self.head,
        })
    }

    /// The session with the generation that its last rotation made.
    fn successor(&self, id: SessionId) -> Successor {
        let (issued_at, role) = self.rotations[&id].last().unwrap().clone();
        Successor {
            found: self.found(id).unwrap(),
            issued_at,
            role,
        }
    }

    fn revoke(&mut self, id: SessionId, at: Timestamp) -> Revision {
        let revision = self.append(at, Revocation::Session(id));
        self.sessions.get_mut(&id).unwrap().1.revoked = Some(revision);
        revision
    }

    fn revoke_player(&mut self, id: PlayerId, at: Timestamp, idle: Duration) -> PlayerRevocation {
        let Some(player) = self.players.get(&id) else {
            return PlayerRevocation::Unknown;
        };
        let generation = PlayerGeneration(player.generation.0 + 1);
        let sessions = self.sessions.iter().filter(|(session, (owner, _))| {
            *owner == id && self.found(**session).unwrap().standing(at, idle) == Standing::Live
        });
        let sessions = sessions.count() as u32;
        let revision = self.append(at, Revocation::Player(id, generation));
        let player = self.players.get_mut(&id).unwrap();
        player.generation = generation;
        player.revoked_revision = revision;
        PlayerRevocation::Ended {
            generation,
            revision,
            sessions,
        }
    }

    fn make_player(&mut self, identity: Identity) -> Result<PlayerId, StoreError> {
        let id = draw::player_id()?;
        let player = Player {
            id,
            generation: PlayerGeneration(0),
            role: DEFAULT_ROLE.to_owned(),
            revoked_revision: Revision(0),
        };
        self.players.insert(id, player);
        self.logins.identities.insert(id, vec![identity.clone()]);
        self.identities.insert(identity, id);
        Ok(id)
    }

    fn append(&mut self, at: Timestamp, event: Revocation) -> Revision {
        self.head.0 += 1;
        self.log.insert(self.head, (at, event));
        self.head
    }
}

impl Store for MemoryStore {
    fn start_session(&self, new: NewSession) -> Answer<'_, Started> {
        self.with(move |model| {
            let known = model.identities.get(&new.identity).copied();
            let owner = match known {
                Some(owner) => owner,
                None => model.make_player(new.identity)?,
            };
            let id = draw::session_id(new.at)?;
            let session = Session {
                id,
                player_generation: model.players[&owner].generation,
                generation: 0,
                method: new.method,
                created_at: new.at,
                ends_at: new.ends_at,
                active_at: new.at,
                revoked: None,
            };
            model.sessions.insert(id, (owner, session));
            Ok(Started {
                found: model.found(id).unwrap(),
                is_new_player: known.is_none(),
            })
        })
    }

    fn session(&self, id: SessionId) -> Answer<'_, Option<Found>> {
        self.with(|model| Ok(model.found(id)))
    }

    fn refresh(&self, claim: RefreshClaim, at: Timestamp) -> Answer<'_, Refreshed> {
        let idle = self.lives.idle;
        self.with(|model| {
            let id = claim.session;
            let Some(Found {
                session, player, ..
            }) = model.found(id)
            else {
                return Ok(Refreshed::Ended(None));
            };
            if session.player_generation != claim.player_generation {
                return Ok(Refreshed::Ended(None));
            }
            let standing = model.found(id).unwrap().standing(at, idle);
            let rotations = model.rotations.entry(id).or_default();
            let newest = rotations.len() as u32;
            if claim.generation > newest {
                return Ok(Refreshed::Ended(None));
            }
            let is_newest = claim.generation == newest;
            let is_retry = claim.generation + 1 == newest
                && rotations.last().unwrap().0.after(REFRESH_GRACE) > at;
            match standing {
                Standing::Ended(by) if is_newest || is_retry => Ok(Refreshed::Ended(Some(by))),
                Standing::Live if is_newest => {
                    rotations.push((at, player.role));
                    model.sessions.get_mut(&id).unwrap().1.generation = newest + 1;
                    Ok(Refreshed::Rotated(model.successor(id)))
                }
                Standing::Live if is_retry => Ok(Refreshed::Again(model.successor(id))),
                Standing::Ended(by @ (EndedBy::Revocation | EndedBy::AbsoluteEnd)) => {
                    Ok(Refreshed::Ended(Some(by)))
                }
                Standing::Live | Standing::Ended(EndedBy::Idleness) => {
                    Ok(Refreshed::Reused(model.revoke(id, at)))
                }
            }
        })
    }

    fn sessions(
        &self,
        player: Option<PlayerId>,
        before: Option<SessionId>,
        limit: usize,
    ) -> Answer<'_, Vec<Found>> {
        self.with(|model| {
            let wanted = model.sessions.iter().rev().filter(|(id, (owner, _))| {
                player.is_none_or(|player| player == *owner)
                    && before.is_none_or(|before| **id < before)
            });
            let listed = wanted.take(limit);
            Ok(listed.map(|(id, _)| model.found(*id).unwrap()).collect())
        })
    }

    fn grant(&self, session: SessionId, gateway: GatewayId) -> Answer<'_, ()> {
        self.with(|model| {
            let granted = model.grants.entry(session).or_default();
            if !granted.contains(&gateway) {
                granted.push(gateway);
            }
            if granted.len() > MAX_GRANTS {
                granted.remove(0);
            }
            Ok(())
        })
    }

    fn granted_among(
        &self,
        gateway: GatewayId,
        sessions: Vec<SessionId>,
    ) -> Answer<'_, Vec<SessionId>> {
        self.with(|model| {
            let is_granted = |id: &SessionId| {
                model.sessions.contains_key(id)
                    && model.grants.get(id).is_some_and(|g| g.contains(&gateway))
            };
            Ok(sessions.into_iter().filter(is_granted).collect())
        })
    }

    fn active_elsewhere(
        &self,
        gateway: GatewayId,
        sessions: Vec<SessionId>,
    ) -> Answer<'_, Vec<(SessionId, Timestamp)>> {
        self.with(|model| {
            let active_at = |id: SessionId| {
                let (_, session) = model.sessions.get(&id)?;
                let gateways = model.grants.get(&id)?;
                let elsewhere = gateways.iter().any(|other| *other != gateway);
                elsewhere.then_some((id, session.active_at))
            };
            Ok(sessions.into_iter().filter_map(active_at).collect())
        })
    }

    fn attach_gateway(&self, gateway: GatewayId, incarnation: Incarnation) -> Answer<'_, Fencing> {
        self.with(|model| {
            let known = model.processes.entry(gateway).or_default();
            match known.iter().position(|process| *process == incarnation) {
                Some(at) if at + 1 == known.len() => Ok(Fencing::Newest),
                Some(_) => Ok(Fencing::Fenced),
                None => {
                    known.push(incarnation);
                    if known.len() > MAX_FENCED + 1 {
                        known.remove(0);
                    }
                    Ok(Fencing::Newest)
                }
            }
        })
    }

    fn publish_gateway(
        &self,
        gateway: PublishedGateway,
        lease: Duration,
        _has_attached: bool,
        at: Timestamp,
    ) -> Answer<'_, Publication> {
        self.with(|model| {
            let known = model.processes.get(&gateway.description.id);
            let place =
                known.and_then(|k| k.iter().position(|i| *i == gateway.description.incarnation));
            let fencing = place.map(|place| match place + 1 == known.map_or(0, Vec::len) {
                true => Fencing::Newest,
                false => Fencing::Fenced,
            });
            Ok(self.leases.publish(fencing, gateway, at.after(lease)))
        })
    }

    fn withdraw_gateway(&self, gateway: GatewayId, incarnation: Incarnation) -> Answer<'_, ()> {
        self.leases.withdraw(&gateway, incarnation);
        Box::pin(std::future::ready(Ok(())))
    }

    fn gateways(&self, at: Timestamp) -> Answer<'_, Vec<PublishedGateway>> {
        self.with(|_| Ok(self.leases.list(at)))
    }

    fn revoke_session(&self, id: SessionId, at: Timestamp) -> Answer<'_, SessionRevocation> {
        self.with(|model| {
            let Some(found) = model.found(id) else {
                return Ok(SessionRevocation::Unknown);
            };
            if let Some(earlier) = found.revocation() {
                return Ok(SessionRevocation::AlreadyEnded(earlier));
            }
            if at >= found.session.ends_at {
                return Ok(SessionRevocation::AlreadyEnded(Revision(0)));
            }
            Ok(SessionRevocation::Ended(model.revoke(id, at)))
        })
    }

    fn revoke_player(&self, id: PlayerId, at: Timestamp) -> Answer<'_, PlayerRevocation> {
        let idle = self.lives.idle;
        self.with(|model| Ok(model.revoke_player(id, at, idle)))
    }

    fn log_state(&self) -> Answer<'_, LogState> {
        self.with(|model| {
            Ok(LogState {
                lineage: model.lineage,
                tail: model.tail,
                head: model.head,
            })
        })
    }

    fn log_after(&self, from: Revision, limit: usize) -> Answer<'_, Option<RevocationRange>> {
        self.with(|model| {
            if from < model.tail || from > model.head {
                return Ok(None);
            }
            let after = model.log.range(Revision(from.0 + 1)..).take(limit);
            let events: Vec<_> = after.map(|(_, (_, event))| *event).collect();
            let to = Revision(from.0 + events.len() as u64);
            Ok(Some(RevocationRange { from, to, events }))
        })
    }

    fn dead_among(&self, sessions: Vec<SessionId>, at: Timestamp) -> Answer<'_, Vec<SessionId>> {
        self.with(|model| {
            let alive = |id: &SessionId| {
                model
                    .found(*id)
                    .is_some_and(|found| found.revocation().is_none() && at < found.session.ends_at)
            };
            Ok(sessions.into_iter().filter(|id| !alive(id)).collect())
        })
    }

    fn note_activity(&self, sessions: &[SessionId], at: Timestamp) {
        let mut model = self.model();
        for id in sessions {
            if let Some((_, session)) = model.sessions.get_mut(id)
                && session.revoked.is_none()
                && at < session.ends_at
            {
                session.active_at = session.active_at.max(at);
            }
        }
    }

    fn purge(&self, at: Timestamp) -> Answer<'_, Purged> {
        let (ended, old) = (at.before(LEEWAY), at.before(self.lives.retention()));
        self.with(|model| {
            let (sessions, events) = (model.sessions.len(), model.log.len());
            model
                .sessions
                .retain(|_, (_, session)| session.ends_at >= ended);
            while let Some(entry) = model.log.first_entry()
                && entry.get().0 < old
            {
                model.tail = *entry.key();
                entry.remove();
            }
            Ok(Purged {
                sessions: sessions - model.sessions.len(),
                events: events - model.log.len(),
            })
        })
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    fn watch_failed(&self) -> watch::Receiver<bool> {
        self.failed.subscribe()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.model().closed = true;
        Box::pin(std::future::ready(Ok(())))
    }
}
