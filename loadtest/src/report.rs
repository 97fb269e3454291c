//! The report of a run: what the JSON holds, field by field. report.schema.json is the same for machines.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::measure::{InputCounts, Summary};

/// The version of the JSON. It grows when a field changes its meaning or goes; new fields alone do not change it.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Counts by the fixed name of a close code, or of what else ended a connection ("lost", "reset", …).
pub(crate) type ByName = BTreeMap<String, u64>;

/// What a run ended with; its exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Valid, and the server let nothing happen that it must not.
    Pass,
    /// The figures are no result.
    Invalid,
    /// A villain was let in or a revoked player stayed, whether or not the figures are valid.
    SecurityFailure,
}

impl Verdict {
    /// The verdict over these findings. A security failure is one however the generator fared.
    pub(crate) const fn over(invalid: bool, security_failure: bool) -> Self {
        match (security_failure, invalid) {
            (true, _) => Self::SecurityFailure,
            (false, true) => Self::Invalid,
            (false, false) => Self::Pass,
        }
    }

    /// The process's exit code.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Invalid => 3,
            Self::SecurityFailure => 4,
        }
    }
}

/// A whole run. Durations are in seconds or, where the name ends in `_us`, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// The verdict; the exit code follows from it.
    pub(crate) verdict: Verdict,
    /// Whether the figures may be believed.
    pub(crate) valid: bool,
    /// Why not, in words; empty if they may.
    pub(crate) invalid_reasons: Vec<String>,
    /// What the server let happen that it must not, in words.
    pub(crate) security_failures: Vec<String>,
    /// Rules of the validity guard that this system gives no means to check, in words.
    pub(crate) unchecked: Vec<String>,
    /// What was asked for.
    pub(crate) settings: Settings,
    /// How long each phase took.
    pub(crate) phases: Phases,
    /// What became of the players.
    pub(crate) clients: Clients,
    /// Villains that were let in: must be 0.
    pub(crate) wrongly_admitted: u64,
    /// Admissions that were refused, players' and villains' together, by close code.
    pub(crate) refused: ByName,
    /// Villains by kind.
    pub(crate) villains: BTreeMap<&'static str, Villains>,
    /// The revocations made while the players played.
    pub(crate) revocations: Revocations,
    /// The call to connect until Welcome, of players. Admissions run a bounded number at a time, so this is a closed loop.
    pub(crate) admission_us: Summary,
    /// Inputs: the instant one was due until the snapshot that acknowledges it. The headline.
    pub(crate) datagram_intended_us: Summary,
    /// Inputs: the instant one was sent until that snapshot. For diagnosis: it hides the generator's lag.
    pub(crate) datagram_sent_us: Summary,
    /// The instant before RevokeSession was sent until the client saw the close `session_revoked`.
    pub(crate) revoke_to_close_us: Summary,
    /// Inputs of the measured window: sent = acked + lost + cut_off.
    pub(crate) loss: InputCounts,
    /// Inputs of the warm-up, which no latency contains.
    pub(crate) warmup: InputCounts,
    /// Snapshots that acknowledged nothing new: duplicated, overtaken by a later one, or come too late.
    pub(crate) stale_snapshots: u64,
    /// This process.
    pub(crate) generator: Generator,
    /// The stack's process; null if it is not on this machine.
    pub(crate) server: Option<Server>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// "own development stack", or the dev.json that names the target.
    pub(crate) target: String,
    /// Players.
    pub(crate) clients: u32,
    /// Inputs a second of each.
    pub(crate) hz: u32,
    /// The measured window.
    pub(crate) duration_s: f64,
    /// Play before it.
    pub(crate) warmup_s: f64,
    /// UDP sockets that the players share.
    pub(crate) endpoints: u16,
    /// Players to be revoked.
    pub(crate) revocations: u32,
    /// Villains of each kind.
    pub(crate) villains_of_each_kind: u32,
    /// What the random choices followed from.
    pub(crate) seed: u64,
}

/// How long each phase took, in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Phases {
    /// Until the stack was there.
    pub(crate) start_s: f64,
    /// All logins.
    pub(crate) log_in_s: f64,
    /// A connect token and a connection for each player.
    pub(crate) connect_s: f64,
    /// Warm-up and measured window.
    pub(crate) play_s: f64,
}

