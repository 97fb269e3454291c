//! What it costs to let somebody in: the group `admission`.

use crate::{
    bar::{Bar, Bound::AtMost, Figure},
    clients::handshakes,
    cores::Cores,
    process::Server,
    report::{Group, Report, progress},
    rig::stopwatch::median,
    server::Kind,
    tokens::Mint,
};

/// Handshakes of a run, and how many begin in a second: a third of what the slowest server can do.
const HANDSHAKES: usize = 3_000;
const RATE: f64 = 1_000.0;
/// Of the pairs, how many meet the peer that nothing is claimed about.
const ASIDE: usize = 3;
/// Runs that may be void before a pair is given up.
const TRIES: usize = 3;

static VS_STOCK: Bar = Bar {
    name: "admission-vs-stock",
    bound: AtMost(0.95),
    about: "the server's processor time for an admission (handshake, token opened, single use, seat, Welcome) over that for a bare handshake of quinn with its defaults",
};
static VS_OWN_BARE: Bar = Bar {
    name: "admission-vs-own-bare",
    bound: AtMost(1.25),
    about: "the same over a bare handshake of the gateway itself, whose client goes before it says Hello",
};

pub(crate) const GROUP: Group = Group {
    name: "admission",
    about: "admissions by a gateway beside bare handshakes, a thousand a second (about two minutes)",
    bars: &[&VS_STOCK, &VS_OWN_BARE],
    run: |report| crate::run(report, "admission", measure),
};

fn measure(report: &mut Report, cores: Cores, pairs: usize) -> anyhow::Result<()> {
    let mut mint = Mint::new(1);
    let (mut stock, mut bare, mut admission, mut s2n) = (vec![], vec![], vec![], vec![]);
    for pair in 0..pairs {
        stock.push(cost(cores, Kind::Stock, None)?);
        admission.push(cost(cores, Kind::Gateway, Some(&mut mint))?);
        if report.wants(VS_OWN_BARE.name) {
            bare.push(cost(cores, Kind::Gateway, None)?);
        }
        if pair < ASIDE {
            s2n.push(cost(cores, Kind::S2n, None)?);
        }
    }
    let ratios = |others: &[f64]| -> Vec<f64> {
        admission
            .iter()
            .zip(others)
            .map(|(ours, other)| ours / other)
            .collect()
    };
    let of = |name: &str, others: &[f64]| {
        format!(
            "{name} {:.0}, admission {:.0} us",
            median(others),
            median(&admission)
        )
    };
    report.bar(
        &VS_STOCK,
        Figure::of_pairs(&ratios(&stock), of("quinn", &stock)),
    );
    if !bare.is_empty() {
        report.bar(
            &VS_OWN_BARE,
            Figure::of_pairs(&ratios(&bare), of("own bare", &bare)),
        );
    }
    for (name, costs) in [
        ("quinn-handshake-us", &stock),
        ("own-bare-handshake-us", &bare),
        ("s2n-quic-handshake-us", &s2n),
        ("admission-us", &admission),
    ] {
        if !costs.is_empty() {
            report.info(
                name,
                Figure::spread(median(costs), costs, "runs", "processor time of the server"),
            );
        }
    }
    Ok(())
}

/// Microseconds of the server's processor time for each client.
fn cost(cores: Cores, kind: Kind, mut mint: Option<&mut Mint>) -> anyhow::Result<f64> {
    for _ in 0..TRIES {
        let server = Server::start(kind, cores.server, None)?;
        let tokens = mint
            .as_mut()
            .map(|mint| mint.tokens(HANDSHAKES))
            .transpose()?;
        let what = if tokens.is_some() {
            "admissions"
        } else {
            "handshakes"
        };
        let (load, cpu) = handshakes::run(&server, HANDSHAKES, RATE, tokens)?;
        let each = 1e6 * cpu.as_secs_f64() / load.done.max(1) as f64;
        progress(&format!("{kind}: {what}: {each:.1} us each; {load}"));
        match load.void() {
            None => return Ok(each),
            Some(why) => progress(&format!("void: {why}")),
        }
    }
    anyhow::bail!("{TRIES} void runs in a row")
}
