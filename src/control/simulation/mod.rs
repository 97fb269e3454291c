//! Both machines against each other over a model network, from a seed: whatever is lost, broken or restarted, once that stops
//! the gateway has applied the log, its seats are known, and nothing that is revoked sits.

mod gateway;
mod network;
mod sidecar;

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;

use self::{
    gateway::{Gateway, Token},
    network::Stream,
    sidecar::{Sidecar, TOKEN_LIFE},
};
use super::{
    AttachRefusal, CarriedKey,
    attachment::{Action, EndReason, Registered},
    link::{DetachReason, Effect},
    message::FromSidecar,
};
use crate::{
    clock::Timestamp,
    id::{GatewayId, Incarnation, PlayerId, Revision, SessionId},
};

const STEP: Duration = Duration::from_millis(10);
const PLAYERS: u128 = 6;

fn gateway_id() -> GatewayId {
    "model".parse().unwrap()
}

/// Whether the gateway's end looks for gaps, or a fault is planted that lets them pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GapCheck {
    Present,
    Missing,
}

/// What a run went through, to know that the runs together go through everything.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    deltas: usize,
    snapshots: usize,
    gaps: usize,
    behind: usize,
    silent: usize,
    fenced: usize,
    log_lost: usize,
    applied: usize,
    ended_seats: usize,
}

struct World {
    now: Instant,
    rng: ChaCha8Rng,
    faults: bool,
    gap_check: GapCheck,
    gateway: Gateway,
    sidecar: Sidecar,
    streams: Vec<Stream>,
    next_stream: u64,
    /// The gateway's present stream.
    present: Option<u64>,
    tally: Tally,
}

/// What went wrong, in words.
type Outcome = Result<Tally, String>;

fn run(seed: u64, gap_check: GapCheck) -> Outcome {
    let now = Instant::now();
    let mut world = World {
        now,
        rng: ChaCha8Rng::seed_from_u64(seed),
        faults: true,
        gap_check,
        gateway: Gateway::new(now, Incarnation(1), seed),
        sidecar: Sidecar::new(now),
        streams: Vec::new(),
        next_stream: 0,
        present: None,
        tally: Tally::default(),
    };
    world.pass(Duration::from_secs(60))?;
    // First without a fault: whatever was lost on the stream that is left must be noticed by itself.
    world.faults = false;
    world.pass(Duration::from_secs(20))?;
    world.check_log()?;
    // A lost report cannot be noticed, since a stream does not lose one and live: attaching again heals it.
    world.break_present_stream();
    world.pass(Duration::from_secs(20))?;
    world.check_log()?;
    world.check_seats()?;
    Ok(world.tally)
}

