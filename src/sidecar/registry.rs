//! The gateways that are attached now: where they are, how full, what they have acknowledged.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    control::{
        AttachRefusal, AttachmentId, GatewayDescription, LiveSeat, SILENCE_LIMIT, SeatReport,
    },
    id::{GatewayId, Incarnation, Revision, SessionId},
};

/// Gateways known at once, attached or remembered for fencing. They come with certificates, so this bounds a mistake rather than an
/// attack.
const MAX_GATEWAYS: usize = 1_024;

/// Seats known in all: at some 20 bytes each, 20 MiB. Activity of further ones is not accepted, and their sessions may idle out.
const KNOWN_SEATS: usize = 1 << 20;

/// Earlier processes of a gateway that stay fenced off. An older one would have to come back after this many restarts.
const REMEMBERED: usize = 8;

/// How long a gateway that broke off with seats is still waited for: it is back within a second or two, if its network or its sidecar
/// had a moment's trouble, and five are what either end takes to notice silence.
const MISSED: Duration = SILENCE_LIMIT;

/// Which gateway a connect token shall be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Gateway(GatewayId),
    Address(SocketAddr),
    /// The least loaded.
    Any,
}

/// Why there is no gateway for a connect token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFound {
    /// None is attached at all.
    Nothing,
    /// The one asked for was attached, and is not now: it is restarting, cut off, or gone.
    Away,
    /// Not the one asked for.
    NotThat,
}

/// An attached gateway as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) description: GatewayDescription,
    pub(super) seats: u32,
    pub(super) revision: Revision,
}

/// The attached gateways.
#[derive(Debug)]
pub(super) struct Registry {
    state: Mutex<State>,
    clock: Clock,
    /// Counts changes of what `acknowledged_by_all` looks at.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    gateways: HashMap<GatewayId, Gateway>,
    by_attachment: HashMap<AttachmentId, GatewayId>,
    last_attachment: u64,
    known_seats: usize,
}

/// A gateway by its id: the process that is attached, and those that may not attach again.
#[derive(Debug, Default)]
struct Gateway {
    attached: Option<Attached>,
    /// Where it was last attached, for those who ask while it is not.
    addresses: Vec<SocketAddr>,
    /// When its stream broke off while it had seats; none while it is attached.
    missed_since: Option<Instant>,
    /// The newest process that attached, which alone may attach again; another one is newer still.
    current: Option<Incarnation>,
    fenced: VecDeque<Incarnation>,
}

#[derive(Debug)]
struct Attached {
    id: AttachmentId,
    description: GatewayDescription,
    /// Sessions with a seat there, at most as many as the gateway has seats.
    seats: HashSet<SessionId>,
    /// Seats taken, by its own count.
    reported: u32,
    /// Tokens minted since that count: they will be seats soon, so a burst of logins is spread before the next count.
    expected: u32,
    revision: Revision,
    replaced: CancellationToken,
}

impl Attached {
    /// Seats taken and about to be.
    fn load(&self) -> u64 {
        u64::from(self.reported) + u64::from(self.expected)
    }

    /// Less loaded than `other`, in proportion to capacity: a/b < c/d without division.
    fn is_less_loaded_than(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.description.capacity, other.description.capacity);
        self.load().saturating_mul(theirs.into()) < other.load().saturating_mul(ours.into())
    }
}

