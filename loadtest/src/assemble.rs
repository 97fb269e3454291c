//! From what was found to the report and its verdict. Pure.

use std::time::Duration;

use crate::{
    guard::{self, Observations},
    plan::{self, Plan},
    players::{Tally, merge_by_name},
    procfs::{ProcessUsage, ThreadShares},
    report::{
        ByName, Clients, Generator, Phases, Report, SCHEMA_VERSION, Server, Settings, Verdict,
    },
    revocations, villains,
};

/// All that a run found.
pub(crate) struct Findings<'a> {
    /// What the report calls the target.
    pub(crate) target: String,
    /// UDP endpoints of the players.
    pub(crate) endpoints: u16,
    /// What was planned.
    pub(crate) plan: &'a Plan,
    /// How long each phase took.
    pub(crate) phases: Phases,
    /// Players that logged in.
    pub(crate) logged_in: u32,
    /// What the players saw.
    pub(crate) tally: Tally,
    /// What each generator thread did with its time in play.
    pub(crate) threads: Vec<Option<ThreadShares>>,
    /// What came of the revocations.
    pub(crate) revocations: revocations::Outcome,
    /// What came of the villains.
    pub(crate) villains: villains::Outcome,
    /// This process at the start and at the end of play.
    pub(crate) generator: Option<[ProcessUsage; 2]>,
    /// Packets dropped at our sockets.
    pub(crate) udp_drops: Option<u64>,
    /// The CPUs that we were confined to.
    pub(crate) generator_cores: Vec<usize>,
    /// The stack's process before the first login, at the start and at the end of play.
    pub(crate) server: Option<[ProcessUsage; 3]>,
    /// The CPUs that it was confined to.
    pub(crate) server_cores: Vec<usize>,
    /// Whether the run was ended before its time.
    pub(crate) interrupted: bool,
    /// Whether the stack of our own ended before we ended it.
    pub(crate) stack_ended: bool,
}

/// The report on these findings.
pub(crate) fn assemble(found: Findings<'_>) -> Report {
    let asked = found.plan.settings;
    let recorder = &found.tally.recorder;
    let lag_us = recorder.lag.summary();
    let unread_us = recorder.unread.summary();
    let clients = clients(&found);
    let busiest_thread = largest(&found.threads, ThreadShares::busy);
    let observations = Observations {
        interval: plan::interval(asked.hz),
        lag_p99: Duration::from_micros(lag_us.p99),
        unread_p99: Duration::from_micros(unread_us.p99),
        planned: recorder.measured.planned,
        sent: recorder.measured.sent,
        acked: recorder.measured.acked,
        asked: asked.clients,
        live_at_end: clients.live_at_end,
        revoked: clients.revoked,
        own_udp_drops: found.udp_drops,
        busiest_thread,
        wrongly_admitted: found.villains.wrongly_admitted,
        outlived_revocation: found.revocations.counts.still_alive.into(),
        not_as_planned: not_as_planned(&found),
        interrupted: found.interrupted,
    };
    let invalid_reasons: Vec<String> = guard::judge(&observations)
        .iter()
        .map(ToString::to_string)
        .collect();
    let security_failures = guard::security_failures(&observations);
    Report {
        schema_version: SCHEMA_VERSION,
        verdict: Verdict::over(!invalid_reasons.is_empty(), !security_failures.is_empty()),
        valid: invalid_reasons.is_empty(),
        invalid_reasons,
        security_failures,
        unchecked: guard::unchecked(&observations),
        settings: settings(&found),
        phases: Phases {
            start_s: rounded(found.phases.start_s),
            log_in_s: rounded(found.phases.log_in_s),
            connect_s: rounded(found.phases.connect_s),
            play_s: rounded(found.phases.play_s),
        },
        wrongly_admitted: found.villains.wrongly_admitted,
        refused: refused(&found),
        revocations: found.revocations.counts,
        admission_us: recorder.admission.summary(),
        datagram_intended_us: recorder.intended.summary(),
        datagram_sent_us: recorder.sent.summary(),
        revoke_to_close_us: found.revocations.latency,
        loss: recorder.measured,
        warmup: recorder.warmup,
        stale_snapshots: recorder.stale_snapshots,
        generator: Generator {
            lag_us,
            lag_p99_us: lag_us.p99,
            unread_us,
            cpu_seconds: found
                .generator
                .map_or(0.0, |[before, after]| cpu(before, after)),
            rss_bytes: found.generator.map_or(0, |[_, after]| after.rss_bytes),
            threads: u32::try_from(found.threads.len()).unwrap_or(u32::MAX),
            busiest_thread: busiest_thread.map(rounded),
            longest_wait_for_cpu: largest(&found.threads, |thread| thread.waiting).map(rounded),
            udp_drops: found.udp_drops,
            cores: found.generator_cores,
        },
        server: found.server.map(|[first, before, after]| Server {
            cpu_seconds: cpu(before, after),
            cpu_seconds_total: cpu(first, after),
            rss_bytes: after.rss_bytes,
            rss_peak_bytes: after.rss_peak_bytes,
            cores: found.server_cores,
        }),
        clients,
        villains: found.villains.by_kind,
    }
}

fn settings(found: &Findings<'_>) -> Settings {
    let asked = found.plan.settings;
    Settings {
        target: found.target.clone(),
        clients: asked.clients,
        hz: asked.hz,
        duration_s: asked.duration.as_secs_f64(),
        warmup_s: asked.warmup.as_secs_f64(),
        endpoints: found.endpoints,
        revocations: asked.revocations,
        villains_of_each_kind: asked.villains_of_each_kind,
        seed: asked.seed,
    }
}

fn clients(found: &Findings<'_>) -> Clients {
    let counts = found.revocations.counts;
    Clients {
        asked: found.plan.settings.clients,
        logged_in: found.logged_in,
        admitted: found.tally.admitted,
        live_at_end: found.tally.live_at_end,
        revoked: counts.seen,
        refused: found.tally.refused.clone(),
        closed: found.tally.closed.clone(),
    }
}

/// Players' and villains' refusals together.
fn refused(found: &Findings<'_>) -> ByName {
    let mut refused = found.tally.refused.clone();
    for villains in found.villains.by_kind.values() {
        merge_by_name(&mut refused, &villains.refused_with);
    }
    refused
}

fn not_as_planned(found: &Findings<'_>) -> Vec<String> {
    let mut all = found.villains.not_as_planned.clone();
    all.extend(found.revocations.not_as_planned.iter().cloned());
    if found.stack_ended {
        all.push("the stack's process ended during the run".to_owned());
    }
    all
}

/// The largest of these shares among the generator's threads.
pub(crate) fn largest(
    threads: &[Option<ThreadShares>],
    of: impl Fn(&ThreadShares) -> f64,
) -> Option<f64> {
    threads.iter().flatten().map(of).max_by(f64::total_cmp)
}

fn cpu(before: ProcessUsage, after: ProcessUsage) -> f64 {
    rounded(after.cpu.saturating_sub(before.cpu).as_secs_f64())
}

/// To a thousandth: more digits would promise what is not measured.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