impl World {
    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            if self.faults {
                self.live();
                self.suffer();
            }
            self.sidecar.purge(self.now);
            self.serve_streams()?;
            self.serve_gateway()?;
        }
        Ok(())
    }

    /// What users do: log in, get tokens, join, play, leave, and are revoked.
    fn live(&mut self) {
        let now = self.now;
        let player = PlayerId(self.rng.random_range(0..PLAYERS));
        let sessions = self.sidecar.sessions() as u128;
        let session = SessionId(self.rng.random_range(0..=sessions));
        let seated = self.gateway.seats.keys().copied().choose(&mut self.rng);
        match self.rng.random_range(0..100) {
            0..3 => {
                self.sidecar.log_in(player);
            }
            3..9 if now >= self.sidecar.down_until && self.sidecar.current.is_some() => {
                if let Some(seat) = self.sidecar.mint(session) {
                    let expires_at = now + TOKEN_LIFE;
                    self.gateway.tokens.push(Token { seat, expires_at });
                }
            }
            9..16 => {
                if !self.gateway.tokens.is_empty() {
                    let which = self.rng.random_range(0..self.gateway.tokens.len());
                    let token = self.gateway.tokens.swap_remove(which);
                    self.gateway.admit(now, &token);
                }
            }
            16..18 => self.sidecar.revoke_session(now, session),
            18 => self.sidecar.revoke_player(now, player),
            19 => {
                if let Some(session) = seated {
                    self.gateway.leave(now, session);
                }
            }
            20..30 => {
                if let Some(session) = seated {
                    self.gateway.touch(now, session);
                }
            }
            _ => {}
        }
    }

    /// What networks and machines do.
    fn suffer(&mut self) {
        match self.rng.random_range(0..10_000) {
            0..20 => {
                self.break_present_stream();
            }
            20..30 => self.restart_sidecar(),
            30..33 => {
                self.sidecar.new_lineage();
                self.restart_sidecar();
            }
            33..38 => {
                let incarnation = Incarnation(self.gateway.incarnation.0 + 1);
                let seed = self.rng.random();
                self.gateway = Gateway::new(self.now, incarnation, seed);
                // Half of the times the sidecar does not notice before the new process attaches.
                let notices = self.rng.random_bool(0.5).then_some(self.now);
                if let Some(stream) = self.present_stream() {
                    stream.broken = true;
                    stream.sidecar_notices = notices;
                }
                self.present = None;
            }
            38..50 => {
                let until = self.now + Duration::from_millis(self.rng.random_range(0..20_000));
                if let Some(stream) = self.present_stream() {
                    stream.down.stall(until);
                }
            }
            _ => {}
        }
    }

    fn restart_sidecar(&mut self) {
        self.sidecar.current = None;
        self.sidecar.known_seats.clear();
        self.sidecar.down_until = self.now + Duration::from_millis(self.rng.random_range(0..8_000));
        for stream in &mut self.streams {
            stream.machine = None;
            stream.kill(self.now, &mut self.rng);
        }
    }

    fn present_stream(&mut self) -> Option<&mut Stream> {
        let present = self.present?;
        self.streams.iter_mut().find(|stream| stream.id == present)
    }

    fn break_present_stream(&mut self) {
        let present = self.present;
        if let Some(stream) = self.streams.iter_mut().find(|s| Some(s.id) == present) {
            stream.kill(self.now, &mut self.rng);
        }
    }

    fn serve_gateway(&mut self) -> Result<(), String> {
        let now = self.now;
        self.gateway.link.timer(now);
        self.carry_out()?;
        for _ in 0..network::PIPE {
            let Some(stream) = self.present_stream() else {
                break;
            };
            let message = if stream.broken {
                None
            } else {
                stream.down.pop(now)
            };
            let Some(message) = message else { break };
            let message = self.planted(message);
            self.gateway.link.received(now, message);
            self.carry_out()?;
        }
        let notices = self.present_stream().and_then(|s| s.gateway_notices);
        if let Some((at, reason)) = notices
            && now >= at
        {
            self.gateway.link.disconnected(now, reason);
            self.carry_out()?;
        }
        let Self {
            gateway,
            rng,
            streams,
            ..
        } = self;
        if let Some(stream) = streams.iter_mut().find(|s| Some(s.id) == self.present) {
            while stream.up.has_room()
                && let Some(message) = gateway.link.poll_transmit()
            {
                if !stream.broken {
                    stream.up.push(now, message, self.faults, rng);
                }
            }
        }
        Ok(())
    }

    /// A link without the gap check would take any range as the next one: so it gets them as if they were.
    fn planted(&self, message: FromSidecar) -> FromSidecar {
        match (message, self.gateway.link.position()) {
            (FromSidecar::Revocations(mut range), Some(position))
                if self.gap_check == GapCheck::Missing =>
            {
                range.from = range.from.min(position.revision);
                FromSidecar::Revocations(range)
            }
            (message, _) => message,
        }
    }

    fn carry_out(&mut self) -> Result<(), String> {
        let now = self.now;
        while let Some(effect) = self.gateway.link.poll_effect() {
            match effect {
                Effect::Connect if now < self.sidecar.down_until => {
                    self.gateway
                        .link
                        .disconnected(now, DetachReason::Unreachable);
                }
                Effect::Connect => {
                    let id = self.next_stream;
                    self.next_stream += 1;
                    let mut stream = Stream::new(id, now);
                    if self.faults && self.rng.random_bool(0.1) {
                        // An attach that takes nearly as long as it may, while players come and go.
                        let wait = Duration::from_millis(self.rng.random_range(0..10_000));
                        stream.up.stall(now + wait);
                    }
                    self.streams.push(stream);
                    self.present = Some(id);
                    let seats = self.gateway.seats.values().copied().collect();
                    self.gateway.link.connected(self.gateway.describe(), seats);
                }
                Effect::Disconnect { reason, .. } => self.drop_present_stream(reason),
                Effect::InstallKeys(keys) => {
                    let key = keys.first().ok_or("no key")?;
                    let bytes = <[u8; 16]>::try_from(&*key.key).map_err(|_| "no incarnation")?;
                    self.gateway.keys_of = Some(Incarnation::from_bytes(bytes));
                }
                Effect::ResetLog {
                    lineage,
                    revision,
                    dead,
                } => {
                    self.tally.ended_seats += dead.len();
                    self.gateway.reset_log(now, lineage, revision, &dead);
                }
                Effect::Apply(range) => {
                    self.tally.applied += range.events.len();
                    self.gateway.apply(now, &range);
                    if let Some(seat) = self
                        .gateway
                        .seats
                        .values()
                        .find(|seat| self.gateway.dead_sessions.contains(&seat.session))
                    {
                        return Err(format!("{seat:?} sits after its revocation was applied"));
                    }
                }
                Effect::TakeReport => {
                    let report = self.gateway.take_report();
                    self.gateway.link.report(report);
                }
                Effect::Attached { .. } | Effect::Heartbeat { .. } => {}
            }
        }
        Ok(())
    }

    fn drop_present_stream(&mut self, reason: DetachReason) {
        match reason {
            DetachReason::Gap => self.tally.gaps += 1,
            DetachReason::Behind => self.tally.behind += 1,
            DetachReason::Silent => self.tally.silent += 1,
            _ => {}
        }
        let notices = self.now + Duration::from_millis(self.rng.random_range(0..50));
        if let Some(stream) = self.present_stream()
            && !stream.broken
        {
            stream.broken = true;
            stream.sidecar_notices = Some(notices);
        }
        self.present = None;
    }

    fn serve_streams(&mut self) -> Result<(), String> {
        let mut streams = std::mem::take(&mut self.streams);
        for stream in &mut streams {
            self.serve_stream(stream)?;
        }
        // Fencing reaches the other streams of the gateway.
        if let Some((current, _)) = self.sidecar.current {
            for stream in streams.iter_mut().filter(|stream| stream.id < current) {
                if let Some(machine) = &mut stream.machine {
                    machine.fenced();
                }
            }
        }
        let present = self.present;
        streams.retain(|stream| stream.machine.is_some() || Some(stream.id) == present);
        if streams.len() > 64 {
            return Err("streams pile up".into());
        }
        self.streams = streams;
        Ok(())
    }

    fn serve_stream(&mut self, stream: &mut Stream) -> Result<(), String> {
        let now = self.now;
        let Some(machine) = &mut stream.machine else {
            return Ok(());
        };
        machine.timer(now);
        machine.head_moved(self.sidecar.head());
        if stream.sidecar_notices.is_some_and(|at| now >= at) {
            machine.disconnected();
        }
        if stream.reporting_until.is_some_and(|until| now >= until) {
            stream.reporting_until = None;
            machine.reported(now);
        }
        while stream.reporting_until.is_none()
            && !stream.broken
            && let Some(message) = stream.up.pop(now)
        {
            if let Some(machine) = &mut stream.machine {
                machine.received(now, message);
            }
            self.act(stream)?;
        }
        self.answer(stream);
        self.act(stream)?;
        if let Some(machine) = &mut stream.machine {
            while stream.down.has_room()
                && let Some(message) = machine.poll_transmit(Timestamp(0))
            {
                if !stream.broken {
                    stream.down.push(now, message, self.faults, &mut self.rng);
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
                    self.sidecar.report(stream.id, &report);
                }
                Action::Acknowledged(revision) => self.acknowledged(stream.id, revision)?,
                Action::End(reason) => {
                    match reason {
                        EndReason::Refused(AttachRefusal::Fenced) => self.tally.fenced += 1,
                        EndReason::Silent => self.tally.silent += 1,
                        EndReason::LogLost => self.tally.log_lost += 1,
                        _ => {}
                    }
                    stream.machine = None;
                    self.sidecar.detach(stream.id);
                    if !stream.broken {
                        stream.broken = true;
                        let at = now + Duration::from_millis(self.rng.random_range(0..50));
                        stream.gateway_notices = Some((at, DetachReason::Closed));
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives the answers of the sidecar's host that are due.
    fn answer(&mut self, stream: &mut Stream) {
        let Some(machine) = &mut stream.machine else {
            return;
        };
        let Some((_, action)) = stream.asked.take_if(|(due, _)| self.now >= *due) else {
            return;
        };
        match (action, machine.presented()) {
            (Action::Register, Some(attach)) => {
                let incarnation = attach.gateway.incarnation;
                let newer = |(id, _)| id > stream.id;
                if self.sidecar.current.is_some_and(newer) {
                    return machine.refused(AttachRefusal::Fenced);
                }
                self.sidecar.current = Some((stream.id, incarnation));
                self.sidecar.acknowledged = Revision(0);
                self.sidecar.known_seats = attach.seats.iter().map(|s| s.session).collect();
                let log = self.sidecar.log_state();
                let keys = vec![CarriedKey {
                    epoch: 0,
                    key: incarnation.to_bytes().to_vec().into(),
                }];
                self.tally.deltas += 1;
                let idle_timeout = Duration::from_secs(3_600);
                let registered = Registered {
                    keys,
                    idle_timeout,
                    log,
                };
                machine.registered(self.now, registered);
            }
            (Action::FindDead, Some(attach)) => {
                self.tally.deltas -= 1;
                self.tally.snapshots += 1;
                let dead = attach
                    .seats
                    .iter()
                    .filter(|seat| self.sidecar.is_dead(seat))
                    .map(|seat| seat.session)
                    .collect();
                machine.dead_found(self.now, dead);
            }
            (Action::ReadLog(from), _) => {
                let limit = self.rng.random_range(1..4);
                machine.log_read(self.sidecar.log_after(from, limit));
            }
            _ => {}
        }
    }

    /// An acknowledgement is a promise: all that it covers is applied.
    fn acknowledged(&mut self, stream: u64, revision: Revision) -> Result<(), String> {
        let counts = self.sidecar.current == Some((stream, self.gateway.incarnation));
        let Some(base) = self.gateway.base else {
            return Ok(());
        };
        if !counts || base.lineage != self.sidecar.lineage {
            return Ok(());
        }
        self.sidecar.acknowledged = revision;
        let covered = usize::try_from(revision.0.saturating_sub(base.revision.0)).unwrap();
        let mut promised = self.sidecar.events_after(base.revision).take(covered);
        match promised.find(|event| !self.gateway.has_applied(event)) {
            Some(event) => Err(format!("{event:?} is acknowledged and not applied")),
            None => Ok(()),
        }
    }

    fn check_log(&self) -> Result<(), String> {
        let Some(base) = self.gateway.base else {
            return Err("never attached".into());
        };
        let mut missing = self
            .sidecar
            .events_after(base.revision)
            .filter(|event| !self.gateway.has_applied(event));
        let (position, log) = (self.gateway.link.position(), self.sidecar.log_state());
        let caught_up =
            position.is_some_and(|p| (p.lineage, p.revision) == (log.lineage, log.head));
        if let Some(event) = missing.next() {
            return Err(format!("{event:?} is in the log and not applied"));
        }
        if !self.gateway.link.is_attached() || !caught_up || base.lineage != log.lineage {
            return Err(format!("{position:?} after healing, the log is at {log:?}"));
        }
        if self.gateway.keys_of != Some(self.gateway.incarnation) {
            return Err("keys of another process".into());
        }
        if let Some(seat) = self
            .gateway
            .seats
            .values()
            .find(|seat| self.sidecar.is_dead(seat))
        {
            return Err(format!("{seat:?} sits although it is dead"));
        }
        Ok(())
    }

    fn check_seats(&self) -> Result<(), String> {
        let known = &self.sidecar.known_seats;
        if !self.gateway.seats.keys().eq(known) {
            return Err(format!("{:?} sit, {known:?} are known", self.gateway.seats));
        }
        let (acknowledged, head) = (self.sidecar.acknowledged, self.sidecar.head());
        if acknowledged != head {
            return Err(format!("{acknowledged} acknowledged of {head}"));
        }
        Ok(())
    }
}

#[test]
fn whatever_happens_attaching_again_heals_it() {
    let mut all = Tally::default();
    for seed in 0..300 {
        let run =
            run(seed, GapCheck::Present).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        all.deltas += run.deltas;
        all.snapshots += run.snapshots;
        all.gaps += run.gaps;
        all.behind += run.behind;
        all.silent += run.silent;
        all.fenced += run.fenced;
        all.log_lost += run.log_lost;
        all.applied += run.applied;
        all.ended_seats += run.ended_seats;
    }
    let Tally {
        deltas,
        snapshots,
        gaps,
        behind,
        silent,
        fenced,
        log_lost,
        applied,
        ended_seats,
    } = all.clone();
    let each = [
        deltas,
        snapshots,
        gaps,
        behind,
        silent,
        fenced,
        log_lost,
        applied,
        ended_seats,
    ];
    assert!(each.iter().all(|count| *count > 0), "{all:?}");
}

#[test]
fn a_missing_gap_check_is_found() {
    let found = (0..50).filter(|seed| run(*seed, GapCheck::Missing).is_err());
    assert!(found.count() > 25);
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(7, GapCheck::Present), run(7, GapCheck::Present));
}
