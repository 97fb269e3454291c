//! A thread of clients: connects them, plays them by the timetable, and says what came of it.
//!
//! One thread has one single-threaded runtime, some UDP endpoints, their connections, and one timer for all sends. So no send waits
//! for a lock or another thread, and a thread's lag is its own. The send loop is the runtime's root task: it is looked at first
//! whenever the thread wakes, and it yields after a burst so that the protocol work of the connections goes on.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use tickgate::{
    client::{Account, Connection, Endpoint, Session, Target},
    clock::Clock,
    id::GatewayId,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{JoinSet, LocalSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    busy_meter::BusyMeter,
    due_timer::DueTimer,
    plan::Plan,
    players::{Close, Players, Tally},
    procfs::{self, ThreadShares},
    progress::{EVERY, Live},
};

/// One client of the fleet, logged in.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its index in the whole run.
    pub(crate) client: u32,
    /// Its session.
    pub(crate) session: Session,
}

/// What all threads of the fleet share.
#[derive(Clone)]
pub(crate) struct Orders {
    /// What happens when.
    pub(crate) plan: Arc<Plan>,
    /// The clock.
    pub(crate) clock: Clock,
    /// Where connect tokens come from.
    pub(crate) account: Account,
    /// The gateway that everybody plays at.
    pub(crate) gateway: GatewayId,
    /// A permit for each admission that may run at once, of all threads.
    pub(crate) admissions: Arc<Semaphore>,
    /// Counts for the progress line.
    pub(crate) live: Arc<Live>,
    /// Where the ends of connections are told. Must have room for one of each client.
    pub(crate) closes: mpsc::Sender<Close>,
    /// When play begins, once that is known.
    pub(crate) start: watch::Receiver<Option<Instant>>,
    /// Ends play before its time.
    pub(crate) stop: CancellationToken,
    /// Ends the connections, after the last answers.
    pub(crate) finish: CancellationToken,
}

/// What came of a thread's clients.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Counts and latencies.
    pub(crate) tally: Tally,
    /// What the thread did with its time in play, if the system tells.
    pub(crate) thread: Option<ThreadShares>,
}

/// A running thread of the fleet.
pub(crate) struct FleetThread {
    /// The clients that are connected, once all have been tried.
    pub(crate) ready: oneshot::Receiver<Vec<u32>>,
    /// Told when the last input has been sent.
    pub(crate) played: oneshot::Receiver<()>,
    /// What came of it, at the end.
    pub(crate) outcome: oneshot::Receiver<anyhow::Result<Outcome>>,
    handle: JoinHandle<()>,
}

impl FleetThread {
    /// Starts a thread that plays `members` over endpoints bound to `locals`.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn spawn(
        number: usize,
        orders: Orders,
        members: Vec<Member>,
        locals: Vec<SocketAddr>,
    ) -> std::io::Result<Self> {
        let (ready_sender, ready) = oneshot::channel();
        let (played_sender, played) = oneshot::channel();
        let words = Words {
            ready: ready_sender,
            played: played_sender,
        };
        let (outcome_sender, outcome) = oneshot::channel();
        let body = move || {
            // Nobody waits for the outcome any more when the run has been given up.
            let _ = outcome_sender.send(play_on_this_thread(orders, members, &locals, words));
        };
        let handle = std::thread::Builder::new()
            .name(format!("fleet-{number}"))
            .spawn(body)?;
        Ok(Self {
            ready,
            played,
            outcome,
            handle,
        })
    }

    /// Waits for the thread, whose outcome has come.
    ///
    /// # Errors
    /// When it panicked.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        self.handle
            .join()
            .map_err(|_| anyhow::anyhow!("a generator thread panicked"))
    }
}

/// What a thread tells before its outcome.
struct Words {
    ready: oneshot::Sender<Vec<u32>>,
    played: oneshot::Sender<()>,
}