impl Registry {
    /// An empty registry; `clock` tells how long a gateway has been away.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            state: Mutex::default(),
            clock,
            changes: watch::Sender::new(0),
        }
    }

    /// Attaches a gateway process and detaches its predecessor: an older stream of the same process, or an older process, which is
    /// fenced off for good.
    pub(super) fn attach(
        &self,
        description: &GatewayDescription,
        seats: &[LiveSeat],
    ) -> Result<AttachmentId, AttachRefusal> {
        let mut state = self.state();
        state.make_room_for(&description.id)?;
        state.last_attachment += 1;
        let id = AttachmentId(state.last_attachment);
        let gateway = state.gateways.entry(description.id.clone()).or_default();
        let incarnation = description.incarnation;
        if gateway.fenced.contains(&incarnation) {
            return Err(AttachRefusal::Fenced);
        }
        if let Some(older) = gateway.current.replace(incarnation)
            && older != incarnation
        {
            gateway.fenced.push_back(older);
            if gateway.fenced.len() > REMEMBERED {
                gateway.fenced.pop_front();
            }
            tracing::info!(gateway = %description.id, %older, newer = %incarnation, "older process fenced off");
        }
        state.detach_current(&description.id);
        let mut attached = Attached {
            id,
            description: description.clone(),
            seats: HashSet::new(),
            reported: u32::try_from(seats.len()).unwrap_or(u32::MAX),
            expected: 0,
            revision: Revision(0),
            replaced: CancellationToken::new(),
        };
        let room = attached.room_beside(state.known_seats);
        attached
            .seats
            .extend(seats.iter().take(room).map(|seat| seat.session));
        state.known_seats += attached.seats.len();
        state.by_attachment.insert(id, description.id.clone());
        if let Some(gateway) = state.gateways.get_mut(&description.id) {
            gateway.attached = Some(attached);
            gateway.addresses.clone_from(&description.addresses);
            gateway.missed_since = None;
        }
        drop(state);
        self.changed();
        Ok(id)
    }

    /// The attachment's stream has ended. An attachment that has been replaced already ends nobody.
    pub(super) fn detach(&self, id: AttachmentId) {
        let mut state = self.state();
        if let Some(gateway) = state.by_attachment.get(&id).cloned() {
            let had_seats = state
                .attached(id)
                .is_some_and(|attached| attached.reported > 0 || !attached.seats.is_empty());
            state.detach_current(&gateway);
            if let Some(gateway) = state.gateways.get_mut(&gateway) {
                gateway.missed_since = had_seats.then(|| self.clock.now());
            }
        }
        drop(state);
        self.changed();
    }

    /// Takes a report, and returns the sessions whose activity counts: those that have a seat there.
    pub(super) fn report(&self, id: AttachmentId, report: SeatReport) -> Vec<SessionId> {
        let SeatReport {
            opened,
            closed,
            mut active,
            seats,
            ..
        } = report;
        let mut state = self.state();
        let known_seats = state.known_seats;
        let Some(attached) = state.attached(id) else {
            return Vec::new();
        };
        let before = attached.seats.len();
        for session in &closed {
            attached.seats.remove(session);
        }
        // A session that is in both lists left and came back.
        let mut room = attached.room_beside(known_seats - before + attached.seats.len());
        for seat in &opened {
            if room > 0 && attached.seats.insert(seat.session) {
                room -= 1;
            }
        }
        attached.reported = seats;
        if opened.is_empty() && closed.is_empty() && active.is_empty() {
            // A heartbeat, with a fresh count. What was minted in the last moments is not in it yet; that skew is gone by the next.
            attached.expected = 0;
        }
        active.retain(|session| attached.seats.contains(session));
        let after = attached.seats.len();
        state.known_seats = known_seats - before + after;
        active
    }

    /// A gateway has applied the log up to `revision`.
    pub(super) fn acknowledged(&self, id: AttachmentId, revision: Revision) {
        if let Some(attached) = self.state().attached(id) {
            attached.revision = attached.revision.max(revision);
        }
        self.changed();
    }

    /// Resolves when the attachment has been replaced or detached.
    pub(super) async fn fenced(&self, id: AttachmentId) {
        let replaced = self.state().attached(id).map(|a| a.replaced.clone());
        if let Some(replaced) = replaced {
            replaced.cancelled().await;
        }
    }

    /// The gateway to mint a connect token for; the token counts towards its load at once.
    pub(super) fn choose(&self, target: &Target) -> Result<GatewayDescription, NotFound> {
        let mut state = self.state();
        if state.gateways.values().all(|g| g.attached.is_none()) {
            return Err(NotFound::Nothing);
        }
        let was_attached = state.knows(target);
        let mut all = state
            .gateways
            .values_mut()
            .filter_map(|g| g.attached.as_mut());
        let chosen = match target {
            Target::Gateway(id) => all.find(|a| a.description.id == *id),
            Target::Address(address) => all
                .filter(|a| a.description.addresses.contains(address))
                .reduce(less_loaded),
            Target::Any => all.reduce(less_loaded),
        };
        let chosen = chosen.ok_or(if was_attached {
            NotFound::Away
        } else {
            NotFound::NotThat
        })?;
        chosen.expected = chosen.expected.saturating_add(1);
        Ok(chosen.description.clone())
    }

    /// The attached gateways, by id.
    pub(super) fn list(&self) -> Vec<Listed> {
        let state = self.state();
        let attached = state.gateways.values().filter_map(|g| g.attached.as_ref());
        let mut listed: Vec<_> = attached
            .map(|attached| Listed {
                description: attached.description.clone(),
                seats: attached.reported,
                revision: attached.revision,
            })
            .collect();
        listed.sort_by(|a, b| a.description.id.cmp(&b.description.id));
        listed
    }

    /// The attached gateways on which the session has a seat, by id.
    pub(super) fn seats_of(&self, session: SessionId) -> Vec<GatewayId> {
        let state = self.state();
        let attached = state.gateways.values().filter_map(|g| g.attached.as_ref());
        let mut gateways: Vec<_> = attached
            .filter(|attached| attached.seats.contains(&session))
            .map(|attached| attached.description.id.clone())
            .collect();
        gateways.sort();
        gateways
    }

    /// Waits until every gateway that is attached now, or broke off with seats within the last five seconds, has acknowledged
    /// `revision`, for `patience` at most; whether they have.
    ///
    /// One whose stream has broken still has its seats: it counts as having acknowledged when it is back and has.
    pub(super) async fn acknowledged_by_all(&self, revision: Revision, patience: Duration) -> bool {
        let mut changes = self.changes.subscribe();
        let mut waiting = self.state().to_wait_for(self.clock.now());
        let all = async {
            loop {
                changes.borrow_and_update();
                {
                    let state = self.state();
                    waiting.retain(|id| !state.has_acknowledged(id, revision));
                }
                if waiting.is_empty() || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn less_loaded<'a>(a: &'a mut Attached, b: &'a mut Attached) -> &'a mut Attached {
    let tie = !a.is_less_loaded_than(b) && !b.is_less_loaded_than(a);
    // Ties go by id, so that the same state gives the same answer.
    let first = a.is_less_loaded_than(b) || (tie && a.description.id < b.description.id);
    if first { a } else { b }
}

impl Attached {
    /// How many more seats may be remembered, with `known` in all.
    fn room_beside(&self, known: usize) -> usize {
        let capacity = usize::try_from(self.description.capacity).unwrap_or(usize::MAX);
        capacity
            .saturating_sub(self.seats.len())
            .min(KNOWN_SEATS.saturating_sub(known))
    }
}

impl State {
    fn attached(&mut self, id: AttachmentId) -> Option<&mut Attached> {
        let gateway = self.by_attachment.get(&id)?;
        self.gateways.get_mut(gateway)?.attached.as_mut()
    }

    /// Whether the gateway that `target` names is known, attached or not.
    fn knows(&self, target: &Target) -> bool {
        match target {
            Target::Gateway(id) => self.gateways.contains_key(id),
            Target::Address(address) => self
                .gateways
                .values()
                .any(|g| g.addresses.contains(address)),
            Target::Any => false,
        }
    }

    /// The gateways that are attached, or have seats and were so a moment ago.
    fn to_wait_for(&self, now: Instant) -> Vec<GatewayId> {
        let is_awaited = |gateway: &Gateway| match gateway.missed_since {
            Some(since) => now.saturating_duration_since(since) <= MISSED,
            None => gateway.attached.is_some(),
        };
        let awaited = self.gateways.iter().filter(|(_, g)| is_awaited(g));
        awaited.map(|(id, _)| id.clone()).collect()
    }

    fn has_acknowledged(&self, gateway: &GatewayId, revision: Revision) -> bool {
        self.gateways
            .get(gateway)
            .and_then(|g| g.attached.as_ref())
            .is_some_and(|attached| attached.revision >= revision)
    }

    fn detach_current(&mut self, gateway: &GatewayId) {
        let Some(old) = self
            .gateways
            .get_mut(gateway)
            .and_then(|g| g.attached.take())
        else {
            return;
        };
        self.by_attachment.remove(&old.id);
        self.known_seats -= old.seats.len();
        old.replaced.cancel();
    }

    /// Forgets gateways that have gone if there are too many.
    fn make_room_for(&mut self, gateway: &GatewayId) -> Result<(), AttachRefusal> {
        if self.gateways.len() >= MAX_GATEWAYS && !self.gateways.contains_key(gateway) {
            self.gateways.retain(|_, g| g.attached.is_some());
            if self.gateways.len() >= MAX_GATEWAYS {
                tracing::warn!(gateway = %gateway, "too many gateways are attached");
                return Err(AttachRefusal::NotReady);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
