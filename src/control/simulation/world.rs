//! One step of time after the other: what players and operators do, and what breaks.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    PLAYERS, SKEW, STEP, TOKEN_LIFE,
    keys::Step,
    network::{Conduct, Stream},
    process::{Admission, Process, Token},
    sidecar::{RESTORE, Sidecar},
    tally::Tally,
};
use crate::{
    clock::{ManualTime, Timestamp},
    control::link::Fault,
    id::{Incarnation, Lineage, PlayerId, SessionId},
};

const START: Timestamp = Timestamp(1_700_000_000_000);

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) rng: ChaCha8Rng,
    pub(super) faults: bool,
    pub(super) conduct: Conduct,
    /// Whether operators wait for nobody, and a sidecar seals with whatever is newest.
    pub(super) rushes_keys: bool,
    /// How streams were before everything calmed down.
    pub(super) was_hostile: bool,
    pub(super) fault: Option<Fault>,
    pub(super) sidecar: Sidecar,
    /// The processes of the one gateway: the newest last, and older ones that nobody has stopped.
    pub(super) processes: Vec<Process>,
    /// The gateway machine's time, which is wrong, and steps.
    machine: ManualTime,
    pub(super) streams: Vec<Stream>,
    pub(super) next_stream: u64,
    tokens: Vec<Token>,
    sessions: u128,
    lineages: u128,
    incarnations: u128,
    steps: u64,
    /// By how much the sidecar's wall clock is off, in milliseconds.
    skew: i64,
    /// Processes that were fenced off, and may never attach again.
    pub(super) fenced: BTreeSet<Incarnation>,
    /// The same, with those that a restored sidecar has forgotten.
    pub(super) ever_fenced: BTreeSet<Incarnation>,
    pub(super) tally: Tally,
}

impl World {
    pub(super) fn new(seed: u64, conduct: Conduct, fault: Option<Fault>) -> Self {
        let now = crate::clock::Clock::system().now();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let machine = ManualTime::starting_at(START);
        machine.step_wall(rng.random_range(-3_600_000..3_600_000));
        let mut world = Self {
            now,
            rng,
            faults: true,
            conduct,
            rushes_keys: false,
            was_hostile: conduct == Conduct::Hostile,
            fault,
            sidecar: Sidecar::new(now, ManualTime::starting_at(START)),
            processes: Vec::new(),
            machine,
            streams: Vec::new(),
            next_stream: 0,
            tokens: Vec::new(),
            sessions: 0,
            lineages: 1,
            incarnations: 0,
            steps: 0,
            skew: 0,
            fenced: BTreeSet::new(),
            ever_fenced: BTreeSet::new(),
            tally: Tally::default(),
        };
        world.start_process();
        world
    }

