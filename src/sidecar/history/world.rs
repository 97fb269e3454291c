//! Time, network and crashes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    clock::{ManualTime, Timestamp},
    sidecar::SessionLives,
    store::{Disk, EmbeddedStore, Fault, REFRESH_GRACE, Store, memory::MemoryStore},
};

use super::{
    check::Lives,
    clients::{Client, Deed},
    record::{Activity, Answer, Ask, History, Millis, Span, Why},
    server::{Request, Served, Server},
    tally::Tally,
};

const START: Timestamp = Timestamp(1_700_000_000_000);

/// Short, so that a run of a minute sees sessions end in every way.
const LIVES: SessionLives = SessionLives {
    idle: Duration::from_secs(12),
    absolute: Duration::from_secs(40),
    session_token: Duration::from_secs(30),
    connect_token: Duration::from_secs(30),
    longest_connect_token: Duration::from_secs(60),
};

const fn millis(duration: Duration) -> Millis {
    duration.as_millis() as Millis
}

/// The same for the checker. A session is purged a minute after its end.
pub(super) const RULES: Lives = Lives {
    grace: millis(REFRESH_GRACE),
    idle: millis(LIVES.idle),
    granule: millis(LIVES.idle) / 60 + 1,
    kept: 60_000,
};

/// Messages arrive on such steps of time, so that some arrive together.
const STEP: Millis = 20;

const CLIENTS: usize = 3;

/// How long players and failures go on: a minute; in some runs long enough for sessions to be purged.
const SHORT: Millis = 40_000;
const LONG: Millis = 150_000;

/// Something that is going to happen.
enum Event {
    Act(usize),
    /// No answer has arrived yet, perhaps.
    Timeout {
        client: usize,
        call: usize,
    },
    Arrive {
        client: usize,
        call: usize,
        request: Request,
    },
    /// A gateway reports that the session is active.
    Report(u128),
    Answer {
        client: usize,
        call: usize,
        served: Served,
    },
    /// Someone sees to it that the sidecar is started.
    Start,
    /// The sidecar, which has told that its disk is broken, is taken down.
    Replace,
    Purge,
}

enum Medium {
    Disk(Disk),
    Memory(Arc<MemoryStore>),
}

pub(super) struct World {
    now: Millis,
    time: ManualTime,
    rng: ChaCha8Rng,
    fault: Option<Fault>,
    medium: Medium,
    server: Option<Server>,
    clients: Vec<Client>,
    events: BTreeMap<(Millis, u64), Event>,
    scheduled: u64,
    history: History,
    /// From here on nothing new is done, and nothing fails.
    ends_at: Millis,
    tally: Tally,
}

/// What arrives at one instant.
#[derive(Default)]
struct Batch {
    /// With who asks, and for which call.
    requests: Vec<(usize, usize, Request)>,
    reports: Vec<u128>,
}

