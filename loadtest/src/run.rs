//! One run from end to end: a stack, players logged in and connected, play with villains and revocations, the report.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tickgate::{
    client::{Endpoint, Session},
    clock::Clock,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    assemble::{Findings, assemble},
    cli::RunArgs,
    cores,
    fleet::{Fleet, Muster},
    fleet_thread::local_address,
    plan::{Plan, Settings},
    procfs::{self, ProcessUsage},
    progress::{self, Live, Phase, Progress, count},
    report::{Phases, Report},
    revocations::{self, Revoker},
    stack::OwnStack,
    target::{self, Target},
    villains::{self, Scene, Villainy},
};

/// How many logins run at once: the store commits them in groups.
const LOGINS_AT_ONCE: usize = 64;
/// Villains of each kind: enough that every variation comes more than once.
const VILLAINS_OF_EACH_KIND: u32 = 8;
/// The number of the villains' endpoint: none of the players' (they have at most 1,024).
const VILLAINS_ENDPOINT: u16 = 4_000;
/// From the last thread's readiness to the start: all threads have heard of it by then.
const COUNTDOWN: Duration = Duration::from_millis(50);
/// How long the last inputs may wait for their answer. What comes later counts as lost.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How a run ended.
pub(crate) enum Ended {
    /// With a report.
    Reported(Box<Report>),
    /// By Ctrl-C, before there was anything to report.
    Interrupted,
}

/// Runs what `args` ask for. `stop` ends it before its time.
///
/// # Errors
/// When the target cannot be used at all: no report could be made.
pub(crate) async fn run(args: &RunArgs, stop: CancellationToken) -> anyhow::Result<Ended> {
    let clock = Clock::system();
    let live = Arc::new(Live::default());
    let (phase, phases) = watch::channel(Phase::Starting);
    let progress = Progress::new(live.clone(), args.clients, args.quiet);
    let told = tokio::spawn(tell(progress, phases));
    let ended = Run {
        args,
        clock,
        live,
        phase,
        stop,
    }
    .from_end_to_end()
    .await;
    // The sender of phases is gone: the progress line ends.
    let _ = told.await;
    ended
}

async fn tell(mut progress: Progress, mut phases: watch::Receiver<Phase>) {
    let mut every = tokio::time::interval(progress::EVERY);
    loop {
        tokio::select! {
            changed = phases.changed() => if changed.is_err() { break },
            _ = every.tick() => {
                let phase = *phases.borrow();
                progress.tell(phase);
            }
        }
    }
    progress.finish();
}

struct Run<'a> {
    args: &'a RunArgs,
    clock: Clock,
    live: Arc<Live>,
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
}

