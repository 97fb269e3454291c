//! One seed's world: the gateway, its simulation, a cast of clients, and the time that passes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    cast::{Happening, Script},
    client::Client,
    game::Game,
    network::{Conditions, Flying, Network},
    sidecar::Token,
};
use crate::{
    clock::{ManualTime, Timestamp},
    control::{CarriedKey, GatewayHost, Revocation},
    gateway::{
        Limits, SeatBudget, SeatRates, Simulation,
        certificates::{Certificates, Served},
        core::Core,
        exchange::WorkerExchange,
        host::Host,
        shared::Shared,
        steering::worker_of,
        transport::{Entropy, TransportKeys, endpoint_config, server_config},
    },
    id::{GatewayId, Incarnation, Lineage, Revision, SessionId},
    seat::{EndReason, SamePlayer, SeatConfig, SeatTable},
    tls::{self, Identity},
    token::TransportKey,
    udp::Packet,
};

pub(super) const START: Timestamp = Timestamp(1_700_000_000_000);
const TICK: Duration = Duration::from_millis(20);
/// Budgets that are soon used up, by who floods; who plays sends 20 inputs a second.
const SCARCE: SeatRates = SeatRates {
    packets: 400,
    datagrams: 60,
    bytes: 64 * 1_024,
    messages: 20,
    moves: 12,
    burst: Duration::from_secs(1),
};
/// Everything has come to its end by then.
const END: Duration = Duration::from_secs(11);
pub(super) const GATEWAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7_777);

/// What a seed led to, for the whole run to add up.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) joined: u64,
    /// Came back to a suspended seat, or took a live one over.
    pub(super) resumed: u64,
    pub(super) suspended: u64,
    /// Ended as lost when their grace was over.
    pub(super) grace_over: u64,
    /// Ended because another session of their player took their place.
    pub(super) replaced: u64,
    /// Admitted with a token that was ahead of the log when its client connected.
    pub(super) caught_up: u64,
    /// Admitted with the key that the token names.
    pub(super) proven: u64,
    pub(super) revoked_live: u64,
    pub(super) kicked: u64,
    /// Closed because they sent too much, and changes of address of those who went on.
    pub(super) flooded: u64,
    pub(super) moved: u64,
    /// Packets that came to another worker than theirs.
    pub(super) misrouted: u64,
    pub(super) bursts: u64,
    pub(super) inputs: u64,
    pub(super) packets_lost: u64,
    pub(super) packets_reordered: u64,
    /// How often a client went to another network.
    pub(super) roamed: u64,
    /// How often nothing got through for a while.
    pub(super) darkened: u64,
    /// Refusals by their true reason.
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) trace: Vec<String>,
}

impl Outcome {
    pub(super) fn add(&mut self, other: &Self) {
        self.joined += other.joined;
        self.resumed += other.resumed;
        self.suspended += other.suspended;
        self.grace_over += other.grace_over;
        self.replaced += other.replaced;
        self.caught_up += other.caught_up;
        self.proven += other.proven;
        self.revoked_live += other.revoked_live;
        self.kicked += other.kicked;
        self.flooded += other.flooded;
        self.moved += other.moved;
        self.misrouted += other.misrouted;
        self.bursts += other.bursts;
        self.inputs += other.inputs;
        self.packets_lost += other.packets_lost;
        self.packets_reordered += other.packets_reordered;
        self.roamed += other.roamed;
        self.darkened += other.darkened;
        for (reason, count) in &other.refused {
            *self.refused.entry(reason.clone()).or_default() += count;
        }
    }
}

