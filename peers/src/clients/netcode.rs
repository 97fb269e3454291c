//! Clients of renet's netcode transport, all on one thread: each with a socket of its own, since netcode knows its clients by their
//! addresses.

use std::{
    net::UdpSocket,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use renet::{ConnectionConfig, DefaultChannel, RenetClient};
use renet_netcode::{ClientAuthentication, ConnectToken, NetcodeClientTransport};

use crate::{
    echo::{Echo, Plan, Returns},
    load::Load,
    process::{Server, own_cpu},
    rig::stopwatch::{self, percentile},
    server::{
        SHARED_KEY,
        netcode::{PROTOCOL, since_epoch},
    },
};

/// All have to be in by then.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a client that is not in yet is looked after.
const STEP: Duration = Duration::from_millis(20);
/// How long the last ones have to come back.
const AFTERMATH: Duration = Duration::from_millis(500);
/// A token's life, and the silence after which a client counts as gone, in seconds.
const LIFE_S: u64 = 120;
const SILENCE_S: i32 = 15;

struct Client {
    connection: RenetClient,
    transport: NetcodeClientTransport,
    /// The transport's socket once more, to be told when there is something to read.
    _watched: UdpSocket,
    updated: Instant,
}

impl Client {
    fn start(number: usize, server: &Server, poll: &Poll) -> anyhow::Result<Self> {
        let token = ConnectToken::generate(
            since_epoch(),
            PROTOCOL,
            LIFE_S,
            number as u64,
            SILENCE_S,
            vec![server.announced.address],
            None,
            &SHARED_KEY,
        )
        .context("a connect token")?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let watched = socket.try_clone()?;
        poll.registry().register(
            &mut SourceFd(&watched.as_raw_fd()),
            Token(number),
            Interest::READABLE,
        )?;
        let authentication = ClientAuthentication::Secure {
            connect_token: token,
        };
        Ok(Self {
            connection: RenetClient::new(ConnectionConfig::default()),
            transport: NetcodeClientTransport::new(since_epoch(), authentication, socket)?,
            _watched: watched,
            updated: stopwatch::start(),
        })
    }

    /// Takes what has come.
    fn update(&mut self, now: Instant) -> anyhow::Result<()> {
        let passed = now.saturating_duration_since(self.updated);
        self.updated = now;
        self.connection.update(passed);
        Ok(self.transport.update(passed, &mut self.connection)?)
    }

    /// Hands over what was taken.
    fn hear(&mut self, now: Instant, returns: &mut Returns) {
        while let Some(heard) = self.connection.receive_message(DefaultChannel::Unreliable) {
            returns.take(&heard, now);
        }
    }

    fn send(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        let payload = payload.to_vec();
        self.connection
            .send_message(DefaultChannel::Unreliable, payload);
        Ok(self.transport.send_packets(&mut self.connection)?)
    }
}

/// Has all clients come in, and then play.
pub(crate) fn run(server: &Server, plan: Plan) -> anyhow::Result<Echo> {
    let mut poll = Poll::new()?;
    let mut clients = (0..plan.clients)
        .map(|number| Client::start(number, server, &poll))
        .collect::<anyhow::Result<Vec<_>>>()?;
    come_in(&mut clients)?;

    let (all, before) = plan.sends();
    let began = stopwatch::start();
    let mut returns = Returns::new(plan, began);
    let mut events = Events::with_capacity(1_024);
    let mut late = Vec::with_capacity(returns.asked());
    let mut send = 0;
    let mut start = None;
    while send < all {
        let now = stopwatch::start();
        while send < all && plan.due(began, send) <= now {
            if send == before {
                start = Some((now, server.cpu()?, own_cpu()?, server.drops()?));
            }
            let number = (send % plan.clients as u64) as usize;
            let client = clients.get_mut(number).context("a client")?;
            client.update(now)?;
            client.hear(now, &mut returns);
            client.send(&Returns::payload(send))?;
            if send >= before {
                let lag = stopwatch::start().saturating_duration_since(plan.due(began, send));
                late.push(lag.as_secs_f64());
            }
            send += 1;
        }
        let due = plan.due(began, send);
        receive(&mut poll, &mut events, &mut clients, &mut returns, due)?;
    }
    let (began, cpu, own, drops) = start.context("nothing was measured")?;
    let (cpu, own, wall) = (server.cpu()? - cpu, own_cpu()? - own, began.elapsed());
    let end = stopwatch::start() + AFTERMATH;
    while stopwatch::start() < end {
        receive(&mut poll, &mut events, &mut clients, &mut returns, end)?;
    }
    Ok(Echo {
        load: Load {
            asked: returns.asked(),
            done: returns.done(),
            wall,
            cpu: own,
            late: Duration::from_secs_f64(percentile(&late, 0.99)),
            latest: plan.latest(),
        },
        cpu,
        rtt_p50: returns.rtt(0.5),
        rtt_p99: returns.rtt(0.99),
        drops: server.drops()? - drops,
    })
}

fn come_in(clients: &mut [Client]) -> anyhow::Result<()> {
    let end = stopwatch::start() + PATIENCE;
    loop {
        let now = stopwatch::start();
        let mut missing = 0;
        for client in clients.iter_mut() {
            client.update(now)?;
            client.transport.send_packets(&mut client.connection)?;
            missing += usize::from(!client.connection.is_connected());
        }
        if missing == 0 {
            return Ok(());
        }
        if now > end {
            bail!("{missing} clients did not come in");
        }
        stopwatch::sleep_until(now + STEP);
    }
}

/// Waits for datagrams until `due` and takes them.
fn receive(
    poll: &mut Poll,
    events: &mut Events,
    clients: &mut [Client],
    returns: &mut Returns,
    due: Instant,
) -> anyhow::Result<()> {
    let left = due.saturating_duration_since(stopwatch::start());
    poll.poll(events, Some(left))?;
    let now = stopwatch::start();
    for event in &*events {
        let client = clients.get_mut(event.token().0).context("a client")?;
        client.update(now)?;
        client.hear(now, returns);
    }
    Ok(())
}
