//! One run from end to end: a stack, players logged in and connected, play with villains and revocations, the report.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tickgate::{client::Endpoint, clock::Clock};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    assemble::{Findings, assemble, largest},
    cli::RunArgs,
    cores::Cores,
    fleet::{Fleet, Muster},
    fleet_thread::local_address,
    guard,
    inquest::Inquest,
    logins,
    plan::{Plan, Settings},
    players::Close,
    procfs::{self, ProcessUsage, ThreadShares},
    progress::{self, Live, Phase, Progress},
    report::{Phases, Report, Verdict},
    revocations::{self, Revoker},
    scene::Scene,
    stack::OwnStack,
    target::{self, Target},
    villains::{self, Villainy},
};

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
    Reported {
        /// The report.
        report: Box<Report>,
        /// The log of a stack of our own, kept because something went wrong.
        stack_log: Option<PathBuf>,
    },
    /// By Ctrl-C, before there was anything to report.
    Interrupted,
}

/// Runs what `args` ask for. `stop` ends it before its time.
///
/// # Errors
/// When the target cannot be used at all: no report could be made.
pub(crate) async fn run(args: &RunArgs, stop: CancellationToken) -> anyhow::Result<Ended> {
    let live = Arc::new(Live::default());
    let (phase, phases) = watch::channel(Phase::Starting);
    let progress = Progress::new(live.clone(), args.clients, args.quiet);
    let told = tokio::spawn(tell(progress, phases));
    let run = Run {
        args,
        clock: Clock::system(),
        live,
        phase,
        stop,
    };
    let ended = run.through().await;
    // The sender of phases is gone: the progress line ends.
    drop(run);
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

/// What play came to, beside what the players saw.
struct Played {
    took: Duration,
    watch: revocations::Watch,
    villains: villains::Outcome,
    /// This process and the stack's, at the start and at the end of play.
    generator: Option<[ProcessUsage; 2]>,
    server: Option<[ProcessUsage; 2]>,
}

impl Run<'_> {
    /// Goes through all phases.
    async fn through(&self) -> anyhow::Result<Ended> {
        let begun = self.clock.now();
        let cores = Cores::divide();
        // A seat for each client and each owner of a replayed token, and some to spare.
        let seats = self.args.clients + 4 * VILLAINS_OF_EACH_KIND;
        let dev_json = self.args.dev_json.as_deref();
        let (mut own_stack, target) =
            target::find(dev_json, seats, &cores.server, &self.clock).await?;
        let start_s = self.seconds_since(begun);

        let plan = Arc::new(Plan::new(self.settings()));
        let first_usage = procfs::process(target.pid).unwrap_or_default();
        let villainy = self.prepare_villains(&plan, &target).await?;

        let begun = self.clock.now();
        self.phase.send_replace(Phase::LoggingIn);
        let sessions = logins::log_in(
            &target.account,
            &self.name_prefix(),
            self.args.clients,
            &self.live,
            &self.stop,
        )
        .await?;
        let log_in_s = self.seconds_since(begun);
        let logged_in = u32::try_from(sessions.len()).unwrap_or(u32::MAX);

        let begun = self.clock.now();
        self.phase.send_replace(Phase::Connecting);
        let muster = self.muster(&plan, &target, cores.generator.len());
        let (mut fleet, closes) = Fleet::connect(muster, sessions).await?;
        let connect_s = self.seconds_since(begun);
        if self.stop.is_cancelled() {
            fleet.end().await?;
            return Ok(Ended::Interrupted);
        }

        let revoker = self.revoker(&plan, &target, &fleet, closes);
        let played = self
            .play(&plan, &target, &mut fleet, revoker, villainy)
            .await?;
        // Before the sockets are closed: the kernel counts by socket.
        let udp_drops = procfs::own_udp_drops();
        let end = self.clock.now();
        let (tally, threads) = fleet.end().await?;
        let busiest = largest(&threads, ThreadShares::busy);
        let blur = if guard::is_saturated(busiest) {
            Duration::MAX
        } else {
            tally.recorder.largest_lag
        };
        let report = assemble(Findings {
            target: target.name,
            endpoints: self.args.endpoint_count(),
            plan: &plan,
            phases: Phases {
                start_s,
                log_in_s,
                connect_s,
                play_s: played.took.as_secs_f64(),
            },
            logged_in,
            tally,
            threads,
            revocations: played.watch.settle(end, blur)?,
            villains: played.villains,
            generator: played.generator,
            udp_drops,
            generator_cores: cores.generator,
            server: played
                .server
                .map(|[before, after]| [first_usage, before, after]),
            server_cores: own_stack.as_ref().map(|_| cores.server).unwrap_or_default(),
            interrupted: self.stop.is_cancelled(),
            stack_ended: own_stack.as_mut().is_some_and(OwnStack::has_ended),
        });
        let failed = report.verdict != Verdict::Pass;
        Ok(Ended::Reported {
            report: Box::new(report),
            stack_log: own_stack
                .as_mut()
                .filter(|_| failed)
                .map(OwnStack::keep_log),
        })
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

    fn muster(&self, plan: &Arc<Plan>, target: &Target, threads: usize) -> Muster {
        Muster {
            plan: plan.clone(),
            clock: self.clock.clone(),
            account: target.account.clone(),
            gateway: target.gateway.clone(),
            address: target.address,
            endpoints: self.args.endpoint_count(),
            threads,
            live: self.live.clone(),
            stop: self.stop.clone(),
        }
    }

    fn revoker(
        &self,
        plan: &Plan,
        target: &Target,
        fleet: &Fleet,
        closes: mpsc::Receiver<Close>,
    ) -> Revoker {
        Revoker {
            clock: self.clock.clone(),
            backend: target.backend.clone(),
            planned: plan.revocations.clone(),
            sessions: fleet.connected.clone(),
            closes,
            live: self.live.clone(),
            stop: self.stop.clone(),
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
        let inquest = Inquest {
            admin: target.admin.clone(),
            gateway: target.gateway.clone(),
            clock: self.clock.clone(),
        };
        let scene = Scene {
            clock: self.clock.clone(),
            backend: target.backend.clone(),
            endpoint,
            gateway: target.gateway.clone(),
            other_gateway: target.other_gateway.clone(),
            prefix: self.name_prefix(),
            live: self.live.clone(),
        };
        Ok(Some(
            Villainy::prepare(scene, plan.villains.clone(), inquest).await,
        ))
    }

    /// What all names of this run begin with, so that two runs against one stack do not share players.
    fn name_prefix(&self) -> String {
        format!("loadtest-{}-{}", self.args.seed, std::process::id())
    }

    async fn play(
        &self,
        plan: &Plan,
        target: &Target,
        fleet: &mut Fleet,
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
        let watch = tokio::spawn(revoker.run(start));

        sleep_until(start.into()).await;
        let before = (procfs::process(own_pid), procfs::process(target.pid));
        tokio::select! {
            () = sleep_until((start + plan.play()).into()) => {}
            () = self.stop.cancelled() => {}
        }
        let after = (procfs::process(own_pid), procfs::process(target.pid));
        let took = self.clock.now().saturating_duration_since(start);

        self.phase.send_replace(Phase::Finishing);
        fleet.played().await;
        sleep(LAST_ANSWERS).await;
        let watch = watch.await?;
        let villains = villains.await?;
        Ok(Played {
            took,
            watch,
            villains,
            generator: before.0.zip(after.0).map(<[_; 2]>::from),
            server: before.1.zip(after.1).map(<[_; 2]>::from),
        })
    }
}