/// What became of the players.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Clients {
    /// How many were to play.
    pub(crate) asked: u32,
    /// How many logged in.
    pub(crate) logged_in: u32,
    /// How many were admitted.
    pub(crate) admitted: u32,
    /// How many still had their connection when play was over.
    pub(crate) live_at_end: u32,
    /// How many saw the close `session_revoked` because this run revoked them.
    pub(crate) revoked: u32,
    /// Players that were not admitted, by what they saw.
    pub(crate) refused: ByName,
    /// Players whose connection ended during play, by what they saw.
    pub(crate) closed: ByName,
}

/// The villains of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Villains {
    /// How many came.
    pub(crate) tried: u64,
    /// How many were refused, with whatever code.
    pub(crate) refused: u64,
    /// How many were let in: must be 0.
    pub(crate) admitted: u64,
    /// How many could not be played, because something before the attempt failed.
    pub(crate) not_played: u64,
    /// The name of the close code that they must see.
    pub(crate) expected: &'static str,
    /// What they saw, by name.
    pub(crate) refused_with: ByName,
    /// Of how many refusals `explain` names the true reason.
    pub(crate) explained: u64,
}

/// The revocations made while the players played.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Revocations {
    /// How many were due.
    pub(crate) planned: u32,
    /// How many the sidecar acknowledged.
    pub(crate) acknowledged: u32,
    /// Of these, how many players saw `session_revoked`, whenever.
    pub(crate) seen: u32,
    /// Of these, how many saw it within 2 s of sending.
    pub(crate) closed: u32,
    /// How many of the acknowledged saw their connection end in another way within that time.
    pub(crate) closed_otherwise: u32,
    /// How many of the acknowledged were alive for longer, even allowing for the generator's largest lag: must be 0.
    pub(crate) still_alive: u32,
    /// How many of the acknowledged seemed alive for longer, and the generator was too slow to tell.
    pub(crate) undecided: u32,
    /// How many could not be made: refused by the sidecar, or no connection to revoke.
    pub(crate) failed: u32,
}

/// The generator's own process, over play.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Generator {
    /// Inputs: due instant to actual send, or to being given up a second after the end of play.
    pub(crate) lag_us: Summary,
    /// Its 99th percentile.
    pub(crate) lag_p99_us: u64,
    /// Snapshots: the longest that each may have waited here before it was read. An upper bound.
    pub(crate) unread_us: Summary,
    /// CPU time during play, all threads.
    pub(crate) cpu_seconds: f64,
    /// Resident memory at the end of play.
    pub(crate) rss_bytes: u64,
    /// Threads that played clients.
    pub(crate) threads: u32,
    /// The share of play in which the busiest of them had something to do: on a CPU or waiting for one; null if unknown.
    pub(crate) busiest_thread: Option<f64>,
    /// The share of play that the worst off of them waited for a CPU; null if unknown.
    pub(crate) longest_wait_for_cpu: Option<f64>,
    /// Packets that the kernel dropped at its sockets; null if unknown.
    pub(crate) udp_drops: Option<u64>,
    /// The CPUs it was confined to; empty if it was not.
    pub(crate) cores: Vec<usize>,
}

/// The stack's process (sidecar, gateways and demo world in one), over play.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Server {
    /// CPU time during play, all threads.
    pub(crate) cpu_seconds: f64,
    /// CPU time from the first login to the end of play.
    pub(crate) cpu_seconds_total: f64,
    /// Resident memory at the end of play.
    pub(crate) rss_bytes: u64,
    /// The most resident memory it ever had.
    pub(crate) rss_peak_bytes: u64,
    /// The CPUs it was confined to; empty if it was not, or was not ours to confine.
    pub(crate) cores: Vec<usize>,
}

