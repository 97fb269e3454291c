//! A gateway of two workers with a game that sends every datagram back, and what stands in for its sidecar.

use std::{
    num::{NonZeroU8, NonZeroU32},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tickgate::{
    certs,
    client::{SecretToken, Ticket},
    clock::Clock,
    control::{CarriedKey, GatewayHost, SeatReport},
    gateway::{Channel, Exchange, Gateway, GatewayConfig, Limits, Simulation},
    id::{ClientId, GatewayId, Lineage, PlayerGeneration, PlayerId, Revision, SessionId},
    seat::SeatChange,
    token::{ConnectClaims, Nonce, TransportKey, seal_connect},
};

use crate::rig::stopwatch;

const SERVER_NAME: &str = "localhost";
const TICK: Duration = Duration::from_micros(16_667);

pub(super) struct Stage {
    pub(super) gateway: Gateway,
    id: GatewayId,
    key: TransportKey,
    leaf_sha256: [u8; 32],
    stop: Arc<AtomicBool>,
    game: JoinHandle<Told>,
    sidecar: JoinHandle<()>,
}

/// What the game was told: seats by worker, and changes that are no joins.
#[derive(Default)]
struct Told {
    seats: [u64; 2],
    changed: u64,
}

impl Stage {
    pub(super) fn start() -> Self {
        let id: GatewayId = "workers".parse().unwrap();
        let identity = certs::quic_identity(SERVER_NAME).unwrap();
        let leaf_sha256 = identity.fingerprint();
        let mut config = GatewayConfig::new(id.clone(), ([127, 0, 0, 1], 0).into(), identity);
        config.workers = NonZeroU8::new(2).unwrap();
        // All come from one network.
        config.limits = Limits {
            prefix_rate: 100_000,
            prefix_burst: 100_000,
            ..config.limits
        };
        let (gateway, mut simulation) =
            Gateway::start(config.ticking_at(NonZeroU32::new(60).unwrap())).unwrap();
        let key = TransportKey::from_bytes(&[7; 32]);
        let host = gateway.host();
        host.install_keys(&[CarriedKey {
            epoch: 1,
            key: key.expose().to_vec().into(),
        }]);
        host.reset_log(Lineage(1), Revision(0), &[]);
        host.attached(Clock::system().wall(), Duration::from_secs(3_600));
        // Nobody is let in to a game that does not tick, and the clients may come sooner than its thread.
        simulation.tick();
        let stop = Arc::new(AtomicBool::new(false));
        let game = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || echo(simulation, &stop))
        };
        let sidecar = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || stand_in(&*host, &stop))
        };
        Self {
            gateway,
            id,
            key,
            leaf_sha256,
            stop,
            game,
            sidecar,
        }
    }

    /// Tickets of so many players.
    pub(super) fn tickets(&self, count: usize) -> Vec<Ticket> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let now = Clock::system().wall();
        let ticket = |_| {
            let session = SessionId(rng.random());
            let expires_at = now.after(Duration::from_secs(120));
            let claims = ConnectClaims {
                player: PlayerId(rng.random()),
                session,
                player_generation: PlayerGeneration(0),
                client: ClientId(rng.random()),
                nonce: Nonce(rng.random()),
                gateway: self.id.clone(),
                revision: Revision(0),
                session_ends_at: now.after(Duration::from_secs(86_400)),
                client_key: None,
                issued_at: now,
                expires_at,
            };
            Ticket {
                token: SecretToken::new(seal_connect(&self.key, &claims)),
                expires_at,
                gateway: self.id.clone(),
                addresses: vec![self.gateway.local_addr()],
                server_name: SERVER_NAME.to_owned(),
                certificate_sha256: vec![self.leaf_sha256],
                session,
            }
        };
        (0..count).map(ticket).collect()
    }

    /// Ends all of it: seats by worker, and how many changes of seats there were that were no joins.
    pub(super) fn stop(self) -> ([u64; 2], u64) {
        self.stop.store(true, Ordering::Relaxed);
        let told = self.game.join().unwrap();
        self.sidecar.join().unwrap();
        self.gateway.shutdown();
        (told.seats, told.changed)
    }
}

fn echo(mut simulation: Simulation, stop: &AtomicBool) -> Told {
    let mut told = Told::default();
    let mut due = stopwatch::start();
    while !stop.load(Ordering::Relaxed) {
        due += TICK;
        stopwatch::sleep_until(due);
        let Exchange {
            changes,
            inputs,
            mut out,
            ..
        } = simulation.tick();
        for change in changes {
            match change {
                SeatChange::Joined(joined) => told.seats[usize::from(joined.worker)] += 1,
                _ => told.changed += 1,
            }
        }
        for input in inputs.iter() {
            if input.channel == Channel::Datagram {
                out.datagram(input.handle, input.payload);
            }
        }
    }
    told
}

fn stand_in(host: &dyn GatewayHost, stop: &AtomicBool) {
    let clock = Clock::system();
    while !stop.load(Ordering::Relaxed) {
        host.take_report(&mut SeatReport::default());
        host.heartbeat(clock.wall(), Revision(0));
        stopwatch::sleep_until(stopwatch::start() + Duration::from_millis(200));
    }
}
