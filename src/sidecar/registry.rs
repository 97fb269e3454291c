//! The gateways that are attached now: where they are, how full, who is on them, what they have acknowledged, and what they are to
//! be told.
//!
//! Which process of a gateway is the newest, and which session was minted to which gateway, the store knows, for it outlives this
//! process; here is what lasts as long as a stream.

mod attached;
mod choice;
mod elsewhere;
mod keys;
mod overview;
mod seats;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use crate::{
    clock::{Clock, Timestamp},
    control::{AttachRefusal, AttachmentId, Drain, GatewayDescription, Orders, SeatReport},
    id::{GatewayId, Revision, SessionId},
    token::KeyId,
};

use self::{
    attached::{Attached, MISSED, Ordered},
    elsewhere::Remote,
    seats::Seats,
};

pub(super) use self::{
    choice::{Chosen, NotFound, Target},
    keys::Holder,
    overview::{Arrival, Listed, Totals},
};

/// Gateways known at once, attached or gone a while ago. They come with certificates, so this bounds a mistake rather than an attack.
const MAX_GATEWAYS: usize = 1_024;

/// What a report came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reported {
    /// Sessions whose activity counts.
    pub(super) active: Vec<SessionId>,
    /// Sessions whose activity does not, since no token of theirs was minted for the gateway.
    pub(super) active_rejected: usize,
    /// Seats that are not known, for the same reason.
    pub(super) seats_rejected: usize,
}

/// The attached gateways.
#[derive(Debug)]
pub(super) struct Registry {
    state: Mutex<State>,
    clock: Clock,
    /// Until then, gateways that were attached before this process started may still be on their way back.
    settled_at: Instant,
    /// Counts changes of what `acknowledged_by_all` looks at.
    changes: watch::Sender<u64>,
    /// Counts the times that other sidecars' gateways were heard of, which it looks at, too.
    heard: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    gateways: HashMap<GatewayId, Gateway>,
    /// Those of other sidecars.
    elsewhere: HashMap<GatewayId, Remote>,
    by_attachment: HashMap<AttachmentId, GatewayId>,
    last_attachment: u64,
    seats: Seats,
}

/// A gateway by its id.
#[derive(Debug, Default)]
struct Gateway {
    attached: Option<Attached>,
    /// Where it was last attached, for those who ask while it is not.
    addresses: Vec<SocketAddr>,
    /// When its stream broke off while it had seats; none while it is attached.
    missed_since: Option<Instant>,
    /// What its process is to be told, and has not yet confirmed.
    ordered: Option<Ordered>,
}

impl Gateway {
    /// Whether no tokens are to be minted for it. An order to admit again is not so before the gateway says so.
    fn is_draining(&self) -> bool {
        self.attached.as_ref().is_some_and(|a| a.draining)
            || self.ordered.as_ref().is_some_and(Ordered::is_drain)
    }
}