    pub(super) fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.steps += 1;
            self.machine.advance(STEP);
            self.sidecar.time.advance(STEP);
            if self.faults {
                self.live()?;
                self.operate();
                self.suffer();
            }
            if self.steps.is_multiple_of(10) {
                self.sidecar.purge();
            }
            self.serve_streams()?;
            self.serve_processes()?;
            self.admit_waiting()?;
            if self.steps.is_multiple_of(3) {
                for process in &mut self.processes {
                    process.tick();
                }
            }
            self.check_always()?;
        }
        Ok(())
    }

    /// From now on nobody does anything, and nothing breaks. Operators end what older processes there still are.
    pub(super) fn calm(&mut self) {
        self.faults = false;
        self.conduct = Conduct::Reliable;
        self.sidecar.down_until = self.now;
        for index in 0..self.processes.len().saturating_sub(1) {
            self.abandon(index);
        }
        self.processes.drain(..self.processes.len() - 1);
        if let Some(process) = self.processes.last_mut() {
            process.cut_off_until = self.now;
        }
    }

    /// The process that players are sent to.
    pub(super) fn newest(&mut self) -> &mut Process {
        self.processes.last_mut().expect("there always is one")
    }

    /// What players do: log in, get tokens, join, play, leave.
    fn live(&mut self) -> Result<(), String> {
        let player = PlayerId(self.rng.random_range(0..PLAYERS));
        let recent = self.sessions.saturating_sub(30)..=self.sessions;
        let session = SessionId(self.rng.random_range(recent));
        match self.rng.random_range(0..1_000) {
            0..30 if self.sidecar_is_up() => {
                self.sidecar.store.log_in(SessionId(self.sessions), player);
                self.sessions += 1;
                self.tally.logins += 1;
            }
            30..110 => self.mint(session),
            110..200 if !self.tokens.is_empty() => {
                let which = self.rng.random_range(0..self.tokens.len());
                let token = self.tokens.swap_remove(which);
                let opens = |process: &Process| process.incarnation == token.incarnation;
                if let Some(index) = self.processes.iter().position(opens)
                    && let Some(process) = self.processes.get_mut(index)
                {
                    let admission = process.admit(self.now, &token);
                    self.judged(index, &token, admission)?;
                }
            }
            200..210 => {
                if let Some(session) = self.seated() {
                    self.newest().leave(session);
                }
            }
            210..350 => {
                if let Some(session) = self.seated() {
                    self.newest().touch(session);
                }
            }
            350..356 => {
                if let Some(session) = self.seated()
                    && self.sidecar.active_elsewhere(session).is_some()
                {
                    self.tally.idle_moved += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What operators and backends do: revoke, drain, rotate.
    fn operate(&mut self) {
        let at = self.sidecar.clock.wall();
        match self.rng.random_range(0..10_000) {
            0..150 if self.sidecar_is_up() => {
                let recent = self.sessions.saturating_sub(20)..=self.sessions;
                let session = SessionId(self.rng.random_range(recent));
                if self.sidecar.store.revoke_session(at, session) {
                    self.tally.revoked_sessions += 1;
                }
            }
            150..190 if self.sidecar_is_up() => {
                let player = PlayerId(self.rng.random_range(0..PLAYERS));
                self.sidecar.store.revoke_player(at, player);
                self.tally.revoked_players += 1;
            }
            190..196 if self.sidecar_is_up() => self.sidecar.order_drain(true),
            196..296 if self.sidecar_is_up() && self.sidecar.wants_drained => {
                self.sidecar.order_drain(false);
            }
            296..304 if self.sidecar_is_up() => self.rotate_keys(),
            304..312 => {
                let next = self.rng.random();
                self.newest().change_certificates(next);
                self.tally.certificates_changed += 1;
            }
            312..330 if self.sidecar_is_up() => {
                self.sidecar.backup = self.sidecar.store.clone();
            }
            330..370 if self.sidecar_is_up() => self.rotate_keys(),
            _ => {}
        }
    }

    fn rotate_keys(&mut self) {
        if self.rushes_keys {
            return self.sidecar.rush_keys(self.now);
        }
        match self.sidecar.rotate_keys(self.now) {
            Some(Step::Published) => self.tally.keys_published += 1,
            Some(Step::Promoted) => self.tally.keys_promoted += 1,
            Some(Step::Retired) => self.tally.keys_retired += 1,
            None => {}
        }
    }

    /// What networks and machines do.
    fn suffer(&mut self) {
        let now = self.now;
        match self.rng.random_range(0..10_000) {
            0..25 => self.break_stream(),
            25..33 => {
                let down = Duration::from_millis(self.rng.random_range(0..6_000));
                if self.rng.random_bool(0.5) {
                    self.begin_lineage();
                }
                self.restart_sidecar(down);
            }
            33..35 => self.restore_sidecar(),
            35..41 => self.replace_process(),
            41..46 => {
                let out = Duration::from_millis(self.rng.random_range(0..45_000));
                let index = self.rng.random_range(0..self.processes.len());
                if let Some(process) = self.processes.get_mut(index) {
                    process.cut_off_until = now + out;
                    self.tally.partitions += 1;
                    self.break_stream_of(index);
                }
            }
            46..61 => {
                let until = now + Duration::from_millis(self.rng.random_range(0..12_000));
                let down = self.rng.random_bool(0.5);
                if let Some(stream) = self.stream_of(self.processes.len() - 1) {
                    if down {
                        stream.down.stall(until);
                    } else {
                        stream.up.stall(until);
                    }
                    self.tally.stalls += 1;
                }
            }
            61..66 => self.step_clocks(),
            _ => {}
        }
    }

    pub(super) fn sidecar_is_up(&self) -> bool {
        self.now >= self.sidecar.down_until
    }

    fn mint(&mut self, session: SessionId) {
        let issued_at = self.sidecar.clock.wall();
        let Some(attached) = self.sidecar.attached.as_ref().filter(|a| !a.draining) else {
            return;
        };
        let incarnation = attached.incarnation;
        let held = if self.rushes_keys {
            Vec::new()
        } else {
            attached.held.clone()
        };
        let Some(epoch) = self.sidecar.masters.sealing(self.now, incarnation, &held) else {
            return;
        };
        self.tally.sealed_with_previous += u64::from(epoch != self.sidecar.masters.current);
        if let Some(seat) = self.sidecar.store.alive(session) {
            self.tally.minted += 1;
            self.tokens.push(Token {
                seat,
                incarnation,
                epoch,
                revision: self.sidecar.store.head(),
                issued_at,
                expires_at: issued_at.after(TOKEN_LIFE),
                minted_at: self.now,
            });
            // Players use their tokens, or lose them.
            if self.tokens.len() > 16 {
                self.tokens.remove(0);
            }
        }
    }

    fn seated(&mut self) -> Option<SessionId> {
        let seats = self.newest().live();
        let seat = seats.iter().choose(&mut self.rng)?;
        Some(seat.session)
    }

    fn admit_waiting(&mut self) -> Result<(), String> {
        for index in 0..self.processes.len() {
            let judged = match self.processes.get_mut(index) {
                Some(process) => process.admit_waiting(self.now),
                None => Vec::new(),
            };
            for (token, admission) in judged {
                self.judged(index, &token, admission)?;
            }
        }
        Ok(())
    }

    fn judged(&mut self, index: usize, token: &Token, admission: Admission) -> Result<(), String> {
        let tally = &mut self.tally;
        match admission {
            Admission::Seated { resumed } => {
                tally.admitted += 1;
                tally.resumed += u64::from(resumed);
                return self.check_admission(index, token);
            }
            Admission::Waits => tally.waited += 1,
            Admission::Key => {
                tally.refused_key += 1;
                return self.check_key(index, token);
            }
            Admission::Time => tally.refused_time += 1,
            Admission::Draining => tally.refused_draining += 1,
            Admission::Revoked => tally.refused_revoked += 1,
            Admission::TooOld => tally.refused_too_old += 1,
            Admission::NotYet => tally.refused_not_yet += 1,
            Admission::Full => tally.refused_full += 1,
        }
        Ok(())
    }

    fn begin_lineage(&mut self) {
        self.lineages += 1;
        self.sidecar.store.lineage = Lineage(self.lineages);
        self.tally.new_lineages += 1;
    }

    fn restart_sidecar(&mut self, down: Duration) {
        self.tally.sidecars_restarted += 1;
        self.sidecar.restart(self.now + down);
        for stream in &mut self.streams {
            stream.machine = None;
            stream.cut(self.now, &mut self.rng);
        }
    }

    /// The store goes back to the last backup: what happened since has not happened.
    fn restore_sidecar(&mut self) {
        self.tally.restores += 1;
        self.sidecar.store = self.sidecar.backup.clone();
        self.begin_lineage();
        let more = Duration::from_millis(self.rng.random_range(0..2_000));
        self.restart_sidecar(RESTORE + more);
        let store = &self.sidecar.store;
        self.fenced.clone_from(&store.fenced);
        for process in &mut self.processes {
            process.told.forget_undone(store);
        }
    }

    /// The gateway's process is killed, or left running beside its successor as one that was cut off may be.
    fn replace_process(&mut self) {
        let index = self.processes.len() - 1;
        let incarnation = self.newest().incarnation;
        let seen = self.sidecar.store.has_seen(incarnation);
        if seen && index == 0 && self.rng.random_bool(0.5) {
            self.tally.gateways_succeeded += 1;
            if self.rng.random_bool(0.5) {
                self.break_stream_of(index);
            }
        } else {
            self.tally.gateways_killed += 1;
            self.abandon(index);
            self.processes.pop();
        }
        self.start_process();
    }

    /// A process ends; a stream that was not registered yet ends with it.
    pub(super) fn abandon(&mut self, index: usize) {
        let Some(process) = self.processes.get(index) else {
            return;
        };
        let (incarnation, present) = (process.incarnation, process.present);
        let seen = self.sidecar.store.has_seen(incarnation);
        for stream in self.streams.iter_mut().filter(|s| s.owner == incarnation) {
            if Some(stream.id) == present {
                stream.cut(self.now, &mut self.rng);
            }
            stream.lingers &= seen;
            if !seen {
                stream.machine = None;
            }
        }
    }

    pub(super) fn start_process(&mut self) {
        self.incarnations += 1;
        let mut process = Process::new(
            self.now,
            self.machine.clock(),
            Incarnation(self.incarnations),
            self.rng.random(),
        );
        process.link.fault = self.fault;
        self.processes.push(process);
    }

    /// Machines' wall clocks step: the sidecar's within its skew, which the next start of its process takes over; the gateway's by any
    /// amount, which nobody may notice.
    fn step_clocks(&mut self) {
        self.tally.clocks_stepped += 1;
        let most = i64::try_from(SKEW.as_millis()).unwrap();
        let skew = self.rng.random_range(-most..=most);
        self.sidecar.time.step_wall(skew - self.skew);
        self.skew = skew;
        self.machine
            .step_wall(self.rng.random_range(-86_400_000..86_400_000));
    }

    pub(super) fn stream_of(&mut self, index: usize) -> Option<&mut Stream> {
        let present = self.processes.get(index)?.present?;
        self.streams.iter_mut().find(|stream| stream.id == present)
    }

    pub(super) fn break_stream(&mut self) {
        self.break_stream_of(self.processes.len() - 1);
    }

    fn break_stream_of(&mut self, index: usize) {
        let Some(present) = self.processes.get(index).and_then(|p| p.present) else {
            return;
        };
        if let Some(stream) = self.streams.iter_mut().find(|s| s.id == present) {
            stream.cut(self.now, &mut self.rng);
            self.tally.streams_broken += 1;
        }
    }
}