#[cfg(test)]
#[path = "../tests/schema/mod.rs"]
#[allow(clippy::expect_used, reason = "a test fails by panicking")]
mod schema;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with something in every field.
    pub(crate) fn example() -> Report {
        let latency = Summary {
            count: 148_913,
            p50: 9_103,
            p99: 17_407,
            p999: 18_927,
            max: 21_007,
        };
        let by_name = |name: &str, count| ByName::from([(name.to_owned(), count)]);
        let villains = Villains {
            tried: 8,
            refused: 8,
            admitted: 0,
            not_played: 0,
            expected: "token_used",
            refused_with: by_name("token_used", 8),
            explained: 8,
        };
        let inputs = InputCounts {
            planned: 148_925,
            sent: 148_925,
            acked: 148_913,
            lost: 0,
            cut_off: 12,
        };
        Report {
            schema_version: SCHEMA_VERSION,
            verdict: Verdict::Invalid,
            valid: false,
            invalid_reasons: vec!["the generator sent too late".to_owned()],
            security_failures: vec![],
            unchecked: vec![],
            settings: Settings {
                target: "own development stack".to_owned(),
                clients: 1_000,
                hz: 10,
                duration_s: 15.0,
                warmup_s: 1.0,
                endpoints: 16,
                revocations: 100,
                villains_of_each_kind: 8,
                seed: 1,
            },
            phases: Phases {
                start_s: 0.4,
                log_in_s: 0.9,
                connect_s: 1.7,
                play_s: 16.0,
            },
            clients: Clients {
                asked: 1_000,
                logged_in: 1_000,
                admitted: 1_000,
                live_at_end: 900,
                revoked: 100,
                refused: ByName::new(),
                closed: by_name("session_revoked", 100),
            },
            wrongly_admitted: 0,
            refused: by_name("token_used", 8),
            villains: BTreeMap::from([("replayed", villains)]),
            revocations: Revocations {
                planned: 100,
                acknowledged: 100,
                seen: 100,
                closed: 100,
                ..Revocations::default()
            },
            admission_us: latency,
            datagram_intended_us: latency,
            datagram_sent_us: latency,
            revoke_to_close_us: latency,
            loss: inputs,
            warmup: inputs,
            stale_snapshots: 0,
            generator: Generator {
                lag_us: latency,
                lag_p99_us: latency.p99,
                unread_us: latency,
                cpu_seconds: 3.2,
                rss_bytes: 62 << 20,
                threads: 1,
                busiest_thread: Some(0.18),
                longest_wait_for_cpu: None,
                udp_drops: Some(0),
                cores: vec![0],
            },
            server: Some(Server {
                cpu_seconds: 2.9,
                cpu_seconds_total: 5.1,
                rss_bytes: 121 << 20,
                rss_peak_bytes: 130 << 20,
                cores: vec![1],
            }),
        }
    }

    #[test]
    fn a_security_failure_outweighs_an_invalid_run() {
        assert_eq!(Verdict::over(false, false).exit_code(), 0);
        assert_eq!(Verdict::over(true, false).exit_code(), 3);
        assert_eq!(Verdict::over(false, true).exit_code(), 4);
        assert_eq!(Verdict::over(true, true).exit_code(), 4);
    }

    #[test]
    fn a_report_follows_its_schema() {
        let report = serde_json::to_value(example()).unwrap();
        assert_eq!(schema::violations(&report), Vec::<String>::new());
        let mut remote = example();
        remote.server = None;
        remote.generator.udp_drops = None;
        let remote = serde_json::to_value(remote).unwrap();
        assert_eq!(schema::violations(&remote), Vec::<String>::new());
    }

    #[test]
    fn the_schema_notices_what_is_missing_wrong_or_unknown() {
        let good = serde_json::to_value(example()).unwrap();
        let broken = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut report = good.clone();
            change(&mut report);
            schema::violations(&report)
        };
        let missing = broken(&|r| drop(r.as_object_mut().unwrap().remove("loss")));
        assert_eq!(missing, ["$: `loss` is missing"]);
        let wrong = broken(&|r| r["clients"]["asked"] = "many".into());
        assert_eq!(wrong, ["$.clients.asked: not of type \"integer\""]);
        let unknown = broken(&|r| r["generator"]["mood"] = 1.into());
        assert_eq!(unknown, ["$.generator: `mood` is unknown"]);
        let version = broken(&|r| r["schema_version"] = 2.into());
        assert_eq!(version.len(), 1);
    }
}