pub(super) struct World {
    pub(super) rng: ChaCha8Rng,
    pub(super) time: ManualTime,
    pub(super) start: Instant,
    pub(super) now: Instant,
    /// One for each worker.
    cores: Vec<Core>,
    pub(super) simulation: Simulation,
    pub(super) host: Host,
    pub(super) shared: Arc<Shared>,
    pub(super) network: Network,
    /// By the number that the script gave them.
    pub(super) clients: BTreeMap<usize, Client>,
    pub(super) entropy: Entropy,
    pub(super) pin: [u8; 32],
    pub(super) course: BTreeMap<(Duration, usize), Happening>,
    next_tick: Instant,
    pub(super) key: TransportKey,
    pub(super) tokens: Vec<Token>,
    /// The sidecar's log; how much of it the gateway's copy tells, from where to where; and when more of it arrives.
    pub(super) log: Vec<Revocation>,
    pub(super) covered: (usize, usize),
    pub(super) arriving: VecDeque<(Instant, usize)>,
    pub(super) log_lag: Duration,
    pub(super) lineage: Lineage,
    /// Sessions whose revocation was ever applied.
    pub(super) revoked: BTreeSet<SessionId>,
    pub(super) is_draining: bool,
    /// The seats as the sidecar was told of them.
    pub(super) reported: BTreeSet<SessionId>,
    pub(super) policy: SamePlayer,
    pub(super) grace: Duration,
    pub(super) game: Game,
    /// Events of each kind: admitted, resumed, suspended, ended.
    pub(super) told: [u64; 4],
    /// Clients only listen, and nobody is thrown out.
    pub(super) listeners: bool,
    pub(super) outcome: Outcome,
}

/// One identity for all seeds: Ed25519, whose signatures are all of one length, so that packets are too.
fn identity() -> Identity {
    static IDENTITY: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (certificate, key) = IDENTITY.get_or_init(|| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
        (
            parameters.self_signed(&key).unwrap().der().to_vec(),
            key.serialize_der(),
        )
    });
    Identity {
        chain: vec![certificate.clone().into()],
        key: rustls::pki_types::PrivatePkcs8KeyDer::from(key.clone()).into(),
    }
}

fn seeded_entropy(rng: &mut ChaCha8Rng) -> Entropy {
    let source = Mutex::new(ChaCha8Rng::from_seed(rng.random()));
    Arc::new(move |bytes| source.lock().unwrap().fill_bytes(bytes))
}

