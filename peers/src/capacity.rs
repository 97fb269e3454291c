//! How many players a server holds: the bar `clients-per-core` of the group `datagrams`.
//!
//! Both servers run under the same share of a processor, given out by the kernel, which is small enough that the generator's own processor
//! has time to spare at the most clients that either holds. What is compared is how many that is; a whole processor holds more.

use std::time::Duration;

use crate::{
    bar::{Bar, Bound::AtLeast, Figure},
    cores::Cores,
    datagrams,
    echo::Plan,
    process::Server,
    report::{Report, progress},
    rig::stopwatch::median,
    server::Kind,
    tokens::Mint,
};

/// Of one processor.
const SHARE: f64 = 0.3;
const HZ: f64 = 30.0;
/// What still counts as held.
const LOSS: f64 = 0.001;
const RTT_P99_MS: f64 = 100.0;
/// Clients that come in a second: half of what the share has time for.
const GATHERING: f64 = 400.0;
/// The first search begins here and goes up by quarters; what follows goes by steps of this.
const LEAST: usize = 160;
const COARSE: f64 = 1.25;
const FINE: f64 = 1.04;
/// Nobody gets here under this share.
const MOST: usize = 4_000;

pub(crate) static CLIENTS: Bar = Bar {
    name: "clients-per-core",
    bound: AtLeast(1.4),
    about: "how many clients x 30 Hz the gateway holds (loss under 0.1 %, RTT p99 under 100 ms) over how many a task per connection on quinn does, both with the same share of a processor",
};

pub(crate) fn measure(report: &mut Report, cores: Cores, pairs: usize) -> anyhow::Result<()> {
    if !report.wants(CLIENTS.name) {
        return Ok(());
    }
    let mut mint = Mint::new(4);
    let mut stock = Search::begin(cores, Kind::Stock, &mut mint)?;
    let mut ours = Search::begin(cores, Kind::Gateway, &mut mint)?;
    for _ in 0..pairs {
        stock.again(&mut mint)?;
        ours.again(&mut mint)?;
    }
    let pairs = ours.found.iter().zip(&stock.found);
    let ratios: Vec<f64> = pairs.map(|(ours, stock)| ours / stock).collect();
    let note = format!(
        "quinn {:.0}, ours {:.0} clients with {SHARE} of a processor",
        median(&stock.found),
        median(&ours.found)
    );
    report.bar(&CLIENTS, Figure::of_pairs(&ratios, note));
    Ok(())
}

/// The most clients that a server holds, found again and again.
struct Search {
    cores: Cores,
    kind: Kind,
    /// Where to look next time.
    near: usize,
    found: Vec<f64>,
}

impl Search {
    /// Finds out where about it is.
    fn begin(cores: Cores, kind: Kind, mint: &mut Mint) -> anyhow::Result<Self> {
        let mut search = Self {
            cores,
            kind,
            near: LEAST,
            found: Vec::new(),
        };
        loop {
            let next = step(search.near, COARSE);
            if next > MOST || !search.holds(next, mint)? {
                return Ok(search);
            }
            search.near = next;
        }
    }

    /// Finds the most clients, from where they were last time.
    fn again(&mut self, mint: &mut Mint) -> anyhow::Result<()> {
        let mut most = self.near;
        if self.holds(most, mint)? {
            loop {
                let next = step(most, FINE);
                if next > MOST || !self.holds(next, mint)? {
                    break;
                }
                most = next;
            }
        } else {
            loop {
                most = step(most, 1.0 / FINE);
                if most < LEAST / 2 {
                    anyhow::bail!("{} holds hardly anybody", self.kind);
                }
                if self.holds(most, mint)? {
                    break;
                }
            }
        }
        self.near = most;
        self.found.push(most as f64);
        Ok(())
    }

    fn holds(&self, clients: usize, mint: &mut Mint) -> anyhow::Result<bool> {
        let plan = Plan {
            clients,
            hz: HZ,
            gathering: GATHERING,
            warmup: Duration::from_secs(1),
            span: Duration::from_secs(3),
        };
        let server = Server::start(self.kind, self.cores.server, Some(SHARE))?;
        let echo = match datagrams::play(&server, plan, mint) {
            Ok(echo) => echo,
            // Who cannot even take them in does not hold them.
            Err(error) => {
                progress(&format!("{}: {clients} clients: no: {error:#}", self.kind));
                return Ok(false);
            }
        };
        if let Some(why) = echo.load.limited() {
            anyhow::bail!("void: {why}");
        }
        let holds = echo.loss() < LOSS && echo.rtt_p99 < RTT_P99_MS;
        progress(&format!(
            "{}: {clients} clients: {}: lost {:.3} %, RTT p50 {:.1}, p99 {:.1} ms; {}; kernel dropped {}",
            self.kind,
            if holds { "yes" } else { "no" },
            100.0 * echo.loss(),
            echo.rtt_p50,
            echo.rtt_p99,
            echo.load,
            echo.drops
        ));
        Ok(holds)
    }
}

/// One step up or down, and at least by one.
fn step(clients: usize, by: f64) -> usize {
    let next = (clients as f64 * by).round() as usize;
    if by > 1.0 {
        next.max(clients + 1)
    } else {
        next.min(clients - 1)
    }
}