impl Registry {
    /// An empty registry over a store without sessions, so without gateways that hold seats; `clock` tells how long a gateway has
    /// been away.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            state: Mutex::default(),
            settled_at: clock.now(),
            clock,
            changes: watch::Sender::new(0),
            heard: watch::Sender::new(0),
        }
    }

    /// An empty registry over a store that another one has worked with: gateways that have seats, and are not known here yet, are
    /// about to attach.
    pub(super) fn after_restart(clock: Clock) -> Self {
        Self {
            settled_at: clock.now() + MISSED,
            ..Self::new(clock)
        }
    }

    /// Attaches a gateway process that does not hold any keys yet: its first attach.
    #[cfg(test)]
    pub(super) fn attach(
        &self,
        description: &GatewayDescription,
        seats: &[SessionId],
    ) -> Result<AttachmentId, AttachRefusal> {
        self.attach_holding(description, seats, &[])
    }

    /// Attaches a gateway process, which must be the newest of its gateway, and detaches what was attached before it: an older
    /// stream of the same process, or an older process. `seats` are those of its seats whose sessions were minted to it; `keys` are
    /// those that it holds already.
    pub(super) fn attach_holding(
        &self,
        description: &GatewayDescription,
        seats: &[SessionId],
        keys: &[KeyId],
    ) -> Result<AttachmentId, AttachRefusal> {
        let mut state = self.state();
        state.make_room_for(&description.id)?;
        state.detach_current(&description.id);
        state.last_attachment += 1;
        let id = AttachmentId(state.last_attachment);
        state.by_attachment.insert(id, description.id.clone());
        let mut attached = Attached::new(id, description.clone(), keys);
        attached.reported = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        for session in seats {
            attached.open(*session, &mut state.seats);
        }
        let gateway = state.gateways.entry(description.id.clone()).or_default();
        gateway.ordered = gateway
            .ordered
            .and_then(|ordered| ordered.on_attach(description.incarnation));
        if gateway.ordered.is_some() {
            attached.orders.notify_one();
        }
        gateway.attached = Some(attached);
        gateway.addresses.clone_from(&description.addresses);
        gateway.missed_since = None;
        drop(state);
        self.changed();
        Ok(id)
    }

    /// The attachment's stream has ended. An attachment that has been replaced already ends nobody.
    pub(super) fn detach(&self, id: AttachmentId) {
        let mut state = self.state();
        if let Some(gateway) = state.by_attachment.get(&id).cloned() {
            let had_seats = state.attached(id).is_some_and(|a| a.has_seats());
            state.detach_current(&gateway);
            if let Some(gateway) = state.gateways.get_mut(&gateway) {
                gateway.missed_since = had_seats.then(|| self.clock.now());
            }
        }
        drop(state);
        self.changed();
    }

    /// Whose report it is, and the sessions in it of which no seat is known there: whether they were minted to the gateway is for
    /// the store to say. None if the attachment has ended.
    pub(super) fn strangers(
        &self,
        id: AttachmentId,
        report: &SeatReport,
    ) -> Option<(GatewayId, HashSet<SessionId>)> {
        let mut state = self.state();
        let attached = state.attached(id)?;
        let opened = report.opened.iter().map(|seat| seat.session);
        let told = report.events.iter().filter_map(|event| event.session);
        let strangers = opened
            .chain(report.active.iter().copied())
            .chain(told)
            .filter(|session| !attached.has_seat(*session))
            .collect();
        Some((attached.description.id.clone(), strangers))
    }

    /// Takes a report at `at`: who came and went, and who was active, which other gateways hear of. `foreign` are those of
    /// [`strangers`](Self::strangers) that were not minted to the gateway.
    ///
    /// Reports come one after the other, and a session stands in one list of each: so the last one that names a seat says how it
    /// is, however a report was split into messages.
    pub(super) fn report(
        &self,
        id: AttachmentId,
        report: &SeatReport,
        foreign: &HashSet<SessionId>,
        at: Timestamp,
    ) -> Reported {
        let now = self.clock.now();
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(gateway) = state.by_attachment.get(&id) else {
            return Reported::default();
        };
        let Some(gateway) = state.gateways.get_mut(gateway) else {
            return Reported::default();
        };
        let Some(attached) = gateway.attached.as_mut() else {
            return Reported::default();
        };
        // What a seat did before it ended counts.
        let mut active = report.active.clone();
        active.retain(|session| !foreign.contains(session));
        for session in &report.closed {
            attached.close(*session, &mut state.seats);
        }
        let mut seats_rejected = 0;
        for seat in &report.opened {
            if foreign.contains(&seat.session) {
                seats_rejected += 1;
            } else {
                attached.open(seat.session, &mut state.seats);
            }
        }
        attached.hear(report);
        gateway.ordered = gateway
            .ordered
            .filter(|ordered| ordered.is_outstanding(report.draining, now));
        let elsewhere = state.moved_elsewhere(id, &active);
        for (session, holder) in elsewhere {
            state.push_activity(holder, session, at);
        }
        Reported {
            active_rejected: report.active.len() - active.len(),
            active,
            seats_rejected,
        }
    }

    /// The gateway is to hear when these of its sessions were last active, wherever that was.
    pub(super) fn active_elsewhere(&self, id: AttachmentId, active: &[(SessionId, Timestamp)]) {
        let mut state = self.state();
        for (session, at) in active {
            if state.attached(id).is_some_and(|a| a.has_seat(*session)) {
                state.push_activity(id, *session, *at);
            }
        }
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

    /// Orders a gateway to drain, or to admit again; how many seats are taken there. From now on no tokens are minted for one that
    /// is to drain.
    pub(super) fn drain(&self, gateway: &GatewayId, drain: Drain) -> Result<u32, NotFound> {
        let mut state = self.state();
        let known = state.gateways.get_mut(gateway).ok_or(NotFound::NotThat)?;
        let attached = known.attached.as_ref().ok_or(NotFound::Away)?;
        let process = attached.description.incarnation;
        known.ordered = Some(Ordered::new(process, drain, self.clock.now()));
        attached.orders.notify_one();
        Ok(attached.reported)
    }

    /// Notified when there are orders for the attachment; never if it has ended.
    pub(super) fn orders_ready(&self, id: AttachmentId) -> Arc<Notify> {
        let orders = self.state().attached(id).map(|a| Arc::clone(&a.orders));
        orders.unwrap_or_default()
    }

    /// Takes the orders for the attachment.
    pub(super) fn take_orders(&self, id: AttachmentId) -> Orders {
        let now = self.clock.now();
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(gateway) = state.by_attachment.get(&id) else {
            return Orders::default();
        };
        let Some(gateway) = state.gateways.get_mut(gateway) else {
            return Orders::default();
        };
        let moved = gateway
            .attached
            .as_mut()
            .map(|a| std::mem::take(&mut a.idle_moved));
        Orders {
            // The host's to derive: see `take_key_order`.
            keys: None,
            idle_moved: moved.unwrap_or_default().into_iter().collect(),
            drain: gateway
                .ordered
                .as_mut()
                .and_then(|ordered| ordered.take(now)),
        }
    }

    /// Waits until every gateway that is attached now, or broke off with seats within the last five seconds, has acknowledged
    /// `revision`, for `patience` at most; whether they have.
    ///
    /// One whose stream has broken still has its seats: it counts as having acknowledged when it is back and has. In the first five
    /// seconds after a restart all of them are such: who is waited for is decided when those are over.
    pub(super) async fn acknowledged_by_all(&self, revision: Revision, patience: Duration) -> bool {
        let mut changes = self.changes.subscribe();
        let mut heard = self.heard.subscribe();
        let all = async {
            let unsettled = self.settled_at.saturating_duration_since(self.clock.now());
            if !unsettled.is_zero() {
                tokio::time::sleep(unsettled).await;
            }
            let mut waiting = self.state().to_wait_for(self.clock.now());
            loop {
                changes.borrow_and_update();
                heard.borrow_and_update();
                {
                    let state = self.state();
                    waiting.retain(|id| !state.has_acknowledged(id, revision));
                }
                if waiting.is_empty() {
                    return;
                }
                let changed = tokio::select! {
                    changed = changes.changed() => changed,
                    changed = heard.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    /// Watches who comes and goes, and who acknowledges what.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn attached(&mut self, id: AttachmentId) -> Option<&mut Attached> {
        let gateway = self.by_attachment.get(&id)?;
        self.gateways.get_mut(gateway)?.attached.as_mut()
    }

    /// The seats of these sessions at other attachments than `id`.
    fn moved_elsewhere(
        &self,
        id: AttachmentId,
        active: &[SessionId],
    ) -> Vec<(SessionId, AttachmentId)> {
        let of = |session: &SessionId| {
            let session = *session;
            let holders = self.seats.holders(session).iter();
            holders.map(move |holder| (session, *holder))
        };
        let all = active.iter().flat_map(of);
        all.filter(|(_, holder)| *holder != id).collect()
    }

    /// A gateway is to hear that a session with a seat there was active elsewhere.
    fn push_activity(&mut self, holder: AttachmentId, session: SessionId, at: Timestamp) {
        if let Some(attached) = self.attached(holder) {
            let known = attached.idle_moved.entry(session).or_insert(at);
            *known = at.max(*known);
            attached.orders.notify_one();
        }
    }

    /// The gateways that are attached, or have seats and were so a moment ago.
    fn to_wait_for(&self, now: Instant) -> Vec<GatewayId> {
        let is_awaited = |gateway: &Gateway| match gateway.missed_since {
            Some(since) => now.saturating_duration_since(since) <= MISSED,
            None => gateway.attached.is_some(),
        };
        let awaited = self.gateways.iter().filter(|(_, g)| is_awaited(g));
        let awaited = awaited.map(|(id, _)| id);
        awaited.chain(self.remote_ids()).cloned().collect()
    }

    fn has_acknowledged(&self, gateway: &GatewayId, revision: Revision) -> bool {
        self.gateways
            .get(gateway)
            .and_then(|g| g.attached.as_ref())
            .is_some_and(|attached| attached.revision >= revision)
            || self.has_acknowledged_elsewhere(gateway, revision)
    }

    fn detach_current(&mut self, gateway: &GatewayId) {
        let Some(mut old) = self
            .gateways
            .get_mut(gateway)
            .and_then(|g| g.attached.take())
        else {
            return;
        };
        self.by_attachment.remove(&old.id);
        old.close_all(&mut self.seats);
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