impl World {
    pub(super) fn new(seed: u64, fault: Option<Fault>) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let medium = match seed % 2 {
            1 => Medium::Memory(Arc::new(MemoryStore::new(LIVES.for_store()))),
            _ => Medium::Disk(Disk::empty()),
        };
        let duration = if seed % 16 < 2 { LONG } else { SHORT };
        let accounts = 0..2;
        Self {
            now: START.0,
            time: ManualTime::starting_at(START),
            rng,
            fault,
            medium,
            server: None,
            clients: accounts.cycle().take(CLIENTS).map(Client::new).collect(),
            events: BTreeMap::new(),
            scheduled: 0,
            history: History::default(),
            ends_at: START.0 + duration,
            tally: Tally::default(),
        }
    }

    pub(super) async fn run(mut self) -> Result<(Tally, History), String> {
        self.schedule(0, Event::Start);
        self.schedule(10_000, Event::Purge);
        for client in 0..CLIENTS {
            let delay = self.rng.random_range(0..1_000);
            self.schedule(delay, Event::Act(client));
        }
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.advance_to(at);
            match event {
                Event::Arrive { .. } | Event::Report(_) => {
                    let batch = self.arriving(event);
                    self.arrive(batch).await;
                }
                other => self.happen(other).await?,
            }
        }
        if self.server.is_none() {
            self.start()?;
        }
        self.look_at_everything().await;
        Ok((self.tally, self.history))
    }

    fn is_calm(&self) -> bool {
        self.now >= self.ends_at
    }

    fn advance_to(&mut self, at: Millis) {
        self.time.advance(Duration::from_millis(at - self.now));
        self.now = at;
    }

    fn schedule(&mut self, delay: Millis, event: Event) {
        self.scheduled += 1;
        self.events
            .insert((self.now + delay, self.scheduled), event);
    }

    fn chance(&mut self, of: f64) -> bool {
        !self.is_calm() && self.rng.random_bool(of)
    }

    async fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Act(client) => {
                if !self.is_calm() {
                    let deed = self.clients[client].act(self.now, &mut self.rng);
                    self.carry_out(client, deed);
                    let pause = self.rng.random_range(200..2_000);
                    self.schedule(pause, Event::Act(client));
                    if self.server.is_some() && self.chance(0.01) {
                        self.crash();
                    }
                }
            }
            Event::Timeout { client, call } => {
                let call = &self.history.calls[call];
                if call.answer.is_none() && !self.is_calm() {
                    let ask = call.ask.clone();
                    if let Some(deed) = self.clients[client].retry(&ask, self.now) {
                        self.carry_out(client, deed);
                    }
                }
            }
            Event::Answer {
                client,
                call,
                served,
            } => self.hear(client, call, served),
            Event::Start => {
                if self.server.is_none() {
                    self.start()?;
                }
            }
            Event::Replace => {
                if matches!(&self.medium, Medium::Disk(disk) if disk.has_failed()) {
                    self.crash();
                }
            }
            Event::Purge => {
                if let Some(server) = &self.server {
                    server.purge().await;
                }
                if !self.is_calm() {
                    self.schedule(10_000, Event::Purge);
                }
            }
            // Dealt with together.
            Event::Arrive { .. } | Event::Report(_) => {}
        }
        Ok(())
    }

    fn carry_out(&mut self, client: usize, deed: Deed) {
        match deed {
            Deed::Call(ask, request) => self.send(client, ask, &request),
            Deed::Play(session) => {
                let delay = self.delay();
                self.schedule(delay, Event::Report(session));
            }
        }
    }

    /// Sends a request: once, or not at all, or twice; and waits for its answer.
    fn send(&mut self, client: usize, ask: Ask, request: &Request) {
        self.tally.calls += 1;
        let call = self.history.begin(ask);
        let copies = if self.chance(0.1) { 2 } else { 1 };
        self.tally.duplicates += copies - 1;
        for _ in 0..copies {
            if self.chance(0.08) {
                self.tally.requests_lost += 1;
                continue;
            }
            let delay = self.delay();
            let request = request.clone();
            self.schedule(
                delay,
                Event::Arrive {
                    client,
                    call,
                    request,
                },
            );
        }
        let patience = self.rng.random_range(600..2_500);
        self.schedule(patience, Event::Timeout { client, call });
    }

    /// How long a message is on its way, so that it arrives on a step.
    fn delay(&mut self) -> Millis {
        let most = match self.rng.random_range(0..100) {
            0 => 600,
            1..5 => 100,
            _ => 10,
        };
        let arrives = (self.now / STEP + self.rng.random_range(1..=most)) * STEP;
        arrives - self.now
    }

    /// Everything that arrives at this very instant.
    fn arriving(&mut self, first: Event) -> Batch {
        let mut batch = Batch::default();
        let mut take = |event| match event {
            Event::Arrive {
                client,
                call,
                request,
            } => batch.requests.push((client, call, request)),
            Event::Report(session) => batch.reports.push(session),
            _ => {}
        };
        take(first);
        let is_arrival = |event: &Event| matches!(event, Event::Arrive { .. } | Event::Report(_));
        let at_once = self.events.range((self.now, 0)..=(self.now, u64::MAX));
        let keys: Vec<_> = at_once
            .filter(|(_, event)| is_arrival(event))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            if let Some(event) = self.events.remove(&key) {
                take(event);
            }
        }
        batch
    }

    /// The sidecar deals with all of them at once, and may not survive it.
    async fn arrive(&mut self, batch: Batch) {
        let is_failing = self.chance(0.03);
        let calls = self.rng.random_range(0..40);
        let Some(server) = &self.server else {
            self.tally.presented_while_down += batch.requests.len() as u64;
            return;
        };
        if let (Medium::Disk(disk), true) = (&self.medium, is_failing) {
            disk.fail_after(calls);
        }
        let span = Span {
            from: self.now,
            to: self.now,
        };
        for (_, call, _) in &batch.requests {
            self.history.present(*call, span);
        }
        let serve = |(_, _, request): &(usize, usize, Request)| -> BoxFuture<'_, Served> {
            Box::pin(server.serve(request.clone()))
        };
        let asks: Vec<_> = batch.requests.iter().map(serve).collect();
        let report = || {
            batch
                .reports
                .iter()
                .for_each(|session| server.report(*session))
        };
        // One alone makes the same batch each time by itself.
        let is_alone = batch.requests.len() == 1 && batch.reports.is_empty();
        let served = match &server.embedded {
            Some(store) if !is_alone => store.at_once(report, asks).await,
            _ => {
                report();
                join_all(asks).await
            }
        };
        let has_failed = matches!(&self.medium, Medium::Disk(disk) if disk.has_failed());
        let active = batch.reports.into_iter().map(|session| Activity {
            session,
            at: self.now,
            // The store is done with it.
            is_settled: !has_failed,
        });
        self.history.activity.extend(active);
        let is_crash = has_failed && self.rng.random_bool(0.7);
        for ((client, call, _), served) in batch.requests.into_iter().zip(served) {
            self.tally.failed += u64::from(served.answer == Answer::Failed);
            // What was told before the crash may have got out.
            let is_cut = is_crash && (served.answer == Answer::Failed || self.rng.random());
            if is_cut || self.chance(0.12) {
                self.tally.answers_lost += 1;
            } else {
                let delay = self.delay();
                self.schedule(
                    delay,
                    Event::Answer {
                        client,
                        call,
                        served,
                    },
                );
            }
        }
        if is_crash {
            self.tally.crashes_in_a_batch += 1;
            self.crash();
        } else if has_failed {
            self.tally.broken_disks += 1;
            let until_seen = self.rng.random_range(0..1_500);
            self.schedule(until_seen, Event::Replace);
        } else if let Medium::Disk(disk) = &self.medium {
            disk.spare();
        }
    }

    /// The sidecar's memory is gone, and, if the power failed, what its disk had not synced.
    fn crash(&mut self) {
        let is_kill = self.rng.random_bool(0.4);
        if let Medium::Disk(disk) = &mut self.medium {
            let left = match is_kill {
                true => disk.after_kill(),
                false => disk.after_power_loss(&mut self.rng),
            };
            *disk = left;
        }
        self.tally.kills += u64::from(is_kill);
        self.tally.power_losses += u64::from(!is_kill);
        self.server = None;
        let down = self.rng.random_range(0..3_000);
        self.schedule(down, Event::Start);
    }

    fn start(&mut self) -> Result<(), String> {
        let clock = self.time.clock();
        self.server = match &self.medium {
            Medium::Memory(store) => {
                let store = Arc::clone(store) as Arc<dyn Store>;
                Some(Server::new(store, None, LIVES, clock))
            }
            Medium::Disk(disk) => {
                if self.now < self.ends_at && self.rng.random_bool(0.15) {
                    disk.fail_after(self.rng.random_range(0..30));
                }
                match EmbeddedStore::on_disk(disk, LIVES.for_store()) {
                    Ok(store) => {
                        disk.spare();
                        store.plant(self.fault);
                        let store = Arc::new(store);
                        let shared = Arc::clone(&store) as Arc<dyn Store>;
                        Some(Server::new(shared, Some(store), LIVES, clock))
                    }
                    Err(_) if disk.has_failed() => None,
                    Err(error) => return Err(format!("the store does not open: {error}")),
                }
            }
        };
        if self.server.is_none() {
            self.tally.crashes_while_opening += 1;
            self.crash();
        }
        Ok(())
    }

    fn hear(&mut self, client: usize, call: usize, served: Served) {
        if !self.history.answered(call, served.answer.clone()) {
            return;
        }
        let ask = self.history.calls[call].ask.clone();
        let same = self.history.calls.iter().filter(|call| call.ask == ask);
        let is_retry = matches!(served.answer, Answer::Renewed { .. }) && same.count() > 1;
        self.tally.renewed_by_a_retry += u64::from(is_retry);
        self.count(&served.answer);
        self.clients[client].hear(&ask, served, &mut self.rng);
    }

    fn count(&mut self, answer: &Answer) {
        let tally = &mut self.tally;
        let counter = match answer {
            Answer::LoggedIn { .. } => &mut tally.logins,
            Answer::Renewed { .. } => &mut tally.renewed,
            Answer::Live { .. } => &mut tally.seen_live,
            Answer::Over(Why::Reused) => &mut tally.reuses,
            Answer::Over(Why::Revoked) => &mut tally.seen_revoked,
            Answer::Over(Why::Idle) => &mut tally.seen_idle,
            Answer::Over(Why::Expired) => &mut tally.seen_expired,
            Answer::Over(Why::Unknown) => &mut tally.seen_unknown,
            Answer::Revoked { .. } => &mut tally.revoked,
            Answer::PlayerRevoked { .. } => &mut tally.players_revoked,
            Answer::Over(Why::Untold) | Answer::Log { .. } | Answer::Failed | Answer::Refused => {
                return;
            }
        };
        *counter += 1;
    }

    /// Once all is calm: every session that there ever was, and the log.
    async fn look_at_everything(&mut self) {
        let sessions: Vec<u128> = self
            .history
            .calls
            .iter()
            .filter_map(|call| match call.answer {
                Some((_, Answer::LoggedIn { session, .. })) => Some(session),
                _ => None,
            })
            .collect();
        let looks = sessions
            .into_iter()
            .map(|session| (Ask::Look { session }, Request::Look { session }));
        let log = [(Ask::ReadLog, Request::ReadLog)];
        for (ask, request) in looks.chain(log) {
            let Some(server) = &self.server else { return };
            let call = self.history.begin(ask);
            let span = Span {
                from: self.now,
                to: self.now,
            };
            self.history.present(call, span);
            let served = server.serve(request).await;
            self.count(&served.answer);
            self.history.answered(call, served.answer);
        }
    }
}
