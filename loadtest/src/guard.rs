//! Whether a run may be believed: pure rules over what was observed.
//!
//! A generator in trouble makes a server look slow, or, worse, makes it look fast because it was never loaded. A run in which the
//! generator did not do what it set out to do is INVALID, with the reasons in words, and its figures are no result.

use std::{fmt, time::Duration};

/// What a run observed, as far as its validity depends on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Observations {
    /// The time between two sends of a client.
    pub(crate) interval: Duration,
    /// 99 in 100 sends were at most this late.
    pub(crate) lag_p99: Duration,
    /// 99 in 100 answers waited unread inside the generator for at most this.
    pub(crate) unread_p99: Duration,
    /// Sends that were due.
    pub(crate) planned: u64,
    /// Sends that happened.
    pub(crate) sent: u64,
    /// Sends that were acknowledged.
    pub(crate) acked: u64,
    /// Clients asked for.
    pub(crate) asked: u32,
    /// Clients that still had their connection at the end.
    pub(crate) live_at_end: u32,
    /// Clients that had none because this run revoked them.
    pub(crate) revoked: u32,
    /// Packets that the kernel dropped at the generator's sockets, if it tells.
    pub(crate) own_udp_drops: Option<u64>,
    /// The share of play in which the busiest generator thread had something to do, whether it was given a CPU for it or kept
    /// waiting for one, if the kernel tells.
    pub(crate) busiest_thread: Option<f64>,
    /// Villains that were let in.
    pub(crate) wrongly_admitted: u64,
    /// Revoked clients that saw no close in time.
    pub(crate) outlived_revocation: u64,
    /// What was to be tried against the server, and could not be or went another way than it should, in words.
    pub(crate) not_as_planned: Vec<String>,
    /// Whether the run was ended before its time.
    pub(crate) interrupted: bool,
}

/// Why a run is no result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Invalid {
    /// The generator sent too late.
    Lag {
        /// What it was.
        p99: Duration,
        /// What it may be.
        limit: Duration,
    },
    /// The generator read answers too late.
    Unread {
        /// What it was.
        p99: Duration,
        /// What it may be.
        limit: Duration,
    },
    /// Too few of the planned sends happened.
    SendsMissing {
        /// How many happened.
        sent: u64,
        /// How many were due.
        planned: u64,
    },
    /// Too few clients were live.
    ClientsMissing {
        /// Live at the end, or revoked as planned.
        accounted_for: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// The kernel dropped packets at the generator's own sockets.
    GeneratorDrops(u64),
    /// A generator thread had hardly any time left.
    ThreadBusy(f64),
    /// Nothing was ever acknowledged.
    NoAnswer,
    /// Something that should have been tried was not, or went another way.
    NotAsPlanned(String),
    /// The run was ended before its time.
    Interrupted,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lag { p99, limit } => write!(
                f,
                "the generator sent too late: lag p99 was {:.1} ms, a quarter of the send interval is {:.1} ms (fewer clients, a lower rate, or more cores for the generator)",
                p99.as_secs_f64() * 1e3,
                limit.as_secs_f64() * 1e3,
            ),
            Self::Unread { p99, limit } => write!(
                f,
                "the generator read answers too late: p99 waited up to {:.1} ms unread, the send interval is {:.1} ms (fewer clients, a lower rate, or more cores for the generator)",
                p99.as_secs_f64() * 1e3,
                limit.as_secs_f64() * 1e3,
            ),
            Self::SendsMissing { sent, planned } => write!(
                f,
                "only {sent} of {planned} planned sends happened ({:.1} %, at least {MINIMUM_PERCENT} % are needed)",
                percent(*sent, *planned),
            ),
            Self::ClientsMissing {
                accounted_for,
                asked,
            } => write!(
                f,
                "only {accounted_for} of {asked} clients were live to the end or revoked as planned ({:.1} %, at least {MINIMUM_PERCENT} % are needed)",
                percent(u64::from(*accounted_for), u64::from(*asked)),
            ),
            Self::GeneratorDrops(drops) => write!(
                f,
                "the kernel dropped {drops} packets at the generator's own sockets (raise net.core.rmem_max, or use more endpoints)"
            ),
            Self::ThreadBusy(share) => write!(
                f,
                "a generator thread was busy, or kept waiting for a CPU, for {:.0} % of the time, more than {:.0} %: it measured itself (fewer clients, or more and idler cores)",
                share * 100.0,
                BUSIEST * 100.0,
            ),
            Self::NoAnswer => f.write_str(
                "no input was acknowledged: the gateway does not play the demo world, or lost everything",
            ),
            Self::NotAsPlanned(what) => f.write_str(what),
            Self::Interrupted => f.write_str("the run was interrupted before its time"),
        }
    }
}

