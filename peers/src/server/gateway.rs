//! Tickgate's gateway, embedded as a game server embeds it, with the least of games: 60 times a second every seat is verified, and every
//! input of a seat that may stay is sent back.
//!
//! The sidecar is stood in for: the transport key is known beforehand, and a thread hears the gateway's reports and lets it hear
//! heartbeats, as the control channel does. What gRPC costs for that is not in the figures.

use std::{
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tickgate::{
    certs,
    clock::Clock,
    control::{CarriedKey, GatewayHost, SeatReport},
    gateway::{Channel, Exchange, Gateway, GatewayConfig, Limits, Simulation, Ticker},
    id::{Lineage, Revision},
    seat::{Answers, Handle, SeatChange, SeatConfig},
};

use super::{Announced, LISTEN, SERVER_NAME, SHARED_KEY};
use crate::tokens::GATEWAY;

const TICKS: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// Seats: more than any of the measurements takes.
const SEATS: u32 = 16_384;
/// How often the control channel's stand-in takes a report.
const REPORTS: Duration = Duration::from_millis(100);

pub(super) fn run() -> anyhow::Result<()> {
    let identity = certs::quic_identity(SERVER_NAME)?;
    let announced = Announced::quic(LISTEN, &identity);
    let mut config = GatewayConfig::new(GATEWAY.parse()?, LISTEN, identity);
    config.seats = SeatConfig {
        capacity: SEATS,
        ..config.seats
    };
    // One driver on one address stands for a whole world of clients: a proven prefix may begin as many handshakes as all could.
    config.limits = Limits {
        prefix_rate: 100_000,
        prefix_burst: 100_000,
        ..config.limits
    };
    let (gateway, simulation) = Gateway::start(config.ticking_at(TICKS))?;
    thread::Builder::new()
        .name("game".to_owned())
        .spawn(move || Game::default().run(simulation))?;
    let host = gateway.host();
    attach(&*host);
    Announced {
        address: gateway.local_addr(),
        ..announced
    }
    .tell()?;
    stand_in(&*host)
}

/// What a sidecar does with a gateway that comes to it.
fn attach(host: &dyn GatewayHost) {
    let _ = host.describe();
    let _ = host.live_seats();
    host.install_keys(&[CarriedKey {
        epoch: 1,
        key: Bytes::copy_from_slice(&SHARED_KEY),
    }]);
    host.reset_log(Lineage(1), Revision(0), &[]);
    host.attached(Clock::system().wall(), Duration::from_secs(3_600));
}

fn stand_in(host: &dyn GatewayHost) -> ! {
    let clock = Clock::system();
    let mut report = SeatReport::default();
    loop {
        host.take_report(&mut report);
        report.opened.clear();
        report.closed.clear();
        report.active.clear();
        report.events.clear();
        host.heartbeat(clock.wall(), Revision(0));
        sleep_until(clock.now() + REPORTS, &clock);
    }
}

#[expect(clippy::disallowed_methods, reason = "it waits for the time alone")]
fn sleep_until(due: Instant, clock: &Clock) {
    thread::sleep(due.saturating_duration_since(clock.now()));
}

/// The least of games.
#[derive(Default)]
struct Game {
    /// In the order of their slots.
    present: Vec<Handle>,
    answers: Answers,
}

impl Game {
    fn run(mut self, mut simulation: Simulation) {
        let mut ticker = Ticker::new(TICKS);
        loop {
            ticker.wait();
            self.tick(simulation.tick());
        }
    }

    fn tick(&mut self, exchange: Exchange<'_>) {
        let Exchange {
            changes,
            inputs,
            seats,
            mut out,
            ..
        } = exchange;
        for change in changes {
            let handle = change.handle();
            let place = self
                .present
                .binary_search_by_key(&handle.slot(), |present| present.slot());
            match (change, place) {
                (SeatChange::Joined(_), Err(place)) => self.present.insert(place, handle),
                (SeatChange::Joined(_), Ok(place)) => {
                    if let Some(seat) = self.present.get_mut(place) {
                        *seat = handle;
                    }
                }
                (SeatChange::Ended { .. }, Ok(place)) => _ = self.present.remove(place),
                _ => {}
            }
        }
        seats.verify_batch(&self.present, &mut self.answers);
        for (place, handle) in self.present.iter().enumerate() {
            if !self.answers.is_live(place) {
                continue;
            }
            for input in inputs.of(*handle) {
                if input.channel == Channel::Datagram {
                    out.datagram(*handle, input.payload);
                }
            }
        }
    }
}
