//! The command line: what may be asked, and what is said when it cannot be done.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

/// Simulates thousands of game clients against Tickgate and tells the truth about what it measured.
///
/// Without a command this is `loadtest run`, and takes its options: `loadtest run --help` tells more.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

impl Cli {
    /// What to do: `run`, unless something else is named.
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in players, let them play, play villains, revoke some, and report
    #[command(long_about = RUN_ABOUT, after_long_help = RUN_AFTER)]
    Run(RunArgs),
    /// The development stack in a child process. Not for people.
    #[command(name = STACK_ROLE, hide = true)]
    DevStack(StackArgs),
}

/// The name of the hidden role in which this program runs the development stack.
pub(crate) const STACK_ROLE: &str = "__dev-stack";

const RUN_ABOUT: &str = "\
Logs in players, connects them over QUIC with single-use connect tokens, lets each of them send its inputs at a fixed rate, and
measures how long the answers take. Meanwhile villains try to get in with tokens that must be refused, and some of the players are
revoked and must be thrown out.

Without --dev-json it starts a development stack of its own (sidecar, two gateways, demo world) in a child process, on other cores
where there are two or more, and ends it afterwards.

The load is open loop: input k of client i is due at phase(i) + k / hz whatever became of the inputs before it. The headline latency
counts from that instant, so a server that stalls, and a generator that is late, show.";

const RUN_AFTER: &str = "\
Examples:
  loadtest run                                        1,000 clients at 10 Hz for 15 s against a stack of its own
  loadtest run --clients 4000 --hz 30 --duration 1m   more of everything
  loadtest run --dev-json .tickgate/dev.json          against a running `tickgate dev`
  loadtest run --json report.json --quiet             for scripts; `--json -` writes to standard output

Exit codes:
  0  the run is valid, every villain was refused, every revoked player was gone within 2 s
  2  wrong arguments, or the target cannot be reached
  3  INVALID: the generator did not do what it set out to do; the figures are no result, and the report says why
  4  security failure: a villain was let in, or a revoked player stayed";

/// The knobs of a run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// How many clients play
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) clients: u32,

    /// How many inputs each client sends in a second
    #[arg(long, value_name = "HZ", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) hz: u32,

    /// How long to measure: "15s", "2m"
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub(crate) duration: Duration,

    /// How long to play before that, kept out of the figures: "1s", "0s"
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) warmup: Duration,

    /// How many UDP sockets the clients share, at least 16 [default: 16 to 64, by clients]
    ///
    /// With fewer, the kernel sees too few address pairs to spread them over a server's workers; with one per client, receive
    /// buffers take 3 MB each. Against a target on loopback (IPv4) each socket has an address of its own from 127.64.0.0/12, so that
    /// the gateway sees as many networks and its limits per network apply as they would to players; against a remote target
    /// all share this machine's address, and the gateway's limits for one network apply to them all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(16..=1_024))]
    pub(crate) endpoints: Option<u16>,

    /// How many of the clients are revoked while they play [default: a tenth of them]
    #[arg(long, value_name = "N")]
    pub(crate) revocations: Option<u32>,

    /// Let no villains come
    #[arg(long)]
    pub(crate) no_villains: bool,

    /// What all random choices follow from: the same seed is the same schedule, the same revoked clients, the same villains
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// A running stack's dev.json, instead of starting one
    #[arg(long, value_name = "FILE")]
    pub(crate) dev_json: Option<PathBuf>,

    /// Where to write the report as JSON ("-" is standard output; the table then goes to standard error)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// No progress and no table: only the verdict
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// How this program starts its own development stack.
#[derive(Debug, Args)]
pub(crate) struct StackArgs {
    /// Where the stack keeps its files
    #[arg(long)]
    pub(crate) state_dir: PathBuf,
    /// How many seats its gateway has
    #[arg(long)]
    pub(crate) capacity: u32,
    /// The CPUs it is confined to
    #[arg(long, value_delimiter = ',')]
    pub(crate) cores: Vec<usize>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number and a unit, such as 15s or 2m"))?;
    if duration > Duration::from_secs(86_400) {
        return Err("at most 24h".to_owned());
    }
    Ok(duration)
}

impl RunArgs {
    /// Checks what clap cannot: how the arguments go together.
    ///
    /// # Errors
    /// In words, naming the argument and what is allowed.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.duration < Duration::from_secs(1) {
            return Err("--duration must be at least 1s: less tells nothing".to_owned());
        }
        if let Some(revocations) = self.revocations.filter(|n| *n > self.clients) {
            return Err(format!(
                "--revocations {revocations} is more than --clients {}: revoke at most as many as play",
                self.clients
            ));
        }
        Ok(())
    }

    /// How many UDP sockets the clients share: one for 64 clients, but 16 to 64 of them, unless asked otherwise.
    pub(crate) fn endpoint_count(&self) -> u16 {
        let by_clients = u16::try_from(self.clients / 64).unwrap_or(u16::MAX);
        self.endpoints.unwrap_or_else(|| by_clients.clamp(16, 64))
    }

    /// How many clients are revoked: a tenth of them, unless asked otherwise.
    pub(crate) fn revocation_count(&self) -> u32 {
        self.revocations.unwrap_or(self.clients / 10)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(arguments: &[&str]) -> Result<RunArgs, clap::Error> {
        let all = ["loadtest", "run"].iter().chain(arguments);
        match Cli::try_parse_from(all)?.into_command() {
            Command::Run(run) => Ok(run),
            Command::DevStack(_) => panic!("that is `run`"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_main_job() {
        let run = run(&[]).unwrap();
        assert_eq!((run.clients, run.hz), (1_000, 10));
        assert_eq!(run.duration, Duration::from_secs(15));
        assert_eq!(run.revocation_count(), 100);
        assert_eq!(run.endpoint_count(), 16);
        assert!(!run.no_villains);
        assert_eq!(run.check(), Ok(()));
    }

    #[test]
    fn without_a_command_it_runs() {
        for arguments in [&["loadtest"][..], &["loadtest", "--clients", "1000"]] {
            let command = Cli::try_parse_from(arguments).unwrap().into_command();
            assert!(matches!(command, Command::Run(run) if run.clients == 1_000));
        }
    }

    #[test]
    fn more_clients_share_more_endpoints() {
        let endpoints = |clients| run(&["--clients", clients]).unwrap().endpoint_count();
        assert_eq!(endpoints("1"), 16);
        assert_eq!(endpoints("2048"), 32);
        assert_eq!(endpoints("20000"), 64);
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (arguments, named) in [
            (["--clients", "0"], "--clients"),
            (["--hz", "2000"], "--hz"),
            (["--endpoints", "1"], "--endpoints"),
            (["--duration", "soon"], "--duration"),
            (["--warmup", "25h"], "--warmup"),
        ] {
            let message = run(&arguments).unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
        let too_many = run(&["--clients", "5", "--revocations", "6"]).unwrap();
        assert!(too_many.check().unwrap_err().contains("--revocations"));
        let too_short = run(&["--duration", "10ms"]).unwrap();
        assert!(too_short.check().unwrap_err().contains("--duration"));
    }
}