fn play_on_this_thread(
    orders: Orders,
    members: Vec<Member>,
    locals: &[SocketAddr],
    words: Words,
) -> anyhow::Result<Outcome> {
    let meter = Arc::new(BusyMeter::new(orders.clock.clone()));
    let (sleeping, waking) = (meter.clone(), meter.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || sleeping.sleeps())
        .on_thread_unpark(move || waking.wakes())
        .build()?;
    let local_tasks = LocalSet::new();
    local_tasks.block_on(&runtime, run(orders, members, locals, words, meter))
}

async fn run(
    orders: Orders,
    members: Vec<Member>,
    locals: &[SocketAddr],
    words: Words,
    meter: Arc<BusyMeter>,
) -> anyhow::Result<Outcome> {
    let endpoints: Vec<Endpoint> = locals
        .iter()
        .map(|local| bind(*local))
        .collect::<anyhow::Result<_>>()?;
    let clients: Vec<u32> = members.iter().map(|member| member.client).collect();
    let players = Rc::new(Players::new(
        &orders.plan,
        clients.clone(),
        orders.clock.clone(),
        meter,
        orders.live.clone(),
        orders.closes.clone(),
    )?);

    let mut listeners = connect_all(&orders, &members, &endpoints, &players).await;
    let _ = words.ready.send(players.connected());
    let thread = play(&orders, &clients, &players).await?;
    let _ = words.played.send(());
    orders.finish.cancelled().await;
    let tally = players.finish()?;

    listeners.abort_all();
    let mut shutdowns = JoinSet::new();
    for endpoint in endpoints {
        shutdowns.spawn_local(async move { endpoint.shutdown().await });
    }
    shutdowns.join_all().await;
    Ok(Outcome { tally, thread })
}

/// Connects all members, as many at a time as the orders allow. Returns the tasks that listen for what the gateway sends.
async fn connect_all(
    orders: &Orders,
    members: &[Member],
    endpoints: &[Endpoint],
    players: &Rc<Players>,
) -> JoinSet<()> {
    let mut listeners = JoinSet::new();
    let mut admissions = JoinSet::new();
    let turns = members.iter().zip(endpoints.iter().cycle());
    for (index, (member, endpoint)) in turns.enumerate() {
        let permit = tokio::select! {
            permit = orders.admissions.clone().acquire_owned() => permit,
            () = orders.stop.cancelled() => break,
        };
        let (orders, players_of_task) = (orders.clone(), players.clone());
        let (session, endpoint) = (member.session.clone(), endpoint.clone());
        admissions.spawn_local(async move {
            let connection = connect(&orders, &session, &endpoint, &players_of_task, index).await;
            drop(permit);
            Some((index, connection?))
        });
        while let Some(done) = admissions.try_join_next() {
            listen_to(done.ok().flatten(), &mut listeners, players);
        }
    }
    while let Some(done) = admissions.join_next().await {
        listen_to(done.ok().flatten(), &mut listeners, players);
    }
    listeners
}

fn listen_to(
    admitted: Option<(usize, Rc<Connection>)>,
    listeners: &mut JoinSet<()>,
    players: &Rc<Players>,
) {
    if let Some((member, connection)) = admitted {
        listeners.spawn_local(listen(players.clone(), member, connection));
    }
}

/// Gets a connect token just before it is needed (it lives for 30 s only) and connects with it.
async fn connect(
    orders: &Orders,
    session: &Session,
    endpoint: &Endpoint,
    players: &Players,
    member: usize,
) -> Option<Rc<Connection>> {
    let target = Target::Gateway(orders.gateway.clone());
    let ticket = match orders.account.issue_connect_token(session, target).await {
        Ok(ticket) => ticket,
        Err(error) => {
            tracing::warn!(%error, "no connect token");
            players.not_admitted("no_connect_token");
            return None;
        }
    };
    let begun = orders.clock.now();
    match endpoint.connect(&ticket).await {
        Ok(connection) => {
            let took = orders.clock.now().saturating_duration_since(begun);
            let connection = Rc::new(connection);
            players.admitted(member, connection.clone(), took);
            Some(connection)
        }
        Err(error) => {
            tracing::warn!(%error, "not admitted");
            players.refused(&error);
            None
        }
    }
}

