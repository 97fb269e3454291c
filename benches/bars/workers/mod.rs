//! The bar of several workers: clients whose address changes while they play reach the worker that has their state.
//!
//! The gateway is in this process, with its game; a stand-in makes the tokens that a sidecar would. The clients are a fleet on a thread of its
//! own.

mod gateway;
mod players;

use crate::{
    bar::{Bar, Bound::AtMost, Figure},
    report::{Group, Report, progress},
};

#[rustfmt::skip]
mod claims {
    use super::{AtMost, Bar};

    pub(super) static MISROUTED: Bar = Bar {
        name: "workers-misrouted",
        bound: AtMost(0.0),
        about: "of 1,000 clients of two workers, each of which changes its address twice while it plays: those lost, those that got another's answers, those whose seat is another one afterwards; and packets that reached the wrong worker",
    };
}

pub(crate) const GROUP: Group = Group {
    name: "workers",
    about: "clients that move, at a gateway of several workers (ten seconds)",
    bars: &[&claims::MISROUTED],
    run,
};

fn run(report: &mut Report) {
    if !report.wants(claims::MISROUTED.name) {
        return;
    }
    progress("1,000 clients of two workers, of which each moves twice");
    let gateway = gateway::Stage::start();
    let told = players::play(&gateway);
    let misrouted = gateway.gateway.counts().misrouted;
    let (workers, changed) = gateway.stop();
    let wrong = told.lost + told.strange + told.silent + changed + misrouted;
    let note = format!(
        "{} moves, half of them unknown to the client; {} answers, and none was another's if this is 0; {} and {} seats by worker; longest \
         time from a move to the first answer {} ms; {} lost{}, {} silent, {} packets at the wrong worker",
        told.moves,
        told.answers,
        workers[0],
        workers[1],
        told.longest.as_millis(),
        told.lost,
        told.why.map(|why| format!(" ({why})")).unwrap_or_default(),
        told.silent,
        misrouted,
    );
    // All on one worker would show nothing.
    let value = if workers.contains(&0) {
        f64::NAN
    } else {
        wrong as f64
    };
    report.bar(&claims::MISROUTED, Figure::exact(value, note));
}