impl Run<'_> {
    async fn from_end_to_end(self) -> anyhow::Result<Ended> {
        let mut took = Phases::default();
        let begun = self.clock.now();
        let division = cores::divide(&cores::available());
        let confined = cores::confine_to(&division.generator);
        // A seat for each client and each owner of a replayed token, and some to spare.
        let seats = self.args.clients + 4 * VILLAINS_OF_EACH_KIND;
        let dev_json = self.args.dev_json.as_deref();
        let (mut own_stack, target) =
            target::find(dev_json, seats, &division.server, &self.clock).await?;
        took.start_s = self.seconds_since(begun);

        let plan = Arc::new(Plan::new(self.settings()));
        let usage_before = procfs::process(target.pid).unwrap_or_default();
        let villainy = self.prepare_villains(&plan, &target).await?;

        let begun = self.clock.now();
        self.phase.send_replace(Phase::LoggingIn);
        let sessions = self.log_in(&target).await?;
        took.log_in_s = self.seconds_since(begun);
        let logged_in = u32::try_from(sessions.len()).unwrap_or(u32::MAX);

        let begun = self.clock.now();
        self.phase.send_replace(Phase::Connecting);
        let muster = Muster {
            plan: plan.clone(),
            clock: self.clock.clone(),
            account: target.account.clone(),
            gateway: target.gateway.clone(),
            address: target.address,
            endpoints: self.args.endpoint_count(),
            threads: division.generator.len(),
            live: self.live.clone(),
            stop: self.stop.clone(),
        };
        let (mut fleet, closes) = Fleet::connect(muster, sessions).await?;
        took.connect_s = self.seconds_since(begun);
        if self.stop.is_cancelled() {
            fleet.end().await?;
            return Ok(Ended::Interrupted);
        }

        let revoker = Revoker {
            clock: self.clock.clone(),
            backend: target.backend.clone(),
            planned: plan.revocations.clone(),
            sessions: std::mem::take(&mut fleet.connected),
            closes,
            live: self.live.clone(),
            stop: self.stop.clone(),
        };
        let played = self.play(&plan, &target, &fleet, revoker, villainy).await?;
        took.play_s = played.took.as_secs_f64();
        let udp_drops = procfs::own_udp_drops();
        let (tally, thread_times) = fleet.end().await?;

        let is_own = own_stack.is_some();
        let findings = Findings {
            target: target.name,
            endpoints: self.args.endpoint_count(),
            plan: &plan,
            phases: took,
            logged_in,
            tally,
            thread_times,
            revocations: played.revocations,
            villains: played.villains,
            generator: played.generator,
            udp_drops,
            generator_cores: confined.then_some(division.generator).unwrap_or_default(),
            server: played.server.map(|[before, after]| [usage_before, before, after]),
            server_cores: (is_own && confined).then_some(division.server).unwrap_or_default(),
            interrupted: self.stop.is_cancelled(),
            stack_ended: own_stack.as_mut().is_some_and(OwnStack::has_ended),
        };
        let report = assemble(findings);
        if let Some(stack) = own_stack.as_mut().filter(|_| report.verdict.exit_code() != 0) {
            let log = stack.keep_log();
            tracing::error!("the stack's log is {}", log.display());
        }
        Ok(Ended::Reported(Box::new(report)))
    }

    fn seconds_since(&self, begun: Instant) -> f64 {
        self.clock
            .now()
            .saturating_duration_since(begun)
            .as_secs_f64()
    }

    fn settings(&self) -> Settings {
        Settings {
            clients: self.args.clients,
            hz: self.args.hz,
            warmup: self.args.warmup,
            duration: self.args.duration,
            revocations: self.args.revocation_count(),
            villains_of_each_kind: if self.args.no_villains {
                0
            } else {
                VILLAINS_OF_EACH_KIND
            },
            seed: self.args.seed,
        }
    }

    async fn prepare_villains(
        &self,
        plan: &Plan,
        target: &Target,
    ) -> anyhow::Result<Option<Villainy>> {
        if plan.villains.is_empty() {
            return Ok(None);
        }
        let local = local_address(target.address, VILLAINS_ENDPOINT);
        let endpoint = Endpoint::bind(local).context("cannot bind the villains' UDP socket")?;
        let scene = Scene {
            clock: self.clock.clone(),
            backend: target.backend.clone(),
            endpoint,
            gateway: target.gateway.clone(),
            other_gateway: target.other_gateway.clone(),
            prefix: self.name_prefix(),
            live: self.live.clone(),
        };
        Ok(Some(Villainy::prepare(scene, plan.villains.clone()).await))
    }

    /// What all names of this run begin with, so that two runs against one stack do not share players.
    fn name_prefix(&self) -> String {
        format!("loadtest-{}-{}", self.args.seed, std::process::id())
    }

    /// Logs all players in. Those that cannot be are missing from the answer.
    async fn log_in(&self, target: &Target) -> anyhow::Result<Vec<(u32, Session)>> {
        let at_once = Arc::new(Semaphore::new(LOGINS_AT_ONCE));
        let prefix = self.name_prefix();
        let mut logins = JoinSet::new();
        for client in 0..self.args.clients {
            let permit = at_once.clone().acquire_owned().await?;
            let (account, live) = (target.account.clone(), self.live.clone());
            let name = format!("{prefix}-{client}");
            logins.spawn(async move {
                let session = account.login_dev(&name).await;
                drop(permit);
                count(&live.logged_in);
                (client, session)
            });
            if self.stop.is_cancelled() {
                break;
            }
        }
        let mut sessions = Vec::new();
        let mut failure = None;
        for (client, login) in logins.join_all().await {
            match login {
                Ok(session) => sessions.push((client, session)),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if sessions.is_empty() => Err(error).context("no player could log in"),
            Some(error) => {
                tracing::warn!(%error, "some players could not log in");
                Ok(sessions)
            }
            None => Ok(sessions),
        }
    }

    async fn play(
        &self,
        plan: &Plan,
        target: &Target,
        fleet: &Fleet,
        revoker: Revoker,
        villainy: Option<Villainy>,
    ) -> anyhow::Result<Played> {
        self.phase.send_replace(Phase::Playing);
        let own_pid = std::process::id();
        let start = self.clock.now() + COUNTDOWN;
        fleet.begin(start);
        let stop = self.stop.clone();
        let villains = tokio::spawn(async move {
            match villainy {
                Some(villainy) => villainy.run(start, stop).await,
                None => villains::Outcome::default(),
            }
        });
        let revocations = tokio::spawn(revoker.run(start));

        sleep_until(start.into()).await;
        let before = (procfs::process(own_pid), procfs::process(target.pid));
        tokio::select! {
            () = sleep_until((start + plan.play()).into()) => {}
            () = self.stop.cancelled() => {}
        }
        let after = (procfs::process(own_pid), procfs::process(target.pid));
        let took = self.clock.now().saturating_duration_since(start);

        self.phase.send_replace(Phase::Finishing);
        sleep(LAST_ANSWERS).await;
        let revocations = revocations.await??;
        let villains = villains.await?;
        Ok(Played {
            took,
            revocations,
            villains,
            generator: before.0.zip(after.0).map(<[_; 2]>::from),
            server: before.1.zip(after.1).map(<[_; 2]>::from),
        })
    }
}

/// What play came to, beside what the players saw.
struct Played {
    took: Duration,
    revocations: revocations::Outcome,
    villains: villains::Outcome,
    generator: Option<[ProcessUsage; 2]>,
    server: Option<[ProcessUsage; 2]>,
}
