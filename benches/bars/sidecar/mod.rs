//! The bars of the sidecar: what a login, a session, a connect token and a revocation cost.
//!
//! But for the store, which is measured at its own interface, the sidecar is the real program as a process of its own, over TLS on
//! loopback and with an embedded store: so its memory and its processor time are what the system says of that process, and not its
//! clients'.

mod fanout;
mod logins;
mod memory;
mod mint;
mod stage;

use crate::{
    bar::{
        Bar,
        Bound::{AtLeast, AtMost},
    },
    report::{Group, Report},
};

#[rustfmt::skip]
mod claims {
    use super::{AtLeast, AtMost, Bar};

    pub(super) static LOGIN: Bar = Bar {
        name: "login-redb",
        bound: AtLeast(20.0),
        about: "logins a second of known players by 256 callers at once / by one after the other, each with a commit of its own, at the store's interface, on a real file",
    };
    pub(super) static BYTES_PER_SESSION: Bar = Bar {
        name: "bytes-per-session",
        bound: AtMost(1_024.0),
        about: "what the process of a sidecar over redb grows by in anonymous memory, for each of 100,000 live sessions of as many players",
    };
    pub(super) static MINT_PER_CORE: Bar = Bar {
        name: "mint-per-core",
        bound: AtLeast(10_000.0),
        about: "connect tokens by gRPC over TLS, for each second of processor time that the sidecar's process takes, kernel included",
    };
    pub(super) static FANOUT: Bar = Bar {
        name: "fanout-p99-ms",
        bound: AtMost(100.0),
        about: "milliseconds from when a revocation is due to be asked for until the last of 100 attached gateways has applied it, p99, 1,000 a second",
    };
}

pub(crate) const GROUP: Group = Group {
    name: "sidecar",
    about: "logins, sessions, connect tokens and revocations of a real sidecar (about two minutes)",
    bars: &[
        &claims::LOGIN,
        &claims::BYTES_PER_SESSION,
        &claims::MINT_PER_CORE,
        &claims::FANOUT,
    ],
    run,
};

fn run(report: &mut Report) {
    if report.wants(claims::LOGIN.name) {
        logins::measure(report);
    }
    if report.wants(claims::BYTES_PER_SESSION.name) {
        memory::measure(report);
    }
    if report.wants(claims::MINT_PER_CORE.name) {
        mint::measure(report);
    }
    if report.wants(claims::FANOUT.name) {
        fanout::measure(report);
    }
}
