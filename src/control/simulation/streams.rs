//! The sidecar's end of each step: streams are served, and what their machines ask is answered.

use std::time::Duration;

use rand::Rng;

use super::{network::Stream, world::World};
use crate::control::{
    AttachRefusal,
    attachment::{Action, EndReason, Registered},
    link::DetachReason,
    message::{FromGateway, FromSidecar},
};

impl World {
    pub(super) fn serve_streams(&mut self) -> Result<(), String> {
        let mut streams = std::mem::take(&mut self.streams);
        let mut replaced = Vec::new();
        for stream in &mut streams {
            self.serve_stream(stream, &mut replaced)?;
        }
        for stream in streams.iter_mut().filter(|s| replaced.contains(&s.id)) {
            if let Some(machine) = &mut stream.machine {
                machine.replaced();
            }
            self.act(stream)?;
        }
        let is_present =
            |stream: &Stream| self.processes.iter().any(|p| p.present == Some(stream.id));
        streams.retain(|stream| stream.machine.is_some() || is_present(stream));
        self.streams = streams;
        Ok(())
    }

    fn serve_stream(&mut self, stream: &mut Stream, replaced: &mut Vec<u64>) -> Result<(), String> {
        let now = self.now;
        let Some(machine) = &mut stream.machine else {
            return Ok(());
        };
        machine.timer(now);
        machine.head_moved(self.sidecar.store.head());
        if stream.sidecar_notices.is_some_and(|at| now >= at) && stream.up.len() == 0 {
            machine.disconnected();
        }
        if self
            .sidecar
            .current(stream.id)
            .is_some_and(|a| std::mem::take(&mut a.ordered))
        {
            machine.orders_ready();
        }
        if stream.reporting_until.is_some_and(|until| now >= until) {
            stream.reporting_until = None;
            machine.reported(now);
        }
        self.act(stream)?;
        while stream.reporting_until.is_none()
            && (!stream.broken || stream.lingers)
            && stream.machine.is_some()
            && let Some(message) = stream.up.pop(now)
        {
            self.tally.messages_late += u64::from(stream.broken);
            self.tally.seat_portions +=
                u64::from(matches!(message, FromGateway::AttachSeats { .. }));
            if let Some(machine) = &mut stream.machine {
                machine.received(now, message);
            }
            self.act(stream)?;
        }
        replaced.extend(self.answer(stream)?);
        self.act(stream)?;
        if let Some(machine) = &mut stream.machine {
            let time = self.sidecar.clock.wall();
            while stream.down.has_room()
                && let Some(message) = machine.poll_transmit(time)
            {
                self.tally.dead_portions +=
                    u64::from(matches!(message, FromSidecar::SnapshotDead { .. }));
                if !stream.broken {
                    let (rng, tally) = (&mut self.rng, &mut self.tally);
                    stream.down.push(now, message, self.conduct, rng, tally);
                }
            }
        }
        self.act(stream)
    }

    fn act(&mut self, stream: &mut Stream) -> Result<(), String> {
        let now = self.now;
        while let Some(machine) = &mut stream.machine
            && let Some(action) = machine.poll_action()
        {
            match action {
                Action::Register | Action::FindDead | Action::ReadLog(_) => {
                    if stream.asked.is_some() {
                        return Err("two questions at once".into());
                    }
                    let busy = Duration::from_millis(self.rng.random_range(0..100));
                    stream.asked = Some((now + busy, action));
                }
                Action::Report(report) => {
                    let busy = Duration::from_millis(self.rng.random_range(0..30));
                    stream.reporting_until = Some(now + busy);
                    self.check_events(stream.owner, &report)?;
                    self.sidecar.report(stream.id, &report);
                }
                Action::TakeOrders => machine.ordered(self.sidecar.take_orders(stream.id)),
                Action::Acknowledged(revision) => self.acknowledged(stream.id, revision)?,
                Action::KeysHeld(held) => self.sidecar.keys_held(stream.id, held),
                Action::End(reason) => {
                    self.tally_end(reason)?;
                    stream.machine = None;
                    self.sidecar.detach(stream.id);
                    if !stream.broken {
                        stream.broken = true;
                        let at = now + Duration::from_millis(self.rng.random_range(0..50));
                        stream.gateway_notices = Some((at, seen_as(reason)));
                    }
                }
            }
        }
        Ok(())
    }

    fn tally_end(&mut self, reason: EndReason) -> Result<(), String> {
        let tally = &mut self.tally;
        match reason {
            EndReason::Replaced => tally.replaced += 1,
            EndReason::Silent => tally.silent += 1,
            EndReason::LogLost => tally.log_lost += 1,
            EndReason::Malformed | EndReason::Refused(AttachRefusal::Malformed) => {
                tally.malformed += 1;
                if !self.is_hostile() {
                    return Err("the gateway broke the protocol over a reliable stream".into());
                }
            }
            EndReason::Left
            | EndReason::Refused(_)
            | EndReason::AttachTimeout
            | EndReason::ShuttingDown => {}
        }
        Ok(())
    }

    /// Gives the answers of the sidecar's host that are due. Returns the stream that a registration replaces.
    fn answer(&mut self, stream: &mut Stream) -> Result<Option<u64>, String> {
        let Some(machine) = &mut stream.machine else {
            return Ok(None);
        };
        let Some((_, action)) = stream.asked.take_if(|(due, _)| self.now >= *due) else {
            return Ok(None);
        };
        let mut replaced = None;
        match (action, machine.presented()) {
            (Action::Register, Some(attach)) => {
                let incarnation = attach.gateway.incarnation;
                if !self.sidecar.store.attach_gateway(incarnation) {
                    machine.refused(AttachRefusal::Fenced);
                    return Ok(None);
                }
                if self.fenced.contains(&incarnation) {
                    return Err(format!("{incarnation} attaches after it was fenced off"));
                }
                self.fenced.clone_from(&self.sidecar.store.fenced);
                self.ever_fenced.extend(&self.sidecar.store.fenced);
                self.tally.attaches += 1;
                let (gateway, seats) = (&attach.gateway, &attach.seats);
                let draining = attach.draining;
                let (id, held) = (stream.id, &attach.keys);
                replaced = self.sidecar.register(id, gateway, seats, draining, held);
                let registered = Registered {
                    keys: self.sidecar.keys_for(incarnation),
                    idle_timeout: Duration::from_secs(3_600),
                    log: self.sidecar.store.log_state(),
                };
                machine.registered(self.now, registered);
                self.tally.continued += u64::from(machine.is_streaming());
            }
            (Action::FindDead, Some(attach)) => {
                self.tally.snapshots += 1;
                let store = &self.sidecar.store;
                let dead = attach.seats.iter().filter(|seat| store.is_dead(seat));
                let dead = dead.map(|seat| seat.session).collect();
                machine.dead_found(self.now, dead);
            }
            (Action::ReadLog(from), _) => {
                let limit = self.rng.random_range(1..4);
                machine.log_read(self.sidecar.store.log_after(from, limit));
            }
            _ => {}
        }
        Ok(replaced)
    }
}

/// What a gateway takes the end of its stream for, by its status.
fn seen_as(reason: EndReason) -> DetachReason {
    use crate::control::status::{reason_of, status_of};
    status_of(reason).map_or(DetachReason::Closed, |status| reason_of(&status))
}
