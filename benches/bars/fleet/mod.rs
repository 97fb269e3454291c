//! The bars of the client fleet: what a client costs whoever measures a server with thousands of them.
//!
//! The server is stock quinn, in a process of its own. The clients run on the main thread, and their processor time is what the system
//! says of that thread: so neither the server's nor anybody else's counts.

mod bare;
mod crowd;
mod echo;

use std::{fs, time::Duration};

use tickgate::client::fleet::{Fleet, FleetConfig, Server, Transport};

use crate::{
    bar::{Bar, Bound::AtMost, Figure},
    report::{Group, Report, progress},
};

pub(crate) use echo::{AS_SERVER, serve};

/// Clients of the cost's comparison, and how often each sends, in hertz.
const CLIENTS: usize = 1_000;
const RATE: u32 = 30;
/// Datagrams' payload, in bytes: an input.
const PAYLOAD: usize = 64;
/// One run, of which a third is not counted: connections that had nothing to say meanwhile find their way back.
const RUN: Duration = Duration::from_millis(2_400);
const SETTLE: Duration = Duration::from_millis(800);
const PAIRS: usize = 9;
/// Clients of the memory's figure.
const MANY: usize = 10_000;
/// Sockets of either.
const SOCKETS: usize = 16;

#[rustfmt::skip]
mod claims {
    use super::{AtMost, Bar};

    pub(super) static COST: Bar = Bar {
        name: "generator-cost",
        bound: AtMost(0.7),
        about: "processor time of the client thread per datagram, out and its echo in, of the fleet / of a bare quinn client, 1,000 clients x 30 Hz each",
    };
    pub(super) static MEMORY: Bar = Bar {
        name: "client-kib",
        bound: AtMost(45.0),
        about: "KiB of anonymous memory that the process grows by for each of 10,000 clients that have sent and received",
    };
}

pub(crate) const GROUP: Group = Group {
    name: "fleet",
    about: "what thousands of clients on one thread cost, beside quinn's own (about two minutes)",
    bars: &[&claims::COST, &claims::MEMORY],
    run,
};

fn run(report: &mut Report) {
    // First, while the process has not grown for anything else.
    if report.wants(claims::MEMORY.name) {
        memory(report);
    }
    if report.wants(claims::COST.name) {
        cost(report);
    }
}

/// What came of one run of one kind of client.
struct Played {
    sent: u64,
    echoed: u64,
    /// Processor time of this thread, kernel included.
    nanos: f64,
}

impl Played {
    fn cost(&self, who: &str) -> f64 {
        let share = self.echoed as f64 / self.sent as f64;
        assert!(share > 0.97, "{who}: {share} of the echoes came back");
        self.nanos / self.sent as f64
    }
}

/// Nanoseconds of processor time that this thread has taken (Linux: the first field of its schedstat).
fn thread_nanos() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn cost(report: &mut Report) {
    progress(claims::COST.name);
    let server = echo::EchoServer::start();
    let mut fleet = crowd::Crowd::connect(&server, CLIENTS);
    let mut bare = bare::Bare::connect(&server, CLIENTS);
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    // One pair to warm up.
    for pair in 0..=PAIRS {
        // Who goes first alternates as well.
        let (one, other) = if pair % 2 == 0 {
            let fleet = fleet.play(RUN);
            (fleet, bare.play(RUN))
        } else {
            let bare = bare.play(RUN);
            (fleet.play(RUN), bare)
        };
        let (one, other) = (one.cost("fleet"), other.cost("quinn"));
        if pair > 0 {
            ratios.push(one / other);
            ours.push(one / 1_000.0);
            theirs.push(other / 1_000.0);
        }
    }
    let note = format!("{CLIENTS} clients x {RATE} Hz, {PAYLOAD} bytes, {SOCKETS} sockets each");
    report.bar(&claims::COST, Figure::of_pairs(&ratios, note));
    let us = |of: &[f64], what: &str| {
        let median = crate::rig::stopwatch::median(of);
        Figure::spread(
            median,
            of,
            "runs",
            format!("microseconds a datagram, {what}"),
        )
    };
    report.info("generator-us", us(&ours, "the fleet's"));
    report.info("quinn-client-us", us(&theirs, "quinn's"));
}

fn memory(report: &mut Report) {
    progress(claims::MEMORY.name);
    let server = echo::EchoServer::start();
    // What the sockets and the program itself take is there before it counts.
    let mut crowd = crowd::Crowd::connect(&server, 100);
    let _ = crowd.play(RUN);
    let before = anonymous_kib();
    let mut many = crowd::Crowd::connect(&server, MANY);
    let idle = anonymous_kib();
    many.say_once();
    let after = anonymous_kib();
    let note = format!(
        "{:.1} KiB before they had said anything; {:.0} MiB in all",
        (idle - before) / MANY as f64,
        after / 1_024.0
    );
    report.bar(
        &claims::MEMORY,
        Figure::exact((after - before) / MANY as f64, note),
    );
}

/// Of this process, without its program and its files.
fn anonymous_kib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next())
        .unwrap()
        .parse()
        .unwrap()
}

/// A fleet's sockets and transport, for both kinds of client.
fn transport() -> Transport {
    Transport {
        // Longer than the other's run.
        idle_timeout: Duration::from_secs(30),
        ..Transport::default()
    }
}

fn fleet(server: &echo::EchoServer) -> (Fleet, Server) {
    let config = FleetConfig {
        sockets: SOCKETS,
        ..FleetConfig::default()
    };
    let server = Server::new(server.address, "echo", server.tls(), &transport()).unwrap();
    (Fleet::new(config).unwrap(), server)
}

/// Datagrams that are due after so many milliseconds: one client after the other, each [`RATE`] times a second.
fn due(millis: u64, clients: usize) -> u64 {
    millis * clients as u64 * u64::from(RATE) / 1_000
}
