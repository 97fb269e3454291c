//! The gateway's end of each step: links are served, and their effects carried out.

use std::time::Duration;

use rand::Rng;

use super::{
    network::{self, Stream},
    world::World,
};
use crate::control::{
    AttachRefusal,
    link::{DetachReason, Effect},
};

impl World {
    pub(super) fn serve_processes(&mut self) -> Result<(), String> {
        for index in 0..self.processes.len() {
            self.serve_process(index)?;
        }
        // A process that knows that it was replaced has nothing to do any more, once operators have seen it.
        let newest = self.newest().incarnation;
        self.processes
            .retain(|process| !process.fenced || process.incarnation == newest);
        if self.newest().fenced {
            // A restored sidecar knows an older process alone, and takes that for the newer one. Operators start another.
            self.tally.gateways_shut_out += 1;
            for index in 0..self.processes.len() {
                self.abandon(index);
            }
            self.processes.clear();
            self.start_process();
        }
        Ok(())
    }

    fn serve_process(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        let Some(process) = self.processes.get_mut(index) else {
            return Ok(());
        };
        if now >= process.busy_until {
            process.link.timer(now);
            self.carry_out(index)?;
            self.tell_news(index)?;
            self.hear(index)?;
        }
        let Self {
            processes,
            streams,
            rng,
            tally,
            conduct,
            ..
        } = self;
        let Some(process) = processes.get_mut(index) else {
            return Ok(());
        };
        if let Some(stream) = streams.iter_mut().find(|s| Some(s.id) == process.present) {
            while stream.up.has_room()
                && let Some(message) = process.link.poll_transmit()
            {
                if !stream.broken {
                    stream.up.push(now, message, *conduct, rng, tally);
                }
            }
        }
        Ok(())
    }

    fn tell_news(&mut self, index: usize) -> Result<(), String> {
        if let Some(process) = self.processes.get_mut(index)
            && std::mem::take(&mut process.has_news)
        {
            process.link.report_ready(self.now);
        }
        self.carry_out(index)
    }

    /// Gives the link what has arrived, until there is nothing more or the host is busy.
    fn hear(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        for _ in 0..network::PIPE {
            let arrived = |stream: &mut Stream| match stream.broken {
                true => None,
                false => stream.down.pop(now),
            };
            let Some(message) = self.stream_of(index).and_then(arrived) else {
                break;
            };
            let busy = self.faults && self.rng.random_bool(0.03);
            let pause = Duration::from_millis(self.rng.random_range(0..150));
            let Some(process) = self.processes.get_mut(index) else {
                break;
            };
            process.link.received(now, message);
            if busy {
                process.busy_until = now + pause;
                return Ok(());
            }
            self.carry_out(index)?;
        }
        let notices = self.stream_of(index).and_then(|s| s.gateway_notices);
        if let Some((at, reason)) = notices
            && now >= at
            && let Some(process) = self.processes.get_mut(index)
        {
            process.link.disconnected(now, reason);
            self.carry_out(index)?;
        }
        Ok(())
    }

    /// What came late, from a log that a restore has undone meanwhile, is not what the invariants hold a process to.
    fn forget_undone(&mut self, index: usize) {
        let store = &self.sidecar.store;
        if let Some(process) = self.processes.get_mut(index)
            && process.log.lineage() != Some(store.lineage)
        {
            process.told.forget_undone(store);
        }
    }

    fn carry_out(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        while let Some(process) = self.processes.get_mut(index)
            && let Some(effect) = process.link.poll_effect()
        {
            match effect {
                Effect::Connect if process.fenced => {
                    return Err("a process that was fenced off connects again".into());
                }
                Effect::Connect if now < self.sidecar.down_until || now < process.cut_off_until => {
                    process.link.disconnected(now, DetachReason::Unreachable);
                }
                Effect::Connect => self.connect(index),
                Effect::Disconnect {
                    reason,
                    was_attached,
                    retry_in,
                } => {
                    process.fenced = retry_in.is_none();
                    if was_attached {
                        process.detached();
                    }
                    self.disconnect(index, reason)?;
                }
                Effect::InstallKeys(keys) => process.install_keys(&keys)?,
                Effect::ResetLog {
                    lineage,
                    revision,
                    dead,
                } => {
                    self.tally.dead_named += dead.len() as u64;
                    process.reset_log(lineage, revision, &dead);
                    self.check_verdicts(index)?;
                    self.forget_undone(index);
                }
                Effect::Attached { time, .. } => process.clock.observe(time),
                Effect::Apply(range) => {
                    self.tally.events_applied += range.events.len() as u64;
                    self.tally.seats_revoked += process.apply(&range)? as u64;
                    self.check_verdicts(index)?;
                    self.forget_undone(index);
                }
                Effect::Heartbeat { time, head } => process.heartbeat(time, head),
                Effect::IdleMoved(sessions) => process.idle_moved(&sessions),
                Effect::Drain(drain) => {
                    process.drain(drain);
                    if process.draining {
                        self.tally.drains += 1;
                    } else {
                        self.tally.drains_cancelled += 1;
                    }
                }
                Effect::TakeReport => {
                    let report = process.take_report();
                    process.link.report(report);
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) {
        let now = self.now;
        let id = self.next_stream;
        self.next_stream += 1;
        let Some(process) = self.processes.get_mut(index) else {
            return;
        };
        let mut stream = Stream::new(id, process.incarnation, now);
        if self.faults && self.rng.random_bool(0.1) {
            // An attach that takes nearly as long as it may, while players come and go.
            let wait = Duration::from_millis(self.rng.random_range(0..10_000));
            if self.rng.random_bool(0.5) {
                stream.up.stall(now + wait);
            } else {
                stream.down.stall(now + wait);
            }
        }
        self.streams.push(stream);
        process.present = Some(id);
        let seats = process.list();
        process.link.connected(process.describe(), seats);
    }

    fn disconnect(&mut self, index: usize, reason: DetachReason) -> Result<(), String> {
        let tally = &mut self.tally;
        match reason {
            DetachReason::Gap => tally.gaps += 1,
            DetachReason::Behind => tally.behind += 1,
            DetachReason::Silent => tally.silent += 1,
            DetachReason::AttachTimeout => tally.attach_timeouts += 1,
            DetachReason::Violation => tally.violations += 1,
            DetachReason::Refused(AttachRefusal::Fenced) => tally.fenced += 1,
            DetachReason::Refused(_) | DetachReason::Unreachable | DetachReason::Closed => {}
        }
        if reason == DetachReason::Violation && !self.is_hostile() {
            return Err("the sidecar broke the protocol over a reliable stream".into());
        }
        let now = self.now;
        let Some(process) = self.processes.get_mut(index) else {
            return Ok(());
        };
        if process.fenced && !self.ever_fenced.contains(&process.incarnation) {
            return Err("a process is shut out that no newer one has replaced".into());
        }
        let present = process.present.take();
        if let Some(stream) = self.streams.iter_mut().find(|s| Some(s.id) == present) {
            stream.dropped(now, &mut self.rng);
        }
        Ok(())
    }
}
