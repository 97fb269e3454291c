//! The report for people: a table of plain text.

use std::{
    io::{self, Write},
    time::Duration,
};

use crate::{
    measure::Summary,
    report::{Report, Verdict},
};

/// Writes the whole report.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write_report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    write_heading(report, out)?;
    write_clients(report, out)?;
    write_latencies(report, out)?;
    write_villains(report, out)?;
    write_processes(report, out)?;
    write_verdict(report, out)
}

fn write_heading(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let asked = &report.settings;
    let phases = &report.phases;
    writeln!(
        out,
        "\n{} clients at {} Hz for {} s after {} s of warm-up, {} endpoints, seed {}, against {}",
        thousands(asked.clients.into()),
        asked.hz,
        asked.duration_s,
        asked.warmup_s,
        asked.endpoints,
        asked.seed,
        asked.target,
    )?;
    writeln!(
        out,
        "started in {:.1} s, logged in in {:.1} s, connected in {:.1} s, played {:.1} s\n",
        phases.start_s, phases.log_in_s, phases.connect_s, phases.play_s,
    )
}

fn write_clients(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let clients = &report.clients;
    let loss = &report.loss;
    writeln!(
        out,
        "clients      {} asked, {} admitted, {} live at the end, {} revoked",
        thousands(clients.asked.into()),
        thousands(clients.admitted.into()),
        thousands(clients.live_at_end.into()),
        thousands(clients.revoked.into()),
    )?;
    for (name, count) in &clients.refused {
        writeln!(
            out,
            "             {} not admitted: {name}",
            thousands(*count)
        )?;
    }
    for (name, count) in &clients.closed {
        writeln!(
            out,
            "             {} ended during play: {name}",
            thousands(*count)
        )?;
    }
    writeln!(
        out,
        "inputs       {} planned, {} sent, {} acknowledged, {} lost ({}), {} cut off by revocation",
        thousands(loss.planned),
        thousands(loss.sent),
        thousands(loss.acked),
        thousands(loss.lost),
        percent(loss.lost, loss.sent),
        thousands(loss.cut_off),
    )?;
    let revocations = &report.revocations;
    writeln!(
        out,
        "revocations  {} planned, {} acknowledged, {} closed in time, {} closed otherwise, {} still alive, {} undecided, {} failed\n",
        revocations.planned,
        revocations.acknowledged,
        revocations.closed,
        revocations.closed_otherwise,
        revocations.still_alive,
        revocations.undecided,
        revocations.failed,
    )
}

fn write_latencies(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<40} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "latency", "count", "p50", "p99", "p99.9", "max"
    )?;
    let rows: [(&str, &Summary); 6] = [
        (
            "input, from the instant it was due",
            &report.datagram_intended_us,
        ),
        (
            "input, from the instant it was sent",
            &report.datagram_sent_us,
        ),
        ("admission, connect to Welcome", &report.admission_us),
        ("revocation, to the close seen", &report.revoke_to_close_us),
        (
            "generator's own: input due to sent",
            &report.generator.lag_us,
        ),
        (
            "generator's own: answer unread, at most",
            &report.generator.unread_us,
        ),
    ];
    for (name, summary) in rows {
        if summary.count == 0 {
            writeln!(out, "{name:<40} {:>9}", "none")?;
            continue;
        }
        writeln!(
            out,
            "{name:<40} {:>9} {:>9} {:>9} {:>9} {:>9}",
            thousands(summary.count),
            micros(summary.p50),
            micros(summary.p99),
            micros(summary.p999),
            micros(summary.max),
        )?;
    }
    writeln!(out)
}

fn write_villains(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.villains.is_empty() {
        return writeln!(out, "no villains came\n");
    }
    writeln!(
        out,
        "{:<16} {:>6} {:>8} {:>9} {:>10}  seen (expected)",
        "villains", "tried", "refused", "admitted", "explained"
    )?;
    for (kind, villains) in &report.villains {
        let mut seen: Vec<String> = villains
            .refused_with
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if villains.not_played > 0 {
            seen.push(format!("not played {}", villains.not_played));
        }
        writeln!(
            out,
            "{:<16} {:>6} {:>8} {:>9} {:>10}  {} ({})",
            kind.replace('_', " "),
            villains.tried,
            villains.refused,
            villains.admitted,
            villains.explained,
            seen.join(", "),
            villains.expected,
        )?;
    }
    writeln!(out)
}

