//! One seed's world: the gateway, its simulation, a cast of clients, and the course of events.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    cast::{Happening, Script},
    client::{Client, End, Opening},
    network::{Conditions, Network},
};
use crate::{
    clock::{ManualTime, Timestamp},
    control::{CarriedKey, GatewayHost, Revocation, RevocationRange},
    gateway::{
        Channel, Exchange, Limits, SeatBudget, Simulation,
        certificates::{Certificates, Served},
        core::{Core, Packet},
        exchange::WorkerExchange,
        host::Host,
        shared::Shared,
        transport::{Entropy, TransportKeys, endpoint_config, server_config},
    },
    id::{GatewayId, Incarnation, Lineage, PlayerId, Revision, SessionId},
    seat::{EndReason, Handle, SeatChange, SeatConfig, SeatTable, Verdict},
    tls::{self, Identity},
    wire::CloseCode,
};

const START: Timestamp = Timestamp(1_700_000_000_000);
const TICK: Duration = Duration::from_millis(20);
/// Everything has come to its end by then.
const END: Duration = Duration::from_secs(9);
const GATEWAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7_777);

/// What the game says to whoever joins, at once: more than a send window, so that it waits for room again and again.
const BURST_PARTS: u32 = 12;
const BURST_PART: usize = 16_000;
/// The game's reason for a kick.
pub(super) const KICK: u32 = 0xC0FF_EE00;

/// What a seed led to, for the whole run to add up.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) joined: u64,
    pub(super) moved: u64,
    pub(super) revoked_live: u64,
    pub(super) refused_used: u64,
    pub(super) refused_revoked: u64,
    pub(super) timed_out: u64,
    pub(super) lost_links: u64,
    pub(super) kicked: u64,
    pub(super) bursts: u64,
    pub(super) inputs: u64,
    pub(super) packets_lost: u64,
    pub(super) trace: Vec<String>,
}

impl Outcome {
    pub(super) fn add(&mut self, other: &Self) {
        self.joined += other.joined;
        self.moved += other.moved;
        self.revoked_live += other.revoked_live;
        self.refused_used += other.refused_used;
        self.refused_revoked += other.refused_revoked;
        self.timed_out += other.timed_out;
        self.lost_links += other.lost_links;
        self.kicked += other.kicked;
        self.bursts += other.bursts;
        self.inputs += other.inputs;
        self.packets_lost += other.packets_lost;
    }
}

