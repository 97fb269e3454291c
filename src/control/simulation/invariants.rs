//! What must hold, at every step and at the end.

use super::{
    CAPACITY, EVENTS_KEPT, PORTIONS, TOKEN_LIFE,
    keys::Step,
    network::PIPE,
    process::{Process, Token},
    world::World,
};
use crate::{
    control::{Revocation, SeatReport},
    id::{Incarnation, Revision},
};

impl World {
    /// Memory is bounded on both ends, and nobody who was told off is verified.
    pub(super) fn check_always(&self) -> Result<(), String> {
        let capacity = usize::try_from(CAPACITY).unwrap();
        for process in &self.processes {
            if let Some(seat) = process.seated_though_revoked() {
                return Err(format!(
                    "{seat:?} is verified after its revocation was applied"
                ));
            }
            let (lists, events) = process.link.waiting();
            // The seats of an attach; or what changed and was active since a report: a seat at most twice between two ticks, each of which
            // is at most three steps, over a stall.
            if lists > 32 * capacity || events > PORTIONS.events_held {
                return Err(format!(
                    "{lists} entries and {events} events wait in the link"
                ));
            }
            if process.events_kept() > EVENTS_KEPT {
                return Err("events pile up".into());
            }
        }
        for stream in &self.streams {
            let waiting = stream
                .machine
                .as_ref()
                .map_or(0, |machine| machine.waiting());
            // All seats dead, all of them active elsewhere, a range of three events, and what it asks.
            if waiting > 2 * capacity + 8 {
                return Err(format!("{waiting} entries wait in an attachment"));
            }
            // A repeated message takes two places.
            if stream.up.len() > PIPE + 1 || stream.down.len() > PIPE + 1 {
                return Err("messages pile up".into());
            }
        }
        if self.streams.len() > 32 {
            return Err("streams pile up".into());
        }
        Ok(())
    }

    pub(super) fn check_verdicts(&self, index: usize) -> Result<(), String> {
        match self
            .processes
            .get(index)
            .and_then(Process::seated_though_revoked)
        {
            Some(seat) => Err(format!("{seat:?} sits after its revocation was applied")),
            None => Ok(()),
        }
    }

    /// Nobody is admitted whom the log, as far as it is applied, revokes.
    pub(super) fn check_admission(&self, index: usize, token: &Token) -> Result<(), String> {
        let Some(process) = self.processes.get(index) else {
            return Ok(());
        };
        let seat = token.seat;
        if process.told.ends(&seat) {
            return Err(format!(
                "{seat:?} is admitted after its revocation was applied"
            ));
        }
        let (lineage, head) = (process.log.lineage(), process.log.head());
        if token.revision > head {
            return Err(format!(
                "a token of {} is admitted at {head}",
                token.revision
            ));
        }
        let store = &self.sidecar.store;
        let revokes = |event: &&Revocation| match **event {
            Revocation::Session(session) => session == seat.session,
            Revocation::Player(player, generation) => {
                player == seat.player && seat.player_generation < generation
            }
        };
        if lineage == Some(store.lineage)
            && let Some(event) = store.events_between(Revision(0), head).find(revokes)
        {
            return Err(format!("{seat:?} is admitted, and {event:?} is covered"));
        }
        Ok(())
    }

    /// An acknowledgement is a promise: all that it covers is applied.
    pub(super) fn acknowledged(&mut self, stream: u64, revision: Revision) -> Result<(), String> {
        let Some(attached) = self.sidecar.current(stream) else {
            return Ok(());
        };
        attached.acknowledged = revision;
        self.tally.acknowledged += 1;
        let incarnation = attached.incarnation;
        let Some(process) = self.processes.iter().find(|p| p.incarnation == incarnation) else {
            return Ok(());
        };
        let store = &self.sidecar.store;
        if process.log.lineage() != Some(store.lineage) {
            return Err(format!(
                "{revision} of a log that was never begun is acknowledged"
            ));
        }
        let head = process.log.head();
        if revision > head {
            return Err(format!("{revision} is acknowledged, {head} is applied"));
        }
        let mut promised = store.events_between(process.base, revision);
        match promised.find(|event| !process.told.covers(event)) {
            Some(event) => Err(format!("{event:?} is acknowledged and not applied")),
            None => Ok(()),
        }
    }

