//! One case of the network matrix: some players through a relay of their own, and what became of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tickgate::{
    client::{Event, Events, Play, PlayOptions, RefreshPolicy, SessionKeeper, Target},
    clock::Clock,
    id::SessionId,
    seat::{EndReason, Handle, SeatChange},
};
use tokio::task::JoinSet;

use crate::{
    relay::{Relay, Weather},
    support::{Host, Stack, endpoint},
};

/// Players of a case. Each has a line, and so fates, of its own.
pub const PLAYERS: usize = 4;
/// How long they play before the trouble, and after it.
const CALM: Duration = Duration::from_secs(2);
/// An input now and then, as games send them.
const EVERY: Duration = Duration::from_millis(50);

/// Within this anything happens that ever does: handshakes on the worst of lines, a loss that is missed after the idle timeout (10 s), the
/// way back, and the end of the grace (15 s) of one who left without being heard.
const AT_LAST: Duration = Duration::from_secs(120);

async fn at_last<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(AT_LAST, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: did not happen within {AT_LAST:?}"))
}

/// What happens in the middle of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Nothing passes for so many seconds.
    Dark(u64),
    /// A NAT forgets: another port.
    Rebind,
    /// Another address, twice.
    Move,
}

/// A weather and a trouble.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub seed: u64,
    weather: Weather,
    pub trouble: Trouble,
}

impl Case {
    /// The whole matrix, 5 % of all packets doubled throughout.
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for loss in [0, 10, 50, 100, 300] {
            for reorder in [0, 50, 250] {
                for jitter in [0, 20, 200].map(Duration::from_millis) {
                    for trouble in [
                        Trouble::None,
                        Trouble::Dark(1),
                        Trouble::Dark(4),
                        Trouble::Dark(8),
                        Trouble::Rebind,
                        Trouble::Move,
                    ] {
                        cases.push(Self {
                            seed: cases.len() as u64,
                            weather: Weather {
                                loss,
                                duplication: 50,
                                reorder,
                                delay: Duration::from_millis(15),
                                jitter,
                            },
                            trouble,
                        });
                    }
                }
            }
        }
        cases
    }

    pub fn name(&self) -> String {
        let Weather {
            loss,
            reorder,
            jitter,
            ..
        } = self.weather;
        let trouble = match self.trouble {
            Trouble::None => "none".to_owned(),
            Trouble::Dark(seconds) => format!("dark {seconds} s"),
            Trouble::Rebind => "rebind".to_owned(),
            Trouble::Move => "move".to_owned(),
        };
        format!(
            "loss {} %, reorder {} %, jitter {} ms, {trouble}",
            loss / 10,
            reorder / 10,
            jitter.as_millis()
        )
    }
}

/// What became of a case's players.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Seats that were taken, and taken again.
    pub joins: usize,
    pub resumes: usize,
    /// Echoes of inputs in all, and since the trouble was over.
    pub echoes: usize,
    pub echoes_after: usize,
    /// The longest that any player heard nothing, and the longest way into the game.
    silence: Duration,
    joined_after: Duration,
    carried: u64,
    /// What must not be.
    pub broken: Vec<String>,
}

impl Outcome {
    pub const HEAD: &str = "case                                               joins resumed  echoes  packets  longest silence  slowest join";

    pub fn row(&self, case: &Case) -> String {
        format!(
            "{:<50} {:>5} {:>7} {:>7} {:>8} {:>14.1} s {:>11.1} s{}",
            case.name(),
            self.joins,
            self.resumes,
            self.echoes,
            self.carried,
            self.silence.as_secs_f64(),
            self.joined_after.as_secs_f64(),
            if self.broken.is_empty() {
                ""
            } else {
                "  BROKEN"
            },
        )
    }
}

/// The stack that all cases share.
pub struct Stage {
    stack: Stack,
    gateway: Host,
}

impl Stage {
    pub async fn start() -> Self {
        // Time passes here: blackouts and graces are of real seconds.
        let stack = Stack::start_with(|config| config.clock = Clock::system()).await;
        let mut config = stack.gateway_config("one");
        config.clock = Clock::system();
        let gateway = stack.gateway(config).await;
        Self { stack, gateway }
    }

    pub async fn stop(self) {
        self.gateway.stop().await;
    }

    /// What the game was told of these sessions' seats, in order.
    fn changes_of(&self, sessions: &BTreeSet<SessionId>) -> Vec<SeatChange> {
        let mut handles = BTreeSet::new();
        let changes = self.gateway.changes.lock().unwrap();
        let mut of_them = Vec::new();
        for change in changes.iter() {
            if let SeatChange::Joined(joined) = change
                && sessions.contains(&joined.session)
            {
                handles.insert(joined.handle);
            }
            if handles.contains(&change.handle()) {
                of_them.push(*change);
            }
        }
        of_them
    }
}

