//! How connections come in: past the gate into the room of unfinished handshakes, from there into the room where Hello is awaited,
//! and out of either when their time is over or their place is needed.

use std::{sync::atomic::Ordering, time::Instant};

use quinn_proto::{ConnectionHandle, EndpointEvent, Incoming};

use super::{
    Core,
    buckets::Prefix,
    gate::{InFlight, Origin, Verdict, share},
    link::{Link, LinkId, Stage},
};
use crate::{gateway::certificates::Served, wire::CloseCode};

impl Core {
    /// What happens to a new connection before any cryptography of its handshake.
    ///
    /// Whoever has to make room does so only once the newcomer's first packet has turned out to be one: a packet that merely looks
    /// right costs nobody a place.
    pub(super) fn gate(&mut self, now: Instant, incoming: Incoming) {
        let origin = Origin {
            prefix: Prefix::from(incoming.remote_address().ip()),
            is_validated: incoming.remote_address_validated(),
        };
        let in_flight = InFlight {
            all: self.handshaking.len(),
            of_prefix: self.handshaking.of(origin.prefix),
        };
        match self
            .gate
            .judge(&self.shared.prefixes, now, in_flight, origin)
        {
            Verdict::Accept => {
                self.begin(now, incoming, origin);
            }
            Verdict::AcceptDroppingOldest => {
                let oldest = self.handshaking.oldest_id();
                if self.begin(now, incoming, origin) {
                    self.displace(oldest);
                }
            }
            Verdict::AcceptDroppingOldestOfPrefix => {
                let oldest = self.handshaking.oldest_id_of(origin.prefix);
                if self.begin(now, incoming, origin) {
                    self.displace(oldest);
                }
            }
            Verdict::Retry => self.retry(incoming),
            Verdict::Ignore => {
                self.endpoint.ignore(incoming);
                self.count(|counters| &counters.rate_limited);
            }
        }
    }