/// At least this many in 100 of the planned sends, and of the asked clients.
const MINIMUM_PERCENT: u64 = 99;
/// The largest share of play that a generator thread may be busy. One that has work and no CPU is as busy as one that has both. Beyond it, queueing inside the generator dominates its latencies.
const BUSIEST: f64 = 0.85;
/// The largest lag p99, as a divisor of the send interval. (For answers left unread the limit is the whole interval: theirs is an upper
/// bound, and the answers to a whole tick come at once.)
const LAG_DIVISOR: u32 = 4;

/// Whether the generator had so little time left that nothing it saw late can be held against the server.
pub(crate) fn is_saturated(busiest_thread: Option<f64>) -> bool {
    busiest_thread.is_some_and(|share| share > BUSIEST)
}

/// Why the observed run is no result; empty if it is one.
pub(crate) fn judge(seen: &Observations) -> Vec<Invalid> {
    let mut reasons = Vec::new();
    if seen.interrupted {
        reasons.push(Invalid::Interrupted);
    }
    let accounted_for = seen.live_at_end.saturating_add(seen.revoked);
    if below_minimum(u64::from(accounted_for), u64::from(seen.asked)) {
        reasons.push(Invalid::ClientsMissing {
            accounted_for,
            asked: seen.asked,
        });
    }
    if below_minimum(seen.sent, seen.planned) || seen.planned == 0 {
        reasons.push(Invalid::SendsMissing {
            sent: seen.sent,
            planned: seen.planned,
        });
    }
    let limit = seen.interval / LAG_DIVISOR;
    if seen.lag_p99 > limit {
        reasons.push(Invalid::Lag {
            p99: seen.lag_p99,
            limit,
        });
    }
    if seen.unread_p99 > seen.interval {
        reasons.push(Invalid::Unread {
            p99: seen.unread_p99,
            limit: seen.interval,
        });
    }
    if let Some(drops @ 1..) = seen.own_udp_drops {
        reasons.push(Invalid::GeneratorDrops(drops));
    }
    if let Some(share) = seen.busiest_thread.filter(|share| *share > BUSIEST) {
        reasons.push(Invalid::ThreadBusy(share));
    }
    if seen.sent > 0 && seen.acked == 0 {
        reasons.push(Invalid::NoAnswer);
    }
    reasons.extend(
        seen.not_as_planned
            .iter()
            .cloned()
            .map(Invalid::NotAsPlanned),
    );
    reasons
}

/// What the server let happen that it must never let happen, in words; empty if nothing.
pub(crate) fn security_failures(seen: &Observations) -> Vec<String> {
    let mut failures = Vec::new();
    if seen.wrongly_admitted > 0 {
        failures.push(format!(
            "{} villains were let in that must be refused",
            seen.wrongly_admitted
        ));
    }
    if seen.outlived_revocation > 0 {
        failures.push(format!(
            "{} revoked players were still connected 2 s after RevokeSession was sent",
            seen.outlived_revocation
        ));
    }
    failures
}

/// The guard's rules that could not be checked because the system does not tell, in words.
pub(crate) fn unchecked(seen: &Observations) -> Vec<String> {
    let mut rules = Vec::new();
    if seen.own_udp_drops.is_none() {
        rules.push("packets dropped at the generator's sockets (no /proc/net/udp)".to_owned());
    }
    if seen.busiest_thread.is_none() {
        rules.push("how busy the generator's threads were (no schedstat in /proc)".to_owned());
    }
    rules
}

fn below_minimum(part: u64, whole: u64) -> bool {
    part.saturating_mul(100) < whole.saturating_mul(MINIMUM_PERCENT)
}

