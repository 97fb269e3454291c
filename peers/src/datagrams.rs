//! What it costs to carry a tick's traffic: the group `datagrams`.

use std::time::Duration;

use crate::{
    bar::{Bar, Bound::AtMost, Figure},
    capacity,
    clients::{crowd::GATHERING, echoes, netcode},
    cores::Cores,
    echo::{Echo, Plan},
    process::Server,
    report::{Group, Report, progress},
    rig::stopwatch::median,
    server::Kind,
    tokens::Mint,
};

/// A thousand players who send 30 inputs a second.
const PLAN: Plan = Plan {
    clients: 1_000,
    hz: 30.0,
    gathering: GATHERING,
    warmup: Duration::from_secs(1),
    span: Duration::from_secs(3),
};
/// Of the pairs, how many meet the peers that nothing is claimed about.
const ASIDE: usize = 3;
/// Runs that may be void before a pair is given up.
const TRIES: usize = 3;

static VS_STOCK: Bar = Bar {
    name: "datagram-vs-stock",
    bound: AtMost(0.65),
    about: "the server's processor time for an input in and out at 1,000 clients x 30 Hz, every seat verified on every tick of 60 Hz, over that of a task per connection on quinn that sends each datagram back",
};
static RTT: Bar = Bar {
    name: "datagram-rtt-vs-stock-ms",
    bound: AtMost(33.3),
    about: "how many milliseconds longer an input takes there and back than with that server, p99 from when it was due: two ticks at the most",
};

pub(crate) const GROUP: Group = Group {
    name: "datagrams",
    about: "inputs in and out of a gateway beside those of a plain loop over quinn (about eleven minutes)",
    bars: &[&VS_STOCK, &RTT, &capacity::CLIENTS],
    run: |report| crate::run(report, "datagrams", measure),
};

fn measure(report: &mut Report, cores: Cores, pairs: usize) -> anyhow::Result<()> {
    let mut mint = Mint::new(2);
    let (mut stock, mut ours, mut s2n, mut renet) = (vec![], vec![], vec![], vec![]);
    if report.wants_any(&[VS_STOCK.name, RTT.name]) {
        for pair in 0..pairs {
            stock.push(once(cores, Kind::Stock, &mut mint)?);
            ours.push(once(cores, Kind::Gateway, &mut mint)?);
            if pair < ASIDE {
                s2n.push(once(cores, Kind::S2n, &mut mint)?);
                renet.push(once(cores, Kind::Netcode, &mut mint)?);
            }
        }
    }
    let costs = |echoes: &[Echo]| -> Vec<f64> { echoes.iter().map(Echo::cost).collect() };
    let late = |echoes: &[Echo]| -> Vec<f64> { echoes.iter().map(|echo| echo.rtt_p99).collect() };
    let ratios: Vec<f64> = ours
        .iter()
        .zip(&stock)
        .map(|(ours, stock)| ours.cost() / stock.cost())
        .collect();
    let later: Vec<f64> = ours
        .iter()
        .zip(&stock)
        .map(|(ours, stock)| ours.rtt_p99 - stock.rtt_p99)
        .collect();
    if !ratios.is_empty() {
        report.bar(
            &VS_STOCK,
            Figure::of_pairs(
                &ratios,
                format!(
                    "quinn {:.1}, ours {:.1} us",
                    median(&costs(&stock)),
                    median(&costs(&ours))
                ),
            ),
        );
        report.bar(
            &RTT,
            Figure::of_pairs(
                &later,
                format!(
                    "p99 of quinn {:.1}, of ours {:.1} ms",
                    median(&late(&stock)),
                    median(&late(&ours))
                ),
            ),
        );
    }
    for (name, echoes) in [
        ("quinn", &stock),
        ("tickgate", &ours),
        ("s2n-quic", &s2n),
        ("renet", &renet),
    ] {
        if echoes.is_empty() {
            continue;
        }
        let costs = costs(echoes);
        let p50: Vec<f64> = echoes.iter().map(|echo| echo.rtt_p50).collect();
        let lost: f64 = echoes.iter().map(Echo::loss).sum::<f64>() / echoes.len() as f64;
        report.info(
            format!("{name}-datagram-us"),
            Figure::spread(
                median(&costs),
                &costs,
                "runs",
                format!(
                    "RTT p50 {:.1}, p99 {:.1} ms, lost {:.3} %",
                    median(&p50),
                    median(&late(echoes)),
                    100.0 * lost
                ),
            ),
        );
    }
    capacity::measure(report, cores, pairs)
}

/// One run that counts. What a peer loses is its own figure; what the gateway or quinn loses makes the run void.
fn once(cores: Cores, kind: Kind, mint: &mut Mint) -> anyhow::Result<Echo> {
    for _ in 0..TRIES {
        let server = Server::start(kind, cores.server, None)?;
        let echo = play(&server, PLAN, mint)?;
        progress(&format!(
            "{kind}: {:.1} us for an input in and out; RTT p50 {:.1}, p99 {:.1} ms; {}; kernel dropped {}",
            echo.cost(),
            echo.rtt_p50,
            echo.rtt_p99,
            echo.load,
            echo.drops
        ));
        let void = match kind {
            Kind::Stock | Kind::Gateway => echo.load.void(),
            Kind::S2n | Kind::Netcode => echo.load.limited(),
        };
        match void {
            None => return Ok(echo),
            Some(why) => progress(&format!("void: {why}")),
        }
    }
    anyhow::bail!("{TRIES} void runs in a row")
}

/// Has a server's own kind of clients play.
pub(crate) fn play(server: &Server, plan: Plan, mint: &mut Mint) -> anyhow::Result<Echo> {
    match server.kind {
        Kind::Netcode => netcode::run(server, plan),
        Kind::Gateway => echoes::run(server, plan, Some(mint.tokens(plan.clients)?)),
        Kind::Stock | Kind::S2n => echoes::run(server, plan, None),
    }
}
