//! A run as a process: where its report goes, and what its exit code says.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::RunArgs,
    report::Report,
    run::{self, Ended},
    table,
};

/// The exit code of wrong arguments and targets that cannot be used.
const USAGE: u8 = 2;
/// The exit code of runs that are no result.
const INVALID: u8 = 3;

/// Runs what `args` ask for and writes the report.
pub(crate) fn run_and_report(args: &RunArgs) -> ExitCode {
    match try_to(args) {
        Ok(code) => code.into(),
        Err(error) => {
            // Nobody is left to tell when standard error is gone; the code says it all the same.
            let _ = writeln!(io::stderr(), "loadtest: {error:#}");
            USAGE.into()
        }
    }
}

fn try_to(args: &RunArgs) -> anyhow::Result<u8> {
    args.check().map_err(anyhow::Error::msg)?;
    let json = args.json.as_deref().map(JsonSink::open).transpose()?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    let ended = runtime.block_on(async {
        let interrupts = tokio::spawn(stop_on_interrupt(stop.clone()));
        let ended = run::run(args, stop).await;
        interrupts.abort();
        ended
    })?;
    match ended {
        Ended::Reported(report) => {
            write(&report, args.quiet, json)?;
            Ok(report.verdict.exit_code())
        }
        Ended::Interrupted => {
            writeln!(io::stderr(), "INVALID: interrupted before play began")?;
            Ok(INVALID)
        }
    }
}

/// The first Ctrl-C ends the run with a report of what there is, the second ends the process.
async fn stop_on_interrupt(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INVALID.into());
    }
}

/// Where the JSON goes. Opened before the run, so that a wrong path is told at once and not after it.
enum JsonSink {
    StandardOutput,
    File(File),
}

impl JsonSink {
    fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::StandardOutput);
        }
        let file = File::create(path);
        file.map(Self::File)
            .with_context(|| format!("--json {}: cannot write there", path.display()))
    }
}

fn write(report: &Report, quiet: bool, json: Option<JsonSink>) -> anyhow::Result<()> {
    let people = |out: &mut dyn Write| {
        if quiet {
            table::write_verdict(report, out)
        } else {
            table::write_report(report, out)
        }
    };
    match json {
        Some(JsonSink::StandardOutput) => {
            people(&mut io::stderr().lock())?;
            write_json(report, &mut io::stdout().lock())
        }
        Some(JsonSink::File(mut file)) => {
            people(&mut io::stdout().lock())?;
            write_json(report, &mut file)
        }
        None => Ok(people(&mut io::stdout().lock())?),
    }
}

fn write_json(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)?;
    Ok(())
}