    /// Events are told in order, each once, and what is not told is counted.
    pub(super) fn check_events(
        &mut self,
        owner: Incarnation,
        report: &SeatReport,
    ) -> Result<(), String> {
        self.tally.explained += report.events.len() as u64;
        self.tally.explained_lost += report.events_lost;
        let Some(process) = self.processes.iter().find(|p| p.incarnation == owner) else {
            return Ok(());
        };
        let numbers = report.events.iter().map(|event| event.at.0);
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err("events out of order".into());
        }
        let made = process.events_made;
        match report.events.last() {
            Some(last) if last.at.0 > made => Err("an event that never was".into()),
            _ if report.events_lost > made => Err("more events are lost than there were".into()),
            _ => Ok(()),
        }
    }

    /// The log is applied to its head, under the keys of this process, and nobody sits who is dead.
    pub(super) fn check_log(&mut self) -> Result<(), String> {
        let (store, keys) = {
            let incarnation = self.newest().incarnation;
            (&self.sidecar.store, self.sidecar.keys_for(incarnation))
        };
        let process = self.processes.last().ok_or("no process")?;
        let (position, log) = (process.link.position(), store.log_state());
        let at_head = position.is_some_and(|p| (p.lineage, p.revision) == (log.lineage, log.head));
        let applied = (process.log.lineage(), process.log.head()) == (Some(log.lineage), log.head);
        if !(process.link.is_attached() && at_head && applied) {
            return Err(format!("{position:?} after healing, the log is at {log:?}"));
        }
        let mut missing = store.events_after(process.base);
        if let Some(event) = missing.find(|event| !process.told.covers(event)) {
            return Err(format!("{event:?} is in the log and not applied"));
        }
        let epochs: Vec<_> = keys
            .iter()
            .map(|key| (key.epoch, process.incarnation))
            .collect();
        if !self.is_hostile() && process.keys != epochs {
            return Err(format!(
                "keys {:?} after healing, {epochs:?} are in force",
                process.keys
            ));
        }
        if let Some(seat) = process.live().iter().find(|seat| store.is_dead(seat)) {
            return Err(format!("{seat:?} sits although it is dead"));
        }
        Ok(())
    }

    /// The sidecar knows who sits, and nobody else; and that everything is applied.
    pub(super) fn check_seats(&mut self) -> Result<(), String> {
        let process = self.processes.last().ok_or("no process")?;
        let attached = self.sidecar.attached.as_ref().ok_or("not attached")?;
        let live = process.live();
        if !live
            .iter()
            .map(|seat| seat.session)
            .eq(attached.known.iter().copied())
        {
            return Err(format!("{live:?} sit, {:?} are known", attached.known));
        }
        let (acknowledged, head) = (attached.acknowledged, self.sidecar.store.head());
        if acknowledged != head {
            return Err(format!("{acknowledged} acknowledged of {head}"));
        }
        if attached.certificates != process.certificates {
            return Err("the sidecar knows other certificates".into());
        }
        let drained = (process.draining, attached.draining);
        if drained != (self.sidecar.wants_drained, self.sidecar.wants_drained) {
            return Err(format!("draining and known as draining: {drained:?}"));
        }
        Ok(())
    }

    /// On a stream that is left in peace, what the sidecar orders arrives.
    pub(super) fn check_orders(&mut self) -> Result<(), String> {
        let drained = !self.sidecar.wants_drained;
        self.sidecar.order_drain(drained);
        let newest = self.sidecar.masters.epochs().max();
        let sessions: Vec<_> = self
            .newest()
            .live()
            .iter()
            .map(|seat| seat.session)
            .collect();
        let mut moved = Vec::new();
        for session in sessions {
            let at = self
                .sidecar
                .active_elsewhere(session)
                .ok_or("unknown seat")?;
            moved.push((session, at));
        }
        self.pass(std::time::Duration::from_secs(3))?;
        self.check_log()?;
        self.check_seats()?;
        let process = self.newest();
        if process.keys.iter().map(|(epoch, _)| *epoch).max() != newest {
            return Err("the newest key has not arrived".into());
        }
        for (session, at) in moved {
            if process.idle_moved.get(&session) != Some(&at) {
                return Err(format!(
                    "{session} was active elsewhere, and nobody was told"
                ));
            }
        }
        Ok(())
    }

    /// A gateway never lacks a key that a sidecar seals with: it opens what is made for it from its first answer on, for as long as the token
    /// lives.
    pub(super) fn check_key(&self, index: usize, token: &Token) -> Result<(), String> {
        let Some(process) = self.processes.get(index) else {
            return Ok(());
        };
        let was_answered = !process.keys.is_empty();
        let is_alive = self.now < token.minted_at + TOKEN_LIFE;
        if was_answered && is_alive && !self.is_hostile() {
            let (epoch, held) = (token.epoch, &process.keys);
            return Err(format!(
                "a token of epoch {epoch} is refused by who holds {held:?}"
            ));
        }
        Ok(())
    }

    /// On a stream that is left in peace a rotation comes to its end, as soon as the last token under the old key has expired.
    pub(super) fn check_rotation(&mut self) -> Result<(), String> {
        // One may be under way.
        let before = self.sidecar.masters.current;
        let mut retired = 0;
        for _ in 0..60 {
            if self.sidecar.rotate_keys(self.now) == Some(Step::Retired) {
                retired += 1;
            }
            if retired == 2 {
                break;
            }
            self.pass(std::time::Duration::from_millis(500))?;
        }
        let current = self.sidecar.masters.current;
        if retired < 2 || current == before {
            return Err(format!("no rotation from epoch {before} to {current}"));
        }
        self.pass(std::time::Duration::from_secs(1))?;
        let epochs: Vec<_> = self.newest().keys.iter().map(|(epoch, _)| *epoch).collect();
        if epochs != [current] {
            return Err(format!("{epochs:?} are held after a rotation to {current}"));
        }
        Ok(())
    }

    /// Whether an end may be told what the other one has not said.
    pub(super) fn is_hostile(&self) -> bool {
        self.was_hostile
    }
}