impl World {
    /// Whatever the seed draws.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let conditions = Conditions::draw(&mut rng);
        Self::build(rng, conditions, Script::draw, false)
    }

    /// One player on a good line, who listens and says nothing.
    pub(super) fn of_a_listener() -> Self {
        let rng = ChaCha8Rng::seed_from_u64(0);
        Self::build(rng, Conditions::GOOD, Script::of_one, true)
    }

    fn build(
        mut rng: ChaCha8Rng,
        conditions: Conditions,
        script: impl FnOnce(&mut ChaCha8Rng) -> Script,
        listeners: bool,
    ) -> Self {
        let time = ManualTime::starting_at(START);
        let clock = time.clock();
        let id: GatewayId = "gateway-1".parse().unwrap();
        let limits = Limits {
            idle_timeout: Duration::from_millis(1_500),
            hello_timeout: Duration::from_secs(1),
            handshakes: [3, 1_024][rng.random_range(0..2)],
            retry_above: [0, 2, 256][rng.random_range(0..3)],
            awaiting_hello: [1, 1_024][rng.random_range(0..2)],
            seat: SeatBudget {
                datagrams: [1, 32][rng.random_range(0..2)],
                message_bytes: [64, 32 * 1_024][rng.random_range(0..2)],
                ..SeatBudget::default()
            },
            // Far more than who plays ever sends, or so little that who floods is soon found out.
            rates: [SeatRates::default(), SCARCE][rng.random_range(0..2)],
            ..Limits::default()
        };
        let grace = Duration::from_millis([0, 400, 1_500][rng.random_range(0..3)]);
        let policy = [
            SamePlayer::NewestWins,
            SamePlayer::OldestWins,
            SamePlayer::Allow,
        ][rng.random_range(0..3)];
        let seats = SeatTable::new(SeatConfig {
            capacity: 8,
            grace,
            same_player: policy,
            ..SeatConfig::default()
        });
        let shared = Arc::new(Shared::new(id, limits, clock.clone(), seats, None));
        let workers: Arc<[Arc<WorkerExchange>]> = (0..rng.random_range(1..4))
            .map(|_| Arc::new(WorkerExchange::new(shared.limits.seat, Box::new(|| {}))))
            .collect();
        let entropy = seeded_entropy(&mut rng);
        let keys = TransportKeys {
            reset: rng.random(),
            connection_id: rng.random(),
            retry: rng.random(),
        };
        let identity = identity();
        let tls = tls::quic_server_config(&identity).unwrap();
        let server = server_config(tls, &keys, &shared.limits, clock.clone()).unwrap();
        let certificates = Arc::new(Certificates::new(Served {
            server: Arc::new(server),
            leaf_sha256: identity.fingerprint(),
        }));
        let cores = (0_u8..)
            .zip(workers.iter())
            .map(|(worker, exchange)| {
                let seed = Some(rng.random());
                Core::new(
                    worker.into(),
                    endpoint_config(worker, &keys, Arc::clone(&entropy), seed),
                    Arc::clone(&certificates),
                    Arc::clone(&shared),
                    Arc::clone(exchange),
                    clock.now(),
                )
                .among(&workers)
            })
            .collect();
        let host = Host {
            shared: Arc::clone(&shared),
            incarnation: Incarnation(1),
            addresses: vec![GATEWAY],
            server_name: "gateway.test".to_owned(),
            is_attached: tokio::sync::watch::Sender::new(false),
        };
        shared.set_certificates(vec![identity.fingerprint()]);
        let simulation = Simulation::new(Arc::clone(&shared), workers);
        let now = clock.now();
        let network = Network::new(conditions);
        let log_lag = Duration::from_millis([0, 0, 100, 400, 900][rng.random_range(0..5)]);
        let script = script(&mut rng);
        let mut world = Self {
            rng,
            time,
            start: now,
            now,
            cores,
            simulation,
            host,
            shared,
            network,
            clients: BTreeMap::new(),
            entropy,
            pin: identity.fingerprint(),
            course: script.course,
            next_tick: now,
            key: script.key,
            tokens: script.tokens.into_iter().map(Token::planned).collect(),
            log: Vec::new(),
            covered: (0, 0),
            arriving: VecDeque::new(),
            log_lag,
            lineage: Lineage(0),
            revoked: BTreeSet::new(),
            is_draining: false,
            reported: BTreeSet::new(),
            policy,
            grace,
            game: Game::default(),
            told: [0; 4],
            listeners,
            outcome: Outcome::default(),
        };
        let carried = CarriedKey {
            epoch: 1,
            key: world.key.expose().to_vec().into(),
        };
        world.host.install_keys(&[carried]);
        world.attach(0);
        world
    }

    /// Runs to the end and checks what must hold there.
    pub(super) fn run(mut self) -> Outcome {
        let mut steps = 0;
        while let Some(next) = self.next() {
            if next > self.start + END {
                break;
            }
            self.time.advance_to(next);
            steps = if next > self.now { 0 } else { steps + 1 };
            assert!(steps < 1_000, "time stands still");
            self.now = next;
            self.step();
        }
        for core in &mut self.cores {
            core.close_all(self.now, EndReason::Drained);
        }
        self.shared.seats.end_all(EndReason::Drained);
        self.tick();
        self.tick();
        self.hear();
        self.check_end();
        self.outcome.packets_lost = self.network.lost;
        self.outcome.packets_reordered = self.network.reordered;
        let misrouted = &self.shared.counters.misrouted;
        self.outcome.misrouted = misrouted.load(Ordering::Relaxed);
        self.outcome
    }

    fn next(&mut self) -> Option<Instant> {
        let course = self.course.keys().next().map(|(at, _)| self.start + *at);
        let clients = self
            .clients
            .values_mut()
            .filter_map(Client::next_wakeup)
            .min();
        [
            Some(self.next_tick),
            self.cores.iter().filter_map(Core::next_timeout).min(),
            self.network.next(),
            self.arriving.front().map(|(at, _)| *at),
            course,
            clients,
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at| at.max(self.now))
    }

    fn step(&mut self) {
        while let Some(entry) = self.course.first_entry() {
            if self.start + entry.key().0 > self.now {
                break;
            }
            let happening = entry.remove();
            self.happen(happening);
        }
        self.log_arrives();
        self.packets_arrive();
        if self.next_tick <= self.now {
            self.tick();
            self.next_tick += TICK;
            let since_start = self.now.duration_since(self.start);
            if since_start.as_millis().is_multiple_of(1_000) {
                let head = Revision(self.log.len() as u64);
                self.host.heartbeat(self.shared.clock.wall(), head);
            }
        }
        self.drive_gateway();
        self.hear();
        let Self {
            clients,
            network,
            rng,
            now,
            ..
        } = self;
        for client in clients.values_mut() {
            let from = client.address;
            client.drive(*now, |bytes| network.send(rng, *now, from, GATEWAY, bytes));
        }
        self.check_revoked();
    }

    fn packets_arrive(&mut self) {
        while let Some(packet) = self.network.arrived(self.now) {
            self.note(|| {
                format!(
                    "{} -> {}: {} bytes",
                    packet.from,
                    packet.to,
                    packet.bytes.len()
                )
            });
            if packet.to == GATEWAY {
                let data = packet.bytes.as_slice().into();
                let worker = self.worker_for(&packet);
                self.cores[worker].receive(
                    self.now,
                    Packet {
                        remote: packet.from,
                        local_ip: None,
                        ecn: None,
                        data,
                    },
                );
            } else if let Some(client) = self
                .clients
                .values_mut()
                .find(|client| client.address == packet.to)
            {
                client.receive(self.now, packet.from, &packet.bytes);
            }
        }
    }

    /// The worker that the kernel gives a packet to: the one that it names, or, by its address, any. Now and then it gives one to another
    /// than it should.
    fn worker_for(&mut self, packet: &Flying) -> usize {
        let workers = u16::try_from(self.cores.len()).unwrap();
        match worker_of(&packet.bytes, workers) {
            Some(_) if self.rng.random_ratio(1, 20) => self.rng.random_range(0..self.cores.len()),
            Some(named) => usize::from(named),
            None => {
                (Self::number_of(packet.from) + usize::from(packet.from.port())) % self.cores.len()
            }
        }
    }

    fn number_of(address: SocketAddr) -> usize {
        match address.ip() {
            std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]),
            std::net::IpAddr::V6(_) => 0,
        }
    }

    fn drive_gateway(&mut self) {
        // What one passes on to another is taken in the same turn: that one was woken.
        for _ in 0..2 {
            for worker in 0..self.cores.len() {
                self.drive(worker);
            }
        }
    }

    fn drive(&mut self, worker: usize) {
        let core = &mut self.cores[worker];
        core.handle_timeouts(self.now);
        core.exchange(self.now);
        let mut buffer = Vec::new();
        loop {
            core.process(self.now);
            while let Some(transmit) = core.poll_transmit(self.now, 1, &mut buffer) {
                let bytes = &buffer[..transmit.size];
                self.network.send(
                    &mut self.rng,
                    self.now,
                    GATEWAY,
                    transmit.destination,
                    bytes,
                );
                buffer.clear();
            }
            if core.is_settled() {
                return;
            }
        }
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.now.duration_since(self.start);
        self.outcome
            .trace
            .push(format!("{:>10.6} {}", at.as_secs_f64(), what()));
    }
}
