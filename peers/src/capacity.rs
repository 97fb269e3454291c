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
/// The first search begins here.
const FIRST: usize = 400;
/// How near to each other the most that is held and the least that is not have to be in the end.
const FINE: f64 = 1.04;
/// Nobody holds fewer or gets here under this share.
const LEAST: usize = 20;
const MOST: usize = 4_000;
/// Runs that may be void before the search is given up.
const TRIES: usize = 3;

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
    let mut stock = Search::of(cores, Kind::Stock);
    let mut ours = Search::of(cores, Kind::Gateway);
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
    const fn of(cores: Cores, kind: Kind) -> Self {
        Self {
            cores,
            kind,
            near: FIRST,
            found: Vec::new(),
        }
    }

    /// Finds the most clients, from where they were last time: in growing steps until they are between two numbers, then by halves.
    fn again(&mut self, mint: &mut Mint) -> anyhow::Result<()> {
        let up = self.holds(self.near, mint)?;
        let (mut most, mut factor) = (self.near, FINE);
        let other = loop {
            let next = step(most, if up { factor } else { 1.0 / factor });
            if !(LEAST..=MOST).contains(&next) {
                anyhow::bail!("{} holds {most} clients or so, which cannot be", self.kind);
            }
            if self.holds(next, mint)? != up {
                break next;
            }
            most = next;
            factor *= factor;
        };
        let (mut held, mut not) = if up { (most, other) } else { (other, most) };
        while not as f64 > held as f64 * FINE + 1.0 {
            let middle = (held as f64 * not as f64).sqrt().round() as usize;
            if self.holds(middle, mint)? {
                held = middle;
            } else {
                not = middle;
            }
        }
        self.near = held;
        self.found.push(held as f64);
        Ok(())
    }

    /// Whether so many are held. A run in which the generator was the limit says nothing, and is made again.
    fn holds(&self, clients: usize, mint: &mut Mint) -> anyhow::Result<bool> {
        for _ in 0..TRIES {
            match self.play(clients, mint)? {
                Ok(holds) => return Ok(holds),
                Err(why) => progress(&format!("void: {why}")),
            }
        }
        anyhow::bail!("{TRIES} void runs in a row")
    }

    /// One run; the error inside says why it is void.
    fn play(&self, clients: usize, mint: &mut Mint) -> anyhow::Result<Result<bool, String>> {
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
                return Ok(Ok(false));
            }
        };
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
        Ok(echo.load.limited().map_or(Ok(holds), Err))
    }
}

/// One step up or down, and at least by one.
fn step(clients: usize, by: f64) -> usize {
    let next = (clients as f64 * by).round() as usize;
    if by > 1.0 {
        next.max(clients + 1)
    } else {
        next.min(clients.saturating_sub(1))
    }
}
