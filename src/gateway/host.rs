//! The gateway as its control channel sees it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use super::shared::Shared;
use crate::{
    clock::Timestamp,
    control::{
        CarriedKey, Drain, GatewayDescription, GatewayHost, LiveSeat, Revocation, RevocationRange,
        SeatReport,
    },
    id::{Incarnation, Lineage, Revision, SessionId},
    seat::{EndReason, Revoked},
    token::TransportKey,
};

/// The gateway's end of the control channel's host.
pub(super) struct Host {
    pub(super) shared: Arc<Shared>,
    pub(super) incarnation: Incarnation,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) server_name: String,
    pub(super) is_attached: watch::Sender<bool>,
}

impl GatewayHost for Host {
    fn describe(&self) -> GatewayDescription {
        // Told herewith, so that no report need say it again.
        let told = self.shared.take_changed_certificates();
        GatewayDescription {
            id: self.shared.id.clone(),
            incarnation: self.incarnation,
            addresses: self.addresses.clone(),
            server_name: self.server_name.clone(),
            certificate_sha256: told.unwrap_or_else(|| self.shared.certificates()),
            capacity: self.shared.seats.capacity(),
        }
    }

    fn live_seats(&self) -> Vec<LiveSeat> {
        // From here on the journal collects: a seat that changes while the list is made is in one, the other, or both.
        self.shared.journal.set_attached(true);
        let mut seats = Vec::with_capacity(self.shared.seats.len());
        self.shared.seats.live_seats(|seat| {
            seats.push(LiveSeat {
                session: seat.session,
                player: seat.player,
                player_generation: seat.player_generation,
            });
        });
        seats
    }

    fn attached(&self, time: Timestamp, idle_timeout: Duration) {
        self.shared.clock.observe(time);
        self.shared.seats.set_idle(idle_timeout);
        self.shared.heard_of_sidecar(self.shared.clock.wall());
        self.shared.set_attached(true);
        self.is_attached.send_replace(true);
        info!(gateway = %self.shared.id, "attached to the sidecar");
    }

    fn detached(&self) {
        self.shared.journal.set_attached(false);
        self.shared.set_attached(false);
        // Also after an attempt that failed: that is told once.
        if self.is_attached.send_replace(false) {
            warn!(gateway = %self.shared.id, "detached from the sidecar; seats in play go on");
        }
    }

    fn install_keys(&self, keys: &[CarriedKey]) {
        let keys: Vec<TransportKey> = keys
            .iter()
            .filter_map(|carried| match <[u8; 32]>::try_from(&*carried.key) {
                Ok(bytes) => Some(TransportKey::from_bytes(&bytes)),
                Err(_) => {
                    error!(
                        epoch = carried.epoch,
                        "the sidecar sent a transport key of the wrong length; ignored"
                    );
                    None
                }
            })
            .collect();
        info!(gateway = %self.shared.id, keys = keys.len(), "transport keys installed");
        self.shared.keys_mut().replace(keys);
    }

    fn reset_log(&self, lineage: Lineage, revision: Revision, dead: &[SessionId]) {
        let now = self.shared.clock.wall();
        self.shared.change_revocations(|log| {
            log.reset(lineage, revision);
            for session in dead {
                log.apply_session(*session, now);
            }
        });
        for session in dead {
            self.shared
                .seats
                .end_session(*session, EndReason::SessionRevoked);
        }
    }

    fn apply_revocations(&self, range: &RevocationRange) {
        let now = self.shared.clock.wall();
        // Log before seats: an admission that misses the seats' ending sees the log when it looks again.
        let events = range.events.iter().map(|event| match *event {
            Revocation::Session(session) => Revoked::Session(session),
            Revocation::Player(player, generation) => Revoked::Player(player, generation),
        });
        let applied = self
            .shared
            .change_revocations(|log| log.apply(range.from, range.to, events, now));
        if let Err(error) = applied {
            // The control channel has checked the range; what it names is ended all the same.
            error!(%error, "a range of the revocation log does not follow");
        }
        for event in &range.events {
            match *event {
                Revocation::Session(session) => {
                    self.shared
                        .seats
                        .end_session(session, EndReason::SessionRevoked);
                }
                Revocation::Player(player, generation) => {
                    self.shared.seats.end_player_before(
                        player,
                        generation,
                        EndReason::SessionRevoked,
                    );
                }
            }
        }
    }

    fn idle_moved(&self, sessions: &[(SessionId, Timestamp)]) {
        for (session, active_at) in sessions {
            self.shared.seats.extend_idle(*session, *active_at);
        }
    }

    fn drain(&self, drain: Drain) {
        match drain {
            Drain::Within(time) => {
                info!(gateway = %self.shared.id, within = ?time, "drains: nobody is admitted any more");
                let now = self.shared.clock.wall();
                self.shared.start_draining(now.after(time));
            }
            Drain::Cancel => {
                info!(gateway = %self.shared.id, "drains no more");
                self.shared.cancel_draining();
            }
        }
    }

    fn heartbeat(&self, time: Timestamp, head: Revision) {
        self.shared.clock.observe(time);
        let now = self.shared.clock.wall();
        self.shared.heard_of_sidecar(now);
        self.shared.note_log_head(head, now);
    }

    fn take_report(&self, report: &mut SeatReport) {
        self.shared.journal.take(report);
        report.seats = u32::try_from(self.shared.seats.len()).unwrap_or(u32::MAX);
        report.draining = self.shared.is_draining();
        if let Some(certificates) = self.shared.take_changed_certificates() {
            report.certificate_sha256 = Some(certificates);
        }
        let (lost, more) = self.shared.events.take(&mut report.events);
        report.events_lost += lost;
        if more {
            self.shared.journal.ready().notify_one();
        }
    }

    fn report_ready(&self) -> Arc<Notify> {
        self.shared.journal.ready()
    }
}
