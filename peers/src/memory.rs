//! What a client costs in memory: the group `memory`.

use std::time::Duration;

use anyhow::Context;

use crate::{
    bar::{Bar, Bound::AtMost, Figure},
    clients::crowd::{Crowd, GATHERING},
    cores::Cores,
    process::Server,
    report::{Group, Report, progress},
    rig::stopwatch::median,
    server::Kind,
    tokens::Mint,
};

/// Clients that are there and say nothing but that they are.
const CLIENTS: usize = 10_000;
/// Clients that come and go beforehand, so that nothing is counted that is there once: code that ran, tables that began to grow.
const BEFORE: usize = 100;
/// How long they are there before it is looked: two keep-alives, so that nothing is under way.
const SETTLE: Duration = Duration::from_secs(7);
/// Of the pairs, how many meet the peer that nothing is claimed about.
const ASIDE: usize = 3;

static VS_STOCK: Bar = Bar {
    name: "memory-vs-stock",
    bound: AtMost(0.8),
    about: "bytes of memory that the server's process grows by for each of 10,000 admitted clients that are silent, their seats included, over those of a connection to quinn with its defaults",
};

pub(crate) const GROUP: Group = Group {
    name: "memory",
    about: "10,000 silent clients of a gateway beside those of quinn (about seven minutes)",
    bars: &[&VS_STOCK],
    run: |report| crate::run(report, "memory", measure),
};

fn measure(report: &mut Report, cores: Cores, pairs: usize) -> anyhow::Result<()> {
    if !report.wants(VS_STOCK.name) {
        return Ok(());
    }
    let mut mint = Mint::new(3);
    let (mut stock, mut ours, mut s2n) = (vec![], vec![], vec![]);
    for pair in 0..pairs {
        stock.push(each(cores, Kind::Stock, &mut mint)?);
        ours.push(each(cores, Kind::Gateway, &mut mint)?);
        if pair < ASIDE {
            s2n.push(each(cores, Kind::S2n, &mut mint)?);
        }
    }
    let ratios: Vec<f64> = ours
        .iter()
        .zip(&stock)
        .map(|(ours, stock)| ours / stock)
        .collect();
    let note = format!(
        "quinn {:.1}, ours {:.1} KiB a client",
        median(&stock) / 1_024.0,
        median(&ours) / 1_024.0
    );
    report.bar(&VS_STOCK, Figure::of_pairs(&ratios, note));
    for (name, bytes) in [
        ("quinn-client-bytes", &stock),
        ("tickgate-client-bytes", &ours),
        ("s2n-quic-client-bytes", &s2n),
    ] {
        report.info(
            name,
            Figure::spread(median(bytes), bytes, "runs", "10,000 silent clients"),
        );
    }
    Ok(())
}

/// Bytes that a server's process grows by for each client.
fn each(cores: Cores, kind: Kind, mint: &mut Mint) -> anyhow::Result<f64> {
    let server = Server::start(kind, cores.server, None)?;
    let mut tokens = |count| -> anyhow::Result<Option<Vec<String>>> {
        match kind {
            Kind::Gateway => Ok(Some(mint.tokens(count)?)),
            _ => Ok(None),
        }
    };
    let mut crowd = Crowd::of(&server)?;
    for member in crowd.gather(BEFORE, GATHERING, tokens(BEFORE)?)? {
        crowd.go(member);
    }
    crowd.idle(Duration::from_secs(2))?;
    let before = server.memory()?;
    let members = crowd.gather(CLIENTS, GATHERING, tokens(CLIENTS)?)?;
    crowd.idle(SETTLE).context("the clients did not stay")?;
    let bytes = (server.memory()? - before) / members.len() as f64;
    progress(&format!(
        "{kind}: {bytes:.0} bytes a client; asked {CLIENTS}, there {}",
        members.len()
    ));
    Ok(bytes)
}