/// `part` in 100 of `whole`, to be read by people.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of 1,000 clients at 10 Hz in which nothing went wrong.
    fn sound() -> Observations {
        Observations {
            interval: Duration::from_millis(100),
            lag_p99: Duration::from_millis(2),
            unread_p99: Duration::from_millis(3),
            planned: 150_000,
            sent: 150_000,
            acked: 149_990,
            asked: 1_000,
            live_at_end: 900,
            revoked: 100,
            own_udp_drops: Some(0),
            busiest_thread: Some(0.4),
            ..Observations::default()
        }
    }

    fn only(change: impl FnOnce(&mut Observations)) -> Invalid {
        let mut seen = sound();
        change(&mut seen);
        let mut reasons = judge(&seen);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(security_failures(&seen).is_empty());
        reasons.remove(0)
    }

    #[test]
    fn a_sound_run_is_valid() {
        assert_eq!(judge(&sound()), []);
        assert!(security_failures(&sound()).is_empty());
        assert!(unchecked(&sound()).is_empty());
    }

    #[test]
    fn lag_beyond_a_quarter_of_the_interval_is_invalid() {
        let limit = Duration::from_millis(25);
        let mut seen = sound();
        seen.lag_p99 = limit;
        assert_eq!(judge(&seen), []);
        let p99 = limit + Duration::from_micros(1);
        assert_eq!(only(|seen| seen.lag_p99 = p99), Invalid::Lag { p99, limit });
    }

    #[test]
    fn answers_left_unread_for_longer_than_an_interval_are_invalid() {
        let limit = Duration::from_millis(100);
        let mut seen = sound();
        seen.unread_p99 = limit;
        assert_eq!(judge(&seen), []);
        let p99 = limit + Duration::from_micros(1);
        let reason = only(|seen| seen.unread_p99 = p99);
        assert_eq!(reason, Invalid::Unread { p99, limit });
    }

    #[test]
    fn a_hundredth_of_the_sends_may_be_missing_and_no_more() {
        let mut seen = sound();
        seen.sent = 148_500;
        assert_eq!(judge(&seen), []);
        let reason = only(|seen| seen.sent = 148_499);
        assert!(matches!(reason, Invalid::SendsMissing { .. }));
        assert!(reason.to_string().contains("148499 of 150000"), "{reason}");
    }

    #[test]
    fn a_run_that_planned_nothing_is_invalid() {
        let reason = only(|seen| (seen.planned, seen.sent, seen.acked) = (0, 0, 0));
        assert!(matches!(reason, Invalid::SendsMissing { .. }));
    }

    #[test]
    fn clients_that_were_revoked_are_not_missing_and_others_are() {
        let reason = only(|seen| seen.live_at_end = 889);
        assert_eq!(
            reason,
            Invalid::ClientsMissing {
                accounted_for: 989,
                asked: 1_000
            }
        );
    }

    #[test]
    fn a_single_packet_dropped_at_the_generator_is_invalid() {
        let reason = only(|seen| seen.own_udp_drops = Some(1));
        assert_eq!(reason, Invalid::GeneratorDrops(1));
    }

    #[test]
    fn a_thread_that_is_nearly_always_busy_is_invalid() {
        let reason = only(|seen| seen.busiest_thread = Some(0.86));
        assert_eq!(reason, Invalid::ThreadBusy(0.86));
        assert!(reason.to_string().contains("86 %"), "{reason}");
    }

    #[test]
    fn a_silent_server_is_no_result() {
        assert_eq!(only(|seen| seen.acked = 0), Invalid::NoAnswer);
    }

    #[test]
    fn an_interrupted_run_is_invalid() {
        assert_eq!(only(|seen| seen.interrupted = true), Invalid::Interrupted);
    }

    #[test]
    fn a_villain_let_in_and_a_revoked_player_that_stays_are_security_failures() {
        let mut seen = sound();
        seen.wrongly_admitted = 1;
        seen.outlived_revocation = 2;
        assert_eq!(security_failures(&seen).len(), 2);
    }

    #[test]
    fn what_the_system_does_not_tell_is_named() {
        let mut seen = sound();
        seen.own_udp_drops = None;
        seen.busiest_thread = None;
        assert_eq!(judge(&seen), []);
        assert_eq!(unchecked(&seen).len(), 2);
    }
}