fn write_processes(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let play = report.phases.play_s;
    let generator = &report.generator;
    writeln!(
        out,
        "generator    {:.2} s of CPU in play ({}), {}; busiest of {} threads busy for {} of play ({} without a CPU); {} packets dropped{}",
        generator.cpu_seconds,
        share_of(generator.cpu_seconds, play),
        mebibytes(generator.rss_bytes),
        generator.threads,
        share(generator.busiest_thread),
        share(generator.longest_wait_for_cpu),
        generator.udp_drops.map_or_else(unknown, thousands),
        on_cores(&generator.cores),
    )?;
    match &report.server {
        Some(server) => writeln!(
            out,
            "server       {:.2} s of CPU in play ({}), {} (at most {}){}",
            server.cpu_seconds,
            share_of(server.cpu_seconds, play),
            mebibytes(server.rss_bytes),
            mebibytes(server.rss_peak_bytes),
            on_cores(&server.cores),
        )?,
        None => writeln!(
            out,
            "server       not on this machine: CPU and memory unknown"
        )?,
    }
    for rule in &report.unchecked {
        writeln!(out, "not checked  {rule}")?;
    }
    writeln!(out)
}

/// Writes the verdict with its reasons: the last lines of every report, and all of a quiet one.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write_verdict(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for failure in &report.security_failures {
        writeln!(out, "SECURITY FAILURE: {failure}")?;
    }
    for reason in &report.invalid_reasons {
        writeln!(out, "INVALID: {reason}")?;
    }
    if report.verdict == Verdict::Pass {
        let tried: u64 = report
            .villains
            .values()
            .map(|villains| villains.tried)
            .sum();
        writeln!(
            out,
            "VALID: {} of {} clients admitted, {} wrongly; {tried} villains refused; {} of {} revoked players gone in time",
            thousands(report.clients.admitted.into()),
            thousands(report.clients.asked.into()),
            report.wrongly_admitted,
            report.revocations.closed,
            report.revocations.planned,
        )?;
    }
    Ok(())
}

/// "1,234,567".
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds in the unit that people would use: "940 µs", "9.10 ms", "1.25 s".
pub(crate) fn micros(micros: u64) -> String {
    let duration = Duration::from_micros(micros);
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{:.2} ms", duration.as_secs_f64() * 1e3),
        100_000..1_000_000 => format!("{:.0} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn percent(part: u64, whole: u64) -> String {
    format!("{:.2} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn share_of(part: f64, whole: f64) -> String {
    format!("{:.0} %", part * 100.0 / whole.max(f64::MIN_POSITIVE))
}

#[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A share that the system may not tell.
fn share(share: Option<f64>) -> String {
    share.map_or_else(unknown, |share| share_of(share, 1.0))
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn on_cores(cores: &[usize]) -> String {
    if cores.is_empty() {
        return String::new();
    }
    let names: Vec<String> = cores.iter().map(ToString::to_string).collect();
    format!(", on CPU {}", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(micros(940), "940 µs");
        assert_eq!(micros(9_103), "9.10 ms");
        assert_eq!(micros(250_000), "250 ms");
        assert_eq!(micros(1_250_000), "1.25 s");
    }

    #[test]
    fn an_invalid_run_never_looks_like_a_result() {
        let mut text = Vec::new();
        write_report(&example(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.ends_with("INVALID: the generator sent too late\n"),
            "{text}"
        );
        assert!(!text.contains("\nVALID"), "{text}");
    }

    #[test]
    fn a_pass_says_so_in_its_last_line() {
        let mut report = example();
        report.verdict = Verdict::Pass;
        report.invalid_reasons.clear();
        let mut text = Vec::new();
        write_verdict(&report, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "VALID: 1,000 of 1,000 clients admitted, 0 wrongly; 8 villains refused; 100 of 100 revoked players gone in time\n"
        );
    }
}