    /// Begins the handshake; false if the first packet was none.
    fn begin(&mut self, now: Instant, incoming: Incoming, origin: Origin) -> bool {
        let Served {
            server,
            leaf_sha256,
        } = self.serving.clone();
        let mut response = Vec::new();
        match self
            .endpoint
            .accept(incoming, now, &mut response, Some(server))
        {
            Ok((ConnectionHandle(index), quic)) => {
                let id = LinkId {
                    index,
                    serial: self.next_serial,
                };
                self.next_serial = self.next_serial.wrapping_add(1);
                if index >= self.links.len() {
                    self.links.resize_with(index + 1, || None);
                }
                if let Some(place) = self.links.get_mut(index) {
                    *place = Some(Box::new(Link::new(id, quic, leaf_sha256)));
                }
                // Under its prefix's name only if it has proved to be of that prefix.
                let prefix = origin.is_validated.then_some(origin.prefix);
                self.handshaking.enter(id, now, prefix);
                self.mark(id);
                true
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(transmit, response);
                }
                false
            }
        }
    }

    fn retry(&mut self, incoming: Incoming) {
        let mut response = Vec::new();
        match self.endpoint.retry(incoming, &mut response) {
            Ok(transmit) => {
                self.respond(transmit, response);
                self.count(|counters| &counters.retries);
            }
            // It has brought a Retry token already, so that it was not to be asked for one: never let it fall, that leaks.
            Err(error) => self.endpoint.ignore(error.into_incoming()),
        }
    }

    /// Drops an unfinished handshake because its place is needed.
    fn displace(&mut self, id: Option<LinkId>) {
        if let Some(id) = id {
            self.handshaking.leave(id);
            if self.forget(id) == Some(Stage::Handshaking) {
                self.count(|counters| &counters.handshakes_dropped);
            }
        }
    }

    /// Forgets a handshake without a word: its peer has proved no address to say it to, or does not answer. How far it had come.
    fn forget(&mut self, id: LinkId) -> Option<Stage> {
        let link = self.take(id)?;
        self.endpoint
            .handle_event(ConnectionHandle(id.index), EndpointEvent::drained());
        Some(link.stage)
    }

    /// The handshake is done, which proves the address: Hello is awaited. At the cap of those who wait for the same, and at the
    /// prefix's share of it, the oldest goes.
    pub(super) fn await_hello(&mut self, link: &mut Link, now: Instant) {
        self.handshaking.leave(link.id);
        link.stage = Stage::AwaitingHello;
        link.is_connected = true;
        let prefix = Prefix::from(link.quic.remote_address().ip());
        let cap = self.shared.limits.awaiting_hello;
        if self.awaiting_hello.of(prefix) >= share(cap) {
            if let Some(oldest) = self.awaiting_hello.pop_oldest_of(prefix) {
                self.refuse(now, oldest, CloseCode::AdmissionTimeout, "prefix_full");
            }
        } else if self.awaiting_hello.len() + self.parking.len() >= cap {
            self.displace_waiting(now);
        }
        self.awaiting_hello.enter(link.id, now, Some(prefix));
    }

    /// Closes the one who has waited longest, be it for its own Hello or for the log.
    fn displace_waiting(&mut self, now: Instant) {
        let parked_is_older = match (self.parking.oldest(), self.awaiting_hello.oldest()) {
            (Some(parked), Some(silent)) => parked < silent,
            (parked, _) => parked.is_some(),
        };
        if parked_is_older {
            self.refuse_oldest_parked(now);
        } else if let Some(oldest) = self.awaiting_hello.pop_oldest() {
            self.refuse(now, oldest, CloseCode::AdmissionTimeout, "hello_room_full");
        }
    }

    /// Lets those go whose time in their room is over.
    pub(super) fn expire_waiting(&mut self, now: Instant) {
        let limits = (
            self.shared.limits.handshake_timeout,
            self.shared.limits.hello_timeout,
        );
        while let Some(id) = self.handshaking.pop_older(now, limits.0) {
            if self.forget(id) == Some(Stage::Handshaking) {
                self.count(|counters| &counters.handshake_timeouts);
            }
        }
        while let Some(id) = self.awaiting_hello.pop_older(now, limits.1) {
            self.refuse(now, id, CloseCode::AdmissionTimeout, "no_hello");
        }
    }

    /// When the next one's time in its room is over.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let limits = &self.shared.limits;
        let handshake = self.handshaking.oldest();
        let hello = self.awaiting_hello.oldest();
        super::earlier(
            handshake.map(|since| since + limits.handshake_timeout),
            hello.map(|since| since + limits.hello_timeout),
        )
    }

    /// The link is of no room any more: closed, or gone.
    ///
    /// A handshake that failed stays in its room until quinn-proto has drained it, for seconds: it takes memory as well as one that
    /// may still succeed, and whoever fails them on purpose is to reach the high-water mark with them.
    pub(super) fn leave_rooms(&mut self, link: &Link) {
        match link.stage {
            Stage::AwaitingHello => self.awaiting_hello.leave(link.id),
            Stage::AwaitingLog => self.parking.leave(link.id),
            Stage::Handshaking | Stage::Seated(_) | Stage::Closed => {}
        }
    }

    /// A link that is about to be closed, or is lost, without ever having had a seat. It takes memory until quinn-proto has drained it,
    /// three probe timeouts, into which the peer's own `max_ack_delay` (up to 16 s, RFC 9000, section 18.2) counts: too long
    /// to be its choice alone. Of more than [`Limits::refused`](crate::gateway::Limits::refused) the oldest is forgotten; it was told long ago.
    pub(super) fn keep_refused(&mut self, link: &Link, now: Instant) {
        if matches!(link.stage, Stage::AwaitingHello | Stage::AwaitingLog) {
            if self.refused.len() >= self.shared.limits.refused
                && let Some(oldest) = self.refused.pop_oldest()
            {
                self.forget(oldest);
            }
            self.refused.enter(link.id, now, None);
        }
    }

    fn count(
        &self,
        counter: impl Fn(&crate::gateway::metrics::Counters) -> &std::sync::atomic::AtomicU64,
    ) {
        counter(&self.shared.counters).fetch_add(1, Ordering::Relaxed);
    }
}
