//! Connections that have taken inputs and speak again with the tick's output.
//!
//! A packet with an input asks for an acknowledgement, and QUIC has 25 ms for it (RFC 9000, section 18.2: `max_ack_delay`). The tick's
//! answer comes sooner and takes it along. So there is nothing to send for such a packet when it comes, as a rule, and to ask for it costs
//! as much as to take the packet: at 1,000 clients x 30 Hz a tenth of all.

use std::time::{Duration, Instant};

use super::{
    Core,
    link::{Link, LinkId, Stage},
};

/// The longest rest: more than the time between two ticks at 60 Hz, and less than the 25 ms after which the client may believe its packet
/// lost. A game that ticks more slowly, or says nothing, has its clients' packets looked after so often.
const LONGEST: Duration = Duration::from_millis(20);

/// How long after a message the connection does not rest. What is on its way, and what waits for room in the congestion window, goes out
/// as acknowledgements come in, and not only once a tick.
const AFTER_MESSAGE: Duration = Duration::from_secs(1);

/// Who rests, and until when.
#[derive(Debug, Default)]
pub(super) struct Resting {
    links: Vec<LinkId>,
    until: Option<Instant>,
}

impl Resting {
    /// When all are to be woken at the latest.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Core {
    /// Lets the link rest, to which nothing has happened but that datagrams and acknowledgements came. False if it had better be asked
    /// for packets now.
    pub(super) fn rest(&mut self, link: &mut Link, now: Instant) -> bool {
        let may_rest = matches!(link.stage, Stage::Seated(_))
            && !link.sending
            && !link.has_written(now, AFTER_MESSAGE);
        if may_rest && !link.resting {
            link.resting = true;
            self.resting.links.push(link.id);
            self.resting.until.get_or_insert(now + LONGEST);
        }
        may_rest
    }

    /// Has all who rest asked for packets.
    pub(super) fn wake_resting(&mut self) {
        self.resting.until = None;
        let mut links = std::mem::take(&mut self.resting.links);
        for id in links.drain(..) {
            let Some(mut link) = self.take(id) else {
                continue;
            };
            link.resting = false;
            self.queue_sending(&mut link);
            if let Some(place) = self.links.get_mut(id.index) {
                *place = Some(link);
            }
        }
        self.resting.links = links;
    }
}