async fn listen(players: Rc<Players>, member: usize, connection: Rc<Connection>) {
    loop {
        match connection.recv_datagram().await {
            Ok(datagram) => players.received(member, &datagram),
            Err(how) => return players.closed(member, &how),
        }
    }
}

/// Waits for the start and sends every input when it is due, or as soon as the thread comes to it. Returns what the thread did with
/// its time.
async fn play(
    orders: &Orders,
    clients: &[u32],
    players: &Players,
) -> anyhow::Result<Option<ThreadShares>> {
    let mut start = orders.start.clone();
    let start = tokio::select! {
        start = start.wait_for(Option::is_some) => start.ok().and_then(|start| *start),
        () = orders.stop.cancelled() => None,
    };
    let Some(start) = start else {
        return Ok(None);
    };
    players.begin(start);
    let before = procfs::this_thread();
    let timer = DueTimer::new()?;
    let mut next_word = start + EVERY;
    let give_up = start + orders.plan.play() + GIVE_UP;
    let mut burst = 0;
    for due in orders.plan.timetable(clients.iter().copied()) {
        let at = start + due.at;
        let now = orders.clock.now();
        if now < at || burst == LONGEST_BURST {
            burst = 0;
            // A time that has passed still lets the connections work.
            tokio::task::yield_now().await;
            timer.until(&orders.clock, at).await?;
        }
        burst += 1;
        if now < give_up {
            players.send(due);
        } else {
            players.omit(due);
        }
        if now >= next_word {
            players.tell();
            next_word += EVERY;
        }
        if orders.stop.is_cancelled() {
            break;
        }
    }
    let span = orders.clock.now().saturating_duration_since(start);
    let after = procfs::this_thread();
    Ok(after
        .zip(before)
        .map(|(after, before)| after.shares_since(before, span)))
}

/// How long after the end of play late inputs are still sent; what is left then counts as planned and not sent. At every rate this is
/// at least four times the lag at which a run is no result.
const GIVE_UP: Duration = Duration::from_secs(1);
/// How many inputs that are due already are sent in a row before the connections get their turn: 64 sends take some 100 µs.
const LONGEST_BURST: u32 = 64;

/// Binds to `local`; where the system has only one loopback address, to that.
fn bind(local: SocketAddr) -> anyhow::Result<Endpoint> {
    Endpoint::bind(local)
        .or_else(|error| match local.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                Endpoint::bind((Ipv4Addr::LOCALHOST, local.port()).into())
            }
            _ => Err(error),
        })
        .with_context(|| format!("cannot bind a UDP socket to {local}"))
}

/// Where the `number`-th endpoint binds to reach `gateway`: on loopback each has an address of its own, so that a server that counts
/// by address sees many clients and not one.
pub(crate) fn local_address(gateway: SocketAddr, number: u16) -> SocketAddr {
    let ip = match gateway.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let [high, low] = number.to_be_bytes();
            // 127.64.0.1 is the first: neither the network's nor the broadcast address, nor 127.0.0.1 itself.
            IpAddr::V4(Ipv4Addr::new(127, 64 + high, low, 1))
        }
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_on_loopback_have_addresses_of_their_own() {
        let gateway = "127.0.0.1:7777".parse().unwrap();
        let all: std::collections::BTreeSet<SocketAddr> =
            (0..1_024).map(|i| local_address(gateway, i)).collect();
        assert_eq!(all.len(), 1_024);
        assert!(all.iter().all(|local| local.ip().is_loopback()));
        let remote = local_address("192.0.2.1:7777".parse().unwrap(), 3);
        assert_eq!(remote, "0.0.0.0:0".parse().unwrap());
    }
}