/// Plays a case to its end.
pub async fn play(stage: &Stage, case: Case) -> Outcome {
    let mut outcome = Outcome::default();
    let mut sessions = BTreeSet::new();
    let mut players = Vec::new();
    let mut relay = None;
    for number in 0..PLAYERS {
        let session = stage.stack.login(&format!("{}-{number}", case.seed)).await;
        sessions.insert(session.id);
        let keeper = SessionKeeper::with(
            stage.stack.account.clone(),
            session,
            RefreshPolicy::default(),
            Clock::system(),
        );
        if relay.is_none() {
            let ticket = stage.stack.ticket(&keeper.session(), "one").await;
            let gateway = ticket.addresses[0];
            relay = Some(Relay::through(gateway, case.weather, case.seed * 1_000).await);
        }
        players.push(keeper);
    }
    let relay = relay.unwrap();
    let mut playing = JoinSet::new();
    for keeper in players {
        playing.spawn(begin(keeper, relay.address()));
    }
    let mut seated = Vec::new();
    while let Some(player) = at_last("every join", playing.join_next()).await {
        let player = player.unwrap();
        outcome.joined_after = outcome.joined_after.max(player.joined_after);
        seated.push(player);
    }
    outcome.play(&mut seated, CALM).await;
    match case.trouble {
        Trouble::None => {}
        Trouble::Dark(seconds) => {
            relay.pass(false);
            outcome
                .play(&mut seated, Duration::from_secs(seconds))
                .await;
            relay.pass(true);
        }
        Trouble::Rebind => relay.rebind(),
        Trouble::Move => {
            // A network for each case: what one of them does is charged to it alone.
            let network = (case.seed % 250) as u8 + 1;
            relay.move_to(Ipv4Addr::new(127, 30, network, 1));
            outcome.play(&mut seated, CALM).await;
            relay.move_to(Ipv4Addr::new(127, 31, network, 1));
        }
    }
    let before = outcome.echoes;
    outcome.play(&mut seated, CALM).await;
    // Whoever the trouble has thrown off the line comes back by himself: within the idle timeout and the grace.
    for player in &mut seated {
        player.echoes_again().await;
        outcome.echoes += 1;
    }
    outcome.echoes_after = outcome.echoes - before;
    for change in stage.changes_of(&sessions) {
        if let SeatChange::Ended {
            reason, session, ..
        } = change
        {
            let what = format!("the seat of {session} ended as {reason:?} while it was played");
            outcome.broken.push(what);
        }
    }
    outcome.silence = seated.iter().map(|p| p.silence).max().unwrap_or_default();
    leave(stage, seated, &sessions).await;
    outcome.carried = relay.carried();
    outcome.judge(&stage.changes_of(&sessions));
    outcome
}

/// Everybody leaves; the game is told of each end, be it after the grace, where no word of it came through.
async fn leave(stage: &Stage, seated: Vec<Player>, sessions: &BTreeSet<SessionId>) {
    let mut leaving = JoinSet::new();
    for player in seated {
        leaving.spawn(async move { player.play.leave().await });
    }
    at_last("everybody leaves", leaving.join_all()).await;
    let all_told = async {
        loop {
            let changes = stage.changes_of(sessions);
            let ends = changes
                .iter()
                .filter(|change| matches!(change, SeatChange::Ended { .. }));
            if ends.count() >= sessions.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    at_last("every end is told", all_told).await;
}

impl Outcome {
    /// The players play for so long.
    async fn play(&mut self, seated: &mut [Player], time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for player in seated.iter_mut() {
                self.echoes += player.turn();
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Each session joined once, in one seat, and that one ended once; told in that order.
    fn judge(&mut self, changes: &[SeatChange]) {
        let mut joins: BTreeMap<SessionId, usize> = BTreeMap::new();
        let mut ends: BTreeMap<Handle, usize> = BTreeMap::new();
        for change in changes {
            match change {
                SeatChange::Joined(joined) => {
                    *joins.entry(joined.session).or_default() += 1;
                    ends.insert(joined.handle, 0);
                    self.joins += 1;
                }
                SeatChange::Resumed { .. } => self.resumes += 1,
                SeatChange::Suspended { .. } => {}
                SeatChange::Ended { handle, reason, .. } => {
                    *ends.entry(*handle).or_default() += 1;
                    if !matches!(reason, EndReason::Left | EndReason::Lost) {
                        self.broken.push(format!("{handle} ended as {reason:?}"));
                    }
                }
            }
        }
        for (session, joins) in joins {
            if joins != 1 {
                self.broken.push(format!("{session} joined {joins} times"));
            }
        }
        for (handle, ends) in ends {
            if ends != 1 {
                self.broken
                    .push(format!("the end of {handle} was told {ends} times"));
            }
        }
    }
}

struct Player {
    play: Play,
    events: Events,
    joined_after: Duration,
    heard: Instant,
    silence: Duration,
}

/// Comes into the game through the relay.
async fn begin(keeper: SessionKeeper, through: SocketAddr) -> Player {
    let tickets = move |target: Target, _key: Option<[u8; 32]>| {
        let keeper = keeper.clone();
        async move {
            let mut ticket = keeper.issue_connect_token(target, None).await?;
            ticket.addresses = vec![through];
            Ok(ticket)
        }
    };
    let start = Instant::now();
    let (play, mut events) = Play::start(endpoint(), tickets, Target::Any, PlayOptions::default());
    while !matches!(
        events.next().await.expect("the game goes on"),
        Event::Joined { .. }
    ) {}
    Player {
        play,
        events,
        joined_after: start.elapsed(),
        heard: Instant::now(),
        silence: Duration::ZERO,
    }
}

impl Player {
    /// Sends an input, and counts the echoes that have come.
    fn turn(&mut self) -> usize {
        let _ = self.play.send_datagram(Bytes::from_static(b"input"));
        let mut echoes = 0;
        while self.play.try_recv_datagram().is_some() {
            echoes += 1;
        }
        let now = Instant::now();
        self.silence = self.silence.max(now - self.heard);
        if echoes > 0 {
            self.heard = now;
        }
        while self.events.try_next().is_some() {}
        echoes
    }

    async fn echoes_again(&mut self) {
        let echo = async {
            while self.turn() == 0 {
                tokio::time::sleep(EVERY).await;
            }
        };
        at_last("an echo after all", echo).await;
    }
}