pub(super) struct World {
    rng: ChaCha8Rng,
    time: ManualTime,
    start: Instant,
    now: Instant,
    core: Core,
    simulation: Simulation,
    host: Host,
    shared: Arc<Shared>,
    network: Network,
    clients: Vec<Client>,
    entropy: Entropy,
    pin: [u8; 32],
    course: BTreeMap<(Duration, usize), Happening>,
    next_tick: Instant,
    revision: u64,
    /// What clients presented, and the sessions that these tokens are for.
    presented: Vec<Option<String>>,
    revoked: BTreeSet<SessionId>,
    players: BTreeMap<SessionId, PlayerId>,
    live: BTreeMap<Handle, SessionId>,
    ended: BTreeSet<Handle>,
    /// Clients only listen, and nobody is thrown out.
    listeners: bool,
    /// Who is thrown out at which tick.
    kicks: BTreeMap<u64, Handle>,
    outcome: Outcome,
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
        script: impl FnOnce(&mut ChaCha8Rng, GatewayId, Timestamp) -> Script,
        listeners: bool,
    ) -> Self {
        let time = ManualTime::starting_at(START);
        let clock = time.clock();
        let id: GatewayId = "gateway-1".parse().unwrap();
        let limits = Limits {
            idle_timeout: Duration::from_secs(3),
            hello_timeout: Duration::from_secs(1),
            handshakes: [3, 1_024][rng.random_range(0..2)],
            retry_above: [0, 2, 256][rng.random_range(0..3)],
            awaiting_hello: [2, 1_024][rng.random_range(0..2)],
            seat: SeatBudget {
                datagrams: [1, 32][rng.random_range(0..2)],
                message_bytes: [64, 32 * 1_024][rng.random_range(0..2)],
                ..SeatBudget::default()
            },
            ..Limits::default()
        };
        let seats = SeatTable::new(SeatConfig {
            capacity: 8,
            ..SeatConfig::default()
        });
        let shared = Arc::new(Shared::new(id, limits, clock.clone(), seats, None));
        let exchange = Arc::new(WorkerExchange::new(shared.limits.seat, Box::new(|| {})));
        let entropy = seeded_entropy(&mut rng);
        let keys = TransportKeys {
            reset: rng.random(),
            connection_id: rng.random(),
            retry: rng.random(),
        };
        let identity = identity();
        let tls = tls::quic_server_config(&identity).unwrap();
        let server = server_config(tls, &keys, &shared.limits, clock.clone()).unwrap();
        let endpoint = endpoint_config(0, &keys, Arc::clone(&entropy), Some(rng.random()));
        let certificates = Arc::new(Certificates::new(Served {
            server: Arc::new(server),
            leaf_sha256: identity.fingerprint(),
        }));
        let core = Core::new(
            0,
            endpoint,
            certificates,
            Arc::clone(&shared),
            Arc::clone(&exchange),
            clock.now(),
        );
        let workers: Arc<[Arc<WorkerExchange>]> = Arc::new([exchange]);
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
        let script = script(&mut rng, shared.id.clone(), START);
        let world = Self {
            rng,
            time,
            start: now,
            now,
            core,
            simulation,
            host,
            shared,
            network,
            clients: Vec::new(),
            entropy,
            pin: identity.fingerprint(),
            course: script.course,
            next_tick: now,
            revision: 0,
            presented: Vec::new(),
            revoked: BTreeSet::new(),
            players: script.players,
            live: BTreeMap::new(),
            ended: BTreeSet::new(),
            listeners,
            kicks: BTreeMap::new(),
            outcome: Outcome::default(),
        };
        let carried = CarriedKey {
            epoch: 1,
            key: script.key.expose().to_vec().into(),
        };
        world.host.attached(START, Duration::from_secs(3_600));
        world.host.install_keys(&[carried]);
        world.host.reset_log(Lineage(1), Revision(0), &[]);
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
        self.core.close_all(self.now, EndReason::Drained);
        self.tick();
        self.tick();
        assert!(
            self.live.is_empty(),
            "seats whose end was never told: {:?}",
            self.live
        );
        assert_eq!(self.shared.seats.len(), 0);
        self.check_clients();
        self.outcome.packets_lost = self.network.lost;
        self.outcome
    }

    fn next(&mut self) -> Option<Instant> {
        let course = self.course.keys().next().map(|(at, _)| self.start + *at);
        let clients = self
            .clients
            .iter_mut()
            .filter_map(Client::next_wakeup)
            .min();
        [
            Some(self.next_tick),
            self.core.next_timeout(),
            self.network.next(),
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
                self.core.receive(
                    self.now,
                    Packet {
                        remote: packet.from,
                        local_ip: None,
                        ecn: None,
                        data,
                    },
                );
            } else if let Some(client) = self.clients.iter_mut().find(|c| c.address == packet.to) {
                client.receive(self.now, packet.from, &packet.bytes);
            }
        }
        if self.next_tick <= self.now {
            self.tick();
            self.next_tick += TICK;
            if self
                .now
                .duration_since(self.start)
                .as_millis()
                .is_multiple_of(1_000)
            {
                self.host
                    .heartbeat(self.shared.clock.wall(), Revision(self.revision));
            }
        }
        self.drive_gateway();
        for index in 0..self.clients.len() {
            let Self {
                clients,
                network,
                rng,
                now,
                ..
            } = self;
            let client = &mut clients[index];
            let from = client.address;
            client.drive(*now, |bytes| network.send(rng, *now, from, GATEWAY, bytes));
        }
        self.check_revoked();
    }

    fn drive_gateway(&mut self) {
        self.core.handle_timeouts(self.now);
        self.core.exchange(self.now);
        let mut buffer = Vec::new();
        loop {
            self.core.process(self.now);
            while let Some(transmit) = self.core.poll_transmit(self.now, 1, &mut buffer) {
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
            if self.core.is_settled() {
                return;
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        self.note(|| happening.label());
        match happening {
            Happening::Connect(opening) => {
                let host = u8::try_from(self.clients.len() + 1).unwrap();
                let address = SocketAddr::new(Ipv4Addr::new(10, 0, 1, host).into(), 5_000);
                self.presented.push(match &opening {
                    Opening::Token(token) => Some(token.clone()),
                    _ => None,
                });
                let entropy = Arc::clone(&self.entropy);
                let seed = self.rng.random();
                self.clients.push(Client::connect(
                    self.now, seed, entropy, address, GATEWAY, self.pin, opening,
                ));
                if let (true, Some(client)) = (self.listeners, self.clients.last_mut()) {
                    client.says_nothing = true;
                }
            }
            Happening::Revoke(revocation) => self.revoke(revocation),
            Happening::Leave(index) => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.leave(self.now);
                }
            }
            Happening::Vanish(index) => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.vanished = true;
                    client.end.get_or_insert(End::Lost);
                }
            }
        }
    }

    fn revoke(&mut self, revocation: Revocation) {
        let sessions: Vec<SessionId> = match revocation {
            Revocation::Session(session) => vec![session],
            Revocation::Player(player, _) => self
                .players
                .iter()
                .filter(|(_, p)| **p == player)
                .map(|(s, _)| *s)
                .collect(),
        };
        let live = sessions
            .iter()
            .filter(|s| self.shared.seats.is_session_authorized(**s))
            .count();
        self.outcome.revoked_live += live as u64;
        let from = Revision(self.revision);
        self.revision += 1;
        let to = Revision(self.revision);
        self.host.apply_revocations(&RevocationRange {
            from,
            to,
            events: vec![revocation],
        });
        self.revoked.extend(sessions);
        // The very next verify refuses.
        self.check_revoked();
    }

    /// No seat for a revoked session, from the moment on that the revocation was applied.
    fn check_revoked(&self) {
        for session in &self.revoked {
            assert!(
                !self.shared.seats.is_session_authorized(*session),
                "{session} is revoked and seated"
            );
        }
        for (handle, session) in &self.live {
            if self.revoked.contains(session) {
                assert_ne!(
                    self.shared.seats.verify(*handle),
                    Verdict::Live,
                    "{handle} is revoked and live"
                );
            }
        }
    }

    /// The game: every change is told once, every input comes from a seat that was told, and is answered.
    fn tick(&mut self) {
        let mut notes = Vec::new();
        let Exchange {
            tick,
            changes,
            inputs,
            seats,
            mut out,
            ..
        } = self.simulation.tick();
        if let Some(handle) = self.kicks.remove(&tick.0) {
            seats.end(handle, EndReason::Kicked(KICK));
        }
        for change in changes {
            notes.push(format!("{change:?}"));
            match *change {
                SeatChange::Joined(joined) => {
                    assert!(
                        !self.ended.contains(&joined.handle),
                        "a handle was used again"
                    );
                    assert!(
                        self.live.insert(joined.handle, joined.session).is_none(),
                        "joined twice"
                    );
                    self.outcome.joined += 1;
                    for part in 0..BURST_PARTS {
                        let mut message = vec![0xff; BURST_PART];
                        message[4..8].copy_from_slice(&part.to_be_bytes());
                        // Refused if its end is told in the same tick.
                        out.message(joined.handle, &message);
                    }
                    if !self.listeners {
                        let ticks = self.rng.random_range(1..600);
                        self.kicks.insert(tick.0 + ticks, joined.handle);
                    }
                }
                SeatChange::Resumed { handle, .. } => {
                    assert!(self.live.contains_key(&handle), "moved before it joined");
                    self.outcome.moved += 1;
                }
                SeatChange::Suspended { .. } => {}
                SeatChange::Ended {
                    handle,
                    session,
                    reason,
                    ..
                } => {
                    assert_eq!(
                        self.live.remove(&handle),
                        Some(session),
                        "ended without a join, or twice"
                    );
                    assert!(self.ended.insert(handle));
                    if reason == EndReason::Lost {
                        self.outcome.lost_links += 1;
                    }
                }
            }
        }
        for input in inputs.iter() {
            self.outcome.inputs += 1;
            assert_eq!(input.payload.len(), 8);
            match input.channel {
                Channel::Datagram => assert!(out.datagram(input.handle, input.payload)),
                Channel::Message => assert!(out.message(input.handle, input.payload)),
            }
        }
        drop(out);
        for note in notes {
            self.note(|| note);
        }
    }

    /// What clients saw is what was to be seen.
    fn check_clients(&mut self) {
        let mut welcomed: BTreeMap<&str, usize> = BTreeMap::new();
        for (client, token) in self.clients.iter().zip(&self.presented) {
            if client.welcome.is_some() {
                *welcomed
                    .entry(token.as_deref().expect("welcomed without a token"))
                    .or_default() += 1;
            }
            let order: Vec<u32> = client
                .messages_received
                .iter()
                .filter_map(|payload| payload.strip_prefix(&client.number().to_be_bytes()))
                .map(|sequence| u32::from_be_bytes(sequence.try_into().unwrap()))
                .collect();
            assert!(
                order.is_sorted_by(|a, b| a + 10 == *b),
                "messages out of order or lost: {order:?}"
            );
            let burst: Vec<u32> = client
                .messages_received
                .iter()
                .filter(|message| message.len() == BURST_PART)
                .map(|message| u32::from_be_bytes(message[4..8].try_into().unwrap()))
                .collect();
            assert!(
                burst.is_sorted_by(|a, b| a + 1 == *b),
                "a burst out of order or with a hole: {burst:?}"
            );
            if burst.len() == BURST_PARTS as usize {
                self.outcome.bursts += 1;
            }
            match &client.end {
                Some(End::Closed(CloseCode::TokenUsed)) => self.outcome.refused_used += 1,
                Some(End::Closed(CloseCode::SessionRevoked)) if client.welcome.is_none() => {
                    self.outcome.refused_revoked += 1;
                }
                Some(End::Closed(CloseCode::AdmissionTimeout)) => self.outcome.timed_out += 1,
                Some(End::Closed(code)) => {
                    let expected = [
                        CloseCode::SessionRevoked,
                        CloseCode::Superseded,
                        CloseCode::TokenRejected,
                        CloseCode::ProtocolViolation,
                        CloseCode::UnsupportedVersion,
                        CloseCode::Kicked,
                    ];
                    self.outcome.kicked += u64::from(*code == CloseCode::Kicked);
                    assert!(expected.contains(code), "closed as {code:?}");
                }
                Some(End::Left | End::Lost) | None => {}
            }
        }
        assert!(
            welcomed.values().all(|count| *count == 1),
            "a token let two in"
        );
        let valid = self
            .presented
            .iter()
            .flatten()
            .collect::<BTreeSet<_>>()
            .len() as u64;
        assert!(
            self.outcome.joined + self.outcome.moved <= valid,
            "more admissions than tokens"
        );
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let at = self.now.duration_since(self.start);
        self.outcome
            .trace
            .push(format!("{:>10.6} {}", at.as_secs_f64(), what()));
    }
}
