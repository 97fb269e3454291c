//! `tickgate gateways`: who is attached, and emptying one.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::json;
use tickgate::{client::AttachedGateway, id::GatewayId};

use super::{
    Global,
    failure::Failure,
    line::Line,
    table::{Table, list},
};

/// List and drain gateways
#[derive(Debug, Args)]
pub(super) struct Gateways {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Drain(Drain),
}

impl Gateways {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(global),
            Command::Drain(drain) => drain.run(global),
        }
    }
}

/// List the gateways that are attached now
#[derive(Debug, Args)]
#[command(
    long_about = "Lists the gateways that are attached to the sidecar now: where clients reach them, how full they are, how far they have \
        applied the revocation log, and whether they drain. One that is not here gets no players.",
    after_long_help = "Examples:\n  \
        tickgate gateways list\n  \
        tickgate gateways list --json | jq '[.gateways[].seats] | add'\n\n\
        With --json: {\"gateways\": [{\"id\", \"incarnation\", \"addresses\", \"capacity\", \"seats\", \"revision\", \"draining\"}]}\n\n\
        What to do next: `tickgate gateways drain ID` empties one before it is restarted."
)]
struct List {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    line: Line,
}

impl List {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let operator = self.line.connect(global)?;
        let gateways = operator.call(|admin| admin.list_gateways())?;
        let mut out = io::stdout().lock();
        if self.json {
            let gateways: Vec<_> = gateways.iter().map(as_json).collect();
            writeln!(out, "{:#}", json!({ "gateways": gateways }))?;
            return Ok(());
        }
        let mut table = Table::new([
            "gateway",
            "seats",
            "of",
            "state",
            "revision",
            "addresses",
            "process",
        ]);
        for gateway in &gateways {
            table.row([
                gateway.id.to_string(),
                gateway.seats.to_string(),
                gateway.capacity.to_string(),
                if gateway.draining { "draining" } else { "open" }.to_owned(),
                gateway.revision.to_string(),
                list(&gateway.addresses),
                gateway.incarnation.to_string(),
            ]);
        }
        table.print(&mut out)?;
        Ok(())
    }
}

fn as_json(gateway: &AttachedGateway) -> serde_json::Value {
    let AttachedGateway {
        id,
        incarnation,
        addresses,
        capacity,
        seats,
        revision,
        draining,
    } = gateway;
    json!({
        "id": id.to_string(),
        "incarnation": incarnation.to_string(),
        "addresses": addresses,
        "capacity": capacity,
        "seats": seats,
        "revision": revision.0,
        "draining": draining,
    })
}

/// Let a gateway run empty
#[derive(Debug, Args)]
#[command(
    long_about = "Tells a gateway to admit nobody any more. Those in play may stay until the deadline, and are closed as `drained` then, which \
        their clients take as a sign to go to another gateway. No connect tokens are made for a gateway that drains. Its process runs \
        on; `--cancel` lets it admit again.",
    after_long_help = "Examples:\n  \
        tickgate gateways drain eu-1                    those in play may stay for a minute\n  \
        tickgate gateways drain eu-1 --deadline 15m     until their match is over\n  \
        tickgate gateways drain eu-1 --deadline 0s      everybody out\n  \
        tickgate gateways drain eu-1 --cancel           admit again\n\n\
        With --json: {\"gateway\", \"draining\", \"deadline_ms\", \"seats\"}\n\n\
        Exit codes: 0 told, 1 it is not attached, 4 no such gateway.\n\n\
        What to do next: `tickgate gateways list` shows how many are left; then end its process with SIGTERM."
)]
struct Drain {
    /// The gateway's id
    gateway: GatewayId,

    /// How long those in play may stay: up to 24h
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration, conflicts_with = "cancel")]
    deadline: Duration,

    /// Admit again
    #[arg(long)]
    cancel: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    line: Line,
}

impl Drain {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let Self {
            gateway,
            deadline,
            cancel,
            json,
            line,
        } = self;
        let operator = line.connect(global)?;
        let seats = if cancel {
            operator.call(|admin| admin.cancel_drain(&gateway))?
        } else {
            operator.call(|admin| admin.drain_gateway(&gateway, deadline))?
        };
        let mut out = io::stdout().lock();
        if json {
            let told = json!({
                "gateway": gateway.to_string(),
                "draining": !cancel,
                "deadline_ms": (!cancel).then_some(deadline.as_millis()),
                "seats": seats,
            });
            writeln!(out, "{told:#}")?;
        } else if cancel {
            writeln!(out, "{gateway} admits again; {seats} seats are taken")?;
        } else {
            let deadline = humantime::format_duration(deadline);
            writeln!(
                out,
                "{gateway} drains: nobody is admitted, and whoever is left of {seats} is closed in {deadline}"
            )?;
        }
        Ok(())
    }
}
